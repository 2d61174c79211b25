"""What stands under a figure: how it is read. `captions.toml` has one for every figure of the book."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

NARROW = "_narrow"  # ends the name of a figure's file for a phone


@cache
def captions() -> dict[str, str]:
    """Name of a figure's file -> how it is read, on one line."""
    text = Path(__file__).with_name("captions.toml").read_text("utf-8")
    return {figure: " ".join(caption.split()) for figure, caption in tomllib.loads(text).items()}


def caption_of(figure: str) -> str | None:
    """How a figure is read; None for one that this book does not know.

    Args:
        figure: the name of its file; a number behind it is left out, as in `classes_in_two_1`.
    """
    return captions().get(re.sub(r"_\d+$", "", figure))
