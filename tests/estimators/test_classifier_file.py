"""A classifier's file: what is saved comes back to the bit, and parts that disagree are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal
from safetensors import safe_open
from safetensors.torch import save_file

from cmmlib import CMMEnsemble, InputError, PriorMatching, Prototypes, load_classifier
from cmmlib.estimators.classifier import Classifier, plain
from cmmlib.estimators.classifier_file import KEY, save_classifier
from cmmlib.storage.cache import save_tensors

C, D = 5, 8
NAMES = ["cat", "dog", "fox \N{FOX FACE}", 'a "quoted", name', "cat"]
RNG = np.random.default_rng(0)
IMAGES, TEXTS, NEW = (RNG.normal(size=shape).astype(np.float32) for shape in ((90, D), (2, C, D), (40, D)))


def saved(path: Path, kind=PriorMatching, **provenance):
    estimator = kind(20.0).fit(IMAGES, TEXTS)
    estimator.save(path, NAMES, **provenance)
    return estimator


@pytest.mark.parametrize("kind", [CMMEnsemble, PriorMatching, Prototypes])
def test_what_is_loaded_predicts_to_the_bit(kind, tmp_path):
    estimator = saved(tmp_path / "x.safetensors", kind)
    loaded = load_classifier(str(tmp_path / "x.safetensors"))
    for use in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(loaded, use)(NEW), getattr(estimator, use)(NEW))
    assert (loaded.kind, loaded.class_names, loaded.suspects) == (kind.__name__, NAMES, estimator.suspects)
    assert loaded.correction.converged == estimator.classifier.correction.converged
    save_classifier(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "x.safetensors").read_bytes()


def test_the_file_has_the_documented_parts(tmp_path):
    document = (Path(__file__).parents[2] / "book" / "results.md").read_text(encoding="utf-8")
    document = document.partition("## classifiers/\n")[2].partition("\n## ")[0]
    saved(tmp_path / "x.safetensors", Prototypes)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        keys, metadata = list(file.keys()), file.metadata()
        assert file.get_tensor("text_features").shape == file.get_tensor("prototypes").shape == (C, D)
        assert file.get_tensor("bias").shape == (C,)
    assert sorted(metadata) == [KEY, "sha256"]
    header = json.loads(metadata[KEY])
    for name in (*keys, *metadata, *header, *header["provenance"]):
        assert f"`{name}`" in document, name


def test_provenance_has_public_names_only(tmp_path):
    path = tmp_path / "x.safetensors"
    made = {"backbone": "local-dir:/home/me/tiny", "pretrained": "/secret/weights.pt", "data": "folder:/home/me/pets"}
    saved(path, **made, weights="ab12")
    assert b"/home" not in path.read_bytes()
    assert b"secret" not in path.read_bytes()
    found = load_classifier(path).provenance
    assert (found.backbone, found.pretrained, found.data) == ("local-dir:tiny", "weights.pt", "folder:pets")
    assert (found.weights, found.run) == ("ab12", None)
    saved(path, backbone="hf-hub:owner/name")
    assert load_classifier(path).provenance.backbone == "hf-hub:owner/name"
    assert "unknown labels: provenance is backbone" in refusal(lambda: saved(path, labels="y"))


def test_a_classifier_without_names_is_saved_without(tmp_path):
    PriorMatching(20.0).fit(IMAGES, TEXTS).save(tmp_path / "x.safetensors")
    assert load_classifier(tmp_path / "x.safetensors").class_names is None


def test_an_older_classifier_is_replaced_and_any_other_file_is_kept(tmp_path):
    path = tmp_path / "x.safetensors"
    saved(path)
    saved(path, Prototypes)
    assert load_classifier(path).kind == "Prototypes"
    for content in (b"notes", b"", path.read_bytes()[:-1]):
        path.write_bytes(content)
        assert "x.safetensors exists and is no classifier" in refusal(saved, path)
        assert path.read_bytes() == content


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    estimator = PriorMatching(20.0).fit(IMAGES, TEXTS)
    assert "3 class names for 5 classes" in refusal(estimator.save, tmp_path / "x.safetensors", NAMES[:3])
    assert "exists and is no classifier" in refusal(estimator.save, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        estimator.save(tmp_path / "file" / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of a scale beyond all models
@pytest.mark.parametrize("scale", [2e4, 1e-5])
def test_what_could_not_be_loaded_replaces_nothing(scale, tmp_path):
    path = tmp_path / "mine.safetensors"
    saved(path)
    before = path.read_bytes()
    said = refusal(PriorMatching(scale).fit(IMAGES, TEXTS).save, path, NAMES)
    assert f"mine.safetensors: logit_scale is {scale:.3g}, expected 0.0001 to 10000" in said
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"a", "b", "c"}, "class_names is a set: give a list"),
        ({0: "a", 1: "b", 2: "c"}, "class_names is a dict: give a list"),
        (iter("abc"), "give a list with a name for each class, in their order"),
        (["a", 2.5, "c"], "class name 2.5 is of float: give texts"),
        (["a", None, "c"], "class name None is of NoneType: give texts"),
    ],
)
def test_names_without_an_order_and_what_is_no_name_are_refused(names, said, tmp_path):
    with pytest.raises(InputError, match=re.escape(said)):
        PriorMatching(20.0).fit(IMAGES, TEXTS).save(tmp_path / "x.safetensors", names)
    assert not list(tmp_path.iterdir())


def test_a_path_that_no_system_has_and_a_folder_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is no path of a file"):
        PriorMatching(20.0).fit(IMAGES, TEXTS).save("x\0.safetensors")
    with pytest.raises(InputError, match=r"^\. exists and is no classifier"):
        PriorMatching(20.0).fit(IMAGES, TEXTS).save(".")


def test_names_of_bytes_are_texts_and_others_are_refused(tmp_path):
    estimator = PriorMatching(20.0).fit(IMAGES, TEXTS)
    estimator.save(tmp_path / "x.safetensors", np.array([name.encode() for name in NAMES]))
    assert load_classifier(tmp_path / "x.safetensors").class_names == NAMES
    for odd in (b"caf\xe9", "caf\udce9"):
        said = refusal(estimator.save, tmp_path / "y.safetensors", [*NAMES[:-1], odd])
        assert said == f"save: class name {odd!r} is not UTF-8: give it in letters"
    assert not (tmp_path / "y.safetensors").exists()


# ---------------------------------------------------------------- refusals

TENSORS = {"text_features": torch.full((C, D), D**-0.5), "bias": torch.zeros(C)}
HEADER = {
    "format": 1,
    "kind": "base",
    "logit_scale": 20.0,
    "class_names": NAMES,
    "suspects": [1],
    "converged": True,
    "rounds": 0,
    "provenance": {},
}


def without(header: dict, key: str) -> dict:
    return {name: value for name, value in header.items() if name != key}


DISAGREE = {
    "no bias": (without(TENSORS, "bias"), HEADER, "holds text_features [5, 8]: expected text_features, bias"),
    "no tensor": ({}, HEADER, "holds no tensor: expected text_features, bias"),
    "one more": (
        {**TENSORS, "labels": torch.ones(3)},
        HEADER,
        "labels [3], text_features [5, 8]: expected text_features, bias",
    ),
    "bias of others": ({**TENSORS, "bias": torch.zeros(4)}, HEADER, "bias [4], text_features [5, 8]; expected"),
    "wide bias": ({**TENSORS, "bias": torch.zeros(C, 1)}, HEADER, "shapes disagree"),
    "bare bias": ({**TENSORS, "bias": torch.tensor(0.0)}, HEADER, "shapes disagree"),
    "no width": ({**TENSORS, "text_features": torch.ones(C, 0)}, HEADER, "shapes disagree"),
    "prompts": ({**TENSORS, "text_features": torch.ones(1, C, D)}, HEADER, "shapes disagree"),
    "prototypes": (
        {**TENSORS, "prototypes": torch.ones(C, 3)},
        HEADER,
        "prototypes [5, 3], text_features [5, 8]; expected",
    ),
    "one class": ({"text_features": torch.ones(1, D), "bias": torch.zeros(1)}, HEADER, "two or more classes"),
    "names": (TENSORS, {**HEADER, "class_names": NAMES[:4]}, "4 class names for 5 classes"),
    "suspects": (TENSORS, {**HEADER, "suspects": [5]}, "suspects [5] are not among the 5 classes"),
    "NaN": ({**TENSORS, "bias": torch.full((C,), torch.nan)}, HEADER, "NaN, Inf, no float"),
    "Inf": ({**TENSORS, "prototypes": torch.full((C, D), torch.inf)}, HEADER, "NaN, Inf, no float"),
    "integers": ({**TENSORS, "text_features": torch.ones(C, D, dtype=torch.long)}, HEADER, "no float"),
    "a zero text": (
        {**TENSORS, "text_features": torch.eye(C, D).diff(dim=0, prepend=torch.eye(1, D))},
        HEADER,
        "row 0",
    ),
    "a huge scale": (TENSORS, {**HEADER, "logit_scale": 1e39}, "logit_scale is 1e+39, expected 0.0001 to 10000: fit"),
    "a large scale": (TENSORS, {**HEADER, "logit_scale": 1.1e4}, "logit_scale is 1.1e+04, expected"),
    "a tiny scale": (TENSORS, {**HEADER, "logit_scale": 1e-50}, "logit_scale is 1e-50, expected"),
    "bias of float64": (
        {**TENSORS, "bias": torch.full((C,), 1e300, dtype=torch.float64)},
        HEADER,
        "Inf, no float or none of float32",
    ),
    "huge bias": ({**TENSORS, "bias": torch.full((C,), -3e38)}, HEADER, "bias holds numbers of size 3e+38, expected"),
    "large bias": (
        {**TENSORS, "bias": torch.full((C,), 1.1e6)},
        HEADER,
        "bias holds numbers of size 1.1e+06",
    ),
    "huge prototypes": ({**TENSORS, "prototypes": torch.full((C, D), 1e30)}, HEADER, "prototypes holds numbers"),
    "huge texts": (
        {**TENSORS, "text_features": torch.full((C, D), 1e10)},
        HEADER,
        "row 0 has length 2.83e+10",
    ),
    "a later format": (TENSORS, {**HEADER, "format": 2}, "format: input should be 1, as this cmmlib reads"),
    "no scale": (TENSORS, without(HEADER, "logit_scale"), "logit_scale: field required"),
    "negative scale": (TENSORS, {**HEADER, "logit_scale": -1}, "logit_scale: input should be greater than 0"),
    "endless scale": (TENSORS, {**HEADER, "logit_scale": float("inf")}, "logit_scale"),
    "scale in words": (TENSORS, {**HEADER, "logit_scale": "20"}, "logit_scale: input should be a valid number"),
    "one name": (TENSORS, {**HEADER, "class_names": "cat"}, "class_names: input should be a valid"),
    "another field": (TENSORS, {**HEADER, "labels": [1]}, "labels: extra inputs are not permitted"),
    "no JSON": (TENSORS, None, "invalid json"),
    "empty name": (TENSORS, {**HEADER, "class_names": ["\u200b ", *NAMES[1:]]}, "a class name is empty"),
    "long texts": (
        {**TENSORS, "text_features": 50 * TENSORS["text_features"]},
        HEADER,
        "row 0 has length 50",
    ),
}


@pytest.mark.parametrize("what", DISAGREE)
def test_parts_that_disagree_are_named_in_one_line(what, tmp_path):
    tensors, header, said = DISAGREE[what]
    save_tensors(tmp_path / "x.safetensors", tensors, {KEY: "{" if header is None else json.dumps(header)})
    line = refusal(load_classifier, tmp_path / "x.safetensors")
    assert said in line
    assert "x.safetensors" in line


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    twice = json.dumps(HEADER)[:-1] + ', "kind": "other"}'
    save_tensors(tmp_path / "x.safetensors", TENSORS, {KEY: twice})
    assert "is no classifier of cmmlib, or a damaged one" in refusal(load_classifier, tmp_path / "x.safetensors")


def test_a_tensor_that_is_there_twice_is_refused(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, {KEY: json.dumps(HEADER)})
    whole = (tmp_path / "x.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size].decode().rstrip()
    twice = header[:-1] + ',"bias":' + json.dumps(json.loads(header)["bias"]) + "}"
    (tmp_path / "x.safetensors").write_bytes(len(twice).to_bytes(8, "little") + twice.encode() + whole[8 + size :])
    assert "is no classifier of cmmlib, or a damaged one" in refusal(load_classifier, tmp_path / "x.safetensors")


def test_numbers_of_eight_bits_are_read(tmp_path):
    tensors = {**TENSORS, "bias": torch.arange(C).to(torch.float8_e4m3fn)}
    save_tensors(tmp_path / "x.safetensors", tensors, {KEY: json.dumps(HEADER)})
    assert load_classifier(tmp_path / "x.safetensors").predict(np.ones((1, D), np.float32)).tolist() == [C - 1]


def test_whole_parts_are_read(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, {KEY: json.dumps(HEADER)})
    assert load_classifier(tmp_path / "x.safetensors").predict(torch.ones(1, D)).tolist() == [0]


def test_large_numbers_within_the_bounds_give_probabilities(tmp_path):
    bias = torch.linspace(-1e6, 1e6, C, dtype=torch.float64)
    header = {**HEADER, "logit_scale": 1e4}
    save_tensors(tmp_path / "x.safetensors", {**TENSORS, "bias": bias}, {KEY: json.dumps(header)})
    q = load_classifier(tmp_path / "x.safetensors").predict_proba(torch.ones(1, D))
    assert torch.allclose(q.sum(1), torch.ones(1))


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    assert "cannot read classifier" in refusal(load_classifier, path)
    assert "is a directory" in refusal(load_classifier, tmp_path)
    saved(path)
    whole = path.read_bytes()
    middle = len(whole) - 40
    for content in (b"", b"text", whole[:-1], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        path.write_bytes(content)
        assert "x.safetensors is no classifier of cmmlib, or a damaged one" in refusal(load_classifier, path)
    save_file(TENSORS, path)
    assert "is no classifier of cmmlib" in refusal(load_classifier, path)
    save_tensors(path, TENSORS)
    assert "is no classifier of cmmlib" in refusal(load_classifier, path)


def test_a_loaded_classifier_refuses_other_widths(tmp_path):
    saved(tmp_path / "x.safetensors")
    found = load_classifier(tmp_path / "x.safetensors")
    assert "width 3 and the classifier has 8" in refusal(found.predict, NEW[:, :3])
    assert isinstance(found, Classifier)


def test_texts_alone_are_a_classifier(tmp_path):
    texts = torch.nn.functional.normalize(torch.from_numpy(TEXTS[0]), dim=1)
    save_classifier(Classifier("base", plain(texts, 20.0), []), tmp_path / "x.safetensors")
    images = torch.nn.functional.normalize(torch.from_numpy(NEW), dim=1)
    assert load_classifier(tmp_path / "x.safetensors").predict(images).equal((images @ texts.T).argmax(1))
