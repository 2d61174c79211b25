"""What a chapter gives to the slides: figures and tables, what is said of them, predictions, questions, exercises."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from cmmlib.report import exercises
from cmmlib.report.book_cells import OF_EXERCISES, tags
from cmmlib.report.captions import NARROW
from cmmlib.report.questions import TEXT, details, questions, unfolding, with_answers

LARGEST_DRAWING = 300_000  # characters of an SVG; of a larger one, with pictures in it, the PNG is shown
MOST_ROWS = 8  # of a table
ROOM = {  # width and height of a figure on a slide of 1280 x 720: over its text; beside it, on three fifths or one half
    "wide": (1177, 430),
    "tall": (690, 533),
    "beside": (585, 580),
}
SAID = '<div class="said">'  # begins what is said of a figure
PAPER = "pencil and paper"  # the kind of exercise that needs no computer
PROSE = MarkdownIt("commonmark", {"html": False}).enable("table")
OURS = MarkdownIt("commonmark").enable("table")
_BOX = re.compile(r"^> \*\*(What you will learn|Predict, then run)\*\*\n>\n((?:>.*\n?)+)", re.M)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https:)[^)\s]+\)")
_FORMULA = re.compile(r"^\$\$\n(?P<block>.+?)\n\$\$$|\$(?P<line>[^$\n]+)\$", re.M | re.S)
_FIGURE_NAME = re.compile(r'\bshow_figure\(.*?"(\w+)"\)', re.S)
_ROW = re.compile(r"<tr>.*?</tr>", re.S)


@dataclass
class Slide:
    """Attributes:
    title: HTML.
    body: HTML of its parts.
    kind: its class in the style sheet.
    keys: what a plan calls it: `question 0.1`, `exercise 1.1`, `predict 01`, `figure NAME`.
    part: HTML of a line above the title.
    """

    title: str
    body: list[str] = field(default_factory=list)
    kind: str = ""
    keys: list[str] = field(default_factory=list)
    part: str = ""

    @property
    def has_picture(self) -> bool:
        """Whether there is a figure or a table already: a slide has one at most."""
        return any(part.startswith(("<figure", '<div class="rows"')) for part in self.body)


class Item(NamedTuple):
    """One thing of a chapter: what it is, what a plan calls it, its title and its body as HTML."""

    kind: str
    key: str
    title: str
    body: str


def of_chapter(notebook: Any, number: str, figures: Path | None = None) -> list[Slide]:
    """A chapter's title; then for each section predictions, figures with what is said of them, questions, exercises.

    Args:
        number: of the chapter, two digits.
        figures: the run's folder of figures, which has those for a phone; without it the notebook's own are shown.
    """
    first, *rest = notebook.cells
    section = inline(first.source.partition("\n")[0].lstrip("# "))
    learnt = [html(text.partition("\n\n")[0]) for _, text in _boxes(first.source)]
    slides = [Slide(section, learnt, "chapter")]
    for item in _items(rest, number, figures):
        if item.kind == "section":
            section = item.title
        if item.kind in ("section", "predict", "question", "exercise"):
            kind = "" if item.kind == "section" else item.kind
            slides.append(Slide(item.title, [item.body] if item.body else [], kind, [item.key]))
            continue
        if slides[-1].kind or (item.kind == "picture" and slides[-1].has_picture):
            slides.append(Slide(section))
        slides[-1].body.append(item.body)
        slides[-1].keys += [item.key] if item.key else []
    kept = [slide for slide in slides if slide.body]
    return kept if len(kept) > 1 else []


def section_text(notebook: Any, heading: str) -> str | None:
    """HTML of what a section of a chapter says before its first code, up to its first formula; None without it.

    Code of which the text says that it follows, by a colon, comes with it.
    """
    for place, cell in enumerate(notebook.cells):
        found = re.search(rf"^## {re.escape(heading)}\n+(.+?)(?=^#|\Z)", cell.source, re.M | re.S)
        if found and cell.cell_type == "markdown":
            formula = re.search(r"^\$\$\n.+?\n\$\$$", found[1], re.M | re.S)
            text = found[1][: formula.end()] if formula else found[1].strip()
            follows = notebook.cells[place + 1 : place + 2] if text.endswith(":") else []
            return html(text) + "".join(f"<pre>{escape(c.source)}</pre>" for c in follows if c.cell_type == "code")
    return None


def _items(cells: Iterable[Any], number: str, figures: Path | None) -> Iterator[Item]:
    """What the slides are made of, in order."""
    exercise: Item | None = None
    for cell in cells:
        marks = {*tags(cell)}
        if exercise and not marks & {"solution", "check"}:
            yield exercise
            exercise = None
        if "exercise" in marks:
            exercise = _on_paper(cell.source)
        elif exercise and "solution" in marks and cell.cell_type == "markdown":
            exercise = exercise._replace(body=exercise.body + html(details("Solution", cell.source), raw=True))
        elif marks & (OF_EXERCISES - {"question"}) or "pages.study_table(" in cell.source:
            continue
        else:
            yield from _of_markdown(cell.source, number) if cell.cell_type == "markdown" else _of_outputs(cell, figures)
    if exercise:
        yield exercise


def _on_paper(source: str) -> Item | None:
    """An exercise for which nobody needs a computer."""
    found = exercises.HEADING.search(source)
    if not found or PAPER not in (found["marks"] or ""):
        return None
    title = f"Exercise {found['number']}: {inline(found['title'])}"
    return Item("exercise", f"exercise {found['number']}", title, html(unfolding(source[found.end() :]), raw=True))


def _of_markdown(source: str, number: str) -> Iterator[Item]:
    for heading in re.findall(r"^## (.+)$", source, re.M):
        yield Item("section", f"section {number} {heading}", inline(heading), "")
    for title, text in _boxes(source):
        yield Item("predict", f"predict {number}", title, html(text))
    for asked in questions(source):
        title = f"Question {asked.number}: {inline(asked.title)}"
        yield Item("question", f"question {asked.number}", title, html(with_answers(asked), raw=True))


def _of_outputs(cell: Any, figures: Path | None) -> Iterator[Item]:
    names = iter(_FIGURE_NAME.findall(cell.source))
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/svg+xml" in data:
            alt, name = output["metadata"]["image/svg+xml"]["alt"], next(names, None)
            kind, address = _shown(data, figures and figures / f"{name}{NARROW}.svg")
            picture = f'<figure class="{kind}"><img src="{address}" alt="{escape(alt)}"></figure>'
            yield Item("picture", f"figure {name}" if name else "", "", picture)
        elif "text/markdown" in data:
            yield Item("said", "", "", said(data["text/markdown"]))
        elif "<table" in data.get("text/html", ""):
            table = data["text/html"].replace("<b>Table.</b> ", "")  # its title, without the word that numbers need
            yield Item("picture", "", "", f'<div class="rows">{_first_rows(table)}</div>')


def _first_rows(table: str) -> str:
    """A table with no more rows than can be read from afar, and a note of how many are left out."""
    head, body, end = table.partition("<tbody>")
    rows = _ROW.findall(end)
    if len(rows) <= MOST_ROWS:
        return table
    left = len(rows) - MOST_ROWS
    return f"{head}{body}{''.join(rows[:MOST_ROWS])}</tbody></table><p>And {left} more, in the book.</p>"


def _shown(data: dict[str, str], phone: Path | None) -> tuple[str, str]:
    """The kind and the address of a figure: a page's or a phone's, whichever has the larger letters on a slide."""
    drawing = data["image/svg+xml"]
    larger = max(("wide", "tall"), key=lambda kind: _scale(drawing, kind))
    if phone is not None and phone.is_file():
        narrow = phone.read_text("utf-8")
        if len(narrow) <= LARGEST_DRAWING and _scale(narrow, "beside") > _scale(drawing, larger):
            return "beside", _address({"image/svg+xml": narrow})
    return larger, _address(data)


def _scale(drawing: str, kind: str) -> float:
    """Pixels of a slide for each of a drawing's units."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    return min(room / float(size) for room, size in zip(ROOM[kind], found.groups(), strict=True)) if found else 0.0


