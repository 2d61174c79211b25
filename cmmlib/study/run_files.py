"""The files of a run folder: JSON that any program can read, tables that chapters share, versions of what made them."""

from __future__ import annotations

import json
import math
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.storage.cache import whole_file, write_text
from cmmlib.storage.text_files import read_json
from cmmlib.study import run_schema

SCHEMA_VERSION = 1
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


def merge_columns(path: Path, table: pd.DataFrame, key: str) -> None:
    """Put columns into a CSV, beside those that are there; rows belong together by the column `key`."""
    if path.exists():
        there = pd.read_csv(path, dtype=str, keep_default_na=False).set_index(key)  # text, to go back as it came
        new = table.set_index(key)
        there.index = there.index.astype(new.index.dtype)
        table = there.reindex(new.index).assign(**new).reset_index()
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)


def replace_table(path: Path, table: str) -> None:
    """Write a CSV to a place that the user named, over nothing but an empty file or a table with the same columns.

    Raises:
        InputError: something else is there.
    """
    require_table(path, table.splitlines()[0])
    write_text(path, table)


def require_table(path: Path, header: str) -> None:
    """Refuse a place where something lies that is neither an empty file nor a table with this first line.

    Raises:
        InputError: something else is there.
    """
    there = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if path.is_dir() or (there and there.splitlines()[0] != header):
        raise InputError(f"--out: {path} is there already, and no table with these columns: name another file")


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """manifest.json and results.json of a finished run.

    Raises:
        InputError: the folder is no run, its files cannot be read, or hold something else than what is read of them.
    """
    read = []
    for name in ("manifest.json", "results.json"):
        try:
            read.append(read_json(folder / name, name))
        except InputError:
            raise InputError(f"{folder} is no finished run: it lacks a readable {name}; run `cmm run` first") from None
        run_schema.check(name, read[-1], folder.name)
    return read[0], read[1]


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
