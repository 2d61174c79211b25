"""Web data sets in CLIP_benchmark's layout: read in place from their tars, or refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from data_sets import png, shard, text, web_data_set
from PIL import Image

from cmmlib.data import shards, webdataset
from cmmlib.data.load import load_dataset
from cmmlib.data.webdataset import TarImages, load_webdataset
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
    monkeypatch.setattr(shards, "_scan", lambda path: pytest.fail("scanned again"))
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
    assert refusal(root, split="Test").endswith("no split 'Test': it has test, train; did you mean 'test'?")


def test_a_set_without_labels_has_none(root):
    for i in (0, 1):
        shard(root / "test" / f"{i}.tar", {f"{i}.png": png(i, i, i)})
    assert load(root).labels is None


@pytest.mark.parametrize(
    ("kind", "name"), [("SYMTYPE", "s0000009.png"), ("LNKTYPE", "s0000009.png"), ("LNKTYPE", "a.cls")]
)
def test_a_link_in_place_of_an_image_or_a_label_is_refused(kind, name, root):
    with tarfile.open(root / "test" / "1.tar", "a") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = getattr(tarfile, kind), "s0000003.png"
        tar.addfile(link)
    assert f"1.tar has {name} as a link to s0000003.png: write it as a file" in refusal(root)


def test_what_is_no_file_in_a_tar_is_passed_by(root):
    with tarfile.open(root / "test" / "1.tar", "a") as tar:
        for name, kind in (("notes", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    assert len(load(root)) == 5


def test_two_tars_joined_are_refused(root):
    first, second = (root / "test" / f"{n}.tar" for n in (0, 1))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    assert "0.tar cannot be read as a tar of images and labels: there is more behind its end: join tars" in refusal(
        root
    )


def test_a_compressed_shard_is_refused_with_the_remedy(root):
    shard_file = root / "test" / "0.tar"
    shard_file.write_bytes(gzip.compress(shard_file.read_bytes()))
    told = refusal(root)
    assert "0.tar is compressed, and shards are read in place: rename it to 0.tar.gz and unpack that" in told
    shard_file.rename(root / "test" / "0.tar.gz")
    if shutil.which("gunzip"):
        subprocess.run(told[told.index("gunzip") :].split(), cwd=root / "test", check=True)
        assert len(load(root)) == 5


def test_members_are_found_wherever_their_paths_lead(root):
    members = {
        "../a.png": png(1),
        "../a.cls": b"0",
        "b/./c.png": png(2),
        "b/c.cls": b"1",
        "./d.png": png(3),
        "d.cls": b"2",
    }
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    shard(root / "test" / "0.tar", members)
    data = load(root)
    assert data.labels.tolist() == [0, 1, 2]
    assert data.remarks == []
    assert len(data.read(0).getcolors()) == 1


def test_labels_that_are_no_numbers_are_named(root):
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    shard(root / "test" / "0.tar", {"a.png": png(1), "a.json": b'{"label": "cat"}', "b.png": png(2), "b.json": b"1.5"})
    assert load(root).remarks[-1] == "0.tar: labels that are no whole numbers are not used: a.json, b.json"
    shard(root / "test" / "0.tar", {"a.png": png(1), "a.cls": b"1.0"})
    assert "0.tar: a.cls: a label is b'1.0', not a whole number" in refusal(root)


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
        ("test/nshards.txt", b"0", "test/nshards.txt must hold one number, from 1"),
        ("test/1.tar", b"no tar" * 200, "1.tar cannot be read as a tar"),
        (
            "test/1.tar",
            gzip.compress(b"x", mtime=0),
            "1.tar is compressed, and shards are read",
        ),
        ("classnames.txt", None, "has no classnames.txt: give --class-names FILE"),
        ("classnames.txt", b"cat\ndog\n", "s0000002.png of test/0.tar has label 2, outside 0..1"),
        ("zeroshot_classification_templates.txt", b"a photo\n", "has no {c} for the class name: 'a photo'"),
        ("zeroshot_classification_templates.txt", b"a {c} {x}\n", "has other braces than {c}, the only ones"),
        (
            "zeroshot_classification_templates.txt",
            b'lambda c: f"a {c}"\n',
            "is a line of a program: write the text alone",
        ),
        ("dataset_type.txt", b"retrieval\n", "is a retrieval set"),
    ],
    ids=str,
)
def test_another_layout_is_refused_by_name(root, file, content, expected):
    assert expected in refusal(damage(root, file, content))


@pytest.mark.parametrize("held", ["", "\ufeff", "\n \n", "\ufeff\nClassification\n"])
def test_a_kind_that_is_not_said_is_classification(held, root):
    (root / "dataset_type.txt").write_text(held, "utf-8")
    assert len(load(root)) == 5


def test_a_set_without_the_file_of_templates_is_told(root, hub_cache):
    """As a download of some of a set's files leaves it."""
    line = "there is no zeroshot_classification_templates.txt, and others are used"
    (root / "zeroshot_classification_templates.txt").unlink()
    assert (load(root).templates, load(root).remarks) == (None, [line])
    assert load_webdataset(str(root), labelled=False).remarks == []  # no template is used
    in_the_hubs_cache(root, "owner/animals", hub_cache)
    assert load("owner/animals").remarks == [line]


