"""The files of a run folder: JSON that any program can read, tables that chapters share, versions of what made them."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.storage.cache import digest, whole_file, write_text
from cmmlib.storage.csv_files import read_csv, write_csv
from cmmlib.storage.locks import locked
from cmmlib.storage.text_files import content, parse_json, require_writable
from cmmlib.study import run_schema

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RESULTS = "results.json"
PER_CLASS = "per_class.csv"
SWEEP = "sweep.json"  # of a folder of many runs: which study became which run
RUNNING = ".running.lock"  # held while a study is executed
RECORDING = ".recording.lock"  # held while a file that chapters share is read and written again
PACKAGES = (
    "torch",
    "open_clip_torch",
    "numpy",
    "pandas",
    "scipy",
    "seaborn",
    "matplotlib",
    "papermill",
    "jupyter-book",
)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def write_manifest(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest with a checksum of its own."""
    content = _plain(content)
    write_json(path, {**content, "sha256": digest(content)})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest; None where there is none, or a damaged one. One without `files` is older than the checksums."""
    manifest = read_object(path)
    if manifest is None or not run_schema.is_of_a_run(manifest):
        return None
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return manifest if manifest.get("sha256") == (digest(content) if "files" in content else None) else None


def read_object(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None where there is no file, or one that holds anything else."""
    if not path.is_file():  # a device has no end, and a pipe may have no beginning
        return None
    try:
        found = parse_json(content(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_columns(path: Path) -> pd.DataFrame | None:
    """A CSV as text, to go back as it came; None where there is no file, or one that is no table."""
    try:
        return read_csv(path, dtype=str)
    except (OSError, ValueError):
        return None


def merge_sections(path: Path, sections: dict[str, Any]) -> None:
    """Put sections into a JSON file, beside those that are there.

    Processes take turns; a damaged file is begun anew.
    """
    with locked(path.parent / RECORDING):
        write_json(path, {"schema_version": SCHEMA_VERSION, **(read_object(path) or {}), **sections})


def merge_columns(path: Path, table: pd.DataFrame, key: str) -> None:
    """Put columns into a CSV, beside those that are there; rows belong together by the column `key`.

    Processes take turns; a damaged file is begun anew.
    """
    with locked(path.parent / RECORDING):
        new = table.set_index(key)
        there = _rows(path, key, new.index)
        if there is not None:
            table = there.reindex(new.index).assign(**new).reset_index()
        with whole_file(path) as temporary:
            write_csv(table, temporary)


def _rows(path: Path, key: str, like: pd.Index) -> pd.DataFrame | None:
    """The table that is there by its keys, of the same kind as others; None where it has none, or one of them twice."""
    there = read_columns(path)
    if there is None or key not in there:
        return None
    there = there.set_index(key)
    try:
        there.index = there.index.astype(like.dtype)
    except (ValueError, TypeError):
        return None
    return there if there.index.is_unique else None


def replace_table(path: Path, table: str) -> None:
    """Write a CSV to a place that the user named, over nothing but an empty file or a table with the same columns.

    Where the place is a symbolic link, what it points to is written and the link stays.

    Raises:
        InputError: something else is there.
        OSError: a file cannot be made there.
    """
    require_table(path, table.splitlines()[0])
    write_text(Path(os.path.realpath(path)), table)


def require_table(path: Path, header: str) -> None:
    """Refuse a place where something lies that is neither an empty file nor a table with this first line, or where no
    file can be made.

    Raises:
        InputError: something else is there, or a link that leads back to itself.
        OSError: a file cannot be made there; the error names the folder.
    """
    there = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if path.is_dir() or (there and there.splitlines()[0] != header):
        raise InputError(f"--out: {path} is there already, and no table with these columns: name another file")
    if path.exists() and not path.is_file():
        raise InputError(f"--out: {path} is no file: name another, or - for standard output")
    if os.path.islink(os.path.realpath(path)):
        raise InputError(f"--out: {path} is a link that leads back to itself: name another file")
    require_writable(path)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """manifest.json and results.json of a finished run.

    Raises:
        InputError: the folder is no run, its files cannot be read, or hold something else than what is read of them.
    """
    manifest, results = (read_object(folder / name) for name in (MANIFEST, RESULTS))
    if manifest is None or results is None:
        name = MANIFEST if manifest is None else RESULTS
        raise InputError(f"{folder} is no finished run: it lacks a readable {name}; run `cmm run` first")
    run_schema.check(MANIFEST, manifest, folder.name)
    run_schema.check(RESULTS, results, folder.name)
    return manifest, results


def require_different_runs(folders: Sequence[Path]) -> None:
    """Refuse runs to compare with that are none, or one under two names.

    Raises:
        InputError: it is so.
    """
    runs = [read_run(folder)[0]["id"] for folder in folders]
    if len({*runs}) < len(runs):
        raise InputError("compare_with: one run is named twice: name different ones")


def versions() -> dict[str, str | None]:
    """Installed versions of the packages that results depend on; None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """Commit of the clone that this package runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _plain(value: Any) -> Any:
    """JSON's own types; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
