"""The soft sums of `cmmlib.functional.candidates` over a block of images, compiled by numba for the processor."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from torch import Tensor

from cmmlib.functional._kernels.numba_helpers import FAST, ROWS, as_array, compiled, exp2, widen


def add_soft_sums(
    similarity: Tensor, top: Tensor, rest: Tensor, power: float, highest: float, mass: Tensor, total: Tensor
) -> None:
    """See `functional.candidates._add_soft_sums`; `highest` bounds the power of two."""
    arrays = as_array(similarity), top.numpy(), rest.numpy()
    _add(*arrays, np.float32(power), np.float32(highest), mass.numpy(), total.numpy())


@compiled(fastmath=FAST)
@no_type_check
def _add(similarity, top, rest, power, highest, mass, total):
    sums, margin = np.empty((2, len(mass)), np.float32), np.empty(len(mass), np.float32)
    for begin in range(0, len(top), ROWS):
        sums[:] = 0
        for i in range(begin, min(begin + ROWS, len(top))):
            widen(similarity[i], -top[i], margin)
            _add_image(margin, rest[i], power, highest, sums[0], sums[1])
        mass += sums[0]
        total += sums[1]


@compiled(fastmath=FAST)
@no_type_check
def _add_image(margin, rest, power, highest, mass, total):
    for j in range(len(margin)):
        own = exp2(min(margin[j] * power, highest))
        q = own / (own + rest[j])
        mass[j] += q
        total[j] += q * margin[j]