@pytest.mark.parametrize("held", ["", "\n \n"])
def test_a_file_without_a_template_is_told(held, root):
    (root / "zeroshot_classification_templates.txt").write_text(held)
    data = load_webdataset(str(root), "test")
    assert data.templates is None
    assert "zeroshot_classification_templates.txt holds no template, and others are used" in data.remarks


def test_a_shard_that_is_cut_short_is_refused(root):
    content = (root / "test" / "0.tar").read_bytes()
    for end in (2300, 2048, 700, 1):  # within a header, between two members, within an image
        (root / "test" / "0.tar").write_bytes(content[:end])
        said = refusal(root)
        assert "0.tar cannot be read as a tar" in said
        assert said.endswith(": copy or fetch it again")
    (root / "test" / "0.tar").write_bytes(content[:100] + b"\xff" * 20 + content[120:])  # in the first header
    assert refusal(root).endswith(": copy or fetch it again")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"a.png": png(1, 1, 1)}, "a.png of test/1.tar has no label beside it"),
        ({"a.png": png(1, 1, 1), "a.cls": b"cat"}, "1.tar: a.cls: a label is b'cat', not a whole number"),
        ({"a.png": png(1, 1, 1), "a.cls": b"\xff\x01"}, r"1.tar: a.cls: a label is b'\xff\x01', not a whole number"),
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


def test_a_shard_in_place_of_its_folder_is_named_and_no_hub_is_asked(root, hub_cache, monkeypatch):
    monkeypatch.setattr("cmmlib.data.webdataset._fetch", lambda *_: pytest.fail("asked the hub"))
    monkeypatch.chdir(root)
    said = "wds: test/0.tar is a file: give the folder that holds test/nshards.txt, wds:PATH"
    assert refusal("test/0.tar") == said


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_shard_that_is_there_compressed_is_named(ending, root):
    (root / "test" / "0.tar").rename(root / "test" / f"0.tar.{ending}")
    assert f"lacks 0.tar: nshards.txt says 2 shards; unpack 0.tar.{ending}: shards are read" in refusal(root)


def test_members_of_several_pictures_are_told(root):
    frames, content = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(content, "gif", save_all=True, append_images=frames[1:])
    shard(root / "test" / "1.tar", {"a.gif": content.getvalue(), "a.cls": b"0", "b.png": png(0, 0, 9), "b.cls": b"1"})
    assert "files of several pictures, of which the first is read, 1: a.gif" in load(root).remarks


