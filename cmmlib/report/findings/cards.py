"""Sentences and tables of the two cards: of the embedded data set, and of the model that was trained on it."""

from __future__ import annotations

import numpy as np

from cmmlib.blazon.heraldry import CHARGES, Arms, terms_of
from cmmlib.blazon.language.plain_english import plain_english
from cmmlib.study.run import Run

SHOWN_FIRST = ("or", "argent", "gules", "azure", "vert", "purpure", "sable")  # the colours that a reader meets most


def six_shields(run: Run, n: int = 6) -> list[tuple[np.ndarray, str, str]]:
    """Classes that show together as many colours and kinds of shields as they can, for `plots.shields`.

    Returns:
        (an evaluation image, the class name, its plain English) for each, one at least.
    """
    pictures = run.pictures
    assert pictures is not None and run.labels is not None
    arms: list[Arms] = pictures.arms  # pyright: ignore[reportAttributeAccessIssue]
    there = [c for c in range(run.n_classes) if bool((run.labels == c).any())]
    chosen, seen = [], set()
    while there and len(chosen) < n:
        best = max(there, key=lambda c: len(_worth_seeing(arms[c]) - seen))
        seen |= _worth_seeing(arms[best])
        chosen.append(best)
        there.remove(best)
    first = [int((run.labels == c).nonzero()[0]) for c in chosen]
    return [
        (np.asarray(pictures.read(i)), run.classnames[c], plain_english(arms[c]))
        for i, c in zip(first, chosen, strict=True)
    ]


def _worth_seeing(arms: Arms) -> set[str]:
    """What one shield of six teaches: its first colours, its kind, whether it has three figures."""
    kind = CHARGES[arms.charge].kind if arms.charge else "division"
    return (terms_of(arms) & {*SHOWN_FIRST, arms.division, arms.charge}) | {kind, f"{arms.count} of them"}
