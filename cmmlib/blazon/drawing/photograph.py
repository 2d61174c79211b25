"""What a camera adds to a painted shield: a place to look from, a background, light, glare, a colour cast and noise.

Integers only, but for the perspective's coefficients: see `cmmlib.blazon.drawing.render` for why.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

SIDE = 64  # pixels of a photograph
PLANE = 80  # pixels of the painted shield's square
ONE = 4096  # 1.0 in fixed point
CENTRE = SIDE // 2
OFFSETS = np.arange(SIDE, dtype=np.int32) - CENTRE

RGB = tuple[int, int, int]
BACKGROUNDS = ("plain", "gradient", "halves", "stone", "wood", "sky", "grass")
# Two colours, the columns and rows of the noise that mixes them, and whether fine grain lies over it.
TEXTURES: dict[str, tuple[RGB, RGB, tuple[int, int], bool]] = {
    "stone": ((85, 82, 78), (190, 186, 178), (9, 9), True),
    "wood": ((88, 54, 28), (190, 138, 88), (18, 2), False),
    "sky": ((105, 155, 215), (215, 228, 240), (4, 7), False),
    "grass": ((40, 82, 28), (130, 182, 92), (8, 8), True),
}


def normal(rng: random.Random, deviation: float, limit: float = 2.0) -> int:
    """A normal number, cut at `limit` deviations and rounded: what a logarithm's last bit may differ in is gone."""
    return round(deviation * min(limit, max(-limit, rng.gauss(0, 1))))


def camera(rng: random.Random) -> tuple[list[tuple[int, int]], float]:
    """Where the photograph's corners lie on the shield's plane (1/64 of its pixels), and the shield's angle (radians).

    The corners run clockwise from the upper left. They turn, shrink and shift together, then each strays by itself:
    a plane seen at an angle.
    """
    half = rng.uniform(0.72, 0.97) * CENTRE  # half the shield's square, in pixels of the photograph
    angle = normal(rng, 190.0) / 1000
    room = min(6.0, 34 - half)
    dx, dy = rng.uniform(-room, room), rng.uniform(-room, room)
    cosine, sine, scale = math.cos(angle), math.sin(angle), PLANE / (2 * half)
    corners = []
    for x, y in ((-CENTRE, -CENTRE), (CENTRE, -CENTRE), (CENTRE, CENTRE), (-CENTRE, CENTRE)):
        u = scale * ((x - dx) * cosine + (y - dy) * sine) + PLANE / 2
        v = scale * ((y - dy) * cosine - (x - dx) * sine) + PLANE / 2
        corners.append((round(64 * u) + normal(rng, 3.4 * 64), round(64 * v) + normal(rng, 3.4 * 64)))
    return corners, angle


