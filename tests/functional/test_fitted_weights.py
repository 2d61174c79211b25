"""Weights fitted to an assignment of images, against loops in float64 and numerical differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from finished_runs import unit
from jaxtyping import TypeCheckError

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.functional import fitted_weights

SHAPES = [(1, 1, 2), (9, 2, 2), (4, 2, 9), (31, 7, 5)]  # images, prompts, classes
SCALE = 20.0
all_shapes = pytest.mark.parametrize(("n", "n_prompts", "n_classes"), SHAPES)


def case(n: int, n_prompts: int, n_classes: int) -> tuple[torch.Tensor, F.Candidates, torch.Tensor]:
    candidates = F.Candidates.of_templates(unit(n_prompts, n_classes, 6, seed=1)).with_descriptions(
        {1: unit(3, 6, seed=2), 0: unit(1, 6, seed=3)}
    )
    return unit(n, 6), candidates, (3 * unit(n, n_classes, seed=4)).softmax(1)


def starting_weights(candidates: F.Candidates) -> np.ndarray:
    """Templates and descriptions of a class have equal mass."""
    pairs = list(zip(candidates.classes.tolist(), candidates.groups.tolist(), strict=True))
    groups = {c: len({g for own, g in pairs if own == c}) for c, _ in pairs}
    return np.array([1 / groups[c] / pairs.count((c, g)) for c, g in pairs])


def slow_loss(images, candidates, assignment, weights: np.ndarray) -> float:
    x, a, texts = (np.asarray(t, dtype=np.float64) for t in (images, assignment, candidates.vectors))
    total = 0.0
    for row, wanted in zip(x, a, strict=True):
        logits = []
        for c in range(candidates.n_classes):
            own = [k for k, kc in enumerate(candidates.classes.tolist()) if kc == c]
            vector = sum(weights[k] * texts[k] for k in own)
            logits.append(SCALE * float(row @ vector) / math.sqrt(float(vector @ vector)))
        log_sum = max(logits) + math.log(sum(math.exp(v - max(logits)) for v in logits))
        total -= sum(w * (v - log_sum) for w, v in zip(wanted, logits, strict=True))
    return total / len(x)


def of_log_weights(candidates, log_weights: np.ndarray) -> np.ndarray:
    weights = np.exp(log_weights)
    classes = candidates.classes.numpy()
    return weights / np.array([weights[classes == c].sum() for c in classes])


@all_shapes
def test_no_step_leaves_the_balanced_weights(n, n_prompts, n_classes):
    images, candidates, assignment = case(n, n_prompts, n_classes)
    found = F.fit_candidate_weights(images, candidates, assignment, SCALE, steps=0)
    np.testing.assert_allclose(found, starting_weights(candidates), atol=1e-6)


@all_shapes
@pytest.mark.parametrize("rows", [4, 1000])
def test_steps_are_adams_along_the_gradient_of_the_loss(monkeypatch, n, n_prompts, n_classes, rows):
    """Adam in float64 with numerical differences takes the same three steps."""
    monkeypatch.setattr(fitted_weights, "BLOCK_ROWS", rows)
    images, candidates, assignment = case(n, n_prompts, n_classes)
    at = np.log(starting_weights(candidates))
    mean, square, small = np.zeros_like(at), np.zeros_like(at), 1e-5

    def loss(log_weights: np.ndarray) -> float:
        return slow_loss(images, candidates, assignment, of_log_weights(candidates, log_weights))

    for step in range(1, 4):
        moves = small * np.eye(len(at))
        gradient = np.array([(loss(at + move) - loss(at - move)) / (2 * small) for move in moves])
        gradient[np.abs(gradient) < 1e-9] = 0  # a class with one candidate has nothing to choose
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        at = at - 0.1 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    found = F.fit_candidate_weights(images, candidates, assignment, SCALE, steps=3)
    np.testing.assert_allclose(found, of_log_weights(candidates, at), atol=2e-3)


@all_shapes
def test_the_gradient_is_that_of_the_loss(n, n_prompts, n_classes):
    images, candidates, assignment = case(n, n_prompts, n_classes)
    at, small = np.log(starting_weights(candidates)), 1e-5
    place, there = fitted_weights._table(candidates)
    log_weights = torch.from_numpy(at).float()[place].masked_fill(~there, -torch.inf)
    found = fitted_weights._gradient(images, candidates.vectors[place], log_weights, assignment, SCALE)
    for k, move in enumerate(small * np.eye(len(at))):
        up, down = (
            slow_loss(images, candidates, assignment, of_log_weights(candidates, at + m)) for m in (move, -move)
        )
        assert float(found[there & (place == k)]) == pytest.approx((up - down) / (2 * small), abs=1e-4)


@all_shapes
def test_weights_sum_to_one_in_every_class_and_lower_the_loss(n, n_prompts, n_classes):
    images, candidates, assignment = case(n, n_prompts, n_classes)
    found = F.fit_candidate_weights(images, candidates, assignment, SCALE).numpy()
    for c in range(n_classes):
        assert found[candidates.classes.numpy() == c].sum() == pytest.approx(1)
    before = slow_loss(images, candidates, assignment, starting_weights(candidates))
    assert slow_loss(images, candidates, assignment, found) <= before + 1e-9


def test_the_text_that_lies_at_a_classs_images_gets_the_weight():
    images = torch.eye(3).repeat(5, 1)
    right, wrong = torch.eye(3), torch.eye(3)[[1, 2, 0]]
    candidates = F.Candidates.of_templates(torch.stack([wrong, right]))
    weights = F.fit_candidate_weights(images, candidates, images, SCALE, steps=200)
    assert (weights[3:] > 0.6).all()  # beyond that the classes are apart, and the loss is flat


def test_rounds_assign_under_the_classifier_of_the_round_before():
    images, candidates, _ = case(31, 7, 5)
    asked = []

    def assign(classifier: torch.Tensor) -> torch.Tensor:
        asked.append(classifier)
        return (SCALE * images @ classifier.T).softmax(1).square()

    found = F.fitted_ensemble(images, candidates, SCALE, assign, rounds=2, steps=5)
    expected = F.combine_candidates(candidates, F.uniform_weights(candidates, balanced=True))
    for k in range(2):
        torch.testing.assert_close(asked[k], expected)
        target = (SCALE * images @ expected.T).softmax(1).square()
        weights = F.fit_candidate_weights(images, candidates, target, SCALE, steps=5)
        expected = F.combine_candidates(candidates, weights)
    assert len(asked) == 2
    torch.testing.assert_close(found, expected)


def test_images_are_assigned_by_prototypes_unless_told_otherwise():
    images, candidates, _ = case(31, 7, 5)

    def assign(classifier: torch.Tensor) -> torch.Tensor:
        return F.fit_prototypes(images, classifier, SCALE).logits(images).softmax(1)

    plain = F.fitted_ensemble(images, candidates, SCALE, rounds=1)
    torch.testing.assert_close(plain, F.fitted_ensemble(images, candidates, SCALE, assign, rounds=1))


def test_what_cannot_be_fitted_is_refused():
    images, candidates, assignment = case(9, 2, 2)
    with pytest.raises((InputError, TypeCheckError)):  # here the type in the signature sees it first
        F.fit_candidate_weights(images, candidates, assignment[:8], SCALE)
    with pytest.raises(InputError, match=r"got \[9, 2\] and -1"):
        F.fit_candidate_weights(images, candidates, assignment, SCALE, steps=-1)
    with pytest.raises(InputError, match="class 1 has no candidate"):
        F.fit_candidate_weights(images, candidates.where(candidates.classes == 0), assignment, SCALE)
    with pytest.raises(InputError, match="rounds must be 1 or more, got 0"):
        F.fitted_ensemble(images, candidates, SCALE, rounds=0)
