"""Readers of what comes from outside, against damaged and foreign content: they return, or raise `InputError`.

Every reader gets valid files that were cut short, had bytes changed or were replaced by noise, and where it reads JSON,
other values in the place of the right ones. `CMM_FUZZ=2000` tries as many examples a test.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_clip
from finished_runs import write_chapter, write_embeddings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from cmmlib.data.embeddings import load_embeddings, load_image_embeddings
from cmmlib.data.image_files import decode
from cmmlib.data.load import load_dataset
from cmmlib.data.subsets import read_classes
from cmmlib.errors import InputError, visible
from cmmlib.estimators.classifier import Classifier, Provenance
from cmmlib.estimators.classifier_file import load_classifier, save_classifier
from cmmlib.evaluation.reference import verify
from cmmlib.evaluation.run_comparison import of_folder
from cmmlib.functional.prior_matching import Correction
from cmmlib.models.backbones import load_backbone
from cmmlib.models.embed_texts import encode_texts
from cmmlib.report.book import _quoted
from cmmlib.report.chapters import read_notebook
from cmmlib.storage.cache import digest, file_digests, load_tensors, read_memo, save_tensors
from cmmlib.study.run_files import read_run
from cmmlib.texts.templates import load_templates
from cmmlib.texts.transcripts import Record, load_transcript

EXAMPLES = int(os.environ.get("CMM_FUZZ", "0"))
KEEP = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def fuzzed(n: int):
    """Settings of a test: so many examples, or those that CMM_FUZZ asks for."""
    return settings(max_examples=EXAMPLES or n, deadline=None, suppress_health_check=KEEP, database=None)


def returns_or_refuses(read: Callable[..., Any], *arguments: Any) -> None:
    """Whatever else a reader raises, the test fails with; what a warning would be is shown to nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(*arguments)
        except InputError as error:
            message = str(error)
            assert message
            assert "\n" not in visible(message) == message, message
            assert len(message) < 1000, message
            assert "weights_only" not in message, message  # torch's advice to trust a file


# ---------------------------------------------------------------- valid files


