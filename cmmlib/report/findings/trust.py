"""Sentences and tables of chapter 9: which predictions to trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cmmlib.report.formatting import (
    counted,
    join_names,
    percent,
)
from cmmlib.report.titles import titled


def two_coverages(risk: Float[Tensor, "N"]) -> str:
    """The risk where all images are answered, and where half of them are; `risk` at 1/N, 2/N, ... 1."""
    half = max(1, round(len(risk) / 2))
    return (
        f"when all {len(risk):,} images are answered, {percent(float(risk[-1]))} of the answers are wrong; when half "
        f"of them are, {percent(float(risk[half - 1]))}."
    )


def least_risk(curves: Mapping[str, Float[np.ndarray, "N"]]) -> str:
    """Which confidence has the least risk, averaged over all coverages, and the others'."""
    area = {key: float(np.mean(curve)) for key, curve in curves.items()}
    least = min(area.values())
    best = [key for key, value in area.items() if value == least]
    if len(best) == len(area):
        return f"averaged over all coverages, every confidence has the same risk, {percent(least)}."
    others = [f"{key} {percent(value)}" for key, value in area.items() if value != least]
    told = f"that of {join_names(best)}, {percent(least)}; others: {join_names(others)}"
    return f"averaged over all coverages, the least risk is {told}."


@titled("Risk by confidence and coverage")
def risk_table(rows: Sequence[Mapping[str, Any]], k: int) -> pd.DataFrame:
    """Rows of `risks_at_coverages` in percent."""
    return pd.DataFrame(
        {
            "confidence": row["confidence"],
            "coverage": percent(row["coverage"], 0),
            "risk": percent(row["risk"]),
            f"worst {k}": percent(row["worst_risk"]),
            f"worst {k}, a threshold each": percent(row["worst_risk_by_class"]),
            "silent classes": row["classes_silenced"],
        }
        for row in rows
    )


def worst_risks(rows: Sequence[Mapping[str, Any]], k: int, confidence: str = "corrected margin") -> str:
    """Risk of the worst predicted classes at full and half coverage, with one threshold and with one per class."""
    by_coverage = {row["coverage"]: row for row in rows if row["confidence"] == confidence}
    full, half = by_coverage[1.0], by_coverage[0.5]
    if full["worst_risk"] is None:
        return f"fewer than {counted(k, 'class', 'classes')} are predicted at all."
    silent = f"leaves {counted(half['classes_silenced'], 'class', 'classes')} without an answer"
    one = half["worst_risk"]
    some = f"{percent(one)} with one threshold for all, which {silent}"
    some = some if one is not None else f"one threshold for all {silent}, and fewer than {k} with one"
    return (
        f"when all images are answered, {percent(full['worst_risk'])} of the answers of the worst {k} predicted "
        f"classes are wrong. When half are, by the {confidence}: {some}; "
        f"{percent(half['worst_risk_by_class'])} with one threshold per predicted class."
    )


@titled("Thresholds without labels: the risk asked for and the true one")
def promise_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `risks_of_thresholds` in percent."""
    return pd.DataFrame(
        {
            "classifier": row["classifier"],
            "risk asked for": percent(row["asked_risk"], 0),
            "coverage": percent(row["coverage"]),
            "true risk": percent(row["true_risk"]),
        }
        for row in rows
    )


def promises(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the thresholds keep their promise."""
    made = [row for row in rows if row["true_risk"] is not None]
    kept = sum(row["true_risk"] <= row["asked_risk"] for row in made)
    silent = len(rows) - len(made)
    rest = f" {silent} of {len(rows)} answer no image." if silent else ""
    if not made:
        return "no threshold answers any image, so nothing is promised."
    return f"{kept} of {len(made)} thresholds that answer keep the risk that was asked for.{rest}{_caution(made)}"


def _caution(made: Sequence[Mapping[str, Any]]) -> str:
    """Where only some images are answered, a true risk far below the one asked for: the probabilities are too low."""
    below = sum(row["coverage"] < 1 and row["true_risk"] < row["asked_risk"] / 2 for row in made)
    if not below:
        return ""
    return (
        f" With {below} of them the true risk is less than half of what was asked for: the answers are right more "
        "often than their probabilities say, and that costs coverage."
    )
