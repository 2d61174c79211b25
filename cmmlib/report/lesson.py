"""The slides of the lesson of 90 minutes: what `lesson.toml` names, in its order, of the chapters of a run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from cmmlib.report.chapter_slides import Slide, html, inline, of_chapter, section_text
from cmmlib.report.chapters import source
from cmmlib.report.glossary import definitions


def plan() -> list[dict[str, Any]]:
    """The parts of the lesson: `minutes`, `title` and `slides`."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["parts"]


def deck(chapters: Mapping[str, Any]) -> list[list[Slide]]:
    """The slides of each part, without those that the chapters do not have.

    Args:
        chapters: number of a chapter, two digits -> its notebook.
    """
    there = {key: s for number, notebook in chapters.items() for s in of_chapter(notebook, number) for key in s.keys}
    parts = []
    for part in plan():
        line = f"{part['minutes']} min: {inline(part['title'])}"
        found = [slide for wanted in part["slides"] for slide in _slides(wanted, there, chapters)]
        parts.append([replace(slide, part=line) for slide in found])
    return [part for part in parts if part]


def _slides(
    wanted: str | Mapping[str, Any], there: Mapping[str, Slide], chapters: Mapping[str, Any]
) -> Iterator[Slide]:
    """What the plan names: a slide of a chapter, a section's text, words of the glossary, or a text of its own."""
    if not isinstance(wanted, str):
        yield Slide(inline(wanted["title"]), [_words(wanted["words"]) if "words" in wanted else html(wanted["text"])])
    elif wanted.startswith("section "):
        _, number, heading = wanted.split(" ", 2)
        text = section_text(chapters[number], heading) if number in chapters else None
        yield from [Slide(inline(heading), [text])] if text else []
    elif wanted in there:
        yield there[wanted]


def _words(words: list[str]) -> str:
    """What the glossary says of some words."""
    known = definitions(source("book") / "glossary.md")
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{inline(known[word])}</dd>" for word in words)
    return f"<dl>{rows}</dl>"