def homography(corners: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Pillow's eight coefficients of the perspective that takes a photograph's square to four corners (1/64 pixels).

    In closed form (Heckbert 1989, Fundamentals of Texture Mapping, section 2.2.3), in IEEE additions, products and
    quotients only, which are the same everywhere; a linear solver's are not.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = [(x / 64, y / 64) for x, y in corners]
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    den = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / den, (dx1 * sy - sx * dy1) / den
    a, b, d, e = x1 - x0 + g * x1, x3 - x0 + h * x3, y1 - y0 + g * y1, y3 - y0 + h * y3
    return (a / SIDE, b / SIDE, x0, d / SIDE, e / SIDE, y0, g / SIDE, h / SIDE)


def background(kind: str, rng: random.Random) -> Image.Image:
    """RGB [64, 64]: two colours, mixed by a mask."""
    if kind in TEXTURES:
        dark, light, grid, grain = TEXTURES[kind]
        level = rng.randint(75, 115)
        first, second = (_scaled(colour, level) for colour in (dark, light))
        mask = _noise(grid, rng)
        if grain:
            mask = Image.blend(mask, _noise((SIDE, SIDE), rng), 0.25)
    else:
        first, second = ((rng.randint(20, 245), rng.randint(20, 245), rng.randint(20, 245)) for _ in range(2))
        mask = _split(kind, rng.randint(19, 51) if kind == "halves" else 0, rng.random() < 0.5)
    wall = Image.new("RGB", (SIDE, SIDE), first)
    wall.paste(second, (0, 0), mask)
    return wall


def _scaled(rgb: RGB, percent: int) -> RGB:
    red, green, blue = (min(255, value * percent // 100) for value in rgb)
    return red, green, blue


def _noise(grid: tuple[int, int], rng: random.Random) -> Image.Image:
    """Smooth noise with `grid` columns and rows of random values."""
    values = Image.frombytes("L", grid, rng.randbytes(grid[0] * grid[1]))
    return values if grid == (SIDE, SIDE) else values.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@cache
def _split(kind: str, place: int, upright: bool) -> Image.Image:
    """Mask of a background's second colour: none (plain), more and more (gradient), or all from `place` on (halves)."""
    row = {"plain": [0] * SIDE, "gradient": [i * 255 // (SIDE - 1) for i in range(SIDE)]}.get(kind)
    line = Image.frombytes("L", (1, SIDE), bytes(row or [255 * (i >= place) for i in range(SIDE)]))
    mask = line.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return mask.transpose(Image.Transpose.TRANSPOSE) if upright else mask


def exposed(photo: Image.Image, rng: random.Random) -> UInt8[np.ndarray, "64 64 3"]:
    """The scene's colours -> what the sensor stores: haze, paleness, glare, light, colour cast and noise."""
    pixels = np.array(photo, np.int32)  # [64, 64, 3]
    defect = rng.random()
    if defect < 0.12:  # pale
        grey = (pixels @ np.array((77, 151, 28), np.int32) >> 8)[..., None]
        pixels += (grey - pixels) * rng.randint(60, 150) >> 8
    elif defect < 0.24:  # hazy
        pixels = (pixels * (256 - rng.randint(40, 130)) >> 8) + rng.randint(0, 60)
    if rng.random() < 0.25:
        pixels += _glare(rng)[..., None]
    cast = np.array((ONE + normal(rng, 0.04 * ONE), ONE, ONE + normal(rng, 0.05 * ONE)), np.int32)
    pixels *= _light(rng)[..., None] * cast >> 12
    pixels >>= 12
    pixels += _sensor_noise(rng)
    return pixels.clip(0, 255).astype(np.uint8)


def _light(rng: random.Random) -> Int32[np.ndarray, "64 64"]:
    """Light that grows evenly across the photograph, in units of 1 / ONE: at least 0.45 of full light."""
    level, slope = rng.randint(int(0.76 * ONE), int(1.12 * ONE)), 0.12 * ONE / CENTRE
    field = level + OFFSETS[:, None] * normal(rng, slope) + OFFSETS * normal(rng, slope)
    return field.clip(int(0.45 * ONE), 2 * ONE)


def _glare(rng: random.Random) -> Int32[np.ndarray, "64 64"]:
    """A bright spot, strength / (1 + r^2 / 80)^2 at r pixels from its middle."""
    x, y, strength = rng.randint(-22, 22), rng.randint(-22, 22), rng.randint(20, 110)
    square = (OFFSETS - x) ** 2 + (OFFSETS[:, None] - y) ** 2
    falloff = 80 * 256 // (80 + square)  # 256 in the middle
    return falloff * falloff * strength >> 16


def _sensor_noise(rng: random.Random) -> Int32[np.ndarray, "64 64 3"]:
    """Sums of three uniform bytes, nearly normal, scaled to a standard deviation of up to 18 grey levels."""
    deviation = abs(normal(rng, 9.0 * 256))  # in 1/256
    uniform = np.frombuffer(rng.randbytes(3 * SIDE * SIDE * 3), np.uint8).reshape(3, SIDE, SIDE, 3)
    total = uniform.sum(0, dtype=np.int32) - 382  # standard deviation 128
    return total * deviation >> 15
