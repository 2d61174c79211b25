"""torchvision's sets, from small files in the format of the published ones; and what is said when files are missing."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import sys
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from data_sets import WRITERS, image
from torchvision import datasets

from cmmlib.data import torchvision
from cmmlib.data.load import ImageSet, load_dataset, load_images
from cmmlib.data.torchvision import SOURCES
from cmmlib.errors import InputError

# class names, and the labels in the order of the images: class by class, except for arrays of pixels
EXPECTED = {
    "cifar10": (["airplane", "automobile", "bird"], [0, 1, 2, 0, 1, 2]),
    "cifar100": (["apple", "aquarium fish", "baby"], [0, 1, 2, 0, 1, 2]),
    "dtd": (["banded", "polka-dotted"], [0, 0, 1, 1]),
    "eurosat": (["AnnualCrop", "Forest", "SeaLake"], [0, 0, 1, 2]),
    "fgvc_aircraft": (["707-320", "A300B4", "An-12"], [0, 0, 2]),
    "food101": (["apple pie", "waffles"], [0, 1, 1]),
    "pets": (["Abyssinian", "American Bulldog"], [0, 0, 1]),
    "cars": (["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], [0, 0, 1]),
    "sun397": (["abbey", "apartment building outdoor"], [0, 0, 1]),
    "caltech101": (["Faces easy", "yin yang"], [0, 1, 1]),
}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def names(tmp_path) -> str:
    (tmp_path / "names.txt").write_text("first\nsecond\nthird\n")
    return str(tmp_path / "names.txt")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No host answers, and the clip-benchmark package is not installed, whatever is true here."""

    def refuse(url, timeout):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(torchvision, "find_spec", lambda name: None)


def load(name: str, root: Path, **more) -> ImageSet:
    data = load_dataset(name, root=root, **more)
    assert isinstance(data, ImageSet)
    return data


def refusal(name: str, root: Path, **more) -> str:
    with pytest.raises(InputError) as error:
        load(name, root, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_is_read_from_its_published_format(name, root, monkeypatch):
    WRITERS[name](root, monkeypatch)
    data = load(name, root)
    assert (data.classnames, data.labels.tolist()) == EXPECTED[name]
    assert (data.name, data.split) == (name, (SOURCES[name].splits or (None,))[0])
    assert len(set(data.digests)) == len(data.image_ids) == len(data)
    for i in range(len(data)):
        assert data.read(i).mode == "RGB"
    assert not any(str(root) in called for called in data.image_ids)
    assert data.digest == load(SOURCES[name].cls, root).digest  # torchvision's own name is as good


def test_every_known_set_has_a_test_of_its_format():
    assert set(WRITERS) == set(SOURCES) == {*EXPECTED, "flowers", "gtsrb", "country211"}


def test_flowers_have_the_names_that_torchvision_brings(root, monkeypatch):
    WRITERS["flowers"](root, monkeypatch)
    data = load("flowers", root)
    assert data.labels.tolist() == [0, 0, 101]
    assert data.image_ids[0] == "flowers-102/jpg/image_00002.jpg"
    assert (data.classnames[0], data.classnames[101]) == ("pink primrose", "blackberry lily")
    assert load("flowers", root, split="val").labels.tolist() == [6, 6]


def test_pixels_and_labels_of_cifar_are_those_of_the_batch(root, monkeypatch):
    WRITERS["cifar100"](root, monkeypatch)
    batch = pickle.loads((root / "cifar-100-python" / "test").read_bytes())  # noqa: S301 - written above
    data = load("cifar100", root)
    expected = batch["data"][4].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(data.read(4)), expected)
    assert len(load("cifar100", root, split="train")) == 4


