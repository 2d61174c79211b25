"""Published ways to combine prompts, against loops over images, prompts and classes in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.functional import prompt_baselines

small = settings(deadline=None, derandomize=True, max_examples=25)
SHAPES = [(1, 1, 2), (1, 3, 2), (9, 2, 2), (4, 2, 9), (31, 7, 5), (20, 24, 3)]  # images, prompts, classes


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def softmax(row: list[float]) -> list[float]:
    e = [math.exp(v - max(row)) for v in row]
    return [v / sum(e) for v in e]


def wide(*sides) -> list[np.ndarray]:
    return [np.asarray(side, dtype=np.float64) for side in sides]


# ---------------------------------------------------------------- one classifier, one weight a template


@pytest.mark.parametrize(("_", "n_prompts", "n_classes"), SHAPES)
def test_the_uniform_mean_equals_loops(_, n_prompts, n_classes):
    heads = unit(n_prompts, n_classes, 6)
    found = F.uniform_mean(heads)
    assert F.uniform_mean(heads.half()).dtype == torch.float32
    for c in range(n_classes):
        mean = sum(wide(heads[p, c])[0] for p in range(n_prompts)) / n_prompts
        np.testing.assert_allclose(found[c], mean / math.sqrt(float(mean @ mean)), atol=1e-6)


def slow_zpe(images, heads, scale: float) -> list[float]:
    x, t = wide(images, heads)
    scores = []
    for head in t:
        s = [[float(row @ text) for text in head] for row in x]
        mean = [sum(row[c] for row in s) / len(s) for c in range(len(head))]
        scores.append(sum(max(v - m for v, m in zip(row, mean, strict=True)) for row in s) / len(s))
    return softmax([scale * score for score in scores])


@pytest.mark.parametrize(("n", "n_prompts", "n_classes"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_zpe_equals_loops(n, n_prompts, n_classes, scale):
    images, heads = unit(n, 6), unit(n_prompts, n_classes, 6, seed=1)
    found = F.zpe(images, heads, scale)
    np.testing.assert_allclose(found, slow_zpe(images, heads, scale), rtol=1e-3, atol=1e-6)
    assert float(found.sum()) == pytest.approx(1)


def test_zpe_takes_the_mean_over_all_blocks_of_images():
    images, heads = unit(5000, 4), unit(3, 4, 4, seed=1)
    np.testing.assert_allclose(F.zpe(images, heads, 20.0), slow_zpe(images, heads, 20.0), rtol=1e-3)


def test_zpe_does_not_see_a_constant_that_every_image_adds_to_a_class():
    """A text's part along a direction that all images share moves its similarity with each of them alike."""
    images, heads = unit(30, 6), unit(2, 4, 6, seed=1)
    images = torch.nn.functional.pad(images, (0, 1), value=1.0)
    plain, pushed = (torch.nn.functional.pad(heads, (0, 1)) for _ in range(2))
    pushed[0, 2, -1] = 0.7
    zpe = prompt_baselines.zpe  # without the question whether rows have unit length
    torch.testing.assert_close(zpe(images, plain, 20.0), zpe(images, pushed, 20.0), atol=1e-4, rtol=0)


# ---------------------------------------------------------------- AutoCLIP


def slow_autoclip(images, heads, scale: float, share: float = 0.85) -> list[list[float]]:
    """Scores of every class for every image."""
    x, t = wide(images, heads)
    (n_prompts, n_classes, _), scores = t.shape, []
    for row in x:
        s = [[float(row @ t[p, c]) for c in range(n_classes)] for p in range(n_prompts)]
        mean = softmax([scale * sum(s[p][c] for p in range(n_prompts)) / n_prompts for c in range(n_classes)])
        gradient = [sum(q * v for q, v in zip(mean, s[p], strict=True)) for p in range(n_prompts)]
        w = slow_sharpened(gradient, share * math.log(n_prompts))
        scores.append([sum(w[p] * s[p][c] for p in range(n_prompts)) for c in range(n_classes)])
    return scores


