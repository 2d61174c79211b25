"""Locks between processes. The system drops the lock of a process that ends, however it ends, so none is ever stale."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

# File systems without locks, and those that can only be read: there, nobody waits.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EROFS}


@contextmanager
def locked(path: Path, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock, which one process at a time can, and wait where another one does. Its file goes with it.

    Args:
        tell: is told who holds the lock, before the wait.

    Raises:
        OSError: a folder that cannot be written.
    """
    lock = FileLock(path, fallback_to_soft=False, poll_interval=0.02)
    try:
        _acquire(lock, path, tell)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows keeps a file that is open; who waits opens a new one
                path.unlink()
        lock.release()


def _acquire(lock: FileLock, path: Path, tell: Callable[[str], None] | None) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if tell:
            tell(_holder(path))
        lock.acquire()
    with suppress(OSError):
        path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text("utf-8") or "another process"
    return "another process"
