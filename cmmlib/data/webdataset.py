"""Web data sets in CLIP_benchmark's layout: tar shards of images and labels, class names and templates beside them.

    ROOT/classnames.txt, ROOT/zeroshot_classification_templates.txt, ROOT/test/nshards.txt, ROOT/test/0.tar ...

A shard is read in place: nothing is ever unpacked onto the disk.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cmmlib.data.class_names import ONE_NAME_A_CLASS, require_order
from cmmlib.data.image_files import by_ending, decode
from cmmlib.data.images import ImageSet, choose_split
from cmmlib.data.labels import RULE, outside
from cmmlib.data.pictures import remarks_on_pictures
from cmmlib.data.reading import reading
from cmmlib.data.shards import Sample, contents
from cmmlib.errors import InputError, counted, one_line, some
from cmmlib.storage.network import host_responds
from cmmlib.storage.text_files import read_lines, read_names, whole_number
from cmmlib.texts.templates import SLOT, flaw

TEMPLATES = "zeroshot_classification_templates.txt"


@dataclass(frozen=True)
class TarImages(ImageSet):
    """Images inside tar shards; `samples` are the N images, each with the shard that holds it."""

    root: Path
    samples: list[tuple[str, Sample]]

    @property
    def image_ids(self) -> list[str]:
        return [f"{shard}/{sample.member}" for shard, sample in self.samples]

    def read(self, index: int) -> Image.Image:
        shard, sample = self.samples[index]
        return decode(self._content(index), f"{sample.member} of {self.root / shard}")

    def _content(self, index: int) -> io.BytesIO:
        shard, sample = self.samples[index]
        with reading(self.root / shard), open(self.root / shard, "rb") as file:
            file.seek(sample.offset)
            return io.BytesIO(file.read(sample.size))

    def remarks_on_pictures(self) -> list[str]:
        """Lines on members of several pictures and on dark grey values, or none."""
        return remarks_on_pictures([sample.member for _, sample in self.samples], self._content)

    def pick(self, rows: Sequence[int]) -> TarImages:
        return replace(super().pick(rows), samples=[self.samples[i] for i in rows])


def load_webdataset(
    where: str, split: str | None = None, names: list[str] | None = None, labelled: bool = True
) -> TarImages:
    """A classification set in CLIP_benchmark's layout.

    Args:
        where: its folder, or its name on the hub (`owner/name`).
        split: a folder of shards; the usual one is `test`.
        names: of the classes, in place of the set's own.
        labelled: whether classes and labels are wanted; else neither is read.

    Raises:
        InputError: a folder of another layout, a damaged shard, labels out of range, a hub that does not answer, or
            what may not be read.
    """
    with reading(Path(where)):
        if Path(where).is_file():
            raise InputError(f"wds: {where} is a file: give the folder that holds test/nshards.txt, wds:PATH")
        root = Path(where) if Path(where).is_absolute() or Path(where).is_dir() else _fetch(where, split or "test")
        return _of_folder(root, split, names, labelled)


def _of_folder(root: Path, split: str | None, names: list[str] | None, labelled: bool) -> TarImages:
    if not root.is_dir():
        raise InputError(f"no folder {root}: give wds:PATH, a folder in CLIP_benchmark's layout, or wds:OWNER/NAME")
    os.listdir(root)  # it is told where the system refuses, which a pattern takes for an empty folder
    found = sorted(path.parent.name for path in root.glob("*/nshards.txt"))
    if (root / (split or "test")).is_dir():
        os.listdir(root / (split or "test"))
    if not found:
        raise InputError(f"wds: {root} has no nshards.txt in any folder: CLIP_benchmark's layout has test/nshards.txt")
    split = choose_split(f"wds:{root.name}", split or ("test" if "test" in found else None), found)
    _check_kind(root)
    read = {f"{split}/{shard.name}": contents(shard) for shard in _shards(root / str(split))}
    samples = [(shard, sample) for shard, found in read.items() for sample in found.samples]
    rest = [name for found in read.values() for name in found.rest]
    doubts = [line for found in read.values() for line in found.doubts]
    left_out = [*_hidden([name for found in read.values() for name in found.hidden]), *by_ending(rest)]
    if not samples:
        held = "; ".join(left_out) or "nothing"
        raise InputError(f"wds: the shards of {root / str(split)} hold no image that is read here: {held}")
    classnames = _instead(names, root) if names else _class_names(root) if labelled else []
    labels = _labels(samples, len(classnames)) if labelled else None
    digests = [sample.digest for _, sample in samples]
    more: dict[str, Any] = {
        "split": split,
        "templates": _templates(root),
        "remarks": _remarks(labels, labelled, left_out) + _beside(root / str(split)) + (doubts if labelled else []),
    }
    if more["templates"] is None and labelled:
        lacking = f"{TEMPLATES} holds no template" if (root / TEMPLATES).is_file() else f"there is no {TEMPLATES}"
        more["remarks"].append(f"{lacking}, and others are used")
    data = TarImages(root.name, classnames, labels, digests, root, samples, **more)
    return replace(data, remarks=data.remarks + data.remarks_on_pictures())


def _check_kind(root: Path) -> None:
    file = root / "dataset_type.txt"
    words = " ".join(read_lines(file, "wds")).split() if file.is_file() else []
    kind = words[0].lower() if words else "classification"
    if kind != "classification":
        raise InputError(f"wds: {root.name} is a {kind} set: one label an image is needed")


def _class_names(root: Path) -> list[str]:
    if not (root / "classnames.txt").is_file():
        raise InputError(f"class_names: {root.name} has no classnames.txt: give --class-names FILE")
    return read_names(root / "classnames.txt", "wds")


def _instead(names: list[str], root: Path) -> list[str]:
    """Names in the place of those of the data set, if it has any: as many, since labels count both, and not the same
    in another order.
    """
    own = _class_names(root) if (root / "classnames.txt").is_file() else names
    if len(own) != len(names):
        counts = f"{counted(len(names), 'name')}, and classnames.txt of {root.name} {len(own)}"
        raise InputError(f"class_names: the file has {counts}: {ONE_NAME_A_CLASS}")
    require_order(names, own)
    return names


def _remarks(labels: torch.Tensor | None, labelled: bool, left_out: list[str]) -> list[str]:
    unlabelled = labelled and labels is None
    return [*(["no image has a label beside it (.cls, .json)"] if unlabelled else []), *left_out]


def _hidden(names: list[str]) -> list[str]:
    """A line on images that only a dot, before their names or a folder's, makes no data, where there are any."""
    line = f"images whose names, or whose folders', begin with a dot are left out, {len(names)}: {some(names)}"
    return [line] if names else []


