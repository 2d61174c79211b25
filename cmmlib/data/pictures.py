"""What is told of a set's images before they are read: several pictures in a file, grey values far below white.

Every study opens its data, so that few files are looked at, evenly spread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cmmlib.data.image_files import formats
from cmmlib.errors import some

PAGED = {".gif", ".tif", ".tiff", ".webp", ".apng", ".mpo"}  # a file may hold several pictures
MOST_OPENED = 500  # of these
DEEP = {".png", ".tif", ".tiff", ".pgm", ".pnm"}  # a file may hold grey values of 16 bits
MOST_DECODED = 5  # of these
EIGHT_BITS, TWELVE_BITS = 255, 4095  # largest numbers
Content = Callable[[int], Path | BytesIO]  # a file by its place among the names


def remarks_on_pictures(names: Sequence[str], content: Content) -> list[str]:
    """Lines on files of several pictures and on dark grey values, or none."""
    return [*of_several_pictures(names, content), *of_few_bits(names, content)]


def of_several_pictures(names: Sequence[str], content: Content) -> list[str]:
    """A line on files of several pictures (animations, TIFF of several pages), of which the first is read; or none.

    Files are told by their endings: a .png or .jpg that holds several is not. Of many no more than `MOST_OPENED` are
    looked at.
    """
    paged = _with_ending(names, PAGED)
    opened = _spread(paged, MOST_OPENED)
    several = sorted(names[i] for i in opened if _n_pictures(content(i)) > 1)
    many = f" of {len(opened)} that were looked at" if len(opened) < len(paged) else ""
    line = f"files of several pictures, of which the first is read, {len(several)}{many}: {some(several)}"
    return [line] if several else []


def of_few_bits(names: Sequence[str], content: Content) -> list[str]:
    """A line where grey values of 16 or 32 bits end at 12 bits or below in every image that is looked at, or none.

    White is 65535 for whoever reads them; cameras and scanners of 12 bits write such files too, in which 4095 is. One
    dark image says nothing, so that all of a few must be dark; those of 8 bits or less are refused when they are read.
    """
    highest = {i: _highest_grey(content(i)) for i in _spread(_with_ending(names, DEEP), MOST_DECODED)}
    known = {i: value for i, value in highest.items() if value is not None and value > EIGHT_BITS}
    if not known or max(known.values()) > TWELVE_BITS:
        return []
    most = max(known.values())
    line = f"grey values end at {most} in all {len(known)} images of 16 bits that were looked at, and 65535 is taken"
    called = some(sorted(names[i] for i in known))
    return [f"{line} for white, so that these are nearly black: scale them if white is less ({called})"]


def _with_ending(names: Sequence[str], endings: set[str]) -> list[int]:
    return [i for i, name in enumerate(names) if os.path.splitext(name)[1].lower() in endings]


def _spread(places: list[int], most: int) -> list[int]:
    return places[:: -(-len(places) // most) or 1]


def _n_pictures(file: Path | BytesIO) -> int:
    with suppress(Exception), Image.open(file, formats=formats()) as image:  # a damaged one is told when it is read
        return getattr(image, "n_frames", 1)
    return 1


def _highest_grey(file: Path | BytesIO) -> int | None:
    """The largest number of an image of 16 or 32 bits; None for other images, and for what cannot be read."""
    with suppress(Exception), Image.open(file, formats=formats()) as image:
        if image.mode.startswith("I"):
            return int(np.asarray(image).max())
    return None
