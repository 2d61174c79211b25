"""What embeddings must pass before anything is computed from them, and which classes no classifier can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.errors import InputError

# Logit scales of files that are believed; trained models have about 1 to 120. Far beyond, float32 has no digits left
# for what the images say: every probability is equal, or 0 or 1.
LOGIT_SCALES = (1e-4, 1e4)
ROWS, GPU_ROWS = 1 << 14, 1 << 18  # rows a step: float32 copies stay this small
SHORTEST = 1e-12  # shorter rows cannot be scaled to unit norm: torch's normalize divides by no less


def check_embeddings(x: Float[Tensor, "*rows D"], name: str) -> None:
    """Refuse rows of `x`, [N, D] or [P, C, D], that float32 cannot scale to unit norm, and name the first.

    Lengths are computed in float32, so that float16 embeddings do not overflow.

    Raises:
        InputError: with the row's index (a tuple of indices when `x` has more than two dimensions); rows of width 0.
    """
    if not x.shape[-1]:
        raise InputError(f"{name} has rows of no numbers, {list(x.shape)}: embed the inputs again")
    rows = x.reshape(-1, x.shape[-1])
    step = ROWS if x.device.type == "cpu" else GPU_ROWS
    for start in range(0, len(rows), step):
        norm = torch.linalg.vector_norm(rows[start : start + step].float(), dim=1)
        bad = (~(norm.isfinite() & (norm > SHORTEST))).nonzero()[:, 0]
        if len(bad):
            row = tuple(int(i) for i in torch.unravel_index(bad[0] + start, x.shape[:-1]))
            fault = _fault(rows[start + bad[0]])
            raise InputError(f"{name} row {row[0] if len(row) == 1 else row} has {fault}")


def cancelling_classes(text_features: Float[Tensor, "P C D"]) -> list[int]:
    """Classes whose unit vectors of all prompts have a mean without length, and so without a direction.

    >>> text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> cancelling_classes(torch.stack([text, text * torch.tensor([[-1.0], [1.0]])]))
    [0]
    """
    return (torch.linalg.vector_norm(text_features.float().mean(0), dim=-1) < 1e-6).nonzero()[:, 0].tolist()


def _fault(row: Float[Tensor, "D"]) -> str:
    """What is wrong with a row that has no length in float32, and the remedy; its own numbers may be of float64."""
    largest = float(row.double().abs().max())  # NaN where there is one
    if largest and math.isfinite(largest):
        size = "large" if largest > 1 else "small"
        return f"values up to {largest:.3g}, too {size} for float32: scale the embeddings to unit norm first"
    return f"{'NaN or Inf' if largest else 'a zero-length embedding'}: remove or recompute it"


def require_images_and_texts(image_features: Tensor, text_features: Tensor, logit_scale: float) -> None:
    """Refuse images and texts that no classifier can be fitted to.

    Raises:
        InputError: shapes that do not fit, NaN, Inf, a row of zeros, or a scale that is not positive.
    """
    if not 0 < logit_scale < float("inf"):
        raise InputError(f"logit_scale must be positive and finite, got {logit_scale}")
    if image_features.ndim != 2 or text_features.ndim != 2 or image_features.shape[1] != text_features.shape[1]:
        raise InputError(
            f"image_features {list(image_features.shape)} and text_features {list(text_features.shape)} do not fit: "
            "expected [N, D] and [C, D]"
        )
    check_embeddings(image_features, "image_features")
    check_embeddings(text_features, "text_features")


def duplicate_classes(classnames: Sequence[str], text_features: Float[Tensor, "C D"]) -> list[dict[str, Any]]:
    """Groups of classes that no classifier could tell apart: the same name (case ignored), or the same text embedding.

    Returns:
        One entry a group: `classes` (indices), `names`, and `by`, "name" or "text".

    Raises:
        InputError: another number of names than of texts.
    """
    if len(classnames) != len(text_features):
        n = f"{len(classnames):,} names, and text_features has {len(text_features):,} rows"
        raise InputError(f"duplicate_classes: classnames has {n}: give one name a row")
    groups: dict[tuple[str, Any], list[int]] = {}
    _, same_text = torch.unique(text_features, dim=0, return_inverse=True)
    for c, (name, text) in enumerate(zip(classnames, same_text.tolist(), strict=True)):
        groups.setdefault(("name", name.strip().casefold()), []).append(c)
        groups.setdefault(("text", text), []).append(c)
    seen: set[tuple[int, ...]] = set()
    duplicates = []
    for (by, _), classes in groups.items():
        if len(classes) > 1 and tuple(classes) not in seen:
            seen.add(tuple(classes))
            duplicates.append({"classes": classes, "names": [classnames[c] for c in classes], "by": by})
    return duplicates
