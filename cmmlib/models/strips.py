"""Images that are strips, cut to their middle before a model resizes them by their short side."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torchvision.transforms import CenterCrop, Compose

LONGEST = 32  # long side over short side; 1 x 4,000 pixels would be resized to 224 x 896,000


def without_strips(preprocess: Any) -> Any:
    """A model's preprocessing, which gives the same for other images, and for strips at no more memory than for them.

    Only the middle square of a strip is seen where the short side is resized; other ways of resizing stay as they are.
    """
    steps = getattr(preprocess, "transforms", [])
    return Compose([cut, *steps]) if any(isinstance(step, CenterCrop) for step in steps) else preprocess


def cut(image: Image.Image) -> Image.Image:
    """The middle of an image whose long side is more than `LONGEST` times its short one; any other as it is."""
    short, long = sorted(image.size)
    kept = LONGEST * short
    kept += (long - kept) % 2  # as many pixels go at either end
    if kept >= long:
        return image
    begin, end = (long - kept) // 2, (long + kept) // 2
    return image.crop((begin, 0, end, short) if image.width == long else (0, begin, short, end))