def slow_sharpened(gradient: list[float], target: float) -> list[float]:
    low, high = 0.0, 1e9  # the steepest that still has the entropy
    for _ in range(200):
        step = (low + high) / 2
        low, high = (step, high) if entropy(softmax([step * g for g in gradient])) > target else (low, step)
    return softmax([low * g for g in gradient])


def entropy(weights) -> float:
    return -sum(w * math.log(w) for w in weights if w > 0)


def assert_predictions(found: torch.Tensor, scores: list[list[float]]) -> None:
    """The best class; where two are closer than float32 can tell, either."""
    assert found.dtype == torch.int64
    assert len(found) == len(scores)
    for c, row in zip(found.tolist(), scores, strict=True):
        assert row[c] >= max(row) - 1e-5


@pytest.mark.parametrize(("n", "n_prompts", "n_classes"), SHAPES)
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_autoclip_equals_loops(n, n_prompts, n_classes, scale):
    images, heads = unit(n, 6), unit(n_prompts, n_classes, 6, seed=1)
    assert_predictions(F.autoclip(images, heads, scale), slow_autoclip(images, heads, scale))


@small
@given(st.integers(1, 9), st.integers(1, 6), st.integers(2, 6), st.integers(0, 99), st.sampled_from([0.3, 0.85, 0.99]))
def test_autoclip_of_any_shape_equals_loops(n, n_prompts, n_classes, seed, share):
    images, heads = unit(n, 6, seed=seed), unit(n_prompts, n_classes, 6, seed=seed + 100)
    found = F.autoclip(images, heads, 20.0, share)
    assert_predictions(found, slow_autoclip(images, heads, 20.0, share))


@small
@given(
    st.integers(2, 24), st.integers(0, 99), st.sampled_from([0.3, 0.6, 0.85, 0.99]), st.sampled_from([1e-6, 1.0, 1e3])
)
def test_autoclips_weights_have_the_entropy_they_should(n_prompts, seed, share, size):
    gradient = size * unit(5, n_prompts, seed=seed)
    target = share * torch.log(torch.tensor(float(n_prompts)))
    weights = prompt_baselines._with_entropy(gradient, target)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    for row, given_ in zip(weights.double().tolist(), gradient.double().tolist(), strict=True):
        assert entropy(row) == pytest.approx(float(target), abs=1e-3)
        np.testing.assert_allclose(row, slow_sharpened([g / size for g in given_], float(target)), atol=2e-3)


def test_prompts_that_no_step_tells_apart_keep_equal_weights():
    weights = prompt_baselines._with_entropy(torch.full((2, 4), 0.3), 0.85 * torch.log(torch.tensor(4.0)))
    assert weights.tolist() == [[0.25] * 4] * 2
    tied = prompt_baselines._with_entropy(
        torch.tensor([[0.3, 0.3, 0.1]]), torch.tensor(0.1)
    )  # log 2 is the least there is
    assert tied[0].tolist() == pytest.approx([0.5, 0.5, 0])


def test_autoclip_of_one_prompt_is_that_prompt():
    images, heads = unit(40, 6), unit(1, 5, 6, seed=1)
    assert F.autoclip(images, heads, 20.0).equal((images @ heads[0].T).argmax(1))


@pytest.mark.parametrize("block", [1, 7, 40])
def test_autoclips_blocks_do_not_matter(monkeypatch, block):
    images, heads = unit(40, 6), unit(3, 5, 6, seed=1)
    whole = F.autoclip(images, heads, 20.0)
    monkeypatch.setattr(prompt_baselines, "BLOCK", block)
    assert F.autoclip(images, heads, 20.0).equal(whole)


@pytest.mark.parametrize(("n_prompts", "n_classes"), [(1, 3), (3, 65), (24, 9)])
def test_autoclip_gives_a_tie_between_copies_to_the_first(n_prompts, n_classes):
    images, heads = unit(300, 48), unit(n_prompts, n_classes, 48, seed=1)
    predictions = F.autoclip(images, torch.cat([heads, heads], 1), 20.0)
    assert predictions.max() < n_classes
    assert len(predictions.unique()) > 1


