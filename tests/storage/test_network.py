"""Whether a host answers: whatever an address is, and whatever speaks there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from cmmlib.errors import InputError
from cmmlib.storage.network import has_secrets, host_responds, repository_url


@contextmanager
def server(reply: bytes) -> Iterator[str]:
    """The address of a server on this machine that sends these bytes to its first caller."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(1024)
                caller.sendall(reply)

        thread = Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("reply", "responds"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"", False),
        (b"HTTP/1.0 twelve\r\n\r\n", False),
    ],
)
def test_what_speaks_http_responds(reply, responds):
    with server(reply) as address:
        assert host_responds(address) is responds


NO_WEB = ("", "hub", "hub:80", "//hub", "file:///etc/hostname", "ftp://127.0.0.1", "http://", "http://[", "https://\n")
NOBODY = ("http://127.0.0.1:x", "http://a b", "http://127.0.0.1:99999", "http://\udcff", "http://127.0.0.1:1")


@pytest.mark.parametrize("address", [*NO_WEB, *NOBODY, "http://" + "a" * 300])
def test_what_is_no_address_does_not_respond(address):
    assert not host_responds(address)


ADDRESSES = {
    "https://example.org/us/book": False,
    "http://127.0.0.1:8000/v1": False,
    "http://[::1]:8000/v1": False,
    "https://{}@example.org/v1".format("user:secret"): True,
    "https://token@example.org": True,
    "http://example.org/v1?api_key=secret": True,
    "http://example.org/v1#secret": True,
    "http://[broken@host/": True,
    "": False,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_may_be_a_key_in_an_address(address, monkeypatch):
    assert has_secrets(address) == ADDRESSES[address]
    monkeypatch.setenv("CMM_REPOSITORY_URL", address)
    if ADDRESSES[address]:
        with pytest.raises(InputError, match=r"^CMM_REPOSITORY_URL: a user, a password or a query would stand"):
            repository_url()
    else:
        assert repository_url() == address
