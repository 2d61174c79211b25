"""Accuracy of every class, its means over classes, and what a class is confused with.

Every function here is an evaluation: it takes labels, or accuracies made from labels. Undefined values are NaN in
tensors, None where one number is returned, null in files; a class without images is undefined and stays out of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_labels


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of every class.

    Attributes:
        value: accuracy in [0, 1], NaN for a class without images, [C].
        count: images of the class, [C].
        correct: images of the class that were recognised, [C].
    """

    value: Float[Tensor, "C"]
    count: Int[Tensor, "C"]
    correct: Int[Tensor, "C"]

    @property
    def overall(self) -> float:
        """Share of all images that were recognised."""
        return int(self.correct.sum()) / int(self.count.sum())

    @property
    def empty(self) -> list[int]:
        """Indices of the classes without images."""
        return (self.count == 0).nonzero()[:, 0].tolist()

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that have images."""
        return float(self.value.nanmean())


def class_accuracy(prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int) -> ClassAccuracy:
    """Accuracy of every class: the share of its images that are predicted as it.

    Raises:
        InputError: unequal lengths, no image, or a label outside 0..C-1.
    """
    if prediction.shape != labels.shape or not len(labels):
        raise InputError(f"{len(prediction)} predictions and {len(labels)} labels: expected one of each an image")
    require_labels(labels, n_classes, "labels")
    count = labels.bincount(minlength=n_classes)
    correct = labels[prediction == labels].bincount(minlength=n_classes)
    return ClassAccuracy(correct.double() / count, count, correct)


def zero_classes(accuracy: Float[Tensor, "C"]) -> int:
    """Number of classes of which no image was recognised."""
    return int((accuracy == 0).sum())


def floored(accuracy: ClassAccuracy) -> Float[Tensor, "C"]:
    """Class accuracies, none below 1 / (2 n_c), half an image: so a mean of logarithms or reciprocals is finite."""
    return torch.maximum(accuracy.value, 1 / (2 * accuracy.count.double()))


def harmonic_mean(accuracy: Float[Tensor, "C"]) -> float | None:
    """Harmonic mean of class accuracies; 0 as soon as one class is 0, None where no class has images."""
    defined = accuracy[~accuracy.isnan()].double()
    return float(1 / (1 / defined).mean()) if len(defined) else None  # 1 / 0 is inf, and 1 / inf is 0


def geometric_mean(accuracy: Float[Tensor, "C"]) -> float | None:
    """Geometric mean of class accuracies; 0 as soon as one class is 0, None where no class has images."""
    defined = accuracy[~accuracy.isnan()].double()
    return float(defined.log().mean().exp()) if len(defined) else None  # log 0 is -inf, and exp -inf is 0


def taken_for(
    prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int
) -> tuple[Int[Tensor, "C"], Float[Tensor, "C"]]:
    """The wrong class that each class's images are predicted as most, and the share of its images, in [0, 1].

    Ties go to the lowest index; a class without images, or without an error, has share 0 and index -1.
    """
    confusion = torch.zeros(n_classes, n_classes).index_put_(
        (labels, prediction), torch.ones(len(labels)), accumulate=True
    )
    most, other = confusion.fill_diagonal_(0).max(1)
    share = most.double() / labels.bincount(minlength=n_classes).clamp_min(1)
    return other.where(most > 0, -1), share
