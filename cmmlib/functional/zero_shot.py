"""One classifier on all images, plainly: its similarities block by block, and the class that wins."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.checks import check_embeddings
from cmmlib.functional.equal_texts import copies_of_texts


def similarities(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], block: int = BLOCK_ROWS
) -> Iterator[Float[Tensor, "B C"]]:
    """Float32, block by block; equal texts tie exactly."""
    texts, (copies, first) = text_features.float(), copies_of_texts(text_features)
    for x in image_features.split(block):
        similarity = x.float() @ texts.T
        similarity[:, copies] = similarity[:, first]
        yield similarity


def similarity_matrix(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]
) -> Float[Tensor, "N C"]:
    """All of `similarities` at once: for what has to hold them."""
    return torch.cat(list(similarities(image_features, text_features)))


def predict(image_features: Float[Tensor, "N D"], classifier: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """The class of highest similarity for every image, ties to the lowest index.

    Raises:
        InputError: no class; NaN, Inf or a row without length, whose similarities say nothing.
    """
    if not len(classifier):
        raise InputError("predict: classifier has no class")
    check_embeddings(image_features, "predict: image_features")
    check_embeddings(classifier, "predict: classifier")
    return torch.cat([similarity.argmax(1) for similarity in similarities(image_features, classifier)])


def top_two(
    similarity: Float[Tensor, "B C"],
) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Classes of the highest and second highest similarity, then these two values; ties to the lowest index."""
    top, first = similarity.max(1, keepdim=True)
    runner_up, second = similarity.scatter(1, first, -torch.inf).max(1)
    return first[:, 0], second, top[:, 0], runner_up
