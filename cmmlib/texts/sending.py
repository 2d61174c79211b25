"""A request on its way through litellm: it ends within its time, and stays on its host."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmmlib.errors import InputError
from cmmlib.storage.text_files import parse_json

if TYPE_CHECKING:
    import httpx

PROXIES = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"}
MOST_BYTES = 16 << 20  # of an answer, unpacked
MOST_REDIRECTS = 3  # of one request, all within its host


@dataclass
class Sending:
    """A request on its way: what its responses say before litellm reads them, and what comes of it.

    Attributes:
        count: called before a redirect is followed.
        outcome: litellm's response; cancelled, it is waited for no longer.
        astray: why a redirect was not followed.
        too_long: why an answer was not read to its end.
        last: the newest response, which is read after it was seen here.
    """

    count: Callable[[], None]
    outcome: Future = field(default_factory=Future)
    redirects: int = 0
    is_page: bool = False
    astray: str | None = None
    too_long: str | None = None
    last: httpx.Response | None = None

    def whole_answer(self) -> Any:
        """What the JSON of an answer of status 200 says; None where none came, or not to its end, or no JSON."""
        if self.last is None or not self.last.is_success:
            return None
        try:
            return parse_json(self.last.content)
        except Exception:  # httpx: not read to its end, or not decoded
            return None

    def failed(self, kind: str) -> str:
        """Litellm's name of an error, or of one that it has no name for the status. A message may quote the key."""
        if kind != "APIError" or self.last is None:
            return kind
        status = self.last.status_code
        sent_as_answer = "it sent an error in place of an answer"
        return sent_as_answer if self.last.is_success else f"status {status}, {responses.get(status, 'unknown')}"

    def saw(self, response: httpx.Response) -> None:
        """Note a response, and read it; a redirect is followed within its host, a few times.

        Raises:
            RuntimeError: it is not followed, or the response is too long.
        """
        self.last = response
        page = response.headers.get("content-type", "").lower().startswith("text/html")
        self.is_page = page and (response.status_code < 500 or response.status_code == 501)
        if not response.has_redirect_location:
            self._read(response)
            return
        here = str(response.request.url)
        there = str(response.request.url.join(response.headers["location"]))
        self.redirects += 1
        if _origin(there) != _origin(here):
            self.astray = (
                f"{_origin(here)} redirects to {_origin(there)}, and a key is sent to no other host: "
                "if that is the place, give it as --llm-base-url"
            )
        elif response.status_code not in (307, 308):  # the others turn a question into a plain GET
            self.astray = f"{_origin(here)} redirects to {shown(there)}: give that address as --llm-base-url"
        elif self.redirects > MOST_REDIRECTS:
            self.astray = f"{_origin(here)} redirects more than {MOST_REDIRECTS} times: check --llm-base-url"
        if self.astray:
            raise RuntimeError(self.astray)
        self.count()

    def _read(self, response: httpx.Response) -> None:
        """Read a response up to `MOST_BYTES`: a few packed kilobytes may become any size."""
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                self.too_long = f"the answer has more than {MOST_BYTES >> 20} MiB"
                raise RuntimeError(self.too_long)
        response._content = b"".join(parts)  # where `response.read`, which is called next, puts it


_here = threading.local()  # what this thread is sending: litellm hands its clients nothing of ours


def complete_within(seconds: float, sending: Sending, **asked: Any) -> Any:
    """litellm's response; its own limit is for each read, so a slow trickle of bytes would never end.

    Args:
        seconds: for the whole request. A thread that takes longer is left behind; the program does not wait for it.
        asked: what `litellm.completion` takes.

    Raises:
        litellm.Timeout: there is none in time; and whatever else litellm raises.
    """
    litellm = load_litellm()
    completion = litellm.completion  # loads most of it, which is not the request's time

    def send() -> None:
        _here.sending = sending
        with suppress(InvalidStateError):  # nobody waits any more
            try:
                sending.outcome.set_result(completion(timeout=seconds, **asked))
            except Exception as error:
                sending.outcome.set_exception(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        return sending.outcome.result(seconds)
    except TimeoutError:
        raise litellm.Timeout("too slow", model="", llm_provider="") from None


def _origin(url: str) -> str:
    """Scheme, host and port; no user, whose name may be a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    return _origin(url) + urlsplit(url).path


def load_litellm() -> Any:
    """litellm, quiet, without telemetry, with the price list that it brought, and with an eye on its redirects.

    Raises:
        InputError: it is not installed; a proxy that no client can use.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    try:
        import litellm
    except ImportError:
        raise InputError("llm: live answers need litellm: pip install 'cmmlib[llm]', or use --llm recorded") from None
    warnings.filterwarnings("ignore", "Items? .* on TypedDict class", UserWarning)  # of its module for ollama
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)  # of an answer in another form
    litellm.suppress_debug_info = True
    litellm.telemetry = False  # type: ignore[attr-defined]
    try:
        _watch_redirects()
    except Exception as error:  # of httpx, when it makes a client: a proxy without its package, or no address
        proxies = sorted(name for name in os.environ if name.upper() in PROXIES and os.environ[name])
        if not proxies:
            raise
        remedy = "pip install 'httpx[socks]'" if isinstance(error, ImportError) else "give an address, http://HOST:PORT"
        # what httpx says quotes parts of the address, which may be a password
        raise InputError(f"llm: no client can use the proxy in {', '.join(proxies)}: {remedy}, or unset it") from None
    return litellm


@cache
def _watch_redirects() -> None:
    """Let every HTTP client that litellm makes show its responses before it follows a redirect."""
    import litellm
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    create = HTTPHandler.create_client

    def create_watched(self: Any) -> httpx.Client:
        client = create(self)
        client.event_hooks = {**client.event_hooks, "response": [_saw]}
        return client

    HTTPHandler.create_client = create_watched
    litellm.client_session = HTTPHandler().client  # what OpenAI's own client sends with


def _saw(response: httpx.Response) -> None:
    if sending := getattr(_here, "sending", None):
        sending.saw(response)