@pytest.mark.parametrize("name", ["gtsrb", "country211"])
def test_a_set_that_does_not_name_its_classes_in_words_needs_a_file(name, root, names, tmp_path, monkeypatch):
    WRITERS[name](root, monkeypatch)
    message = refusal(name, root)
    assert f"class_names: {name} does not name its classes in words" in message
    assert "--class-names FILE" in message
    if name == "country211":
        Path(names).write_text("Andorra\nUnited Arab Emirates\n")
    data = load(name, root, class_names=names)
    assert data.classnames == Path(names).read_text().split("\n")[:-1]
    assert data.labels.tolist() == {"gtsrb": [0, 1, 2], "country211": [0, 1, 1]}[name]
    Path(names).write_text("only\n")
    assert "1 names, but" in refusal(name, root, class_names=names)


def test_a_file_of_names_replaces_the_sets_own(root, names, monkeypatch):
    WRITERS["eurosat"](root, monkeypatch)
    assert load("eurosat", root, class_names=names).classnames == ["first", "second", "third"]


OWN_NAMES = (
    "cifar10",
    "cifar100",
    "dtd",
    "eurosat",
    "fgvc_aircraft",
    "flowers",
    "pets",
    "cars",
    "sun397",
    "caltech101",
)


@pytest.mark.parametrize("name", OWN_NAMES)
def test_a_sets_own_names_in_another_order_are_refused(name, root, names, monkeypatch):
    WRITERS[name](root, monkeypatch)
    own = load(name, root).classnames
    Path(names).write_text("\n".join([own[1].upper(), own[0].replace(" ", "_"), *own[2:]]))
    said = refusal(name, root, class_names=names)
    assert f"in another order: class 1 is {own[0]} in the data and {own[1].upper()} in the file: sort the lines" in said
    Path(names).write_text("\n".join(name.upper() for name in own))
    assert load(name, root, class_names=names).classnames == [name.upper() for name in own]


def test_given_names_are_as_many_as_a_sets_own(root, names, monkeypatch):
    WRITERS["cifar10"](root, monkeypatch)
    for given in (2, 4):
        Path(names).write_text("".join(f"name {c}\n" for c in range(given)))
        said = f"class_names: {given} names, but cifar10 has 3 classes: give one name a class, in class order"
        assert refusal("cifar10", root, class_names=names) == said


def test_names_with_slashes_in_another_order_are_refused(root, names, monkeypatch):
    WRITERS["fgvc_aircraft"](root, monkeypatch)
    (root / "fgvc-aircraft-2013b" / "data" / "variants.txt").write_text("707-320\nAn-12\nDC-3/C-47\n")
    Path(names).write_text("707-320\nDC-3/C-47\nAn-12\n")
    assert "class 2 is An-12 in the data and DC-3/C-47 in the file" in refusal("fgvc_aircraft", root, class_names=names)


def test_images_are_in_one_order_however_the_file_system_lists_them(root, monkeypatch):
    WRITERS["sun397"](root, monkeypatch)
    here = load("sun397", root).image_ids
    listing = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(listing(self, pattern))))
    assert load("sun397", root).image_ids == here


def test_an_unknown_split_lists_the_known_ones(root):
    assert refusal("dtd", root, split="dev") == "split: dtd has no split 'dev': it has test, val, train"
    assert "split: eurosat has no split 'test': it has none" in refusal("eurosat", root, split="test")


# ---------------------------------------------------------------- clip-benchmark's names and templates


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """The clip-benchmark package as it is installed: names and templates in JSON files, by data set."""
    folder = tmp_path / "site" / "clip_benchmark" / "datasets"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError('is read, not imported')")
    classnames = {
        "country211": ["Andorra", "United Arab Emirates"],
        "gtsrb": ["20 kph", "30 kph", "50 kph"],
        "caltech101": ["background", "centered face", "yin and yang symbol"],
        "eurosat": ["of", "another", "number", "of classes"],
    }
    templates = {"country211": ["a photo i took in {c}."], "caltech101": ["the {c}.", "a {c}"]}
    (folder / "en_classnames.json").write_text(json.dumps(classnames))
    (folder / "en_zeroshot_classification_templates.json").write_text(json.dumps(templates))
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "clip_benchmark", raising=False)  # the real one, of another test
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.parametrize(
    ("name", "classnames", "templates"),
    [
        ("country211", ["Andorra", "United Arab Emirates"], ["a photo i took in {}."]),
        ("gtsrb", ["20 kph", "30 kph", "50 kph"], None),
        ("caltech101", ["centered face", "yin and yang symbol"], ["the {}.", "a {}"]),  # without the background
        ("eurosat", ["AnnualCrop", "Forest", "SeaLake"], None),  # names that do not fit are not taken
        ("dtd", ["banded", "polka-dotted"], None),
    ],
)
def test_clip_benchmarks_names_and_templates_are_taken_where_they_fit(
    benchmark, name, classnames, templates, root, monkeypatch
):
    WRITERS[name](root, monkeypatch)
    data = load(name, root)
    assert (data.classnames, data.templates) == (classnames, templates)


