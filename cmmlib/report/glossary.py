"""Links from the first use of a word in a chapter to the book's glossary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What is no running text: blocks of code, heads, lines of directives, code, mathematics, links, roles, addresses, bold.
_KEPT = re.compile(
    r"^(?P<fence>`{3,})(?!\{).*?^(?P=fence)|^#.*?$|^[`:]{3,}.*?$|^:\w+:.*?$|^---.*?^---"
    r"|\$\$.*?\$\$|\$[^$\n]+\$|(?:\{[\w:-]+\})?`[^`]*`|!?\[[^\]]*\]\([^)]*\)|https?://\S+|\*\*.+?\*\*"
    r"|<summary>.*?</summary>|<[^>]+>",  # no Markdown is read within a summary
    re.M | re.S,
)
_BLOCK = re.compile(r"^```\{glossary\}\n(.*?)^```", re.M | re.S)
ALSO_OTHERWISE = {"bracket", "charge", "description", "precision", "prior"}  # prose uses them in other senses too


def terms(glossary: Path) -> list[str]:
    """The words that a page with the directive `glossary` explains, the longest first."""
    lines = [line for block in _BLOCK.findall(glossary.read_text("utf-8")) for line in block.splitlines()]
    return sorted((line for line in lines if line.strip() and line[0] != " "), key=lambda term: (-len(term), term))


def definitions(glossary: Path) -> dict[str, str]:
    """Word -> what the page says of it, as Markdown on one line; words that stand above one text share it."""
    found: dict[str, str] = {}
    for block in _BLOCK.findall(glossary.read_text("utf-8")):
        for entry in block.strip().split("\n\n"):
            lines = entry.splitlines()
            text = " ".join(line.strip() for line in lines if line[0] == " ")
            found |= {line: text for line in lines if line[0] != " "}
    return found


def link_first_uses(cells: Iterable[Any], words: Iterable[str]) -> None:
    """Make the first use of every word in the running text of some cells a link to the glossary.

    Exercises and their solutions are left alone: there a reader is busy with something else.
    """
    left = {word.lower(): word for word in words if word not in ALSO_OTHERWISE}
    anyone = "|".join(re.escape(word) for word in sorted(left, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w@-])({anyone})s?(?![\w@-])", re.I)
    for cell in cells:
        tags = {*cell.metadata.get("tags", [])}
        if cell.cell_type == "markdown" and not tags & {"exercise", "solution"}:
            cell.source = _linked(cell.source, pattern, left)


def _linked(source: str, pattern: re.Pattern[str], left: dict[str, str]) -> str:
    """The text with links; words that have one now are taken from `left`."""

    def link(found: re.Match[str]) -> str:
        word = left.pop(found[1].lower(), None)
        return f"{{term}}`{found[0]} <{word}>`" if word else found[0]

    parts, end = [], 0
    for kept in _KEPT.finditer(source):
        parts += [pattern.sub(link, source[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*parts, pattern.sub(link, source[end:])])
