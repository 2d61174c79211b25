"""Exercises: their heading and hint; a chapter shows its own answer, a student's notebook compares one with it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from cmmlib.report.chapters import chapters

KINDS = (
    "experiment",
    "pencil and paper",
)  # an exercise may be of one of them, besides its level
HEADING = re.compile(r"^### Exercise (?P<number>[\d.]+)(?: \((?P<marks>[\w, ]+)\))?: (?P<title>.+)\n+", re.M)
LARGEST = 1e300  # of an answer: beyond, floating-point numbers end
HINT = re.compile(r"^> \*\*Hint\*\*\n>\n(?P<hint>(?:>.*\n?)+)", re.M)
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


def hint(number: str) -> str | None:
    """The hint of an exercise of this package's chapters; None where there is no such exercise."""
    for path in chapters():
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            heading, found = HEADING.search(text), HINT.search(text)
            if heading and found and heading["number"] == number:
                return unquoted(found["hint"])
    return None


def unquoted(text: str) -> str:
    """The lines of a quotation without its marks."""
    return re.sub(r"^> ?", "", text, flags=re.M).strip()


def check(number: str, given: Any, expected: str | None) -> None:
    """Say whether the answer to an exercise is right, within one per cent; if it is not, give the hint.

    Args:
        number: of the exercise, as in "2.1".
        given: the answer; `...` is none yet.
        expected: the key of the number that the chapter computed with the parameters that the notebook came with.
    """
    if given is ...:
        print(f"exercise {number}: no answer yet")
    elif expected is None:
        print(f"exercise {number}: this study has no answer to compare with")
    elif expected in _keys_near(given):
        print(f"exercise {number}: right")
    else:
        told = f"not yet: {_what(given)} (with the parameters that this notebook came with)"
        print(f"exercise {number}: {told}", *filter(None, [_told_hint(number)]), sep="\n")


def _what(given: Any) -> str:
    """What is wrong with an answer, as far as it can be said without telling the right one."""
    if _keys_near(given):
        return "another number is expected, unrounded"
    if isinstance(given, float) or (hasattr(given, "dtype") and getattr(given, "ndim", 1) == 0):
        return f"a finite number is expected, this is {given}"
    return f"a number is expected, this is a {type(given).__name__}"


def _told_hint(number: str) -> str | None:
    text = hint(number)
    return text and f"Hint: {' '.join(text.split())}"


def _keys_near(given: Any) -> set[str | None]:
    """Keys of the numbers within one per cent of an answer; none for what is no number."""
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return set()
    if not abs(number) < LARGEST:  # or NaN
        return set()
    _, power = _digits(0.99 * number)
    low, high = sorted(round(part * number / 10.0**power) for part in (0.99, 1.01))
    return {key(number), *(key(step * 10.0**power) for step in range(low, high + 1))}
