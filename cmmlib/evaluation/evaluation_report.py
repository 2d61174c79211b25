"""The accuracy section of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from cmmlib.functional.accuracy import class_accuracy, floored, geometric_mean, harmonic_mean, zero_classes
from cmmlib.functional.intervals import wilson_interval
from cmmlib.functional.worst import WORST_KS, worst_at_k, worst_classes, worst_split_half


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
