"""Web data sets in CLIP_benchmark's layout: read in place from their tars, or refused in one line."""

from __future__ import annotations

import gzip
import json
import tarfile
import time
import urllib.error
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from data_sets import png, shard, text, web_data_set

from cmmlib.data import webdataset
from cmmlib.data.load import load_dataset
from cmmlib.data.webdataset import TarImages
from cmmlib.errors import InputError


@pytest.fixture
def root(tmp_path) -> Path:
    return web_data_set(tmp_path / "wds_animals")


def load(where: object, **more) -> TarImages:
    data = load_dataset(f"wds:{where}", **more)
    assert isinstance(data, TarImages)
    return data


def refusal(where: object, **more) -> str:
    with pytest.raises(InputError) as error:
        load(where, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_web_data_set_is_read_shard_by_shard(root):
    data = load(root)
    assert (data.name, data.split) == ("wds_animals", "test")
    assert data.classnames == ["cat", "dog", "sea lion"]
    assert data.labels.tolist() == [0, 1, 2, 0, 1]
    assert data.templates == ["a {}.", "the {}, a {}."]
    assert data.image_ids[3] == "test/1.tar/s0000003.png"
    for i in (4, 0, 3):  # by index, in any order
        assert np.asarray(data.read(i)).tolist() == [[[i, 0, 200]] * 9] * 7
    assert [np.asarray(data.pick([3, 1]).read(i))[0, 0, 0] for i in (0, 1)] == [3, 1]
    assert sorted(path.name for path in root.rglob("*") if path.suffix == ".png") == []


def test_a_shard_is_scanned_once(root, own_cache, monkeypatch):
    first = load(root)
    monkeypatch.setattr(webdataset, "_scan", lambda path: pytest.fail("scanned again"))
    moved = root.rename(root.parent / "moved")
    again = load(moved)
    assert (again.digests, again.samples) == (first.digests, first.samples)
    monkeypatch.undo()
    monkeypatch.setenv("CMM_CACHE", str(own_cache))
    for memo in (own_cache / "webdatasets").iterdir():
        memo.write_text(json.dumps([[1]]))
    assert load(moved).samples == first.samples


def test_another_split_and_names_of_ones_own(root, tmp_path):
    (root / "train").mkdir()
    text(root / "train" / "nshards.txt", "1")
    shard(root / "train" / "0.tar", {"a.b/c.JPG": png(1, 2, 3), "a.b/c.cls": b"2\n", "a.b/c.json": b"{}"})
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    data = load(root, split="train", class_names=str(tmp_path / "names.txt"))
    assert (data.labels.tolist(), data.classnames, data.image_ids) == ([2], ["x", "y", "z"], ["train/0.tar/a.b/c.JPG"])
    assert refusal(root, split="dev") == "split: wds:wds_animals has no split 'dev': it has test, train"


def test_a_set_without_labels_has_none(root):
    for i in (0, 1):
        shard(root / "test" / f"{i}.tar", {f"{i}.png": png(i, i, i)})
    assert load(root).labels is None


def test_what_is_no_plain_file_in_a_tar_is_passed_by(root):
    with tarfile.open(root / "test" / "1.tar", "a") as tar:
        link = tarfile.TarInfo("s0000009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(load(root)) == 5


def test_a_broken_image_is_named_by_shard_and_member(root):
    shard(root / "test" / "1.tar", {"x.png": b"no image", "x.cls": b"0"})
    data = load(root)
    with pytest.raises(InputError, match=r"^cannot read image x\.png of .*/test/1\.tar: not an image"):
        data.read(3)


def damage(root: Path, file: str, content: bytes | None) -> Path:
    if content is None:
        (root / file).unlink()
    else:
        (root / file).write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("test/nshards.txt", None, "has no nshards.txt in any folder"),
        ("test/nshards.txt", b"two", "test/nshards.txt must hold one number"),
        ("test/nshards.txt", b"3", "lacks 2.tar: nshards.txt says 3 shards"),
        ("test/nshards.txt", b"0", "hold no image"),
        ("test/1.tar", b"no tar" * 200, "1.tar cannot be read as a tar"),
        ("test/1.tar", gzip.compress(b"x", mtime=0), "1.tar cannot be read as a tar"),
        ("classnames.txt", None, "has no classnames.txt: give --class-names FILE"),
        ("classnames.txt", b"cat\ndog\n", "s0000002.png of test/0.tar has label 2, outside 0..1"),
        ("zeroshot_classification_templates.txt", b"a photo\n", "has no {c} for the class name: 'a photo'"),
        ("dataset_type.txt", b"retrieval\n", "is a retrieval set"),
    ],
    ids=str,
)
def test_another_layout_is_refused_by_name(root, file, content, expected):
    assert expected in refusal(damage(root, file, content))


def test_a_shard_that_is_cut_short_is_refused(root):
    content = (root / "test" / "0.tar").read_bytes()
    for end in (2300, 2048, 700, 1):  # within a header, between two members, within an image
        (root / "test" / "0.tar").write_bytes(content[:end])
        assert "0.tar cannot be read as a tar" in refusal(root)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"a.png": png(1, 1, 1)}, "a.png of test/1.tar has no label beside it"),
        ({"a.png": png(1, 1, 1), "a.cls": b"cat"}, "1.tar cannot be read as a tar of images and labels"),
        ({"a.png": png(1, 1, 1), "a.cls": b"-1"}, "has label -1, outside 0..2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(root, members, expected):
    shard(root / "test" / "1.tar", members)
    assert expected in refusal(root)


# ---------------------------------------------------------------- the hub


def in_the_hubs_cache(root: Path, repo: str, cache: Path) -> None:
    """Lay a set out as huggingface_hub keeps what it fetched."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    text(folder / "refs" / "main", "abc123")
    (folder / "snapshots").mkdir()
    root.rename(folder / "snapshots" / "abc123")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub's client; nothing reaches the hub."""
    asked = []

    def refuse(url, timeout):
        asked.append(timeout)
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    fetch, cache = huggingface_hub.snapshot_download, tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: fetch(*a, **k, cache_dir=cache))
    return cache


@pytest.mark.parametrize("switched_off", [True, False])
def test_a_set_on_the_hub_is_refused_offline_in_one_line_at_once(hub_cache, monkeypatch, switched_off):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", switched_off)
    start = time.perf_counter()
    message = refusal("clip-benchmark/wds_vtab-dtd")
    assert time.perf_counter() - start < 5
    assert message.startswith("wds: clip-benchmark/wds_vtab-dtd is not on this machine and ")
    assert ("HF_HUB_OFFLINE is set" if switched_off else "no hub answers") in message
    assert message.endswith("wds:PATH")


def test_a_set_in_the_hubs_cache_needs_no_hub_unless_a_shard_is_missing(hub_cache, root):
    in_the_hubs_cache(root, "owner/animals", hub_cache)
    data = load("owner/animals")
    assert data.labels.tolist() == [0, 1, 2, 0, 1]
    (data.root / "test" / "1.tar").unlink()
    assert "is not on this machine" in refusal("owner/animals")


def test_what_the_hub_refuses_is_one_line(hub_cache, monkeypatch):
    def refuse(name, local_files_only=False, **_options):
        raise RuntimeError("404: no such data set\nRequest ID: 1")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(webdataset, "host_responds", lambda url: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert refusal("owner/none") == "wds: owner/none could not be fetched: 404: no such data set Request ID: 1"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert f"no folder {tmp_path / 'absent'}" in refusal(tmp_path / "absent")
