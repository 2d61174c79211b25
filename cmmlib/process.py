"""How a program begins and ends: its streams, its signals, and every failure as one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, NoReturn

from cmmlib.errors import ChapterError, InputError, ProviderError, one_line, tell, visible, why

INTERRUPTED = 130
ENDINGS = ("SIGTERM", "SIGHUP")  # what a scheduler, a closed terminal or a shutdown sends
ELSEWHERE = "choose another place (--out, CMM_CACHE)"
UNWRITABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"free space or {ELSEWHERE}"),
    **dict.fromkeys((errno.EACCES, errno.EROFS, errno.EPERM), f"allow access there or {ELSEWHERE}"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
    errno.EFBIG: f"allow larger files (ulimit -f) or {ELSEWHERE}",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), f"something else lies there: move it, or {ELSEWHERE}"),
}


def begin() -> None:
    """Streams that can be written to, whatever a name holds, and signals that end the program as Ctrl-C does."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of a name
    for name in ENDINGS:
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, ended)


def end(code: int) -> NoReturn:
    """Leave with an exit code."""
    try:
        print(end="", flush=True)
    except OSError:  # told already; Python would try, and tell, once more
        sys.stdout = None
    sys.exit(code)


def show_path(path: object) -> None:
    """Print a path so that a shell can use it, bytes that are no letters included."""
    text = str(path)
    try:
        text.encode()
        print(text)
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text) + b"\n")


def show_text(text: str) -> None:
    """Print a text as it is; to a terminal without what that would obey."""
    print(visible(text) if sys.stdout.isatty() else text, end="")


def _open_streams() -> None:
    """Standard streams that were closed, as daemons do, lead nowhere: a file opened later would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            setattr(sys, name, open(os.devnull, "w"))  # it gets the lowest number that is free: this one  # noqa: SIM115


class _Ended(SystemExit):
    """A signal ended the command: what is open is closed on the way out, as after Ctrl-C."""


def ended(number: int, _: object) -> NoReturn:
    """What a signal that ends the program does."""
    for name in ENDINGS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)  # one is enough: nothing disturbs the way out
    raise _Ended(128 + number)


def _require_working_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise InputError("the working folder has been deleted: change to one that exists") from None


def _require_threads() -> None:
    """Numba stops the program with a traceback where its own is no number of threads; OpenMP writes several lines."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "1")
        levels = given.split(",") if name.startswith("OMP") else [given]  # of OpenMP one for each level of nesting
        if not all(n.strip().isascii() and n.strip().isdigit() and int(n) >= 1 for n in levels):
            raise InputError(f"{name} is {given!r}: give a number of threads from 1, or leave it out")


def exit_code(command: Callable[[], int]) -> int:
    """Run a command: 0, or what it returns; 2 for what a user can mend, 1 for other failures, 128 + n for a signal."""
    try:
        _require_working_folder()
        _require_threads()
        result = command()
        print(end="", flush=True)  # a full disk is told now, not by the end of the program
        return _stopped() if result == INTERRUPTED else result  # typer turns Ctrl-C into that number
    except InputError as error:
        return _refuse(str(error))
    except (ChapterError, ProviderError) as error:
        tell(f"cmm: {error}")
        return 1
    except KeyboardInterrupt:
        return _stopped()
    except _Ended as stop:
        return _stopped(stop.code)
    except BrokenPipeError:
        return 1  # whoever read what is printed went away, as `head` does; typer's own answer
    except OSError as error:
        return _refuse(_of_system(error))
    except ImportError as error:
        if not re.search("failed to map segment|cannot allocate memory", str(error), re.IGNORECASE):
            raise
        return _refuse(f"out of memory while a library is loaded ({one_line(error)[:80]}): allow more (ulimit -v)")
    except MemoryError:
        return _refuse("out of memory: a smaller --batch-size or fewer images (--limit) need less")


def _of_system(error: OSError) -> str:
    """Whatever the system refuses, in a line: why, which file or folder, and what would help."""
    name = error.filename if error.filename2 is None else error.filename2  # of two, where it was to be written
    where = "" if name is None else f" ({os.fsdecode(name)})"
    if error.errno in UNWRITABLE:
        return f"{os.strerror(error.errno).lower()}{where}: {UNWRITABLE[error.errno]}"
    return f"{why(error)}{where}" + (": name another file or folder" if where else "")


def _stopped(code: Any = INTERRUPTED) -> int:
    tell("cmm: stopped; what was embedded or answered is kept, run the same command to go on")
    return code


def _refuse(message: str) -> int:
    tell("cmm: " + " ".join(visible(message).split()))
    return 2
