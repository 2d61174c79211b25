"""Notebooks for students: a run's chapters without outputs, exercises with an empty answer cell, and their solutions.

Figures and numbers appear when a student runs the cells, after the predictions that ask for them; the solutions have
those of the run. What is written needs no clone and no network: the chapters, `solutions/`, `data/` with copies of what
the study reads, and a zip file of all but the solutions. Every notebook runs from top to bottom where it lies.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from cmmlib.data.image_files import is_junk
from cmmlib.errors import InputError, some, why
from cmmlib.report import exercises
from cmmlib.report.book_cells import tags
from cmmlib.report.chapters import executed_chapters, read_notebook, source, tell_missing
from cmmlib.report.execution import SETUP
from cmmlib.report.questions import unfolding
from cmmlib.storage import own_folders
from cmmlib.storage.cache import whole_file
from cmmlib.storage.network import repository_url
from cmmlib.study.made_files import require_whole
from cmmlib.study.named_paths import file_fields
from cmmlib.study.open_run import study_id
from cmmlib.study.run_files import read_run
from cmmlib.study.study import Study

SOLUTIONS, DATA, ARCHIVE = "solutions", "data", "notebooks.zip"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:)([^)\s]+)\)")


def write(run: Path, out: Path, data: Sequence[Path] = (), complete: Callable[[Path], None] | None = None) -> Path:
    """Write a finished run's chapters for students into a folder of their own, and return their zip file.

    Args:
        data: the files and folders that the study reads, if it reads any; their copies go into `data/`.
        complete: what else is written: it is called with a folder that takes the place of `out` when all is there.

    Raises:
        InputError: no finished run, or one whose chapters are damaged; `data` that is not what the study names, or a
            folder with a link that leads back into it; an `out` that holds what this program did not make, or overlaps
            what is copied. Nothing has been written then.
        OSError: a file that cannot be read, a full disk. Nothing is left then.
    """
    fields, copies, trees = checked(run, out, data)
    chapters = executed_chapters(run)
    with own_folders.filled(out) as folder:
        for path, files in trees.items():
            own_folders.copy(files, path.parent, folder / DATA)
        for chapter in chapters:
            _write_chapter(chapter, folder / SOLUTIONS, {**fields, **_places(fields, copies, f"../{DATA}")})
            _write_chapter(chapter, folder, {**fields, **_places(fields, copies, DATA)}, answers=False)
        _zip(folder)
        if complete:
            complete(folder)
    tell_missing(run, "the notebooks")
    return out / ARCHIVE


def checked(
    run: Path, out: Path, data: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, Path], dict[Path, list[Path]]]:
    """The study's fields; field -> what was given for it; and what is copied of that. Nothing is written.

    Raises:
        InputError, OSError: as `write`.
    """
    repository_url()  # one with a key in it is refused before anything is written
    manifest, _ = read_run(run)
    require_whole(run, [name for name in manifest.get("files", {}) if name.endswith(".ipynb")])
    fields = {**manifest["study"], "compare_with": None}
    Study.of(fields)  # they become code: each has its name and type
    copies = _copies(fields, data)
    trees = {path: _tree(path) for path in copies.values()}
    _require_apart(out, run, trees)
    own_folders.require_own(out, always_listed=True)
    if copies:
        _require_same(manifest, copies)
    return fields, copies, trees


def _write_chapter(chapter: Path, place: Path, values: Mapping[str, Any], answers: bool = True) -> None:
    notebook = read_notebook(chapter)
    names = {path.name for path in chapter.parent.glob("[0-9]*.ipynb")}
    notebook.cells = list(_runnable(notebook.cells, chapter.name, values, names))
    if not answers:
        notebook.cells = list(_without_answers(notebook.cells))
    with whole_file(place / chapter.name) as temporary:
        nbformat.write(notebook, temporary)


def _copies(fields: Mapping[str, Any], data: Sequence[Path]) -> dict[str, Path]:
    """Field -> the file or folder that was given for it.

    Raises:
        InputError: one that is missing, or given and not named by the study; two of the same name.
    """
    given, wanted = {path.name: path for path in data}, file_fields(fields)
    for path in data:
        if not path.exists():
            raise InputError(f"--data: {path} does not exist: give the place of a file or folder that the study reads")
        if given[path.name] != path:
            raise InputError(f"--data: {path} and {given[path.name]} have one name: give the one that the study reads")
    if missing := [f"its {name} is {file}" for name, file in wanted.items() if file not in given]:
        raise InputError(f"--data: of what the study reads, {some(missing)}: give the path, a --data for each")
    foreign = [name for name in given if name not in wanted.values()]
    if foreign:
        raise InputError(f"--data: the study does not read {foreign[0]}: leave it out")
    return {name: given[file] for name, file in wanted.items()}


def _require_same(manifest: Mapping[str, Any], copies: Mapping[str, Path]) -> None:
    """Refuse data that the run did not read: the numbers of the text would be those of others.

    Raises:
        InputError: the study has another id with them, or cannot be opened.
    """
    fields = manifest["study"]
    here = {name: fields[name].removesuffix(path.name) + str(path) for name, path in copies.items()}
    now = study_id(Study.of({**fields, **here}), manifest["data"].get("broken", []))
    if now != manifest["id"]:
        names = ", ".join(str(path) for path in copies.values())
        raise InputError(f"--data: {names} is not what the run read ({manifest['id']} would be {now}): give that")


def _places(fields: Mapping[str, Any], copies: Mapping[str, Path], to_data: str) -> dict[str, str]:
    """The fields that name files, with the places of the copies; the prefix of `folder:NAME` stays."""
    return {name: fields[name].removesuffix(path.name) + f"{to_data}/{path.name}" for name, path in copies.items()}


def _tree(path: Path) -> list[Path]:
    """A file; or a folder and everything below it that a study could read, links followed.

    Junk, links that lead nowhere and what is no file are left out, as every study leaves them out.

    Raises:
        InputError: a folder that cannot be read, or a link to a folder that it lies in: a copy would have no end.
    """
    return list(_walk(path)) if path.is_dir() else [path]


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"--data: cannot read folder {error.filename}: {why(error)}")

    real: dict[Path, str] = {}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(place)
        real[here] = os.path.realpath(here)
        if real[here] in {real[above] for above in here.parents if above in real}:
            raise InputError(f"--data: {here} leads back to a folder that it lies in, without end: remove that link")
        folders[:] = [name for name in folders if not is_junk(name)]
        yield here
        yield from (here / name for name in files if not is_junk(name) and (here / name).is_file())


def _require_apart(out: Path, run: Path, trees: Mapping[Path, Sequence[Path]]) -> None:
    """Refuse an `out` that would be emptied, or filled, together with what is read."""
    place = Path(os.path.realpath(out))
    for kept in (run, *trees):
        if own_folders.overlap(out, kept):
            raise InputError(f"--out: {out} overlaps {kept}, which is copied from: choose a folder apart from it")
    for path in (path for files in trees.values() for path in files):
        if Path(os.path.realpath(path)).is_relative_to(place):
            raise InputError(f"--out: {path} leads into {out}: choose another folder, or remove that link")


def _runnable(cells: list[Any], name: str, values: Mapping[str, Any], chapters: set[str]) -> Iterator[Any]:
    """A chapter's cells with the cells that install the package, and this study's parameters in their own cell."""
    original = read_notebook(source("notebooks") / name).cells
    setup = [cell for cell in original if SETUP in tags(cell)]
    for cell in cells:
        if "injected-parameters" in tags(cell):
            continue
        if "parameters" in tags(cell):
            yield from map(_with_address, setup)
            cell.source = Study.parameters_cell(values)
        if cell.cell_type == "markdown":
            cell.source = unfolding(_linked(cell.source, chapters))
        else:
            cell.execution_count = None
        yield cell


def _with_address(cell: Any) -> Any:
    address = repository_url()
    cell.source = cell.source.replace('repository = ""', f"repository = {json.dumps(address)}")
    return cell


def _linked(text: str, chapters: set[str]) -> str:
    """Links to other chapters stay; pages of the book are named, and linked where a repository is known."""
    address = repository_url().rstrip("/").removesuffix(".git")

    def link(found: re.Match[str]) -> str:
        if found[2] in chapters:
            return found[0]
        page = found[2].removeprefix("../book/")
        if page == found[2]:
            return found[1]
        return f"[{found[1]}]({address}/blob/main/book/{page})" if address else f"{found[1]} (a page of the book)"

    return _LINK.sub(link, text)


def _without_answers(cells: list[Any]) -> Iterator[Any]:
    """The cells without outputs and solutions: an empty answer, and a check against the run's number."""
    number = ""
    for place, cell in enumerate(cells):
        heading = exercises.HEADING.search(cell.source) if "exercise" in tags(cell) else None
        number = heading["number"] if heading else number
        if "check" in tags(cell):
            yield from _answer_cells(cell, number, place)
        elif "solution" not in tags(cell):
            if cell.cell_type == "code":
                cell.outputs = []  # what they show is to be predicted first
            yield cell


