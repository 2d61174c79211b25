"""What stands before every public function: numpy arrays are taken, and a device that it cannot compute on is told."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import cmmlib.functional as F
from cmmlib import CMMEnsemble, PriorMatching
from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_type
from cmmlib.functional.prior_matching import class_shares


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


# ---------------------------------------------------------------- what is no argument of that kind

ACCURACY = torch.linspace(0, 1, 5)
BY_CLASS = {name: getattr(F, name) for name in ("worst_at_k", "worst_classes", "true_worst")}


@pytest.mark.parametrize("name", BY_CLASS)
@pytest.mark.parametrize(
    ("accuracy", "k", "said"),
    [
        (ACCURACY[None], 2, r"accuracy has shape \[1, 5\], expected \[C\]"),
        (np.ones((2, 5)), 2, r"accuracy has shape \[2, 5\], expected \[C\]"),
        (ACCURACY.tolist(), 2, r"accuracy is list: expected a numpy array or torch tensor \[C\]"),
        (ACCURACY, 2.0, "k must be a whole number, got 2.0"),
        (ACCURACY, True, "k must be a whole number, got True"),
        (ACCURACY, "2", "k must be a whole number, got '2'"),
        (ACCURACY, None, "k must be a whole number, got None"),
    ],
)
def test_what_is_taken_for_each_class_is_refused_in_another_shape(name, accuracy, k, said):
    with pytest.raises(InputError, match=f"^{name}: {said}$"):
        BY_CLASS[name](accuracy, k)


@pytest.mark.parametrize("name", sorted(set(functions())))
def test_no_function_takes_a_list_of_texts_for_an_array(name):
    """Each function with an array as its first argument says which, and none fails with an error of its own."""
    first = next(iter(inspect.signature(getattr(F, name)).parameters.values()))
    if not str(first.annotation).startswith(("Float", "Int", "Bool")) or "|" in str(first.annotation):
        return
    others = [None] * sum(
        p.default is p.empty for p in list(inspect.signature(getattr(F, name)).parameters.values())[1:]
    )
    with pytest.raises(InputError, match=f"^{name}: {first.name} is list: expected a numpy array or torch tensor"):
        getattr(F, name)(["a"], *others)


@pytest.mark.parametrize("scale", ["20", True, [20.0], None, torch.ones(2)])
def test_a_scale_is_a_number(scale):
    with pytest.raises(InputError, match=r"^similarity_pass: logit_scale must be a number, got "):
        F.similarity_pass(IMAGES, TEXTS, scale)


def test_numbers_of_numpy_and_a_model_s_own_are_numbers():
    for value, kind in ((np.int64(2), int), (torch.tensor(20.0), float), (np.float32(1), float), (np.True_, bool)):
        require_type(value, kind, "it")
    require_type(None, int | None, "it")


def test_a_masked_array_would_lose_its_mask():
    masked = np.ma.masked_array(IMAGES.numpy(), mask=np.zeros((60, 8), dtype=bool))
    for call in (F.predict, F.fit_prior_matching):
        with pytest.raises(InputError, match=r"^.*: a masked array would lose its mask: leave out the masked rows"):
            call(masked, TEXTS[0].numpy(), *([20.0] if call is F.fit_prior_matching else []))


ZEROS = torch.zeros(60, dtype=torch.long)


@pytest.mark.parametrize("labels", [ZEROS.bool(), ZEROS.float(), ZEROS.to(torch.complex64)])
def test_labels_are_whole_numbers(labels):
    given = str(labels.dtype).removeprefix("torch.")
    for call in (lambda: F.class_accuracy(ZEROS, labels, 3), lambda: F.class_accuracy(labels, ZEROS, 3)):
        with pytest.raises(InputError, match=rf"^class_accuracy: \w+ is of {given}: expected whole numbers$"):
            call()
    assert F.class_accuracy(ZEROS.to(torch.int32), ZEROS.to(torch.int16), 3).count.tolist() == [60, 0, 0]


def test_embeddings_are_no_whole_numbers():
    with pytest.raises(InputError, match=r"^predict: image_features is of int64: expected floating-point numbers$"):
        F.predict(IMAGES.long(), TEXTS[0])


def test_a_sparse_tensor_is_refused_with_the_remedy():
    images = IMAGES.to_sparse()
    for call in (lambda: F.predict(images, TEXTS[0]), lambda: PriorMatching(20.0).fit(images, TEXTS)):
        with pytest.raises(InputError, match=r"image_features is a sparse tensor: pass x\.to_dense\(\)$"):
            call()


def test_a_tensor_without_numbers_is_refused():
    images = IMAGES.to("meta")
    for call in (lambda: F.worst_at_k(images[0], 2), lambda: PriorMatching(20.0).fit(images, TEXTS)):
        with pytest.raises(InputError, match="lies on the meta device, without numbers"):
            call()


def test_rows_that_say_nothing_get_no_class():
    for bad in (float("nan"), 0.0):
        images = IMAGES.clone()
        images[7] *= bad
        with pytest.raises(InputError, match=r"image_features row 7 has "):
            F.predict(images, TEXTS[0])
    with pytest.raises(InputError, match=r"has rows of no numbers, \[60, 0\]"):
        F.check_embeddings(IMAGES[:, :0], "x")


def test_a_number_of_things_is_one_or_more():
    for k in (0, -8):
        for call in (lambda k=k: F.nearest_images(IMAGES, k), lambda k=k: F.zlap(IMAGES, TEXTS[0], k=k)):
            with pytest.raises(InputError, match=rf": k must be 1 or more, got {k}$"):
                call()
        with pytest.raises(InputError, match=rf"^top_rivals: n must be 1 or more, got {k}$"):
            F.top_rivals(IMAGES, TEXTS[0], 20.0, k)


def test_the_oracle_needs_a_class_for_every_image():
    passed = F.similarity_pass(IMAGES, TEXTS, 20.0)
    n_classes = TEXTS.shape[1]
    odd = {"outside 0": ZEROS + n_classes, "labels run from -1": ZEROS - 1}
    for said, labels in odd.items():
        with pytest.raises(InputError, match=said):
            F.cmm_by_labels(passed, IMAGES, TEXTS, labels)


def test_a_cut_is_a_number():
    with pytest.raises(InputError, match=r"cut 0 or more, got 0\.3 and nan"):
        CMMEnsemble(20.0, temperature=0.3, cut=float("nan")).fit(IMAGES, TEXTS)


@pytest.mark.parametrize(
    ("images", "texts", "said"),
    [
        (3 * IMAGES, TEXTS, "image_features row 0 has length 3, expected 1: pass torch.nn.functional.normalize"),
        (IMAGES, 0.5 * TEXTS, "text_features row 0 has length 0.5, expected 1"),
        (torch.cat([IMAGES, 1.1 * IMAGES]), TEXTS, "image_features row 60 has length 1.1, expected 1"),
    ],
)
def test_rows_of_another_length_have_no_cosines(images, texts, said):
    with pytest.raises(InputError, match=f"^similarity_pass: {said}"):
        F.similarity_pass(images, texts, 20.0)


@pytest.mark.parametrize("number", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_every_float_are_of_unit_length(number):
    F.similarity_pass(IMAGES.to(number), TEXTS.to(number), 20.0)


@pytest.mark.parametrize("prior", [[1, 1, 1, 1, -1], [1, 1, 1, 1, float("nan")], [0, 1, 1, 1, 1]])
@pytest.mark.parametrize("fit", [F.otter, F.fit_prior_matching, F.fit_prototypes, F.fit_gaussians])
def test_a_prior_is_one_positive_number_a_class(fit, prior):
    with pytest.raises(InputError, match=r"^prior: 5 positive frequencies are needed, one a class$"):
        fit(
            IMAGES,
            TEXTS[0],
            **{"prior": np.array(prior, dtype=float)} | ({} if fit is F.otter else {"logit_scale": 20.0}),
        )


@pytest.mark.parametrize("c", [5, -1, 99])
def test_a_class_that_is_not_there_has_no_margins(c):
    with pytest.raises(InputError, match=f"^margins_of_class: no class {c}: classes are 0 to 4$"):
        F.margins_of_class(IMAGES, TEXTS[0], 20.0, c)


def test_an_interval_is_of_a_share():
    for correct, count in ((5, 3), (-1, 3), (1, 0)):
        with pytest.raises(InputError, match=f"correct must be from 0 to count, got {correct} of {count}"):
            F.wilson_interval(correct, count)
    for level in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(InputError, match="level must lie between 0 and 1"):
            F.wilson_interval(1, 3, level)
        with pytest.raises(InputError, match="level must lie between 0 and 1"):
            F.bootstrap_interval(F.class_accuracy(LABELS, LABELS, 5), torch.tensor([0]), level)
    assert np.isnan(F.wilson_interval(0, 0)).all()


def test_shares_are_of_every_class():
    assert class_shares(torch.tensor([3.0, 1.0]), 2).tolist() == [0.75, 0.25]
    with pytest.raises(InputError, match=r"^prior: 5 positive frequencies are needed, one a class$"):
        class_shares(torch.ones(4), 5)


def test_the_length_of_every_row_is_looked_at():
    many = unit(9000, 8, seed=1)
    many[8999] *= 7
    with pytest.raises(InputError, match="row 8999 has length 7, expected 1"):
        F.rivals(many, unit(5, 8), 20.0)
    for call in (lambda: F.nearest_text_distance(5 * unit(5, 8)), lambda: F.nearest_images(5 * unit(5, 8), 2)):
        with pytest.raises(InputError, match="row 0 has length 5, expected 1"):
            call()


@pytest.mark.parametrize("scale", [0.0, -5.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["rivals", "top_rivals", "zpe", "autoclip", "transclip", "similarity_pass"])
def test_no_function_takes_a_scale_that_is_none(name, scale):
    texts = unit(10, 8).reshape(2, 5, 8) if name in ("zpe", "autoclip") else unit(5, 8)
    with pytest.raises(InputError, match="logit_scale"):
        getattr(F, name)(unit(30, 8, seed=1), texts, scale)


def test_arrays_of_another_byte_order_are_read_and_others_than_numbers_refused():
    images, texts = unit(30, 8, seed=1), unit(5, 8)
    assert torch.equal(F.predict(images.numpy().astype(">f4"), texts), F.predict(images, texts))
    for kind in (object, np.longdouble, str):
        with pytest.raises(InputError, match="predict: an array is of"):
            F.predict(images.numpy().astype(kind), texts)


def test_small_integers_are_indices_and_no_mask():
    prediction, labels = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    for kind in (torch.uint8, torch.int8, torch.int32):
        assert torch.equal(
            F.taken_for(prediction.to(kind), labels.to(kind), 3)[0], F.taken_for(prediction, labels, 3)[0]
        )


WRONG = {
    "width": (lambda: F.predict(unit(6, 8), unit(5, 4)), r"image_features \[6, 8\] and classifier \[5, 4\] do not fit"),
    "no class": (lambda: F.predict(unit(6, 8), unit(5, 8)[:0]), "classifier has no class"),
    "block": (lambda: F.rivals(unit(6, 8), unit(5, 8), 20.0, block=0), "block must be 1 or more"),
    "a class too many": (lambda: F.taken_for(torch.tensor([3]), torch.tensor([0]), 3), "prediction run from 3 to 3"),
    "no label": (lambda: F.taken_for(torch.tensor([0]), torch.tensor([-1]), 3), "labels run from -1"),
    "no class of a label": (
        lambda: F.few_per_class(torch.tensor([-1, 0]), 2),
        "labels run from -1 to 0: classes are counted",
    ),
    "lengths": (lambda: F.spearman(torch.rand(4).double(), torch.rand(5).double()), "do not fit: axis n has 4 and 5"),
    "classes": (
        lambda: F.bootstrap_interval(F.class_accuracy(ZEROS, ZEROS, 1), torch.tensor([9])),
        "classes run from 9 to 9, outside 0..0",
    ),
    "empty": (lambda: F.few_per_class(ZEROS[:0], 2), "number of labels must be 1 or more"),
    "concentration": (lambda: F.dirichlet_frequencies(5, -1.0), "concentration must be positive"),
    "frequencies": (lambda: F.with_frequencies(ZEROS + 4, torch.ones(3) / 3), "labels run from 4 to 4, outside 0..2"),
    "NaN frequencies": (lambda: F.with_frequencies(ZEROS, torch.tensor([float("nan")])), "frequencies holds nan"),
    "one class": (lambda: F.predict_with_confidence(torch.zeros(4, 1)), "expected two or more classes"),
    "NaN": (lambda: F.predict_with_confidence(torch.full((4, 2), float("nan"))), "logits 0 is NaN"),
    "percent": (lambda: F.coverage_for_risk(torch.tensor([98.0]), 0.1), "holds 98: expected fractions"),
    "no image": (lambda: F.coverage_for_risk(torch.ones(0), 0.1), "number of images must be 1 or more"),
    "negative": (lambda: F.harmonic_mean(torch.tensor([-0.5]).double()), "holds -0.5: expected fractions"),
    "blocks once": (
        lambda: F.match_prior((x for x in [torch.rand(4, 3)]), 20.0),
        "can be gone through once",
    ),
    "no round": (lambda: F.match_prior(torch.rand(4, 3), 20.0, max_rounds=0), "max_rounds must be 1 or more"),
    "seed": (lambda: F.few_per_class(ZEROS, 2, seed=-1), "seed must be 0 or more, got -1"),
    "seed of bootstrap": (lambda: F.random_half(ZEROS, seed=-3), "seed must be 0 or more, got -3"),
    "probe of one class": (lambda: F.fit_linear_probe(unit(6, 8), torch.zeros(6).long()), "images of at least two"),
    "no decay": (lambda: F.fit_linear_probe(unit(6, 8), torch.arange(6), 0.0), "weight_decay must be positive"),
    "names": (lambda: F.duplicate_classes(["a"], unit(5, 8)), "1 names, and text_features has 5 rows"),
    "one text": (lambda: F.nearest_text_distance(unit(1, 8)), "expected two or more"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_that_mean_nothing_are_refused(case):
    call, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        call()


ROWS = {
    "mean_centred": lambda x, t: F.mean_centred(x, t),
    "z_scored": lambda x, t: F.z_scored(x, t),
    "label_shift_em": lambda x, t: F.label_shift_em(x, t, 20.0),
    "zpe": lambda x, t: F.zpe(x, t[None], 20.0),
    "rivals": lambda x, t: F.rivals(x, t, 20.0),
    "nearest_images": lambda x, t: F.nearest_images(x, 2),
    "cmm_ensemble": lambda x, t: F.cmm_ensemble(x, F.Candidates.of_templates(TEXTS), t, 20.0),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("function", ROWS)
def test_a_row_that_says_nothing_is_refused_by_every_function(function, value):
    images = IMAGES.clone()
    images[7] = value
    with pytest.raises(InputError, match=r"image_features row 7 has (NaN or Inf|a zero-length embedding)"):
        ROWS[function](images, TEXTS[0])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda t: F.predict(IMAGES, t), "predict: classifier"),
        (lambda t: F.candidate_cmm(IMAGES, F.Candidates.of_templates(TEXTS), t, 20.0), "candidate_cmm: others"),
        (lambda t: F.Candidates.of_templates(t[None]), "of_templates: text_features"),
        (lambda t: F.Candidates.of_templates(TEXTS).with_descriptions({2: t}), "with_descriptions: class 2"),
    ],
)
def test_texts_are_of_unit_length_whatever_their_argument_is_called(call, name):
    texts = TEXTS[0].clone()
    texts[3] *= 9
    with pytest.raises(InputError, match=f"^{name} row .*3.* has length 9, expected 1"):
        call(texts)


def test_candidates_are_made_of_numpy_arrays_too():
    texts, extra = TEXTS.numpy(), {1: TEXTS[0, :2].numpy()}
    found = F.Candidates.of_templates(texts).with_descriptions(extra)
    expected = F.Candidates.of_templates(TEXTS).with_descriptions({1: TEXTS[0, :2]})
    assert torch.equal(found.vectors, expected.vectors)
    assert torch.equal(found.classes, expected.classes)
    with pytest.raises(InputError, match=r"of_templates: text_features has shape \[5, 8\], expected \[P, C, D\]"):
        F.Candidates.of_templates(texts[0])
    with pytest.raises(InputError, match="with_descriptions: no class 5: classes are 0 to 4"):
        expected.with_descriptions({5: TEXTS[0, :2]})


def test_a_models_own_scale_is_a_number():
    """As `model.logit_scale.exp()`, also of open_clip's `nonscalar_logit_scale`."""
    scale = torch.nn.Parameter(torch.tensor([20.0]).log()).exp()
    expected = F.similarity_pass(IMAGES, TEXTS, float(scale.detach()))
    assert torch.equal(F.similarity_pass(IMAGES, TEXTS, scale).soft_margin, expected.soft_margin)
    assert torch.equal(F.similarity_pass(IMAGES, TEXTS, scale.detach().numpy()).soft_margin, expected.soft_margin)
    found = F.fit_prior_matching(IMAGES, TEXTS[0], scale)
    assert not found.bias.requires_grad
    assert torch.equal(found.bias, F.fit_prior_matching(IMAGES, TEXTS[0], float(scale.detach())).bias)


