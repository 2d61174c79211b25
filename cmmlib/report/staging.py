"""The folder that Jupyter Book reads: pages with a run's numbers, chapters, contents, configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmmlib.report import placed_chapters, publication, slides
from cmmlib.report.chapters import APPENDIX, executed_chapters, source
from cmmlib.report.page_values import filled
from cmmlib.report.placed_chapters import cards
from cmmlib.storage import own_folders
from cmmlib.storage.network import book_url, repository_url

WORLD = "miniature_world"  # the page that introduces the embedded world
UNUSED = {"chapters", "_build"}  # of the folder of pages: what Jupyter Book makes there by hand
FIGURES = "figures"  # of a run, and of the staged book


def stage(folders: Sequence[Path], staged: Path, manifest: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """Pages, executed chapters and a table of contents, in one folder that Jupyter Book reads."""
    import yaml

    pages, figures = source("book"), folders[0] / FIGURES
    own_folders.copy((p for p in sorted(pages.rglob("*")) if not UNUSED & {*p.relative_to(pages).parts}), pages, staged)
    own_folders.copy(sorted(figures.rglob("*")), folders[0], staged)
    own_folders.copy(figures.glob(publication.PICTURE), figures, staged / "_static")
    has_cards = bool(cards(folders[0]))
    if not has_cards:
        (staged / f"{WORLD}.md").unlink()
    for page in staged.rglob("*.md"):
        text = keep_blocks(page.read_text("utf-8"), manifest["conditions"])
        page.write_text(filled(text, values, page.name), "utf-8")
    placed_chapters.place(folders, staged, manifest)
    slides.place(folders[0], staged / "_static")
    toc = yaml.safe_load((staged / "_toc.yml").read_text("utf-8"))
    toc["parts"] = [*_parts(folders), *toc["parts"]]
    (staged / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")
    (staged / "_config.yml").write_text(yaml.safe_dump(_configuration(), sort_keys=False), "utf-8")


def _parts(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The chapters of every run and the cards, as parts of the table of contents."""
    parts, appendix = [], cards(folders[0])
    for number, folder in enumerate(folders):
        place = "chapters" if number == 0 else f"chapters/{folder.name}"
        main = [f"{place}/{path.stem}" for path in executed_chapters(folder) if not path.stem.startswith(APPENDIX)]
        if number == 0 and appendix:
            main.insert(1, WORLD)  # before the first chapter that is about it
        parts.append(_part("Chapters" if number == 0 else f"The same chapters: {folder.name}", main))
    if appendix:
        parts.append(_part("The embedded world", [f"chapters/{path.stem}" for path in appendix]))
    return parts


def _part(caption: str, files: Sequence[str]) -> dict[str, Any]:
    return {"caption": caption, "chapters": [{"file": file} for file in files]}


def add_part(staged: Path, title: str, pages: Sequence[str]) -> None:
    """A part of the table of contents, after the chapters."""
    import yaml

    toc = yaml.safe_load((staged / "_toc.yml").read_text("utf-8"))
    toc["parts"].insert(1, _part(title, pages))
    (staged / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")


def _configuration() -> dict[str, Any]:
    """_config.yml, with buttons to the repository and addresses of the book where the environment names them."""
    import yaml

    config = yaml.safe_load(source("_config.yml").read_text("utf-8"))
    url = repository_url()
    if url:
        config["repository"] = {"url": url, "branch": "main"}
        config.setdefault("html", {})["use_repository_button"] = True
    return publication.described(config, book_url())


_BLOCK = re.compile(r"^<!-- ((?:(?:if|unless)-\w+ )+)-->\n(.*?)^<!-- end -->\n", re.M | re.S)


def keep_blocks(text: str, known: dict[str, bool]) -> str:
    """The text without the blocks whose conditions, all of `<!-- if-NAME unless-NAME -->`, do not hold."""

    def holds(condition: str) -> bool:
        word, name = condition.split("-")
        return known.get(name, False) == (word == "if")

    return _BLOCK.sub(lambda block: block[2] if all(map(holds, block[1].split())) else "", text)
