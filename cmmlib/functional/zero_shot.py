"""One classifier on all images, plainly: its similarities block by block, and the class that wins."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ROWS = 8192  # images whose similarities are held at once, and whose float32 copy is


def first_with_equal_texts(text_features: Float[Tensor, "*P C D"]) -> Int[Tensor, "C"]:
    """For every class, the first class that has the same texts under every prompt: mostly the class itself.

    No classifier can tell such classes apart. A blocked product may give equal texts different last bits, which would
    break their ties at random, so copies are given what the first of them has.

    >>> first_with_equal_texts(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).tolist()
    [0, 1, 0]
    """
    rows = text_features if text_features.ndim == 2 else text_features.transpose(0, 1).flatten(1)
    classes = torch.arange(len(rows), device=rows.device)
    if len(rows[:, 0].unique()) == len(rows):  # quicker than to sort whole rows
        return classes
    index = torch.unique(rows, dim=0, return_inverse=True)[1]
    return torch.full_like(classes, len(rows)).scatter_reduce(0, index, classes, "amin")[index]


def similarities(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], block: int = BLOCK_ROWS
) -> Iterator[Float[Tensor, "B C"]]:
    """Float32, block by block; equal texts tie exactly."""
    texts, first = text_features.float(), first_with_equal_texts(text_features)
    copies = (first != torch.arange(len(first), device=first.device)).nonzero()[:, 0]
    for x in image_features.split(block):
        similarity = x.float() @ texts.T
        similarity[:, copies] = similarity[:, first[copies]]
        yield similarity


def similarity_matrix(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]
) -> Float[Tensor, "N C"]:
    """All of `similarities` at once: for what has to hold them."""
    return torch.cat(list(similarities(image_features, text_features)))


def predict(image_features: Float[Tensor, "N D"], classifier: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """The class of highest similarity for every image, ties to the lowest index."""
    return torch.cat([similarity.argmax(1) for similarity in similarities(image_features, classifier)])


def top_two(
    similarity: Float[Tensor, "B C"],
) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Classes of the highest and second highest similarity, then these two values; ties to the lowest index."""
    top, first = similarity.max(1, keepdim=True)
    runner_up, second = similarity.scatter(1, first, -torch.inf).max(1)
    return first[:, 0], second, top[:, 0], runner_up
