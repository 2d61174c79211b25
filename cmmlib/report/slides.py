"""Slides of a run: one HTML file with its chapters' figures, sentences, predictions and questions.

Nothing is loaded from anywhere, so the file can be mailed, opened from disk and printed. Without its script it scrolls.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt

from cmmlib.errors import InputError
from cmmlib.report.book_cells import OF_EXERCISES, tags
from cmmlib.report.chapters import read_notebook
from cmmlib.report.exercises import unquoted
from cmmlib.report.pages import table_html
from cmmlib.report.questions import TEXT, questions, with_answers
from cmmlib.storage import own_folders
from cmmlib.storage.cache import write_text
from cmmlib.study.made_files import require_whole
from cmmlib.study.run_files import read_run

FILE = "slides.html"
LARGEST_DRAWING = 300_000  # characters of an SVG; of a larger one, with pictures in it, the PNG is shown
OURS = MarkdownIt("commonmark")
_BOX = re.compile(r"^> \*\*(What you will learn|Predict, then run)\*\*\n>\n((?:>.*\n?)+)", re.M)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https:)[^)\s]+\)")


@dataclass
class Slide:
    """Attributes:
    title: HTML.
    body: HTML of its parts.
    kind: its class in the style sheet.
    """

    title: str
    body: list[str] = field(default_factory=list)
    kind: str = ""

    @property
    def has_figure(self) -> bool:
        """Whether there is one already: a slide has one at most."""
        return any(part.startswith("<figure>") for part in self.body)


def write(run: Path, out: Path) -> Path:
    """Write the slides of a finished run into a folder of their own, and return their file.

    Raises:
        InputError: no finished run, or one whose chapters are damaged; an `out` that holds what this program did not
            make, or overlaps the run. Nothing has been written then.
        OSError: a full disk. Nothing is left then.
    """
    text = html(run)
    if own_folders.overlap(out, run):
        raise InputError(f"--out: {out} overlaps {run}, which the slides are made from: choose a folder apart from it")
    with own_folders.filled(out) as folder:
        write_text(folder / FILE, text)
    return out / FILE


def place(run: Path, static: Path) -> None:
    """Put a run's slides among the files that a staged book carries as they are."""
    write_text(static / FILE, html(run))


def html(run: Path) -> str:
    """The slides of a finished run.

    Raises:
        InputError: as `write`.
    """
    manifest, results = read_run(run)
    names = [name for name in manifest.get("files", {}) if re.match(r"chapters/0.*\.ipynb$", name)]
    require_whole(run, names)
    decks = [_of_chapter(read_notebook(run / name)) for name in sorted(names)]
    slides = [_first(run.name, results, decks), *(slide for deck in decks for slide in deck)]
    shown = "\n".join(_section(number, slide) for number, slide in enumerate(slides))
    page = Template(Path(__file__).with_suffix(".html").read_text("utf-8"))
    return page.substitute(title=escape(run.name), slides=shown)


def _section(number: int, slide: Slide) -> str:
    head = "h1" if slide.kind == "chapter" else "h2"
    title = f'<{head} id="t{number}">{slide.title}</{head}>'
    opened = f'<section id="s{number}" class="{slide.kind}" aria-labelledby="t{number}" tabindex="-1">'
    return "\n".join([opened, title, *slide.body, "</section>"])


def _first(name: str, results: dict[str, Any], decks: list[list[Slide]]) -> Slide:
    """The study, and links to the chapters."""
    number, links = 1, []
    for deck in decks:
        links.append(f'<li><a href="#s{number}">{deck[0].title}</a></li>')
        number += len(deck)
    table = table_html(pd.DataFrame(results["study"])) if results.get("study") else ""
    return Slide(escape(name), [f"<nav><ol start=0>{''.join(links)}</ol></nav>", table], "chapter")


# ---------------------------------------------------------------- a chapter


def _of_chapter(notebook: Any) -> list[Slide]:
    """Its title; then for each section predictions, figures with what is said of them, and questions."""
    first, *rest = notebook.cells
    section = _inline(first.source.partition("\n")[0].lstrip("# "))
    learnt = [_html(text.partition("\n\n")[0]) for _, text in _boxes(first.source)]
    slides = [Slide(section, learnt, "chapter")]
    for kind, title, body in _items(rest):
        if kind == "section":
            section = title
        if kind in ("section", "predict", "question"):
            slides.append(Slide(title, [body] if body else [], "" if kind == "section" else kind))
        elif slides[-1].kind or (kind == "figure" and slides[-1].has_figure):
            slides.append(Slide(section, [body]))
        else:
            slides[-1].body.append(body)
    return [slide for slide in slides if slide.body]


def _items(cells: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    """What the slides are made of, in order: kind, title and HTML."""
    for cell in cells:
        if (OF_EXERCISES - {"question"}) & {*tags(cell)}:
            continue
        yield from _of_markdown(cell.source) if cell.cell_type == "markdown" else _of_outputs(cell.outputs)


def _of_markdown(source: str) -> Iterator[tuple[str, str, str]]:
    for heading in re.findall(r"^## (.+)$", source, re.M):
        yield "section", _inline(heading), ""
    for title, text in _boxes(source):
        yield "predict", title, _html(text)
    for question in questions(source):
        yield (
            "question",
            f"Question {question.number}: {_inline(question.title)}",
            _html(with_answers(question), raw=True),
        )


def _of_outputs(outputs: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    for output in outputs:
        data = output.get("data", {})
        if "image/svg+xml" in data:
            alt = output["metadata"]["image/svg+xml"]["alt"]
            yield "figure", "", f'<figure><img src="{_address(data)}" alt="{escape(alt)}"></figure>'
        elif "text/markdown" in data:
            yield "said", "", f'<div class="said">{_html(data["text/markdown"])}</div>'


def _boxes(source: str) -> list[tuple[str, str]]:
    return [(title, unquoted(text)) for title, text in _BOX.findall(source)]


def _address(data: dict[str, str]) -> str:
    """A figure in the page itself, which draws it as an image: nothing in it is run."""
    drawing = data["image/svg+xml"]
    if len(drawing) > LARGEST_DRAWING:
        return f"data:image/png;base64,{data['image/png'].strip()}"
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"


def _inline(text: str) -> str:
    return TEXT.renderInline(_LINK.sub(r"\1", text))


def _html(text: str, raw: bool = False) -> str:
    """Markdown without links to what is not here; HTML in it stays text, unless it is ours."""
    return (OURS if raw else TEXT).render(_LINK.sub(r"\1", text))
