"""Built pages as they are published: what the theme adds and nothing here uses goes, what readers lack is added.

Sphinx and its theme have no setting for these, and copies of their templates would age, so finished HTML is edited.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from urllib.parse import unquote

from bs4 import BeautifulSoup

from cmmlib.errors import ChapterError, one_line
from cmmlib.report.captions import NARROW

# Thebe's script is there twice, which is an error in every browser, and names a server; every formula is set below; the
# scripts of icons serve those that a theme's user adds. The index of the search belongs to the page that searches.
UNUSED = re.compile(r"thebe|mathjax|scripts/fontawesome", re.I)
OF_THE_SEARCH = re.compile("searchtools|language_data|searchindex")
_THEBE = re.compile("thebe|^kernelName|MathJax")
_NUMBER = re.compile(r"\\tag\{([\d.]+)\}")  # what `numbering` writes behind an equation
_FORMULA = re.compile(r"\s*\\[(\[](.*)\\[)\]]\s*", re.S)


def finish(pages: Path, figures: Iterable[Path] = ()) -> None:
    """Edit every page of a built book where it lies.

    Args:
        figures: folders of the runs that have, beside a figure, its variant for a phone.

    Raises:
        ChapterError: a formula that cannot be set.
    """
    narrow = {digest: file for folder in figures for digest, file in _narrow_figures(folder)}
    for path in html_files(pages):
        page = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        _drop_scripts(page, is_search=path.stem == "search")
        _name(page)
        _describe(page)
        _keep_together(page)
        _let_scroll(page)
        _add_narrow(page, path.parent, narrow)
        _tell_drawings(page, path.parent)
        try:
            _set_formulas(page)
        except ValueError as error:
            raise ChapterError(f"page {path.name}: {one_line(error)}") from None
        _load_late(page)
        path.write_text(str(page), "utf-8")


def html_files(pages: Path) -> Iterator[Path]:
    """The pages of a built book, without what the theme keeps among its own files."""
    return (path for path in sorted(pages.rglob("*.html")) if "_static" not in path.relative_to(pages).parts)


def _drop_scripts(page: BeautifulSoup, is_search: bool) -> None:
    for script in page.find_all("script"):
        source, text = str(script.get("src", "")), script.get_text().strip()
        is_unused = UNUSED.search(source) or (not source and _THEBE.search(text))
        if is_unused or (OF_THE_SEARCH.search(source) and not is_search):
            script.decompose()
    for link in page.find_all("link", href=UNUSED):
        link.decompose()
    for tag in page.find_all("meta", property=re.compile("^og:(url|image)$")):
        if not str(tag["content"]).startswith("http"):  # of a book whose address nobody knows
            tag.decompose()


def _name(page: BeautifulSoup) -> None:
    """Names for those who hear a page: a button is called what is written on it, and the sidebar is a landmark."""
    for button in page.select("button.search-button-field[aria-label], details.hide > summary[aria-label]"):
        del button["aria-label"]
    for sidebar in page.select("#pst-primary-sidebar"):
        sidebar.attrs.update({"role": "region", "aria-label": "Contents of the book"})
    for icon in page.select("i[class*=fa-], span.fa-solid"):
        icon["aria-hidden"] = "true"


DESCRIPTION = (60, 200)  # characters of a paragraph that says something, and of what a search engine shows


def _describe(page: BeautifulSoup) -> None:
    """The first paragraph stands for the page; sphinxext-opengraph begins with pictures, and with TeX as it is."""
    least, most = DESCRIPTION
    for paragraph in page.select("article p:not(.admonition *)"):
        text = " ".join(paragraph.get_text().split())
        if len(text) >= least and not paragraph.select(".math"):
            for tag in page.select('meta[name="description"], meta[property="og:description"]'):
                tag["content"] = shorten(text, most, placeholder=" ...")
            return


_PERCENT = re.compile(r"(?<=\d) (?=%)")


def _keep_together(page: BeautifulSoup) -> None:
    """A number and its percent sign stay on one line; in code a blank is a blank."""
    for text in page.find_all(string=_PERCENT):
        if not text.find_parent(["script", "style", "pre", "code", "title"]):
            text.replace_with(_PERCENT.sub("\u00a0", text))


# The theme's script takes those that do not scroll out of the keyboard's way.
SCROLLS = "pst-scrollable-table-container"
FIGURE = "cmm-figure"  # around a chapter's figure, which keeps its width on a phone
PHONE = "(max-width: 600px)"  # as in cmm.css
LONG = 60  # characters of a formula's TeX that a phone has no room for within a line


def _let_scroll(page: BeautifulSoup) -> None:
    """Whatever may be wider than a phone scrolls by itself, with the keyboard too."""
    for table in page.select("article table"):
        parent = table.parent
        if parent is not None and SCROLLS not in parent.get_attribute_list("class"):
            table.wrap(page.new_tag("div", attrs={"class": SCROLLS}))
    for picture in page.select("div.cell_output img"):
        picture.wrap(page.new_tag("div", attrs={"class": FIGURE}))
    for formula in page.select(".math"):
        if formula.name == "div" or len(formula.get_text()) > LONG:
            formula["class"] = " ".join([*formula.get_attribute_list("class"), SCROLLS])
    boxes = (
        (f".{SCROLLS}", "table"),
        (f".math.{SCROLLS}", "formula"),
        (f".{FIGURE}", "figure"),
        ("article pre", "code"),
    )
    for box, what in boxes:
        for element in page.select(box):
            element.attrs.update({"tabindex": "0", "role": "group", "aria-label": what})


def _narrow_figures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Digests of figures, each with the file for a phone: Jupyter Book's copies have names of its own."""
    for file in sorted(folder.glob(f"*{NARROW}.svg")):
        wide = file.with_stem(file.stem.removesuffix(NARROW))
        if wide.is_file():
            yield _digest(wide), file


