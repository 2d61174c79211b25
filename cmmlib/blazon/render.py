"""Photographs of shields: a coat of arms and a seed -> 64 x 64 pixels, the same bytes on every x86-64 processor.

The same bytes, because a study's cache and a published table hang on them: chance comes from Python's own generator, and
only integers reach a pixel. Where a parameter needs a sine or a normal number it is rounded first; light, glare, colour
cast and noise are fixed-point arithmetic; masks, perspective and blur are Pillow's, which uses no vector extension beyond
the baseline. numpy's exp, sin and normal generator, which differ between processors, are not used.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageFilter

from cmmlib.blazon.heraldry import CHARGES, TINCTURES, Arms
from cmmlib.blazon.shapes import OUTLINES, Outline, charge_mask, division_mask, shield_mask
from cmmlib.errors import InputError

SIDE = 64  # pixels of a photograph
PLANE = 80  # pixels of the shield before it is photographed
ONE = 4096  # 1.0 in fixed point
RIM = 0.03  # width of the shield's rim, of its square
TILTED = 0.15  # radians from which a viewer calls a shield tilted
CHUNK = 250  # images a worker renders at a time
FEW = 1000  # images below which starting workers costs more than it saves
CENTRE = SIDE // 2
OFFSETS = np.arange(SIDE, dtype=np.int32) - CENTRE

RGB = tuple[int, int, int]
WHITE: RGB = (255, 255, 255)
RIMS: tuple[RGB, ...] = ((20, 20, 20), (60, 50, 40), (180, 170, 150), (90, 90, 95))
BACKGROUNDS = ("plain", "gradient", "halves", "stone", "wood", "sky", "grass")
# Two colours, the columns and rows of the noise that mixes them, and whether fine grain lies over it.
TEXTURES: dict[str, tuple[RGB, RGB, tuple[int, int], bool]] = {
    "stone": ((85, 82, 78), (190, 186, 178), (9, 9), True),
    "wood": ((88, 54, 28), (190, 138, 88), (18, 2), False),
    "sky": ((105, 155, 215), (215, 228, 240), (4, 7), False),
    "grass": ((40, 82, 28), (130, 182, 92), (8, 8), True),
}


@dataclass(frozen=True)
class Scene:
    """What a photographer sees besides the arms: one of `BACKGROUNDS`, and whether the shield hangs askew."""

    background: str
    tilted: bool


@dataclass(frozen=True)
class Placement:
    """Size of a small charge (of the shield's square), its height over its width, and its shift from its place."""

    size: float
    stretch: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


def render(arms: Arms, seed: int) -> tuple[UInt8[np.ndarray, "64 64 3"], Scene]:
    """A photograph of a shield, sRGB, and its scene; both are functions of the arms and the seed alone."""
    rng = random.Random(seed)
    shield = _shield(arms, rng)
    corners, angle = _camera(rng)
    background = rng.choice(BACKGROUNDS)
    photo = _background(background, rng)
    # a pixel of the photograph -> where it lies on the shield's plane
    seen = shield.transform((SIDE, SIDE), Image.Transform.PERSPECTIVE, homography(corners), Image.Resampling.BILINEAR)
    photo.paste(seen.convert("RGB"), (0, 0), seen.getchannel("A"))
    if rng.random() < 0.35:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.randint(6, 20) / 16))
    return _exposed(photo, rng), Scene(background, abs(angle) > TILTED)


def draw(arms: Arms, size: int = 256, outline: Outline = "heater") -> UInt8[np.ndarray, "size size 3"]:
    """The clean drawing of a coat of arms on white, in the tinctures' own colours and without a photograph's effects."""
    colours = {term: tincture.rgb for term, tincture in TINCTURES.items()}
    placement = Placement(0.33 if arms.count == 3 else 0.58)
    shield = _painted(arms, size, outline, colours, RIMS[0], placement)
    page = Image.new("RGB", (size, size), WHITE)
    page.paste(shield, (0, 0), shield_mask(outline, size))
    return np.array(page)


