"""What the playground carries, and for which runs there is one."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmmlib import functional as F
from cmmlib.errors import InputError
from cmmlib.evaluation.evaluation import followed_sets
from cmmlib.report.findings import playground as findings
from cmmlib.report.widgets import playground
from cmmlib.study import run as study_run


@pytest.mark.parametrize("shape", [(1, 3), (7, 64), (300, 5)])
def test_eight_bits_keep_every_number_within_half_a_step(shape):
    vectors = torch.nn.functional.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dim=1)
    packed = playground._packed(vectors)
    step = torch.from_numpy(np.frombuffer(base64.b64decode(packed["step"]), "<f4").copy())
    codes = torch.from_numpy(np.frombuffer(base64.b64decode(packed["codes"]), "u1").copy()).view(shape)
    low = torch.from_numpy(np.frombuffer(base64.b64decode(packed["low"]), "<f4").copy())
    assert ((codes * step + low - vectors).abs() <= step / 2 + 1e-6).all()
    assert torch.allclose(playground.unpacked(packed).norm(dim=1), torch.ones(shape[0]))


def test_it_carries_every_candidate_in_the_order_of_the_library(synthetic):
    data = playground.playground_data(synthetic)
    vectors = playground.unpacked(data["candidates"])
    expected = synthetic.text_features.flatten(0, 1)
    assert (vectors * expected).sum(1).min() > 0.999
    assert data["classes"] == list(range(synthetic.n_classes)) * len(synthetic.prompts)
    assert (data["described"], data["n_described"], data["suspects"]) == (0, 0, [])  # no text tower here


@pytest.mark.parametrize("without", ["labels", "prompts", "room"])
def test_there_is_none_for_a_run_that_lacks_something(synthetic, without, monkeypatch):
    assert synthetic.conditions["browser"]
    changes = {"labels": {"labels": None}, "prompts": {"prompts": synthetic.prompts[:1]}, "room": {}}[without]
    if without == "room":
        monkeypatch.setattr(study_run, "BROWSER_BYTES", 1000)
    run = replace(synthetic, **changes)
    assert not run.conditions["browser"]
    with pytest.raises(InputError, match="playground needs"):
        playground.playground_data(run)


def test_the_page_says_what_eight_bits_change(synthetic):
    data = playground.playground_data(synthetic)
    said = findings.rounding(synthetic, data)
    assert f"{len(synthetic.image_features)} get another prediction" in said
    coarse = {
        key: playground._packed(playground.unpacked(data[key]).mul(3).round().div(3)) for key in ("images", "base")
    }
    assert findings.rounding(synthetic, {**data, **coarse}) != said


def test_classes_at_zero_are_told_only_where_eight_bits_change_their_number(synthetic):
    data = playground.playground_data(synthetic)
    assert "at zero" not in findings.rounding(synthetic, data)
    one_text = torch.zeros_like(synthetic.base_text_features).index_fill(1, torch.tensor([0]), 1)
    base = playground._packed(one_text)  # every image is predicted as the first class
    exact, others = zeros(synthetic, synthetic.base_text_features), synthetic.n_classes - 1
    said = findings.rounding(synthetic, {**data, "base": base})
    assert exact != others
    assert f"the number of classes at zero is {exact} in the chapters and {others} here." in said


def zeros(run, texts):
    return F.zero_classes(F.class_accuracy(F.predict(run.image_features, texts), run.labels, run.n_classes).value)


def test_the_base_prompts_worst_classes_are_those_that_the_chapters_follow(synthetic):
    run = replace(synthetic, labels=torch.where(synthetic.labels == 3, 4, synthetic.labels))  # a class has no image
    accuracy = F.class_accuracy(F.predict(run.image_features, run.base_text_features), run.labels, run.n_classes).value
    data = playground.playground_data(run)
    sets = {one["k"]: one["classes"] for one in data["base_worst"]}
    assert run.worst_k in sets
    assert set(sets) <= set(data["ks"])
    for k, classes in sets.items():
        expected = followed_sets(accuracy).get(k, F.true_worst(accuracy, k).nonzero()[:, 0])
        assert classes == sorted(expected.tolist())
        assert len(classes) >= k
    few = replace(run, labels=run.labels.clamp_max(0))  # one class has images
    assert [one["k"] for one in playground.playground_data(few)["base_worst"]] == [k for k in [run.worst_k] if k == 1]


def test_descriptions_that_have_no_room_are_counted_and_told(synthetic):
    data = playground.playground_data(synthetic)
    assert data["left_out"] == 0
    assert "description" not in findings.rounding(synthetic, data)
    assert "7 descriptions of a language model would make it too large" in findings.rounding(
        synthetic, {**data, "left_out": 7}
    )
