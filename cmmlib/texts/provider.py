"""One request to a language model through litellm: within a time, to one host, and what its failure means.

A key comes from the environment, where litellm looks for it, and goes nowhere else: no message of a provider is
repeated here, since some of them quote the key, and of an address only scheme, host and path are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from cmmlib.errors import InputError, keys_of_environment
from cmmlib.texts.sending import Sending, complete_within, load_litellm, shown

ANSWER_TOKENS = 1200
MOST_TOKENS = 10**9  # of an answer; a server that says more says nothing
PASSING = ("RateLimitError", "Timeout", "APIConnectionError", "InternalServerError", "ServiceUnavailableError")
REFUSED = {
    "AuthenticationError": "the key was refused or is missing: set the provider's variable, as in OPENAI_API_KEY",
    "PermissionDeniedError": "the key has no access to this model",
    "NotFoundError": "there is no such model at this provider",
    "BudgetExceededError": "the provider's budget is used up",
}


class Passing(Exception):
    """A request that may be answered a little later; the text says what happened.

    Attributes:
        after: seconds that the server asks to wait, None where it does not.
    """

    def __init__(self, what: str, after: float | None):
        super().__init__(what)
        self.after = after


class Unanswered(Exception):
    """A question that got no usable answer; the text is the reason."""


class NoText(Unanswered):
    """An answer that came to its end and holds no text: it is paid for, nobody knows how much; another would not."""


@dataclass(frozen=True)
class Reply:
    """What came back: the text, its tokens, and its cost in US dollars, None where litellm knows no price.

    Attributes:
        cut_at: tokens after which the model was cut short, None where it came to its end.
    """

    text: str
    tokens: int | None
    cost: float | None
    cut_at: int | None = None


@dataclass
class Provider:
    """A language model at its address.

    Attributes:
        model: litellm's name, as in `openai/gpt-4o-mini`, `anthropic/...`, `ollama/...`.
        base_url: address of a server that speaks OpenAI's chat API.
        timeout: seconds for one whole request, however slowly its bytes arrive.
        asks_for_json: whether requests have a `response_format`; not any more once the server refused one.
    """

    model: str
    base_url: str | None = None
    timeout: float = 60.0
    asks_for_json: bool = True
    _sent: list[Sending] = field(default_factory=list, repr=False)

    def require_name(self) -> None:
        """Refuse a model whose provider litellm cannot tell, and a key that no request can carry.

        Raises:
            InputError: it cannot.
        """
        litellm = load_litellm()
        try:
            _, provider, *_ = litellm.get_llm_provider(self.model, api_base=self.base_url)
        except Exception:
            raise InputError(
                f"llm: {self.model!r} names no provider that litellm knows: use openai/MODEL, anthropic/MODEL, "
                "ollama/MODEL ..."
            ) from None
        name = f"{provider.upper()}_API_KEY"
        key = os.environ.get(name, "")
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            raise InputError(f"llm: the key in {name} holds a space, a line end or a letter that no request can carry")

    def require_price(self) -> None:
        """Refuse a model of unknown price, whose cost nobody could limit.

        Raises:
            InputError: litellm knows no price.
        """
        litellm = load_litellm()
        try:
            litellm.cost_per_token(self.model, prompt_tokens=1, completion_tokens=1)
        except Exception:
            raise InputError(
                f"max_cost: litellm knows no price of {self.model}, so --max-cost cannot be kept: give --max-requests"
            ) from None

    def ask(self, question: str, count: Callable[[], None]) -> Reply:
        """Ask once; a server that refuses `response_format` is asked again without it.

        Args:
            count: called before every request, redirected ones too; what it raises ends the question.

        Raises:
            InputError: the provider refuses (key, model), or the address is wrong; in one line.
            Passing: the same question may be answered a little later.
            Unanswered: it will not be; NoText, where an answer came that is none.
        """
        sending, as_json = Sending(count), self.asks_for_json
        count()
        self._sent.append(sending)
        try:
            response = self._complete(question, sending, as_json)
        except Exception as error:  # litellm maps every provider's errors to its own classes
            if as_json and _refuses_json(error):
                self.asks_for_json = False
            elif (answer := _unread(error, sending)) is not None:
                return _without_key(answer)
            else:
                self._fail(error, sending)
        else:
            return _without_key(_reply(response))
        return self.ask(question, count)

    def leave(self) -> None:
        """Wait no longer for what is under way."""
        for sending in self._sent:
            sending.outcome.cancel()

    def _complete(self, question: str, sending: Sending, as_json: bool) -> Any:
        return complete_within(
            self.timeout,
            sending,
            model=self.model,
            messages=[{"role": "user", "content": question}],
            base_url=self.base_url,
            max_tokens=ANSWER_TOKENS,
            num_retries=0,
            max_retries=0,
            drop_params=True,
            **({"response_format": {"type": "json_object"}} if as_json else {}),
        )

    def _fail(self, error: Exception, sending: Sending) -> NoReturn:
        kind, status = _kind(error), getattr(error, "status_code", 0)
        if sending.astray:
            raise InputError(f"llm: {sending.astray}") from None
        if sending.too_long:
            raise Unanswered(sending.too_long) from None
        if self.base_url and self._lacks_version() and (kind == "NotFoundError" or sending.is_page):
            found = "a web page" if sending.is_page else "not found"
            raise InputError(
                f"llm: {shown(self.base_url)} is no address of OpenAI's chat API, or the model is unknown there "
                f"({found}): is /v1 missing?"
            ) from None
        if kind in REFUSED:
            raise InputError(f"llm: {self.model}: {REFUSED[kind]}") from None
        if _is_answer(sending.whole_answer()):
            raise NoText("the answer came whole and is no text") from None
        if kind in PASSING or status in (408, 409, 429, 500, 502, 503, 504):
            raise Passing(_passing_reason(error, sending), _asked_wait(error)) from None
        raise Unanswered(f"the provider failed: {sending.failed(kind)}") from None

    def _lacks_version(self) -> bool:
        """Whether the address is one of OpenAI's kind without a `/v1`."""
        litellm = load_litellm()
        provider = litellm.get_llm_provider(self.model, api_base=self.base_url)[1]
        like_openai = provider == "openai" or provider in litellm.openai_compatible_providers
        return like_openai and not re.search(r"/v\d", urlsplit(self.base_url or "").path)


