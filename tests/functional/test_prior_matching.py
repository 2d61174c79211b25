"""Prior matching and prototypes, against the plain fixed point in numpy, and where there is nothing to match."""

from __future__ import annotations

import inspect
from unittest import mock

import numpy as np
import pytest
import torch
from finished_runs import unit
from hypothesis import given, settings
from hypothesis import strategies as st

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.functional import prior_matching, prototypes
from cmmlib.functional.prior_matching import SimilarityBlocks, apply_bias, fit_prior_matching, match_prior
from cmmlib.functional.prototypes import fit_prototypes

SHAPES = [(1, 2), (3, 7), (40, 2), (31, 5), (200, 24)]  # images, classes
small = settings(deadline=None, derandomize=True, max_examples=25)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def slow_fit(logits: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The damped fixed point: half a step at a time."""
    b = np.zeros(len(prior))
    for _ in range(20_000):
        step = 0.5 * np.log(softmax(logits + b).mean(0) / prior)
        b = b - step - (b - step).mean()
        if np.abs(step).max() < 1e-7:
            break
    return b


def slow_prototypes(x: np.ndarray, t: np.ndarray, scale: float, rounds: int) -> np.ndarray:
    """Logits after so many rounds, texts and prototypes 4 : 2."""
    uniform, s = np.full(len(t), 1 / len(t)), x @ t.T
    q = softmax(scale * s + slow_fit(scale * s, uniform))
    logits = s
    for _ in range(rounds):
        centres = q.T @ x
        p = x @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
        logits = 4 * s / s.std() + 2 * p / p.std()
        logits = logits + slow_fit(logits, uniform)
        q = softmax(logits)
    return logits


# ---------------------------------------------------------------- prior matching


@pytest.mark.parametrize(("n", "n_classes"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_the_bias_is_that_of_the_damped_fixed_point(n, n_classes, scale):
    similarity = unit(n, 6) @ unit(n_classes, 6, seed=1).T
    found = match_prior(similarity, scale)
    uniform = np.full(n_classes, 1 / n_classes)
    assert found.converged
    np.testing.assert_allclose(found.value, slow_fit(scale * similarity.double().numpy(), uniform), atol=2e-2)
    shares = apply_bias(similarity, scale, found.value).softmax(1).mean(0)
    np.testing.assert_allclose(shares, uniform, rtol=2e-4)
    assert float(found.value.mean()) == pytest.approx(0, abs=1e-5)


@small
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(0.3, 8))
def test_any_prior_is_met(seed, n_classes, spread):
    similarity = unit(60, 8, seed=seed) @ unit(n_classes, 8, seed=seed + 1).T
    prior = torch.rand(n_classes, generator=torch.Generator().manual_seed(seed)).mul(spread).exp()
    found = match_prior(similarity, 10.0, prior)
    assert found.converged
    shares = apply_bias(similarity, 10.0, found.value).double().softmax(1).mean(0)
    torch.testing.assert_close(shares, (prior / prior.sum()).double(), rtol=3e-4, atol=0)


def test_strength_scales_the_bias_down_to_the_plain_classifier():
    similarity = unit(50, 6) @ unit(7, 6, seed=1).T
    whole = match_prior(similarity, 20.0).value
    torch.testing.assert_close(match_prior(similarity, 20.0, strength=0.5).value, whole / 2, rtol=0, atol=1e-5)
    assert match_prior(similarity, 20.0, strength=0.0).value.eq(0).all()
    found = fit_prior_matching(unit(50, 6), unit(7, 6, seed=1), 20.0)
    torch.testing.assert_close(found.with_strength(0.5).bias, whole / 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kept", [True, False])
def test_blocks_that_come_again_give_what_the_whole_gives(kept, monkeypatch):
    images, head = unit(100, 6), unit(7, 6, seed=1)
    whole = fit_prototypes(images, head, 20.0)
    monkeypatch.setattr(prior_matching, "BLOCK_BYTES", 4 * 7 * 9)  # nine images a block
    monkeypatch.setattr(prior_matching, "KEPT_BYTES", 4 * 7 * (100 if kept else 99))
    products = SimilarityBlocks(images, head)
    assert (products.kept is not None) is kept
    assert [len(block) for block in products] == [len(block) for block in products] == [9] * 11 + [1]
    torch.testing.assert_close(
        match_prior(products, 20.0).value, match_prior(images @ head.T, 20.0).value, rtol=0, atol=1e-4
    )
    streamed = fit_prototypes(images, head, 20.0)
    torch.testing.assert_close(streamed.bias, whole.bias, rtol=0, atol=1e-3)
    torch.testing.assert_close(streamed.prototypes, whole.prototypes, rtol=0, atol=1e-3)


def test_a_start_near_the_end_keeps_newtons_matrix_and_ends_at_the_same_bias(monkeypatch):
    similarity = unit(200, 6) @ unit(9, 6, seed=1).T
    whole = match_prior(similarity, 20.0)
    measured = mock.Mock(wraps=prior_matching._overlap)
    monkeypatch.setattr(prior_matching, "_overlap", measured)
    again = match_prior(similarity, 20.2, start=whole)
    assert again.converged
    assert measured.call_count == 0
    torch.testing.assert_close(again.value, match_prior(similarity, 20.2).value, rtol=0, atol=1e-3)


def test_nearly_one_hot_probabilities_are_matched_in_few_rounds():
    """Newton's whole steps oscillate between the classes there, and the plain fixed point takes hundreds of rounds."""
    similarity = 3 * unit(400, 6) @ unit(12, 6, seed=1).T
    found = match_prior(similarity, 100.0)
    assert found.converged
    assert found.rounds < 30
    share = (100.0 * similarity.double() + found.value).softmax(1).mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 1 / 12), rtol=2e-4, atol=0)


