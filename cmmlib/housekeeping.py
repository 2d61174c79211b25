"""The cache looked after: what it holds, whether it is sound, and how it is cut to a size.

What may go are the safetensors files that embeddings and rendered images are kept in; every one of them can be computed
again. Everything else (digests, a language model's answers, and whatever of somebody else's lies in a folder that was
named as the cache) is listed and never removed.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from cmmlib.cache import load_tensors
from cmmlib.errors import InputError

LEFT_BEHIND = 3600  # seconds after which a temporary file is a killed process's, not one being written
# Both are named by SHA-256, see `digest` and `whole_file` in cache.py. A suffix says too little: `CMM_CACHE` may be a
# folder that holds other models' weights, or a project with files that begin with a dot.
ENTRY = re.compile(r"(images|blazon|texts/[0-9a-f]{64})/[0-9a-f]{64}\.safetensors")
HALF = re.compile(r"[a-z0-9/]+/\.[0-9a-f]{32}([0-9a-f]{8}|\.json)-[a-z0-9_]{8}\.(safetensors|json)")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its kind is its folder's name, `used` the time of its last use in seconds.

    `is_tensors`: it holds embeddings or rendered images, which can be computed again.
    """

    path: Path
    kind: str
    size: int
    used: float
    is_tensors: bool


def entries(folder: Path) -> list[Entry]:
    """Every file of a cache folder, the one that was used longest ago first; without those being written."""
    found = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # another process was faster
        if path.is_file() and not path.name.startswith("."):
            used = max(status.st_atime, status.st_mtime)
            inside = path.relative_to(folder)
            is_tensors = ENTRY.fullmatch(inside.as_posix()) is not None
            found.append(Entry(path, inside.parts[0], status.st_size, used, is_tensors))
    return sorted(found, key=lambda entry: (entry.used, str(entry.path)))


def summary(found: Sequence[Entry]) -> pd.DataFrame:
    """A row a kind: files, megabytes and the day of last use, and the sum."""
    rows = [*sorted({entry.kind for entry in found}), "total"]
    table = []
    for kind in rows:
        part = [entry for entry in found if kind in ("total", entry.kind)]
        used = max((entry.used for entry in part), default=None)
        day = "" if used is None else datetime.fromtimestamp(used).date().isoformat()
        table.append((kind, len(part), round(sum(entry.size for entry in part) / 1e6, 1), day))
    return pd.DataFrame(table, columns=["kind", "files", "MB", "last used"])


def drop_damaged(found: Sequence[Entry]) -> list[Path]:
    """Read every tensor file and compare it with its checksum; damaged ones are removed and returned."""
    damaged = []
    for entry in found:
        if not entry.is_tensors:
            continue
        with warnings.catch_warnings(), suppress(FileNotFoundError):
            warnings.simplefilter("ignore")  # it says what the caller is told by the answer
            before = entry.path.stat()
            if load_tensors(entry.path) is None:
                damaged.append(entry.path)
            else:
                os.utime(entry.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a check is no use
    return damaged


def drop_left_behind(folder: Path) -> list[Path]:
    """Remove the temporary files of processes that were killed while they wrote; returns them."""
    now = time.time()
    hidden = [p for p in folder.rglob(".*") if HALF.fullmatch(p.relative_to(folder).as_posix()) and p.is_file()]
    dropped = [p for p in hidden if now - p.stat().st_mtime > LEFT_BEHIND]
    for path in dropped:
        path.unlink(missing_ok=True)
    return dropped


def prune(found: Sequence[Entry], size: int) -> list[Entry]:
    """Remove tensor files, the one used longest ago first, until all files together have at most `size` bytes.

    Returns:
        What was removed. Files that are no tensors stay, so the cache can remain above a small size.
    """
    total, removed = sum(entry.size for entry in found), []
    for entry in found:
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
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip().upper())
    if not found:
        raise InputError(f"--size: {text!r} is no size: write one as in 500MB or 20GB")
    return round(float(found[1]) * UNITS[found[2]])
