"""Images drawn from a labelled set, to ask what a correction is worth when its assumption holds and when it fails.

Labels choose the images; the correction that is then fitted on them never sees one. Everything returns indices of
images, in order, none twice.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional._arguments import require_labels, require_one_or_more

LONG_TAIL = 50.0  # frequency of the most frequent class over that of the rarest


def few_per_class(labels: Int[Tensor, "N"], n: int, seed: int = 0) -> Int[Tensor, "M"]:
    """At random n images of each class, or all of a class that has fewer.

    Raises:
        InputError: n below 1.
    """
    require_one_or_more(n, "few_per_class: n")
    require_one_or_more(len(labels), "few_per_class: number of labels")
    return _draw(labels, np.full(int(labels.max()) + 1, n), np.random.default_rng(seed))


def dirichlet_frequencies(n_classes: int, concentration: float, seed: int = 0) -> Float[Tensor, "C"]:
    """Class frequencies drawn from a symmetric Dirichlet: nearly equal at 5, very unequal at 0.3."""
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(n_classes, concentration)))


def long_tailed_frequencies(n_classes: int, seed: int = 0) -> Float[Tensor, "C"]:
    """Frequencies that fall exponentially, classes in random order; the first is `LONG_TAIL` times the last."""
    ranks = np.random.default_rng(seed).permutation(n_classes) / max(1, n_classes - 1)
    weights = LONG_TAIL**-ranks
    return torch.from_numpy(weights / weights.sum())


def with_frequencies(labels: Int[Tensor, "N"], frequencies: Float[Tensor, "C"], seed: int = 0) -> Int[Tensor, "M"]:
    """Images whose class frequencies are as wanted: a third of the images of a balanced set, or as near as they allow.

    A class gets its frequency times N / 3 images, rounded at random so that the mean is exact, drawn without
    replacement, and never more than it has: a frequency above three times a balanced one is cut there.

    Raises:
        InputError: a label without a frequency.
    """
    require_labels(labels, len(frequencies), "with_frequencies: labels")
    random, y = np.random.default_rng(seed), labels.numpy()
    wanted, of_images = frequencies.numpy() * len(y) / 3, random.random(len(y))
    up = np.zeros(len(wanted))
    up[y[::-1]] = of_images[::-1]  # a class has the number of its first image: the order of classes changes nothing
    return _draw(labels, np.floor(wanted + up).astype(np.int64), random)


def _draw(labels: Int[Tensor, "N"], wanted: np.ndarray, random: np.random.Generator) -> Int[Tensor, "M"]:
    """At most `wanted` random images of each class."""
    y = labels.numpy()
    order = np.lexsort((random.random(len(y)), y))  # by class, at random within
    sizes = np.bincount(y, minlength=len(wanted))
    place = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return torch.from_numpy(np.sort(order[place < wanted[y[order]]]))
