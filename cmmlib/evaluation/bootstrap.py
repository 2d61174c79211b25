"""Bootstrap over classes for statistics of ranks, all draws at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

DRAWS = 1000
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of B draws of n classes each: [B, n, ...], [B, n] -> [B]


def bootstrap(of: Statistic, score: np.ndarray, truth: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """A statistic of n classes and its 95 % interval; draws in which it is undefined are left out, NaN where all are.

    Classes are drawn by their place in the order of their values, so that their order in the list changes nothing.

    Args:
        score: [n], or [n, S] for a statistic of several scores.
        truth: [n].
    """
    columns = score.reshape(len(score), -1).T
    order = np.lexsort((truth, *columns[::-1]))
    score, truth, n, random = score[order], truth[order], len(order), np.random.default_rng(seed)
    drawn = np.stack([random.integers(0, n, n) for _ in range(DRAWS)])
    value, values = float(of(score[None], truth[None])[0]), of(score[drawn], truth[drawn])
    if np.isnan(value) or np.isnan(values).all():
        return np.nan, np.nan, np.nan
    low, high = np.nanquantile(values, (0.025, 0.975))
    return value, float(low), float(high)


def spearman(x: Float[np.ndarray, "B n"], y: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B"]:
    """Spearman's rank correlation of every draw, ties at their mean rank; NaN where one side is constant."""
    a, b = (stats.rankdata(side, axis=1) for side in (x, y))
    a, b = (side - side.mean(1, keepdims=True) for side in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def lead_in_rank(pair: Float[np.ndarray, "B n 2"], truth: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B"]:
    """How much higher the first score's rank correlation with the truth is than the second's."""
    return spearman(pair[..., 0], truth) - spearman(pair[..., 1], truth)


def auroc(score: Float[np.ndarray, "B n"], worst: Bool[np.ndarray, "B n"]) -> Float[np.ndarray, "B"]:
    """Probability that a worst class scores below another one, ties counted half; NaN where all or none are worst."""
    n_worst, n_others = worst.sum(1), (~worst).sum(1)
    u = (stats.rankdata(score, axis=1) * ~worst).sum(1) - n_others * (n_others + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return u / (n_worst * n_others)
