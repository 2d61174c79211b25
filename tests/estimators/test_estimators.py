"""The estimators, against the functions they call: any kind of array, kept texts, own suspects, and never a label."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from synthetic_embeddings import CLASSES, PROMPTS, WIDTH, synthetic_arrays

import cmmlib
from cmmlib import CMMEnsemble, PriorMatching, Prototypes
from cmmlib import estimators as package
from cmmlib import functional as F

SCALE = 50.0
ESTIMATORS = [CMMEnsemble, PriorMatching, Prototypes]
small = settings(deadline=None, derandomize=True, max_examples=20)


def unit(x: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(x.astype(np.float32)), dim=-1)


ARRAYS = synthetic_arrays()
IMAGES, TEXTS = unit(ARRAYS["image_features"][:180]), unit(ARRAYS["text_features"])  # [N, D], [P, C, D]


def fitted(kind, *, images=IMAGES, texts=TEXTS, **parameters):
    return kind(SCALE, **parameters).fit(images, texts)


def normalized(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def described(*sizes: tuple[int, int]) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {c: TEXTS[0, c] + 0.1 * torch.randn(k, WIDTH, generator=generator) for c, k in sizes}


# ---------------------------------------------------------------- what the functions give


@pytest.mark.parametrize(
    "parameters", [{}, {"temperature": 0.1, "cut": None, "balanced": False, "rounds": 1}, {"assignment": "retrieval"}]
)
@pytest.mark.parametrize("descriptions", [{}, described((1, 3), (5, 1))], ids=["names", "descriptions"])
def test_the_ensemble_is_that_of_the_functions(parameters, descriptions):
    x, texts = normalized(IMAGES), normalized(TEXTS)
    candidates = F.Candidates.of_templates(texts)
    candidates = candidates.with_descriptions({c: normalized(v) for c, v in descriptions.items()})
    expected = F.cmm_ensemble(x, candidates, F.uniform_mean(texts), SCALE, **parameters)
    found = CMMEnsemble(SCALE, **parameters).fit(IMAGES, TEXTS, descriptions)
    assert found.text_features.equal(expected)
    assert found.bias.eq(0).all()
    assert found.predict(IMAGES).equal(F.predict(x, expected))
    torch.testing.assert_close(found.predict_proba(IMAGES), (SCALE * x @ expected.T).softmax(1), rtol=0, atol=1e-5)


def test_one_prompt_alone_stays_as_it_is():
    found = CMMEnsemble(SCALE).fit(IMAGES, TEXTS[0])
    torch.testing.assert_close(found.text_features, TEXTS[0], rtol=0, atol=1e-6)
    assert (
        found.suspects
        == F.rank_classes(F.class_matching_margin(F.similarity_pass(IMAGES, TEXTS[:1], SCALE))[0])[:3].tolist()
    )


@pytest.mark.parametrize("prior", [None, np.arange(1.0, CLASSES + 1), list(range(1, CLASSES + 1))])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("kind", "fit"), [(PriorMatching, F.fit_prior_matching), (Prototypes, F.fit_prototypes)])
def test_a_correction_is_that_of_the_functions(kind, fit, prior, strength):
    x, texts = normalized(IMAGES), normalized(TEXTS[0])
    frequencies = None if prior is None else torch.as_tensor(prior, dtype=torch.float64)
    expected = fit(x, texts, SCALE, frequencies, strength)
    found = kind(SCALE, prior=prior, strength=strength).fit(IMAGES, TEXTS[0])
    assert found.bias.equal(expected.bias)
    assert found.text_features.equal(texts)
    assert found.predict(IMAGES).equal(expected.predict(x))
    assert found.decision_function(IMAGES).equal(expected.logits(x))
    assert found.predict_proba(IMAGES).equal(expected.logits(x).softmax(1))


def test_prototypes_pass_their_parameters_on():
    expected = F.fit_prototypes(
        normalized(IMAGES), normalized(TEXTS[0]), SCALE, text_weight=3.0, image_weight=1.0, rounds=2
    )
    with pytest.warns(ConvergenceWarning):
        found = Prototypes(SCALE, text_weight=3.0, image_weight=1.0, rounds=2).fit(IMAGES, TEXTS[0])
    assert found.classifier.correction.prototypes.equal(expected.prototypes)


@pytest.mark.parametrize("kind", [PriorMatching, Prototypes])
def test_several_prompts_count_as_their_uniform_mean(kind):
    several, mean = fitted(kind), fitted(kind, texts=F.uniform_mean(normalized(TEXTS)))
    torch.testing.assert_close(several.text_features, mean.text_features, rtol=0, atol=1e-6)
    assert several.predict(IMAGES).equal(mean.predict(IMAGES))


# ---------------------------------------------------------------- any kind of array


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_numpy_and_torch_of_any_float_give_the_same(kind, dtype):
    images, texts = (x.numpy().astype(np.float16) for x in (IMAGES, TEXTS))
    reference = fitted(kind, images=torch.from_numpy(images).float(), texts=torch.from_numpy(texts).float())
    found = fitted(kind, images=images.astype(dtype), texts=texts.astype(dtype))
    expected = reference.predict(torch.from_numpy(images).float())
    proba = found.predict_proba(images.astype(dtype))
    assert all(isinstance(x, np.ndarray) for x in (found.text_features, found.bias, proba))
    assert (proba.dtype, proba.shape) == (np.float32, (len(images), CLASSES))
    np.testing.assert_array_equal(found.predict(images.astype(dtype)), expected.numpy())
    np.testing.assert_array_equal(found.text_features, reference.text_features.numpy())
    assert found.predict(torch.from_numpy(images)).equal(expected)  # the kind of what is asked about decides
    assert found.suspects == reference.suspects


def test_bfloat16_and_gradients_are_taken():
    images, scale = torch.nn.Parameter(IMAGES.bfloat16()), torch.nn.Parameter(torch.tensor(SCALE))
    found = PriorMatching(scale).fit(images, TEXTS[0].bfloat16())
    assert found.predict(images).equal(
        fitted(PriorMatching, images=images.data, texts=TEXTS[0].bfloat16()).predict(images)
    )
    assert not found.predict_proba(images).requires_grad


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_lengths_of_embeddings_do_not_matter(kind):
    lengths = 2.0 ** torch.randint(-9, 9, (len(IMAGES), 1), generator=torch.Generator().manual_seed(0))
    found, raw = fitted(kind), fitted(kind, images=lengths * IMAGES, texts=4.0 * TEXTS)
    assert raw.predict(8.0 * IMAGES).equal(found.predict(IMAGES))
    assert raw.bias.equal(found.bias)


def test_arrays_that_torch_dislikes_are_taken_and_left_as_they_are():
    images, texts = IMAGES.numpy()[::-1].copy()[::-1], TEXTS[0].numpy().copy()
    texts.flags.writeable = images.flags.writeable = False
    before = images.copy()
    found = fitted(PriorMatching, images=images, texts=texts)
    np.testing.assert_array_equal(found.predict(images), fitted(PriorMatching, texts=TEXTS[0]).predict(IMAGES).numpy())
    np.testing.assert_array_equal(images, before)


@small
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 9), st.integers(1, 3), st.sampled_from(ESTIMATORS))
def test_images_are_classified_one_by_one_as_all_together(seed, n, n_classes, n_prompts, kind):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 6, generator=generator)
    texts = torch.randn(n_prompts, n_classes, 6, generator=generator)
    found = kind(10.0).fit(images, texts)
    whole, order = found.predict(images), torch.randperm(n, generator=generator)
    assert found.predict(images[order]).equal(whole[order])
    assert torch.cat([found.predict(image[None]) for image in images]).equal(whole)
    torch.testing.assert_close(found.predict_proba(images).sum(1), torch.ones(n))
    assert found.decision_function(images).argmax(1).equal(whole)
    assert len(found.suspects) == len(set(found.suspects)) == max(1, n_classes // 4)


def test_no_image_gives_no_prediction():
    found = fitted(PriorMatching)
    assert found.predict(IMAGES[:0]).shape == (0,)
    assert found.predict_proba(IMAGES[:0].numpy()).shape == (0, CLASSES)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_copies_of_a_class_tie_and_the_first_wins(kind):
    texts = TEXTS.clone()
    texts[:, 7] = texts[:, 2]
    assert not fitted(kind, texts=texts).predict(IMAGES).eq(7).any()


# ---------------------------------------------------------------- suspects


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_suspects_have_the_lowest_cmm_of_the_fitted_logits(kind):
    found = fitted(kind, n_suspects=CLASSES)
    logits = found.decision_function(IMAGES).double().numpy()
    q = np.exp(logits - logits.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    margin = np.stack([logits[:, c] - np.delete(logits, c, 1).max(1) for c in range(CLASSES)], 1)
    cmm = (q * margin).sum(0) / q.sum(0)
    np.testing.assert_allclose(np.sort(cmm), cmm[found.suspects], atol=1e-3)
    assert fitted(kind).suspects == found.suspects[: CLASSES // 4]


def test_suspects_of_the_synthetic_embeddings_are_its_bad_classes():
    prediction = fitted(CMMEnsemble).predict(IMAGES).numpy()
    accuracy = [np.mean(prediction[ARRAYS["labels"][:180] == c] == c) for c in range(CLASSES)]
    assert set(np.argsort(accuracy)[:2]) <= set(fitted(CMMEnsemble, n_suspects=5).suspects)


# ---------------------------------------------------------------- scikit-learn's way


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_nothing_works_before_fit(kind):
    estimator = kind()
    for use in (
        lambda: estimator.predict(IMAGES),
        lambda: estimator.predict_proba(IMAGES),
        lambda: estimator.decision_function(IMAGES),
        lambda: estimator.save("never.safetensors"),
        lambda: estimator.text_features,
        lambda: estimator.bias,
        lambda: estimator.suspects,
        lambda: estimator.classifier,
    ):
        with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted yet"):
            use()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_parameters_are_cloned_shown_and_set(kind):
    estimator = fitted(kind, n_suspects=2)
    assert estimator.get_params() == {**kind(SCALE).get_params(), "n_suspects": 2}
    twin = clone(estimator)
    assert not hasattr(twin, "text_features")
    assert repr(twin) == repr(estimator) == f"{kind.__name__}(logit_scale=50.0, n_suspects=2)"
    assert len(twin.set_params(n_suspects=4).fit(IMAGES, TEXTS).suspects) == 4


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_fitted_estimator_is_pickled_without_its_images(kind):
    many = IMAGES.repeat(20, 1)
    content = pickle.dumps(fitted(kind, images=many.numpy(), texts=TEXTS.numpy()))
    assert len(content) < many.nbytes / 10
    assert isinstance(pickle.loads(content).predict(IMAGES.numpy()), np.ndarray)  # noqa: S301


def test_labels_cannot_reach_an_estimator():
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    own = {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in inspect.getmembers(module)
        if getattr(value, "__module__", None) == module.__name__
    }
    methods = {f"{n}.{m}": f for n, c in own.items() if inspect.isclass(c) for m, f in inspect.getmembers(c, callable)}
    taken = {
        name: set(inspect.signature(f).parameters)
        for name, f in {**own, **methods}.items()
        if inspect.isfunction(f) and f.__module__.startswith("cmmlib")
    }
    assert len(taken) > 30
    assert {name for name, words in taken.items() if words & {"y", "labels", "targets", "target", "y_true"}} == set()
    assert set(inspect.signature(CMMEnsemble.fit).parameters) == {
        *("self", "image_features", "text_features", "descriptions")
    }
    for kind in (PriorMatching, Prototypes):
        assert list(inspect.signature(kind.fit).parameters) == ["self", "image_features", "text_features"]


def test_the_package_is_imported_without_torch_and_has_its_public_names():
    code = "import cmmlib, sys; print(sorted({'torch', 'sklearn'} & set(sys.modules)), *cmmlib.__all__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("[] CMMEnsemble")
    assert all(getattr(cmmlib, name) for name in cmmlib.__all__)
    assert (Path(cmmlib.__file__).parent / "py.typed").is_file()


# ---------------------------------------------------------------- refusals


def bad_row(x: torch.Tensor, row: int | tuple[int, ...], value: float) -> torch.Tensor:
    x = x.clone()
    x[row] = value
    return x


REFUSED = {
    "a list": (IMAGES.tolist(), TEXTS, "image_features is list: expected a numpy array or torch tensor"),
    "integers": (IMAGES.int(), TEXTS, "image_features is int32"),
    "numpy integers": (IMAGES.numpy(), np.ones((3, WIDTH), int), "text_features is int64"),
    "strings": (np.array(["a"]), TEXTS, "image_features is <U1"),
    "long doubles": (IMAGES.numpy().astype(np.longdouble), TEXTS, "image_features is float128"),
    "one image, flat": (IMAGES[0], TEXTS, "image_features has shape [64], expected [N, D]"),
    "texts, flat": (IMAGES, TEXTS[0, 0], "text_features has shape [64], expected [C, D] or [P, C, D]"),
    "another width": (IMAGES, TEXTS[..., :5], "[180, 64] and text_features [2, 12, 5] differ in width"),
    "no image": (IMAGES[:0], TEXTS, "need at least one image, one prompt and two classes"),
    "no prompt": (IMAGES, TEXTS[:0], "need at least one image, one prompt and two classes"),
    "one class": (IMAGES, TEXTS[:, :1], "need at least one image, one prompt and two classes"),
    "a zero row": (bad_row(IMAGES, 4, 0.0), TEXTS, "image_features row 4 has a zero-length embedding"),
    "NaN": (IMAGES, bad_row(TEXTS, (1, 3), np.nan), "text_features row (1, 3) has NaN or Inf"),
    "too large for float32": (
        bad_row(IMAGES.double(), 2, 1e300),
        TEXTS,
        "image_features row 2 has values up to 1e+300, too large",
    ),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("what", REFUSED)
def test_bad_embeddings_are_refused_in_one_line(kind, what):
    images, texts, said = REFUSED[what]
    assert said in refusal(kind(SCALE).fit, images, texts)


PARAMETERS = [
    *((kind, {"logit_scale": scale}, "logit_scale must be one positive") for kind in ESTIMATORS for scale in (0, -1.0)),
    *((kind, {"n_suspects": n}, "n_suspects must be from 1 to the 12") for kind in ESTIMATORS for n in (0, 13)),
    (CMMEnsemble, {"logit_scale": "high"}, "logit_scale must be one positive, finite number, got 'high'"),
    (CMMEnsemble, {"logit_scale": torch.ones(2)}, "logit_scale must be one positive"),
    (CMMEnsemble, {"logit_scale": float("nan")}, "logit_scale must be one positive"),
    (CMMEnsemble, {"temperature": 0.0}, "temperature must be positive"),
    (CMMEnsemble, {"cut": -1.0}, "cut 0 or more"),
    (CMMEnsemble, {"rounds": 0}, "rounds must be 1 or more"),
    (PriorMatching, {"strength": 2.0}, "strength in [0, 1]"),
    (PriorMatching, {"prior": [0.5, 0.5]}, "prior: 12 positive frequencies are needed"),
    (PriorMatching, {"prior": np.zeros(CLASSES)}, "prior: 12 positive frequencies are needed"),
    (PriorMatching, {"prior": "uniform"}, "prior: 12 positive frequencies are needed"),
    (Prototypes, {"prior": np.ones((CLASSES, 1))}, "prior: 12 positive frequencies are needed"),
    (Prototypes, {"rounds": 0}, "rounds and weights must be positive"),
    (Prototypes, {"image_weight": 0.0}, "rounds and weights must be positive"),
    *((kind, {"logit_scale": scale}, "logit_scale must be") for kind in ESTIMATORS for scale in ("20", True)),
    *((kind, {"n_suspects": n}, "n_suspects must be a whole number") for kind in ESTIMATORS for n in (2.0, True, "2")),
    (CMMEnsemble, {"balanced": "no"}, "balanced must be True or False, got 'no'"),
    (CMMEnsemble, {"balanced": 1}, "balanced must be True or False, got 1"),
    *((CMMEnsemble, {name: "1"}, f"{name} must be a ") for name in ("temperature", "cut", "rounds")),
    (PriorMatching, {"strength": True}, "strength must be a number, got True"),
    (PriorMatching, {"prior": [True] * CLASSES}, "prior: 12 positive frequencies are needed"),
    (PriorMatching, {"prior": np.ma.masked_array(np.ones(CLASSES))}, "prior: a masked array would lose its mask"),
    (Prototypes, {"rounds": 1.5}, "rounds must be a whole number, got 1.5"),
    *((Prototypes, {name: "1"}, f"{name} must be a ") for name in ("text_weight", "image_weight", "rounds")),
]


@pytest.mark.parametrize(("kind", "parameters", "said"), PARAMETERS)
def test_bad_parameters_are_refused_when_it_is_fitted(kind, parameters, said):
    assert said in refusal(kind(**{"logit_scale": SCALE, **parameters}).fit, IMAGES, TEXTS)


@pytest.mark.parametrize(
    ("descriptions", "said"),
    [
        ({CLASSES: TEXTS[0]}, "no class 12: keys are class indices, 0 to 11"),
        ({-1: TEXTS[0]}, "no class -1"),
        ({"cat": TEXTS[0]}, "no class 'cat'"),
        ({3: TEXTS[0, 0]}, "descriptions[3] has shape [64], expected [K, D]"),
        ({3: TEXTS[0, :, :9]}, "descriptions[3] has width 9 and text_features 64"),
        ({3: bad_row(TEXTS[0], 1, np.inf)}, "descriptions[3] row 1 has NaN or Inf"),
        ({3: ["a cat"]}, "descriptions[3] is list"),
        ([TEXTS[0]], "descriptions is list: give a dictionary, class index -> [K, D]"),
    ],
)
def test_bad_descriptions_are_refused(descriptions, said):
    assert said in refusal(CMMEnsemble(SCALE).fit, IMAGES, TEXTS, descriptions)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_another_width_is_refused_with_both(kind):
    found = fitted(kind)
    for use in (found.predict, found.predict_proba, found.decision_function):
        assert "width 5 and the classifier has 64" in refusal(use, IMAGES[:, :5])


# ---------------------------------------------------------------- the front page


def test_the_readme_finds_repairs_and_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = [f"synthetic class {c}" for c in range(CLASSES)]
    known = {"image_features": IMAGES.numpy(), "text_features": TEXTS.numpy(), "class_names": names}
    exec(code, known | {"new_image_features": IMAGES[:3].numpy()})
    said = capsys.readouterr().out.splitlines()
    ensemble = CMMEnsemble(100.0).fit(IMAGES, TEXTS)
    assert said[0] == str([names[c] for c in ensemble.suspects])
    loaded = cmmlib.load_classifier("classifier.safetensors")
    assert said[1] == str(loaded.predict(IMAGES[:3].numpy()))
    assert loaded.class_names == names
    assert PROMPTS > 1


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_masked_array_is_refused(kind):
    masked = np.ma.masked_array(IMAGES, mask=np.zeros(IMAGES.shape, dtype=bool))
    assert "image_features: a masked array would lose its mask" in refusal(kind(SCALE).fit, masked, TEXTS)
    fitted = kind(SCALE).fit(IMAGES, TEXTS)
    assert "image_features: a masked array would lose its mask" in refusal(fitted.predict, masked)


def test_names_and_places_of_a_file_are_what_they_should_be(tmp_path):
    fitted = PriorMatching(SCALE).fit(IMAGES, TEXTS)
    assert "class_names is one text" in refusal(fitted.save, tmp_path / "a.safetensors", "abcdefghijkl")
    assert "0 is no path of a file" in refusal(fitted.save, 0)
    assert "0 is no path of a file" in refusal(cmmlib.load_classifier, 0)
    assert not list(tmp_path.iterdir())


def test_what_has_not_settled_is_told_and_can_be_asked():
    settled = fitted(PriorMatching)
    assert settled.converged
    assert settled.n_iter_ == settled.classifier.correction.rounds > 0
    with pytest.warns(ConvergenceWarning, match="Prototypes has not settled after 1 rounds; its result can be used"):
        hasty = fitted(Prototypes, rounds=1)
    assert (hasty.converged, hasty.n_iter_) == (False, 1)