def _answer_cells(check: Any, number: str, place: int) -> Iterator[Any]:
    answers = [
        output["data"][exercises.ANSWER] for output in check.outputs if exercises.ANSWER in output.get("data", {})
    ]
    for answer in answers:
        name, key = answer["name"], exercises.key(answer["value"])
        yield _code(f"answer-{place}", f"{name} = ...  # your answer")
        yield _code(f"check-{place}", f"exercises.check({number!r}, {name}, {key!r})".replace("'", '"'))


def _code(cell_id: str, text: str) -> Any:
    cell = nbformat.v4.new_code_cell(text)
    cell.id = cell_id
    return cell


def _zip(folder: Path) -> None:
    """What students get in one file, in a fixed order and without times: the same run gives the same bytes."""
    target = folder / ARCHIVE
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_for_students(path.relative_to(folder)))
    with whole_file(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.writestr(entry(path.relative_to(folder).as_posix()), path.read_bytes())


def is_for_students(path: Path) -> bool:
    """Whether a file of the course, by its path within it, goes to students: all of the data, whatever their names, and
    no solution, nor the program's own notes."""
    top = path.parts[0]
    return top == DATA or (top != SOLUTIONS and not top.startswith("."))


def entry(name: str) -> zipfile.ZipInfo:
    """A file of an archive that everyone may read, without the time at which it was written."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    return info
