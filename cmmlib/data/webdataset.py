"""Web data sets in CLIP_benchmark's layout: tar shards of images and labels, class names and templates beside them.

    ROOT/classnames.txt, ROOT/zeroshot_classification_templates.txt, ROOT/test/nshards.txt, ROOT/test/0.tar ...

A shard is read in place: nothing is ever unpacked onto the disk.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from pydantic import TypeAdapter

from cmmlib.data.folders import image_digests
from cmmlib.data.image_files import by_ending, decode, is_image, is_junk, some
from cmmlib.data.images import ImageSet, choose_split
from cmmlib.errors import InputError, one_line
from cmmlib.storage.cache import cache_folder, digest, read_memo, write_memo
from cmmlib.storage.network import host_responds
from cmmlib.storage.text_files import parse_json, read_lines, whole_number
from cmmlib.texts.templates import SLOT

MOST = 10**6  # bytes of a label's file that are believed
SCAN = 2  # version of `_scan`: what an earlier one found is not used
GZIP = b"\x1f\x8b"  # first bytes of what gzip wrote


class Sample(NamedTuple):
    """An image of a shard: its name there, where its bytes begin and how many they are, its label and its digest."""

    member: str
    offset: int
    size: int
    label: int | None
    digest: str


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
        with open(self.root / shard, "rb") as file:
            file.seek(sample.offset)
            return decode(io.BytesIO(file.read(sample.size)), f"{sample.member} of {self.root / shard}")

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
        InputError: a folder of another layout, a damaged shard, labels out of range, a hub that does not answer.
    """
    root = Path(where) if Path(where).is_absolute() or Path(where).is_dir() else _fetch(where, split or "test")
    if not root.is_dir():
        raise InputError(f"no folder {root}: give wds:PATH, a folder in CLIP_benchmark's layout, or wds:OWNER/NAME")
    found = sorted(path.parent.name for path in root.glob("*/nshards.txt"))
    if not found:
        raise InputError(f"wds: {root} has no nshards.txt in any folder: CLIP_benchmark's layout has test/nshards.txt")
    split = choose_split(f"wds:{root.name}", split or ("test" if "test" in found else None), found)
    _check_kind(root)
    read = {f"{split}/{shard.name}": _contents(shard) for shard in _shards(root / str(split))}
    samples = [(shard, sample) for shard, contents in read.items() for sample in contents.samples]
    rest = [name for contents in read.values() for name in contents.rest]
    doubts = [line for contents in read.values() for line in contents.doubts]
    if not samples:
        held = "; ".join(by_ending(rest)) or "nothing"
        raise InputError(f"wds: the shards of {root / str(split)} hold no image that is read here: {held}")
    classnames = names or (_class_names(root) if labelled else [])
    labels = _labels(samples, len(classnames)) if labelled else None
    digests = [sample.digest for _, sample in samples]
    more = {
        "split": split,
        "templates": _templates(root),
        "remarks": _remarks(labels, labelled, rest) + _beside(root / str(split)) + (doubts if labelled else []),
    }
    return TarImages(root.name, classnames, labels, digests, root, samples, **more)


def _check_kind(root: Path) -> None:
    file = root / "dataset_type.txt"
    kind = read_lines(file, "wds")[0].strip().lower() if file.is_file() and file.stat().st_size else "classification"
    if kind != "classification":
        raise InputError(f"wds: {root.name} is a {kind} set: one label an image is needed")


def _class_names(root: Path) -> list[str]:
    if not (root / "classnames.txt").is_file():
        raise InputError(f"class_names: {root.name} has no classnames.txt: give --class-names FILE")
    names = [line.strip() for line in read_lines(root / "classnames.txt", "wds")]
    while names and not names[-1]:
        names.pop()  # a file may end in empty lines
    if "" in names:
        raise InputError(f"wds: line {names.index('') + 1} of classnames.txt is empty: labels count lines, so name it")
    return names


def _remarks(labels: torch.Tensor | None, labelled: bool, rest: list[str]) -> list[str]:
    unlabelled = labelled and labels is None
    return [*(["no image has a label beside it (.cls, .json)"] if unlabelled else []), *by_ending(rest)]


def _beside(folder: Path) -> list[str]:
    """A line on tar files that are no shards by the number of shards, where there are any."""
    shards = {shard.name for shard in _shards(folder)}
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in shards)
    return [f"tar files beside the {len(shards)} of nshards.txt are left out: {some(others)}"] if others else []


def _templates(root: Path) -> list[str] | None:
    """The set's own templates; CLIP_benchmark writes `{c}` for the class."""
    file = root / "zeroshot_classification_templates.txt"
    lines = read_lines(file, "wds") if file.is_file() else []
    templates = [line.strip().replace("{c}", SLOT) for line in lines if line.strip()]
    for template in templates:
        if SLOT not in template:
            raise InputError(f"wds: a template of {file.name} has no {{c}} for the class name: {template!r}")
    return templates or None


def _labels(samples: list[tuple[str, Sample]], n_classes: int) -> torch.Tensor | None:
    """Labels of all images, or of none."""
    labels = [sample.label for _, sample in samples]
    if not any(label is not None for label in labels):
        return None
    for label, (shard, sample) in zip(labels, samples, strict=True):
        if label is None:
            raise InputError(
                f"wds: {sample.member} of {shard} has no label beside it (.cls, .json), and other images have"
            )
        if not 0 <= label < n_classes:
            raise InputError(f"wds: {sample.member} of {shard} has label {label}, outside 0..{n_classes - 1}")
    return torch.tensor(labels)


# ---------------------------------------------------------------- shards


