"""One tar shard of a web data set: its images, where they lie in it, and their labels. Nothing is ever unpacked."""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from cmmlib.data.folders import image_digests
from cmmlib.data.image_files import is_hidden, is_image, is_junk
from cmmlib.data.labels import RULE
from cmmlib.data.reading import FETCH_AGAIN, reading
from cmmlib.errors import InputError, one_line, some
from cmmlib.storage.cache import cache_folder, digest, read_memo, write_memo
from cmmlib.storage.text_files import parse_json, whole_number

MOST = 10**6  # bytes of a label's file that are believed
SCAN = 4  # version of `_scan`: what an earlier one found is not used
GZIP = b"\x1f\x8b"  # first bytes of what gzip wrote


class Sample(NamedTuple):
    """An image of a shard: its name there, where its bytes begin and how many they are, its label and its digest."""

    member: str
    offset: int
    size: int
    label: int | None
    digest: str


class Contents(NamedTuple):
    """The images of a shard, the names of what is neither an image that is read here nor a label, lines on labels that
    contradict each other or have no image, and the names of images that only a dot makes no data.
    """

    samples: list[Sample]
    rest: list[str]
    doubts: list[str]
    hidden: list[str]


_NO_TAR = "wds: {} cannot be read as a tar of images and labels"
_MEMO = TypeAdapter(tuple[list[Sample], list[str], list[str], list[str]])


def contents(shard: Path) -> Contents:
    """What a shard holds, from the cache where a shard of this content was read before."""
    memo = cache_folder() / "webdatasets" / f"{digest(SCAN, image_digests(shard, [shard])[0])}.json"
    with suppress(ValueError):
        return Contents(*_MEMO.validate_python(read_memo(memo)))
    try:
        with reading(shard):
            found = _scan(shard)
    except InputError:
        raise
    except Exception as error:  # tarfile and json raise a dozen kinds for damaged members
        raise InputError(f"{_NO_TAR.format(shard)}: {one_line(error)}: {FETCH_AGAIN}") from None
    write_memo(memo, found)
    return found


def _scan(shard: Path) -> Contents:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, dict[str, int | None]] = {kind: {} for kind in READERS}
    digests: dict[str, str] = {}
    rest: list[str] = []
    hidden: list[str] = []
    size = shard.stat().st_size
    with open(shard, "rb") as file:
        if file.read(2) == GZIP:
            packed = f"{shard.name}.gz"  # gunzip takes no other ending
            raise InputError(
                f"wds: {shard} is compressed, and shards are read in place: "
                f"rename it to {packed} and unpack that, gunzip {packed}"
            )
    odd: list[str] = []  # JSON files with a label that is no whole number
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)  # never a path on the disk
            key, kind = posixpath.splitext(name)
            if junk := [part for part in name.split("/") if is_junk(part) and part != ".."]:
                hidden += [member.name] if is_image(name) and all(map(is_hidden, junk)) else []
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
    return Contents(samples, rest, _doubts(shard.name, labels, images.keys(), odd), hidden)


def _doubts(shard: str, labels: dict[str, dict[str, int | None]], images: Collection[str], odd: list[str]) -> list[str]:
    """Lines on labels of a shard that say two things of one image, have no image or are no numbers, if any do."""
    by_text, by_json = labels[".cls"], labels[".json"]
    differ = sorted(key for key in by_text.keys() & by_json.keys() if by_json[key] not in (None, by_text[key]))
    alone = sorted(key for key, label in (by_json | by_text).items() if label is not None and key not in images)
    lines = [f"{shard}: labels that are no whole numbers are not used: {some(sorted(odd))}"] if odd else []
    lines += [f"{shard}: labels of .cls and .json differ, .cls counts: {some(differ)}"] if differ else []
    return lines + ([f"{shard}: labels without an image that is read here: {some(alone)}"] if alone else [])


def _label_of_text(content: bytes) -> tuple[int, bool]:
    word = content.decode(errors="replace").strip()
    number = whole_number(word.removeprefix("-"))
    if number is None:
        raise ValueError(f"a label is {content[:20]!r}, not a whole number: {RULE}")
    return -number if word.startswith("-") else number, False


def _label_of_json(content: bytes) -> tuple[int | None, bool]:
    """The whole number that a JSON file is, or has under `label` or `cls`; None where it is about something else.

    The second says whether there is a label that is no such number.

    Raises:
        ValueError: no JSON, or two numbers that differ.
    """
    known = parse_json(content)
    if isinstance(known, dict):  # as pairs: a key may be there twice
        named = [value for key, value in json.loads(content, object_pairs_hook=list) if key in ("label", "cls")]
    else:
        named = [known]
    numbers = [value for value in named if type(value) is int and 0 <= value < 10**18]
    if len({*numbers}) > 1:
        raise ValueError(f"it has the labels {' and '.join(map(str, numbers))} under label or cls: keep one")
    return (numbers[0] if numbers else None), len(numbers) < sum(value is not None for value in named)


READERS = {".cls": _label_of_text, ".json": _label_of_json}


def _check_end(shard: Path, offset: int) -> None:
    """tarfile takes a shard that was cut between two members for a whole one, and of two joined ones sees the first.

    Raises:
        ReadError: no mark of the end.
        InputError: something behind it.
    """
    with open(shard, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")
        while behind := file.read(1 << 20):
            if any(behind):
                behind_it = "there is more behind its end: join tars with tar --concatenate, not cat"
                raise InputError(f"{_NO_TAR.format(shard)}: {behind_it}")
