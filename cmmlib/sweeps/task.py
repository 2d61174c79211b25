"""What a worker of a sweep does: embed, or run, one study in a process of its own.

A study that is ended by the system, or by a fault in a library, takes no worker with it; and when a worker is killed
its study's process ends too, because the pipe between them closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from cmmlib import process

MOST_TOLD = 300  # characters of a failure's line


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
    with (
        tempfile.TemporaryFile("w+", errors="replace") as told,
        subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            errors="surrogateescape",
        ) as child,
    ):
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps([what, fields, only]) + "\n")
        child.stdin.flush()  # and it stays open: its end tells the child that this process is gone
        said = child.stdout.read().strip()
        code = child.wait()
        told.seek(0)
        lines = told.read().strip().splitlines()
    failed = None if code == 0 else _reason(code, lines)
    return {"run": said if code == 0 else None, "failed": failed, "seconds": round(time.perf_counter() - begun, 1)}


def _reason(code: int, lines: list[str]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process ended ({name}): it may have run out of memory"
    return (lines or [f"exit code {code}"])[-1].removeprefix("cmm: ")[:MOST_TOLD]


# ---------------------------------------------------------------- in the study's process


def main() -> None:
    """Read what to do from the first line of standard input, and do it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `cmm` does
    process.begin()
    what, fields, only = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_worker, daemon=True).start()
    process.end(process.exit_code(lambda: _do(what, fields, only)))


def _do(what: str, fields: dict[str, Any], only: str | None) -> int:
    from cmmlib.study.study import Study

    study = Study.of(fields)
    if what == "embed":
        from cmmlib.study.open_run import open_run

        open_run(study)
        return 0
    from cmmlib.report.chapters import run_study

    process.show_path(run_study(study, only))
    return 0


def _end_with_worker() -> None:
    sys.stdin.read()  # until the worker's end of the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