def _shards(folder: Path) -> list[Path]:
    words = " ".join(read_lines(folder / "nshards.txt", "wds")).split()
    number = whole_number(words[0]) if len(words) == 1 else None
    if number is None:
        raise InputError(f"wds: {folder.name}/nshards.txt must hold one number, the number of shards")
    there = {path.name for path in folder.glob("*.tar") if path.is_file()}
    missing = next((i for i in range(number) if f"{i}.tar" not in there), None)
    if missing is not None:
        raise InputError(f"wds: {folder} lacks {missing}.tar: nshards.txt says {number} shards")
    return [folder / f"{i}.tar" for i in range(number)]


class Contents(NamedTuple):
    """The images of a shard, the names of what is neither an image that is read here nor a label, and lines on labels
    that contradict each other or have no image.
    """

    samples: list[Sample]
    rest: list[str]
    doubts: list[str]


_MEMO = TypeAdapter(tuple[list[Sample], list[str], list[str]])


def _contents(shard: Path) -> Contents:
    """What a shard holds, from the cache where a shard of this content was read before."""
    memo = cache_folder() / "webdatasets" / f"{digest(SCAN, image_digests(shard, [shard])[0])}.json"
    with suppress(ValueError):
        return Contents(*_MEMO.validate_python(read_memo(memo)))
    try:
        found = _scan(shard)
    except InputError:
        raise
    except Exception as error:  # tarfile and json raise a dozen kinds for damaged members
        raise InputError(f"wds: {shard} cannot be read as a tar of images and labels: {one_line(error)}") from None
    write_memo(memo, found)
    return found


def _scan(shard: Path) -> Contents:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, dict[str, int | None]] = {kind: {} for kind in READERS}
    digests: dict[str, str] = {}
    rest: list[str] = []
    size = shard.stat().st_size
    with open(shard, "rb") as file:
        if file.read(2) == GZIP:
            raise InputError(f"wds: {shard} is compressed: unpack it with gunzip, shards are read in place")
    odd: list[str] = []  # JSON files with a label that is no whole number
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)  # never a path on the disk
            key, kind = posixpath.splitext(name)
            if any(map(is_junk, (part for part in name.split("/") if part != ".."))):
                continue
            if (member.islnk() or member.issym()) and (is_image(name) or kind.lower() in READERS):
                raise InputError(
                    f"wds: {shard} has {member.name} as a link to {member.linkname}: "
                    "write it as a file, as with tar --dereference --hard-dereference"
                )
            if not member.isreg():
                continue
            if member.issparse() or member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{member.name} is sparse, or larger than the shard")
            content, read = tar.extractfile(member), READERS.get(kind.lower())
            assert content is not None  # a regular file
            if key in (labels[kind.lower()] if read else images if is_image(member.name) else ()):
                raise InputError(f"wds: {shard} has {member.name} twice, or another ending of it: rename one")
            if read:
                try:
                    label, is_odd = read(content.read(MOST))
                except ValueError as error:
                    raise InputError(f"wds: {shard}: {member.name}: {one_line(error)}") from None
                labels[kind.lower()][key] = label
                odd += [member.name] if is_odd else []
            elif is_image(member.name):
                images[key], digests[key] = member, hashlib.sha256(content.read()).hexdigest()
            else:
                rest.append(member.name)
        _check_end(shard, tar.offset)
    known = labels[".json"] | labels[".cls"]  # where an image has both, its .cls says the class
    samples = [
        Sample(image.name, image.offset_data, image.size, known.get(key), digests[key]) for key, image in images.items()
    ]
    return Contents(samples, rest, _doubts(shard.name, labels, images.keys(), odd))


def _doubts(shard: str, labels: dict[str, dict[str, int | None]], images: Collection[str], odd: list[str]) -> list[str]:
    """Lines on labels of a shard that say two things of one image, have no image or are no numbers, if any do."""
    by_text, by_json = labels[".cls"], labels[".json"]
    differ = sorted(key for key in by_text.keys() & by_json.keys() if by_json[key] not in (None, by_text[key]))
    alone = sorted(key for key, label in (by_json | by_text).items() if label is not None and key not in images)
    lines = [f"{shard}: labels that are no whole numbers are not used: {some(sorted(odd))}"] if odd else []
    lines += [f"{shard}: labels of .cls and .json differ, .cls counts: {some(differ)}"] if differ else []
    return lines + ([f"{shard}: labels without an image that is read here: {some(alone)}"] if alone else [])


def _label_of_text(content: bytes) -> tuple[int, bool]:
    word = content.decode().strip()
    number = whole_number(word.removeprefix("-"))
    if number is None:
        raise ValueError(f"a label is {content[:20]!r}, not a whole number")
    return -number if word.startswith("-") else number, False


def _label_of_json(content: bytes) -> tuple[int | None, bool]:
    """The whole number that a JSON file is, or has under `label` or `cls`; None where it is about something else.

    The second says whether there is a label that is no such number.
    """
    known = parse_json(content)
    known = next((known[key] for key in ("label", "cls") if key in known), None) if isinstance(known, dict) else known
    if isinstance(known, int) and not isinstance(known, bool) and 0 <= known < 10**18:
        return known, False
    return None, known is not None


READERS = {".cls": _label_of_text, ".json": _label_of_json}


def _check_end(shard: Path, offset: int) -> None:
    """tarfile takes a shard that was cut between two members for a whole one, and of two joined ones sees the first.

    Raises:
        ReadError: no mark of the end, or something behind it.
    """
    with open(shard, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")
        while behind := file.read(1 << 20):
            if any(behind):
                raise tarfile.ReadError("there is more behind its end: join tars with tar --concatenate, not cat")


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