def render_many(
    arms: Sequence[Arms], seeds: Sequence[int], processes: int | None = None
) -> tuple[UInt8[np.ndarray, "N 64 64 3"], list[Scene]]:
    """Photographs of many shields and their scenes, in order; the number of processes changes nothing but the time.

    Args:
        arms: N coats of arms.
        seeds: N seeds, one a photograph.
        processes: workers; by default one a processor, and none for few images. A script that calls this with workers
            needs the usual `if __name__ == "__main__":`, since they are started afresh (spawned).

    Raises:
        InputError: when the numbers of arms and seeds differ, or `processes` is below 1.
    """
    if len(arms) != len(seeds):
        raise InputError(f"render_many needs one seed for each coat of arms, got {len(arms)} arms and {len(seeds)} seeds")
    if processes is not None and processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    starts = range(0, len(arms), CHUNK)
    jobs = [(list(arms[i : i + CHUNK]), [int(seed) for seed in seeds[i : i + CHUNK]]) for i in starts]
    workers = min(len(jobs), processes or (1 if len(arms) < FEW else len(os.sched_getaffinity(0))))
    images = np.empty((len(arms), SIDE, SIDE, 3), np.uint8)
    scenes: list[Scene] = []
    for start, (block, seen) in zip(starts, _results(jobs, workers), strict=True):
        images[start : start + CHUNK] = block
        scenes += seen
    return images, scenes


def _results(jobs: list, workers: int):
    if workers <= 1:
        yield from map(_render_block, jobs)
        return
    # spawned, not forked: a fork of a process with threads (torch's, a notebook's) may hang
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(_render_block, jobs)


def _render_block(job: tuple[list[Arms], list[int]]) -> tuple[UInt8[np.ndarray, "n 64 64 3"], list[Scene]]:
    pairs = [render(arms, seed) for arms, seed in zip(*job, strict=True)]
    return np.stack([image for image, _ in pairs]), [scene for _, scene in pairs]


def _shield(arms: Arms, rng: random.Random) -> Image.Image:
    """The shield on its plane, RGBA [PLANE, PLANE]: colours, shape and the charge's place vary as painters do."""
    outline = rng.choice(OUTLINES)
    terms = (arms.field, arms.second, arms.tincture)
    colours = {term: _jittered(TINCTURES[term].rgb, rng) for term in terms if term}
    size = rng.uniform(0.32, 0.36) if arms.count == 3 else rng.uniform(0.50, 0.64)
    placement = Placement(size, rng.uniform(0.92, 1.08), (rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02)))
    shield = _painted(arms, PLANE, outline, colours, rng.choice(RIMS), placement)
    shield.putalpha(shield_mask(outline, PLANE))
    return shield


def _jittered(rgb: RGB, rng: random.Random) -> RGB:
    red, green, blue = (min(255, max(0, value + _normal(rng, 13))) for value in rgb)
    return red, green, blue


def _normal(rng: random.Random, deviation: float, limit: float = 2.0) -> int:
    """A normal number, cut at `limit` deviations and rounded: what a logarithm's last bit may differ in is gone."""
    return round(deviation * min(limit, max(-limit, rng.gauss(0, 1))))


def _painted(
    arms: Arms, size: int, outline: Outline, colours: Mapping[str, RGB], rim: RGB, placement: Placement
) -> Image.Image:
    """RGB [size, size]: field, division and charge within a rim that fills the rest of the square."""
    paint = Image.new("RGB", (size, size), colours[arms.field])
    if arms.division and arms.second:
        paint.paste(colours[arms.second], (0, 0), division_mask(arms.division, size))
    if arms.charge and arms.tincture:
        for mask, corner in _charge_masks(arms, size, outline, placement):
            paint.paste(colours[arms.tincture], corner, mask)
    framed = Image.new("RGB", (size, size), rim)
    framed.paste(paint, (0, 0), shield_mask(outline, size, RIM))
    return framed


def _charge_masks(
    arms: Arms, size: int, outline: Outline, placement: Placement
) -> list[tuple[Image.Image, tuple[int, int]]]:
    """The charge's masks, each with its upper left corner on the shield."""
    assert arms.charge
    if CHARGES[arms.charge].kind == "ordinary":
        return [(charge_mask(arms.charge, size, outline), (0, 0))]
    width, height = round(size * placement.size), round(size * placement.size * placement.stretch)
    mask = charge_mask(arms.charge, size).resize((width, height), Image.Resampling.BILINEAR)
    places = [(0.285, 0.26), (0.715, 0.26), (0.5, 0.655)] if arms.count == 3 else [(0.5, 0.45)]
    dx, dy = placement.shift
    return [(mask, (round((x + dx) * size - width / 2), round((y + dy) * size - height / 2))) for x, y in places]


