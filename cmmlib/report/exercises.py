"""Answers of exercises: a chapter shows its own, a student's notebook compares one with it."""

from __future__ import annotations

import hashlib
import math
from typing import Any

ANSWER = "application/vnd.cmmlib.answer+json"  # type of the output that carries an answer to a student's notebook


def answer(**value: float | None) -> None:
    """Show the answer to an exercise: one name and its number, as the chapter computed it."""
    from IPython.display import display

    ((name, number),) = value.items()
    number = None if number is None or math.isnan(number) else float(number)
    said = f"answer: {name} = {number if number is None else f'{number:.4g}'}"
    display({"text/plain": said, ANSWER: {"name": name, "value": number}}, raw=True)


def key(number: float | None) -> str | None:
    """A number that cannot be read off: a digest of its first two digits; None for none."""
    if number is None:
        return None
    return hashlib.sha256(f"{_rounded(number)}:{_power(number) if _rounded(number) else 0}".encode()).hexdigest()[:12]


def _power(number: float) -> int:
    return math.floor(math.log10(abs(number))) if number else 0


def _rounded(number: float) -> int:
    """Its first two digits, as a whole number; below a thousandth, zero."""
    return 0 if abs(number) < 1e-3 else round(number / 10 ** (_power(number) - 1))


def check(given: Any, expected: str | None) -> None:
    """Say whether an answer is right: whether its first two digits are, or are one beside them.

    Args:
        given: the answer; `...` is none yet.
        expected: the key of the number that the chapter computed with the parameters that the notebook came with.
    """
    if given is ...:
        print("no answer yet")
    elif expected is None:
        print("this study has no answer to compare with")
    elif expected in _keys_near(given):
        print("right")
    else:
        print("not yet: expected another number, if the parameters are those that this notebook came with")


def _keys_near(given: Any) -> set[str | None]:
    try:
        number = float(given)
    except (TypeError, ValueError):
        return set()
    if not math.isfinite(number):
        return set()
    step = 10.0 ** (_power(number) - 1)
    return {key(number + way * step) for way in (-1, 0, 1)}
