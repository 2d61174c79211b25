"""The sums of `cmmlib.functional.candidates` in a kernel of Triton, for NVIDIA's GPUs: one pass over the block."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK, ROWS, CLASSES = 512, 16, 128  # images that a program sums up, and its tile


def add_soft_sums(
    similarity: Tensor, top: Tensor, rest: Tensor, power: float, highest_power: float, mass: Tensor, total: Tensor
) -> None:
    """See `cmmlib.functional.candidates._add_soft_sums`."""
    n, k = similarity.shape
    sums = torch.empty(triton.cdiv(n, CHUNK), 2, k, device=similarity.device)
    numbers = (power, float(highest_power), similarity.stride(0), rest.stride(0), n, k, CHUNK, ROWS, CLASSES)
    _sum_over_images[(triton.cdiv(k, CLASSES), len(sums))](similarity, top, rest, sums, *numbers)  # type: ignore[arg-type]
    of_block = sums.sum(0, dtype=torch.float64)
    mass += of_block[0]
    total += of_block[1]


@triton.jit
def _sum_over_images(
    similarity, top, rest, sums, power, highest_power, stride, rest_stride, n, k,
    CHUNK: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Some candidates and a chunk of the images a program: probabilities, and these times the margins."""
    chunk = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    mass, total = tl.zeros([CLASSES], tl.float32), tl.zeros([CLASSES], tl.float32)
    for first in range(0, CHUNK, ROWS):
        image = chunk * CHUNK + first + tl.arange(0, ROWS)
        inside = (image < n)[:, None] & (column < k)[None, :]
        s = tl.load(similarity + image[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        others = tl.load(rest + image[:, None] * rest_stride + column[None, :], mask=inside, other=float("inf"))
        margin = s - tl.load(top + image, mask=image < n, other=0.0)[:, None]
        own = tl.exp2(tl.minimum(margin * power, highest_power))
        own = tl.where(own < 1.1754943508222875e-38, 0.0, own)  # below the smallest normal number
        q = own / (own + others)
        mass += tl.sum(q, 0)
        total += tl.sum(q * margin, 0)
    out = sums + chunk * 2 * k + column
    tl.store(out, mass, mask=column < k)
    tl.store(out + k, total, mask=column < k)
