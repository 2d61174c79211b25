"""The slides of the lesson of 90 minutes: what `lesson.toml` names, in its order, of the chapters of a run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmmlib.report.chapter_slides import SAID, Slide, html, inline, of_chapter, said, section_text
from cmmlib.report.chapters import source
from cmmlib.report.glossary import definitions
from cmmlib.report.lesson_tables import Table


def plan() -> list[dict[str, Any]]:
    """The parts of the lesson: `minutes`, `title` and `slides`."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["parts"]


def deck(
    chapters: Mapping[str, Any], figures: Path | None = None, tables: Mapping[str, Table] = MappingProxyType({})
) -> list[list[Slide]]:
    """The slides of each part, without those that the run does not have.

    Args:
        chapters: number of a chapter, two digits -> its notebook.
        figures: of `chapter_slides.of_chapter`.
        tables: of `lesson_tables.of_run`.
    """
    decks = (of_chapter(notebook, number, figures) for number, notebook in chapters.items())
    there = {key: slide for slides in decks for slide in slides for key in slide.keys}
    parts = []
    for part in plan():
        line = f"{part['minutes']} min: {inline(part['title'])}"
        found = [_slide(wanted, there, chapters, tables) for wanted in part["slides"]]
        parts.append([replace(slide, part=line) for slide in found if slide])
    return [part for part in parts if part]


def name_of(wanted: str | Mapping[str, Any]) -> str:
    """What a slide of the plan is called in a chapter; empty for one that only the lesson has."""
    return wanted if isinstance(wanted, str) else wanted.get("slide", "")


def _slide(
    wanted: str | Mapping[str, Any],
    there: Mapping[str, Slide],
    chapters: Mapping[str, Any],
    tables: Mapping[str, Table],
) -> Slide | None:
    """A slide of a chapter, a section's text, or one of the lesson's own, with what the plan adds."""
    name, own = name_of(wanted), {} if isinstance(wanted, str) else wanted
    table = tables.get(own.get("table", ""))
    if name.startswith("section "):
        _, number, heading = name.split(" ", 2)
        text = section_text(chapters[number], heading) if number in chapters else None
        slide = Slide(inline(heading), [text]) if text else None
    elif name:
        slide = there.get(name)
    else:
        slide = None if "table" in own and not table else Slide(inline(own["title"]))
    return slide and replace(slide, body=[*_body(slide, own, table)])


def _body(slide: Slide, own: Mapping[str, Any], table: Table | None) -> Iterator[str]:
    """What a slide has: a table takes the place of its figure; `said` says how many of its sentences stay."""
    told = [part for part in slide.body if part.startswith(SAID)]
    if table:
        yield table.html
    yield from (part for part in slide.body if part not in told and not (table and part.startswith("<figure")))
    yield from told[: own.get("said", len(told))]
    if table and table.said:
        yield said(table.said)
    if "words" in own:
        yield _words(own["words"])
    if "text" in own:
        yield said(own["text"])


def _words(words: list[str]) -> str:
    """What the glossary says of some words, each with those that share its text."""
    known = definitions(source("book") / "glossary.md")
    shared = {word: ", ".join([word, *(o for o in known if o != word and known[o] == known[word])]) for word in words}
    rows = "".join(f"<dt>{escape(shared[word])}</dt><dd>{html(known[word])}</dd>" for word in words)
    return f"<dl>{rows}</dl>"
