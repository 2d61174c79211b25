"""A pen that draws masks on the unit square, x to the right and y down.

It draws on a fine grid, and the drawing is reduced to the size asked for. Points are rounded to whole cells of the grid
before Pillow sees them, so no last bit of a sine decides a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

GRID = 1024  # cells a side of the drawing
FULL = 255
Point = tuple[float, float]


class Pen:
    """Ink on the unit square; ink 0 erases. Shapes whose two sides are alike are given as their left half."""

    def __init__(self) -> None:
        self.image = Image.new("L", (GRID, GRID))
        self._draw = ImageDraw.Draw(self.image)

    def reduced(self, size: int) -> Image.Image:
        """The mask at its final size, eight bits a pixel."""
        return self.image.resize((size, size), Image.Resampling.BOX)

    def polygon(self, points: Iterable[Point], ink: int = FULL) -> None:
        """Fill a polygon."""
        self._draw.polygon([(round(x * GRID), round(y * GRID)) for x, y in points], fill=ink)

    def box(self, left: float, top: float, right: float, bottom: float, ink: int = FULL) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], ink)

    def disc(self, x: float, y: float, radius: float, ink: int = FULL) -> None:
        """Fill a disc."""
        corners = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse([round(c * GRID) for c in corners], fill=ink)

    def stroke(self, points: Sequence[Point], width: float, ink: int = FULL) -> None:
        """A line of constant width with round joints and ends."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            dx, dy = (y1 - y0) / length * width / 2, (x0 - x1) / length * width / 2
            self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], ink)
        for x, y in points:
            self.disc(x, y, width / 2, ink)

    def path(self, path: str, ink: int = FULL) -> None:
        """Fill what a path encloses."""
        self.polygon(path_points(path), ink)

    def twice(self, path: str, ink: int = FULL) -> None:
        """A shape and its mirror image."""
        points = path_points(path)
        self.polygon(points, ink)
        self.polygon(mirrored(points), ink)

    def stroke_twice(self, path: str, width: float, ink: int = FULL) -> None:
        """Draw a stroke and its mirror image."""
        points = path_points(path)
        self.stroke(points, width, ink)
        self.stroke(mirrored(points), width, ink)


def path_points(path: str, steps: int = 24) -> list[Point]:
    """Points along an SVG path of M, L and C (a cubic Bézier curve) with absolute coordinates.

    >>> path_points("M 0 0 L 1 0 C 1 1 1 1 0 1", steps=1)
    [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
    """
    points: list[Point] = []
    words = path.split()
    while words:
        n = {"M": 1, "L": 1, "C": 3}[words.pop(0)]
        values = [float(words.pop(0)) for _ in range(2 * n)]
        corners = list(zip(values[::2], values[1::2], strict=True))
        if n == 1:
            points += corners
        else:
            p, (q, r, s) = points[-1], corners
            points += [_bezier(p, q, r, s, i / steps) for i in range(1, steps + 1)]
    return points


def _bezier(p: Point, q: Point, r: Point, s: Point, t: float) -> Point:
    a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    return a * p[0] + b * q[0] + c * r[0] + d * s[0], a * p[1] + b * q[1] + c * r[1] + d * s[1]


def mirrored(points: Iterable[Point]) -> list[Point]:
    """The points with left and right exchanged."""
    return [(1 - x, y) for x, y in points]


def polar(radius: float, turns: float, x: float = 0.5, y: float = 0.5) -> Point:
    """The point at `radius` from (x, y), `turns` clockwise from the top."""
    return x + radius * math.sin(math.tau * turns), y - radius * math.cos(math.tau * turns)
