"""What the pass does with a block of similarities besides making them, in six kernels of Triton: for NVIDIA's GPUs.

`cmmlib.functional._kernels.similarity_torch` has the same steps, each a pass over the block of its own. Signatures have
no shapes: what checks them in the tests wraps the kernels too, and Triton's interpreter cannot look through that.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cmmlib.functional._kernels.similarity_torch import LOW_BITS, NEGATIVE_ZERO, NO_KEY, TorchSteps, rank_key

WIDEST = 1024  # classes that a program of the first kernel looks at together
CHUNK, ROWS, CLASSES = 256, 32, 128  # images a program of the second kernel sums up, and its tile
GROUP = 32  # images side by side whose highest similarity with each class is kept; a multiple of ROWS
CHUNKS, FEW_CLASSES, NEAREST = 32, 32, 32  # tiles of the third and fourth kernel
LONGEST = 1 << 13  # keys of a class that a program of the last kernel looks at together
LOOKED_AT = ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
LOW, NONE, ZERO = tl.constexpr(LOW_BITS), tl.constexpr(NO_KEY), tl.constexpr(NEGATIVE_ZERO)
LAST = tl.constexpr((1 << 31) - 1)  # a class after all others
SUMS = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")


class TritonSteps(TorchSteps):
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`.

    Few kernels: a GPU multiplies a prompt's blocks in the time that a hundred small steps take to be sent to it.
    """

    is_complete = True

    def add(self, s: Tensor, offset: Tensor, start: int) -> None:
        (n, n_classes), rows = s.shape, slice(start, start + len(s))
        per_image = tuple(self.fields[key][rows] for key in LOOKED_AT)
        _, _, top, _, q_top, spread = per_image
        of_class = tuple(self.fields[key] for key in SUMS)
        tile = min(WIDEST, triton.next_power_of_2(n_classes))
        numbers = (self.power, s.stride(0), n_classes, tile)
        # one warp: with more, each of the many sums over a row waits for all of them
        _look_at_images[(n,)](s, offset, *per_image, *of_class[1:], *numbers, num_warps=1)  # type: ignore[arg-type]
        sums = torch.empty(triton.cdiv(n, CHUNK), 4, n_classes, device=s.device)
        highest = torch.empty(n_classes, triton.cdiv(n, GROUP), dtype=torch.int64, device=s.device)
        numbers = (self.power, s.stride(0), n, n_classes, highest.shape[1], CHUNK, GROUP, ROWS, CLASSES)
        grid = triton.cdiv(n_classes, CLASSES), len(sums)
        _sum_over_images[grid](s, offset, top, q_top, spread, sums, highest, *numbers)  # type: ignore[arg-type]
        grid = triton.cdiv(n_classes, FEW_CLASSES), 4
        _add_chunks[grid](sums, *of_class, len(sums), n_classes, CHUNKS, FEW_CLASSES)  # type: ignore[arg-type]
        self.keep(self._nearest(s, offset, highest, start))

    def _nearest(self, s: Tensor, offset: Tensor, highest: Tensor, start: int) -> Tensor:
        """Keys of some images of the block, [C, K], each class's m most similar ones among them; `highest` is [C, G].

        These lie in the m groups whose highest similarity with the class is highest: every group that is left out has
        m groups before it, each with an image that comes before all of its own. Of equal groups the first has the
        first image.
        """
        n, n_classes = s.shape
        if self.m * GROUP > n // 2:  # nearly all of them
            return rank_key((s + offset[:, None]).T.contiguous(), torch.arange(start, start + n, device=s.device))
        nearest = self.highest(highest, self.m)
        keys = torch.empty(n_classes, self.m * GROUP, dtype=torch.int64, device=s.device)
        grid = n_classes, triton.cdiv(self.m, NEAREST)
        _look_at_groups[grid](s, offset, nearest, keys, start, s.stride(0), n, self.m, GROUP, NEAREST)  # type: ignore[arg-type]
        return keys

    def retrieved(self) -> tuple[Tensor, Tensor]:
        fields, (n_classes, m), device = self.fields, self.best.shape, self.best.device
        value, image = torch.empty(n_classes, m, device=device), torch.empty_like(self.best)
        of_images = fields["prediction"], fields["top_similarity"], fields["margin"]
        tile = min(WIDEST, triton.next_power_of_2(m))
        _add_retrieved[(n_classes,)](self.best, value, image, *of_images, fields["retrieval_margin"], m, tile)  # type: ignore[arg-type]
        return value, image

    def highest(self, keys: Tensor, k: int) -> Tensor:
        """Each class's k highest keys, in any order."""
        n_classes, n = keys.shape
        if n > LONGEST:
            return super().highest(keys, k)  # fifty small steps
        found = torch.empty(n_classes, k, dtype=torch.int64, device=keys.device)
        _highest[(n_classes,)](keys, found, n, k, triton.next_power_of_2(n))  # type: ignore[arg-type]
        return found


