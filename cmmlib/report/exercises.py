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
    """A number that cannot be read off: a digest of its first three digits; None for none."""
    if number is None:
        return None
    digits, power = _digits(number)
    return hashlib.sha256(f"{digits}:{power}".encode()).hexdigest()[:12]


def _digits(number: float) -> tuple[int, int]:
    """Its first three digits as a whole number, and the power of ten of the last; below a thousandth, zero."""
    if abs(number) < 1e-3:
        return 0, 0
    power = math.floor(math.log10(abs(number))) - 2
    digits = round(number / 10.0**power)
    return (digits // 10, power + 1) if abs(digits) == 1000 else (digits, power)


def check(given: Any, expected: str | None) -> None:
    """Say whether an answer is right, within one per cent.

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
    """Keys of the numbers within one per cent of an answer; none for what is no number."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        return set()
    if not math.isfinite(number):
        return set()
    digits, power = _digits(number)
    reach = round(0.01 * abs(digits))
    return {key((digits + step) * 10.0**power) for step in range(-reach, reach + 1)}