def test_shards_that_are_numbered_with_zeros_are_named(root):
    (root / "test" / "0.tar").rename(root / "test" / "00000.tar")
    assert "nshards.txt says 2 shards; rename 00000.tar and the others: shards are 0.tar, 1" in refusal(root)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert f"no folder {tmp_path / 'absent'}" in refusal(tmp_path / "absent")


# ---------------------------------------------------------------- what people put into shards


def test_empty_lines_at_the_end_of_the_names_are_no_classes(root):
    text(root / "classnames.txt", "cat\ndog\nsea lion\n\n  \n")
    assert load(root).classnames == ["cat", "dog", "sea lion"]


def test_an_empty_line_among_the_names_is_named(root):
    text(root / "classnames.txt", "cat\n\nsea lion\n")
    assert "line 2 of classnames.txt is empty" in refusal(root)


def test_names_in_the_place_of_a_sets_own_are_as_many(tmp_path):
    root = web_data_set(tmp_path / "wds")
    own = len((root / "classnames.txt").read_text().splitlines())
    for n in (own - 1, own + 1):
        text(tmp_path / "names.txt", "\n".join(f"name {c}" for c in range(n)))
        with pytest.raises(InputError, match=f"the file has {n} names, and classnames.txt of wds {own}: give one name"):
            load(root, class_names=str(tmp_path / "names.txt"))


def test_a_web_data_sets_own_names_in_another_order_are_refused(root, tmp_path):
    text(tmp_path / "names.txt", "dog\ncat\nsea_lion\n")
    said = refusal(root, class_names=str(tmp_path / "names.txt"))
    assert "in another order: class 1 is cat in the data and dog in the file: sort the lines" in said
    text(tmp_path / "names.txt", "Cat\nDog\nsea_lion\n")
    assert load(root, class_names=str(tmp_path / "names.txt")).classnames == ["Cat", "Dog", "sea_lion"]


def test_names_with_dots_labels_in_any_case_and_in_json_are_read(root):
    members = {"v1.0.png": png(1), "v1.0.CLS": b"1", "v1.1.tif": png(2), "v1.1.json": b'{"label": 2, "caption": "x"}'}
    members |= {"v1.2.PNG": png(3), "v1.2.json": b"0", "v1.2.txt": b"a caption", "__MACOSX/v1.3.png": b"0"}
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    shard(root / "test" / "0.tar", members)
    data = load(root)
    assert data.image_ids == ["test/0.tar/v1.0.png", "test/0.tar/v1.1.tif", "test/0.tar/v1.2.PNG"]
    assert data.labels.tolist() == [1, 2, 0]
    assert data.remarks == ["files left out, no images that are read here: 1 .txt"]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b'{"label": 0, "cls": 1}', "0 and 1"),
        (b'{"cls": 2, "caption": "x", "label": 1}', "2 and 1"),
        (b'{"label": 1, "label": 0}', "1 and 0"),
        (b'{"label": 2, "cls": 2}', 2),
        (b'{"label": "sea lion", "cls": 2}', 2),
        (b'{"label": null, "cls": 1}', 1),
        (b'{"caption": {"label": 0, "cls": 1}, "cls": 1}', 1),
    ],
)
def test_labels_that_differ_within_one_file_are_refused_and_equal_ones_are_one(content, label, root):
    text(root / "test" / "nshards.txt", "1")
    shard(root / "test" / "0.tar", {"a.png": png(1), "a.json": content})
    if isinstance(label, str):
        said = f"0.tar: a.json: it has the labels {label} under label or cls: keep one"
        assert refusal(root).endswith(said)
        return
    (root / "test" / "1.tar").unlink(missing_ok=True)
    data = load(root)
    assert data.labels.tolist() == [label]
    is_named = b"sea lion" in content
    assert data.remarks == (["0.tar: labels that are no whole numbers are not used: a.json"] if is_named else [])


