"""Intervals of accuracies: of one class, of all images, of classes that were fixed beforehand."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_labels
from cmmlib.functional.accuracy import ClassAccuracy


def wilson_intervals(accuracy: ClassAccuracy, level: float = 0.95) -> Float[Tensor, "C 2"]:
    """Wilson interval of every class's accuracy, NaN for a class without images (Wilson 1927, as in scipy)."""
    rows = [wilson_interval(int(c), int(n), level) for c, n in zip(accuracy.correct, accuracy.count, strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def wilson_interval(correct: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of one share, NaN for no image.

    Raises:
        InputError: not 0 <= correct <= count, or a level outside (0, 1).
    """
    _check_level(level)
    if not 0 <= correct <= count:
        raise InputError(f"wilson_interval: correct must be from 0 to count, got {correct} of {count}")
    if count == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(correct, count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    accuracy: ClassAccuracy, classes: Int[Tensor, "k"], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean accuracy of classes that were fixed beforehand, images resampled within class.

    Not for "the k worst of this sample": drawing them again in every resample doubles their bias.

    Raises:
        InputError: a level outside (0, 1), no draw, or classes that are none.
    """
    _check_level(level)
    require_labels(classes, len(accuracy.value), "bootstrap_interval: classes")
    if draws < 1:
        raise InputError(f"draws must be 1 or more, got {draws}")
    count, value = accuracy.count[classes].numpy(), accuracy.value[classes].numpy()
    order = np.lexsort((value, count))  # so that the order of the classes changes nothing
    count, value = count[order], value[order]
    if not len(count) or not count.all():
        return None
    means = (np.random.default_rng(seed).binomial(count, value, (draws, len(count))) / count).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, as 0.95 does, got {level}")
