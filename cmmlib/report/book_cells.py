"""What the book makes of a plain notebook: boxes, numbered exercises, solutions that unfold, links to its pages.

Notebooks are plain Markdown, for Jupyter, Colab and GitHub. Directives of MyST are written here only, when a chapter is
placed in the book.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any

import nbformat

from cmmlib.report import exercises, questions
from cmmlib.report.execution import SETUP

DROPPED = {SETUP, "parameters", "check"}  # tags of cells that are for whoever runs the notebook
OF_EXERCISES = {"question", "exercise", "solution", "check"}
_NOTE = re.compile(r"^> \*\*(.+?)\*\*\n>\n((?:>.*\n?)+)", re.M)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:)([^)\s#]+)(#[^)\s]*)?\)")


def for_the_book(notebook: Any, place: str, exists: Callable[[str], bool]) -> Any:
    """The notebook as the book shows it.

    Args:
        place: the folder in the book that it goes to, as in `chapters`.
        exists: whether the book has a page of this path.
    """
    cells = [cell for cell in notebook.cells if not DROPPED & {*tags(cell)}]
    for cell in cells:
        _fold(cell)
    notebook.cells = list(_with_solutions(cells))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _linked(_boxed(questions.for_the_book(cell.source)), place, exists)
    return notebook


def _fold(cell: Any) -> None:
    """Fold the code that imports, or draws and tabulates what is there; code that calls the method stays open."""
    if cell.cell_type != "code" or {"solution", "remove-cell"} & {*tags(cell)}:
        return
    imports = all(re.match(r"from |import |\s*$", line) for line in cell.source.splitlines())
    shows = re.search(r"\bpages\.show_|\.show_(explorer|playground)\(", cell.source)
    if imports or (shows and not re.search(r"\bF\.|\brun\.(encode|blind)\b", cell.source)):
        cell.metadata["tags"] = [*tags(cell), "hide-input"]


def without_exercises(notebook: Any) -> Any:
    """The notebook for a further run, since a book has each exercise and each question once."""
    notebook.cells = [cell for cell in notebook.cells if not OF_EXERCISES & {*tags(cell)}]
    return notebook


def tags(cell: Any) -> list[str]:
    """Of a cell; none is an empty list."""
    return cell.metadata.get("tags", [])


def _boxed(source: str) -> str:
    """A quotation that begins with a bold title is a box with that title."""

    def box(found: re.Match[str]) -> str:
        text = re.sub(r"^> ?", "", found[2], flags=re.M).rstrip()
        kind = "tip" if found[1] == "What you will learn" else "note"
        return f":::{{admonition}} {found[1]}\n:class: {kind}\n{text}\n:::\n"

    return _NOTE.sub(box, source)


def _with_solutions(cells: list[Any]) -> Iterator[Any]:
    """Exercises as directives; the cells of a solution between the two that make it unfold."""
    label, is_open = "", False
    for cell in [*cells, None]:
        is_solution = cell is not None and "solution" in tags(cell)
        if is_open and not is_solution:
            yield _markdown("````{solution-end}\n````")
        if is_solution and not is_open:
            yield _markdown(f"````{{solution-start}} {label}\n:class: dropdown\n````")
        is_open = is_solution
        if cell is None:
            return
        found = exercises.HEADING.search(cell.source) if "exercise" in tags(cell) else None
        if found:
            label = "exercise-" + found["number"].replace(".", "-")
            head = f"{found['number']}: {found['title']}\n:label: {label}\n:nonumber:\n{_marks(found['marks'])}"
            cell.source = f"````{{exercise}} {head}{cell.source[found.end() :]}\n````"
        yield cell


def _marks(marks: str | None) -> str:
    """An exercise's level and kind, a line above its text."""
    return f"\n:::{{container}} cmm-marks\n{' · '.join(marks.split(', '))}\n:::\n\n" if marks else ""


def _markdown(source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": ["exercise"]})


def _linked(source: str, place: str, exists: Callable[[str], bool]) -> str:
    """Links as they are from the chapter's place; a page that this book lacks is named without a link."""

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = target.removeprefix("../book/") if target.startswith("../book/") else f"chapters/{target}"
        inside = f"{place}/{target}"
        path = inside if not target.startswith("../") and exists(inside) else path
        return f"[{text}]({posixpath.relpath(path, place)}{anchor or ''})" if exists(path) else text

    return _LINK.sub(link, source)
