"""The process that a worker's studies are forked off: it has imported what they import, and computes nothing.

Each order is a line of standard input, and each answer a line of standard output: how the study's process ended, and
what it wrote. A study gets two forks: itself, and one that its kernels are forked off (`report.kernels`), which has not
computed either. Both end when the worker does, which closes the pipe. Where forks are not safe (macOS) or unknown
(Windows), this process runs one study itself and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from cmmlib import process
from cmmlib.sweeps.task import OUTDATED

PACKAGE = Path(__file__).parents[1]
IMPORTS = (
    *("cmmlib.report.chapters", "cmmlib.report.execution", "cmmlib.report.cost"),
    *("cmmlib.study.open_run", "cmmlib.study.enrich", "papermill"),
)
MOST_WRITTEN = 1 << 16  # bytes of a study's standard error that are passed on: the last


def main() -> None:
    """Serve orders until standard input ends."""
    from cmmlib.report import kernels

    os.environ.update({**kernels.SETTINGS, **os.environ, **kernels.DRAWING})
    if sys.platform != "linux":
        _serve_one()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then goes
    if code := process.exit_code(_import):
        process.end(code)  # standard error says why
    gc.freeze()  # no collection in a fork goes through what was imported
    begun = _installed()
    while line := _line():
        answer = _forked(json.loads(line)) if _installed() == begun else OUTDATED
        print(json.dumps(answer), flush=True)


def _import() -> int:
    from cmmlib.report import kernels

    for name in (*IMPORTS, *kernels.WITH_MODEL):
        import_module(name)
    return 0


def _installed() -> dict[str, Any]:
    """Changes when the package does, or one that results depend on: what was imported is then another's code."""
    from cmmlib.study.run_files import versions

    files = (path for path in PACKAGE.rglob("*.py") if path.is_file())
    return {**versions(), **{os.fspath(path): path.stat().st_mtime_ns for path in files}}


def _line() -> bytes:
    """The next line of standard input, and no byte more: a study reads there that the worker is gone."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _forked(order: list[Any]) -> dict[str, Any]:
    """Run a study in a fork; its exit code is below zero for a signal."""
    from cmmlib.report import kernels

    ours, theirs = Pipe()
    alive, held = os.pipe()  # the second end is held by this process alone, so that the first says when it is gone
    with _streams() as (out, err):
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
            process.end(_study(order, out, err, ours, alive))
        ours.close()
        theirs.close()
        code = os.waitstatus_to_exitcode(os.waitpid(study, 0)[1])
        os.kill(forks, signal.SIGKILL)
        os.waitpid(forks, 0)
        os.close(alive)
        os.close(held)
        return _answer(code, out, err)


def _serve_one() -> None:
    line, answer_to = _line(), os.dup(1)
    with _streams() as (out, err):
        code = _study(json.loads(line), out, err)
        os.write(answer_to, json.dumps(_answer(code, out, err)).encode() + b"\n")


@contextmanager
def _streams() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # without names: nothing is left behind
        yield out, err


def _answer(code: int, *streams: IO[bytes]) -> dict[str, Any]:
    written = []
    for stream in streams:
        stream.seek(0)
        written.append(stream.read()[-MOST_WRITTEN:].decode(errors="surrogateescape"))
    return {"code": code, "out": written[0], "err": written[1]}


def _end_after(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is sent: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)


def _study(order: list[Any], out: IO[bytes], err: IO[bytes], forks: Connection | None = None, *pipes: int) -> int:
    what, fields, only = order
    for pipe in (os.dup(0), *pipes):  # of the worker, and of the process that this one was forked off
        threading.Thread(target=_end_after, args=(pipe,), daemon=True).start()
    with open(os.devnull, "rb") as nothing:
        for number, stream in enumerate((nothing, out, err)):
            os.dup2(stream.fileno(), number)
    process.begin()
    code = process.exit_code(lambda: _do(what, fields, only, forks))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


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
