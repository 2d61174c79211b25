"""Live asking, against a server on this machine: budgets, retries, bad answers, the key, interruptions."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
from chat_server import (
    KEY,
    MODEL,
    PATH,
    PATIENCE,
    ChatServer,
    Reply,
    chat,
    failure,
    good,
    only_this_machine,
    sentences,
    serving,
)

from cmmlib.errors import InputError, ProviderError
from cmmlib.texts import llm, provider, sending
from cmmlib.texts.enrichment import replay
from cmmlib.texts.llm import ATTEMPTS, Budget, Session
from cmmlib.texts.questions import Question
from cmmlib.texts.transcripts import load_transcript

NAMES = ["lion", "bear", "wolf", "lynx", "puma"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch) -> Iterator[None]:
    with only_this_machine(monkeypatch):
        yield


@dataclass
class Asked:
    """A session that never sleeps, and what came of it."""

    server: ChatServer
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
        assert spent.kept == len(records)
        assert set(self.server.paths) <= {PATH}
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
        (Reply(b"", dropped=True), "the connection failed"),
        (Reply(good("lion").body[:150]), "the answer, of status 200, cannot be read"),  # half a JSON
        (Reply(b"<html>Bad gateway</html>", headers={"Content-Type": "text/html"}), "a web page came back"),
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


def test_the_server_may_say_how_long_to_wait_as_a_date(asked, server):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    late = format_datetime(datetime.now(UTC) + timedelta(days=30), usegmt=True)
    server.script["lion"] = [failure(429, Retry_After=date) for date in (soon, late)]
    assert asked.ask(["lion"])[0] == {"lion"}
    assert 20 < asked.pauses[0] <= 30
    assert asked.pauses[1] == llm.LONGEST_WAIT


def test_waiting_ends_after_a_while_however_patient_the_server_wants_us(asked, server, monkeypatch):
    monkeypatch.setattr(llm, "LONGEST_TRY", 0.0)
    server.script["lion"] = [failure(429, Retry_After="1")] * 2
    assert asked.ask(["lion"])[1] == {"lion": "no answer after 1 requests: RateLimitError"}
    assert asked.pauses == []


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
    "nothing": (chat(""), "an empty answer"),
    "null": (chat(None), "an empty answer"),
    "no choices": (chat("", choices=[]), "an empty answer"),
    "a string": (chat('{"descriptions": "A lion stands. It is gold."}'), "no list of sentences"),
    "numbers": (chat('{"descriptions": [1, 2, 3, 4]}'), "no list of sentences"),
    "another key": (chat('{"sentences": ["A.", "B.", "C."]}'), "no list of sentences"),
    "too few": (chat('{"descriptions": ["A lion.", "A LION", "Gold."]}'), "2 usable sentences, 3 are needed"),
    "only tags": (chat('["<b></b>", "<script>one</script>", "<script>two"]'), "0 usable sentences, 3 are needed"),
    "cut short": (chat('{"descriptions": ["A lion stands.", "The', "length"), "cut at 7 tokens"),
    "cut while thinking": (chat("<think>A lion [1] is", "length"), "cut at 7 tokens"),
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


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (failure(500), "InternalServerError"),
        (Reply(b"", 204), "the answer, of status 204, cannot be read"),
        (Reply(chat("Sorry.")), "no JSON"),
    ],
    ids=["500", "204", "no JSON"],
)
def test_a_class_that_was_asked_about_before_the_budget_ended_has_its_reason(asked, server, bad, reason):
    server.always = bad
    answered, failed, _ = asked.ask(["lion", "bear"], budget=Budget(max_requests=1), concurrency=1)
    assert answered == set()
    assert failed == {
        "lion": f"not asked again: the budget is used up; before that: {reason}",
        "bear": "not asked: the budget is used up",
    }


def test_a_whole_answer_that_is_no_text_is_paid_for_once_at_an_unknown_cost(asked, server):
    server.script["bear"] = [Reply(chat(["A bear."]))]  # type: ignore[arg-type]
    answered, failed, spent = asked.ask(["lion", "bear"])
    assert (answered, failed) == ({"lion"}, {"bear": "the answer came whole and is no text"})
    assert server.requests == {"lion": 1, "bear": 1}
    assert not spent.priced


def test_the_limit_of_a_cost_ends_with_an_answer_whose_cost_is_unknown(asked, server, monkeypatch):
    monkeypatch.setattr(provider.Provider, "require_price", lambda self: None)
    monkeypatch.setattr(provider, "_cost", lambda response: 0.4)
    server.script["lion"] = [Reply(chat(good("lion").body.decode(), usage="many"))]
    _, failed, _ = asked.ask(["lion", "bear"], budget=Budget(max_cost=1.0), concurrency=1)
    reason = "the price of an answer is not known, so max_cost cannot be kept"
    assert failed["bear"] == f"not asked: {reason}"
    assert failed["lion"].startswith(f"not asked again: {reason}; before that: ")


def test_nothing_is_asked_where_the_answers_could_not_be_kept(asked, server, monkeypatch):
    def read_only(dir: Path) -> None:
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr("cmmlib.storage.text_files.tempfile.TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        llm.ask(questions(NAMES), asked.session())
    monkeypatch.undo()
    assert not server.requests
    assert not asked.transcript.parent.exists()


def test_a_budget_of_nothing_asks_nothing(asked, server, monkeypatch):
    assert asked.ask(NAMES, budget=Budget(max_requests=0))[0] == set()
    monkeypatch.setattr(provider.Provider, "require_price", lambda self: None)
    assert asked.ask(NAMES, budget=Budget(max_cost=0.0))[0] == set()
    assert not server.requests


def test_no_request_once_the_cost_is_reached(asked, server, monkeypatch):
    monkeypatch.setattr(provider.Provider, "require_price", lambda self: None)
    monkeypatch.setattr(provider, "_cost", lambda response: 0.4)
    answered, failed, spent = asked.ask(NAMES, budget=Budget(max_cost=1.0), concurrency=1)
    assert len(answered) == 3  # the third began below the limit
    assert set(failed.values()) == {"not asked: the budget is used up"}
    assert spent.cost == pytest.approx(1.2)
    assert (spent.tokens, spent.priced) == (36, True)
    assert {record.cost for record in load_transcript(asked.transcript).records} == {0.4}


def test_a_cost_that_cannot_be_kept_is_refused_before_anything_is_asked(asked, server):
    refusal = rf"^max_cost: litellm knows no price of {MODEL}, so --max-cost cannot be kept: give --max-requests$"
    with pytest.raises(InputError, match=refusal):
        llm.ask(questions(NAMES), asked.session(budget=Budget(max_cost=1.0)))
    assert not server.requests
    provider.Provider("openai/gpt-4o-mini").require_price()  # whose price is known


@pytest.mark.parametrize("model", ["test-model", "nobody/test-model"])
def test_a_model_of_no_provider_is_refused_before_anything_is_asked(asked, server, model):
    with pytest.raises(InputError, match=f"^llm: '{model}' names no provider that litellm knows: use openai/MODEL, "):
        llm.ask(questions(NAMES), asked.session(model=model, base_url=None))
    assert not server.requests


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


INTERRUPTED = """
import sys
from pathlib import Path
from cmmlib.texts import llm
from cmmlib.texts.questions import Question
url, transcript, *names = sys.argv[1:]
try:
    llm.ask(
        {c: Question(name, "shields") for c, name in enumerate(names)},
        llm.Session("openai/test-model", Path(transcript), url, concurrency=2),
    )
