"""What is done to pages and files of a built book, on small ones."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from bs4 import BeautifulSoup
from finished_runs import html_pages
from fontTools.ttLib import TTFont
from PIL import Image

from cmmlib.errors import ChapterError
from cmmlib.report import web_files, web_pages


def finished(folder: Path, body: str, head: str = "", name: str = "page", figures=()) -> BeautifulSoup:
    path = folder / f"{name}.html"
    path.write_text(f"<!DOCTYPE html><html><head>{head}</head><body><article>{body}</article></body></html>")
    web_pages.finish(folder, figures)
    return BeautifulSoup(path.read_text(), "html.parser")


def test_scripts_that_nobody_uses_are_gone_and_others_stay(tmp_path):
    unused = ['const THEBE_JS_URL = "https://example.org/thebe"', "kernelName = 'python3'", "window.MathJax = {}"]
    head = "".join(f"<script>{text}</script>" for text in [*unused, "let toggleHintShow = 'Click'"])
    head += (
        '<script src="_static/sphinx-thebe.js?v=1"></script><link href="_static/sphinx-thebe.css" rel="stylesheet"/>'
    )
    head += '<script src="https://cdn.example.org/mathjax.js"></script><script src="searchindex.js"></script>'
    page = finished(tmp_path, "", head)
    assert [script.get_text() for script in page.find_all("script")] == ["let toggleHintShow = 'Click'"]
    assert not page.find_all("link")
    assert [script["src"] for script in finished(tmp_path, "", head, "search")("script", src=True)] == [
        "searchindex.js"
    ]


def test_a_number_keeps_its_percent_sign_and_code_its_blanks(tmp_path):
    page = finished(tmp_path, "<p>from 1.9 % to <b>20 %</b>, 5 points</p><pre>7 % 2</pre><p>see <code>7 % 2</code></p>")
    assert [part.get_text() for part in page("p")] == ["from 1.9\u00a0% to 20\u00a0%, 5 points", "see 7 % 2"]
    assert page.pre is not None
    assert page.pre.get_text() == "7 % 2"


def test_what_may_be_too_wide_scrolls_with_the_keyboard_and_is_named(tmp_path):
    wrapped = f'<div class="{web_pages.SCROLLS}"><table id="b"></table></div>'
    page = finished(tmp_path, rf'<table id="a"></table>{wrapped}<pre>x</pre><div class="math">\[x\]</div>')
    found = [(box["tabindex"], box["role"], box["aria-label"]) for box in page.select("[tabindex]")]
    assert found == [("0", "group", what) for what in ("table", "table", "code", "formula")]
    assert len(page.select(f"div.{web_pages.SCROLLS} > table")) == 2


def test_formulas_are_mathml_without_a_script(tmp_path):
    formulas = r'<span class="math">\(\tau &lt; 1\)</span><div class="math">\[\hat{y}_n + \sum_n^N\]</div>'
    page = finished(tmp_path, r"<p>\(no\)</p>" + formulas)
    assert "".join(page.span.get_text().split()) == "τ<1"
    assert page.math.get("display") is None
    assert page.div.math["display"] == "block"
    index = page.div.find("msub")
    assert [part.name for part in index.find_all(True, recursive=False)] == ["mover", "mi"]
    assert page.find("munderover").mo.get_text() == "∑"
    assert page.find("p").get_text() == r"\(no\)"


def test_a_formula_that_nobody_can_set_is_an_error_with_its_page(tmp_path):
    with pytest.raises(ChapterError, match=r"page page\.html: .*nocommand"):
        finished(tmp_path, r'<span class="math">\(\nocommand\)</span>')


def test_pictures_after_the_first_are_loaded_late(tmp_path):
    page = finished(tmp_path, '<img src="a"/><img src="b"/><img src="c"/>')
    assert [picture.get("loading") for picture in page.find_all("img")] == [None, "lazy", "lazy"]


def test_a_figure_with_pictures_keeps_their_colours_in_the_dark(tmp_path):
    (tmp_path / "line.svg").write_text("<svg><text>image</text></svg>")
    (tmp_path / "gallery.svg").write_text('<svg><image href="data:x"/></svg>')
    body = (
        '<img src="line.svg"/><img class="align-center" src="line.svg"/><img src="gallery.svg"/><img src="none.svg"/>'
    )
    classes = [picture.get("class") for picture in finished(tmp_path, body)("img")]
    assert classes == [[web_pages.DRAWING], ["align-center", web_pages.DRAWING], None, None]


@pytest.mark.parametrize("folder", ["_images", "a b"])
def test_a_phone_gets_its_own_variant_of_a_figure(folder, tmp_path):
    figures, images = tmp_path / "run" / "figures", tmp_path / folder
    for place in (figures, images):
        place.mkdir(parents=True)
    for name, drawing in {"line": "<svg>1</svg>\n", "line_narrow": "<svg>2</svg>\n", "alone": "<svg>3</svg>"}.items():
        (figures / f"{name}.svg").write_text(drawing)
    (images / "0f.svg").write_text("<svg>1</svg>")  # as MyST-NB copies it, without the last end of a line
    (images / "1f.svg").write_text("<svg>3</svg>")
    body = f'<img src="{quote(folder)}/0f.svg"/><img src="{quote(folder)}/1f.svg"/><img src="absent.svg"/>'
    page = finished(tmp_path, body, figures=[figures])
    (picture,) = page("picture")
    assert picture.source["srcset"] == f"{quote(folder)}/0f_narrow.svg"
    assert picture.img["src"] == f"{quote(folder)}/0f.svg"
    assert (images / "0f_narrow.svg").read_text() == "<svg>2</svg>\n"
    assert len(page("img")) == 3


def test_the_widths_of_a_phone_are_those_of_the_style_sheet():
    style = (Path(__file__).parents[2] / "book" / "_static" / "cmm.css").read_text("utf-8")
    assert f"@media {web_pages.PHONE} {{\n  div.cmm-figure img" in style


def noise(size: int) -> str:
    data = io.BytesIO()
    pixels = np.random.default_rng(0).normal(128, 20, (size, size, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def test_pictures_in_a_figure_are_light_and_hardly_differ():
    large, small = noise(64), noise(4)
    svg = f'<svg><image href="{large}"/><image href="{small}"/></svg>'
    light = web_files.with_light_pictures(svg)
    assert len(light) < len(svg) / 2
    assert small in light
    (data,) = re.findall('data:image/webp;base64,([^"]+)', light)
    shown = [Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in (data, large.partition(",")[2])]
    assert shown[0].size == shown[1].size
    assert np.abs(np.subtract(*(np.asarray(picture, float) for picture in shown))).mean() < 8


def test_the_book_keeps_the_icons_that_it_shows_and_no_others(labelled_book):
    static = labelled_book / "html" / "_static"
    letters = TTFont(static / web_files.ICONS).getBestCmap()
    style = (static / web_files.STYLE).read_text()
    shown = {
        name for page in html_pages(labelled_book / "html") for name in re.findall(r"\bfa-[\w-]+", page.read_text())
    }
    rules = dict(re.findall(r'\.(fa-[\w-]+):{1,2}before(?:,[^{]*)?\{content:"\\([0-9a-f]+)"', style))
    assert {"fa-bars", "fa-moon"} <= shown & set(rules)
    assert {int(rules[name], 16) for name in shown & set(rules)} <= set(letters)
    assert 0xF05A in letters  # of a note: a letter in the style sheet
    assert len(letters) < 60
    assert not [path for path in static.rglob("*") if re.search("thebe|mathjax|brands|woff2|fontawesome.js", path.name)]