def test_sums_of_float16_similarities_do_not_overflow():
    similarity = torch.full((1000, 400), 0.2) + 0.01 * torch.rand(1000, 400, generator=torch.Generator().manual_seed(0))
    assert not similarity.half().sum().isfinite()  # 80,000 is more than float16 holds
    found = F.match_prior(similarity.half(), 100.0)
    torch.testing.assert_close(found.value, F.match_prior(similarity.half().float(), 100.0).value, rtol=0, atol=1e-3)


def test_an_assignment_of_doubles_is_fitted_as_one_of_floats():
    candidates = F.Candidates.of_templates(TEXTS)
    assignment = F.similarity_pass(IMAGES, TEXTS[0], 20.0).prediction[0].long()
    wanted = torch.nn.functional.one_hot(assignment, 5)
    found = F.fit_candidate_weights(IMAGES, candidates, wanted.double(), 20.0)
    assert torch.equal(found, F.fit_candidate_weights(IMAGES, candidates, wanted.float(), 20.0))


@pytest.mark.parametrize("function", [F.class_mean_margin, F.cmm_by_labels])
def test_features_that_a_pass_was_not_made_from_are_refused(function):
    passed, labels = F.similarity_pass(IMAGES, TEXTS, 20.0), [LABELS] if function is F.cmm_by_labels else []
    assert function(passed, IMAGES, TEXTS, *labels).shape == (3, 5)
    for texts, p in ((TEXTS[:2], 2), (unit(4, 5, 8), 4), (TEXTS[0], 1)):
        with pytest.raises(InputError, match=rf"the pass is of \[3, 60, 5\] .* the features of \[{p}, 60, 5\]"):
            function(passed, IMAGES, texts, *labels)
    alone = F.similarity_pass(IMAGES, TEXTS[0], 20.0)
    assert function(alone, IMAGES, TEXTS[0], *labels).equal(function(alone, IMAGES, TEXTS[:1], *labels))


def test_a_fallback_has_the_form_of_the_score():
    passed = F.similarity_pass(IMAGES, TEXTS[0], 20.0)
    pseudo, soft = (F.class_matching_margin(passed, kind) for kind in ("pseudo", "soft"))
    pseudo[0, 2] = float("nan")
    assert F.rank_classes(pseudo, soft).equal(F.rank_classes(pseudo[0], soft[0]))
    assert F.rank_classes(pseudo, soft)[0] == 2
    with pytest.raises(InputError, match="neither a score nor a fallback"):
        F.rank_classes(pseudo)