def _boxes(source: str) -> list[tuple[str, str]]:
    return [(title, exercises.unquoted(text)) for title, text in _BOX.findall(source)]


def _address(data: dict[str, str]) -> str:
    """A figure in the page itself, which draws it as an image: nothing in it is run."""
    drawing = data["image/svg+xml"]
    if len(drawing) > LARGEST_DRAWING:
        return f"data:image/png;base64,{data['image/png'].strip()}"
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"


def said(text: str) -> str:
    """HTML of what is said of a figure or of a table."""
    return f"{SAID}{html(text)}</div>"


def inline(text: str) -> str:
    """A line of Markdown as HTML, without links to what is not here."""
    return TEXT.renderInline(_LINK.sub(r"\1", text))


def html(text: str, raw: bool = False) -> str:
    """Markdown without links to what is not here, its formulas as MathML; HTML in it stays text, unless it is ours."""
    formulas: list[str] = []

    def kept(found: re.Match[str]) -> str:
        formulas.append(_mathml(found["block"] or found["line"], bool(found["block"])))
        return f"\ue000{len(formulas) - 1}\ue001"

    rendered = (OURS if raw else PROSE).render(_FORMULA.sub(kept, _LINK.sub(r"\1", text)))
    return re.sub("\ue000(\\d+)\ue001", lambda found: formulas[int(found[1])], rendered)


def _mathml(tex: str, is_block: bool) -> str:
    from docutils.utils.math.latex2mathml import tex2mathml

    try:
        return tex2mathml(tex, as_block=is_block)
    except ValueError:  # of a name with two dollar signs
        return escape(f"${tex}$")