def test_it_is_told_whose_names_and_templates_are_used(benchmark, root, names, monkeypatch):
    for name in ("caltech101", "gtsrb", "dtd"):
        WRITERS[name](root, monkeypatch)
    theirs = "are those of the package clip-benchmark"
    assert load("caltech101", root).remarks == [f"class names and templates {theirs}"]
    assert load("gtsrb", root).remarks == [f"class names {theirs}"]
    assert load("dtd", root).remarks == []
    Path(names).write_text("face\nsymbol\n")
    assert load("caltech101", root, class_names=names).remarks == [f"templates {theirs}"]


def test_without_the_package_it_is_told_what_it_would_change(root, names, monkeypatch):
    for name in ("eurosat", "dtd"):
        WRITERS[name](root, monkeypatch)
    (line,) = load("eurosat", root).remarks
    assert line.startswith(
        "the package clip-benchmark, which is not installed, has other class names and templates for eurosat"
    )
    (line,) = load("dtd", root).remarks
    assert "has other templates for dtd, and other results: pip install 'cmmlib[benchmark]'" in line
    assert "class names" not in " ".join(load("eurosat", root, class_names=names).remarks)
    assert load_images("eurosat", root=root).remarks == []  # neither names nor templates are used


def test_the_package_has_other_names_and_templates_for_the_sets_that_are_said(monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("clip_benchmark")
    for name, source in SOURCES.items():
        words, templates = torchvision.benchmark_words(name, source.skip)
        assert templates
        assert (words is not None) == (source.is_renamed or not source.has_names), name


def test_clip_benchmarks_names_in_another_order_are_refused(benchmark, root, names, monkeypatch):
    WRITERS["caltech101"](root, monkeypatch)
    WRITERS["gtsrb"](root, monkeypatch)
    Path(names).write_text("yin and yang symbol\ncentered face\n")
    assert "class 1 is centered face in the data" in refusal("caltech101", root, class_names=names)
    Path(names).write_text("yin yang\nFaces_easy\n")  # the set's own, which are not used here
    assert "class 1 is Faces easy in the data" in refusal("caltech101", root, class_names=names)
    Path(names).write_text("20 kph\n50 kph\n30 kph\n")
    assert "class 2 is 30 kph in the data" in refusal("gtsrb", root, class_names=names)


# ---------------------------------------------------------------- files that are missing, or not the published ones


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_set_offline_is_one_line_at_once_and_leaves_nothing(name, exists, root):
    if exists:
        root.mkdir()
    start = time.perf_counter()
    message = refusal(name, root)
    assert time.perf_counter() - start < 5
    assert message.startswith(f"{name}: no whole copy in {root}, and ")
    assert ("does not answer" in message) == (SOURCES[name].host is not None)
    assert message.endswith("--data-root")
    assert root.exists() == exists
    assert not list(root.parent.rglob("*"))[exists:]


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.host])
def test_the_host_that_is_asked_is_the_one_that_torchvision_fetches_from(name):
    module = inspect.getmodule(getattr(datasets, SOURCES[name].cls))
    assert f'"{SOURCES[name].host}/' in inspect.getsource(module)


