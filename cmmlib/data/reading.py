"""What the system refuses to read, told apart from what is damaged: each has a remedy of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmmlib.errors import InputError, why

FETCH_AGAIN = "copy or fetch it again"  # what helps against a damaged file


def refused(error: BaseException) -> str | None:
    """Why the system did not let a file be read; None where an error is about what the file holds.

    Libraries raise `OSError` without a number for a damaged file, and one with EINVAL after they sought before its
    beginning.

    >>> refused(PermissionError(13, "Permission denied")), refused(OSError("image file is truncated"))
    ('permission denied', None)
    """
    return why(error) if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL) else None


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Have whatever the system refuses in this block be a line that names the file, or the place.

    Raises:
        InputError: the system refused.
    """
    try:
        yield
    except OSError as error:
        cause = refused(error)
        if cause is None:
            raise
        raise InputError(f"cannot read {os.fsdecode(error.filename or place)}: {cause}") from None
