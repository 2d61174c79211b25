"""Live asking, against a server on this machine that speaks OpenAI's chat API and misbehaves on demand."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cmmlib.errors import InputError
from cmmlib.texts import llm
from cmmlib.texts.enrichment import replay
from cmmlib.texts.llm import ATTEMPTS, Budget, Session
from cmmlib.texts.questions import Question
from cmmlib.texts.transcripts import load_transcript

KEY = "sk-test-8f3b1c9d7e5a"
MODEL = "openai/test-model"
PATIENCE = 30.0  # seconds that something sure to happen may take
NAMES = ["lion", "bear", "wolf", "lynx", "puma"]


# ---------------------------------------------------------------- the server


@dataclass(frozen=True)
class Reply:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False
    after: Callable[[], object] | None = None  # sent once this returns


def chat(content: str | None, **changes) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "test-model", "choices": [choice]}
    return json.dumps({**whole, "usage": usage, **changes}).encode()


def sentences(name: str) -> list[str]:
    return [f"A {name} stands.", f"The {name} is gold.", f"Its field is red, {name} or not."]


def good(name: str, **how) -> Reply:
    return Reply(chat(json.dumps({"descriptions": sentences(name)})), **how)


def failure(status: int, **headers: str) -> Reply:
    """An error that quotes the key, as some providers' do."""
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}.", "type": "t", "code": None}})
    return Reply(body.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


class Server(ThreadingHTTPServer):
    """Answers by class: what `script` has for it, one after the other, then good answers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, list[Reply]] = {}
        self.requests: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.active = self.most_active = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def reply(self, name: str) -> Reply:
        with self.lock:
            self.requests[name] += 1
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            reply = self.script[name].pop(0) if self.script.get(name) else good(name)
        try:
            if reply.after is not None:
                reply.after()
        finally:
            with self.lock:
                self.active -= 1  # before it is sent: the client may ask again at once
        return reply


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.add(self.headers["Authorization"])
        found = re.search(r"What does '(.+?)' look like", asked["messages"][0]["content"])
        assert self.path == "/v1/chat/completions"
        assert found
        assert asked["model"] == "test-model"
        reply = self.server.reply(found[1])
        if reply.dropped:
            return
        try:
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
        except OSError:  # the client did not wait
            pass

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch) -> Iterator[None]:
    """No test of this file reaches another machine; one that tries fails, whoever hides the error."""
    tried, connect, look_up = [], socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            tried.append(address)
            raise OSError(f"no network in tests: {address}")
        return connect(self, address)

    def guarded_look_up(host, *args, **kwargs):
        if host not in ("127.0.0.1", "::1", "localhost", None):
            tried.append(host)
            raise socket.gaierror(f"no network in tests: {host}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield
    assert tried == []


@dataclass
class Asked:
    """A session that never sleeps, and what came of it."""

    server: Server
    transcript: Path
    pauses: list[float] = field(default_factory=list)

    def session(self, **changes) -> Session:
        known = {"model": MODEL, "transcript": self.transcript, "base_url": self.server.url, "timeout": PATIENCE}
        return Session(**{**known, "pause": self.pauses.append, **changes})

    def ask(self, names: list[str], **changes):
        records, failed, spent = llm.ask(questions(names), self.session(**changes))
        assert not records.keys() & failed.keys()
        assert records.keys() | failed.keys() == set(range(len(names)))  # nothing is lost
        lines = load_transcript(self.transcript).records if self.transcript.exists() else []
        assert sorted(lines, key=str) == sorted(records.values(), key=str)  # nor lacks in the file, nor is there twice
        assert all(records[c].answer == tuple(sentences(names[c])) for c in records)
        assert spent.requests == self.server.requests.total()
        return {names[c] for c in records}, {names[c]: reason for c, reason in failed.items()}, spent


@pytest.fixture
def asked(server, tmp_path) -> Asked:
    return Asked(server, tmp_path / "answers" / "t.jsonl")


def questions(names: list[str]) -> dict[int, Question]:
    return {c: Question(name, "shields") for c, name in enumerate(names)}


# ---------------------------------------------------------------- all is well


def test_every_class_is_asked_once_and_recorded_with_its_source(asked, server):
    answered, failed, spent = asked.ask(NAMES)
    assert (answered, failed, asked.pauses) == (set(NAMES), {}, [])
    assert server.requests == Counter(NAMES)
    assert (spent.tokens, spent.cost, spent.priced) == (60, 0.0, False)
    for record in load_transcript(asked.transcript).records:
        assert (record.model, record.tokens, record.cost, record.origin) == (MODEL, 12, None, "live")
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", record.date or "")


def test_no_questions_are_no_requests(asked, server):
    assert asked.ask([])[:2] == (set(), {})
    assert not server.requests
    assert not asked.transcript.exists()


def test_rivals_and_style_are_recorded_with_the_answer(asked):
    question = Question("lion", "shields", "contrast", ("bear", "wolf"))
    records, _, _ = llm.ask({7: question}, asked.session())
    assert (records[7].style, records[7].rivals) == ("contrast", ("bear", "wolf"))
    assert replay({7: question}, load_transcript(asked.transcript)).other_rivals == []


def test_answers_that_are_known_are_not_asked_again(asked, server):
    asked.ask(NAMES[:3])
    found = replay(questions(NAMES), load_transcript(asked.transcript), model=MODEL)
    assert found.missing == [3, 4]
    records, failed, spent = llm.ask({c: found.questions[c] for c in found.missing}, asked.session())
    assert (records.keys(), failed, spent.requests) == ({3, 4}, {}, 2)
    assert server.requests == Counter(NAMES)
    assert not replay(questions(NAMES), load_transcript(asked.transcript)).missing


def test_markup_in_an_answer_reaches_no_record(asked, server):
    said = ["A <b>lion</b> stands.", "The <script>alert(1)</script>lion is gold.", "Its *field* is red, lion or not."]
    server.script["lion"] = [Reply(chat("```json\n" + json.dumps({"descriptions": said}) + "\n```"))]
    assert asked.ask(["lion"])[0] == {"lion"}


def test_sentences_that_do_not_fit_are_not_recorded(asked, server):
    said = ["A lion that is far too long for this text tower.", *sentences("lion")]
    server.script["lion"] = [Reply(chat(json.dumps(said)))]
    records, _, _ = llm.ask(questions(["lion"]), asked.session(), fits_context=lambda text: len(text) < 40)
    assert records[0].answer == tuple(sentences("lion"))


# ---------------------------------------------------------------- passing failures


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (failure(500), "InternalServerError"),
        (failure(503), "ServiceUnavailableError"),
        (failure(429), "RateLimitError"),
        (failure(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), "RateLimitError"),
        (Reply(b"", dropped=True), "InternalServerError"),
        (Reply(good("lion").body[:150]), "InternalServerError"),  # half a JSON
        (Reply(b"<html>Bad gateway</html>", headers={"Content-Type": "text/html"}), "InternalServerError"),
    ],
    ids=["500", "503", "429", "429 with a date", "dropped", "half a body", "html"],
)
def test_a_passing_failure_is_tried_again_and_one_for_good_is_reported(asked, server, bad, kind):
    server.script = {"lion": [bad], "bear": [bad] * (ATTEMPTS + 1)}
    answered, failed, _ = asked.ask(NAMES)
    assert answered == {*NAMES} - {"bear"}
    assert failed == {"bear": f"no answer after {ATTEMPTS} requests: {kind}"}
    assert server.requests == {**Counter(NAMES), "lion": 2, "bear": ATTEMPTS}
    assert len(asked.pauses) == 1 + ATTEMPTS - 1  # none after the last
    growing = sorted(asked.pauses)[1:]
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(growing))


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_how_long_to_wait_within_reason(asked, server, status):
    asks = ["7", "0.5", "0", "86400", "-3"]
    server.script["lion"] = [failure(status, Retry_After=seconds) for seconds in asks]
    assert asked.ask(["lion"])[0] == {"lion"}
    assert asked.pauses == [7.0, 0.5, 0.0, llm.LONGEST_WAIT, 0.0]


def test_a_request_that_takes_too_long_is_tried_again(asked, server):
    over = threading.Event()
    server.script["lion"] = [good("lion", after=partial(over.wait, PATIENCE))]
    asked.pauses = Pauses(over)
    answered, failed, _ = asked.ask(["lion"], timeout=0.15)
    assert (answered, failed) == ({"lion"}, {})
    assert server.requests["lion"] == len(asked.pauses) + 1 >= 2


class Pauses(list):
    """Pauses that let the server's waiting replies go."""

    def __init__(self, over: threading.Event):
        super().__init__()
        self.over = over

    def append(self, seconds: float) -> None:
        super().append(seconds)
        self.over.set()


# ---------------------------------------------------------------- bad answers

BAD = {
    "half a JSON": (chat('{"descriptions": ["A lion stands.", "The li'), "no JSON"),
    "a refusal": (chat("I'm sorry, but I can't help with that."), "no JSON"),
    "nothing": (chat(""), "no JSON"),
    "null": (chat(None), "no JSON"),
    "no choices": (chat("", choices=[]), "no JSON"),
    "a string": (chat('{"descriptions": "A lion stands. It is gold."}'), "no list of sentences"),
    "numbers": (chat('{"descriptions": [1, 2, 3, 4]}'), "no list of sentences"),
    "another key": (chat('{"sentences": ["A.", "B.", "C."]}'), "no list of sentences"),
    "too few": (chat('{"descriptions": ["A lion.", "A LION", "Gold."]}'), "2 usable sentences, 3 are needed"),
    "only tags": (chat('["<b></b>", "<script>one</script>", "<script>two"]'), "0 usable sentences, 3 are needed"),
    "10 MB": (chat("A lion. " * 1_250_000), "an answer of 10,000,000 characters"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_a_bad_answer_is_asked_again_exactly_once(asked, server, bad, reason):
    server.script = {"lion": [Reply(bad)], "bear": [Reply(bad)] * 3}
    answered, failed, spent = asked.ask(NAMES)
    assert answered == {*NAMES} - {"bear"}
    assert failed == {"bear": f"unusable twice: {reason}"}
    assert server.requests == {**Counter(NAMES), "lion": 2, "bear": 2}
    assert spent.tokens == 12 * 7  # bad answers are paid for too
    assert asked.pauses == []


# ---------------------------------------------------------------- refusals, and the key


@pytest.mark.parametrize(("status", "says"), [(401, "the key was refused"), (404, "there is no such model")])
def test_a_provider_that_refuses_ends_the_session_in_one_line(asked, server, status, says):
    server.script["bear"] = [failure(status)]
    with pytest.raises(InputError, match=f"^llm: {MODEL}: {says}") as error:
        llm.ask(questions(NAMES), asked.session(concurrency=1))
    assert "\n" not in str(error.value)
    assert [record.class_name for record in load_transcript(asked.transcript).records][:1] == ["lion"]
    assert server.requests["bear"] == 1


def test_a_missing_key_is_told_before_anything_is_sent(asked, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="the key was refused or is missing: set the provider's variable"):
        llm.ask(questions(NAMES), asked.session())
    assert not server.requests
    assert asked.pauses == []


def test_any_other_failure_is_reported_and_the_rest_goes_on(asked, server):
    server.script["bear"] = [failure(400)]
    answered, failed, _ = asked.ask(NAMES)
    assert answered == {*NAMES} - {"bear"}
    assert failed == {"bear": "the provider failed: BadRequestError"}
    assert server.requests == Counter(NAMES)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_sent_and_goes_nowhere_else(asked, server, status, tmp_path, own_cache, caplog, capfd):
    caplog.set_level(logging.INFO)
    server.script["bear"] = [failure(status)] * (ATTEMPTS + 1)
    try:
        records, failed, spent = llm.ask(questions(NAMES), asked.session(concurrency=1))
        told = f"{records} {failed} {spent}"
        assert failed.keys() == {1}
    except InputError as error:
        told = "".join(traceback.format_exception(error))
    logged = "".join(f"{record.getMessage()} {record.exc_text} {record.args}" for record in caplog.records)
    files = [file for folder in (tmp_path, own_cache) for file in folder.rglob("*") if file.is_file()]
    assert server.keys == {f"Bearer {KEY}"}
    assert asked.transcript in files
    texts = {"told": told, "logged": logged + caplog.text, "printed": "".join(capfd.readouterr())}
    texts |= {file.name: file.read_text(encoding="utf-8") for file in files}
    assert [where for where, text in texts.items() if KEY in text] == []


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_than_the_budget_has(asked, server, concurrency):
    answered, failed, spent = asked.ask(NAMES, budget=Budget(max_requests=3), concurrency=concurrency)
    assert len(answered) == 3
    assert set(failed.values()) == {"not asked: the budget is used up"}
    assert spent.requests == server.requests.total() == 3


def test_requests_that_failed_or_are_repeated_count_too(asked, server):
    server.script["lion"] = [failure(500), Reply(chat("Sorry."))]
    answered, failed, _ = asked.ask(NAMES, budget=Budget(max_requests=4), concurrency=1)
    assert answered == {"lion", "bear"}
    assert failed.keys() == {"wolf", "lynx", "puma"}
    assert server.requests == {"lion": 3, "bear": 1}


def test_a_budget_of_nothing_asks_nothing(asked, server):
    assert asked.ask(NAMES, budget=Budget(max_requests=0))[0] == set()
    assert asked.ask(NAMES, budget=Budget(max_cost=0.0))[0] == set()
    assert not server.requests


def test_no_request_once_the_cost_is_reached(asked, server, monkeypatch):
    monkeypatch.setattr(llm, "_usage", lambda response: (10, 0.4))
    answered, failed, spent = asked.ask(NAMES, budget=Budget(max_cost=1.0), concurrency=1)
    assert len(answered) == 3  # the third began below the limit
    assert set(failed.values()) == {"not asked: the budget is used up"}
    assert spent.cost == pytest.approx(1.2)
    assert (spent.tokens, spent.priced) == (30, True)
    assert {record.cost for record in load_transcript(asked.transcript).records} == {0.4}


@pytest.mark.parametrize("limit", [1, 3])
def test_as_many_requests_at_a_time_as_allowed_and_never_more(asked, server, limit):
    names = [f"class {i}" for i in range(4 * limit)]
    too_many, together = threading.Barrier(limit + 1), threading.Barrier(limit)

    def hold() -> None:
        with suppress(threading.BrokenBarrierError):
            too_many.wait(0.1)  # time for one too many to come; broken, it holds nobody
        together.wait(PATIENCE)  # lets replies go by `limit` at a time; fewer would break it

    server.script = {name: [good(name, after=hold)] for name in names}
    assert asked.ask(names, concurrency=limit)[0] == set(names)
    assert server.most_active == limit
    assert not together.broken


# ---------------------------------------------------------------- interruptions


def interrupt(monkeypatch, after: int) -> None:
    """Ctrl-C while the progress bar notes the answer of that number."""
    seen = Counter()

    def update(self, n=1):
        seen["answers"] += 1
        if seen["answers"] == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(llm.tqdm, "update", update)
    monkeypatch.setattr(llm, "ThreadPoolExecutor", partial(ThreadPoolExecutor, thread_name_prefix="asking"))


def finish(held: threading.Event) -> int:
    """Let go what the server holds back, and wait for the threads that asked for it."""
    under_way = [thread for thread in threading.enumerate() if thread.name.startswith("asking")]
    held.set()
    for thread in under_way:
        thread.join(PATIENCE)
    return len(under_way)


def test_ctrl_c_keeps_what_was_answered_and_the_rest_is_asked_later(asked, server, monkeypatch):
    held = threading.Event()
    server.script["wolf"] = [good("wolf", after=partial(held.wait, PATIENCE))]
    with monkeypatch.context() as patch:
        interrupt(patch, after=2)
        with pytest.raises(KeyboardInterrupt):
            llm.ask(questions(NAMES), asked.session(concurrency=1))
    finish(held)
    kept = [record.class_name for record in load_transcript(asked.transcript).records]
    assert kept[:2] == ["lion", "bear"]
    assert Counter(kept) == server.requests  # what was under way is kept as well
    assert "puma" not in kept
    found = replay(questions(NAMES), load_transcript(asked.transcript))
    llm.ask({c: found.questions[c] for c in found.missing}, asked.session())
    assert server.requests == Counter(NAMES)


def test_after_ctrl_c_nothing_is_tried_again(asked, server, monkeypatch):
    arrived, held = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        held.wait(PATIENCE)

    server.script["lion"] = [good("lion", after=partial(arrived.wait, PATIENCE))]
    server.script["bear"] = [Reply(b"", 500, after=hold)] * ATTEMPTS
    interrupt(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        llm.ask(questions(["lion", "bear"]), asked.session(concurrency=2))
    assert finish(held) > 0
    assert server.requests == {"lion": 1, "bear": 1}


@pytest.mark.parametrize("cut", [3, 40, -1])
def test_a_half_line_is_closed_before_the_next_and_skipped(asked, server, cut):
    asked.ask(NAMES[:2])
    whole = asked.transcript.read_bytes().splitlines()
    lost, kept = load_transcript(asked.transcript).records[::-1]
    asked.transcript.write_bytes(whole[0] + b"\n" + whole[1][:cut])
    found = replay(questions(NAMES), load_transcript(asked.transcript))
    assert [NAMES[c] for c in found.missing] == [lost.class_name, *NAMES[2:]]
    llm.ask({c: found.questions[c] for c in found.missing}, asked.session())
    lines = asked.transcript.read_bytes().splitlines()
    assert lines[:2] == [whole[0], whole[1][:cut]]
    assert {record.class_name for record in load_transcript(asked.transcript).records} == set(NAMES)
    assert server.requests == {**Counter(NAMES), lost.class_name: 2}
    assert kept.class_name != lost.class_name


def test_a_last_line_without_its_end_is_kept_whole(asked):
    asked.ask(["lion"])
    asked.transcript.write_bytes(asked.transcript.read_bytes().rstrip(b"\n"))
    llm.ask(questions(["bear"]), asked.session())
    assert [record.class_name for record in load_transcript(asked.transcript).records] == ["lion", "bear"]


# ---------------------------------------------------------------- litellm itself

QUIET_IMPORT = """
import socket
tried = []
def refuse(*args, **kwargs):
    tried.append(args)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from cmmlib.texts import llm
litellm = llm._litellm()
print(tried, litellm.telemetry, litellm.suppress_debug_info)
"""


def test_litellm_is_loaded_without_a_network_or_a_word():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
    done = subprocess.run([sys.executable, "-c", QUIET_IMPORT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] False True\n", "")


def test_without_litellm_the_extra_is_named(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(InputError, match=r"pip install 'cmmlib\[llm\]'"):
        llm.ask(questions(["lion"]), asked.session())


def test_a_price_that_litellm_knows_is_counted(monkeypatch):
    litellm = llm._litellm()
    usage = litellm.Usage(prompt_tokens=1000, completion_tokens=1000, total_tokens=2000)
    tokens, cost = llm._usage(litellm.ModelResponse(model="gpt-4o-mini", usage=usage))
    price = litellm.model_cost["gpt-4o-mini"]
    assert tokens == 2000
    assert cost == pytest.approx(1000 * (price["input_cost_per_token"] + price["output_cost_per_token"]))