@triton.jit
def _rank_key(value, image):
    """See `cmmlib.functional._kernels.similarity_torch.rank_key`."""
    bits = value.to(tl.int32, bitcast=True)
    return (tl.where(bits < 0, ZERO - bits, bits).to(tl.int64) << 32) - image


@triton.jit
def _look_at_images(
    s, offset, prediction, rival, top_similarity, margin, top_probability, spread,
    soft_margin, soft_scaled_margin, soft_probability_margin, power, stride, n_classes, TILE: tl.constexpr,
):  # fmt: skip
    """One image a program: its two best classes, the sums over classes, and the share of the predicted class in the
    sums over images.
    """
    image = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # a tile of one row: faster than a vector
    row, shift = s + image[:, None] * stride, tl.load(offset + image)[:, None]
    place = tl.arange(0, TILE)[None, :]
    top, runner_up = tl.full([1], -float("inf"), tl.float32), tl.full([1], -float("inf"), tl.float32)
    first, second = tl.zeros([1], tl.int32), tl.zeros([1], tl.int32)
    for start in range(0, n_classes, TILE):
        column = start + place
        v = tl.load(row + column, mask=column < n_classes, other=-float("inf")).to(tl.float32) + shift
        highest = tl.max(v, 1)
        i = tl.min(tl.where(v == highest[:, None], column, LAST), 1)  # type: ignore[index]
        v = tl.where(column == i[:, None], -float("inf"), v)  # type: ignore[index]
        next_highest = tl.max(v, 1)
        j = tl.min(tl.where(v == next_highest[:, None], column, LAST), 1)  # type: ignore[index]
        ahead = highest > top  # type: ignore[operator]
        earlier, later = tl.where(ahead, top, runner_up), tl.where(ahead, next_highest, highest)
        earlier_class, later_class = tl.where(ahead, first, second), tl.where(ahead, j, i)
        runner_up, second = tl.maximum(earlier, later), tl.where(earlier >= later, earlier_class, later_class)
        top, first = tl.maximum(top, highest), tl.where(ahead, i, first)
    total, square, mass = tl.zeros([1], tl.float32), tl.zeros([1], tl.float32), tl.zeros([1], tl.float32)
    for start in range(0, n_classes, TILE):
        inside = start + place < n_classes
        d = tl.load(row + start + place, mask=inside, other=0.0).to(tl.float32) + shift - top[:, None]
        d = tl.where(inside, d, 0.0)
        total += tl.sum(d, 1)
        square += tl.sum(d * d, 1)
        mass += tl.sum(tl.where(inside, tl.exp2(d * power), 0.0), 1)
    mean = total / n_classes
    width = tl.sqrt(tl.maximum(square / n_classes - mean * mean, 0.0))
    ahead, q_top = top - runner_up, 1.0 / mass
    tl.store(prediction + image, first)
    tl.store(rival + image, second)
    tl.store(top_similarity + image, top)
    tl.store(margin + image, ahead)
    tl.store(top_probability + image, q_top)
    tl.store(spread + image, width)
    q, distance = q_top.to(tl.float64), ahead.to(tl.float64)
    tl.atomic_add(soft_margin + first, q * distance)
    tl.atomic_add(soft_scaled_margin + first, q * distance / tl.maximum(width, 1e-30))
    tl.atomic_add(soft_probability_margin + first, q * q * (1.0 - tl.exp2(-distance * power)))


