"""What the pass does with a block of similarities besides making them, in two kernels of Triton: for NVIDIA's GPUs.

`cmmlib.functional._kernels.similarity_torch` has the same steps, each a pass over the block of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional._kernels.similarity_torch import NO_KEY, rank_key, value_and_image

WIDEST = 1024  # classes that a program of the first kernel looks at together
CHUNK, ROWS, CLASSES = 512, 16, 128  # images a program of the second kernel sums up, and its tile


class TritonSteps:
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`."""

    def __init__(self, fields: dict[str, Tensor], m: int, power: float) -> None:
        self.fields, self.m, self.power = fields, m, power
        n_classes, device = len(fields["soft_mass"]), fields["soft_mass"].device
        self.best = torch.full((n_classes, m), NO_KEY, device=device)  # keys of each class's most similar images

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        (n, n_classes), rows = s.shape, slice(start, start + len(s))
        per_image = [
            self.fields[key][rows]
            for key in ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
        ]
        tile = min(WIDEST, triton.next_power_of_2(n_classes))
        _look_at_images[(n,)](s, offset, *per_image, self.power, s.stride(0), n_classes, TILE=tile)  # type: ignore[arg-type]
        chunks = triton.cdiv(n, CHUNK)
        sums = torch.empty(chunks, 4, n_classes, device=s.device)
        grid = triton.cdiv(n_classes, CLASSES), chunks
        made = (per_image[2], *per_image[4:])  # top similarity, top probability and spread
        sizes = (s.stride(0), n, n_classes, CHUNK, ROWS, CLASSES)
        _sum_over_images[grid](s, offset, *made, sums, self.power, *sizes)  # type: ignore[arg-type]
        names = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")
        for key, total in zip(names, sums.sum(0, dtype=torch.float64), strict=True):
            self.fields[key] += total
        self._retrieve(s if s.dtype == torch.float32 else s + offset[:, None], start)

    def _retrieve(self, d: Float[Tensor, "B C"], start: int) -> None:
        """Keep the m best images so far. `topk` breaks ties at random, so classes with one at the end are done anew."""
        value, image = d.topk(min(self.m + 1, len(d)), 0)
        key = rank_key(value[: self.m].T, image[: self.m].T + start)
        if len(value) > self.m:
            tied = (value[self.m - 1] == value[self.m]).nonzero()[:, 0]
            if len(tied):
                images = torch.arange(start, start + len(d), device=d.device)
                key[tied] = rank_key(d[:, tied].T.contiguous(), images).topk(self.m, 1, sorted=False).values
        self.best = torch.cat([self.best, key], 1).topk(self.m, 1, sorted=False).values

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
    s, offset, top_similarity, top_probability, spread, sums, power, stride, n, n_classes,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some classes and a chunk of the images a program: the soft sums, [chunks, 4, C]."""
    chunk = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    mass, margin = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    scaled, probability = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    for begin in range(0, CHUNK, ROWS):
        image = chunk * CHUNK + begin + tl.arange(0, ROWS)
        there = image < n
        q_top = tl.load(top_probability + image, mask=there, other=0.0)
        top = tl.load(top_similarity + image, mask=there, other=0.0) - tl.load(offset + image, mask=there, other=0.0)
        width = tl.maximum(tl.load(spread + image, mask=there, other=1.0), 1e-30)
        inside = there[:, None] & (column < n_classes)[None, :]
        d = tl.load(s + image[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32) - top[:, None]
        q = tl.exp2(d * power) * q_top[:, None]
        mass += tl.sum(q, 0)
        margin += tl.sum(q * d, 0)
        scaled += tl.sum(q * d / width[:, None], 0)
        probability += tl.sum(q * (q - q_top[:, None]), 0)
    inside = column < n_classes
    out = sums + chunk * 4 * n_classes + column
    tl.store(out, mass, mask=inside)
    tl.store(out + n_classes, margin, mask=inside)
    tl.store(out + 2 * n_classes, scaled, mask=inside)
    tl.store(out + 3 * n_classes, probability, mask=inside)