# ---------------------------------------------------------------- what came back


def _kind(error: BaseException) -> str:
    kind = type(error).__name__
    no_key = kind == "InternalServerError" and "_API_KEY" in str(error)  # of OpenAI's client, which found none
    return "AuthenticationError" if no_key else kind


def _passing_reason(error: Exception, sending: Sending) -> str:
    if sending.is_page:
        return "a web page came back"
    if sending.last is not None and sending.last.is_success and _kind(error) != "Timeout" and not _was_cut(error):
        return f"the answer, of status {sending.last.status_code}, cannot be read"
    return "the connection failed" if "Connection error" in str(error) else _kind(error)


def _was_cut(error: BaseException) -> bool:
    """Whether a connection ended before the answer did."""
    import httpx

    return any(isinstance(cause, httpx.TransportError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_answer(said: Any) -> bool:
    """Whether a whole JSON, of status 200, is an answer of some form; some servers send errors so."""
    return said is not None and not (isinstance(said, dict) and said.get("error"))


def _unread(error: Exception, sending: Sending) -> Reply | None:
    """The text of an answer that came whole and that litellm does not read, as for tokens in words; None without one.

    It is paid for, at a price that nobody knows.
    """
    try:
        text = sending.whole_answer()["choices"][0]["message"]["content"]
    except (TypeError, LookupError):
        return None
    return Reply(text, None, None) if isinstance(text, str) and _kind(error) in PASSING else None


def _refuses_json(error: Exception) -> bool:
    refuses = getattr(error, "status_code", 0) in (400, 422)
    return refuses and re.search("response_format|json_object|json mode", str(error), re.I) is not None


def _asked_wait(error: Exception) -> float | None:
    """Seconds until the time in Retry-After, a number or a date; None where there is none, or it is past."""
    headers = getattr(error, "litellm_response_headers", None) or {}  # those of error.response are empty
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return wait if wait > 0 else None


def _without_key(reply: Reply) -> Reply:
    """The same: answers are recorded, and shown in books, so one that repeats a key of the environment is none.

    Raises:
        NoText: it does.
    """
    if any(key in reply.text for key in keys_of_environment()):
        raise NoText("the answer repeats a key of the environment, and is not recorded")
    return reply


def _reply(response: Any) -> Reply:
    usage = getattr(response, "usage", None)
    try:
        choice = response.choices[0]
        text, cut = choice.message.content or "", choice.finish_reason == "length"
    except (AttributeError, IndexError, TypeError):
        text, cut = "", False
    if not isinstance(text, str):
        raise NoText("the answer came whole and is no text")
    cut_at = (_tokens(usage, "completion_tokens") or ANSWER_TOKENS) if cut else None
    return Reply(text, _tokens(usage, "total_tokens"), _cost(response), cut_at)


def _tokens(usage: Any, name: str) -> int | None:
    """A number of tokens that can be one; None for what a server says else."""
    found = getattr(usage, name, None)
    return found if isinstance(found, int) and 0 <= found <= MOST_TOKENS else None


def _cost(response: Any) -> float | None:
    """US dollars; None for a model whose price litellm does not know, or tokens that are none."""
    usage = getattr(response, "usage", None)
    if None in (_tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")):
        return None
    try:
        return float(load_litellm().completion_cost(response))
    except Exception:
        return None
