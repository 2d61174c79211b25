"""Classes that a fitted classifier is likely to get wrong, by its own CMM."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional.cmm import class_matching_margin, rank_classes
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.similarity import similarity_pass


def find_suspects(correction: Correction, image_features: Float[Tensor, "N D"], n: int | None = None) -> list[int]:
    """The n classes of lowest soft CMM under a corrected classifier, the lowest first; a quarter of all by default.

    Margins are those of the corrected logits: a bias is one more dimension, in which every image is 1. Measured on CLIP
    ViT-B/32: with prototypes the rank correlation with accuracy is 0.86 (DTD) and 0.81 (pets), where the CMM of the
    uncorrected texts has 0.71 and 0.64.

    Args:
        image_features: unit-norm embeddings, without labels.

    Raises:
        InputError: n is not in 1..C.
    """
    n_classes = len(correction.bias)
    if n is not None and not 1 <= n <= n_classes:
        raise InputError(f"n_suspects must be from 1 to the {n_classes} classes, got {n}")
    x = torch.nn.functional.pad(image_features.float(), (0, 1), value=1.0)
    vectors = torch.cat([correction.vectors, correction.bias[:, None].float()], 1)  # [C, D + 1]
    score = class_matching_margin(similarity_pass(x, vectors[None], 1.0))[0]
    return rank_classes(score)[: n or max(1, n_classes // 4)].tolist()