except KeyboardInterrupt:
    sys.exit(130)
"""


WAITED_FOR = "stopping: answers under way are waited for, 60 s at most; Ctrl-C again leaves them\n"


@contextmanager
def interrupted(asked: Asked, reply: dict[str, Reply]) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """A process that got Ctrl-C while the server holds these two replies back, until the event."""
    arrived, held = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        arrived.release()
        held.wait(PATIENCE)

    asked.server.script = {name: [replace(reply[name], after=hold)] * 6 for name in reply}
    command = [sys.executable, "-c", INTERRUPTED, asked.server.url, str(asked.transcript), *NAMES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in reply:
            assert arrived.acquire(timeout=4 * PATIENCE)  # the imports take their time
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == WAITED_FOR
        yield process, held
        held.set()
    assert process.returncode == 130


def test_after_ctrl_c_nothing_is_tried_again(asked, server):
    with interrupted(asked, {"lion": Reply(b"", 500), "bear": Reply(chat("Sorry."))}) as (process, held):
        held.set()
        assert process.communicate(timeout=PATIENCE) == ("", "")
    assert server.requests == {"lion": 1, "bear": 1}
    assert not asked.transcript.exists()


def test_a_second_ctrl_c_leaves_at_once_and_without_a_word(asked, server):
    with interrupted(asked, {"lion": good("lion"), "bear": good("bear")}) as (process, held):
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE / 2) == ("", "")
        assert not held.is_set()
    assert not asked.transcript.exists()


def test_a_session_stops_after_some_failures_in_a_row_and_says_what_is_kept(asked, server):
    names = [*NAMES, *(f"class {i}" for i in range(30))]
    for name in names[5:]:
        server.script[name] = [failure(400)]
    with pytest.raises(ProviderError) as error:
        llm.ask(questions(names), asked.session(concurrency=2))
    told = re.fullmatch(
        rf"llm: {MODEL} left (\d+) classes in a row without an answer, the last: the provider failed: BadRequestError; "
        rf"5 answers are kept in {re.escape(str(asked.transcript))}, and the same command asks for the rest",
        str(error.value),
    )
    assert told
    assert int(told[1]) >= llm.MOST_FAILURES  # with those that ended at the same moment
    assert {record.class_name for record in load_transcript(asked.transcript).records} == set(NAMES)
    assert 5 + int(told[1]) <= server.requests.total() < len(names) / 2  # those that were under way besides


def test_failures_that_answers_come_between_stop_nothing(asked, server):
    names = [f"class {i}" for i in range(20)]
    server.script = {name: [failure(400)] for i, name in enumerate(names) if i % 5}
    answered, failed, _ = asked.ask(names, concurrency=1)
    assert len(answered) == 4
    assert len(failed) == 16


def test_when_the_last_classes_fail_nothing_is_left_to_stop(asked, server):
    server.script = {name: [failure(400)] for name in NAMES}
    assert asked.ask(NAMES)[1].keys() == set(NAMES)


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
from cmmlib.texts import provider
litellm = provider.load_litellm()
print(tried, litellm.telemetry, litellm.suppress_debug_info)
"""


