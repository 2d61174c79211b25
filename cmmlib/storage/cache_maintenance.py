"""The cache looked after: what it holds, whether it is sound, and how it is cut to a size.

Entries are the files with the folders and names that this package gives (`storage.cache.is_entry`). Tensor files
among them, embeddings and rendered images, can be computed again, and memos (digests, what shards hold) found out
again; the others (a language model's answers, fetched figures, the files of the embedded world's model) are listed
and never removed. Whatever else lies in the cache folder is somebody else's: data sets, models, links to other
places. It is counted, and neither opened nor removed.
"""

from __future__ import annotations

import os
import re
import stat
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from cmmlib.errors import InputError, why
from cmmlib.storage.cache import KINDS, is_entry, is_unfinished, load_tensors, read_memo

LEFT_BEHIND = 3600  # seconds after which a temporary file is a killed process's, not one being written
OTHER = "not ours, never removed"
LONGEST = 20  # characters of a size
MEMOS = ("digests", "webdatasets")  # kinds of `write_memo`
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its kind is its folder's name, `used` the time of its last use in seconds."""

    path: Path
    kind: str
    size: int
    used: float

    @property
    def is_tensors(self) -> bool:
        """Whether it holds tensors, which can be computed again."""
        return self.path.suffix == ".safetensors"

    @property
    def has_checksum(self) -> bool:
        """Whether it can be checked: tensors and memos carry a checksum of their content."""
        return self.is_tensors or self.kind in MEMOS


def entries(folder: Path) -> list[Entry]:
    """Every entry of a cache folder, the one that was used longest ago first; without those being written."""
    own = [entry for entry in _files(folder, KINDS) if is_entry(entry.path, folder)]
    return sorted(own, key=lambda entry: (entry.used, str(entry.path)))


def others(folder: Path) -> list[Entry]:
    """The files of a cache folder that are somebody else's, without links."""
    files = (e for e in _files(folder) if not (is_entry(e.path, folder) or is_unfinished(e.path, folder)))
    return [replace(entry, kind=OTHER) for entry in files]


def _files(folder: Path, kinds: Sequence[str] | None = None) -> Iterator[Entry]:
    """Files in a folder, or only in its folders of these names. Links are neither given nor followed.

    Raises:
        InputError: the folder is none, or cannot be read. One that is not there holds nothing.
    """
    _require_folder(folder)
    for place, folders, names in os.walk(folder):
        if kinds and Path(place) == folder:
            folders[:], names = [name for name in folders if name in kinds], []
        for path in (Path(place, name) for name in names):
            with suppress(OSError):  # another process was faster, or it is not ours to look at
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    used = max(status.st_atime, status.st_mtime)
                    yield Entry(path, path.relative_to(folder).parts[0], status.st_size, used)


def _require_folder(folder: Path) -> None:
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise InputError(f"the cache {folder} is no folder: name another with CMM_CACHE") from None
    except OSError as error:
        raise InputError(f"the cache {folder} cannot be read: {why(error)}") from None


def summary(own: Sequence[Entry], foreign: Sequence[Entry] = ()) -> pd.DataFrame:
    """A row a kind: files, megabytes and the day of last use, and the sum; then, where there are, others' files."""
    rows = {kind: [entry for entry in own if entry.kind == kind] for kind in sorted({entry.kind for entry in own})}
    rows |= {"total": own, **({OTHER: foreign} if foreign else {})}
    table = []
    for kind, part in rows.items():
        used = max((entry.used for entry in part), default=None)
        day = "" if used is None else datetime.fromtimestamp(used).date().isoformat()
        table.append((kind, len(part), round(sum(entry.size for entry in part) / 1e6, 1), day))
    return pd.DataFrame(table, columns=["kind", "files", "MB", "last used"])


def drop_damaged(own: Sequence[Entry]) -> list[Path]:
    """Read every entry that has a checksum and compare them; damaged ones are returned, and removed if that can be."""
    damaged = []
    for entry in own:
        if not entry.has_checksum:
            continue
        with suppress(FileNotFoundError):  # another process was faster
            before = entry.path.stat()
            if _is_whole(entry):
                with suppress(OSError):  # a cache that may only be read
                    os.utime(entry.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a check is no use
            else:
                damaged.append(entry.path)
                with suppress(OSError):
                    entry.path.unlink(missing_ok=True)
    return damaged


def _is_whole(entry: Entry) -> bool:
    if not entry.is_tensors:
        return read_memo(entry.path) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what the caller is told by the answer
        return load_tensors(entry.path) is not None


def drop_left_behind(folder: Path) -> list[Path]:
    """Remove the temporary files of processes that were killed while they wrote; returns them."""
    old = time.time() - LEFT_BEHIND
    dropped = [e.path for e in _files(folder, KINDS) if is_unfinished(e.path, folder) and e.used < old]
    for path in dropped:
        path.unlink(missing_ok=True)
    return dropped


def prune(own: Sequence[Entry], size: int) -> list[Entry]:
    """Remove tensor files, the one used longest ago first, until all entries together have at most `size` bytes.

    Returns:
        What was removed. Entries that are no tensors stay, so the cache can remain above a small size.
    """
    total, removed = sum(entry.size for entry in own), []
    for entry in own:
        if total <= size:
            break
        if entry.is_tensors:
            entry.path.unlink(missing_ok=True)
            removed.append(entry)
            total -= entry.size
    return removed


def parse_size(text: str) -> int:
    """Bytes of a size such as `500MB` or `2 GB`.

    >>> parse_size("1.5 GB")
    1500000000

    Raises:
        InputError: no size.
    """
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])B?|B)|(0)", text.strip().upper(), re.ASCII)
    if not parts or len(text) > LONGEST:
        raise InputError(f"--size: {text[:LONGEST]!r} is no size: write one as in 500MB or 20GB")
    return round(float(parts[1] or 0) * UNITS[parts[2] or ""])