@cache
def example_image(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@cache
def example_shard() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(3):
            for name, content in (
                (f"{i}.png", example_image("PNG")),
                (f"{i}.cls", b"%d" % (i % 2)),
                (f"{i}.json", b"{}"),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def write_shards(root: Path) -> None:
    (root / "test").mkdir(parents=True)
    (root / "test" / "nshards.txt").write_text("1\n")
    (root / "test" / "0.tar").write_bytes(example_shard())
    (root / "classnames.txt").write_text("cat\ndog\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    (root / "dataset_type.txt").write_text("classification\n")


def write_safetensors(file: Path) -> None:
    tensors = {
        "image_features": torch.eye(6)[:5],
        "text_features": torch.eye(6)[:3],
        "labels": torch.tensor([0, 1, 2, 0, 1]),
    }
    texts = {"classnames": '["a", "b", "c"]', "prompts": '["the {}"]', "logit_scale": "50.0", "backbone": "x"}
    save_file(tensors, file, texts)


def write_classifier(file: Path) -> None:
    correction = Correction(torch.eye(4)[:3], 100.0, torch.zeros(3, 4), torch.zeros(3), True, 2)
    save_classifier(Classifier("cmm", correction, [1], ["a", "b", "c"], Provenance(run="r")), file)


RECORDS = [Record("cat", "photographs", "describe", (), ("a cat", "fur", "ears"), "m", 3, 0.1, "2026", "o")] * 3
MANIFEST = {
    "id": "run-1",
    "study": {
        "dataset": "cifar100",
        "backbone": "ViT-B-32",
        "pretrained": "openai",
        "base_template": "a photo of a {}.",
        "precision": "fp32",
        "storage": "float32",
    },
    "data": {"name": "cifar100", "digest": "d" * 64, "n_images": 10},
    "model": {"backbone": "ViT-B-32", "pretrained": "openai"},
    "templates": "openai-80",
    "conditions": {"labels": True},
    "chapters": {"01": {"stamp": "s", "seconds": 1.0}},
}
SCORES = {"overall": 0.5, "mean_per_class": 0.4, "worst": {"5": 0.1, "10": 0.2, "20": None}, "zero_classes": 1}
METHOD = {
    "name": "base",
    "base_worst": {"10": 0.1},
    "base_worst_count": {"10": 10},
    "base_worst_split_half": {"10": 0.1},
}
RESULTS = {
    "schema_version": 1,
    "n_images": 10,
    "n_classes": 2,
    "worst_k": 5,
    "accuracy": SCORES,
    "cmm": {"soft": {"precision_at_k": 0.5, "chance": 0.1, "spearman": 0.7}},
    "ensembles": [{**SCORES, **METHOD}, {**SCORES, **METHOD, "name": "enriched_cmm", "requests": 2}],
    "model_card": {"probe": 0.9, "described": 0.8, "logit_scale": 50.0},
}


def write_run(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "per_class.csv").write_text("class,class_name,cmm_soft,accuracy\n0,a,0.1,0.5\n1,b,0.3,\n")


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    """A folder of valid files, one or more for each reader."""
    root = tmp_path_factory.mktemp("valid")
    for name, text in {"names.txt": "cat\ndog\nwolf\n", "pool.txt": "a photo of a {}.\n# no\nthe {}\n"}.items():
        (root / name).write_text(text)
    (root / "answers.jsonl").write_text("".join(record.line() + "\n" for record in RECORDS))
    write_embeddings(
        root / "data.npz",
        image_features=np.eye(5, 6, dtype=np.float32),
        labels=np.arange(5) % 3,
        text_features=np.eye(3, 6, dtype=np.float32),
        classnames=np.array(["a", "b", "c"]),
        prompts=np.array(["{}"]),
        image_ids=None,
        backbone=np.array("x"),
    )
    write_safetensors(root / "data.safetensors")
    write_classifier(root / "classifier.safetensors")
    write_shards(root / "shards")
    write_run(root / "run")
    write_chapter(root / "chapter.ipynb", "print(1)")
    model = write_clip(root / "model", text={"width": 8, "heads": 1, "layers": 1}, embed_dim=8)
    weights = load_file(model / "open_clip_model.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, root / "weights.pth")
    (root / "images").mkdir()
    for kind in (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "ICO",
        "PPM",
        "TGA",
        "JPEG2000",
        "PCX",
        "SGI",
        "QOI",
        "AVIF",
    ):
        (root / "images" / kind.lower()).write_bytes(example_image(kind))
    (root / "memo.json").write_text(json.dumps({"sha256": digest({"a": 1}), "content": {"a": 1}}))
    save_tensors(root / "entry.safetensors", {"x": torch.ones(3, 2)})
    return root


# ---------------------------------------------------------------- what is done to them


class Damaged(bytes):
    """Bytes that a failure shows where they are few."""

    def __repr__(self) -> str:
        return super().__repr__() if len(self) < 5000 else f"<{len(self)} bytes>"


@st.composite
def damages(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of a valid file that was cut short, has some bytes or bits changed, a part repeated, or is noise."""
    kind = draw(st.sampled_from(["cut", "bits", "bytes", "bytes", "splice", "noise"]))
    place = st.integers(0, max(0, len(whole) - 1)) | st.integers(0, min(600, max(0, len(whole) - 1)))
    if kind == "noise" or not whole:
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return Damaged(whole[: draw(place)])
    if kind == "splice":
        start, stop = sorted((draw(place), draw(place)))
        return Damaged(whole[:start] + draw(st.binary(max_size=20)) + whole[stop:])
    changed = bytearray(whole)
    for at in draw(st.lists(place, min_size=1, max_size=8)):
        changed[at] = draw(st.integers(0, 255)) if kind == "bytes" else changed[at] ^ (1 << draw(st.integers(0, 7)))
    return Damaged(changed)


NUMBERS = st.integers() | st.floats() | st.sampled_from([10**30, -1, 0, 10**4299])
LEAVES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\x1b[31m", "\u202e", "a\nb", ""])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@st.composite
def other_values(draw: st.DrawFn, valid: Any) -> Any:
    """The JSON value with some of its parts replaced by any JSON, dropped, or joined by unknown ones."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 2))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not keys or draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    key, what = draw(st.sampled_from(list(keys))), draw(st.sampled_from(["deeper", "deeper", "drop", "add"]))
    if what == "deeper":
        value[key] = _changed(draw, value[key])
    elif what == "drop":
        del value[key]
    elif isinstance(value, dict):
        value[draw(st.text(max_size=5))] = draw(VALUES)
    return value


def texts_of(value: Any) -> bytes:
    return json.dumps(value).encode()


ODD_JSON = [
    b"[" * 100_000,
    b"9" * 5000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b"NaN",
    b'"\\ud800"',
    b"\xff\xfe",
    b"",
    b"null",
    b"{}",
]


# ---------------------------------------------------------------- readers of one file


BYTES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "class names": ("names.txt", lambda file: read_classes(file, ["cat", "dog", "wolf"])),
    "templates": ("pool.txt", lambda file: load_templates(str(file))),
    "a transcript": ("answers.jsonl", load_transcript),
    "npz": ("data.npz", load_embeddings),
    "npz of images": ("data.npz", load_image_embeddings),
    "safetensors": ("data.safetensors", load_embeddings),
    "safetensors of images": ("data.safetensors", load_image_embeddings),
    "a classifier": ("classifier.safetensors", load_classifier),
    "a memo": ("memo.json", read_memo),
    "a cache entry": ("entry.safetensors", load_tensors),
    "a notebook": ("chapter.ipynb", read_notebook),
}


@pytest.mark.parametrize("kind", BYTES)
def test_damaged_files(kind, valid, tmp_path):
    name, read = BYTES[kind]
    file = tmp_path / f"damaged{Path(name).suffix}"

    @fuzzed(25)
    @given(damages((valid / name).read_bytes()))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        returns_or_refuses(read, file)

    check()


@fuzzed(60)
@given(st.data())
def test_damaged_images(valid, data):
    whole = (valid / "images" / data.draw(st.sampled_from(sorted(os.listdir(valid / "images"))))).read_bytes()
    returns_or_refuses(decode, io.BytesIO(data.draw(damages(whole))), "image")


# ---------------------------------------------------------------- readers of folders


PARTS = (
    "test/0.tar",
    "test/nshards.txt",
    "classnames.txt",
    "zeroshot_classification_templates.txt",
    "dataset_type.txt",
)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_shards(part, valid, tmp_path):
    write_shards(tmp_path / "set")

    @fuzzed(25)
    @given(damages((valid / "shards" / part).read_bytes()))
    def check(content: bytes) -> None:
        (tmp_path / "set" / part).write_bytes(content)
        returns_or_refuses(read_every_image, tmp_path / "set")

    check()


def read_every_image(root: Path) -> None:
    data = load_dataset(f"wds:{root}")
    for i in range(len(data.digests)):
        data.read(i)


@fuzzed(25)
@given(VALUES.map(texts_of) | st.sampled_from(ODD_JSON), st.sampled_from([".json", ".cls"]))
def test_labels_of_shards(tmp_path, content, ending):
    write_shards(tmp_path / "set")
    with tarfile.open(tmp_path / "set" / "test" / "0.tar", "w") as tar:
        for name, held in (("a.png", example_image("PNG")), (f"a{ending}", content)):
            entry = tarfile.TarInfo(name)
            entry.size = len(held)
            tar.addfile(entry, io.BytesIO(held))
    returns_or_refuses(read_every_image, tmp_path / "set")
    for file in sorted((tmp_path / "set").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (tmp_path / "set").rmdir()


RUNS: dict[str, Callable[[Path], Any]] = {
    "compared": of_folder,
    "verified": verify,
    "quoted": lambda folder: _quoted(*reversed(read_run(folder)), folder),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("name", ["manifest.json", "results.json", "per_class.csv"])
def test_edited_runs(kind, name, valid, tmp_path):
    write_run(tmp_path / "run")
    whole = (valid / "run" / name).read_bytes()
    other = st.sampled_from(ODD_JSON)
    if name.endswith(".json"):
        other = other_values(MANIFEST if name == "manifest.json" else RESULTS).map(texts_of) | other

    @fuzzed(25)
    @given(other | damages(whole))
    def check(content: bytes) -> None:
        (tmp_path / "run" / name).write_bytes(content)
        returns_or_refuses(RUNS[kind], tmp_path / "run")

    check()


# ---------------------------------------------------------------- JSON in files of other kinds


@fuzzed(40)
@given(st.lists(other_values(json.loads(RECORDS[0].line())).map(texts_of) | st.sampled_from(ODD_JSON), max_size=2))
def test_odd_transcripts(tmp_path, lines):
    (tmp_path / "answers.jsonl").write_bytes(b"\n".join([*lines, RECORDS[0].line().encode()]))
    returns_or_refuses(load_transcript, tmp_path / "answers.jsonl")


@fuzzed(40)
@given(
    st.sampled_from(["classnames", "prompts", "image_ids", "backbone", "pretrained", "logit_scale"]),
    VALUES.map(lambda value: json.dumps(value))
    | st.sampled_from(["[" * 100_000, "9" * 5000, "1e999", "[[1], [1, 2]]"]),
)
def test_odd_texts_of_safetensors(tmp_path, key, text):
    texts = {"classnames": '["a", "b", "c"]', key: text}
    save_file(
        {"image_features": torch.eye(6)[:5], "text_features": torch.eye(6)[:3]}, tmp_path / "odd.safetensors", texts
    )
    returns_or_refuses(load_embeddings, tmp_path / "odd.safetensors")
    returns_or_refuses(load_image_embeddings, tmp_path / "odd.safetensors")


KINDS = st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "u8", "i8", "c8", "?", "U3", "S3", "M8[s]", "f4,i4"])
SHAPES = st.lists(st.integers(0, 5), max_size=3)


KEYS = ("image_features", "text_features", "classnames", "labels", "prompts", "logit_scale", "image_ids", "backbone")


@fuzzed(60)
@given(st.sampled_from(KEYS), KINDS, SHAPES, st.binary(min_size=8, max_size=8))
def test_odd_arrays(tmp_path, key, kind, shape, content):
    dtype = np.dtype(kind)
    value = np.frombuffer((content * dtype.itemsize)[: dtype.itemsize], dtype)[0]
    array = np.full(shape, value, dtype)
    write_embeddings(tmp_path / "odd.npz", **{key: array})
    returns_or_refuses(load_embeddings, tmp_path / "odd.npz")
    returns_or_refuses(load_image_embeddings, tmp_path / "odd.npz")


FLOATS = [
    torch.float32,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.uint16,
    torch.uint64,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("key", ["image_features", "text_features", "labels", "classnames", "logit_scale"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_odd_number_formats(key, dtype, tmp_path):
    tensors = {
        "image_features": torch.eye(6)[:5],
        "text_features": torch.eye(6)[:3],
        "labels": torch.zeros(5, dtype=torch.long),
    }
    texts = {"classnames": '["a", "b", "c"]'}
    save_file({**tensors, key: tensors.get(key, torch.ones(3)).to(dtype)}, tmp_path / "odd.safetensors", texts)
    returns_or_refuses(load_embeddings, tmp_path / "odd.safetensors")
    returns_or_refuses(load_image_embeddings, tmp_path / "odd.safetensors")


@fuzzed(25)
@given(VALUES.map(texts_of) | st.sampled_from(ODD_JSON))
def test_odd_memos(tmp_path, own_cache, content):
    """A memo with a good checksum, whatever it holds."""
    file = tmp_path / "file"
    file.write_text("x")
    (known,) = file_digests(tmp_path, [file])
    try:
        held = json.loads(content)
        whole = json.dumps({"sha256": digest(held), "content": held})
    except (ValueError, RecursionError):
        whole = content.decode(errors="replace")
    for folder in ("digests", "webdatasets"):
        for memo in (own_cache / folder).glob("*.json"):
            memo.write_text(whole)
    assert file_digests(tmp_path, [file]) == [known]
    write_shards(tmp_path / "set") if not (tmp_path / "set").exists() else None
    returns_or_refuses(read_every_image, tmp_path / "set")


# ---------------------------------------------------------------- models


def use(folder: Path) -> None:
    """Load a model and ask it for a text and an image."""
    backbone = load_backbone(f"local-dir:{folder}", None, "cpu")
    encode_texts(backbone, ["a cat"])
    backbone.encode_images(backbone.preprocess(Image.new("RGB", (20, 10)))[None])
    _ = backbone.logit_scale


@fuzzed(40)
@given(st.data())
def test_odd_configurations(valid, tmp_path, data):
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    whole = (valid / "model" / "open_clip_config.json").read_bytes()
    content = other_values(json.loads(whole)).map(texts_of) | damages(whole) | st.sampled_from(ODD_JSON)
    (folder / "open_clip_config.json").write_bytes(data.draw(content))
    if not (folder / "open_clip_model.safetensors").exists():
        (folder / "open_clip_model.safetensors").symlink_to(valid / "model" / "open_clip_model.safetensors")
    returns_or_refuses(use, folder)


@pytest.mark.parametrize("name", ["weights.pth", "model/open_clip_model.safetensors"])
def test_damaged_checkpoints(name, valid, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_bytes((valid / "model" / "open_clip_config.json").read_bytes())
    file = folder / f"open_clip_pytorch_model{Path(name).suffix}"

    @fuzzed(15)
    @given(damages((valid / name).read_bytes()))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        returns_or_refuses(use, folder)

    check()
