"""What a worker of a sweep does: embed, or run, one study in a process of its own.

A study that is ended by the system, or by a fault in a library, takes no worker with it; and when a worker is killed
its study's process ends too. The processes are forked off one that keeps what studies import (`study_server`), which
is half of a short study's time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PACKAGE = Path(__file__).parents[1]
MOST_TOLD = 300  # characters of a failure's line
MODULE = "cmmlib.sweeps.study_server"


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
    with TemporaryDirectory(prefix="cmm-study-") as folder:
        code = _server().do(what, fields, only, folder)
        said, told = (_read(Path(folder, name)) for name in ("out", "err"))
    failed = None if code == 0 else _reason(code, told.splitlines())
    return {"run": said if code == 0 else None, "failed": failed, "seconds": round(time.perf_counter() - begun, 1)}


def _read(file: Path) -> str:
    return file.read_text("utf-8", errors="surrogateescape").strip() if file.exists() else ""


def _reason(code: int, lines: list[str]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process ended ({name}): it may have run out of memory"
    return (lines or [f"exit code {code}"])[-1].removeprefix("cmm: ")[:MOST_TOLD]


class _Server:
    """The process that a thread's studies are forked off, one after the other. It ends with the worker."""

    def __init__(self) -> None:
        self.code = _code()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def do(self, what: str, fields: dict[str, Any], only: str | None, folder: str) -> int:
        """Exit code of a study's process, as `subprocess` counts it; of the server, where that ended."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps([what, fields, only, folder]) + "\n")
            self.process.stdin.flush()  # and it stays open: its end tells the server that this process is gone
        except BrokenPipeError:
            return self.process.wait()
        answer = self.process.stdout.readline()
        return int(answer) if answer else self.process.wait()

    def close(self) -> None:
        with self.process as ended:
            ended.kill()


_own = threading.local()  # each of a worker's threads runs one study at a time


def _server() -> _Server:
    """This thread's server; a new one where it ended, or where the package's files are others than it imported."""
    server: _Server | None = getattr(_own, "server", None)
    if server and server.process.poll() is None and server.code == _code():
        return server
    if server:
        server.close()
    _own.server = _Server()
    return _own.server


def _code() -> dict[str, int]:
    return {os.fspath(path): path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py")}