def test_litellm_is_loaded_without_a_network_or_a_word():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
    done = subprocess.run([sys.executable, "-c", QUIET_IMPORT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] False True\n", "")


@pytest.mark.parametrize("key", ["sk-x\n", " sk-x", "\u201csk-x\u201d"])
def test_a_key_that_no_request_can_carry_is_refused_without_being_shown(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(
        InputError, match=r"^llm: the key in OPENAI_API_KEY holds a space, a line end or a letter"
    ) as error:
        provider.Provider("openai/x").require_name()
    assert "sk-x" not in str(error.value)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-y")
    provider.Provider("anthropic/x").require_name()  # another provider's key does not matter


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://[::1", "http://me@host:word"])
def test_a_proxy_that_no_client_can_use_is_named(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setattr(sending, "_watch_redirects", sending._watch_redirects.__wrapped__)  # done once, else
    if importlib.util.find_spec("socksio") is None or "socks" not in proxy:
        with pytest.raises(InputError, match=r"^llm: no client can use the proxy in ALL_PROXY: ") as error:
            provider.load_litellm()
        assert "word" not in str(error.value)


def test_without_litellm_the_extra_is_named(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(InputError, match=r"pip install 'cmmlib\[llm\]'"):
        llm.ask(questions(["lion"]), asked.session())


def test_a_price_that_litellm_knows_is_counted(monkeypatch):
    litellm = provider.load_litellm()
    usage = litellm.Usage(prompt_tokens=1000, completion_tokens=1000, total_tokens=2000)
    reply = provider._reply(litellm.ModelResponse(model="gpt-4o-mini", usage=usage))
    price = litellm.model_cost["gpt-4o-mini"]
    assert reply.tokens == 2000
    assert reply.cost == pytest.approx(1000 * (price["input_cost_per_token"] + price["output_cost_per_token"]))
