"""Files of text and JSON that a user names or anybody wrote, read with one clear line where they cannot be; and whether
a file can be made where a user wants one, before the work that fills it."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cmmlib.errors import InputError, one_line, why


def content(path: Path) -> bytes:
    """Bytes of a file, or of a pipe. A device is refused, since it may have no end.

    Raises:
        OSError: a file that cannot be read, or does not fit into memory.
    """
    with open(path, "rb") as file:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise OSError(errno.EINVAL, "is a device and no file", os.fspath(path))
        try:
            return file.read()
        except (MemoryError, OverflowError):
            raise OSError(errno.ENOMEM, "is larger than the memory", os.fspath(path)) from None


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a UTF-8 text file; they end where editors end them, not at the rarer marks that Python also splits at.

    Raises:
        InputError: a file that is missing, is a folder, or is not UTF-8, or holds a NUL character.
    """
    try:
        text = content(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = why(error) if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(f"{what}: cannot read {path.name}: {cause}") from None
    if "\0" in text:  # two bytes a letter, without a mark that says so
        raise InputError(f"{what}: {path.name} holds a NUL character, as UTF-16 does: save it as UTF-8")
    lines = re.split(r"\r\n|\r|\n", text)
    return lines if lines[-1] else lines[:-1]


def read_names(path: Path, what: str) -> list[str]:
    """Names in a text file, one a line, without the space around them. The file may end in empty lines.

    Raises:
        InputError: as `read_lines`; an empty line before a name, since labels count lines.
    """
    names = [line.strip() for line in read_lines(path, what)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise InputError(f"{what}: line {names.index('') + 1} of {path.name} is empty: labels count lines, so name it")
    return names


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: no JSON, or one with deeper nesting or longer numbers than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def repeated(texts: Iterable[str]) -> list[str]:
    """Texts that are there more than once, in the order of their first places.

    >>> repeated(["a", "b", "a", "b", "c"])
    ['a', 'b']
    """
    return [text for text, n in Counter(texts).items() if n > 1]


def keys_twice(text: str | bytes) -> list[str]:
    """Keys that an object of a JSON text has twice, of which readers would take one without a word; none of no JSON.

    >>> keys_twice('{"a": 1, "b": {"c": 2, "c": 3}}')
    ['c']
    """
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(repeated(name for name, _ in pairs))
        return dict(pairs)

    with suppress(ValueError, RecursionError):  # whoever reads it says what is wrong
        json.loads(text, object_pairs_hook=note)
    return twice


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: a file that is missing or cannot be read, or holds anything else; `what` begins the line.
    """
    try:
        found = parse_json(content(path))
    except OSError as error:
        raise InputError(f"{what} cannot be read: {why(error)}") from None
    except ValueError as error:
        raise InputError(f"{what} cannot be read: it is no JSON: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"{what} cannot be read: it holds {type(found).__name__}, expected an object with keys")
    return found


def listed(text: str, what: str = "") -> list[str]:
    """What stands between the commas of a text, without the space around it; `what` begins the line of an error.

    Raises:
        InputError: nothing stands before, between or behind commas.
    """
    items = [item.strip() for item in text.split(",")]
    if "" in items:
        raise InputError(f"{what}{text!r} has an empty place: write names with a comma between two, and none at an end")
    return items


def whole_number(text: str) -> int | None:
    """The number that a word of decimal digits says; None for any other word, and for more digits than 18.

    >>> whole_number("12"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def require_writable(place: Path) -> None:
    """Try whether a file could be made: in the folder of its place, or the nearest one above that there is.

    Raises:
        OSError: it could not, as the system says it, with that folder's name; nothing is left there.
    """
    folder = next(above for above in Path(os.path.realpath(place)).parents if above.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(folder)) from None
