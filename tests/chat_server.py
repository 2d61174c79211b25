"""A server on this machine that speaks OpenAI's chat API and misbehaves on demand, and a network without any other."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEY = "sk-test-8f3b1c9d7e5a"
MODEL = "openai/test-model"
PATIENCE = 30.0  # seconds that something sure to happen may take
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Reply:
    """What is sent.

    Attributes:
        after: the reply is sent once this returns.
        drips: seconds between its bytes.
        drips_from: number of the first byte that is sent so, headers included.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False
    after: Callable[[], object] | None = None
    drips: float | None = None
    drips_from: int = 0

    def whole(self) -> bytes:
        """Headers and body."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.0 {self.status} x", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def chat(content: str | None, finish_reason: str = "stop", **changes) -> bytes:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "test-model", "choices": [choice]}
    return json.dumps({**whole, "usage": usage, **changes}).encode()


def sentences(name: str) -> list[str]:
    return [f"A {name} stands.", f"The {name} is gold.", f"Its field is red, {name} or not."]


def good(name: str, **how) -> Reply:
    return Reply(chat(json.dumps({"descriptions": sentences(name)})), **how)


def failure(status: int, message: str = "Incorrect API key provided", **headers: str) -> Reply:
    """An error that quotes the key, as some providers' do."""
    body = json.dumps({"error": {"message": f"{message}: {KEY}.", "type": "t", "code": None}})
    return Reply(body.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


class ChatServer(ThreadingHTTPServer):
    """Answers by class: what `script` has for it, one after the other, then good answers.

    Attributes:
        always: what every request gets instead, where it is set.
        takes_json_mode: whether a request may have a `response_format`.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: dict[str, list[Reply]] = {}
        self.always: Reply | None = None
        self.takes_json_mode = True
        self.requests: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return self.host + "/v1"

    def reply(self, name: str, has_form: bool) -> Reply:
        with self.lock:
            self.requests[name] += 1
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            if has_form and not self.takes_json_mode:
                reply = failure(400, "'response_format.type' must be 'json_schema' or 'text'")
            elif self.always:
                reply = self.always
            else:
                reply = self.script[name].pop(0) if self.script.get(name) else good(name)
        try:
            if reply.after is not None:
                reply.after()
        finally:
            with self.lock:
                self.active -= 1  # before it is sent: the client may ask again at once
        return reply


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths[self.path] += 1
        self.server.keys.add(self.headers["Authorization"])
        found = re.search(r"What does '(.+?)' look like", json.dumps(asked))  # each provider nests it otherwise
        assert found
        assert asked["model"] == "test-model"
        reply = self.server.reply(found[1], "response_format" in asked)
        if reply.dropped:
            return
        with suppress(OSError):  # the client did not wait
            self.send(reply)

    def send(self, reply: Reply) -> None:
        whole = reply.whole()
        if reply.drips is None:
            self.wfile.write(whole)
            return
        self.wfile.write(whole[: reply.drips_from])
        for byte in whole[reply.drips_from :]:
            if self.server.closing.wait(reply.drips):
                return
            self.wfile.write(bytes([byte]))

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serving() -> Iterator[ChatServer]:
    """A server, for as long as the context lasts."""
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@contextmanager
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A key in the environment, and no other machine to be reached; what tries fails, whoever hides the error."""
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
