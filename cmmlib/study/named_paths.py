"""Values of a study that name files and folders: which they are, made absolute, and as pages may show them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmmlib.models import WEIGHT_ENDINGS

PATH_PREFIXES = ("folder:", "embeddings:", "local-dir:")
FILES = {*WEIGHT_ENDINGS, ".txt"}  # endings of what a field names by its path
WEB = "wds:"  # before a path, or before a name on the hub
FETCH = "fetch"  # in place of a folder of published accuracies: their repository
MOST_WORDS = 50  # of a list, between its commas, that are looked at together
PATHS = ("class_names", "classes", "transcript", "data_root", "out")


def resolved(path: str) -> Path:
    """An absolute path; links in a circle and nobody's home, on which pathlib fails, are left to whoever opens it."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def file_fields(fields: Mapping[str, Any]) -> dict[str, str]:
    """Of a study's public fields, those that name files of the user: field -> the file's name."""
    named = {name: str(value) for name, value in fields.items() if value is not None and name != "out"}
    found = {}
    for name, value in named.items():
        prefix = prefix_of(value)
        rest = value[len(prefix) :]
        is_shards = prefix == WEB and "/" not in rest  # a name on the hub has an owner
        is_file = name in ("pretrained", "templates") and bool(Path(rest).suffix)  # no tag and no pool has an ending
        is_folder = name == "published" and value != FETCH
        if prefix in PATH_PREFIXES or name in PATHS or is_shards or is_file or is_folder:
            found[name] = rest
    return found


def folder_with_comma(value: str) -> str | None:
    """The first part of a list that would be a folder if its commas were a name's, where some part is no folder."""
    words = value.split(",")[:MOST_WORDS]
    if all(os.path.isdir(resolved(word.strip())) for word in words if word.strip()):
        return None
    spans = ((first, end) for first in range(len(words)) for end in range(first + 2, len(words) + 1))
    names = (",".join(words[first:end]).strip() for first, end in spans)
    return next((name for name in names if os.path.isdir(os.path.expanduser(name))), None)


def looks_like_a_path(value: str) -> bool:
    """Whether a value has a file's ending or begins as paths do, whatever is there."""
    return Path(value).suffix in FILES or value.startswith(("/", "./", "../", "~"))


def path_fault(value: str) -> str | None:
    """Why a value names no path, though it may seem to; None where it can be one, or a name.

    A kind without a path would be the folder that one is in, and an address a folder named `file:`.

    >>> [path_fault(value) for value in ("folder:birds", "folder:")]
    [None, 'no path after folder:: write one behind it, as in folder:PATH']
    """
    prefix = prefix_of(value)
    rest = value[len(prefix) :]
    if prefix and not rest.strip():
        return f"no path after {prefix}: write one behind it, as in {prefix}PATH"
    if re.match(r"[a-z][a-z0-9+.-]+://", rest, re.IGNORECASE):
        return (
            "this is an address: give a path of this machine, and fetch first what lies elsewhere"  # it may hold a key
        )
    return None


def is_file_here(value: str) -> bool:
    """Whether a value that could be a name is a file: names of weights and pools have no ending and no slash."""
    return bool(Path(value).suffix or "/" in value) and Path(value).is_file()


def prefix_of(value: str) -> str:
    """The kind that stands before a path or a name, as in `folder:`; empty where there is none."""
    return next((p for p in (*PATH_PREFIXES, WEB) if value.startswith(p)), "")


def file_name_only(value: Any) -> Any:
    """A value with the name of its file or folder alone, and not where that lies."""
    if not isinstance(value, str):
        return value
    prefix = prefix_of(value)
    is_path = prefix in PATH_PREFIXES or value[len(prefix) :].startswith("/")
    return prefix + Path(value[len(prefix) :]).name if is_path else value


def slugify(text: str) -> str:
    """Lower-case letters, digits and hyphens, 60 at most: fit for a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "study"
