"""Folders that the program empties again and again: only its own, which carry a mark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cmmlib.errors import InputError
from cmmlib.storage.cache import write_text

MARK = ".made-by-cmm"
MEANING = "cmm made this folder and empties it when it runs again: keep nothing of your own here\n"


def is_own(folder: Path) -> bool:
    """Whether a folder may be emptied: it is missing, holds nothing, or carries the mark. A link is never own."""
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    return (folder / MARK).is_file() or not any(folder.iterdir())


def mark(folder: Path, note: str = "") -> None:
    """Make a folder's mark; `note` is what the mark says beyond its meaning."""
    write_text(folder / MARK, MEANING + note)


def noted(folder: Path) -> str | None:
    """The note in a folder's mark, or None where there is no mark."""
    path = folder / MARK
    return path.read_text("utf-8", "replace").removeprefix(MEANING) if path.is_file() else None


def emptied(folder: Path) -> Path:
    """An own folder with nothing in it but its mark, made where it is missing. A kill leaves it an own folder.

    Raises:
        InputError: the program did not make what is there.
    """
    if not is_own(folder):
        raise InputError(f"{folder} holds what cmm did not make: move it away, or choose another folder")
    mark(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    return folder


def put(new: Path, folder: Path) -> None:
    """Move a folder to the place of an own one.

    Raises:
        InputError: the program did not make what is there.
    """
    (emptied(folder) / MARK).unlink()
    folder.rmdir()
    shutil.move(new, folder)
