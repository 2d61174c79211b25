"""How well a score without labels finds the classes of lowest accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_one_or_more
from cmmlib.functional.worst import true_worst


def detection_scores(score: Float[Tensor, "C"], accuracy: Float[Tensor, "C"], k: int) -> dict[str, Any]:
    """How well a label-free score (low = bad) finds the classes of lowest accuracy.

    The true worst set is every class at or below the k-th lowest accuracy, so ties can make it larger than k
    (`n_true`). `precision_at_k` is the share of the k lowest scores in it, `auroc` uses the same set, and `chance` is
    its share of all classes. Classes without images stay out; where fewer than k are left, only Spearman's correlation
    is defined. Of classes tied at the k-th lowest score each counts in part, so that together they fill the places
    left: the mean over all ways to break the tie.

    Args:
        score: no NaN among classes with images (see `cmmlib.functional.cmm.fill_undefined`).
    """
    require_one_or_more(k, "worst_k")
    has_images = ~accuracy.isnan()
    s, a = score[has_images].double(), accuracy[has_images].double()
    if s.isnan().any():
        raise InputError("a score is undefined for some class: give it a value with `fill_undefined` first")
    if k > len(a):
        return {"spearman": spearman(s, a), **dict.fromkeys(("precision_at_k", "auroc", "n_true", "chance"))}
    worst = true_worst(a, k)
    n_true, n = int(worst.sum()), len(a)
    return {
        "spearman": spearman(s, a),
        "precision_at_k": _precision(s, worst, k),
        "auroc": auroc(s, worst),
        "n_true": n_true,
        "chance": n_true / n,
    }


def _precision(score: Float[Tensor, "C"], worst: Bool[Tensor, "C"], k: int) -> float:
    """Share of worst classes among the k lowest scores, in the mean over all ways to break a tie."""
    limit = score.sort().values[k - 1]
    below, tied = score < limit, score == limit
    places = k - int(below.sum())
    return float(worst[below].sum() + places * worst[tied].double().mean()) / k


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
    if score.isnan().any():
        raise InputError("auroc needs defined scores, got NaN: give them a value with `fill_undefined` first")
    if worst.all() or not worst.any():
        return None
    others, n_worst = stats.rankdata(score.numpy())[~worst.numpy()], int(worst.sum())
    u = others.sum() - len(others) * (len(others) + 1) / 2
    return float(u / (n_worst * len(others)))
