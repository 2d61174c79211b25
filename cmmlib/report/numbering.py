"""Numbers of chapters, sections, equations, figures and tables, as the book shows them. Notebooks alone have none."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any

CAPTION = '<p class="cmm-caption"><b>Figure.</b> {}</p>'  # what a cell shows under a figure
TABLE_TITLE = '<p class="cmm-caption cmm-title"><b>Table.</b> {}</p>'  # and above a table
_UNNUMBERED = {kind: form.partition("{}")[0] for kind, form in (("Figure", CAPTION), ("Table", TABLE_TITLE))}
_EQUATION = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.M | re.S)
_HEADING = re.compile(r"^(#{1,2}) (?=\S)", re.M)
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.M | re.S)


def number_chapter(notebook: Any, chapter: int) -> None:
    """Put numbers before the title and the sections of a chapter, on its equations, its figures and its tables."""
    sections, equations, shown = count(1), count(1), {kind: count(1) for kind in _UNNUMBERED}

    def heading(found: re.Match[str]) -> str:
        return f"# {chapter}. " if found[1] == "#" else f"## {chapter}.{next(sections)} "

    def equation(found: re.Match[str]) -> str:
        return f"$$\n{found[1]} \\tag{{{chapter}.{next(equations)}}}\n$$"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _EQUATION.sub(equation, cell.source)
            cell.source = _outside_fences(cell.source, lambda text: _HEADING.sub(heading, text))
        for output in cell.get("outputs", []):
            _number_caption(output, chapter, shown)


def _outside_fences(source: str, change: Callable[[str], str]) -> str:
    """The source with its text changed and its blocks of code as they are."""
    parts, end = [], 0
    for fence in _FENCE.finditer(source):
        parts += [change(source[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(source[end:])])


def _number_caption(output: Any, chapter: int, shown: dict[str, count[int]]) -> None:
    html = output.get("data", {}).get("text/html", "")
    for kind, numbers in shown.items():
        if html.startswith(_UNNUMBERED[kind]):
            output["data"]["text/html"] = html.replace(kind, f"{kind} {chapter}.{next(numbers)}", 1)
