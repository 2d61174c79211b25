"""Risk and coverage, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmmlib import InputError
from cmmlib import functional as F


def test_answers_are_read_off_the_logits():
    found = F.predict_with_confidence(torch.tensor([[2.0, 0.0, 2.0], [0.0, 3.0, 1.0]]))
    assert found.prediction.tolist() == [0, 1]
    np.testing.assert_allclose(found.margin, [0, 2])
    np.testing.assert_allclose(found.probability, [1 / (2 + np.exp(-2)), 1 / (1 + np.exp(-2) + np.exp(-3))], rtol=1e-6)


def test_risk_over_coverage_counts_from_the_most_confident():
    wrong = torch.tensor([True, False, False, True])
    confidence = torch.tensor([0.1, 0.9, 0.5, 0.7])
    np.testing.assert_allclose(F.risk_coverage(wrong, confidence), [0, 1 / 2, 1 / 3, 1 / 2])
    assert F.area_under_risk_coverage(wrong, confidence) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_one_threshold_silences_a_class_and_one_a_class_does_not():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.2, 0.1])
    prediction = torch.tensor([0, 0, 0, 0, 1, 1])
    assert F.most_confident(confidence, 0.5).tolist() == [True, True, True, False, False, False]
    kept = F.most_confident_by_class(confidence, prediction, 0.5)
    assert kept.tolist() == [True, True, False, False, True, False]
    with pytest.raises(InputError, match="coverage"):
        F.most_confident(confidence, 0.0)


def test_class_risks_are_of_predicted_classes():
    prediction, labels = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 0, 1])
    risks = F.class_risks(prediction, labels, torch.tensor([True, True, True, True, False]), 3)
    np.testing.assert_allclose(risks, [0.5, 0.5, np.nan])
    assert F.worst_risk(risks, 2) == 0.5
    assert F.worst_risk(risks, 3) is None


def test_a_calibrated_classifier_keeps_its_promise():
    random = torch.Generator().manual_seed(0)
    probability = 0.5 + 0.5 * torch.rand(20_000, generator=random)
    wrong = torch.rand(20_000, generator=random) > probability
    for asked in (0.05, 0.1, 0.2):
        coverage = F.coverage_for_risk(probability, asked)
        kept = F.most_confident(probability, coverage)
        assert 1 - float(probability[kept].double().mean()) == pytest.approx(asked, abs=1e-3)
        assert float(wrong[kept].double().mean()) == pytest.approx(asked, abs=0.01)
    assert F.coverage_for_risk(probability, 0.5) == 1
    assert F.coverage_for_risk(torch.full((5,), 0.5), 0.1) == 0


def test_confidence_by_class_follows_the_order_of_cmm_and_then_the_margin():
    found = F.ConfidentPredictions(torch.tensor([0, 1, 1, 2]), torch.ones(4), torch.tensor([9.0, 1.0, 2.0, 0.0]))
    confidence = F.class_confidence(torch.tensor([0.1, -0.2, 0.3]), found)
    assert confidence.argsort(descending=True).tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize("k", [0, -1])
def test_a_number_of_classes_below_one_is_refused(k):
    with pytest.raises(InputError, match=f"worst_risk: k must be 1 or more, got {k}"):
        F.worst_risk(torch.tensor([0.1, 0.2]), k)
