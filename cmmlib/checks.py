"""What every array of embeddings must pass before anything is computed from it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.errors import InputError

ROWS = 1 << 14  # rows a step: float32 copies stay this small
SHORTEST = 1e-12  # shorter rows cannot be scaled to unit norm: torch's normalize divides by no less


def check_embeddings(x: Float[Tensor, "*rows D"], name: str) -> None:
    """Refuse NaN, Inf and zero-length rows of `x`, [N, D] or [P, C, D], and name the first bad row.

    Lengths are computed in float32, so that float16 embeddings do not overflow.

    Raises:
        InputError: with the row's index (a tuple of indices when `x` has more than two dimensions).
    """
    rows = x.reshape(-1, x.shape[-1])
    for start in range(0, len(rows), ROWS):
        norm = torch.linalg.vector_norm(rows[start : start + ROWS].float(), dim=1)
        bad = (~(norm.isfinite() & (norm > SHORTEST))).nonzero()[:, 0]
        if len(bad):
            row = tuple(int(i) for i in torch.unravel_index(bad[0] + start, x.shape[:-1]))
            what = "a zero-length embedding" if norm[bad[0]] <= SHORTEST else "NaN or Inf"
            raise InputError(f"{name} row {row[0] if len(row) == 1 else row} has {what}: remove or recompute it")
