"""Many draws at once give what one draw after the other gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cmmlib.functional as F
from cmmlib.evaluation import bootstrap as module
from cmmlib.evaluation.bootstrap import auroc, bootstrap, lead_in_rank, spearman


def draws(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and truths, of 30 draws of 12 classes; the last draw is constant."""
    random = np.random.default_rng(seed)
    score, truth = random.integers(0, 6, (30, 12)).astype(float), random.random((30, 12))
    score[-1] = 1
    return score, truth


def test_every_draw_is_as_the_statistic_of_one():
    score, truth = draws()
    worst = truth < 0.3
    worst[0], worst[1] = False, True
    for i, found in enumerate(spearman(score, truth)):
        expected = F.spearman(*map(torch.from_numpy, (score[i], truth[i])))
        assert np.isnan(found) if expected is None else found == pytest.approx(expected)
    for i, found in enumerate(auroc(score, worst)):
        expected = F.auroc(*map(torch.from_numpy, (score[i], worst[i])))
        assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def test_a_lead_is_a_difference_of_rank_correlations():
    (one, truth), (two, _) = draws(0), draws(1)
    np.testing.assert_array_equal(
        lead_in_rank(np.stack((one, two), 2), truth), spearman(one, truth) - spearman(two, truth)
    )


def test_the_order_of_the_classes_changes_nothing():
    random = np.random.default_rng(0)
    score, truth, order = random.integers(0, 9, 50).astype(float), random.random(50), random.permutation(50)
    found = bootstrap(spearman, score, truth)
    assert found == bootstrap(spearman, score[order], truth[order])
    assert found[1] < found[0] < found[2]


def test_an_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 200)
    random, covered = np.random.default_rng(0), 0
    for seed in range(60):
        x = random.normal(size=80)
        _, low, high = bootstrap(spearman, x, random.normal(size=80), seed)
        covered += low <= 0 <= high
    assert covered >= 50


def test_what_is_undefined_is_nan():
    assert np.isnan(bootstrap(spearman, np.ones(5), np.arange(5.0))).all()
    assert np.isnan(bootstrap(auroc, np.arange(5.0), np.ones(5, bool))).all()