def test_labels_that_differ_or_have_no_image_are_told(root):
    members = {
        "a.png": png(1),
        "a.cls": b"1",
        "a.json": b"2",
        "b.png": png(2),
        "b.cls": b"0",
        "b.json": b'{"label": 0}',
    }
    members |= {"c.png": png(3), "c.cls": b"2", "c.json": b'{"caption": "x"}', "d.cls": b"1", "e.json": b"1"}
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    shard(root / "test" / "0.tar", members)
    for _ in range(2):  # the second is from the cache
        data = load(root)
        assert data.labels.tolist() == [1, 0, 2]
        assert data.remarks == [
            "0.tar: labels of .cls and .json differ, .cls counts: a",
            "0.tar: labels without an image that is read here: d, e",
        ]
    assert load_webdataset(str(root), labelled=False).remarks == []


def test_images_without_any_label_are_told_to_be_unlabelled(root):
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    shard(root / "test" / "0.tar", {"a.png": png(1), "b.png": png(2), "b.json": b'{"caption": "no label"}'})
    data = load(root)
    assert (data.labels, data.remarks) == (None, ["no image has a label beside it (.cls, .json)"])


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.png", png(1)), ("a.cls", b"0"), ("a.png", png(2))], "has a.png twice"),
        ([("a.png", png(1)), ("a.jpg", png(2)), ("a.cls", b"0")], "has a.jpg twice, or another ending of it"),
        ([("a.png", png(1)), ("a.cls", b"0"), ("a.cls", b"1")], "has a.cls twice"),
        ([("a.png", png(1)), ("a.cls", b"one")], "a label is b'one', not a whole number"),
        ([("a.png", png(1)), ("a.cls", b"9" * 5000)], "not a whole number"),
        ([("a.png", png(1)), ("a.json", b"[" * 100000)], "a.json: it is nested too deeply"),
        ([("a.txt", b"x"), ("b.mp4", b"x")], "hold no image that is read here: files left out"),
    ],
)
def test_a_shard_that_says_two_things_or_nothing_is_refused(members, said, root):
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert said in refusal(root)


def test_images_under_a_dot_in_a_shard_are_told(root):
    members = {"a.png": png(1), "a.cls": b"1", ".hidden.png": png(2), ".hidden.cls": b"0", "b/.extra/c.png": png(3)}
    members |= {"._a.png": b"of a Mac", ".git/d.png": png(4), "__MACOSX/.e.png": png(5), ".notes": b"x"}
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink()
    shard(root / "test" / "0.tar", members)
    line = "images whose names, or whose folders', begin with a dot are left out, 2: .hidden.png, b/.extra/c.png"
    for _ in range(2):  # the second is from the cache
        data = load(root)
        assert (len(data), data.remarks) == (1, [line])
    assert load_webdataset(str(root), labelled=False).remarks == [line]
    shard(root / "test" / "0.tar", {".hidden.png": png(2)})
    assert refusal(root).endswith("begin with a dot are left out, 1: .hidden.png")


def test_tars_that_are_no_shards_are_told(root):
    (root / "test" / "9.tar").write_bytes(b"")
    assert load(root).remarks == ["tar files beside the 2 of nshards.txt are left out: 9.tar"]


@pytest.mark.parametrize("number", ["9" * 5000, "1000000000000", "-1", "1 2", ""])
def test_a_number_of_shards_is_not_believed(number, root):
    text(root / "test" / "nshards.txt", number)
    assert "nshards.txt" in refusal(root)


def test_a_member_is_not_believed_to_be_larger_than_its_shard(root):
    text(root / "test" / "nshards.txt", "1")
    (root / "test" / "1.tar").unlink(missing_ok=True)
    info = tarfile.TarInfo("a.png")
    info.size = 10**12
    (root / "test" / "0.tar").write_bytes(info.tobuf() + bytes(10240))
    assert "larger than the shard" in refusal(root)
