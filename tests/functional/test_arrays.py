"""What stands before every public function: numpy arrays are taken, and a device that it cannot compute on is told."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import cmmlib.functional as F
from cmmlib.errors import InputError


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


IMAGES, TEXTS = unit(60, 8), unit(3, 5, 8, seed=1)
LABELS = torch.arange(60) % 5


@pytest.mark.parametrize(
    "call",
    [
        lambda x, t, y: F.class_matching_margin(F.similarity_pass(x, t, 20.0)),
        lambda x, t, y: F.predict(x, t[0]),
        lambda x, t, y: F.autoclip(x, t, 20.0),
        lambda x, t, y: F.fit_prior_matching(x, t[0], logit_scale=20.0).bias,
        lambda x, t, y: F.fit_prototypes(x, t[0], 20.0).prototypes,
        lambda x, t, y: F.zlap(x, t[0]),
        lambda x, t, y: F.class_accuracy(F.predict(x, t[0]), y, 5).value,
    ],
)
def test_numpy_arrays_give_what_tensors_give(call):
    from_numpy = call(IMAGES.numpy(), TEXTS.numpy(), LABELS.numpy())
    assert torch.equal(from_numpy, call(IMAGES, TEXTS, LABELS))


def test_arrays_of_any_layout_are_taken():
    reversed_order = np.asfortranarray(IMAGES.numpy())[::-1]
    assert F.predict(reversed_order, TEXTS[0].numpy()).tolist() == F.predict(IMAGES, TEXTS[0]).flip(0).tolist()
    frozen = IMAGES.numpy().copy()
    frozen.flags.writeable = False
    assert F.predict(frozen, TEXTS[0].numpy()).equal(F.predict(IMAGES, TEXTS[0]))


def test_the_texts_of_one_prompt_need_no_axis_of_prompts():
    alone, among = F.similarity_pass(IMAGES, TEXTS[0], 20.0), F.similarity_pass(IMAGES, TEXTS[:1], 20.0)
    scores = F.class_matching_margin(alone)
    assert torch.equal(scores, F.class_matching_margin(among))
    assert F.rank_classes(scores).tolist() == scores[0].argsort().tolist()
    with pytest.raises(InputError, match="scores of 3 prompts"):
        F.rank_classes(F.class_matching_margin(F.similarity_pass(IMAGES, TEXTS, 20.0)))


def functions() -> list[str]:
    return [name for name in F.__all__ if inspect.isfunction(getattr(F, name))]


def test_what_runs_anywhere_is_public():
    assert set(functions()) >= F.ON_ANY_DEVICE


@pytest.mark.parametrize("name", sorted(set(functions()) - F.ON_ANY_DEVICE))
def test_what_needs_the_processor_says_so_of_another_device(name):
    elsewhere = torch.empty(4, 3, device="meta")
    with pytest.raises(InputError, match=rf"^{name} runs on the processor, got a tensor on meta: pass x\.cpu\(\)$"):
        getattr(F, name)(elsewhere)


def test_a_pass_changes_no_other_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        F.similarity_pass(IMAGES, TEXTS, 20.0)
        assert torch.get_num_threads() == 2
        assert torch.__config__.parallel_info().count("max_threads() : 2") >= 1
    finally:
        torch.set_num_threads(before)