def test_it_is_applied_to_one_image_at_a_time():
    images, head = unit(40, 6), unit(5, 6, seed=1)
    for found in (fit_prior_matching(images[:20], head, 20.0), fit_prototypes(images[:20], head, 20.0)):
        whole = found.predict(images)
        assert torch.cat([found.predict(image[None]) for image in images]).equal(whole)
        assert found.logits(images).argmax(1).equal(whole)


def test_a_search_that_stops_early_says_so():
    similarity = unit(50, 6) @ unit(7, 6, seed=1).T
    found = match_prior(similarity, 100.0, max_rounds=2)
    assert not found.converged
    assert found.rounds == 2
    assert found.value.isfinite().all()


def test_a_class_starved_of_all_probability_gets_its_share():
    """Its probability is below what a float can hold: exp(-300)."""
    similarity = torch.cat([1 + 0.1 * torch.rand(30, 4), -2 + 0.1 * torch.rand(30, 1)], 1)
    found = match_prior(similarity, 100.0)
    assert found.converged
    shares = apply_bias(similarity, 100.0, found.value).softmax(1).mean(0)
    np.testing.assert_allclose(shares, 0.2, rtol=3e-4)


def test_copies_of_a_text_tie_and_the_first_wins():
    images, head = unit(90, 6), unit(9, 6, seed=1)
    head[7] = head[2]
    for found in (fit_prior_matching(images, head, 20.0), fit_prototypes(images, head, 20.0)):
        assert found.bias[7] == found.bias[2]
        assert not found.predict(images).eq(7).any()


@pytest.mark.parametrize("what", ["one image", "all texts alike", "fewer images than classes", "float16", "far apart"])
def test_odd_inputs_give_numbers(what):
    images, head, scale = unit(60, 6), unit(5, 6, seed=1), 20.0
    if what == "one image":
        images = images[:1]
    elif what == "all texts alike":
        head = head[:1].repeat(5, 1)
    elif what == "fewer images than classes":
        images = images[:3]
    elif what == "float16":
        images, head = images.half(), head.half()
    else:
        scale = 1e4
    for found in (fit_prior_matching(images, head, scale), fit_prototypes(images, head, scale)):
        assert found.bias.isfinite().all()
        assert found.vectors.isfinite().all()
        assert found.predict(images).shape == (len(images),)
        assert isinstance(found.converged, bool)


BAD = [
    ({"logit_scale": 0.0}, "logit_scale must be positive"),
    ({"strength": 1.5}, "strength in"),
    ({"prior": torch.tensor([0.5, 0.5, 0.0])}, "3 positive frequencies"),
    ({"similarity": torch.tensor([[0.1, float("nan"), 0.2]])}, "NaN or Inf"),
    ({"similarity": torch.zeros(0, 3)}, "at least one image and two classes"),
    ({"similarity": torch.zeros(4, 1)}, "at least one image and two classes"),
]


