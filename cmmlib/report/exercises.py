"""Answers of exercises: a chapter shows its own, a student's notebook compares one with it."""

from __future__ import annotations

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


def check(given: Any, expected: float | None, tolerance: float = 0.01) -> None:
    """Say whether an answer is right, within a share of the expected number.

    Args:
        given: the answer; `...` is none yet.
        expected: the number that the chapter computed with the parameters that the notebook came with.
    """
    if given is ...:
        print("no answer yet")
    elif expected is None:
        print("this study has no answer to compare with")
    elif _is_close(given, expected, tolerance):
        print("right")
    else:
        print("not yet: expected another number, if the parameters are those that this notebook came with")


def _is_close(given: Any, expected: float, tolerance: float) -> bool:
    try:
        return math.isclose(float(given), expected, rel_tol=tolerance, abs_tol=tolerance * 0.1)
    except (TypeError, ValueError):
        return False
