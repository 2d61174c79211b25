"""The soft sums of `cmmlib.ensemble` over a block of images, compiled by numba for the processor."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.compiled import FAST, ROWS, compiled


def add_soft_sums(
    similarity: Float[Tensor, "B K"],
    rival: Float[Tensor, "B K"],
    log_others: Float[Tensor, "B K"],
    logit_scale: float,
    mass: Float[Tensor, "K"],
    total: Float[Tensor, "K"],
) -> None:
    """Add to `mass` the probabilities of K candidates, and to `total` these times the candidates' margins; float64."""
    q = torch.empty_like(similarity)
    s = similarity.numpy()
    _logits(s, log_others.numpy(), np.float32(logit_scale), q.numpy())
    q.sigmoid_()
    _add(s, rival.numpy(), q.numpy(), mass.numpy(), total.numpy())


@compiled(fastmath=FAST)
@no_type_check
def _logits(similarity, log_others, scale, out):
    for i in range(len(out)):
        s, others, z = similarity[i], log_others[i], out[i]
        for j in range(len(z)):
            z[j] = scale * s[j] - others[j]


@compiled(fastmath=FAST)
@no_type_check
def _add(similarity, rival, q, mass, total):
    sums = np.empty((2, q.shape[1]), np.float32)
    for begin in range(0, len(q), ROWS):
        sums[:] = 0
        for i in range(begin, min(begin + ROWS, len(q))):
            s, r, p = similarity[i], rival[i], q[i]
            for j in range(len(p)):
                sums[0, j] += p[j]
                sums[1, j] += p[j] * (s[j] - r[j])
        mass += sums[0]
        total += sums[1]
