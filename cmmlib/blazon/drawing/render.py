"""A coat of arms and a seed -> a photograph of a shield, the same bytes on every x86-64 processor.

The same bytes, because a study's cache and its published tables hang on them. Chance comes from Python's own generator,
and only integers reach a pixel: where a parameter needs a sine or a normal number, it is rounded first; light, glare,
colour cast and noise are fixed-point arithmetic; masks, perspective and blur are Pillow's, which is compiled for the
baseline processor. numpy's exp, sin and normal numbers and a linear solver's results differ between processors.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from types import ModuleType

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from cmmlib.blazon.drawing.photograph import (
    BACKGROUNDS,
    PLANE,
    RGB,
    SIDE,
    background,
    camera,
    exposed,
    homography,
    normal,
)
from cmmlib.blazon.drawing.shapes import OUTLINES, Outline, charge_mask, division_mask, shield_mask
from cmmlib.blazon.heraldry import CHARGES, TINCTURES, Arms
from cmmlib.errors import InputError

CHUNK = 250  # images a worker renders at a time
FEW = 2000  # images below which starting workers costs more than it saves
WHITE: RGB = (255, 255, 255)
RIM = 0.03  # width of the shield's rim, of its square
RIMS: tuple[RGB, ...] = ((20, 20, 20), (60, 50, 40), (180, 170, 150), (90, 90, 95))
TILTED = 0.15  # radians from which a viewer calls a shield tilted


@dataclass(frozen=True)
class Scene:
    """What a photographer sees besides the arms: one of `BACKGROUNDS`, and whether the shield hangs askew."""

    background: str
    tilted: bool


Job = tuple[list[Arms], list[int]]  # arms and their seeds
Block = tuple[np.ndarray, list[Scene]]  # their photographs [n, 64, 64, 3] and scenes


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
    corners, angle = camera(rng)
    wall = rng.choice(BACKGROUNDS)
    photo = background(wall, rng)
    # a pixel of the photograph -> where it lies on the shield's plane
    seen = shield.transform((SIDE, SIDE), Image.Transform.PERSPECTIVE, homography(corners), Image.Resampling.BILINEAR)
    photo.paste(seen.convert("RGB"), (0, 0), seen.getchannel("A"))
    if rng.random() < 0.35:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.randint(6, 18) / 16))
    return exposed(photo, rng), Scene(wall, abs(angle) > TILTED)


def draw(arms: Arms, size: int = 256, outline: Outline = "heater") -> UInt8[np.ndarray, "size size 3"]:
    """The clean drawing of a coat of arms on white, in the tinctures' own colours."""
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
        processes: workers; by default one a processor, and none for few images.

    Raises:
        InputError: when the numbers of arms and seeds differ, or `processes` is below 1.
    """
    if len(arms) != len(seeds):
        raise InputError(f"render_many needs one seed for each shield, got {len(seeds)} for {len(arms)}")
    if processes is not None and processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    starts = range(0, len(arms), CHUNK)
    jobs = [(list(arms[i : i + CHUNK]), [int(seed) for seed in seeds[i : i + CHUNK]]) for i in starts]
    workers = min(len(jobs), processes or (1 if len(arms) < FEW else _processors()))
    images = np.empty((len(arms), SIDE, SIDE, 3), np.uint8)
    scenes: list[Scene] = []
    for start, (block, seen) in zip(starts, _results(jobs, workers), strict=True):
        images[start : start + CHUNK] = block
        scenes += seen
    return images, scenes


def _processors() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(jobs: list[Job], workers: int) -> Iterator[Block]:
    if workers <= 1:
        yield from map(_render_block, jobs)
        return
    # spawned, not forked: a fork of a process with threads (torch's, a notebook's) may hang
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        with _no_main_module():
            results = pool.map(_render_block, jobs)  # starts the workers
        yield from results


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A spawned worker runs the caller's script again, unless there is none: workers need this package only."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _render_block(job: Job) -> Block:
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
    red, green, blue = (min(255, max(0, value + normal(rng, 13.0))) for value in rgb)
    return red, green, blue


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
