"""Links from the first use of a word in a chapter to the book's glossary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What is no running text: blocks of code, heads, lines of directives, code, mathematics, links, roles, addresses, bold.
_KEPT = re.compile(
    r"^(?P<fence>`{3,})(?!\{).*?^(?P=fence)|^#.*?$|^[`:]{3,}.*?$|^:\w+:.*?$|^---.*?^---"
    r"|\$\$.*?\$\$|\$[^$\n]+\$|(?:\{[\w:-]+\})?`[^`]*`|!?\[[^\]]*\]\([^)]*\)|https?://\S+|\*\*.+?\*\*|<[^>]+>",
    re.M | re.S,
)
_BLOCK = re.compile(r"^```\{glossary\}\n(.*?)^```", re.M | re.S)
ALSO_OTHERWISE = {"bracket", "charge", "description", "precision", "prior"}  # prose uses them in other senses too


def terms(glossary: Path) -> list[str]:
    """The words that a page with the directive `glossary` explains, the longest first."""
    lines = [line for block in _BLOCK.findall(glossary.read_text("utf-8")) for line in block.splitlines()]
    return sorted((line for line in lines if line.strip() and line[0] != " "), key=lambda term: (-len(term), term))


def link_first_uses(cells: Iterable[Any], words: Iterable[str]) -> None:
    """Make the first use of every word in the running text of some cells a link to the glossary.

    Exercises and their solutions are left alone: there a reader is busy with something else.
    """
    left = [word for word in words if word not in ALSO_OTHERWISE]
    for cell in cells:
        tags = {*cell.metadata.get("tags", [])}
        if cell.cell_type == "markdown" and not tags & {"exercise", "solution"}:
            cell.source = _linked(cell.source, left)


def _linked(source: str, left: list[str]) -> str:
    """The text with links; words that have one now are taken from `left`."""
    for word in list(left):
        pattern = re.compile(rf"(?<![\w@-]){re.escape(word)}s?(?![\w@-])", re.I)
        for start, end in _running(source):
            found = pattern.search(source, start, end)
            if found:
                link = f"{{term}}`{found[0]} <{word}>`"
                source = source[: found.start()] + link + source[found.end() :]
                left.remove(word)
                break
    return source


def _running(source: str) -> list[tuple[int, int]]:
    """Where running text begins and ends."""
    kept = [found.span() for found in _KEPT.finditer(source)]
    edges = [0, *(edge for span in kept for edge in span), len(source)]
    return list(zip(edges[::2], edges[1::2], strict=True))
