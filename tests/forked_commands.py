"""Processes that tests stop and kill, with their imports done: forks of one that has done them, which takes seconds.

What is tested on them is what a process does from there: its signals, its exit code, what it leaves on disk and what it
shares with another. A fork has the imports alone, a session, streams and an environment of its own. Where forks are not
safe (macOS) or unknown (Windows), each is a new process.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

COMMAND = "from cmmlib.cli import main\nmain()"  # `cmm`
IMPORTS = (
    *("cmmlib.models.embed", "cmmlib.models.checkpoints", "cmmlib.report.kernels", "cmmlib.report.chapters"),
    *("cmmlib.study.open_run", "cmmlib.texts.llm", "papermill"),
)


class Forked:
    """A fork that runs a program: what tests use of `subprocess.Popen`, with its output as text."""

    def __init__(self, server: socket.socket, program: str, *arguments: object):
        read, write = os.pipe()
        streams = [(write, read), *(os.pipe() for _ in range(3))]  # ours, then the fork's
        order = {"program": program, "arguments": [*map(str, arguments)], "folder": os.getcwd(), "env": {**os.environ}}
        socket.send_fds(server, [json.dumps(order).encode()], [theirs for _, theirs in streams])
        for _, theirs in streams:
            os.close(theirs)
        self.stdin = os.fdopen(write, "w")
        self.stdout, self.stderr, self._told = (os.fdopen(ours) for ours, _ in streams[1:])
        self.pid, self.returncode = int(self._told.readline()), None

    def poll(self) -> int | None:
        return self.wait() if select.select([self._told], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = int(self._told.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        said: list[str] = ["", ""]

        def read(number: int) -> None:
            said[number] = (self.stdout, self.stderr)[number].read()

        readers = [Thread(target=read, args=(number,), daemon=True) for number in range(2)]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr, self._told):
            stream.close()


@contextmanager
def forking(imports: Sequence[str] = IMPORTS) -> Iterator[Callable[..., Any]]:
    """`start(program, *arguments)`: a process that runs them. The one that is forked begins with the first."""
    if sys.platform != "linux":
        yield lambda program, *arguments: subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started: list[subprocess.Popen] = []

    def start(program: str, *arguments: object) -> Forked:
        if not started:
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), *imports]
            alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # forks share the cores
            lasting = Path(__file__).parent  # the folder of the test that needs it first goes with that test
            options: dict[str, Any] = {"env": alone, "cwd": lasting, "start_new_session": True}
            started.append(subprocess.Popen(command, pass_fds=[theirs.fileno()], **options))
        return Forked(ours, program, *arguments)

    with ours, theirs:
        yield start
    for server in started:
        server.kill()
        server.wait()


# ---------------------------------------------------------------- in the process that is forked


def _serve(connection: socket.socket, imports: Sequence[str]) -> str:
    """Import, then fork for each order; returns the program in the fork that is to run it."""
    for name in imports:
        import_module(name)
    if "cmmlib.texts.sending" in sys.modules:
        sys.modules["cmmlib.texts.sending"].load_litellm()
    gc.freeze()  # no collection in a fork goes through what was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, streams, *_ = socket.recv_fds(connection, 1 << 20, 4)
        if not message:
            sys.exit()
        if not os.fork():
            break
        for stream in streams:
            os.close(stream)
    connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *own, told = streams
    pid = os.fork()
    if pid:  # the one that waits for the other's end, and tells it
        for stream in own:
            os.close(stream)
        os.write(told, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(told)
    os.setsid()
    for number, stream in enumerate(own):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    order = json.loads(message)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["folder"])
    sys.argv[1:] = order["arguments"]
    return order["program"]


if __name__ == "__main__":
    exec(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]), {"__name__": "__main__"})