@triton.jit
def _sum_over_images(
    s, offset, top_similarity, top_probability, spread, sums, highest, power, stride, n, n_classes, n_groups,
    CHUNK: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some classes and a chunk of the images a program: the soft sums, [chunks, 4, C], and a key of every group of
    images, [C, groups], by its highest similarity.
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
            place = (chunk * CHUNK + group) // GROUP
            tl.store(highest + column.to(tl.int64) * n_groups + place, _rank_key(best, place), mask=classes)
    out = sums + chunk * 4 * n_classes + column
    tl.store(out, mass, mask=classes)
    tl.store(out + n_classes, margin, mask=classes)
    tl.store(out + 2 * n_classes, scaled, mask=classes)
    tl.store(out + 3 * n_classes, probability, mask=classes)


@triton.jit
def _add_chunks(
    sums, soft_mass, soft_margin, soft_scaled_margin, soft_probability_margin, n_chunks, n_classes,
    CHUNKS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """One of the sums and some classes a program: what the chunks found, added up in float64."""
    kind = tl.program_id(1)
    column = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    total = tl.zeros([CLASSES], tl.float64)
    for first in range(0, n_chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        inside = (chunk < n_chunks)[:, None] & (column < n_classes)[None, :]
        part = tl.load(sums + (chunk[:, None] * 4 + kind) * n_classes + column[None, :], mask=inside, other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    if kind == 0:
        out = soft_mass
    elif kind == 1:
        out = soft_margin
    elif kind == 2:
        out = soft_scaled_margin
    else:
        out = soft_probability_margin
    tl.store(out + column, tl.load(out + column, mask=column < n_classes) + total, mask=column < n_classes)


@triton.jit
def _look_at_groups(
    s, offset, nearest, keys, start, stride, n, m, GROUP: tl.constexpr, NEAREST: tl.constexpr
):  # fmt: skip
    """One class and some of the groups nearest to it a program: the keys of their images, [C, m * GROUP]."""
    column = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * NEAREST + tl.arange(0, NEAREST)
    group = -tl.load(nearest + column * m + place, mask=place < m, other=0) & LOW
    image = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = (place < m)[:, None] & (image < n)
    v = tl.load(s + image * stride + column, mask=inside, other=0.0).to(tl.float32)
    v = v + tl.load(offset + image, mask=inside, other=0.0)
    key = tl.where(inside, _rank_key(v, image + start), NONE)
    out = keys + column * m * GROUP + place[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    tl.store(out, key, mask=(place < m)[:, None] & (image >= 0))


@triton.jit
def _highest(keys, found, n, k, TILE: tl.constexpr):
    """One class a program: its k highest keys. The lowest of these is found bit by bit, from the highest bit on."""
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, TILE)
    key = tl.load(keys + row * n + place, mask=place < n, other=NONE)
    lowest = tl.full([], NONE, tl.int64)
    for step in range(64):
        one = tl.full([], 1, tl.int64) << (63 - step)  # of the sign, which is added, it makes 0 of the lowest number
        higher = lowest + one
        lowest = tl.where(tl.sum((key >= higher).to(tl.int32), 0) >= k, higher, lowest)
    above, equal = (key > lowest).to(tl.int32), (key == lowest).to(tl.int32)
    out = tl.where(above == 1, tl.cumsum(above, 0), tl.sum(above, 0) + tl.cumsum(equal, 0)) - 1
    tl.store(found + row * k + out, key, mask=(key >= lowest) & (out < k))


@triton.jit
def _add_retrieved(
    keys, value, image, prediction, top_similarity, margin, retrieval_margin, m, TILE: tl.constexpr
):  # fmt: skip
    """One class a program: similarities and places of its m most similar images, and the sum of their margins."""
    row, total = tl.program_id(0), tl.zeros([TILE], tl.float64)
    begin = row.to(tl.int64) * m
    for start in range(0, m, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < m
        key = tl.load(keys + begin + place, mask=inside, other=0)
        i = -key & LOW
        bits = ((key + i) >> 32).to(tl.int32)
        v = tl.where(bits < 0, ZERO - bits, bits).to(tl.float32, bitcast=True)
        behind = v - tl.load(top_similarity + i, mask=inside, other=0.0)
        ahead = tl.load(margin + i, mask=inside, other=0.0)
        is_first = tl.load(prediction + i, mask=inside, other=-1) == row
        total += tl.where(inside, tl.where(is_first, ahead, behind), 0.0).to(tl.float64)
        tl.store(value + begin + place, v, mask=inside)
        tl.store(image + begin + place, i, mask=inside)
    tl.store(retrieval_margin + row, tl.load(retrieval_margin + row) + tl.sum(total, 0))
