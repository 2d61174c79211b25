"""Folders that the program empties again and again: only its own, with a mark and a list of what it made there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cmmlib.errors import InputError, some
from cmmlib.storage.cache import file_digest, write_text
from cmmlib.storage.text_files import require_writable

MARK = ".made-by-cmm"
MEANING = "cmm made this folder and empties it when it runs again: keep nothing of your own here\n"
LIST = ".files-made-by-cmm"  # JSON: paths within the folder, and digests of what was written
FILLING = ".being-made-by-cmm"  # within the folder: what takes its place when it is whole
REMEDY = "move them away, or choose another folder"
CACHES = {".ipynb_checkpoints", "__pycache__"}  # of programs that only looked


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


def list_made(folder: Path) -> None:
    """Note what a folder holds now as made by the program: `emptied` refuses to lose anything else."""
    _write_list(folder, folder)


def _write_list(folder: Path, made_in: Path) -> None:
    made = {path.relative_to(made_in).as_posix(): _contents(path) for path in _files(made_in)}
    write_text(folder / LIST, json.dumps(made, indent=0))


def foreign(folder: Path, always_listed: bool = False) -> list[str]:
    """Files of an own folder that the program did not make, or that were edited since.

    Args:
        always_listed: a folder that `filled` fills, where nothing is the program's without a list that says so; of
            another without a list none is told.
    """
    try:
        made = json.loads((folder / LIST).read_text("utf-8"))
    except (OSError, ValueError):
        made = None
    if not isinstance(made, dict):
        if not always_listed:
            return []
        made = {}
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    return [name for name, path in found.items() if made.get(name) != _contents(path)]


def require_ours(folder: Path, always_listed: bool = False) -> None:
    """Refuse to lose what somebody put into an own folder, or edited there.

    Raises:
        InputError: such files, by name.
    """
    theirs = foreign(folder, always_listed)
    if theirs:
        raise InputError(f"{folder} holds files that cmm did not make, or that were edited: {some(theirs)}: {REMEDY}")


def _files(folder: Path) -> list[Path]:
    """What lies below a folder and is no folder, in order, but for caches and the program's own notes."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = [name for name in folders if name not in CACHES and Path(place, name) != folder / FILLING]
        found += [Path(place, name) for name in (*files, *links)]
    return sorted(path for path in found if path not in (folder / MARK, folder / LIST))


def _contents(path: Path) -> str:
    """A digest of a file; of a link, where it leads."""
    return os.readlink(path) if path.is_symlink() else file_digest(path)


def require_own(folder: Path, always_listed: bool = False) -> None:
    """Refuse a place that `emptied` would refuse, or where nothing can be made: before the work that fills it.

    Raises:
        InputError: the program did not make what is there.
        OSError: the system lets nothing be made there.
    """
    if not folder.is_dir() and os.path.lexists(folder):
        raise InputError(f"{folder} is no folder: choose one, or a new name")
    if not is_own(folder):
        raise InputError(f"{folder} holds what cmm did not make: {REMEDY}")
    require_ours(folder, always_listed)
    require_writable(folder / MARK)


def emptied(folder: Path) -> Path:
    """An own folder with nothing in it but its mark, made where it is missing. A kill leaves it an own folder.

    Raises:
        InputError, OSError: as `require_own`.
    """
    require_own(folder)
    mark(folder)
    _clear(folder)
    return folder


def _clear(folder: Path, but: str = "") -> None:
    for path in folder.iterdir():
        if path.name in (MARK, but):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def filled(folder: Path, always_listed: bool = True) -> Iterator[Path]:
    """An empty folder that a block fills; what it holds then takes the place of what `folder` held.

    Where the block fails, or is killed, `folder` holds what it held before; it is not left where it is new.

    Args:
        always_listed: as `foreign`; not so for folders that versions before the lists filled.

    Raises:
        InputError: the program did not make what is there.
    """
    is_new, is_bare = not folder.exists(), not (folder / MARK).exists()
    require_own(folder, always_listed)
    mark(folder)
    place = folder / FILLING
    try:
        shutil.rmtree(place, ignore_errors=True)  # of a call that was killed
        place.mkdir()
        yield place
        _clear(folder, but=FILLING)
        _write_list(folder, place)  # before its files are there: of a kill between, nothing is unknown
        for path in place.iterdir():
            path.rename(folder / path.name)
        place.rmdir()
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # of a write into an open file
            error.filename = os.fspath(folder)
        with suppress(OSError):
            shutil.rmtree(place)
        with suppress(OSError):
            if is_bare:
                (folder / MARK).unlink()
            if is_new:
                folder.rmdir()
        raise


def overlap(one: Path, other: Path) -> bool:
    """Whether one of two places is, or lies in, the other, whatever links lead there."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def copy(paths: Iterable[Path], root: Path, target: Path) -> None:
    """Copy files and folders (these without what they hold) from below `root` to the same places below `target`.

    Raises:
        OSError: the first that cannot be read or written, as the system says it.
    """
    for path in paths:
        place = target / path.relative_to(root)
        (place if path.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            shutil.copyfile(path, place)


def put(new: Path, folder: Path) -> None:
    """Move a folder to the place of an own one.

    Raises:
        InputError: the program did not make what is there.
    """
    (emptied(folder) / MARK).unlink()
    folder.rmdir()
    shutil.move(new, folder)
