"""torchvision's classification sets by name: read from their files as published, fetched where they are not here.

Images are addressed by their files, so that embeddings are cached by content. Class names and templates come from the
clip-benchmark package where it is installed, else from the data set itself.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cmmlib.data.class_names import ONE_NAME_A_CLASS, require_order
from cmmlib.data.folders import image_digests
from cmmlib.data.image_files import check_utf8
from cmmlib.data.images import ImageFolder, ImageSet, PixelArray, choose_split
from cmmlib.data.reading import refused
from cmmlib.errors import InputError, counted, one_line
from cmmlib.storage.network import host_responds
from cmmlib.texts.templates import SLOT


@dataclass(frozen=True)
class Source:
    """A classification set of torchvision.

    Attributes:
        cls: its class in `torchvision.datasets`.
        splits: first the one that is usually evaluated; empty where the set has none.
        host: what torchvision fetches it from; None where nothing is left to fetch.
        has_names: whether its files name the classes in words; else names must come from elsewhere.
        skip: classes of clip-benchmark's list that torchvision leaves out at its beginning.
        is_renamed: whether clip-benchmark has other words for classes that the files name in words; it has templates
            for every set.
    """

    cls: str
    splits: tuple[str, ...] = ()
    host: str | None = None
    has_names: bool = True
    skip: int = 0
    is_renamed: bool = False


SOURCES = {  # by clip-benchmark's names
    "cifar10": Source("CIFAR10", ("test", "train"), "https://www.cs.toronto.edu"),
    "cifar100": Source("CIFAR100", ("test", "train"), "https://www.cs.toronto.edu"),
    "dtd": Source("DTD", ("test", "val", "train"), "https://www.robots.ox.ac.uk"),
    "eurosat": Source("EuroSAT", (), "https://huggingface.co", is_renamed=True),
    "fgvc_aircraft": Source("FGVCAircraft", ("test", "val", "train", "trainval"), "https://www.robots.ox.ac.uk"),
    "flowers": Source("Flowers102", ("test", "val", "train"), "https://www.robots.ox.ac.uk", is_renamed=True),
    "food101": Source("Food101", ("test", "train"), "http://data.vision.ee.ethz.ch"),
    "pets": Source("OxfordIIITPet", ("test", "trainval"), "https://www.robots.ox.ac.uk", is_renamed=True),
    "cars": Source("StanfordCars", ("test", "train")),
    "sun397": Source("SUN397", (), "http://vision.princeton.edu"),
    "caltech101": Source("Caltech101", (), "https://data.caltech.edu", skip=1, is_renamed=True),  # the background
    "gtsrb": Source("GTSRB", ("test", "train"), "https://sid.erda.dk", has_names=False),
    "country211": Source(
        "Country211", ("test", "valid", "train"), "https://openaipublic.azureedge.net", has_names=False
    ),
}
ALIASES = {source.cls.lower(): name for name, source in SOURCES.items()}


def load_torchvision(name: str, root: Path, split: str | None = None, names: list[str] | None = None) -> ImageSet:
    """A data set of torchvision, class by class.

    Args:
        name: a key of `SOURCES`, or torchvision's own name.
        root: folder that holds, or will hold, the set's folder as torchvision lays it out.
        names: class names; needed where neither the set's files nor clip-benchmark have any.

    Raises:
        InputError: an unknown split, files that are missing and cannot be fetched or are not the published ones.
    """
    name = ALIASES.get(name.lower(), name.lower())
    source = SOURCES[name]
    split = choose_split(name, split, source.splits)
    opened = _open(name, source, root, split)
    files, labels = _files_and_labels(name, opened)
    words, templates = benchmark_words(name, source.skip)
    classnames = _class_names(name, source, opened, names, words)
    if max(labels) >= len(classnames):
        raise InputError(
            f"class_names: {len(classnames)} names, but {name} has labels up to {max(labels)}: {ONE_NAME_A_CLASS}"
        )
    if min(labels) < 0:
        raise InputError(f"{name}: its files have a label of {min(labels)}: they are not the published ones")
    check_utf8(files or [])
    fields: dict[str, Any] = {"name": name, "classnames": classnames, "labels": torch.tensor(labels)}
    is_theirs = not names and words is not None and classnames == words
    told = _whose(name, is_theirs, templates is not None, source.is_renamed and not names)
    fields |= {"split": split, "templates": templates, "remarks": told}
    if files is None:
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in opened.data]
        return PixelArray(**fields, digests=digests, pixels=opened.data)
    return ImageFolder(**fields, digests=image_digests(root / name, files), root=root, paths=files)


def _files_and_labels(name: str, opened: Any) -> tuple[list[Path] | None, list[int]]:
    """Files and labels as torchvision's classes keep them, each in its own way; no files for images in one array."""
    if hasattr(opened, "data"):  # CIFAR
        return None, opened.targets
    if hasattr(opened, "categories"):  # Caltech101
        folder = Path(opened.root) / "101_ObjectCategories"
        files = (
            folder / opened.categories[y] / f"image_{i:04d}.jpg" for i, y in zip(opened.index, opened.y, strict=True)
        )
        pairs = zip(files, opened.y, strict=True)
    elif hasattr(opened, "_labels"):
        files = opened._images if hasattr(opened, "_images") else opened._image_files
        pairs = zip(files, opened._labels, strict=True)
    else:
        pairs = opened.samples if hasattr(opened, "samples") else opened._samples
    ordered = sorted((int(label), Path(file)) for file, label in pairs)  # SUN397 comes in the file system's order
    if not ordered:
        raise InputError(f"{name}: its files list no image")
    return [file for _, file in ordered], [label for label, _ in ordered]


