"""What the chapters of a run made, with checksums: what is lost or damaged is noticed, named and made again.

Chapters share results.json and the tables, so these are compared section by section and column by column, and what
else somebody recorded there does not matter. An executed notebook may have been edited by its reader: as long as it can
be read it is left alone.
"""

from __future__ import annotations

import re
import shlex
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmmlib.errors import InputError, some
from cmmlib.storage.cache import digest, file_digest
from cmmlib.study.named_paths import file_fields, prefix_of
from cmmlib.study.run_files import MANIFEST, RESULTS, read_columns, read_manifest, read_object
from cmmlib.study.study import Study

PLACES = (RESULTS, "*.csv", "figures/*.svg", "figures/*.png", "classifiers/*.safetensors", "chapters/[0-9]*.ipynb")
ALL = "all"  # the part of a file that is compared as a whole
BEING_WRITTEN = 2  # seconds; a temporary file that was written to later may be that of a notebook in Jupyter
ENDINGS = "json|csv|svg|png|safetensors|ipynb"
_TEMPORARY = re.compile(  # of `whole_file`, which cuts names at 40 characters
    rf"\.(?:.+\.({ENDINGS})-[a-z0-9_]{{8}}\.\1|.{{40}}-[a-z0-9_]{{8}}\.(?:{ENDINGS}))"
)


@dataclass
class Made:
    """Chapters that are done and the files that they made, as the manifest says it.

    Attributes:
        chapters: name -> `stamp`, which changes when the page could, and `seconds`.
        files: path within the run -> `chapters` that wrote it, and `sha256` of each of its parts.
    """

    chapters: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, manifest: dict[str, Any], known: list[str]) -> Made:
        """What a manifest says of the chapters that are known. One of an earlier version lists no files: those that
        every run has must be there then."""
        chapters = {n: entry for n, entry in manifest.get("chapters", {}).items() if n in known and "stamp" in entry}
        files = manifest.get("files")
        if files is None:
            files = {f"chapters/{name}.ipynb": {"chapters": [name], "sha256": {}} for name in chapters}
            files[RESULTS] = {"chapters": list(chapters), "sha256": {}}
        kept = {name: [c for c in entry["chapters"] if c in known] for name, entry in files.items()}
        return cls(chapters, {name: {**files[name], "chapters": names} for name, names in kept.items() if names})

    def is_done(self, chapter: str, stamp: str) -> bool:
        """Whether a chapter was executed as it is now."""
        return self.chapters.get(chapter, {}).get("stamp") == stamp

    def without(self, chapter: str) -> Made:
        """What can be said while a chapter is executed: it is not done, and what all share may be changing."""
        files = {name: {**entry, "sha256": {}} if _is_shared(name) else entry for name, entry in self.files.items()}
        return Made({name: entry for name, entry in self.chapters.items() if name != chapter}, files)

    def forget_lost(self, folder: Path, wanted: set[str]) -> str | None:
        """Count the chapters that made what is missing or damaged as not executed; returns a line on them.

        A damaged file goes where all of its chapters are wanted, so that nothing of it is left in the new one.
        """
        lost = lost_files(folder, self.files)
        again: set[str] = set()
        for name in lost:
            chapters = set(self.files[name]["chapters"])
            again |= chapters
            if chapters <= wanted and _lies_within(folder / name, folder):
                (folder / name).unlink(missing_ok=True)
        self.chapters = {name: entry for name, entry in self.chapters.items() if name not in again}
        if not lost:
            return None
        return f"missing or damaged: {some(lost)}; to be executed again: {', '.join(sorted(again))}"

    def is_edited(self, folder: Path, name: str) -> bool:
        """Whether somebody changed an executed notebook, or nobody knows that it is as it was written."""
        known, now = self.files.get(name, {}).get("sha256"), checksums(folder / name)
        return bool(now) and not (known and known.items() <= now.items())

    @contextmanager
    def noting(self, folder: Path, chapter: str) -> Iterator[None]:
        """Note the files that are written in this block as the chapter's."""
        before = _stamps(folder)
        yield
        for entry in self.files.values():
            entry["chapters"] = [name for name in entry["chapters"] if name != chapter]
        for name in [name for name, stamp in _stamps(folder).items() if stamp != before.get(name)]:
            writers = self.files.get(name, {"chapters": []})["chapters"]
            parts = checksums(folder / name)
            if parts is not None:
                self.files[name] = {"chapters": sorted([*writers, chapter]), "sha256": parts}
        self.files = {name: entry for name, entry in sorted(self.files.items()) if entry["chapters"]}


