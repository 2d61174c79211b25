"""What the pass does with a block of similarities besides making them, in two kernels of Triton: for NVIDIA's GPUs.

`cmmlib.functional._kernels.similarity_torch` has the same steps, each a pass over the block of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional._kernels.similarity_torch import NO_KEY, TorchSteps, rank_key, value_and_image

WIDEST = 1024  # classes that a program of the first kernel looks at together
CHUNK, ROWS, CLASSES = 512, 16, 128  # images a program of the second kernel sums up, and its tile
GROUP = 32  # images side by side whose highest similarity with each class is kept; a multiple of ROWS
LOOKED_AT = ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
SUMS = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")


class TritonSteps(TorchSteps):
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`."""

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        (n, n_classes), rows = s.shape, slice(start, start + len(s))
        first, second, top, margin, q_top, spread = (self.fields[key][rows] for key in LOOKED_AT)
        tile = min(WIDEST, triton.next_power_of_2(n_classes))
        per_image = (first, second, top, margin, q_top, spread)
        _look_at_images[(n,)](s, offset, *per_image, self.power, s.stride(0), n_classes, TILE=tile)  # type: ignore[arg-type]
        sums = torch.empty(triton.cdiv(n, CHUNK), 4, n_classes, device=s.device)
        highest = torch.empty(triton.cdiv(n, GROUP), n_classes, device=s.device)
        numbers = (self.power, s.stride(0), n, n_classes, CHUNK, GROUP, ROWS, CLASSES)
        grid = triton.cdiv(n_classes, CLASSES), len(sums)
        _sum_over_images[grid](s, offset, top, q_top, spread, sums, highest, *numbers)  # type: ignore[arg-type]
        for key, total in zip(SUMS, sums.sum(0, dtype=torch.float64), strict=True):
            self.fields[key] += total
        found = self._nearest(s, offset, highest, start)
        self.best = torch.cat([self.best, found], 1).topk(self.m, 1, sorted=False).values

    def _nearest(
        self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], highest: Float[Tensor, "G C"], start: int
    ) -> Int[Tensor, "C K"]:
        """Keys of some images of the block, each class's m most similar ones among them.

        These lie in the m groups whose highest similarity with the class is highest: every group that is left out has
        m groups before it, each with an image that comes before all of its own. Of equal groups the first has the
        first image.
        """
        n, n_classes = s.shape
        if self.m * GROUP > n // 2:  # nearly all of them
            return rank_key((s + offset[:, None]).T.contiguous(), torch.arange(start, start + n, device=s.device))
        group = torch.arange(len(highest), device=s.device)
        nearest = value_and_image(rank_key(highest.T.contiguous(), group).topk(self.m, 1, sorted=False).values)[1]
        image = (nearest[:, :, None] * GROUP + torch.arange(GROUP, device=s.device)).flatten(1)  # [C, m * GROUP]
        there = image.clamp_max(n - 1)
        similarity = s[there, torch.arange(n_classes, device=s.device)[:, None]] + offset[there]
        return rank_key(similarity, there + start).masked_fill_(image >= n, NO_KEY)


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
    s, offset, top_similarity, top_probability, spread, sums, highest, power, stride, n, n_classes,
    CHUNK: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some classes and a chunk of the images a program: the soft sums, [chunks, 4, C], and the highest similarity of
    every group of images, [groups, C].
    """
    chunk = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    classes = column < n_classes
    mass, margin = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    scaled, probability = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    for group in range(0, CHUNK, GROUP):
        best = tl.full([CLASSES], -float("inf"), tl.float32)
        for first in range(group, group + GROUP, ROWS):  # type: ignore[arg-type]
            image = chunk * CHUNK + first + tl.arange(0, ROWS)
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
            best = tl.maximum(best, tl.max(tl.where(inside, v, -float("inf")), 0))
        if chunk * CHUNK + group < n:
            tl.store(highest + (chunk * CHUNK + group) // GROUP * n_classes + column, best, mask=classes)
    out = sums + chunk * 4 * n_classes + column
    tl.store(out, mass, mask=classes)
    tl.store(out + n_classes, margin, mask=classes)
    tl.store(out + 2 * n_classes, scaled, mask=classes)
    tl.store(out + 3 * n_classes, probability, mask=classes)
