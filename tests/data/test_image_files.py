"""Which files are images, what is said of the others, and images of every number format."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import refusal
from PIL import Image

from cmmlib.data import pictures
from cmmlib.data.folders import load_folder, load_unlabelled_folder
from cmmlib.data.image_files import by_ending, check_utf8, decode, files_below, formats, is_junk, suffixes
from cmmlib.data.load import load_dataset, of_labels
from cmmlib.errors import InputError


def picture(value: int = 100) -> Image.Image:
    return Image.fromarray(np.full((6, 8, 3), value, dtype=np.uint8))


@pytest.fixture
def birds(tmp_path) -> Path:
    """A folder of two class folders with two images each."""
    for c, name in enumerate(("crow", "owl")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for n in range(2):
            picture(2 * c + n).save(tmp_path / "birds" / name / f"{n}.png")
    return tmp_path / "birds"


def refused(*arguments, **more) -> str:
    with pytest.raises(InputError) as error:
        load_dataset(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_of_several_pictures_are_told(birds):
    for name in ("moving.gif", "pages.tiff", "moving.webp", "two.mpo"):
        picture().save(birds / "owl" / name, save_all=True, append_images=[picture(200)])
    picture().save(birds / "owl" / "still.gif")
    line = "files of several pictures, of which the first is read, 4: moving.gif, moving.webp, pages.tiff and 1 more"
    assert line in load_folder(birds).remarks
    assert line in load_unlabelled_folder(birds).remarks


def test_of_many_files_that_may_hold_several_pictures_some_are_looked_at(birds, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_OPENED", 2)
    for i in range(5):
        picture().save(birds / "owl" / f"{i}.gif", save_all=True, append_images=[picture(200)])
    told = "files of several pictures, of which the first is read, 2 of 2 that were looked at: 0.gif, 3.gif"
    assert told in load_folder(birds).remarks


@pytest.mark.parametrize(
    "place",
    [
        ".git/0.png",
        "crow/.ipynb_checkpoints/0.png",
        "crow/@eaDir/0.png/thumb.jpg",
        "__MACOSX/crow/._0.png",
        "crow/._0.png",
    ],
)
def test_what_systems_leave_behind_is_no_data_at_any_depth(place, birds):
    (birds / place).parent.mkdir(parents=True, exist_ok=True)
    picture().save(birds / place)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (birds / "owl" / name).write_bytes(b"0")
    data = load_folder(birds)
    assert (data.classnames, data.labels.tolist(), data.remarks) == (["crow", "owl"], [0, 0, 1, 1], [])
    assert len(load_unlabelled_folder(birds)) == 4


def test_names_that_begin_with_a_dot_are_told(birds):
    (birds / ".net").mkdir()
    for place in (".net/0.png", "crow/.hidden.png", "owl/.notes"):
        picture().save(birds / place, "PNG")
    data = load_folder(birds)
    assert (data.classnames, len(data.labels)) == (["crow", "owl"], 4)
    assert data.remarks == [
        "images whose names begin with a dot are left out: .hidden.png",
        "folders of images whose names begin with a dot are left out: .net",
    ]


def test_images_in_folders_that_begin_with_a_dot_are_told_at_any_depth(birds, tmp_path):
    """And in every layout: class folders, images alone, and a folder of new images."""
    tools = ("crow/.thumbnails/0.png", "owl/.git/deep/1.png", "crow/.Trash-1000/files/2.png", "owl/.extra/._0.png")
    for place in ("crow/.extra/deep/0.png", "owl/night/.more/1.png", ".beside.png", *tools):
        (birds / place).parent.mkdir(parents=True, exist_ok=True)
        picture().save(birds / place)
    (birds / "owl" / ".notes").mkdir()
    folders = "folders of images whose names begin with a dot are left out: .extra, .more"
    hidden = "images whose names begin with a dot are left out: .beside.png"
    data = load_folder(birds)
    assert (data.classnames, len(data), data.remarks) == (["crow", "owl"], 4, [hidden, folders])
    assert load_unlabelled_folder(birds).remarks == [hidden, folders]
    alone = load_folder(birds / "crow", names=["a", "b"])
    assert (len(alone), alone.labels) == (2, None)
    assert alone.remarks == ["folders of images whose names begin with a dot are left out: .extra"]
    (tmp_path / "nothing" / ".extra").mkdir(parents=True)
    picture().save(tmp_path / "nothing" / ".extra" / "0.png")
    with pytest.raises(InputError, match=r"holds no image .*; folders of images .* are left out: \.extra$"):
        load_unlabelled_folder(tmp_path / "nothing")


@pytest.mark.parametrize("part", ["crow", "my.class", "Thumbs", "MACOSX", "@home"])
def test_other_names_are_data(part):
    assert not is_junk(part)


@pytest.mark.parametrize("ending", ["avif", "jfif", "jp2", "tga", "webp", "JPG", "pgm"])
def test_every_ending_that_pillow_reads_is_read(ending, birds):
    assert f".{ending.lower()}" in suffixes()
    kind = {"jfif": "JPEG", "JPG": "JPEG", "pgm": "PPM"}.get(ending)
    picture().convert("L" if ending == "pgm" else "RGB").save(birds / "owl" / f"x.{ending}", kind)
    data = load_folder(birds)
    assert (len(data), data.remarks) == (5, [])
    assert abs(int(np.asarray(data.read(4)).mean()) - 100) < 3


def test_what_is_left_out_is_counted_by_its_ending(birds):
    for name in ("a.heic", "b.HEIC", "notes.txt", "raw", "x.svg"):
        (birds / "crow" / name).write_bytes(b"0")
    (birds / "readme.md").write_text("")
    (line,) = load_folder(birds).remarks
    counted = "2 .heic, 1 .md, 1 .svg, 1 .txt, 1 without an ending"
    assert line == f"files left out, no images that are read here: {counted} (pip install 'cmmlib[heif]' to read them)"
    (line,) = load_unlabelled_folder(birds).remarks
    assert "1 .md" in line
    assert by_ending([]) == []


def test_a_folder_without_an_image_says_what_it_has_and_what_would_read_it(tmp_path):
    for name in ("crow/a.heic", "owl/b.HEIC", "owl/c.psd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "owl" / "d.png").symlink_to("nowhere")
    held = "no images that are read here: 2 .heic, 1 .psd (pip install 'cmmlib[heif]' to read them)"
    left = f"; links that lead nowhere are left out: d.png; files left out, {held}"
    said = refused(f"folder:{tmp_path}")
    needed = "it needs two or more class folders with images"
    assert said == f"folder {tmp_path.name} holds 2 class folders, 0 images: {needed}{left}"
    with pytest.raises(InputError) as error:
        load_unlabelled_folder(tmp_path)
    assert str(error.value).endswith(f".webp){left}")
    assert refused(f"folder:{tmp_path / 'crow'}").endswith(held.replace("2 .heic, 1 .psd", "1 .heic"))


def test_postscript_is_never_opened_whatever_it_is_called(birds):
    """Pillow would hand it to another program."""
    (birds / "owl" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (birds / "owl" / "y.eps").write_bytes(b"%!PS-Adobe-3.0")
    data = load_folder(birds)
    assert data.image_ids[-1] == "owl/x.png"
    with pytest.raises(InputError, match=r"x.png: it is PostScript"):
        data.read(4)


def test_links_that_lead_nowhere_are_named_and_others_followed_once(birds, tmp_path):
    for name in ("crow", "owl"):
        (birds / name / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(birds / "owl" / "pipe.png")
    (birds / "owl" / "round").symlink_to(birds / "owl")
    (tmp_path / "more").mkdir()
    picture().save(tmp_path / "more" / "far.png")
    (birds / "owl" / "far").symlink_to(tmp_path / "more")
    (birds / "raven").symlink_to(tmp_path / "more")
    data = load_folder(birds)
    assert data.classnames == ["crow", "owl", "raven"]
    assert data.image_ids == ["crow/0.png", "crow/1.png", "owl/0.png", "owl/1.png", "owl/far/far.png", "raven/far.png"]
    assert [*data.remarks, *of_labels(data)] == [
        "links that lead nowhere are left out: gone.png",
        "what is no regular file is left out: pipe.png",
        "folders inside class folders, whose images count for the class folder, 1: owl/far (if these are the classes, "
        "lay them side by side in one folder)",
        "images that are in more than one class, byte for byte, 1: raven/far.png = owl/far/far.png",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(birds):
    (birds / "owl").chmod(0)
    try:
        assert "cannot read folder" in refused(f"folder:{birds}")
    finally:
        (birds / "owl").chmod(0o755)


def test_a_name_that_is_not_utf_8_is_named_as_bytes(birds):
    os.mkdir(os.fsencode(birds) + b"/caf\xe9")
    picture().save(os.fsdecode(os.fsencode(birds) + b"/caf\xe9/0.png"))
    assert r"the name b'caf\xe9' is not UTF-8 text: rename it" in refused(f"folder:{birds}")
    assert files_below(birds)


def test_a_name_that_only_the_locale_cannot_read_is_told_so():
    """As under LC_ALL=C without UTF-8 mode, where Python takes the bytes of UTF-8 for ASCII."""
    path = Path("owl", "café".encode().decode("ascii", "surrogateescape"))
    with pytest.raises(InputError, match=r"the name 'caf\\xe9' is UTF-8, and .* set PYTHONUTF8=1"):
        check_utf8([path])


# ---------------------------------------------------------------- number formats


def saved(tmp_path: Path, values: np.ndarray, ending: str) -> Path:
    Image.fromarray(values).save(tmp_path / f"x.{ending}")
    return tmp_path / f"x.{ending}"


RAMP = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        (RAMP.astype(np.uint16) * 257, "png"),
        (RAMP.astype(np.uint16) * 257, "tif"),
        (RAMP.astype(np.int32) * 257, "tif"),
        ((RAMP / 255).astype(np.float32), "tif"),
    ],
)
def test_more_than_eight_bits_are_scaled_and_never_white(values, ending, tmp_path):
    image = decode(saved(tmp_path, values, ending), "x")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 4), 70000, np.int32),
        np.full((4, 4), -1, np.int32),
        np.full((4, 4), 300.0, np.float32),
        np.full((4, 4), np.nan, np.float32),
    ],
    ids=["too large", "negative", "float", "nan"],
)
def test_numbers_of_no_known_scale_are_refused(values, tmp_path):
    with pytest.raises(InputError, match=r"cannot read image x: it holds (numbers|floats) from"):
        decode(saved(tmp_path, values, "tif"), "x")


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_numbers_of_eight_bits_in_more_are_refused(kind, tmp_path):
    bits = 8 * np.dtype(kind).itemsize
    said = f"it holds {bits}-bit numbers up to 255, and does not say whether 255 or 65535 is white; repair"
    with pytest.raises(InputError, match=f"cannot read image x: {said}"):
        decode(saved(tmp_path, RAMP.astype(kind), "tif"), "x")
    assert not np.asarray(decode(saved(tmp_path, np.zeros((4, 4), kind), "tif"), "x")).any()  # black is black


def test_images_of_twelve_bits_are_told(birds):
    for path in birds.rglob("*.png"):
        Image.fromarray(RAMP.astype(np.uint16) * 16).save(path)
    told = (
        "grey values end at 4080 in all 4 images of 16 bits that were looked at, and 65535 is taken for white, so that"
    )
    for data in (load_folder(birds), load_unlabelled_folder(birds)):
        (line,) = data.remarks
        assert line == f"{told} these are nearly black: scale them if white is less (0.png, 0.png, 1.png and 1 more)"
    Image.fromarray(RAMP.astype(np.uint16) * 17).save(birds / "owl" / "0.png")  # white is above 4095
    assert load_folder(birds).remarks == []


def test_of_many_images_that_may_be_of_twelve_bits_few_are_decoded(birds, monkeypatch):
    read = []
    monkeypatch.setattr(pictures, "_highest_grey", lambda file: read.append(file.name))
    for i in range(2, 40):
        picture().save(birds / "owl" / f"{i}.png")
    assert load_folder(birds).remarks == []
    assert 3 <= len(read) <= pictures.MOST_DECODED


TAKE_AN_IMAGES_PLACE = {
    "empty": b"",
    "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
    "a web page": b"\xef\xbb\xbf\r\n<!DOCTYPE html><html><body>404</body></html>",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a zip archive": b"PK\x03\x04\x14\0\0\0",
    "not an image": b"no image",
}


@pytest.mark.parametrize("said", TAKE_AN_IMAGES_PLACE)
def test_what_takes_an_images_place_is_named(said, tmp_path):
    (tmp_path / "a.jpg").write_bytes(TAKE_AN_IMAGES_PLACE[said])
    for file in (tmp_path / "a.jpg", BytesIO(TAKE_AN_IMAGES_PLACE[said])):
        line = refusal(decode, file, "a.jpg")
        assert line.startswith("cannot read image a.jpg: ")
        assert said in line


# ---------------------------------------------------------------- class names


def numbered(root: Path, count: int) -> Path:
    for c in range(count):
        (root / str(c)).mkdir(parents=True)
        picture(c).save(root / str(c) / "0.png")
    return root


def test_folders_of_numbers_are_in_the_order_of_the_numbers(tmp_path):
    root = numbered(tmp_path / "set", 12)
    (tmp_path / "names.txt").write_text("".join(f"thing {c}\n" for c in range(12)))
    data = load_dataset(f"folder:{root}", str(tmp_path / "names.txt"))
    assert [
        (path.parent.name, data.classnames[c]) for path, c in zip(data.paths, data.labels.tolist(), strict=True)
    ] == [(str(c), f"thing {c}") for c in range(12)]
    assert data.remarks == ["class folders and names, in order: 0 = thing 0, 1 = thing 1, 2 = thing 2, ..."]
    (root / "extra").mkdir()
    assert load_folder(root).classnames[:3] == ["0", "1", "10"]  # not all are numbers


def test_wordnet_ids_are_told_to_be_no_names(tmp_path):
    for value, name in enumerate(("n01855672", "n02091244")):
        (tmp_path / "set" / name).mkdir(parents=True)
        picture(value).save(tmp_path / "set" / name / "0.png")
    (line,) = load_folder(tmp_path / "set").remarks
    assert "WordNet ids (n01855672): give --class-names FILE" in line


def test_folders_that_are_splits_and_images_beside_the_class_folders_are_told(tmp_path):
    for value, name in enumerate(("train", "val")):
        (tmp_path / "set" / name / "cat").mkdir(parents=True)
        picture(value).save(tmp_path / "set" / name / "cat" / "0.png")
    picture().save(tmp_path / "set" / "loose.PNG")
    assert load_folder(tmp_path / "set").remarks == [
        "class folders are called train, val: if these are splits, give --split NAME",
        "images outside the class folders are left out: loose.PNG",
    ]


NESTED = "folders inside class folders, whose images count for the class folder"
SIDE_BY_SIDE = "(if these are the classes, lay them side by side in one folder)"


def test_class_folders_inside_class_folders_are_told_with_examples(tmp_path):
    root = tmp_path / "set"
    for value, place in enumerate(("animals/cat", "animals/dog/brown", "plants/oak", "plants/fern", "stones")):
        (root / place).mkdir(parents=True)
        picture(value).save(root / place / "0.png")
    (root / "plants" / "notes").mkdir()
    (root / "plants" / "notes" / "a.txt").write_text("")
    data = load_folder(root)
    assert data.classnames == ["animals", "plants", "stones"]
    assert data.remarks == [
        "files left out, no images that are read here: 1 .txt",
        f"{NESTED}, 4: animals/cat, animals/dog/brown, plants/fern and 1 more {SIDE_BY_SIDE}",
    ]


def test_a_folder_whose_one_folder_holds_the_classes_is_refused_with_that_folder(birds):
    root = birds.parent / "download"
    root.mkdir()
    birds.rename(root / "images")
    said = refused(f"folder:{root}")
    assert said.endswith(f"with images; if those in images are the classes, give folder:{root / 'images'}")
    assert len(load_folder(root / "images")) == 4
    (root / "images" / "owl").rename(root / "owls")  # two class folders: what is inside them is told
    assert load_folder(root).remarks == [f"{NESTED}, 1: images/crow {SIDE_BY_SIDE}"]


def test_class_folders_without_an_image_stay_classes_and_are_told(birds):
    (birds / "emu").mkdir()
    data = load_folder(birds)
    assert (data.classnames, data.remarks, of_labels(data)) == (
        ["crow", "emu", "owl"],
        [],
        ["classes without an image, 1 of 3, which stay classes: emu"],
    )


def test_images_that_links_put_into_two_classes_are_told(birds):
    (birds / "owl" / "up").symlink_to(birds)
    assert of_labels(load_folder(birds)) == [
        "images that are in more than one class, byte for byte, 2: owl/up/crow/0.png = crow/0.png, "
        "owl/up/crow/1.png = crow/1.png"
    ]


def test_accents_of_one_and_of_two_characters_are_the_same_name(birds, tmp_path):
    (birds / "owl").rename(birds / "cafe\u0301")
    assert load_dataset(f"folder:{birds}").classnames == ["caf\u00e9", "crow"]
    (tmp_path / "names.txt").write_text("cafe\u0301\ncrow\n")
    assert load_dataset(f"folder:{birds}", str(tmp_path / "names.txt")).classnames[0] == "caf\u00e9"


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 19])
def test_a_number_of_very_many_digits_is_refused(digits):
    assert "unknown data set" in refused(f"blazon:{digits}")


def test_32_bit_numbers_of_an_unknown_scale_are_refused(birds):
    Image.fromarray(np.arange(48, dtype=np.int32).reshape(6, 8)).save(birds / "owl" / "dark.tif")
    with pytest.raises(InputError, match="32-bit numbers up to 47, and does not say whether 255 or 65535 is white"):
        load_folder(birds).read(4)


def test_an_image_of_too_many_pixels_is_to_be_scaled_down_and_half_as_many_are_read(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")  # 48 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23)
    with pytest.raises(InputError) as error:
        decode(tmp_path / "a.png", "a.png")
    most = "46 pixels, the most that Pillow reads"
    assert str(error.value) == f"cannot read image a.png: it has more than {most}; scale it down or remove it"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24)  # from which Pillow would warn
    formats.cache_clear()
    assert decode(tmp_path / "a.png", "a.png").size == (8, 6)
