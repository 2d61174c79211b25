"""Text files that a user names, read with one clear line where they cannot be."""

from __future__ import annotations

from pathlib import Path

from cmmlib.errors import InputError


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a UTF-8 text file.

    Raises:
        InputError: a file that is missing, is a folder, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or "").lower()
        raise InputError(f"{what}: cannot read {path.name}: {reason}") from None


def whole_number(text: str) -> int | None:
    """The number that a word of decimal digits says; None for any other word, and for more digits than 18.

    >>> whole_number("12"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
