"""Class names that somebody gives for a data set that has its own: as many, and not its own in another order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cmmlib.errors import InputError

ONE_NAME_A_CLASS = "give one name a class, in class order"


def comparable(name: str) -> str:
    """A class name without what folders and lists write differently: case, underscores, slashes, accents, space around.

    >>> comparable("Polka_Dots ") == comparable("polka dots")
    True
    """
    return re.sub("[_/]", " ", unicodedata.normalize("NFC", name).casefold()).strip()


def require_order(names: Sequence[str], own: Sequence[str], file: str = "the file") -> None:
    """Refuse names that are the data set's own in another order, which would give images the names of other classes.

    Args:
        own: the data set's names, in the order of its classes.
        file: what the given names are called.

    Raises:
        InputError: the same names in another order; the first class is named whose name differs.
    """
    given, there = ([comparable(name) for name in part] for part in (names, own))
    if given == there or sorted(given) != sorted(there):
        return
    c = next(c for c in range(len(given)) if given[c] != there[c])
    raise InputError(
        f"class_names: {file} has the data set's own names in another order: class {c + 1} is {own[c]} in the data and "
        f"{names[c]} in the file: sort the lines as the data's classes, or leave the file out"
    )
