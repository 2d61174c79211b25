"""Arrays and texts of a file: .npz without pickles, or .safetensors with texts as JSON in its metadata."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np

from cmmlib.data.reading import FETCH_AGAIN, reading, refused
from cmmlib.errors import InputError, some
from cmmlib.storage.text_files import keys_twice, parse_json

LONGEST_HEADER = 100_000_000  # bytes, as in safetensors
NPY = b"\x93NUMPY"  # first bytes of an array
END_OF_ZIP = b"PK\x05\x06"  # first of the last bytes of an archive: 22, and a comment


def read_arrays(path: Path) -> dict[str, Any]:
    """What a file of embeddings holds, by its keys: numpy arrays or tensors, and texts.

    Raises:
        InputError: no file, one that may not be read, another format, a damaged one, object arrays, or a key that is
            there twice.
    """
    with reading(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is no regular file: give embeddings:FILE, an .npz or .safetensors file")
        if not path.is_file():
            raise InputError(f"no file {path}: give embeddings:FILE, an .npz or .safetensors file")
        if path.suffix not in READERS:
            raise InputError(f"{path.name}: embeddings come as .npz or .safetensors")
        try:
            return READERS[path.suffix](path)
        except InputError:
            raise
        except Exception as error:  # zipfile, zlib, numpy and safetensors raise a dozen kinds for a damaged file
            if refused(error):
                raise
            damaged = f"{path.name} cannot be read as {path.suffix}: damaged, or another format"
            raise InputError(f"{damaged}: {FETCH_AGAIN}, or save it anew") from None


def _read_npz(path: Path) -> dict[str, Any]:
    """As `np.load` reads one, which takes the first of several arrays in a member, and the last of several files."""
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        twice = [key for key, n in Counter(keys).items() if n > 1]
        if twice:
            raise InputError(f"{path.name} holds {some(twice)} twice: keep one of each")
        if not _is_one_file(archive, path):
            raise InputError(f"{path.name} is several files in one, or has bytes after its end: save it again as one")
        arrays = {}
        for key, name in zip(keys, archive.namelist(), strict=True):
            with archive.open(name) as member:
                arrays[key] = _read_member(member, f"{path.name}: {key}")
                if name.endswith(".npy") and isinstance(arrays[key], bytes):
                    raise InputError(f"{path.name}: {key} is no array: save the file again with numpy.savez")
                if member.read(1):
                    raise InputError(f"{path.name}: {key} has bytes after its array: save one array as {key}, no more")
    return arrays


def _is_one_file(archive: zipfile.ZipFile, path: Path) -> bool:
    """Whether an archive begins where its file does, and ends where it does."""
    with open(path, "rb") as file:
        file.seek(-len(END_OF_ZIP) - 18 - len(archive.comment), 2)
        at_end = file.read(len(END_OF_ZIP)) == END_OF_ZIP
    return at_end and min((member.header_offset for member in archive.infolist()), default=0) == 0


def _read_member(member: IO[bytes], name: str) -> Any:
    if member.peek(len(NPY))[: len(NPY)] != NPY:  # type: ignore[attr-defined]
        return member.read()
    try:
        return np.lib.format.read_array(member, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(f"{name} holds Python objects; object arrays are not read: save texts or numbers") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    _refuse_twice(path)
    with safe_open(path, "pt") as file:
        arrays: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        strings = file.metadata() or {}
    twice = sorted(arrays.keys() & strings.keys())
    if twice:
        raise InputError(f"{path.name} holds {some(twice)} twice, as a tensor and in its metadata: keep one of each")
    numbers = [key for key in ("image_features", "text_features", "labels") if key in strings]
    if numbers:
        raise InputError(f"{path.name} has {some(numbers)} in its metadata, as text: save it as a tensor")
    for key in ("classnames", "prompts", "image_ids", "backbone", "pretrained", "logit_scale"):
        if key in strings:
            arrays[key] = strings[key] if key in ("backbone", "pretrained") else _of_metadata(path, key, strings[key])
    return {**{key: text for key, text in strings.items() if key != "format"}, **arrays}  # which libraries write


def _of_metadata(path: Path, key: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        raise InputError(f"{path.name}: {key} in the metadata is no JSON: write a list of texts, or a number") from None


def _refuse_twice(path: Path) -> None:
    """Refuse a .safetensors file whose header has a key twice."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        twice = keys_twice(file.read(min(size, LONGEST_HEADER)))
    if twice:
        raise InputError(f"{path.name} holds {some(twice)} twice: keep one of each")


READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}