# ---------------------------------------------------------------- CARPRT


def slow_carprt(images, heads, scale: float, temperature: float) -> list[list[float]]:
    """Weights of every class, one a prompt."""
    x, t = wide(images, heads)
    scores = np.zeros(t.shape[:2])
    for p, head in enumerate(t):
        logits = [[scale * float(row @ text) for text in head] for row in x]
        for c in range(len(head)):
            own = [row[c] for row in logits if row.index(max(row)) == c]
            scores[p, c] = sum(own) / len(own) if own else 0.0
    return [softmax((scores[:, c] / temperature).tolist()) for c in range(t.shape[1])]


@pytest.mark.parametrize(("n", "n_prompts", "n_classes"), SHAPES)
@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (20.0, 1.0), (100.0, 0.3)])
def test_carprt_equals_loops(n, n_prompts, n_classes, scale, temperature):
    images, heads = unit(n, 6), unit(n_prompts, n_classes, 6, seed=1)
    found = F.carprt(images, heads, scale, temperature)
    np.testing.assert_allclose(found.T, slow_carprt(images, heads, scale, temperature), atol=1e-4)


def test_carprt_takes_the_mean_over_all_blocks_of_images():
    images, heads = unit(9000, 4), unit(3, 4, 4, seed=1)
    np.testing.assert_allclose(F.carprt(images, heads, 20.0).T, slow_carprt(images, heads, 20.0, 1.0), atol=1e-4)


def slow_carprt_of_candidates(images, candidates, others, scale: float) -> list[float]:
    x, vectors, base = wide(images, candidates.vectors, others)
    scores = []
    for text, c in zip(vectors, candidates.classes.tolist(), strict=True):
        own = [
            scale * float(row @ text)
            for row in x
            if all(row @ text > row @ base[j] for j in range(len(base)) if j != c)
        ]
        scores.append(sum(own) / len(own) if own else 0.0)
    weights = [0.0] * len(scores)
    for c in range(len(base)):
        rows = [k for k, own in enumerate(candidates.classes.tolist()) if own == c]
        for k, weight in zip(rows, softmax([scores[k] for k in rows]), strict=True):
            weights[k] = weight
    return weights


@pytest.mark.parametrize(("n", "n_prompts", "n_classes"), SHAPES)
@pytest.mark.parametrize("rows", [1, 1000])
def test_carprt_of_candidates_equals_loops(n, n_prompts, n_classes, rows, monkeypatch):
    monkeypatch.setattr(prompt_baselines, "block_rows", lambda *_: rows)
    images, heads = unit(n, 6), unit(n_prompts, n_classes, 6, seed=1)
    candidates = F.Candidates.of_templates(heads).with_descriptions({1: unit(3, 6, seed=2), 0: unit(1, 6, seed=3)})
    others = F.uniform_mean(heads)
    found = F.carprt_of_candidates(images, candidates, others, 20.0)
    np.testing.assert_allclose(found, slow_carprt_of_candidates(images, candidates, others, 20.0), atol=1e-4)


def test_carprt_prefers_the_prompt_that_is_nearer_to_the_images_it_wins():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    near = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    far = torch.nn.functional.normalize(torch.tensor([[1.0, 0.5], [0.5, 1.0]]), dim=1)
    weights = F.carprt(images, torch.stack([near, far]), 100.0)
    assert (weights[0] > 0.99).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_carprt_refuses_a_temperature_that_is_not_positive(temperature):
    heads = unit(2, 3, 6)
    candidates = F.Candidates.of_templates(heads)
    with pytest.raises(InputError, match="carprt: temperature must be positive, got"):
        F.carprt(unit(4, 6), heads, 20.0, temperature)
    with pytest.raises(InputError, match="carprt: temperature must be positive, got"):
        F.carprt_of_candidates(unit(4, 6), candidates, heads[0], 20.0, temperature)
