"""The worst classes: which they are, how low they lie, and how far a sample can say so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.functional._arguments import require_one_or_more

WORST_KS = (1, 5, 10, 20)
N_SPLITS = 50  # random halves behind a split-half estimate


def worst_at_k(accuracy: Float[Tensor, "C"], k: int) -> float | None:
    """worst@k: the mean of the k lowest class accuracies; None where fewer than k classes have images.

    On a sample this is biased low: the k lowest of C noisy estimates are partly low by noise. See `worst_split_half`.

    >>> worst_at_k(torch.tensor([0.75, 0.0, 0.5]), 2)
    0.25
    """
    require_one_or_more(k, "worst_k")
    defined = accuracy[~accuracy.isnan()]
    return float(defined.double().sort().values[:k].mean()) if k <= len(defined) else None


def worst_classes(accuracy: Float[Tensor, "C"], k: int) -> Int[Tensor, "k"]:
    """Indices of the k classes of lowest accuracy, lowest first, ties to the lowest index; only classes with images."""
    require_one_or_more(k, "worst_k")
    order = accuracy.nan_to_num(nan=torch.inf).argsort(stable=True)
    return order[: min(k, int((~accuracy.isnan()).sum()))]


def true_worst(accuracy: Float[Tensor, "C"], k: int) -> Bool[Tensor, "C"]:
    """Mask of every class at or below the k-th lowest accuracy; ties can make it larger than k. NaN is never in it.

    Where fewer than k classes have images it holds all of them.
    """
    require_one_or_more(k, "worst_k")
    lowest = accuracy[worst_classes(accuracy, k)]
    return accuracy <= lowest[-1] if len(lowest) else torch.zeros_like(accuracy, dtype=torch.bool)


def worst_split_half(
    correct: Bool[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int, ks: Sequence[int], seed: int = 0
) -> list[float | None]:
    """Split-half worst@k: choose the k worst classes on one half of the images, measure them on the other.

    Choosing and measuring use different images, so the choice's noise does not flatter the measure; the chosen k may
    not be the true ones, so the estimate is biased high. In expectation the truth lies between `worst_at_k` and this.
    Each class's images are halved at random; both directions of `N_SPLITS` halvings are averaged. Of classes tied at
    the k-th place each counts in part, so that together they fill the places left: the mean over all ways to break the
    tie. A class of one image cannot be halved and is never chosen: among fewer classes the worst k are better, so the
    estimate stays a high one. Nothing hangs on the order of the classes.

    Returns:
        One value for each k; None where fewer than k classes have two images.
    """
    for k in ks:
        require_one_or_more(k, "worst_k")
    random = np.random.default_rng(seed)
    y, hit = labels.numpy(), correct.numpy().astype(np.int64)
    halved = np.flatnonzero(np.bincount(y) > 1)  # the classes with images in both halves
    sums = np.zeros(len(halved))  # over the 1, 2, ... worst, of all splits
    for _ in range(N_SPLITS):
        half = _random_halves(y, random)
        accuracies = [_accuracy(hit[half == h], y[half == h], n_classes)[halved] for h in (0, 1)]
        for chosen_on, measured_on in (accuracies, accuracies[::-1]):
            sums += _of_tied_classes(chosen_on, measured_on).cumsum()
    return [float(sums[k - 1] / (2 * N_SPLITS * k)) if k <= len(halved) else None for k in ks]


def _of_tied_classes(chosen_on: np.ndarray, measured_on: np.ndarray) -> np.ndarray:
    """Values in the order of another score, lowest first; tied classes all have the mean value of their tie."""
    _, tie, sizes = np.unique(chosen_on, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(tie, measured_on) / sizes, sizes)


def random_half(labels: Int[Tensor, "N"], seed: int = 0) -> Bool[Tensor, "N"]:
    """Mask of a random half of every class's images; the order of the classes changes nothing."""
    return torch.from_numpy(_random_halves(labels.numpy(), np.random.default_rng(seed)) == 0)


def _random_halves(y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """0 or 1 for each image, each class halved at random; the odd image of a class falls on a random side.

    Every random number belongs to an image, none to a class: so classes in another order have the same halves.
    """
    side, rank = random.integers(0, 2, len(y)), random.random(len(y))
    order, sizes = np.lexsort((rank, y)), np.bincount(y)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)  # place in `order` of the first image of each one's class
    half = np.empty(len(y), dtype=np.int64)
    half[order] = (np.arange(len(y)) - starts + side[order[starts]]) % 2
    return half


def _accuracy(hit: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    count = np.bincount(y, minlength=n_classes)
    return np.divide(np.bincount(y, hit, n_classes), count, out=np.full(n_classes, np.nan), where=count > 0)


def default_worst_k(n_classes: int) -> int:
    """min(20, max(1, C // 4))."""
    return min(20, max(1, n_classes // 4))