@pytest.mark.parametrize(("wrong", "said"), BAD)
def test_bad_input_is_refused_in_one_line(wrong, said):
    with pytest.raises(InputError, match=said):
        match_prior(**{"similarity": torch.rand(6, 3), "logit_scale": 10.0, **wrong})


def test_bad_embeddings_are_refused():
    images, head = unit(9, 6), unit(3, 6, seed=1)
    images[4] = 0
    with pytest.raises(InputError, match="image_features row 4"):
        fit_prototypes(images, head, 10.0)
    with pytest.raises(InputError, match="rounds and weights must be positive"):
        fit_prototypes(unit(9, 6), head, 10.0, rounds=0)


def test_no_function_takes_labels():
    public = [
        f
        for name, f in vars(prior_matching).items()
        if inspect.isfunction(f) and f.__module__ == prior_matching.__name__
    ]
    assert len(public) > 5
    assert not [f.__name__ for f in public if "labels" in inspect.signature(f).parameters]


# ---------------------------------------------------------------- prototypes


@pytest.mark.parametrize(("n", "n_classes"), [(3, 7), (40, 2), (120, 9)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_prototypes_equal_loops_in_numpy(n, n_classes, rounds, monkeypatch):
    monkeypatch.setattr(prototypes, "SETTLED", -1.0)  # all rounds are made
    images, head = unit(n, 6), unit(n_classes, 6, seed=1)
    found = fit_prototypes(images, head, 20.0, rounds=rounds)
    expected = slow_prototypes(images.double().numpy(), head.double().numpy(), 20.0, rounds)
    np.testing.assert_allclose(found.logits(images), expected, atol=0.05)
    assert found.rounds == rounds


def test_rounds_end_once_predictions_settle():
    centres = unit(4, 16)
    images = torch.nn.functional.normalize(centres.repeat(30, 1) + 0.1 * unit(120, 16, seed=2), dim=1)
    found = fit_prototypes(images, centres, 20.0)
    assert found.converged
    assert found.rounds == 2  # the second changes nothing
    assert not fit_prototypes(images, centres, 20.0, rounds=1).converged


@pytest.mark.parametrize("fit", [fit_prototypes, F.fit_gaussians])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_prior_matching_that_was_fitted_before_changes_no_bit(fit, strength):
    given = unit(40, 6), unit(5, 6, seed=1), 20.0
    start = fit_prior_matching(*given).with_strength(strength)
    alone, begun = fit(*given, strength=strength), fit(*given, strength=strength, start=start)
    torch.testing.assert_close(vars(begun), vars(alone), rtol=0, atol=0)
    nearer = fit(*given, strength=strength, rounds=1, start=start.with_strength(0.0))
    assert not torch.equal(nearer.vectors, fit(*given, strength=strength, rounds=1).vectors)  # it is begun with


@pytest.mark.parametrize("fit", [fit_prototypes, F.fit_gaussians])
def test_a_start_of_other_texts_is_refused(fit):
    images, texts = unit(40, 6), unit(5, 6, seed=1)
    for start in (fit_prior_matching(images, unit(5, 6, seed=2), 20.0), fit_prototypes(images, texts, 20.0)):
        with pytest.raises(InputError, match="prior matching of the same texts"):
            fit(images, texts, 20.0, start=start)
    with pytest.raises(InputError, match="and logit_scale"):
        fit(images, texts, 10.0, start=fit_prior_matching(images, texts, 20.0))


REAL = {  # plain, prior matching, prototypes: overall and worst-10, measured before the package had them
    "dtd_vitb32": ((44.8, 6.5), (47.2, 13.7), (53.7, 25.8)),
    "pets25_vitb32": ((87.5, 72.7), (92.7, 85.8), (93.4, 87.6)),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_both_corrections_gain_on_real_embeddings(real_data, name):
    data = load_embeddings(real_data / f"{name}.npz")
    head, scale, n_classes = data.text_features[0], data.logit_scale, data.text_features.shape[1]
    plain = fit_prior_matching(data.image_features, head, scale, strength=0.0)
    ways = plain, fit_prior_matching(data.image_features, head, scale), fit_prototypes(data.image_features, head, scale)
    for found, (overall, worst) in zip(ways, REAL[name], strict=True):
        accuracy = F.class_accuracy(found.predict(data.image_features), data.labels, n_classes)
        assert 100 * accuracy.overall == pytest.approx(overall, abs=0.3)
        assert 100 * F.worst_at_k(accuracy.value, 10) == pytest.approx(worst, abs=0.7)
