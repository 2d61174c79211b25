"""Slides of a run, two HTML files: those of the lesson, and those of all chapters.

Nothing is loaded from anywhere, so a file can be mailed, opened from disk and printed. Without its script it scrolls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from cmmlib.errors import InputError
from cmmlib.report import lesson, lesson_tables
from cmmlib.report.captions import NARROW
from cmmlib.report.chapter_slides import Slide, of_chapter
from cmmlib.report.chapters import APPENDIX, executed_chapters, read_notebook
from cmmlib.storage import own_folders
from cmmlib.storage.cache import write_text
from cmmlib.study.made_files import require_whole
from cmmlib.study.run_files import read_run

FILE, LESSON = "slides.html", "lesson.html"  # of all chapters, and of the lesson
READ = re.compile(rf"chapters/[01].*\.ipynb$|figures/.*{NARROW}\.svg$|{lesson_tables.PER_CLASS}$")  # of a run


def write(run: Path, out: Path) -> Path:
    """Write both decks of a finished run into a folder of their own, and return the file with all chapters.

    Raises:
        InputError: no finished run, or one whose chapters are damaged; an `out` that holds what this program did not
            make, or overlaps the run. Nothing has been written then.
        OSError: a full disk. Nothing is left then.
    """
    decks = pages(run)
    if own_folders.overlap(out, run):
        raise InputError(f"--out: {out} overlaps {run}, which the slides are made from: choose a folder apart from it")
    with own_folders.filled(out) as folder:
        for name, text in decks.items():
            write_text(folder / name, text)
    return out / FILE


def place(run: Path, static: Path) -> None:
    """Put a run's slides among the files that a staged book carries as they are."""
    for name, text in pages(run).items():
        write_text(static / name, text)


def pages(run: Path) -> dict[str, str]:
    """The decks of a finished run: the name of a file, and its HTML.

    Raises:
        InputError: as `write`.
    """
    manifest, results = read_run(run)
    require_whole(run, [name for name in manifest.get("files", {}) if READ.match(name)])
    chapters = {path.name[:2]: read_notebook(path) for path in executed_chapters(run) if path.name[0] != APPENDIX}
    figures = run / "figures"
    whole = [deck for number, notebook in chapters.items() if (deck := of_chapter(notebook, number, figures))]
    parts = lesson.deck(chapters, figures, lesson_tables.of_run(run, results))
    study = {row["what"]: row["value"] for row in results.get("study", [])}
    of = f"{study['model']} on {study['data set']}" if study else run.name
    return {
        LESSON: _page("a lesson", of, _links([part[0].part for part in parts], parts, FILE, "All chapters"), parts),
        FILE: _page("all chapters", of, _links([deck[0].title for deck in whole], whole, LESSON, "The lesson"), whole),
    }


def _page(name: str, of: str, contents: str, decks: Sequence[Sequence[Slide]]) -> str:
    """A deck, which begins with a slide of its own.

    Args:
        of: the model and the data set.
        contents: HTML of links.
    """
    title = f"CLIP's worst categories: {name}"
    said = f"<p>{escape(of)}. Arrow keys turn the slides; the key <kbd>a</kbd> opens the answers of a slide.</p>"
    slides = [Slide(escape(title), [said, contents], "chapter"), *(slide for deck in decks for slide in deck)]
    shown = "\n".join(_section(number, slide) for number, slide in enumerate(slides, 1))
    page = Template(Path(__file__).with_suffix(".html").read_text("utf-8"))
    return page.substitute(title=escape(f"{title} ({of})"), slides=shown)


def _links(titles: Sequence[str], decks: Sequence[Sequence[Slide]], other: str, other_title: str) -> str:
    """Links to the first slide of each deck, behind the one that has them, and to the other file."""
    number, links = 2, []
    for title, deck in zip(titles, decks, strict=True):
        links.append(f'<li><a href="#{number}">{title}</a></li>')
        number += len(deck)
    return f'<nav><ul>{"".join(links)}<li><a href="{other}">{other_title}</a></li></ul></nav>'


def _section(number: int, slide: Slide) -> str:
    head = "h1" if slide.kind == "chapter" else "h2"
    part = f'<p class="part">{slide.part}</p>' if slide.part else ""
    title = f'{part}<{head} id="t{number}">{slide.title}</{head}>'
    opened = f'<section id="{number}" class="{slide.kind}" aria-labelledby="t{number}" tabindex="-1">'
    return "\n".join([opened, title, *slide.body, "</section>"])
