"""Strips: cut to their middle before they are resized, and nothing else changes."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cmmlib.models import strips

SIDE = 16


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def own(mode: str = "shortest", size: int | tuple[int, int] = SIDE):
    return open_clip.image_transform(size, is_train=False, resize_mode=mode)


@pytest.mark.parametrize("size", [(1, 1), (40, 40), (33, 500), (500, 33), (1, 32), (2, 64), (3, 97)])
def test_an_image_that_is_no_strip_is_as_before(size):
    image = noise(*size)
    assert torch.equal(strips.without_strips(own())(image), own()(image))


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 4001), (4001, 1), (2, 333)])
def test_a_strip_gives_what_it_gave_in_a_bounded_memory(size):
    image = noise(*size)
    cut = strips.cut(image)
    assert max(cut.size) <= (strips.LONGEST + 1) * min(cut.size)
    assert min(cut.size) == min(size)
    torch.testing.assert_close(strips.without_strips(own())(image), own()(image), atol=0.03, rtol=0)


@pytest.mark.parametrize("mode", ["longest", "squash"])
def test_what_sees_the_whole_strip_is_left_alone(mode):
    whole = own(mode)
    assert strips.without_strips(whole) is whole


def test_a_long_picture_for_a_long_model_is_seen_as_before():
    image, wide = noise(200, 20), own(size=(SIDE, 4 * SIDE))
    assert torch.equal(strips.without_strips(wide)(image), wide(image))
