"""What a worker of a sweep does: embed, or run, one study in a process of its own.

A study that is ended by the system, or by a fault in a library, takes no worker with it; and when a worker is killed
its study's process ends too. The processes are forked off one that keeps what studies import (`study_server`), which
is half of a short study's time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

MODULE = "cmmlib.sweeps.study_server"
MOST_TOLD = 300  # characters of a failure's line
OUTDATED: dict[str, Any] = {"outdated": True}  # a server's answer where what it imported is no longer what is installed


def in_process(what: str, fields: dict[str, Any], only: str | None = None, *_: object) -> dict[str, Any]:
    """Do this with a study in a new process.

    Args:
        what: `embed` or `run`.
        fields: the parameters of the study.
        only: chapters to run; all by default.

    Returns:
        `run`, the folder of the run, or None; `failed`, the line that the study ended with, or None; `seconds`.
    """
    begun = time.perf_counter()
    order = [what, fields, only]
    while (ended := _server().answer(order)) == OUTDATED:
        _own.server.close()
    code = ended["code"]
    failed = None if code == 0 else _reason(code, ended["err"].strip().splitlines())
    said = ended["out"].strip() if code == 0 else None
    return {"run": said, "failed": failed, "seconds": round(time.perf_counter() - begun, 1)}


def _reason(code: int, lines: list[str]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process ended ({name}): it may have run out of memory"
    return (lines or [f"exit code {code}"])[-1].removeprefix("cmm: ")[:MOST_TOLD]


class _Server:
    """The process that a thread's studies are forked off, one after the other. It ends with the worker."""

    def __init__(self) -> None:
        self.told = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told,
            text=True,
        )

    def answer(self, order: list[Any]) -> dict[str, Any]:
        """How a study ended: `code` as `subprocess` counts it, `out` and `err`; where the server ended, how it did."""
        assert self.process.stdin
        assert self.process.stdout
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()  # and it stays open: its end tells the server that this process is gone
            line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.told.seek(0)
        return {"code": code, "out": "", "err": self.told.read()}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in filter(None, (self.process.stdin, self.process.stdout, self.told)):
            with suppress(BrokenPipeError):  # of an order that nobody read
                stream.close()


_own = threading.local()  # each of a worker's threads runs one study at a time


def _server() -> _Server:
    """This thread's server; a new one where it ended."""
    server: _Server | None = getattr(_own, "server", None)
    if server is None or server.process.poll() is not None:
        if server:
            server.close()
        server = _own.server = _Server()
    return server
