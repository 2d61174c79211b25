"""Executed chapters as the book shows them, with numbers, links to the glossary, and files to take away."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmmlib.report import student_notebooks
from cmmlib.report.book_cells import for_the_book, without_exercises
from cmmlib.report.chapters import APPENDIX, executed_chapters, read_notebook, source
from cmmlib.report.glossary import link_first_uses, terms
from cmmlib.report.numbering import number_chapter
from cmmlib.storage import own_folders
from cmmlib.storage.network import repository_url
from cmmlib.study.named_paths import file_fields

STUDENTS = "students"  # folder of the staged book with the notebooks that its buttons lead to
FILES = "files"  # and with what the chapters of the first run wrote
BRANCH = "notebooks"  # of the repository, where the publication puts them (.github/workflows/publish.yml)


def place(folders: Sequence[Path], staged: Path, manifest: Mapping[str, Any]) -> None:
    """Copy the chapters of some runs, a further run's into a folder of its own.

    Args:
        manifest: of the first run, whose chapters have buttons.
    """
    import nbformat

    chosen = {"chapters": executed_chapters(folders[0])}
    chosen |= {f"chapters/{folder.name}": _without_cards(executed_chapters(folder)) for folder in folders[1:]}
    placed = {f"{place}/{path.name}" for place, paths in chosen.items() for path in paths}
    words = terms(source("book") / "glossary.md")
    students = _write_students(folders[0], manifest["study"], staged)

    def exists(page: str) -> bool:
        return page in placed or (staged / page).is_file()

    for place, paths in chosen.items():
        (staged / place).mkdir(parents=True)
        for path in paths:
            notebook = read_notebook(path)
            if place != "chapters":
                notebook = without_exercises(notebook)
            notebook = for_the_book(notebook, place, exists)
            link_first_uses(notebook.cells, words)
            if not path.stem.startswith(APPENDIX):
                number_chapter(notebook, int(path.stem[:2]))
            if place == "chapters":
                ways = _ways_to_run(path.name) if path.name in students else []
                rows = [ways, _files(path.stem, folders[0], manifest, staged)]
                notebook.cells[0].source += _buttons([row for row in rows if row])
            nbformat.write(notebook, staged / place / path.name)


def cards(folder: Path) -> list[Path]:
    """Those that are cards of the embedded world."""
    return [path for path in executed_chapters(folder) if path.stem.startswith(APPENDIX)]


def _without_cards(paths: Sequence[Path]) -> list[Path]:
    """Cards are about the embedded world: a book has them once."""
    return [path for path in paths if not path.stem.startswith(APPENDIX)]


def _write_students(run: Path, study: Mapping[str, Any], staged: Path) -> set[str]:
    """The run's notebooks for students, where they need no file of the user's; returns their names."""
    if file_fields(study):
        return set()
    student_notebooks.write(run, staged / STUDENTS)
    return {path.name for path in (staged / STUDENTS).glob("*.ipynb")}


def _ways_to_run(notebook: str) -> list[str]:
    """Where a chapter's notebook can be had: a file and, where a repository on GitHub is known, Colab and Binder."""
    files = {"This chapter as a notebook": notebook, "all chapters": student_notebooks.ARCHIVE}
    ways = [f"{{download}}`{text} </{STUDENTS}/{file}>`" for text, file in files.items()]
    url = repository_url().rstrip("/").removesuffix(".git")
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", url)
    if found:
        colab = f"https://colab.research.google.com/github/{found[1]}/blob/{BRANCH}/{notebook}"
        ways += [f"[Colab]({colab})", f"[Binder](https://mybinder.org/v2/gh/{found[1]}/{BRANCH}?labpath={notebook})"]
    return ways


def _files(chapter: str, run: Path, manifest: Mapping[str, Any], staged: Path) -> list[str]:
    """What a chapter wrote, to take away: results.json and tables as they are, its figures as one zip file."""
    made = sorted(name for name, of in manifest.get("files", {}).items() if chapter in of["chapters"])
    tables = [name for name in made if re.fullmatch(r"[\w.]+\.(csv|json)", name)]
    own_folders.copy((run / name for name in tables), run, staged / FILES)
    figures = [name for name in made if name.startswith("figures/")]
    if figures:
        (staged / FILES).mkdir(exist_ok=True)
        with zipfile.ZipFile(staged / FILES / f"{chapter}_figures.zip", "w") as archive:
            for name in figures:
                archive.write(run / name, name)
        tables.append(f"{chapter}_figures.zip")
    return [f"{{download}}`{name.removeprefix(f'{chapter}_')} </{FILES}/{name}>`" for name in tables]


def _buttons(rows: Sequence[Sequence[str]]) -> str:
    return "".join("\n\n:::{container} cmm-buttons\n" + " · ".join(row) + "\n:::\n" for row in rows)