def _beside(folder: Path) -> list[str]:
    """A line on tar files that are no shards by the number of shards, where there are any."""
    shards = {shard.name for shard in _shards(folder)}
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in shards)
    return [f"tar files beside the {len(shards)} of nshards.txt are left out: {some(others)}"] if others else []


def _templates(root: Path) -> list[str] | None:
    """The set's own templates; CLIP_benchmark writes `{c}` for the class."""
    file = root / TEMPLATES
    lines = read_lines(file, "wds") if file.is_file() else []
    templates = [line.strip().replace("{c}", SLOT) for line in lines if line.strip()]
    for template in templates:
        if fault := flaw(template):
            fault, template = (text.replace(SLOT, "{c}") for text in (fault, template))
            raise InputError(f"wds: a template of {file.name} {fault}: {template!r}")
    return templates or None


def _labels(samples: list[tuple[str, Sample]], n_classes: int) -> torch.Tensor | None:
    """Labels of all images, or of none."""
    labels = [sample.label for _, sample in samples]
    if not any(label is not None for label in labels):
        return None
    known = torch.tensor([label for label in labels if label is not None])
    for label, (shard, sample) in zip(labels, samples, strict=True):
        if label is None:
            lacking = f"wds: {sample.member} of {shard} has no label beside it (.cls, .json), and other images have"
            raise InputError(f"{lacking}: {RULE}")
        if not 0 <= label < n_classes:
            raise InputError(f"wds: {sample.member} of {shard} has label {label}, {outside(known, n_classes)}")
    return known


# ---------------------------------------------------------------- shards


def _shards(folder: Path) -> list[Path]:
    words = " ".join(read_lines(folder / "nshards.txt", "wds")).split()
    number = whole_number(words[0]) if len(words) == 1 else None
    if not number:
        raise InputError(f"wds: {folder.name}/nshards.txt must hold one number, from 1: how many shards there are")
    there = {path.name for path in folder.iterdir() if path.is_file()}
    missing = next((i for i in range(number) if f"{i}.tar" not in there), None)
    if missing is not None:
        packed = sorted(name for name in there if name.startswith(f"{missing}.tar."))
        remedy = f"; unpack {packed[0]}: shards are read as they are, in place" if packed else ""
        padded = next((name for name in sorted(there) if re.fullmatch(rf".*?0*{missing}\.tar", name)), None)
        remedy = f"; rename {padded} and the others: shards are 0.tar, 1.tar and so on" if padded else remedy
        raise InputError(f"wds: {folder} lacks {missing}.tar: nshards.txt says {counted(number, 'shard')}{remedy}")
    return [folder / f"{i}.tar" for i in range(number)]


# ---------------------------------------------------------------- the hub


def _fetch(name: str, split: str) -> Path:
    """The set's folder in the hub's local cache; what is not there whole is fetched, or refused at once offline."""
    from huggingface_hub import constants, snapshot_download  # most studies need no hub

    wanted = {"repo_type": "dataset", "allow_patterns": ["*.txt", f"{split}/*"]}
    with suppress(Exception):  # the hub's client raises a dozen kinds for what it does not have
        root = Path(snapshot_download(name, local_files_only=True, **wanted))
        if (root / split / "nshards.txt").is_file() and _shards(root / split):
            return root
    remedy = "download it elsewhere and give its folder, wds:PATH"
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"wds: {name} is not on this machine and HF_HUB_OFFLINE is set: {remedy}")
    if not host_responds(constants.ENDPOINT):
        raise InputError(f"wds: {name} is not on this machine and no hub answers at {constants.ENDPOINT}: {remedy}")
    try:
        return Path(snapshot_download(name, **wanted))
    except Exception as error:
        raise InputError(f"wds: {name} could not be fetched: {one_line(error)}") from None
