"""What labels say: accuracy of every class, worst@k with its bracket, intervals, and how well a score found the worst.

Every function here is an evaluation: it takes labels, or accuracies made from labels. Undefined values are NaN in
tensors, None where one number is returned, null in files; a class without images is undefined and stays out of means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from cmmlib.errors import InputError

WORST_KS = (1, 5, 10, 20)
N_SPLITS = 50  # random halves behind a split-half estimate


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
        return float(self.value.nanmean())


def class_accuracy(prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int) -> ClassAccuracy:
    """Accuracy of every class: the share of its images that are predicted as it.

    Raises:
        InputError: unequal lengths, no image, or a label outside 0..C-1.
    """
    if prediction.shape != labels.shape or not len(labels):
        raise InputError(f"{len(prediction)} predictions and {len(labels)} labels: expected one of each an image")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise InputError(f"labels run from {int(labels.min())} to {int(labels.max())}, outside 0..{n_classes - 1}")
    count = labels.bincount(minlength=n_classes)
    correct = labels[prediction == labels].bincount(minlength=n_classes)
    return ClassAccuracy(correct.double() / count, count, correct)


def worst_at_k(accuracy: Float[Tensor, "C"], k: int) -> float | None:
    """worst@k: the mean of the k lowest class accuracies; None where fewer than k classes have images.

    On a sample this is biased low: the k lowest of C noisy estimates are partly low by noise. See `worst_split_half`.

    >>> worst_at_k(torch.tensor([0.75, 0.0, 0.5]), 2)
    0.25
    """
    _check_k(k)
    known = accuracy[~accuracy.isnan()]
    return float(known.double().sort().values[:k].mean()) if k <= len(known) else None


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"worst_k must be 1 or more, got {k}")


def worst_classes(accuracy: Float[Tensor, "C"], k: int) -> Int[Tensor, "k"]:
    """Indices of the k classes of lowest accuracy, lowest first, ties to the lowest index; only classes with images."""
    _check_k(k)
    order = accuracy.nan_to_num(nan=torch.inf).argsort(stable=True)
    return order[: min(k, int((~accuracy.isnan()).sum()))]


def true_worst(accuracy: Float[Tensor, "C"], k: int) -> Bool[Tensor, "C"]:
    """Mask of every class at or below the k-th lowest accuracy; ties can make it larger than k. NaN is never in it.

    Where fewer than k classes have images it holds all of them.
    """
    _check_k(k)
    lowest = accuracy[worst_classes(accuracy, k)]
    return accuracy <= lowest[-1] if len(lowest) else torch.zeros_like(accuracy, dtype=torch.bool)


def worst_split_half(
    correct: Bool[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int, ks: Sequence[int], seed: int = 0
) -> list[float | None]:
    """Split-half worst@k: choose the k worst classes on one half of the images, measure them on the other.

    Choosing and measuring use different images, so the choice's noise does not flatter the measure; the chosen k may
    not be the true ones, so the estimate is biased high. In expectation the truth lies between `worst_at_k` and this.
    Each class's images are halved at random; both directions of `N_SPLITS` halvings are averaged; ties are broken at
    random. A class of one image cannot be halved and is never chosen: among fewer classes the worst k are better, so
    the estimate stays a high one.

    Returns:
        One value for each k; None where fewer than k classes have two images.
    """
    for k in ks:
        _check_k(k)
    random = np.random.default_rng(seed)
    y, hit = labels.numpy(), correct.numpy().astype(np.int64)
    halved = np.flatnonzero(np.bincount(y) > 1)  # the classes with images in both halves
    sums = np.zeros(len(halved))  # over the 1, 2, ... worst, of all splits
    for _ in range(N_SPLITS):
        half = _random_halves(y, random)
        accuracies = [_accuracy(hit[half == h], y[half == h], n_classes)[halved] for h in (0, 1)]
        for chosen_on, measured_on in (accuracies, accuracies[::-1]):
            sums += measured_on[np.lexsort((random.random(len(halved)), chosen_on))].cumsum()
    return [float(sums[k - 1] / (2 * N_SPLITS * k)) if k <= len(halved) else None for k in ks]


def random_half(labels: Int[Tensor, "N"], seed: int = 0) -> Bool[Tensor, "N"]:
    """Mask of a random half of every class's images."""
    return torch.from_numpy(_random_halves(labels.numpy(), np.random.default_rng(seed)) == 0)