def test_a_pickle_with_another_checksum_is_never_opened(root, monkeypatch, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    WRITERS["cifar10"](root, monkeypatch)
    for file in ("test_batch", "batches.meta"):
        content = (root / "cifar-10-batches-py" / file).read_bytes()
        (root / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(Trap()))
        assert "no whole copy" in refusal("cifar10", root)
        assert not (tmp_path / "sprung").exists()
        (root / "cifar-10-batches-py" / file).write_bytes(content)
    assert len(load("cifar10", root)) == 6


def test_files_of_another_format_are_one_line(root, monkeypatch):
    WRITERS["pets"](root, monkeypatch)
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("Abyssinian_1 1\n")
    assert f"pets: the files in {root} are not the published ones: " in refusal("pets", root)
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("")
    assert "pets: its files list no image" in refusal("pets", root)
    (root / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("Abyssinian_9 1 1 1\n")
    assert "Abyssinian_9.jpg: no such file" in refusal("pets", root)


def test_a_download_overwrites_no_file_that_is_there(root, monkeypatch):
    monkeypatch.setattr(torchvision, "host_responds", lambda url: True)

    def whole(self):
        for name in ("Forest/1.jpg", "River/2.jpg"):
            image(Path(self.root) / "eurosat" / "2750" / name)
        (Path(self.root) / "eurosat" / "list.txt").write_text("published")

    monkeypatch.setattr(datasets.EuroSAT, "download", whole)
    mine = root / "eurosat" / "list.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    assert refusal("eurosat", root).startswith(f"eurosat: {mine} is not the published file: move it away")
    assert [path.name for path in root.rglob("*")] == ["eurosat", "list.txt"]
    assert mine.read_text() == "my own"
    mine.write_text("published")
    assert len(load("eurosat", root)) == 2


def test_a_set_is_fetched_once_and_whole(root, monkeypatch):
    """What a download brings is moved into place when it is complete; one that breaks leaves nothing behind."""
    monkeypatch.setattr(torchvision, "host_responds", lambda url: True)
    folders: list[Path] = []

    def broken(self):
        image(Path(self.root) / "eurosat" / "2750" / "Forest" / "1.jpg")
        raise urllib.error.URLError("connection lost")

    def whole(self):
        folders.append(Path(self.root))
        for name in ("Forest/1.jpg", "River/2.jpg"):
            image(Path(self.root) / "eurosat" / "2750" / name)

    monkeypatch.setattr(datasets.EuroSAT, "download", broken)
    message = refusal("eurosat", root)
    assert message == "eurosat: could not be fetched from https://huggingface.co: <urlopen error connection lost>"
    assert list(root.iterdir()) == []
    monkeypatch.setattr(datasets.EuroSAT, "download", whole)
    for _ in range(2):
        assert load("eurosat", root).image_ids == ["eurosat/2750/Forest/1.jpg", "eurosat/2750/River/2.jpg"]
    assert len(folders) == 1
    assert folders[0] != root
    assert [path.name for path in root.iterdir()] == ["eurosat"]


def test_an_empty_folder_of_the_users_stays(root, monkeypatch):
    WRITERS["eurosat"](root, monkeypatch)
    (root / "caltech101").mkdir()
    load("eurosat", root)
    assert "caltech101" in refusal("caltech101", root)
    assert (root / "caltech101").is_dir()


def test_a_label_that_no_class_has_is_refused(root, monkeypatch):
    WRITERS["pets"](root, monkeypatch)
    listed = root / "oxford-iiit-pet" / "annotations" / "test.txt"
    listed.write_text(listed.read_text().replace("Abyssinian_2 1", "Abyssinian_2 0"))
    assert "a label of -1" in refusal("pets", root)


def test_a_name_that_is_no_text_is_refused(root, monkeypatch):
    WRITERS["eurosat"](root, monkeypatch)
    image(root / "eurosat" / "2750" / os.fsdecode(b"caf\xe9") / "caf\xe9_1.jpg")
    assert r"the name b'caf\xe9' is not UTF-8 text: rename it" in refusal("eurosat", root)