def _class_names(name: str, source: Source, opened: Any, given: list[str] | None, words: list[str] | None) -> list[str]:
    """Given names, else clip-benchmark's where they fit, else the set's own, with spaces for _ and /.

    Raises:
        InputError: given names that are not as many as the classes, or are known ones in another order; none at all.
    """
    own = getattr(opened, "classes", None) or getattr(opened, "categories", None)
    own = own and [re.sub("[_/]", " ", word) for word in own]
    words = words if words and (own is None or len(own) == len(words)) else None
    if given:
        for known in filter(None, (own, words)):
            if len(given) != len(known):
                n_classes = counted(len(known), "class", "classes")
                raise InputError(f"class_names: {len(given)} names, but {name} has {n_classes}: {ONE_NAME_A_CLASS}")
            require_order(given, known)
        return given
    if words:
        return words
    if own is None or not source.has_names:
        raise InputError(
            f"class_names: {name} does not name its classes in words: "
            "give --class-names FILE, or install cmmlib[benchmark]"
        )
    return own


def _whose(name: str, has_names: bool, has_templates: bool, is_renamed: bool) -> list[str]:
    """A line on names and templates of clip-benchmark, or on those that it would bring where it is not installed."""
    if find_spec("clip_benchmark") is None:
        what = "class names and templates" if is_renamed else "templates"
        told = f"the package clip-benchmark, which is not installed, has other {what} for {name}, and other results"
        return [f"{told}: pip install 'cmmlib[benchmark]' to have those"]
    theirs = [what for what, is_its in (("class names", has_names), ("templates", has_templates)) if is_its]
    return [f"{' and '.join(theirs)} are those of the package clip-benchmark"] if theirs else []


def benchmark_words(name: str, skip: int = 0) -> tuple[list[str] | None, list[str] | None]:
    """Class names and templates that the clip-benchmark package has for a set; None for what it has not."""
    package = find_spec("clip_benchmark")
    if package is None or not package.origin:
        return None, None
    folder = Path(package.origin).parent / "datasets"

    def entry(file: str) -> list[str] | None:
        return json.loads((folder / f"en_{file}.json").read_text("utf-8")).get(name)

    names, templates = entry("classnames"), entry("zeroshot_classification_templates")
    return names and names[skip:], templates and [text.replace("{c}", SLOT) for text in templates]


# ---------------------------------------------------------------- files: here, or fetched


def _open(name: str, source: Source, root: Path, split: str | None) -> Any:
    """torchvision's own object, without a download where the files are here."""
    try:
        if root.is_dir():  # else Caltech101 would make it
            return _build(source, root, split)
    except RuntimeError:  # torchvision's "not found or corrupted"
        pass
    except Exception as error:  # OSError, ValueError, KeyError, scipy's own: whatever a wrong file leads to
        if cause := _forbidden(error):
            raise InputError(f"{name}: cannot read {cause}") from None
        raise InputError(f"{name}: the files in {root} are not the published ones: {one_line(error)}") from None
    if source.host is None:
        raise InputError(f"{name}: no whole copy in {root}, and it can no longer be fetched: {_REMEDY}")
    if not host_responds(source.host):
        raise InputError(f"{name}: no whole copy in {root}, and {source.host} does not answer: {_REMEDY}")
    try:
        _download(source, root, split)
        return _build(source, root, split)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except Exception as error:  # the network's errors, and torchvision's for a wrong checksum
        if cause := _forbidden(error):
            raise InputError(f"{name}: cannot write {cause}: name another place with --data-root") from None
        raise InputError(f"{name}: could not be fetched from {source.host}: {one_line(error)}") from None


def _forbidden(error: Exception) -> str | None:
    """Which file the system refuses, and why; None for one that is missing, and for the network's errors."""
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    if is_missing or not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return None
    cause = refused(error)
    return cause and f"{os.fsdecode(error.filename)}: {cause}"


_REMEDY = "put its files there as torchvision lays them out, or name their place with --data-root"


def _build(source: Source, root: Path, split: str | None, download: bool = False) -> Any:
    """CIFAR's files are pickles: torchvision compares their checksums before it reads them."""
    from torchvision import datasets

    cls: Any = getattr(datasets, source.cls)
    wanted = {"train": split == "train"} if source.cls.startswith("CIFAR") else {"split": split}
    made = root / "caltech101"
    was_there = made.exists()
    try:
        return cls(root, download=download, **(wanted if source.splits else {}))
    finally:
        with suppress(OSError):  # Caltech101 makes its folder, too, before it looks into it
            if not was_there:
                made.rmdir()


def _download(source: Source, root: Path, split: str | None) -> None:
    """Fetch into a folder beside, then move: a download that is cut short leaves nothing that looks whole.

    Raises:
        InputError: a file that is there already is not the published one; it may be somebody's work, and stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as temporary:
        _build(source, Path(temporary), split, download=True)
        files = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
        moves = {file: root / file.relative_to(temporary) for file in files}
        for file, target in moves.items():
            if os.path.lexists(target) and not (target.is_file() and filecmp.cmp(file, target, shallow=False)):
                raise InputError(f"{target} is not the published file: move it away, or name another --data-root")
        for file, target in moves.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
