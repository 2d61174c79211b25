"""One classifier on all images, plainly: its similarities block by block, and the class that wins."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor


def similarities(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], block: int
) -> Iterator[Float[Tensor, "B C"]]:
    """Block by block. Copies of a text share one product: rounding would break their ties at random."""
    texts, index = torch.unique(text_features.float(), dim=0, return_inverse=True)
    for x in image_features.split(block):
        yield (x.float() @ texts.T)[:, index]


def predict(image_features: Float[Tensor, "N D"], classifier: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """The class of highest similarity for every image, ties to the lowest index."""
    return torch.cat([similarity.argmax(1) for similarity in similarities(image_features, classifier, 8192)])


def top_two(
    s: Float[Tensor, "B C"],
) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Classes of the highest and second highest similarity, then these two values; ties to the lowest index."""
    top, first = s.max(1, keepdim=True)
    runner_up, second = s.scatter(1, first, -torch.inf).max(1)
    return first[:, 0], second, top[:, 0], runner_up