def _digest(figure: Path) -> str:
    """SHA-256 of a drawing's lines: MyST-NB leaves out the end of the last."""
    return hashlib.sha256("\n".join(figure.read_text("utf-8").splitlines()).encode()).hexdigest()


def _add_narrow(page: BeautifulSoup, place: Path, narrow: Mapping[str, Path]) -> None:
    """Where a figure has a variant for a phone, a phone gets it."""
    for picture in page.select('article img[src$=".svg"]'):
        wide = place / unquote(str(picture["src"]))
        file = narrow.get(_digest(wide)) if wide.is_file() else None
        if file is not None:
            shutil.copyfile(file, wide.with_stem(wide.stem + NARROW))
            address = str(picture["src"]).removesuffix(".svg") + f"{NARROW}.svg"
            source = page.new_tag("source", attrs={"media": PHONE, "srcset": address})
            picture.wrap(page.new_tag("picture")).insert(0, source)


DRAWING = "cmm-drawing"  # a figure of lines and letters alone, which the dark theme turns light on dark


def _tell_drawings(page: BeautifulSoup, place: Path) -> None:
    """Pictures within a figure keep their colours in the dark theme; a figure without any gets the theme's."""
    for picture in page.select('article img[src$=".svg"]'):
        file = place / unquote(str(picture["src"]))
        if file.is_file() and "<image" not in file.read_text("utf-8"):
            picture["class"] = " ".join([*filter(None, picture.get_attribute_list("class")), DRAWING])


def _set_formulas(page: BeautifulSoup) -> None:
    """TeX as MathML, which browsers draw and read aloud without a script.

    Raises:
        ValueError: a formula that docutils does not know.
    """
    from docutils.utils.math.latex2mathml import tex2mathml

    for element in page.select(".math"):
        for text in element.find_all(string=_FORMULA):
            tex = _FORMULA.sub(r"\1", text).strip()
            number = _NUMBER.search(tex)
            formula = BeautifulSoup(tex2mathml(_NUMBER.sub("", tex), as_block=element.name == "div"), "html.parser")
            _mend(formula)
            text.replace_with(formula)
            if number:
                element.append(page.new_tag("span", attrs={"class": "cmm-eqno"}, string=f"({number[1]})"))


def _mend(formula: BeautifulSoup) -> None:
    """Two things of docutils: an index below an accented letter, where it belongs beside it, and brackets that grow."""
    for scripts in formula.find_all("munderover"):
        letter, _, accent = scripts.find_all(True, recursive=False)
        if letter.name == "mi" and accent.get("stretchy") == "false":
            scripts.name = "msub"
            letter.wrap(formula.new_tag("mover", attrs={"accent": "true"})).append(accent)
    for bracket in formula.find_all("mo", string=["\u27e8", "\u27e9"]):
        bracket.attrs.setdefault("stretchy", "false")


def _load_late(page: BeautifulSoup) -> None:
    """Pictures below the first are loaded when a reader comes near."""
    for picture in page.select("article img")[1:]:
        picture["loading"] = "lazy"
