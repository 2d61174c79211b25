"""What labels say that nobody may have meant: told for every kind of data set, of the part that a study takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import refusal, write_images
from data_sets import WRITERS, imagenet, png, shard, text
from finished_runs import cmm, write_embeddings
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import Study
from cmmlib.data import torchvision
from cmmlib.data.load import load_dataset
from cmmlib.study.open_run import open_run, study_data

ONE = "labels count from 0: do these begin at 1?"


def told(dataset: str, **fields: object) -> list[str]:
    """The lines that a study of this data set tells of it."""
    return study_data(Study.of({"dataset": dataset, **fields})).remarks


def listed(place: Path, *lines: object) -> str:
    place.write_text("".join(f"{line}\n" for line in lines))
    return str(place)


def shards(root: Path, *labels: int, classes: int = 3, pixels: tuple[int, ...] | None = None) -> str:
    """A web data set of two shards, with images of one colour each; equal `pixels` are equal images."""
    listed(root / "classnames.txt", *[f"kind {c}" for c in range(classes)]) if root.mkdir() is None else None
    text(root / "zeroshot_classification_templates.txt", "a {c}.\n")
    text(root / "test" / "nshards.txt", "2")
    values = pixels or tuple(range(len(labels)))
    for n in (0, 1):
        members = {}
        for i in range(n, len(labels), 2):
            members |= {f"{i}.png": png(values[i]), f"{i}.cls": str(labels[i]).encode()}
        shard(root / "test" / f"{n}.tar", members)
    return f"wds:{root}"


# ---------------------------------------------------------------- classes without an image


def test_classes_of_embeddings_without_an_image_are_told_by_name(tmp_path):
    labels = synthetic_arrays()["labels"]
    gone = write_embeddings(tmp_path / "x.npz", labels=np.where(np.isin(labels, [2, 5, 6, 9]), 0, labels))
    line = "classes without an image, 4 of 12, which stay classes: synthetic class 02, synthetic class 05, "
    assert told(gone) == [f"{line}synthetic class 06 and 1 more"]
    assert told(gone, limit=3) == told(gone)
    assert told(write_embeddings(tmp_path / "y.npz")) == []
    assert told(write_embeddings(tmp_path / "z.npz", labels=None)) == []


def test_a_class_without_an_image_is_told_where_a_study_takes_it_alone(tmp_path):
    labels = synthetic_arrays()["labels"]
    gone = write_embeddings(tmp_path / "x.npz", labels=np.where(labels == 0, 1, labels))
    assert told(gone) == [f"classes without an image, 1 of 12, which stay classes: synthetic class 00; {ONE}"]
    assert told(gone, classes=listed(tmp_path / "others.txt", 1, 2, 3)) == []
    some = told(gone, classes=listed(tmp_path / "with.txt", 0, 2, 3))
    assert some == ["classes without an image, 1 of 3, which stay classes: synthetic class 00"]  # counted anew: no hint


def test_classes_of_a_web_data_set_without_an_image_are_told(tmp_path):
    assert told(shards(tmp_path / "a", 0, 2, 0, 2)) == ["classes without an image, 1 of 3, which stay classes: kind 1"]
    begun = f"classes without an image, 1 of 3, which stay classes: kind 0; {ONE}"
    assert told(shards(tmp_path / "b", 1, 2, 1, 2)) == [begun]
    assert told(shards(tmp_path / "c", 1, 2, 0, 2)) == []


def test_a_first_class_folder_without_an_image_is_no_label_that_begins_at_1(tmp_path):
    images = write_images(tmp_path / "images")
    (images / "aardvark").mkdir()
    assert told(f"folder:{images}")[-1] == "classes without an image, 1 of 5, which stay classes: aardvark"


def test_classes_of_published_sets_without_an_image_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision, "find_spec", lambda name: None)  # clip-benchmark, where it is installed
    WRITERS["fgvc_aircraft"](tmp_path, monkeypatch)
    line = "classes without an image, 1 of 3, which stay classes: A300B4"
    whose = "the package clip-benchmark, which is not installed, has other templates for fgvc_aircraft"
    first, second = told("fgvc_aircraft", data_root=str(tmp_path), backbone="x")
    assert (first.startswith(whose), second) == (True, line)
    imagenet(tmp_path, {1: 1, 4: 2})
    (said,) = told("imagenet", data_root=str(tmp_path), backbone="x")  # its names are known: WordNet ids are no remark
    assert said.startswith("classes without an image, 998 of 1000, which stay classes: tench, ")


def test_the_embedded_world_has_nothing_to_tell(tmp_path):
    assert told("blazon") == told("blazon", limit=1) == []
    assert told("blazon", classes=listed(tmp_path / "c.txt", 3, 7, 110)) == []


@pytest.mark.parametrize(("labels", "is_asked"), [([1, 3, 2, 2, 1], True), ([0, 3, 1, 2, 1], False)])
def test_labels_above_the_classes_are_asked_whether_they_begin_at_1(labels, is_asked, tmp_path):
    arrays = {key: value[:5] for key, value in synthetic_arrays().items() if key in ("image_features", "labels")}
    arrays |= {"text_features": synthetic_arrays()["text_features"][0, :3], "prompts": None}
    classnames = np.array(["a", "b", "c"])
    data = write_embeddings(tmp_path / "x.npz", **{**arrays, "labels": np.array(labels), "classnames": classnames})
    for said in (refusal(load_dataset, data), refusal(load_dataset, shards(tmp_path / "wds", *labels))):
        assert "outside 0..2" in said
        assert said.endswith(f": {ONE}") == is_asked


def test_a_class_of_which_no_image_can_be_read_is_told(tmp_path, tiny_clip):
    images = write_images(tmp_path / "images")
    for n, path in enumerate(sorted((images / "grey_ramp").iterdir())):
        path.write_bytes(b"no image" * (n + 1))
    fields = {"dataset": f"folder:{images}", "backbone": f"local-dir:{tiny_clip}", "max_broken": 2}
    run = open_run(Study.of({**fields, "out": str(tmp_path / "runs")}))
    assert "classes of which no image can be read, which stay classes: grey ramp" in run.facts["data"]["remarks"]


# ---------------------------------------------------------------- images of several classes


def test_equal_images_of_several_labels_in_shards_are_told_and_equal_ones_of_one_are_not(tmp_path):
    root = shards(tmp_path / "wds", 0, 1, 2, 2, 1, pixels=(7, 8, 7, 9, 8))
    line = "images that are in more than one class, byte for byte, 1: test/0.tar/2.png = test/0.tar/0.png"
    for _ in range(2):  # the second time from the cache
        assert told(root) == [line]
    assert told(root, classes=listed(tmp_path / "classes.txt", "kind 1", "kind 2")) == []  # the other is not of these
    assert line in cmm("run", "--dry-run", "--dataset", root, "--backbone", "blazon-mini").out


def test_equal_rows_under_several_labels_are_told_by_their_rows_or_ids(tmp_path):
    arrays = synthetic_arrays()
    x, labels = arrays["image_features"].copy(), arrays["labels"]
    x[CLASSES] = x[0]  # of the same class
    x[40] = x[3]
    x[555] = x[3]
    assert (labels[3], labels[40], labels[555]) == (3, 4, 3)
    line = "embeddings that are in more than one class, number for number, 1: "
    data = write_embeddings(tmp_path / "x.npz", image_features=x)
    assert told(data) == [f"{line}row 40 = row 3"]
    assert told(data, classes=listed(tmp_path / "both.txt", 3, 4)) == [f"{line}row 40 = row 3"]  # of the file
    assert told(data, classes=listed(tmp_path / "one.txt", 4, 5)) == []
    ids = np.array([f"{i}.jpg" for i in range(len(x))])
    assert told(write_embeddings(tmp_path / "y.npz", image_features=x, image_ids=ids)) == [f"{line}40.jpg = 3.jpg"]
    assert told(write_embeddings(tmp_path / "z.npz", image_features=x, labels=None)) == []


def test_a_line_on_labels_is_in_the_run(tmp_path):
    arrays = synthetic_arrays()
    arrays["image_features"][1] = arrays["image_features"][0]
    data = write_embeddings(tmp_path / "x.npz", image_features=arrays["image_features"])
    run = open_run(Study.of({"dataset": data, "out": str(tmp_path)}))
    assert run.facts["data"]["remarks"] == [
        "embeddings that are in more than one class, number for number, 1: row 1 = row 0"
    ]