def _camera(rng: random.Random) -> tuple[list[tuple[int, int]], float]:
    """Where the photograph's corners lie on the shield's plane, in 1/64 of its pixels, and the shield's angle (radians).

    The corners run clockwise from the upper left. They turn, shrink and shift together, then each strays by itself:
    a plane seen at an angle.
    """
    half = rng.uniform(0.72, 0.97) * CENTRE  # half the shield's square, in pixels of the photograph
    angle = _normal(rng, 190) / 1000
    room = min(6.0, 34 - half)
    dx, dy = rng.uniform(-room, room), rng.uniform(-room, room)
    cosine, sine, scale = math.cos(angle), math.sin(angle), PLANE / (2 * half)
    corners = []
    for x, y in ((-CENTRE, -CENTRE), (CENTRE, -CENTRE), (CENTRE, CENTRE), (-CENTRE, CENTRE)):
        u = scale * ((x - dx) * cosine + (y - dy) * sine) + PLANE / 2
        v = scale * ((y - dy) * cosine - (x - dx) * sine) + PLANE / 2
        corners.append((round(64 * u) + _normal(rng, 3.4 * 64), round(64 * v) + _normal(rng, 3.4 * 64)))
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


def _background(kind: str, rng: random.Random) -> Image.Image:
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
    background = Image.new("RGB", (SIDE, SIDE), first)
    background.paste(second, (0, 0), mask)
    return background


def _scaled(rgb: RGB, percent: int) -> RGB:
    red, green, blue = (min(255, value * percent // 100) for value in rgb)
    return red, green, blue


def _noise(grid: tuple[int, int], rng: random.Random) -> Image.Image:
    """Smooth noise with `grid` columns and rows of random values."""
    values = Image.frombytes("L", grid, rng.randbytes(grid[0] * grid[1]))
    return values if grid == (SIDE, SIDE) else values.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@lru_cache(maxsize=None)
def _split(kind: str, place: int, upright: bool) -> Image.Image:
    """Mask of a background's second colour: none (plain), more and more (gradient), or all from `place` on (halves)."""
    row = {"plain": [0] * SIDE, "gradient": [i * 255 // (SIDE - 1) for i in range(SIDE)]}.get(kind)
    line = Image.frombytes("L", (1, SIDE), bytes(row or [255 * (i >= place) for i in range(SIDE)]))
    mask = line.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return mask.transpose(Image.Transpose.TRANSPOSE) if upright else mask


def _exposed(photo: Image.Image, rng: random.Random) -> UInt8[np.ndarray, "64 64 3"]:
    """The scene's colours -> what the sensor stores: haze, paleness, glare, light, colour cast and noise."""
    pixels = np.array(photo, np.int32)  # [64, 64, 3]
    if rng.random() < 0.12:
        grey = (pixels @ np.array((77, 151, 28), np.int32) >> 8)[..., None]
        pixels += (grey - pixels) * rng.randint(60, 150) >> 8
    if rng.random() < 0.12:
        pixels = (pixels * (256 - rng.randint(40, 140)) >> 8) + rng.randint(0, 60)
    if rng.random() < 0.25:
        pixels += _glare(rng)[..., None]
    cast = np.array((ONE + _normal(rng, 0.04 * ONE), ONE, ONE + _normal(rng, 0.05 * ONE)), np.int32)
    pixels *= _light(rng)[..., None] * cast >> 12
    pixels >>= 12
    pixels += _sensor_noise(rng)
    return pixels.clip(0, 255).astype(np.uint8)


def _light(rng: random.Random) -> Int32[np.ndarray, "64 64"]:
    """Light that grows evenly across the photograph, in units of 1 / ONE: at least 0.45 of full light."""
    level, slope = rng.randint(int(0.76 * ONE), int(1.12 * ONE)), 0.12 * ONE / CENTRE
    field = level + OFFSETS[:, None] * _normal(rng, slope) + OFFSETS * _normal(rng, slope)
    return field.clip(int(0.45 * ONE), 2 * ONE)


def _glare(rng: random.Random) -> Int32[np.ndarray, "64 64"]:
    """A bright spot, strength / (1 + r^2 / 80)^2 at r pixels from its middle."""
    x, y, strength = rng.randint(-22, 22), rng.randint(-22, 22), rng.randint(20, 110)
    square = (OFFSETS - x) ** 2 + (OFFSETS[:, None] - y) ** 2
    falloff = 80 * 256 // (80 + square)  # 256 in the middle
    return falloff * falloff * strength >> 16


def _sensor_noise(rng: random.Random) -> Int32[np.ndarray, "64 64 3"]:
    """Sums of three uniform bytes, nearly normal, scaled to a standard deviation of up to 20 grey levels."""
    deviation = abs(_normal(rng, 9 * 256))  # in 1/256
    uniform = np.frombuffer(rng.randbytes(3 * SIDE * SIDE * 3), np.uint8).reshape(3, SIDE, SIDE, 3)
    total = uniform.sum(0, dtype=np.int32) - 382  # standard deviation 128
    return total * deviation >> 15
