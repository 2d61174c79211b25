"""What selective classifiers risk on labelled images: rows of chapter 9, *Which predictions to trust*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F


def risks_at_coverages(
    ways: Mapping[str, tuple[F.ConfidentPredictions, Float[Tensor, "N"]]],
    labels: Int[Tensor, "N"],
    n_classes: int,
    k: int,
    coverages: Sequence[float] = (1.0, 0.8, 0.5),
) -> list[dict[str, Any]]:
    """For each confidence and coverage: the risk, and the worst-k class risk with one threshold, and one a class."""
    rows = []
    for name, (answers, confidence) in ways.items():
        wrong = answers.prediction != labels
        for coverage in coverages:
            kept = F.most_confident(confidence, coverage)
            by_class = F.most_confident_by_class(confidence, answers.prediction, coverage)
            risks = [F.class_risks(answers.prediction, labels, mask, n_classes) for mask in (kept, by_class)]
            row = {"confidence": name, "coverage": coverage, "risk": float(wrong[kept].double().mean())}
            worst = dict(zip(("worst_risk", "worst_risk_by_class"), (F.worst_risk(r, k) for r in risks), strict=True))
            silent = int((risks[0].isnan() & ~risks[1].isnan()).sum())
            rows.append({**row, **worst, "classes_silenced": silent})
    return rows


def risks_of_thresholds(
    ways: Mapping[str, F.ConfidentPredictions], labels: Int[Tensor, "N"], risks: Sequence[float] = (0.05, 0.1, 0.2)
) -> list[dict[str, Any]]:
    """For each classifier and risk that is asked for: the coverage of the label-free threshold, and its true risk."""
    rows = []
    for name, answers in ways.items():
        for risk in risks:
            coverage = F.coverage_for_risk(answers.probability, risk)
            row = {"classifier": name, "asked_risk": risk, "coverage": coverage, "true_risk": None}
            if coverage > 0:
                kept = F.most_confident(answers.probability, coverage)
                row["true_risk"] = float((answers.prediction != labels)[kept].double().mean())
            rows.append(row)
    return rows
