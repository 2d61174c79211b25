"""One request, against servers on this machine: its time, its redirects, and what is said of a wrong address."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import pytest
from chat_server import (
    KEY,
    MODEL,
    PATH,
    ChatServer,
    Reply,
    chat,
    failure,
    good,
    only_this_machine,
    sentences,
    serving,
)

from cmmlib.errors import InputError
from cmmlib.texts.provider import NoText, Passing, Provider, Unanswered
from cmmlib.texts.questions import Question, checked_sentences
from cmmlib.texts.sending import MOST_BYTES, MOST_REDIRECTS

QUESTION = Question("lion", "shields").text
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with only_this_machine(monkeypatch):
        yield


class Counted:
    """How often a request was counted."""

    def __init__(self):
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


# ---------------------------------------------------------------- its time


@pytest.mark.parametrize("first", [0, len(good("lion").whole()) - 100], ids=["headers", "body"])
def test_a_server_that_drips_a_byte_at_a_time_does_not_hold_a_request_for_ever(server, first):
    provider = Provider(MODEL, server.url)
    provider.ask(QUESTION, Counted())  # litellm is loaded now
    provider.timeout, server.always = 0.5, good("lion", drips=0.1, drips_from=first)
    began = time.monotonic()
    with pytest.raises(Passing, match=r"^Timeout$"):
        provider.ask(QUESTION, Counted())
    assert time.monotonic() - began < 5  # the whole would take ten seconds and more


# ---------------------------------------------------------------- redirects


@pytest.mark.parametrize("model", [MODEL, "anthropic/test-model", "ollama/test-model"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused_and_named_and_the_key_does_not_go_there(
    server, elsewhere, model, status
):
    server.always = Reply(b"", status, {"Location": f"{elsewhere.url}/chat/completions?key={KEY}"})
    with pytest.raises(InputError) as error:
        Provider(model, server.host).ask(QUESTION, Counted())
    assert str(error.value) == (
        f"llm: {server.host} redirects to {elsewhere.host}, and a key is sent to no other host: "
        "if that is the place, give it as --llm-base-url"
    )
    assert not elsewhere.paths
    assert server.paths.total() == 1


def test_a_redirect_within_the_host_is_followed_and_counted(server):
    server.script["lion"] = [Reply(b"", 307, {"Location": PATH + "?again"}), good("lion")]
    count = Counted()
    reply = Provider(MODEL, server.url).ask(QUESTION, count)
    assert len(checked_sentences(reply.text)) == 3
    assert server.paths == {PATH: 1, PATH + "?again": 1}
    assert count.times == 2


def test_redirects_in_a_circle_are_followed_a_few_times(server):
    server.always = Reply(b"", 308, {"Location": PATH})
    count = Counted()
    with pytest.raises(InputError, match=f"^llm: {server.host} redirects more than {MOST_REDIRECTS} times: check"):
        Provider(MODEL, server.url).ask(QUESTION, count)
    assert server.paths.total() == count.times == MOST_REDIRECTS + 1


def test_a_redirect_that_would_lose_the_question_is_named(server):
    server.always = Reply(b"", 301, {"Location": f"/v2/chat/completions?key={KEY}"})
    with pytest.raises(InputError, match=f"^llm: {server.host} redirects to {server.host}/v2/chat/completions: give "):
        Provider(MODEL, server.url).ask(QUESTION, Counted())
    assert server.paths.total() == 1


# ---------------------------------------------------------------- response_format


def test_a_server_that_refuses_response_format_is_asked_without_it_from_then_on(server):
    server.takes_json_mode = False
    provider, count = Provider(MODEL, server.url), Counted()
    for asked in (2, 3, 4):
        assert len(checked_sentences(provider.ask(QUESTION, count).text)) == 3
        assert count.times == server.requests["lion"] == asked
    assert not provider.asks_for_json


def test_a_server_that_refuses_whatever_it_is_asked_is_asked_twice(server):
    server.always = failure(400, "response_format and all else is wrong")
    provider = Provider(MODEL, server.url)
    with pytest.raises(Unanswered, match=r"^the provider failed: BadRequestError$"):
        provider.ask(QUESTION, Counted())
    assert server.requests["lion"] == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [(402, "status 402, Payment Required"), (418, "status 418, I'm a Teapot"), (200, "it sent an error in place of")],
)
def test_an_error_without_a_name_says_its_status_and_nothing_of_the_message(server, status, says):
    server.always = failure(status, "Insufficient credits")
    with pytest.raises(Unanswered, match=f"^the provider failed: {says}") as error:
        Provider(MODEL, server.url).ask(QUESTION, Counted())
    assert "credits" not in str(error.value)


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (Reply(b"<html>Welcome</html>", headers=HTML), "a web page"),
        (Reply(b"<html>No such page</html>", 404, HTML), "a web page"),
        (Reply(b"<html>Unsupported method</html>", 501, HTML), "a web page"),
        (failure(404), "not found"),
    ],
    ids=["200 page", "404 page", "501 page", "404"],
)
def test_an_address_without_v1_is_asked_about(server, reply, found):
    server.always = reply
    base_url = server.host.replace("://", f"://user:{KEY}@") + "/api"
    with pytest.raises(InputError) as error:
        Provider(MODEL, base_url).ask(QUESTION, Counted())
    assert str(error.value) == (
        f"llm: {server.host}/api is no address of OpenAI's chat API, or the model is unknown there ({found}): "
        "is /v1 missing?"
    )


@pytest.mark.parametrize("model", [MODEL, "ollama/test-model"])
def test_a_model_that_is_not_there_is_not_taken_for_a_missing_v1(server, model):
    server.always = failure(404)
    base_url = server.url if model == MODEL else server.host  # ollama's own API has no /v1
    with pytest.raises(InputError, match=f"^llm: {model}: there is no such model at this provider$"):
        Provider(model, base_url).ask(QUESTION, Counted())


def test_a_server_that_is_not_there_is_said_to_be_unreachable(server):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(Passing, match=r"^the connection failed$"):
        Provider(MODEL, url).ask(QUESTION, Counted())


@pytest.mark.parametrize(("usage", "tokens"), [({}, 7), ({"usage": None}, 1200)])
def test_an_answer_that_was_cut_says_after_how_many_tokens(server, usage, tokens):
    server.always = Reply(chat('{"descriptions": ["A li', "length", **usage))
    assert Provider(MODEL, server.url).ask(QUESTION, Counted()).cut_at == tokens


TEXT = json.dumps({"descriptions": sentences("lion")})


@pytest.mark.parametrize("model", [MODEL, "anthropic/test-model"])
@pytest.mark.parametrize(
    "body",
    [
        chat([{"type": "text", "text": TEXT}]),  # type: ignore[arg-type]
        chat(5),  # type: ignore[arg-type]
        chat(TEXT, choices="x"),
        chat(TEXT, choices=None),
        b"[1,2]",
        b"{}",
        b'"text"',
    ],
)
def test_an_answer_that_came_whole_and_is_no_text_is_told_and_no_passing_failure(server, model, body, capfd, recwarn):
    server.always = Reply(body)
    with pytest.raises(NoText, match=r"^the answer came whole and is no text$"):
        Provider(model, server.url if model == MODEL else server.host).ask(QUESTION, Counted())
    assert server.requests["lion"] == 1
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "ydantic" in str(w.message)]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "many", "completion_tokens": 7, "total_tokens": 12},
        {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": [12]},
        {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
        {"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 10**30},
        "many",
        [12],
    ],
)
def test_an_answer_whose_tokens_are_none_is_kept_and_its_cost_unknown(server, usage, recwarn):
    server.always = Reply(chat(TEXT, usage=usage))
    reply = Provider(MODEL, server.url).ask(QUESTION, Counted())
    assert (reply.text, reply.tokens, reply.cost) == (TEXT, None, None)
    assert not [w for w in recwarn if "ydantic" in str(w.message)]


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_of_any_size_is_read_to_a_limit(server, packed):
    """A few kilobytes that unpack to gigabytes would take all memory."""
    long = b" " * (MOST_BYTES + 1) + chat(TEXT)
    server.always = Reply(gzip.compress(long), headers={"Content-Encoding": "gzip"}) if packed else Reply(long)
    with pytest.raises(Unanswered, match="the answer has more than 16 MiB"):
        Provider(MODEL, server.url).ask(QUESTION, Counted())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"", 204), "the answer, of status 204, cannot be read"),
        (Reply(b"x", headers={"Content-Encoding": "gzip"}), "the answer, of status 200, cannot be read"),
        (Reply(b'{"error": {"message": "busy", "code": 500}}'), "the answer, of status 200, cannot be read"),
        (Reply(chat(TEXT), headers={"Content-Length": "99999"}), "the connection failed"),
    ],
    ids=["204", "gzip", "an error", "cut"],
)
def test_an_answer_that_cannot_be_read_may_be_another_time(server, reply, said):
    server.always = reply
    with pytest.raises(Passing, match=f"^{said}$"):
        Provider(MODEL, server.url).ask(QUESTION, Counted())


def test_a_price_is_required_only_where_it_is_asked_for():
    Provider("openai/gpt-4o-mini").require_price()
    Provider("ollama/any").require_price()  # costs nothing
    with pytest.raises(InputError, match=r"^max_cost: litellm knows no price of openai/any, .*: give --max-requests$"):
        Provider("openai/any").require_price()


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MY_TOKEN", "DATABASE_PASSWORD"])
def test_an_answer_that_repeats_a_key_of_the_environment_is_no_answer(name, server, monkeypatch):
    monkeypatch.setenv(name, "s3cr3t-0123456789")
    server.always = Reply(chat(json.dumps({"descriptions": ["The key is Bearer s3cr3t-0123456789.", "b.", "c."]})))
    with pytest.raises(NoText, match=r"^the answer repeats a key of the environment, and is not recorded$"):
        Provider(MODEL, server.url).ask(QUESTION, Counted())


@pytest.mark.parametrize(("name", "value"), [("EDITOR", "A lion stands"), ("SHORT_KEY", "lion")])
def test_other_words_of_the_environment_may_stand_in_an_answer(name, value, server, monkeypatch):
    monkeypatch.setenv(name, value)
    server.always = good("lion")
    assert "lion" in Provider(MODEL, server.url).ask(QUESTION, Counted()).text
