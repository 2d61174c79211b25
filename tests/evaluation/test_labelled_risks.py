"""Risks on labelled images, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmmlib import functional as F
from cmmlib.evaluation.selective import risks_at_coverages, risks_of_thresholds


def test_rows_equal_counting():
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 4
    found = F.predict_with_confidence(logits)
    rows = risks_at_coverages({"margin": (found, found.margin)}, labels, 4, 2, (1.0, 0.5))
    wrong = (found.prediction != labels).numpy()
    assert rows[0]["risk"] == pytest.approx(wrong.mean())
    half = np.argsort(-found.margin.numpy(), kind="stable")[:100]
    assert rows[1]["risk"] == pytest.approx(wrong[half].mean())
    risks = sorted(wrong[half][found.prediction.numpy()[half] == c].mean() for c in range(4))
    assert rows[1]["worst_risk"] == pytest.approx(np.mean(risks[2:]))
    promises = risks_of_thresholds({"plain": found}, labels, (0.0, 1.0))
    assert promises[0] == {"classifier": "plain", "asked_risk": 0.0, "coverage": 0.0, "true_risk": None}
    assert promises[1]["true_risk"] == pytest.approx(wrong.mean())
