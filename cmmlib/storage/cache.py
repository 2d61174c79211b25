"""Files that are never half-written: atomic writes, checksummed tensors, digests of files that are not read twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from cmmlib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def cache_folder() -> Path:
    """Folder of the cache: `CMM_CACHE` where it is set, else the platform's own cache folder."""
    chosen = os.environ.get("CMM_CACHE", "").strip()
    return Path(os.path.abspath(os.path.expanduser(chosen)) if chosen else platformdirs.user_cache_dir("cmmlib"))


def fix_cache_folder() -> None:
    """Have `CMM_CACHE` mean the same folder in processes that work elsewhere, as chapters do.

    Raises:
        InputError: something that is no folder lies there.
    """
    if os.environ.get("CMM_CACHE"):
        os.environ["CMM_CACHE"] = str(cache_folder())
    if cache_folder().exists() and not cache_folder().is_dir():
        raise InputError(f"CMM_CACHE: {cache_folder()} is no folder: name another place for the cache")


# Folders of the cache.
KINDS = ("images", "texts", "blazon", "blazon-mini", "webdatasets", "digests", "transcripts", "published")
_KEY, _MINI = "[0-9a-f]{64}", r"(?:merges-\d+\.txt\.gz|blazon-mini\.json)"
_FETCHED = "published/(?:zero_shot_evaluations|search_counts)"  # by pooch, which writes files called tmp first
_OWN = re.compile(
    rf"(?:images|texts/{_KEY}|blazon)/{_KEY}\.safetensors|webdatasets/{_KEY}\.json|digests/[0-9a-f]{{32}}\.json|"
    rf"blazon-mini/{_MINI}|transcripts/answers\.jsonl|{_FETCHED}/[\w.-]+\.json"
)
_UNFINISHED = re.compile(  # names cut at 40 characters, and mkstemp's eight
    rf"(?:images|texts/{_KEY}|blazon|webdatasets|digests|blazon-mini)/"
    rf"\.(?:[0-9a-f]{{40}}|[0-9a-f]{{32}}\.json|{_MINI})-[a-z0-9_]{{8}}\.(?:safetensors|json|gz)|"
    rf"{_FETCHED}/tmp[a-z0-9_]{{8}}"
)


def is_entry(path: Path, cache: Path) -> bool:
    """Whether a file of the cache folder has a name that this package gives; any other is somebody else's."""
    return _OWN.fullmatch(path.relative_to(cache).as_posix()) is not None


def is_unfinished(path: Path, cache: Path) -> bool:
    """Whether a file has the name of one that is written before it takes the place of an entry of the cache."""
    return _UNFINISHED.fullmatch(path.relative_to(cache).as_posix()) is not None


@contextmanager
def whole_file(path: Path):
    """Yield a temporary path beside `path`; rename it into place when the block ends well, else remove it.

    Raises:
        FileExistsError: a device, a pipe or a folder is there, which a file must not take the place of.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    try:
        yield Path(name)
        os.replace(name, path)
    except OSError as error:
        if error.filename in (None, name):  # of a write into an open file, or of the file beside it
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(*parts: object) -> str:
    """SHA-256 of the parts' JSON: the key of whatever was computed from them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors with a checksum of their bytes, and texts where there are any, whole or not at all.

    Raises:
        OSError: a full disk, a folder that cannot be written.
    """
    from safetensors.torch import save

    tensors = {key: t.contiguous() for key, t in tensors.items()}
    with whole_file(path) as temporary:
        # safetensors' own save_file tells a full disk by an error that is no OSError
        temporary.write_bytes(_in_order(save(tensors, metadata={**(metadata or {}), "sha256": _checksum(tensors)})))


def _in_order(content: bytes) -> bytes:
    """The file with its header's keys sorted: safetensors writes several metadata in a random order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight bytes
    return len(header).to_bytes(8, "little") + header + content[end:]


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """Tensors of `path`, or None where there is no file or it is damaged (then it is dropped, with one warning).

    The time of this use is noted: `cmm cache prune` goes by it.
    """
    try:
        content = path.read_bytes()  # in one go: another process may replace the file at any moment
    except FileNotFoundError:
        return None
    with suppress(ValueError):
        tensors, _ = unpack_tensors(content)
        _note_use(path)
        return tensors
    warnings.warn(f"cache entry {path.name} is damaged: dropped, and computed again", stacklevel=2)
    with suppress(OSError):  # a cache that may only be read
        path.unlink(missing_ok=True)
    return None


def unpack_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that `save_tensors` wrote.

    Raises:
        ValueError: damaged, or another program's.
    """
    from safetensors.torch import load

    try:
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        whole = metadata["sha256"] == _checksum(tensors)
    except Exception as error:  # safetensors raises its own error type for a file cut short
        raise ValueError("no safetensors file with a checksum") from error
    if not whole:
        raise ValueError("the checksum is another's")
    return tensors, metadata


def _note_use(path: Path) -> None:
    """Set the access time, which file systems keep lazily or not at all; the time of writing stays."""
    with suppress(OSError):  # a cache of somebody else's may be read, not written
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _checksum(tensors: dict[str, Tensor]) -> str:
    import torch

    total = hashlib.sha256()
    for key in sorted(tensors):
        t = tensors[key]
        total.update(f"{key}{t.dtype}{list(t.shape)}".encode())
        total.update(t.flatten().view(torch.uint8).numpy().data if t.numel() else b"")
    return total.hexdigest()


def file_digests(root: Path, files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file's content. A file whose size and times did not change since the last call is not read again.

    Raises:
        OSError: a file that cannot be read.
    """
    memo_path = cache_folder() / "digests" / f"{digest(str(root))[:32]}.json"
    found = read_memo(memo_path)
    memo = found if isinstance(found, dict) else {}
    entries = {}
    for file in files:
        status = file.stat()
        remembered = memo.get(str(file))
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]  # a copy may keep the first two, not the third
        is_known = isinstance(remembered, list) and len(remembered) == 4 and remembered[:3] == stamp
        entries[str(file)] = remembered if is_known else [*stamp, file_digest(file)]
    if entries != {key: memo.get(key) for key in entries}:
        write_memo(memo_path, {**memo, **entries})
    return [entry[3] for entry in entries.values()]


def read_memo(path: Path) -> Any:
    """What `write_memo` put there; None where there is nothing, or nothing whole: it can be found out again."""
    try:
        memo = json.loads(path.read_text("utf-8"))
        return memo["content"] if memo["sha256"] == digest(memo["content"]) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write_memo(path: Path, content: Any) -> None:
    """Keep what was found out, with a checksum. A memo that cannot be written costs time, nothing else."""
    with suppress(OSError):
        write_text(path, json.dumps({"sha256": digest(content), "content": content}))


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached(path: Path, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors stored at `path`, computed and stored where they are missing. Two processes may race: both win."""
    tensors = load_tensors(path)
    if tensors is None:
        tensors = compute()
        save_tensors(path, tensors)
    return tensors
