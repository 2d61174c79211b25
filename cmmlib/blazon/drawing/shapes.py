"""Masks: the shape of every charge, division and shield, as greyscale images.

Ordinaries and divisions live in the square around the shield, small charges in a box of their own. A mask is drawn once
for every size that is asked for and shared: copy it before you change it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

from PIL import Image

from cmmlib.blazon.drawing.charges import CHARGE_DRAWINGS
from cmmlib.blazon.drawing.pen import Pen, Point, mirrored, path_points, polar

Outline = Literal["heater", "iberian", "french"]
OUTLINES: tuple[Outline, ...] = get_args(Outline)
CENTRE = 0.46  # height at which a division crosses: the middle of the shield's weight, not of its square
BORDURE = 0.12  # width of the bordure

# An SVG path (M, L, C with absolute coordinates) of the left half; the right half is its mirror image.
OUTLINE_PATHS: dict[Outline, str] = {
    "heater": "M .5 .03 L .06 .03 L .06 .40 C .06 .66 .24 .86 .5 .98",
    "iberian": "M .5 .03 L .08 .03 L .08 .55 C .08 .78 .27 .97 .5 .97",
    "french": "M .5 .04 L .08 .04 L .08 .80 C .08 .88 .12 .90 .20 .90 L .38 .90 C .45 .90 .48 .92 .5 .98",
}


@cache
def charge_mask(term: str, size: int, outline: Outline = "heater") -> Image.Image:
    """Mask [size, size] of a charge, 255 where it lies. Only the bordure depends on the outline."""
    pen = Pen()
    if term == "bordure":
        pen.box(0, 0, 1, 1)
        pen.polygon(outline_points(outline), 0)
        pen.stroke(outline_points(outline, closed=True), 2 * BORDURE)
    else:
        CHARGE_DRAWINGS[term](pen)
    return pen.reduced(size)


@cache
def division_mask(term: str, size: int) -> Image.Image:
    """Mask [size, size] of a division, 255 where the second tincture lies."""
    pen = Pen()
    _DIVISIONS[term](pen)
    return pen.reduced(size)


@cache
def shield_mask(outline: Outline, size: int, inset: float = 0.0) -> Image.Image:
    """Mask [size, size] of the shield, its edge moved inwards by `inset` (of the square's side)."""
    pen = Pen()
    pen.polygon(outline_points(outline))
    if inset:
        pen.stroke(outline_points(outline, closed=True), 2 * inset, 0)
    return pen.reduced(size)


def outline_points(outline: Outline, closed: bool = False) -> list[Point]:
    """Points of a shield's outline."""
    half = path_points(OUTLINE_PATHS[outline])
    points = half + mirrored(half)[::-1]
    return [*points, points[0]] if closed else points


def _barry(pen: Pen) -> None:
    for i in (1, 3, 5):
        pen.box(0, 0.03 + i * 0.157, 1, 0.03 + (i + 1) * 0.157)


def _paly(pen: Pen) -> None:
    for i in (1, 3, 5):
        pen.box(0.06 + i * 0.1467, 0, 0.06 + (i + 1) * 0.1467, 1)


def _bendy(pen: Pen) -> None:
    for i in range(-5, 6, 2):
        top = i * 0.217 - 0.04
        pen.polygon([(0, top), (1, top + 1), (1, top + 1.217), (0, top + 0.217)])


def _chequy(pen: Pen) -> None:
    for row in range(6):
        for column in range(1 - row % 2, 6, 2):
            x, y = 0.06 + column * 0.1467, 0.03 + row * 0.158
            pen.box(x - 0.06 * (column == 0), y, x + 0.1467, y + 0.158)


def _lozengy(pen: Pen) -> None:
    for column in range(6):
        for row in range(4):
            x, y = 0.06 + column * 0.176, 0.03 + row * 0.31
            pen.polygon([(x, y - 0.155), (x + 0.088, y), (x, y + 0.155), (x - 0.088, y)])


def _party_per_saltire(pen: Pen) -> None:
    pen.path("M .5 .46 L -.5 -.54 L 1.5 -.54")
    pen.path("M .5 .46 L -.5 1.46 L 1.5 1.46")


def _quarterly(pen: Pen) -> None:
    pen.box(0.5, 0, 1, CENTRE)
    pen.box(0, CENTRE, 0.5, 1)


def _gyronny(pen: Pen) -> None:
    for i in range(4):
        pen.polygon([(0.5, CENTRE), polar(1.5, i / 4, y=CENTRE), polar(1.5, i / 4 + 0.125, y=CENTRE)])


_DIVISIONS: dict[str, Callable[[Pen], None]] = {
    "barry": _barry,
    "paly": _paly,
    "bendy": _bendy,
    "chequy": _chequy,
    "lozengy": _lozengy,
    "party per pale": lambda pen: pen.box(0.5, 0, 1, 1),
    "party per fess": lambda pen: pen.box(0, CENTRE, 1, 1),
    "party per bend": lambda pen: pen.path("M -.5 -.54 L 1.5 1.46 L -.5 1.46"),
    "party per saltire": _party_per_saltire,
    "quarterly": _quarterly,
    "gyronny": _gyronny,
}
