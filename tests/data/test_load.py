"""Folders of images, and embeddings that somebody already has."""

import io
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from cmmlib.data.embeddings import load_image_embeddings
from cmmlib.data.labels import RULE
from cmmlib.data.load import EmbeddingFile, ImageFolder, load_dataset, load_images
from cmmlib.errors import InputError
from cmmlib.functional.checks import check_embeddings
from cmmlib.storage import own_folders

PROMPTS_THAT_CANCEL = np.stack([np.eye(3, 4), np.diag([1.0, -1, 1]) @ np.eye(3, 4)])  # [P, C, D]


def refusal(name: str, class_names: str | None = None) -> str:
    """The one line that this data set is refused with."""
    with pytest.raises(InputError) as error:
        load_dataset(name, class_names)
    assert "\n" not in str(error.value)
    return str(error.value)


def arrays(**changes) -> dict:
    """A whole embeddings file of 5 images, 3 classes and 2 prompts of width 4; a change to None leaves a key out."""
    rng = np.random.default_rng(0)
    whole = {
        "image_features": rng.normal(size=(5, 4)).astype(np.float32),
        "text_features": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "labels": np.array([0, 1, 2, 2, 1]),
        "classnames": np.array(["cat", "dog", "sea lion"]),
        "prompts": np.array(["a {}", "the {}"]),
        "logit_scale": np.float32(50),
        "backbone": np.array("ViT-B-32"),
        "pretrained": np.array("openai"),
        "image_ids": np.array([f"{i}.jpg" for i in range(5)]),
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


@pytest.fixture
def npz(tmp_path):
    """Write an embeddings file and give its name as a data set."""

    def write(**changes) -> str:
        np.savez_compressed(tmp_path / "mine.npz", **arrays(**changes))
        return f"embeddings:{tmp_path / 'mine.npz'}"

    return write


@pytest.fixture
def safetensors(tmp_path):
    """The same, as .safetensors: text in its metadata, as JSON."""

    def write(**changes) -> str:
        content = arrays(**changes)
        metadata = {}
        for key in ("classnames", "prompts", "image_ids"):
            if key in content:
                metadata[key] = json.dumps(content.pop(key).tolist())
        for key in ("backbone", "pretrained"):
            if key in content:
                metadata[key] = str(content.pop(key))
        scale = content.pop("logit_scale", None)
        if scale is not None:
            metadata["logit_scale"] = json.dumps(float(scale))
        save_file(content, tmp_path / "mine.safetensors", metadata)
        return f"embeddings:{tmp_path / 'mine.safetensors'}"

    return write


@pytest.fixture(params=["npz", "safetensors"])
def written(request):
    return request.getfixturevalue(request.param)


def test_both_formats_say_the_same(npz, safetensors):
    one, two = load_dataset(npz()), load_dataset(safetensors())
    assert isinstance(one, EmbeddingFile)
    for data in (one, two):
        assert data.name == "mine"
        assert data.classnames == ["cat", "dog", "sea lion"]
        assert data.prompts == ["a {}", "the {}"]
        assert data.logit_scale == 50
        assert (data.backbone, data.pretrained) == ("ViT-B-32", "openai")
        assert data.image_ids == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        assert data.labels.tolist() == [0, 1, 2, 2, 1]
        assert data.stored_as == "float32"
        assert data.assumed == []
    assert torch.equal(one.image_features, two.image_features)
    assert torch.equal(one.text_features, two.text_features)
    assert one.digest != two.digest


def test_rows_are_scaled_to_unit_norm_and_keep_their_direction(written):
    raw = arrays()
    data = load_dataset(written())
    assert data.image_features.dtype == data.text_features.dtype == torch.float32
    expected = raw["image_features"] / np.linalg.norm(raw["image_features"], axis=1, keepdims=True)
    np.testing.assert_allclose(data.image_features.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(data.text_features.numpy(), axis=-1), 1, atol=1e-6)


def test_one_head_may_come_without_a_prompt_axis(written):
    texts = arrays()["text_features"][0]
    data = load_dataset(written(text_features=texts, prompts=None))
    assert data.text_features.shape == (1, 3, 4)
    assert data.prompts == ["prompt 0"]


def test_heads_without_prompts_are_numbered(written):
    assert load_dataset(written(prompts=None)).prompts == ["prompt 0", "prompt 1"]


def test_a_file_without_labels_has_none(written):
    assert load_dataset(written(labels=None)).labels is None


def test_what_the_file_does_not_say_is_assumed_and_told(written):
    data = load_dataset(written(logit_scale=None, backbone=None, pretrained=None, image_ids=None))
    assert data.logit_scale == 100
    assert data.assumed == ["logit_scale = 100"]
    assert (data.backbone, data.pretrained, data.image_ids) == (None, None, None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_stored_number_format_is_recorded(written, dtype):
    images = arrays()["image_features"].astype(dtype)
    data = load_dataset(written(image_features=images))
    assert data.stored_as == dtype
    assert data.image_features.dtype == torch.float32
    np.testing.assert_allclose(data.image_features.norm(dim=1), 1, atol=1e-6)


def test_large_float16_rows_do_not_overflow(written):
    assert (
        load_dataset(written(image_features=np.full((5, 4), 60000, np.float16))).image_features[0].tolist() == [0.5] * 4
    )


def test_numbers_and_text_in_other_layouts_are_read(npz):
    raw = arrays()
    data = load_dataset(
        npz(
            image_features=np.asfortranarray(raw["image_features"]).astype(">f4"),
            labels=raw["labels"].astype(">i2"),
            classnames=np.array([b"cat", b"dog", b"sea lion"]),
            logit_scale=np.array([50.0]),
        )
    )
    assert data.classnames == ["cat", "dog", "sea lion"]
    assert data.labels.tolist() == [0, 1, 2, 2, 1]
    assert data.logit_scale == 50
    assert torch.equal(data.image_features, load_dataset(npz()).image_features)


def poisoned(value: float, *place: int, key: str = "image_features") -> dict:
    features = arrays()[key]
    features[place] = value
    return {key: features}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (poisoned(np.nan, 3, 1), ["image_features row 3", "NaN or Inf"]),
        (poisoned(-np.inf, 4, 0), ["image_features row 4", "NaN or Inf"]),
        (poisoned(0, 2), ["image_features row 2", "zero-length"]),
        (poisoned(np.nan, 1, 2, 0, key="text_features"), ["text_features row (1, 2)", "NaN or Inf"]),
        (
            {"text_features": np.eye(4, dtype=np.float32)[[0, 1, 1]] * [[1], [0], [1]], "prompts": None},
            ["row 1 ", "zero"],
        ),
        ({"image_features": np.ones((5, 3), np.float32)}, ["shapes disagree", "[5, 3]", "[2, 3, 4]"]),
        ({"image_features": np.ones(4, np.float32)}, ["shapes disagree", "[4]"]),
        ({"image_features": np.array(1, np.float32)}, ["shapes disagree"]),
        ({"image_features": np.ones((5, 2, 4), np.float32)}, ["shapes disagree"]),
        ({"text_features": np.ones((4, 4), np.float32), "prompts": None}, ["shapes disagree", "3 classnames"]),
        ({"text_features": np.ones((1, 2, 3, 4), np.float32)}, ["shapes disagree"]),
        ({"image_features": np.ones((0, 4), np.float32), "labels": None, "image_ids": None}, ["one or more images"]),
        (
            {"image_features": np.ones((5, 0), np.float32), "text_features": np.ones((2, 3, 0), np.float32)},
            ["needs one or more"],
        ),
        (
            {"text_features": np.ones((1, 1, 4), np.float32), "classnames": np.array(["cat"]), "prompts": None},
            ["two or more classes"],
        ),
        ({"classnames": np.array(["cat", "dog"])}, ["shapes disagree", "2 classnames"]),
        ({"prompts": np.array(["a {}"])}, ["prompts has 1 names, text_features 2 prompts"]),
        ({"image_ids": np.array(["a"])}, ["1 image_ids for 5 images"]),
        ({"image_features": np.ones((5, 4), np.int64)}, ["image_features holds", "int64", "floating-point"]),
        (
            {"labels": np.array([0, 1, 3, 0, 0])},
            ["labels row 2 is 3", "0..2: labels must be whole numbers"],
        ),
        ({"text_features": PROMPTS_THAT_CANCEL}, ["the mean of the prompts of class dog is zero: they cancel"]),
        ({"labels": np.array([0, 1, 2, 0, -1])}, ["labels row 4 is -1"]),
        ({"labels": np.array([0, 1, 2, 0, 2**64 - 1], dtype=np.uint64)}, ["labels row 4 is 18446744073709551615"]),
        ({"labels": np.array([True, False, True, False, True])}, [f"labels is bool [5] for 5 images: {RULE}"]),
        ({"labels": np.zeros(5)}, ["labels is float64 [5] for 5 images: labels must be whole numbers"]),
        ({"labels": np.zeros(4, int)}, ["labels is int64 [4] for 5 images: labels must be"]),
        ({"labels": np.zeros((5, 1), int)}, ["labels is int64 [5, 1] for 5 images: labels must be"]),
        ({"image_features": None}, ["lacks image_features", "text_features"]),
        ({"text_features": None, "classnames": None}, ["lacks text_features, classnames"]),
        ({"logit_scale": np.float32(0)}, ["logit_scale must be"]),
        ({"logit_scale": np.float64(1e200)}, ["logit_scale must be one number from 0.0001 to 10000, got 1e+200"]),
        ({"logit_scale": np.float64(1e-300)}, ["logit_scale must be one number from 0.0001 to 10000"]),
        ({"logit_scale": np.float32(np.nan)}, ["logit_scale must be"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else " ".join(value),
)
def test_a_file_that_disagrees_with_itself_is_refused_by_name(written, changes, expected):
    message = refusal(written(**changes))
    for part in [*expected, "mine."]:
        assert part in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classnames": np.array(["cat", "dog", None], dtype=object)}, "classnames holds Python objects; object arr"),
        ({"labels": np.array([0, 1, 2, 2, None], dtype=object)}, "labels holds Python objects; object arrays are"),
        (
            {"labels": np.array(["a", "b", "c", "d", "e"])},
            "labels holds <U1, which torch cannot read: save integers, each the place of a class in classnames, from 0",
        ),
        ({"labels": np.array([b"a", b"b", b"c", b"d", b"e"])}, "labels holds |S1, which torch cannot read: save inte"),
        ({"image_features": np.ones((5, 4), np.longdouble)}, "image_features holds float128"),
        ({"logit_scale": np.array(["high"])}, "logit_scale must be"),
        ({"logit_scale": np.array([1.0, 2.0])}, "logit_scale must be"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_only_numpy_can_hold_is_refused(npz, changes, expected):
    assert expected in refusal(npz(**changes))


def test_a_file_that_is_damaged_or_of_another_format_is_refused(npz, safetensors, tmp_path):
    for name in (npz(), safetensors()):
        path = tmp_path / name.rpartition("/")[2]
        content = path.read_bytes()
        middle = len(content) // 2
        for damaged in (
            content[:middle],
            b"",
            b"not an archive",
            content[:middle] + b"\xff" * 40 + content[middle + 40 :],
        ):
            path.write_bytes(damaged)
            message = refusal(name)
            assert path.name in message
            assert "object arrays" not in message
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    assert "cannot be read as .npz" in refusal(f"embeddings:{tmp_path / 'array.npz'}")


def test_no_file_no_suffix_and_no_kind_are_refused(tmp_path):
    assert "no file" in refusal(f"embeddings:{tmp_path / 'absent.npz'}")
    assert "no file" in refusal(f"embeddings:{tmp_path}")
    (tmp_path / "mine.pkl").write_bytes(b"x")
    assert "come as .npz or .safetensors" in refusal(f"embeddings:{tmp_path / 'mine.pkl'}")
    for name in ("imagenette", "folder:", "wds:", "zip:/x", ""):
        assert f"unknown data set {name!r}" in refusal(name)


def test_a_pickle_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "mine.npz", **arrays(classnames=np.array([Trap(), Trap(), Trap()], dtype=object)))
    assert "object arrays" in refusal(f"embeddings:{tmp_path / 'mine.npz'}")
    assert not (tmp_path / "sprung").exists()


def test_class_names_may_come_from_a_file_with_comments_of_no_kind(npz, tmp_path):
    names = tmp_path / "names.txt"
    names.write_bytes("\ufefftabby cat\r\n dog \n#1 sea lion\n\n\n".encode())
    name = npz()
    renamed = load_dataset(name, str(names))
    assert renamed.classnames == ["tabby cat", "dog", "#1 sea lion"]
    assert torch.equal(renamed.image_features, load_dataset(name).image_features)


@pytest.mark.parametrize("mark", ["\x85", "\x0b", "\x0c", "\x1c", "\u2028"])
def test_a_name_ends_at_the_end_of_its_line_alone(mark, npz, tmp_path):
    (tmp_path / "names.txt").write_text(f"cat\ndog{mark}house\nsea lion\n", encoding="utf-8")
    assert load_dataset(npz(), str(tmp_path / "names.txt")).classnames == ["cat", f"dog{mark}house", "sea lion"]


def test_an_empty_line_among_names_is_refused(npz, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\ndog\nsea lion\n")
    assert "line 2 of names.txt is empty: labels count lines" in refusal(npz(), str(tmp_path / "names.txt"))


def test_class_names_that_do_not_fit_are_refused(npz, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    disagree = "names.txt has 2 names, data set has 3 classes: give one name a class, in class order"
    assert disagree in refusal(npz(), str(names))
    names.write_bytes("cat\ndog\nowl\n".encode("utf-16-le"))
    assert "names.txt holds a NUL character, as UTF-16 does: save it as UTF-8" in refusal(npz(), str(names))
    names.write_bytes("caf\xe9\n".encode("latin-1"))
    assert "class_names: cannot read names.txt: is not UTF-8" in refusal(npz(), str(names))
    assert "cannot read absent.txt: no such file" in refusal(npz(), str(tmp_path / "absent.txt"))


def test_a_folder_of_images_is_read_in_sorted_order(image_folder):
    data = load_dataset(f"folder:{image_folder}")
    assert isinstance(data, ImageFolder)
    assert data.classnames == ["grey ramp", "noise", "palette", "see through glass"]
    assert data.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert data.image_ids[:3] == ["grey_ramp/a.png", "grey_ramp/b.jpg", "noise/0.png"]
    assert "palette/deeper/b.png" in data.image_ids
    assert len(data.paths) == len(data.digests) == len(set(data.digests)) == 10


def test_other_files_and_hidden_ones_are_no_images(image_folder):
    before = load_dataset(f"folder:{image_folder}")
    (image_folder / "noise" / "notes.txt").write_text("x")
    (image_folder / "noise" / "._0.png").write_bytes(b"what a Mac leaves beside a copied file")
    (image_folder / ".thumbnails").mkdir()
    (image_folder / "readme.png").write_bytes(b"x")
    assert load_dataset(f"folder:{image_folder}").image_ids == before.image_ids


@pytest.mark.parametrize("load", [load_dataset, load_images])
def test_a_book_in_the_folder_of_images_is_no_class(load, image_folder):
    before = load(f"folder:{image_folder}")
    for name in ("book", "html"):
        own_folders.emptied(image_folder / name)
        (image_folder / name / "figure.png").write_bytes(before.paths[0].read_bytes())
    data = load(f"folder:{image_folder}")
    assert (data.classnames, data.image_ids) == (before.classnames, before.image_ids)
    assert "folders that cmm made are left out: book, html" in data.remarks


def test_a_book_in_a_folder_of_images_alone_is_left_out(image_folder, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    alone = image_folder / "noise"
    before = load_dataset(f"folder:{alone}", str(tmp_path / "names.txt"))
    own_folders.emptied(alone / "book")
    (alone / "book" / "figure.png").write_bytes(before.paths[0].read_bytes())
    data = load_dataset(f"folder:{alone}", str(tmp_path / "names.txt"))
    assert data.image_ids == before.image_ids
    assert data.remarks == ["folders that cmm made are left out: book"]


def test_a_class_folder_without_images_is_an_empty_class(image_folder):
    (image_folder / "aardvark").mkdir()
    data = load_dataset(f"folder:{image_folder}")
    assert data.classnames[0] == "aardvark"
    assert torch.bincount(data.labels, minlength=5).tolist() == [0, 2, 3, 2, 3]


def test_a_folder_is_known_by_its_content(image_folder, tmp_path):
    before = load_dataset(f"folder:{image_folder}").digest
    moved = image_folder.rename(tmp_path / "elsewhere")
    assert load_dataset(f"folder:{moved}").digest == before
    (moved / "noise" / "2.bmp").rename(moved / "palette" / "2.bmp")
    assert load_dataset(f"folder:{moved}").digest != before


@pytest.mark.parametrize("content", [[], ["one/"], ["one/", "two/"], ["one/a.txt", "two/b.txt"]])
def test_a_folder_without_classes_of_images_is_refused(tmp_path, content):
    root = tmp_path / "empty"
    root.mkdir()
    for name in content:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    message = refusal(f"folder:{root}")
    assert "0 images" in message
    assert "folder empty" in message


def test_images_alone_are_a_set_without_labels_once_their_classes_are_named(image_folder, tmp_path):
    alone = image_folder / "noise"
    message = refusal(f"folder:{alone}")
    assert "folder noise holds 3 images and no class folders" in message
    assert "--class-names FILE" in message
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    data = load_dataset(f"folder:{alone}", str(tmp_path / "names.txt"))
    assert isinstance(data, ImageFolder)
    assert data.labels is None
    assert data.classnames == ["cat", "dog"]
    assert data.image_ids == ["0.png", "1.jpeg", "2.bmp"]
    assert data.digest != load_dataset(f"folder:{alone}", str(tmp_path / "names.txt")).pick([0, 1]).digest


def test_the_split_of_a_folder_is_a_folder_in_it(image_folder):
    root = image_folder.parent / "set"
    root.mkdir()
    image_folder.rename(root / "val")
    data = load_dataset(f"folder:{root}", split="val")
    assert (data.name, data.split, len(data)) == ("set", "val", 10)
    (root / "train").mkdir()
    for asked, hint in (("test", ""), ("VAL", "; did you mean 'val'?")):
        said = f"split: folder set has no folder {asked!r}: it has train, val{hint}"
        for load in (load_dataset, load_images):
            with pytest.raises(InputError) as error:
                load(f"folder:{root}", split=asked)
            assert str(error.value) == said


def test_a_split_that_is_not_there_names_a_few_of_many_folders_or_none(tmp_path):
    (tmp_path / "few").mkdir()
    with pytest.raises(InputError, match=r"no folder 'val': it has none, so leave it out$"):
        load_dataset(f"folder:{tmp_path / 'few'}", split="val")
    for c in range(40):
        (tmp_path / "many" / f"{c:02d}").mkdir(parents=True)
    (tmp_path / "many" / "Val").mkdir()
    with pytest.raises(InputError, match=r"no folder 'val': it has 00, 01, 02 and 38 more; did you mean 'Val'\?$"):
        load_dataset(f"folder:{tmp_path / 'many'}", split="val")


def test_what_has_no_splits_says_so(npz):
    for name in (npz(), "blazon"):
        with pytest.raises(InputError, match=r"^split: \w+ has no split 'test': it has none, so leave it out$"):
            load_dataset(name, split="test")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "no folder" in refusal(f"folder:{tmp_path / 'absent'}")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file" in refusal(f"folder:{tmp_path / 'file'}")


def test_names_of_the_data_itself_in_another_order_are_refused(image_folder, tmp_path):
    own = sorted(path.name for path in image_folder.iterdir() if path.is_dir())
    other = [*own[:-2], own[-1], own[-2].upper()]
    (tmp_path / "names.txt").write_text("\n".join(other))
    said = refusal(f"folder:{image_folder}", class_names=str(tmp_path / "names.txt"))
    c = len(own) - 1
    assert f"names.txt has the data set's own names in another order: class {c} is {own[-2]} in the data and" in said
    (tmp_path / "names.txt").write_text("\n".join(name.upper() for name in own))
    assert load_dataset(f"folder:{image_folder}", str(tmp_path / "names.txt")).classnames == [n.upper() for n in own]


def test_folders_whose_names_differ_from_the_given_ones_are_shown_first(image_folder, tmp_path):
    own = sorted(path.name for path in image_folder.iterdir() if path.is_dir())
    (tmp_path / "names.txt").write_text("\n".join([*own[:-1], "another"]))
    (line,) = [
        line
        for line in load_dataset(f"folder:{image_folder}", str(tmp_path / "names.txt")).remarks
        if line.startswith("class folders and names")
    ]
    assert line.startswith(f"class folders and names, in order: {own[-1]} = another, {own[0]} = {own[0]}")


def test_an_image_that_vanishes_is_told_by_its_path(image_folder, monkeypatch):
    def gone(root, files):
        raise PermissionError(13, "Permission denied", str(image_folder / "noise" / "0.png"))

    monkeypatch.setattr("cmmlib.data.folders.file_digests", gone)
    assert refusal(f"folder:{image_folder}") == f"cannot read {image_folder / 'noise' / '0.png'}: permission denied"


@pytest.mark.parametrize("rows", [1, 16384, 16385, 40000])
def test_the_first_bad_row_is_found_wherever_it_is(rows):
    x = torch.ones(rows, 2, dtype=torch.float16)
    check_embeddings(x, "x")
    x[rows - 1, 1] = torch.nan
    with pytest.raises(InputError, match=rf"^x row {rows - 1} has NaN or Inf"):
        check_embeddings(x, "x")
    x[rows // 2] = 0
    with pytest.raises(InputError, match=rf"^x row {rows // 2} has a zero-length embedding"):
        check_embeddings(x, "x")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1e-20, torch.float32, r"values up to 1e-20, too small for float32"),
        (1e-300, torch.float64, r"values up to 1e-300, too small for float32"),
        (1e300, torch.float64, r"values up to 1e\+300, too large for float32"),
        (2e38, torch.float32, r"values up to 2e\+38, too large for float32"),
    ],
)
def test_rows_that_float32_cannot_scale_are_told_with_their_size(value, kind, expected):
    x = torch.ones(4, 3, dtype=kind)
    x[2] = -value
    with pytest.raises(InputError, match=f"^x row 2 has {expected}: scale the embeddings to unit norm first"):
        check_embeddings(x, "x")
    x[1, 1] = torch.nan
    with pytest.raises(InputError, match=r"^x row 1 has NaN or Inf"):
        check_embeddings(x, "x")


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "images", "heads"),
    [("dtd_vitb32.npz", (2820, 512), (1, 47, 512)), ("pets25_vitb32.npz", (2483, 512), (2, 25, 512))],
)
def test_the_real_embeddings_load(real_data, file, images, heads):
    data = load_dataset(f"embeddings:{real_data / file}")
    assert data.image_features.shape == images
    assert data.text_features.shape == heads
    assert len(data.classnames) == heads[1]
    assert len(data.prompts) == heads[0]
    assert len(torch.unique(data.labels)) == heads[1]
    assert data.stored_as == "float16"
    assert data.logit_scale == 100
    assert torch.allclose(data.image_features.norm(dim=1), torch.ones(images[0]), atol=1e-6)


@pytest.mark.real
def test_the_real_textures_have_the_accuracy_that_their_source_states(real_data):
    data = load_dataset(f"embeddings:{real_data / 'dtd_vitb32.npz'}")
    right = (data.image_features @ data.text_features[0].T).argmax(1) == data.labels
    assert round(float(right.double().mean()), 5) == 0.44787


def test_names_in_two_dimensions_are_refused(npz):
    assert "classnames has shape [1, 3], expected" in refusal(npz(classnames=np.array([["cat", "dog", "sea lion"]])))


def test_an_array_that_is_there_twice_is_named(tmp_path):
    path = tmp_path / "twice.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("labels.npy", archive.read("labels.npy"))
    with pytest.raises(InputError, match=r"twice\.npz holds labels twice: keep one of each"):
        load_dataset(f"embeddings:{path}")


def joined(path: Path, *more: np.ndarray) -> str:
    """An .npz whose labels were saved with other arrays into one member."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays().items():
            stream = io.BytesIO()
            for array in (value, *(more if key == "labels" else ())):
                np.save(stream, array)
            archive.writestr(f"{key}.npy", stream.getvalue())
    return f"embeddings:{path}"


def test_a_member_with_more_than_its_array_is_refused(npz, tmp_path):
    assert load_dataset(joined(tmp_path / "one.npz")).labels.equal(load_dataset(npz()).labels)
    said = refusal(joined(tmp_path / "two.npz", np.zeros(3)))
    assert said == "two.npz: labels has bytes after its array: save one array as labels, no more"


@pytest.mark.parametrize("key", ["image_features", "text_features", "labels"])
def test_a_text_in_the_place_of_an_array_is_refused(key, npz):
    """A member of the archive without the ending .npy may be a text, as a name of a model is."""
    path = Path(npz(**{key: None}).partition(":")[2])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(key, b"0 1 2")
    assert refusal(f"embeddings:{path}") == f"{path.name}: {key} is no array: save the file again with numpy.savez"
    if key == "image_features":
        with pytest.raises(InputError, match=r"image_features is no array"):
            load_image_embeddings(path)


def test_a_models_name_may_be_a_text_in_the_archive(npz):
    path = Path(npz(backbone=None).partition(":")[2])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("backbone", b"ViT-B-32")
    assert load_dataset(f"embeddings:{path}").backbone == "ViT-B-32"


def test_files_in_one_are_refused(npz, safetensors):
    for name in (npz(), safetensors()):
        path = Path(name.removeprefix("embeddings:"))
        content = path.read_bytes()
        for odd in (content + content, content + b"x", b"x" + content):
            path.write_bytes(odd)
            assert path.name in refusal(name)
    name = npz()
    path = Path(name.removeprefix("embeddings:"))
    path.write_bytes(path.read_bytes() * 2)  # of which numpy reads the last
    assert "is several files in one, or has bytes after its end" in refusal(name)
    npz()
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"mine"
    assert len(load_dataset(name).image_features)


def test_a_header_with_a_key_twice_is_refused(safetensors):
    name = safetensors()
    path = Path(name.removeprefix("embeddings:"))
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode().rstrip()
    twice = header[:-1] + ',"labels":' + json.dumps(json.loads(header)["labels"]) + "}"
    path.write_bytes(len(twice).to_bytes(8, "little") + twice.encode() + content[8 + size :])
    assert "holds labels twice: keep one of each" in refusal(name)


@pytest.mark.parametrize("key", ["logit_scale", "labels"])
def test_a_tensor_that_is_in_the_metadata_too_is_refused(key, tmp_path):
    unit = np.eye(6, dtype=np.float32)
    tensors = {"image_features": unit[:5], "text_features": unit[:3], "labels": np.zeros(5, int)}
    tensors |= {"logit_scale": np.array(100.0)}
    save_file(tensors, tmp_path / "x.safetensors", {"classnames": '["a", "b", "c"]', key: "30"})
    said = refusal(f"embeddings:{tmp_path / 'x.safetensors'}")
    assert f"x.safetensors holds {key} twice, as a tensor and in its metadata: keep one of each" in said


def test_metadata_that_is_no_json_is_named(safetensors, tmp_path):
    save_file({"image_features": np.ones((2, 2), np.float32)}, tmp_path / "bad.safetensors", {"classnames": "a,b,c"})
    assert "classnames in the metadata is no JSON" in refusal(f"embeddings:{tmp_path / 'bad.safetensors'}")


@pytest.mark.parametrize("key", ["labels", "image_features", "text_features"])
def test_numbers_in_the_metadata_are_not_passed_by(key, tmp_path):
    tensors = {name: array for name, array in arrays().items() if array.dtype.kind in "fi" and array.ndim}
    texts = {"classnames": json.dumps(["a", "b", "c"]), key: "[0, 1, 2, 2, 1]"}
    del tensors[key]
    save_file(tensors, tmp_path / "mine.safetensors", texts)
    said = refusal(f"embeddings:{tmp_path / 'mine.safetensors'}")
    assert said == f"mine.safetensors has {key} in its metadata, as text: save it as a tensor"


@pytest.mark.parametrize(
    ("scale", "looks"),
    [
        (0.01, "a temperature: store 1 / temperature"),
        (0.07, "a temperature: store 1 / temperature"),
        (4.6052, "the logarithm of it: store exp(logit_scale)"),
        (1, None),
        (14.3, None),
        (100, None),
    ],
)
def test_a_scale_that_looks_like_another_number_is_told(scale, looks, written):
    data = load_dataset(written(logit_scale=np.float32(scale)))
    (line,) = data.remarks or [None]
    assert line is None if looks is None else line.endswith(f"logit_scale is {scale:.3g}, which looks like {looks}")
    assert data.logit_scale == pytest.approx(scale)


@pytest.mark.parametrize("split", ["../other", "..", "val/../../other"])
def test_a_split_lies_in_its_folder(split, tmp_path):
    for folder in ("images/val/cat", "other/dog"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / folder / "1.png")
    with pytest.raises(InputError, match="leads out of images"):
        load_dataset(f"folder:{tmp_path / 'images'}", split=split)
