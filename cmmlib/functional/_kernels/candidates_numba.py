"""The soft sums of `cmmlib.functional.candidates` over a block of images, compiled by numba for the processor."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from torch import Tensor

from cmmlib.functional._kernels.numba_helpers import FAST, ROWS, as_array, compiled, exp2, widen
from cmmlib.functional.candidates import HIGHEST_POWER

LIMIT = np.float32(HIGHEST_POWER)


def add_soft_sums(similarity: Tensor, top: Tensor, rest: Tensor, power: float, mass: Tensor, total: Tensor) -> None:
    """See `cmmlib.functional.candidates._add_soft_sums`."""
    _add(as_array(similarity), top.numpy(), rest.numpy(), np.float32(power), mass.numpy(), total.numpy())


@compiled(fastmath=FAST)
@no_type_check
def _add(similarity, top, rest, power, mass, total):
    sums, margin = np.empty((2, len(mass)), np.float32), np.empty(len(mass), np.float32)
    for begin in range(0, len(top), ROWS):
        sums[:] = 0
        for i in range(begin, min(begin + ROWS, len(top))):
            widen(similarity[i], -top[i], margin)
            _add_image(margin, rest[i], power, sums[0], sums[1])
        mass += sums[0]
        total += sums[1]


@compiled(fastmath=FAST)
@no_type_check
def _add_image(margin, rest, power, mass, total):
    for j in range(len(margin)):
        own = exp2(min(margin[j] * power, LIMIT))
        q = own / (own + rest[j])
        mass[j] += q
        total[j] += q * margin[j]
