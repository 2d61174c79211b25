"""Functions that compute where their tensors lie: nothing is made on the processor by the way, and a GPU agrees.

Where there is no GPU, tensors made without a device are sent to torch's `meta` device: what then meets the inputs,
which lie on the processor, is an error, as it would be on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import cmmlib.functional as F
from cmmlib.functional import candidates, similarity
from cmmlib.functional._kernels.similarity_torch import TorchSteps

SCALE = 10.0


def unit(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


CENTRES = unit(6, 16)
LABELS = torch.arange(120) % 6
IMAGES = torch.nn.functional.normalize(CENTRES[LABELS] + 1.5 * unit(120, 16, seed=1), dim=-1)
TEXTS = torch.nn.functional.normalize(CENTRES + 0.5 * unit(3, 6, 16, seed=2), dim=-1)
DESCRIBED = {1: unit(2, 16, seed=3), 4: unit(3, 16, seed=4)}
ACCURACY = torch.tensor([0.5, 0.0, torch.nan, 1.0, 0.25, 0.25], dtype=torch.float64)


def pool(t: Tensor) -> F.Candidates:
    return F.Candidates.of_templates(t).with_descriptions({c: v.to(t.device) for c, v in DESCRIBED.items()})


def answers(x: Tensor, t: Tensor) -> F.ConfidentPredictions:
    return F.predict_with_confidence(SCALE * x @ t[0].T)


def passed(x: Tensor, t: Tensor) -> F.SimilarityPass:
    return F.similarity_pass(x, t, SCALE)


def of_pass(name: str, *args: Any) -> Callable[[Tensor, Tensor, Tensor], Any]:
    return lambda x, t, y: getattr(F, name)(passed(x, t), *args)


CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "similarity_pass": lambda x, t, y: passed(x, t),
    **{name: of_pass(name) for name in ("class_matching_margin", "scale_free_cmm", "predicted_count")},
    **{name: of_pass(name) for name in ("mean_top_probability", "accuracy_estimate")},
    "rank_classes": lambda x, t, y: F.rank_classes(F.class_matching_margin(passed(x, t))[0]),
    "prompt_scores": lambda x, t, y: F.prompt_scores(F.class_matching_margin(passed(x, t))),
    "fill_undefined": lambda x, t, y: F.fill_undefined(ACCURACY.to(x.device), x.double().mean(0)[:6]),
    "predict": lambda x, t, y: F.predict(x, t[0]),
    "candidate_cmm": lambda x, t, y: F.candidate_cmm(x, pool(t), t[0], SCALE),
    "weigh_candidates": lambda x, t, y: F.weigh_candidates(pool(t), pool(t).vectors.mean(1)),
    "combine_candidates": lambda x, t, y: F.combine_candidates(pool(t), F.uniform_weights(pool(t))),
    "uniform_weights": lambda x, t, y: F.uniform_weights(pool(t), balanced=True),
    "cmm_ensemble": lambda x, t, y: F.cmm_ensemble(x, pool(t), t[0], SCALE),
    "uniform_mean": lambda x, t, y: F.uniform_mean(t),
    "fit_candidate_weights": lambda x, t, y: F.fit_candidate_weights(
        x, pool(t), (SCALE * x @ t[0].T).softmax(1), SCALE, steps=3
    ),
    "fitted_ensemble": lambda x, t, y: F.fitted_ensemble(x, pool(t), SCALE, steps=3),
    "weigh_prompts": lambda x, t, y: F.weigh_prompts(t, F.class_matching_margin(passed(x, t))),
    "replace_classes": lambda x, t, y: F.replace_classes(t[0], {2: t[:, 2]}),
    "check_embeddings": lambda x, t, y: F.check_embeddings(t, "text_features"),
    "match_prior": lambda x, t, y: F.match_prior(x @ t[0].T, SCALE),
    "apply_bias": lambda x, t, y: F.apply_bias(x @ t[0].T, SCALE, t[0].double().mean(1)),
    "fit_prior_matching": lambda x, t, y: F.fit_prior_matching(x, t[0], SCALE, torch.arange(1.0, 7.0, device="cpu")),
    "fit_prototypes": lambda x, t, y: F.fit_prototypes(x, t[0], SCALE),
    "fit_gaussians": lambda x, t, y: F.fit_gaussians(x, t[0], SCALE),
    "zpe": lambda x, t, y: F.zpe(x, t, SCALE),
    "autoclip": lambda x, t, y: F.autoclip(x, t, SCALE),
    "carprt": lambda x, t, y: F.carprt(x, t, SCALE),
    "carprt_of_candidates": lambda x, t, y: F.carprt_of_candidates(x, pool(t), t[0], SCALE),
    **{name: (lambda f: lambda x, t, y: f(x, t[0]))(getattr(F, name)) for name in ("mean_centred", "z_scored")},
    **{
        name: (lambda f: lambda x, t, y: f(x, t[0], SCALE))(getattr(F, name))
        for name in ("label_shift_em", "frolic", "inmap", "transclip", "rivals", "top_rivals")
    },
    "nearest_images": lambda x, t, y: F.nearest_images(x, 3),
    "class_mean_margin": lambda x, t, y: F.class_mean_margin(passed(x, t), x, t),
    "cmm_by_labels": lambda x, t, y: F.cmm_by_labels(passed(x, t), x, t, y),
    "nearest_text_distance": lambda x, t, y: F.nearest_text_distance(t[0]),
    "margins_of_class": lambda x, t, y: F.margins_of_class(x, t[0], SCALE, 2),
    "predict_with_confidence": lambda x, t, y: answers(x, t),
    "class_confidence": lambda x, t, y: F.class_confidence(t[0].mean(1), answers(x, t)),
    "most_confident": lambda x, t, y: F.most_confident(answers(x, t).margin, 0.4),
    "most_confident_by_class": lambda x, t, y: F.most_confident_by_class(answers(x, t).margin, y, 0.4),
    "coverage_for_risk": lambda x, t, y: F.coverage_for_risk(answers(x, t).probability, 0.1),
    "class_accuracy": lambda x, t, y: F.class_accuracy(F.predict(x, t[0]), y, 6),
    "floored": lambda x, t, y: F.floored(F.class_accuracy(F.predict(x, t[0]), y, 6)),
    **{
        name: (lambda f: lambda x, t, y: f(ACCURACY.to(x.device), 2))(getattr(F, name))
        for name in ("worst_at_k", "worst_classes", "true_worst")
    },
    "zero_classes": lambda x, t, y: F.zero_classes(ACCURACY.to(x.device)),
}


def plain(value: Any) -> Any:
    """Results as tensors of the processor and Python's own types, to be compared."""
    if isinstance(value, Tensor):
        return value.cpu().double()
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


def assert_alike(one: Any, other: Any) -> None:
    torch.testing.assert_close(plain(one), plain(other), rtol=1e-3, atol=5e-4, equal_nan=True)


def test_every_function_that_runs_anywhere_is_tried():
    assert set(CALLS) == F.ON_ANY_DEVICE


@pytest.mark.parametrize("name", sorted(CALLS))
def test_nothing_is_made_on_the_processor_by_the_way(name, monkeypatch):
    monkeypatch.setattr(similarity, "_steps", lambda device: TorchSteps)
    monkeypatch.setattr(candidates, "_is_compiled", lambda device: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # a thread of its own would not have the default device
    expected = CALLS[name](IMAGES, TEXTS, LABELS)
    with torch.device("meta"):
        found = CALLS[name](IMAGES, TEXTS, LABELS)
    assert_alike(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_gpu_gives_what_the_processor_gives(name):
    found = CALLS[name](IMAGES.cuda(), TEXTS.cuda(), LABELS.cuda())
    assert_alike(found, CALLS[name](IMAGES, TEXTS, LABELS))
