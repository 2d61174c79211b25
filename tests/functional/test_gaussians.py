"""Gaussians with a shared covariance, against loops over images and classes in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finished_runs import unit

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.functional import gaussians

SHAPES = [(2, 2), (9, 2), (4, 9), (31, 5), (60, 12)]  # images, classes
SCALE = 20.0
all_shapes = pytest.mark.parametrize(("n", "n_classes"), SHAPES)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def matched(logits: np.ndarray, strength: float) -> np.ndarray:
    """Logits with the bias of the plain fixed point, for a uniform prior."""
    bias = np.zeros(logits.shape[1])
    for _ in range(20_000):
        step = 0.5 * np.log(softmax(logits + bias).mean(0) * logits.shape[1])
        bias = bias - step
        if np.abs(step).max() < 1e-12:  # what follows changes no digit that is compared
            break
    return logits + strength * (bias - bias.mean())


def slow_gaussians(x, t, rounds: int, ridge: float, strength: float) -> np.ndarray:
    """Probabilities after so many rounds."""
    s = x @ t.T
    q = softmax(matched(SCALE * s, strength))
    for _ in range(rounds):
        mu = np.array([sum(q[n, c] * x[n] for n in range(len(x))) / q[:, c].sum() for c in range(len(t))])
        cov = np.zeros((x.shape[1], x.shape[1]))
        for n, c in np.ndindex(len(x), len(t)):
            cov += q[n, c] * np.outer(x[n] - mu[c], x[n] - mu[c]) / len(x)
        inverse = np.linalg.inv(cov + ridge * np.trace(cov) / len(cov) * np.eye(len(cov)))
        g = np.array([[row @ inverse @ m - m @ inverse @ m / 2 for m in mu] for row in x])
        g -= g.mean(1, keepdims=True)
        q = softmax(matched(4 * s / s.std() + 4 * g / g.std(), strength))
    return q


@all_shapes
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize(("ridge", "strength"), [(5.0, 1.0), (0.5, 0.5), (5.0, 0.0)])
def test_gaussians_equal_loops(n, n_classes, rounds, ridge, strength):
    images, texts = unit(n, 6), unit(n_classes, 6, seed=1)
    found = F.fit_gaussians(images, texts, SCALE, strength=strength, ridge=ridge, rounds=rounds)
    wanted = slow_gaussians(images.double().numpy(), texts.double().numpy(), found.rounds, ridge, strength)
    np.testing.assert_allclose(found.logits(images).softmax(1), wanted, atol=2e-3)


def test_blocks_of_images_do_not_matter(monkeypatch):
    from cmmlib.functional import gaussians

    images, texts = unit(60, 6), unit(5, 6, seed=1)
    whole = F.fit_gaussians(images, texts, SCALE)
    monkeypatch.setattr(gaussians, "BLOCK_ROWS", 7)
    torch.testing.assert_close(F.fit_gaussians(images, texts, SCALE).vectors, whole.vectors, atol=1e-3, rtol=1e-3)


def test_copies_of_a_text_tie_and_the_first_wins():
    images, texts = unit(60, 6), unit(5, 6, seed=1)
    found = F.fit_gaussians(images, torch.cat([texts, texts]), SCALE)
    assert found.vectors[:5].equal(found.vectors[5:])
    assert found.predict(images).max() < 5


def test_the_images_follow_the_prior():
    images, texts = unit(60, 6), unit(3, 6, seed=1)
    prior = torch.tensor([0.5, 0.3, 0.2])
    found = F.fit_gaussians(images, texts, SCALE, prior)
    torch.testing.assert_close(found.logits(images).softmax(1).mean(0), prior, atol=1e-3, rtol=0)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"ridge": 0.0}, {"ridge": float("nan")}, {"image_weight": -1.0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match="gaussians: rounds, weights and ridge must be positive, got"):
        F.fit_gaussians(unit(9, 6), unit(3, 6, seed=1), SCALE, **bad)


def test_a_class_that_no_image_is_near_has_the_mean_of_its_faint_weights():
    """At strength 0 its probabilities are below what float32 holds."""
    axis = torch.eye(6)[0]
    images, texts = (torch.nn.functional.normalize(0.3 * unit(n, 6, seed=n) + axis, dim=1) for n in (40, 3))
    texts[2] = -axis  # all images and the other texts lie in a cone, and this one opposite
    scale = 200.0
    correction = F.fit_prior_matching(images, texts, scale, strength=0.0)
    square = images.double().T @ images.double() / len(images)
    found = gaussians._discriminants(images, square, correction, 5.0).double()
    q = correction.logits(images).double().softmax(1)
    assert 0 < float(q.sum(0).min()) < 1e-60
    mean = q.T @ images.double() / q.sum(0)[:, None]
    covariance = square - (q.T @ images.double()).T @ mean / len(images)
    covariance += 5.0 * covariance.diagonal().mean() * torch.eye(6).double()
    direction = mean @ torch.linalg.inv(covariance)
    expected = torch.cat([direction, -(direction * mean).sum(1, keepdim=True) / 2], 1)
    torch.testing.assert_close(found, expected - expected.mean(0), rtol=1e-4, atol=1e-5)
