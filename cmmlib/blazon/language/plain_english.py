"""A coat of arms in a few plain words, to read beside its heraldic name: "or, a pall vert" is a green Y on gold."""

from __future__ import annotations

from typing import Any

from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, plural

COLOURS = {term: tincture.plain[0] for term, tincture in TINCTURES.items()} | {"or": "gold", "argent": "silver"}
FIGURES = {term: charge.plain[0] for term, charge in CHARGES.items()} | {
    "chevron": "upside-down V",
    "pile": "downward triangle",
    "chief": "top stripe",
    "pall": "Y",
    "canton": "corner square",
    "mill-rind": "H-shaped iron",
}
FIELDS = {term: f"{{}} and {{}} {division.plain[0]}" for term, division in DIVISIONS.items()} | {
    "party per pale": "{} and {}, split down the middle",
    "party per fess": "{} and {}, split across the middle",
    "party per bend": "{} and {}, split diagonally",
    "party per saltire": "{} and {}, split in an X",
    "quarterly": "{} and {}, in four quarters",
}


def plain_english(arms: Arms) -> str:
    """Colours, figure and division by plain words; no two coats of arms have the same.

    >>> plain_english(Arms("or", charge="pall", tincture="vert"))
    'green Y on gold'
    >>> plain_english(Arms("azure", charge="mullet", tincture="argent", count=3))
    'three silver stars on blue'
    >>> plain_english(Arms("or", "party per pale", "azure"))
    'gold and blue, split down the middle'
    """
    field = FIELDS.get(arms.division or "", "{}").format(COLOURS[arms.field], COLOURS.get(arms.second or "", ""))
    if arms.charge is None or arms.tincture is None:
        return field
    colour, figure = COLOURS[arms.tincture], FIGURES[arms.charge]
    return f"three {colour} {plural(figure)} on {field}" if arms.count == 3 else f"{colour} {figure} on {field}"


def glosses(pictures: Any) -> list[str] | None:
    """What each class shows, in plain English; None for pictures of anything but coats of arms.

    Args:
        pictures: a data set's images (`Run.pictures`), or None.
    """
    arms = getattr(pictures, "arms", None)
    return None if arms is None else [plain_english(one) for one in arms]
