"""Which predictions to trust: confidence, thresholds without labels, and risk over coverage (El-Yaniv & Wiener 2010).

A selective classifier answers where its confidence is high and abstains elsewhere. Coverage is the share of images it
answers, risk the share of its answers that are wrong. Confidences and thresholds are label-free; risks take labels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_one_or_more


class ConfidentPredictions(NamedTuple):
    """What a classifier says of each image, and two confidences in it."""

    prediction: Int[Tensor, "N"]
    probability: Float[Tensor, "N"]  # of the predicted class, in [0, 1]
    margin: Float[Tensor, "N"]  # between the two best logits, >= 0


def predict_with_confidence(logits: Float[Tensor, "N C"]) -> ConfidentPredictions:
    """Prediction (ties to the lowest index), its probability, and the margin in logits.

    Raises:
        InputError: fewer than two classes.
    """
    if logits.shape[1] < 2:
        raise InputError(f"predict_with_confidence: logits {list(logits.shape)}: expected two or more classes")
    top = logits.topk(2, 1).values
    return ConfidentPredictions(logits.argmax(1), logits.softmax(1).amax(1), top[:, 0] - top[:, 1])


def class_confidence(cmm: Float[Tensor, "C"], answers: ConfidentPredictions) -> Float[Tensor, "N"]:
    """CMM of the predicted class, ties among its images broken by the image's own margin."""
    rank = cmm.double().argsort().argsort()[answers.prediction].double()
    return rank + answers.margin.double() / (1 + answers.margin.double())


def most_confident(confidence: Float[Tensor, "N"], coverage: float) -> Bool[Tensor, "N"]:
    """The given share of the images, those of highest confidence; ties to the lowest index.

    Raises:
        InputError: coverage outside (0, 1].
    """
    if not 0 < coverage <= 1:
        raise InputError(f"coverage must be in (0, 1], got {coverage}")
    kept = torch.zeros_like(confidence, dtype=torch.bool)
    kept[confidence.argsort(descending=True, stable=True)[: max(1, round(coverage * len(confidence)))]] = True
    return kept


def most_confident_by_class(
    confidence: Float[Tensor, "N"], prediction: Int[Tensor, "N"], coverage: float
) -> Bool[Tensor, "N"]:
    """The given share of the images of each *predicted* class: a threshold a class, so that each keeps some."""
    kept = torch.zeros_like(confidence, dtype=torch.bool)
    for c in prediction.unique():
        rows = (prediction == c).nonzero()[:, 0]
        kept[rows[most_confident(confidence[rows], coverage)]] = True
    return kept


def coverage_for_risk(probability: Float[Tensor, "N"], risk: float) -> float:
    """The largest coverage whose expected risk is no higher than asked: a label-free threshold. 0 where none is.

    The expected risk is 1 - the mean probability of the answers: right only where probabilities are calibrated.

    Raises:
        InputError: no image.
    """
    require_one_or_more(len(probability), "coverage_for_risk: number of images")
    expected = 1 - probability.double().sort(descending=True).values.cumsum(0) / _ranks(probability)
    return float((expected <= risk).double().mean())  # expected risk grows with coverage


def _ranks(x: Tensor) -> Int[Tensor, "N"]:
    """1, 2, ... N."""
    return torch.arange(1, len(x) + 1, device=x.device)


# ---------------------------------------------------------------- with labels


def risk_coverage(wrong: Bool[Tensor, "N"], confidence: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Risk at every coverage 1/N, 2/N, ... 1."""
    order = confidence.argsort(descending=True, stable=True)
    return wrong[order].double().cumsum(0) / _ranks(wrong)


def area_under_risk_coverage(wrong: Bool[Tensor, "N"], confidence: Float[Tensor, "N"]) -> float:
    """Area under the risk-coverage curve (AURC), in [0, 1]; lower is better."""
    return float(risk_coverage(wrong, confidence).mean())


def class_risks(
    prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"], kept: Bool[Tensor, "N"], n_classes: int
) -> Float[Tensor, "C"]:
    """Risk of every *predicted* class: the share of its kept answers that are wrong; NaN where none is kept."""
    total = prediction[kept].bincount(minlength=n_classes)
    wrong = prediction[kept & (prediction != labels)].bincount(minlength=n_classes)
    return wrong.double() / total


def worst_risk(risks: Float[Tensor, "C"], k: int) -> float | None:
    """Mean of the k highest class risks, among classes that are still answered; None where these are fewer.

    Raises:
        InputError: k below 1.
    """
    require_one_or_more(k, "worst_risk: k")
    answered = risks[~risks.isnan()]
    return float(answered.sort(descending=True).values[:k].mean()) if k <= len(answered) else None
