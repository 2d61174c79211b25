"""How many images are looked at at once: as many as a processor's caches, or a GPU, take well."""

from __future__ import annotations

import torch

BLOCK_ROWS = 8192  # images whose similarities are held at once, and whose float32 copy is
GPU_BLOCK_BYTES, GPU_BLOCK_ROWS = 256 << 20, 1 << 16  # on a GPU, which is quick with large blocks only
TILE = 64  # images: products of other numbers of rows leave a rest that is slower


def block_rows(row_bytes: int, block_bytes: int, device: torch.device) -> int:
    """Images in a block, if the similarities of one image take `row_bytes`; 1 or more.

    On the processor a block has at most `block_bytes`.
    """
    on_gpu = device.type != "cpu"
    rows = min(most_rows(device), (GPU_BLOCK_BYTES if on_gpu else block_bytes) // row_bytes)
    return max(1, rows // TILE * TILE or rows)


def most_rows(device: torch.device) -> int:
    """Images in a block at most, whatever they take."""
    return BLOCK_ROWS if device.type == "cpu" else GPU_BLOCK_ROWS