def _lies_within(file: Path, folder: Path) -> bool:
    """Whether a file's folder is one of the run: `figures` may have become a link to somebody else's."""
    return file.parent.resolve().is_relative_to(folder.resolve())


def _is_shared(name: str) -> bool:
    return name.endswith((".json", ".csv"))


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes of every file of chapters when it is written again."""
    files = (path for pattern in PLACES for path in folder.glob(pattern) if not path.name.startswith("."))
    status = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for name, s in status.items()}


def checksums(file: Path) -> dict[str, str] | None:
    """SHA-256 of each section of a JSON file, each column of a table, else of all; None where it cannot be read."""
    try:
        if file.suffix == ".json":
            content = read_object(file)
            return None if content is None else {key: digest(value) for key, value in content.items()}
        if file.suffix == ".csv":
            table = read_columns(file)
            return None if table is None else {str(name): digest(table[name].tolist()) for name in table}
        return {ALL: file_digest(file)} if file.suffix != ".ipynb" or _is_notebook(file) else None
    except OSError:
        return None


def _is_notebook(file: Path) -> bool:
    content = read_object(file)
    return content is not None and isinstance(content.get("cells"), list)


def lost_files(folder: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    """Those of a run's files that are missing or damaged: not as they were written, or no readable notebook."""
    return [name for name, entry in files.items() if not _is_sound(folder / name, entry["sha256"])]


def _is_sound(file: Path, known: dict[str, str]) -> bool:
    now = checksums(file)
    return now is not None and (file.suffix == ".ipynb" or known.items() <= now.items())


def require_whole(folder: Path, only: Collection[str] | None = None) -> None:
    """Refuse a run that lacks what its chapters made.

    Args:
        only: files that matter, by their paths within the run; by default all, and every chapter that was begun.

    Raises:
        InputError: the first file that is missing or damaged, and the command that makes it again.
    """
    manifest = read_manifest(folder / MANIFEST)
    lost = [MANIFEST]
    if manifest is not None:
        files = manifest.get("files") or Made.of(manifest, list(manifest["chapters"])).files
        begun = {name for entry in files.values() for name in entry["chapters"]} - manifest["chapters"].keys()
        if only is not None:
            files, begun = {name: entry for name, entry in files.items() if name in only}, set()
        lost = lost_files(folder, files) or [f"chapters/{name}.ipynb" for name in sorted(begun)]
    if lost:
        own = str((manifest or {}).get("id", folder.name))
        first = "" if own == folder.name else f"call the folder {own} again, and "  # by which the command finds it
        remedy = f"{first}the study's own command heals it: {command(manifest, folder)}"
        raise InputError(f"{folder} is damaged, as {some(lost)} {'shows' if len(lost) == 1 else 'show'}: {remedy}")


def command(manifest: dict[str, Any] | None, folder: Path) -> str:
    """The command that executes a run's study; PATH stands for where its files lie, which no manifest says."""
    defaults = {name: field.default for name, field in Study.model_fields.items()}
    fields = (manifest or {}).get("study", {})
    changed = {
        name: value for name, value in fields.items() if name in defaults and value not in (None, defaults[name])
    }
    placed = {name: _with_place(str(changed[name])) for name in file_fields(changed)}
    if runs := changed.get("compare_with"):
        placed["compare_with"] = ",".join(map(_with_place, str(runs).split(",")))
    values = {**changed, **placed}
    flags = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    known = flags if manifest else ["..."]
    place = [] if folder.parent.name == defaults["out"] else ["--out", str(folder.parent)]
    return shlex.join(["cmm", "run", *known, *place])


def _with_place(value: str) -> str:
    """The name of a file or folder behind PATH."""
    prefix = prefix_of(value)
    return f"{prefix}PATH/{value[len(prefix) :]}"


def drop_left_behind(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote into a run's folder."""
    old = time.time() - BEING_WRITTEN
    for place in {Path(pattern).parent for pattern in PLACES}:
        for path in (folder / place).glob(".*"):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if _TEMPORARY.fullmatch(path.name) and stat.S_ISREG(status.st_mode) and status.st_mtime < old:
                    path.unlink()
