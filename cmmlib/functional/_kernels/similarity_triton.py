"""What the pass does with a block of similarities besides making them, in two kernels of Triton: for NVIDIA's GPUs.

`cmmlib.functional._kernels.similarity_torch` has the same steps, each a pass over the block of its own.
"""

from __future__ import annotations

from math import ceil, sqrt

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional._kernels.similarity_torch import NO_KEY, rank_key, value_and_image

WIDEST = 1024  # classes that a program of the first kernel looks at together
CHUNK, ROWS, CLASSES = 512, 16, 128  # images a program of the second kernel sums up, and its tile
SAMPLE = 2048  # images of the first block that say from which similarity on an image may be among a class's best
LOOKED_AT = ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
SUMS = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")


class TritonSteps:
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`."""

    def __init__(self, fields: dict[str, Tensor], m: int, power: float) -> None:
        self.fields, self.m, self.power, self.seen = fields, m, power, 0
        n_classes, device = len(fields["soft_mass"]), fields["soft_mass"].device
        self.best = torch.full((n_classes, m), NO_KEY, device=device)  # keys of each class's most similar images

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        (n, n_classes), rows = s.shape, slice(start, start + len(s))
        first, second, top, margin, q_top, spread = (self.fields[key][rows] for key in LOOKED_AT)
        tile = min(WIDEST, triton.next_power_of_2(n_classes))
        per_image = (first, second, top, margin, q_top, spread)
        _look_at_images[(n,)](s, offset, *per_image, self.power, s.stride(0), n_classes, TILE=tile)  # type: ignore[arg-type]
        lowest, expected = self._lowest(s, offset)
        chunks = triton.cdiv(n, CHUNK)
        room = min(CHUNK, triton.next_power_of_2(ceil(2 * expected / chunks) + 8))  # a class has in a chunk's keys
        keys = torch.full((n_classes, chunks, room), NO_KEY, device=s.device)
        count = torch.empty(chunks, n_classes, dtype=torch.int32, device=s.device)
        sums = torch.empty(chunks, 4, n_classes, device=s.device)
        numbers = (self.power, s.stride(0), n, n_classes, start, chunks, room, CHUNK, ROWS, CLASSES)
        grid = triton.cdiv(n_classes, CLASSES), chunks
        _sum_over_images[grid](s, offset, top, q_top, spread, lowest, sums, keys, count, *numbers)  # type: ignore[arg-type]
        for key, total in zip(SUMS, sums.sum(0, dtype=torch.float64), strict=True):
            self.fields[key] += total
        needed = 0 if self.seen >= self.m else min(self.m, n)
        missed = ((count.amax(0) > room) | (count.sum(0) < needed)).nonzero()[:, 0]
        best = torch.cat([self.best, keys.flatten(1)], 1).topk(self.m, 1, sorted=False).values
        if len(missed):  # the guess was wrong: all images of the block
            image = torch.arange(start, start + n, device=s.device)
            of_block = rank_key((s[:, missed] + offset[:, None]).T.contiguous(), image)
            best[missed] = torch.cat([self.best[missed], of_block], 1).topk(self.m, 1, sorted=False).values
        self.best, self.seen = best, self.seen + n

    def _lowest(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"]) -> tuple[Float[Tensor, "C"], float]:
        """For each class the similarity below which no image of the block is among its best, and how many lie above.

        Known where so many images were seen before; guessed from some images of the block else, a bit too low.
        """
        n = len(s)
        if self.seen >= self.m:
            return value_and_image(self.best)[0].amin(1), self.m
        step = max(1, n // SAMPLE)
        drawn = (s[::step] + offset[::step, None]).T.contiguous()
        expected = min(self.m, n) / step
        k = min(drawn.shape[1], ceil(expected + 4 * sqrt(expected) + 4))
        return drawn.topk(k, 1).values[:, -1].contiguous(), k * step

    def retrieved(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        return value_and_image(self.best)


@triton.jit
def _look_at_images(
    s, offset, prediction, rival, top_similarity, margin, top_probability, spread, power, stride, n_classes,
    TILE: tl.constexpr,
):  # fmt: skip
    """One image a program: its two best classes, and the sums over classes."""
    image = tl.program_id(0).to(tl.int64)
    row, shift = s + image * stride, tl.load(offset + image)
    place = tl.arange(0, TILE)
    top, runner_up = -float("inf"), -float("inf")
    first, second = 0, 0
    for start in range(0, n_classes, TILE):
        v = tl.load(row + start + place, mask=start + place < n_classes, other=-float("inf")).to(tl.float32) + shift
        highest, i = tl.max(v, 0, return_indices=True)
        next_highest, j = tl.max(tl.where(place == i, -float("inf"), v), 0, return_indices=True)
        ahead = highest > top
        earlier, later = tl.where(ahead, top, runner_up), tl.where(ahead, next_highest, highest)
        earlier_class, later_class = tl.where(ahead, first, second), start + tl.where(ahead, j, i)
        runner_up, second = tl.maximum(earlier, later), tl.where(earlier >= later, earlier_class, later_class)
        top, first = tl.maximum(top, highest), tl.where(ahead, start + i, first)
    total, square, mass = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
    for start in range(0, n_classes, TILE):
        inside = start + place < n_classes
        d = tl.load(row + start + place, mask=inside, other=0.0).to(tl.float32) + shift - top
        total += tl.where(inside, d, 0.0)
        square += tl.where(inside, d * d, 0.0)
        mass += tl.where(inside, tl.exp2(d * power), 0.0)
    mean = tl.sum(total, 0) / n_classes
    tl.store(prediction + image, first)
    tl.store(rival + image, second)
    tl.store(top_similarity + image, top)
    tl.store(margin + image, top - runner_up)
    tl.store(top_probability + image, 1.0 / tl.sum(mass, 0))  # type: ignore[operator]
    tl.store(spread + image, tl.sqrt(tl.maximum(tl.sum(square, 0) / n_classes - mean * mean, 0.0)))


@triton.jit
def _sum_over_images(
    s, offset, top_similarity, top_probability, spread, lowest, sums, keys, count,
    power, stride, n, n_classes, begin, chunks, room,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some classes and a chunk of the images a program: the soft sums, [chunks, 4, C], and the number and the keys of
    the images that are at least as similar to a class as `lowest`. A chunk's images lie `chunks` apart: often those of
    a class lie side by side, and each chunk has room for some only.
    """
    chunk = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    classes = column < n_classes
    found = tl.zeros([CLASSES], tl.int32)
    threshold = tl.load(lowest + column, mask=classes, other=float("inf"))
    mass, margin = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    scaled, probability = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    for first in range(0, CHUNK, ROWS):
        image = (first + tl.arange(0, ROWS)).to(tl.int64) * chunks + chunk
        there = image < n
        q_top = tl.load(top_probability + image, mask=there, other=0.0)
        top = tl.load(top_similarity + image, mask=there, other=0.0)
        shift = tl.load(offset + image, mask=there, other=0.0)
        width = tl.maximum(tl.load(spread + image, mask=there, other=1.0), 1e-30)
        inside = there[:, None] & classes[None, :]
        v = tl.load(s + image[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        v = v + shift[:, None]
        d = v - top[:, None]
        q = tl.exp2(d * power) * q_top[:, None]
        mass += tl.sum(q, 0)
        margin += tl.sum(q * d, 0)
        scaled += tl.sum(q * d / width[:, None], 0)
        probability += tl.sum(q * (q - q_top[:, None]), 0)
        near = inside & (v >= threshold[None, :])
        place = found[None, :] + tl.cumsum(near.to(tl.int32), 0) - 1
        found += tl.sum(near.to(tl.int32), 0)
        bits = v.to(tl.int32, bitcast=True).to(tl.int64)
        key = (tl.where(bits < 0, -2147483648 - bits, bits) << 32) - (begin + image)[:, None]  # as `rank_key`
        tl.store(keys + (column.to(tl.int64)[None, :] * chunks + chunk) * room + place, key, mask=near & (place < room))
    tl.store(count + chunk * n_classes + column, found, mask=classes)
    out = sums + chunk * 4 * n_classes + column
    tl.store(out, mass, mask=classes)
    tl.store(out + n_classes, margin, mask=classes)
    tl.store(out + 2 * n_classes, scaled, mask=classes)
    tl.store(out + 3 * n_classes, probability, mask=classes)