def _random_halves(y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """0 or 1 for each image, each class halved at random; the odd image of a class falls on a random side."""
    order = np.lexsort((random.random(len(y)), y))
    sizes = np.bincount(y)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    half = np.empty(len(y), dtype=np.int64)
    half[order] = (np.arange(len(y)) - starts + np.repeat(random.integers(0, 2, len(sizes)), sizes)) % 2
    return half


def _accuracy(hit: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    count = np.bincount(y, minlength=n_classes)
    return np.divide(np.bincount(y, hit, n_classes), count, out=np.full(n_classes, np.nan), where=count > 0)


def zero_classes(accuracy: Float[Tensor, "C"]) -> int:
    """Number of classes of which no image was recognised."""
    return int((accuracy == 0).sum())


def floored(accuracy: ClassAccuracy) -> Float[Tensor, "C"]:
    """Class accuracies, none below 1 / (2 n_c), half an image: so a mean of logarithms or reciprocals is finite."""
    return torch.maximum(accuracy.value, 1 / (2 * accuracy.count.double()))


def harmonic_mean(accuracy: Float[Tensor, "C"]) -> float | None:
    """Harmonic mean of class accuracies; 0 as soon as one class is 0, None where no class has images."""
    known = accuracy[~accuracy.isnan()].double()
    return float(1 / (1 / known).mean()) if len(known) else None  # 1 / 0 is inf, and 1 / inf is 0


def geometric_mean(accuracy: Float[Tensor, "C"]) -> float | None:
    """Geometric mean of class accuracies; 0 as soon as one class is 0, None where no class has images."""
    known = accuracy[~accuracy.isnan()].double()
    return float(known.log().mean().exp()) if len(known) else None  # log 0 is -inf, and exp -inf is 0


def wilson_intervals(accuracy: ClassAccuracy, level: float = 0.95) -> Float[Tensor, "C 2"]:
    """Wilson interval of every class's accuracy, NaN for a class without images (Wilson 1927, as in scipy)."""
    rows = [wilson_interval(int(c), int(n), level) for c, n in zip(accuracy.correct, accuracy.count, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def wilson_interval(correct: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of one share."""
    if count == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(correct, count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    accuracy: ClassAccuracy, classes: Int[Tensor, "k"], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean accuracy of classes that were fixed beforehand, images resampled within class.

    Not for "the k worst of this sample": drawing them again in every resample doubles their bias.
    """
    count, value = accuracy.count[classes].numpy(), accuracy.value[classes].numpy()
    if not len(count) or not count.all():
        return None
    means = (np.random.default_rng(seed).binomial(count, value, (draws, len(count))) / count).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def movers(
    before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], by: float = 0.05
) -> tuple[Bool[np.ndarray, "C"], Bool[np.ndarray, "C"]]:
    """Masks of the classes that gain, and that lose, more than `by`; a change of just that much counts as neither."""
    change = (after - before).round(9)  # 0.55 - 0.5 is more than 0.05 in binary
    return change > by, change < -by


def default_worst_k(n_classes: int) -> int:
    """min(20, max(1, C // 4))."""
    return min(20, max(1, n_classes // 4))


def accuracy_report(
    prediction: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
    n_classes: int,
    worst_k: int,
    duplicates: Sequence[dict[str, Any]] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The `accuracy` section of results.json: fractions, None where something is undefined."""
    accuracy = class_accuracy(prediction, labels, n_classes)
    twins = {c for group in duplicates for c in group["classes"]}
    single = torch.tensor([c for c in range(n_classes) if c not in twins], dtype=torch.long)
    halves = worst_split_half(prediction == labels, labels, n_classes, WORST_KS, seed)
    return {
        "overall": accuracy.overall,
        "overall_interval": list(wilson_interval(int(accuracy.correct.sum()), int(accuracy.count.sum()))),
        "mean_per_class": accuracy.mean_per_class,
        "worst": {str(k): worst_at_k(accuracy.value, k) for k in WORST_KS},
        "worst_split_half": {str(k): half for k, half in zip(WORST_KS, halves, strict=True)},
        "worst_without_duplicates": {str(k): worst_at_k(accuracy.value[single], k) for k in WORST_KS},
        "zero_classes": zero_classes(accuracy.value),
        "harmonic_mean": harmonic_mean(accuracy.value),
        "harmonic_mean_floored": harmonic_mean(floored(accuracy)),
        "geometric_mean": geometric_mean(accuracy.value),
        "geometric_mean_floored": geometric_mean(floored(accuracy)),
        "base_worst_classes": worst_classes(accuracy.value, worst_k).tolist(),
    }


def detection(score: Float[Tensor, "C"], accuracy: Float[Tensor, "C"], k: int) -> dict[str, Any]:
    """How well a label-free score (low = bad) finds the classes of lowest accuracy.

    The true worst set is every class at or below the k-th lowest accuracy, so ties can make it larger than k
    (`n_true`). `precision_at_k` is the share of the k lowest scores in it, `auroc` uses the same set, and `chance` is
    its share of all classes. Classes without images stay out; where fewer than k are left, only Spearman's correlation
    is defined. Ties among scores go to the lowest index, as in `cmmlib.cmm.rank_classes`.

    Args:
        score: no NaN among classes with images (see `cmmlib.cmm.filled`).
    """
    _check_k(k)
    known = ~accuracy.isnan()
    s, a = score[known].double(), accuracy[known].double()
    if s.isnan().any():
        raise InputError("a score is undefined for some class: fill it with a fallback first")
    if k > len(a):
        return {"spearman": spearman(s, a), **dict.fromkeys(("precision_at_k", "auroc", "n_true", "chance"))}
    worst = true_worst(a, k)
    n_true, n = int(worst.sum()), len(a)
    return {
        "spearman": spearman(s, a),
        "precision_at_k": float(worst[s.argsort(stable=True)[:k]].double().mean()),
        "auroc": auroc(s, worst),
        "n_true": n_true,
        "chance": n_true / n,
    }


def spearman(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for fewer than two values or a constant side."""
    if x.isnan().any() or y.isnan().any():
        raise InputError("a rank correlation needs defined values on both sides, got NaN")
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return None
    ranks = stats.rankdata(np.column_stack((x.numpy(), y.numpy())), axis=0)
    return float(np.corrcoef(ranks, rowvar=False)[1, 0])  # scipy's spearmanr without its p-value: bootstraps ask often


def auroc(score: Float[Tensor, "C"], worst: Bool[Tensor, "C"]) -> float | None:
    """Probability that a worst class scores below another one, ties counted half (Mann-Whitney); None where all or none
    are worst.
    """
    if worst.all() or not worst.any():
        return None
    others, n_worst = stats.rankdata(score.numpy())[~worst.numpy()], int(worst.sum())
    u = others.sum() - len(others) * (len(others) + 1) / 2
    return float(u / (n_worst * len(others)))


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
