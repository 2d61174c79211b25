"""The process that a worker's studies are forked off: it has imported what they import, and computes nothing.

Each order is a line of standard input, and each answer a line of standard output: the exit code of the study's
process. A study gets two forks: itself, and one that its kernels are forked off (`report.kernels`), which has not
computed either. Both end when the worker does, which closes the pipe. Where forks are not safe (macOS) or unknown
(Windows), this process runs one study itself and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from cmmlib import process

IMPORTS = (
    "cmmlib.report.chapters",
    "cmmlib.report.execution",
    "cmmlib.report.cost",
    "cmmlib.study.open_run",
    "papermill",
)


def main() -> None:
    """Serve orders until standard input ends."""
    from cmmlib.report import kernels

    os.environ.update({**kernels.SETTINGS, **os.environ, **kernels.DRAWING})
    if sys.platform != "linux":
        _study(json.loads(_line()))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then goes
    for name in (*IMPORTS, *kernels.WITH_MODEL):
        import_module(name)
    gc.freeze()  # no collection in a fork goes through what was imported
    while order := _line():
        print(_forked(json.loads(order)), flush=True)


def _line() -> bytes:
    """The next line of standard input, and no byte more: a study reads there that the worker is gone."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _forked(order: list[Any]) -> int:
    """Run a study in a fork and return its exit code, below zero for a signal."""
    from cmmlib.report import kernels

    ours, theirs = Pipe()
    alive, held = os.pipe()  # the second end is held by this process alone, so that the first says when it is gone
    forks = os.fork()
    if not forks:
        ours.close()
        os.close(held)
        os.setsid()  # Ctrl-C is for the study
        kernels.serve(theirs)
    study = os.fork()
    if not study:
        theirs.close()
        os.close(held)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _study(order, ours, alive)
    ours.close()
    theirs.close()
    code = os.waitstatus_to_exitcode(os.waitpid(study, 0)[1])
    os.kill(forks, signal.SIGKILL)
    os.waitpid(forks, 0)
    os.close(alive)
    os.close(held)
    return code


def _end_after(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is sent: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)


def _study(order: list[Any], forks: Connection | None = None, *pipes: int) -> NoReturn:
    what, fields, only, folder = order
    for pipe in (os.dup(0), *pipes):  # of the worker, and of the process that this one was forked off
        threading.Thread(target=_end_after, args=(pipe,), daemon=True).start()
    for number, name in ((0, os.devnull), (1, Path(folder, "out")), (2, Path(folder, "err"))):
        stream = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(stream, number)
        os.close(stream)
    process.begin()
    process.end(process.exit_code(lambda: _do(what, fields, only, forks)))


def _do(what: str, fields: dict[str, Any], only: str | None, forks: Connection | None) -> int:
    from cmmlib.study.study import Study

    study = Study.of(fields)
    if what == "embed":
        from cmmlib.study.open_run import open_run

        open_run(study)
        return 0
    from cmmlib.report.chapters import run_study

    process.show_path(run_study(study, only, forks))
    return 0


if __name__ == "__main__":
    main()
