"""Numbers, tables and figures as a page shows them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from finished_runs import run_of
from PIL import Image

from cmmlib.report import formatting, pages
from cmmlib.report.display_names import display_name
from cmmlib.report.titles import titled


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (formatting.percent(0.4479), "44.8 %"),
        (formatting.percent(0.5, 0), "50 %"),
        (formatting.percent(None), "n/a"),
        (formatting.percent(float("nan")), "n/a"),
        (formatting.percent_number(0.4479), "44.8"),
        (formatting.percent_number(None), "n/a"),
        (formatting.decimal(0.9466), "0.95"),
        (formatting.decimal(None), "n/a"),
        (formatting.signed(-0.02481), "-0.0248"),
        (formatting.signed(0.02481), "+0.0248"),
        (formatting.signed(float("nan")), "n/a"),
        (formatting.interval((0.43, 0.466)), "43.0 to 46.6 %"),
        (formatting.interval(None), "n/a"),
        (formatting.interval([0.1, None]), "n/a"),
        (formatting.points(0.257), "+25.7"),
        (formatting.points(-0.006), "-0.6"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.points(None), "n/a"),
        (formatting.points(float("nan")), "n/a"),
        (formatting.points_interval((-0.01, 0.569)), "-1.0 to +56.9"),
        (formatting.points_interval((0.1, None)), "n/a"),
        (formatting.points_interval(None), "n/a"),
        (formatting.join_names(["a", "b", "c"]), "a, b and c"),
        (formatting.join_names(["or, a pale vert", "b", "c"]), "or, a pale vert; b; and c"),
        (formatting.join_names(["black and white", "b"]), "black and white; and b"),
        (formatting.join_names(["a"]), "a"),
        (formatting.join_names([]), ""),
        (display_name("soft_probability"), "soft probability"),
        (display_name("enriched_cmm_prior"), "enriched CMM prior"),
        (display_name("label_shift_em"), "label shift EM"),
        (display_name("waffle"), "WaffleCLIP"),
        (display_name("in %"), "in %"),
    ],
)
def test_numbers_are_shown(made, expected):
    assert made == expected


def test_a_table_escapes_every_cell_and_its_head(capsys):
    shown = pages.table_html(pd.DataFrame({"<b>": ["<script>alert(1)</script>", "a & b"], "x_y": [1.0, None]}))
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown
    assert "x y" in shown
    assert "n/a" in shown


def test_names_stay_whole_where_the_page_has_room():
    few = pd.DataFrame({"method": ["enriched cmm prototypes"], "overall": ["93.6"]})
    many = few.assign(**{f"unbreakable{i}": ["1"] for i in range(7)})
    assert "cmm-whole-names" in pages.table_html(few)
    assert "cmm-whole-names" not in pages.table_html(many)
    assert "cmm-whole-names" not in pages.table_html(pd.DataFrame({"caption": ["long " * 20], "n": [1]}))
    assert pages.table_html(pd.DataFrame())


def test_a_table_stands_below_the_title_of_its_function(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)

    @titled("Accuracy <b>")
    def table(values: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"accuracy": values})

    for frame in (table([0.5]), pd.DataFrame({"accuracy": [0.5]})):
        pages.show_table(frame)
    with_title, without = (html.data for html in seen)
    assert with_title.startswith('<p class="cmm-caption cmm-title"><b>Table.</b> Accuracy &lt;b&gt;</p><table')
    assert without.startswith("<table")


@pytest.mark.parametrize("cell", ["25.8 %", "+5.7 points", "-1.0 to +56.9", "43.0 to 46.6 %", "1,000", "n/a to n/a"])
def test_a_cell_of_numbers_stays_on_one_line(cell):
    assert f"<td>{cell.replace(' ', chr(0xA0))}</td>" in pages.table_html(pd.DataFrame({"x": [cell]}))


def test_words_may_break_where_numbers_may_not():
    shown = pages.table_html(pd.DataFrame({"x": ["worst at 100 % of images"], "n": [3]}))
    assert "worst at 100\u00a0% of images" in shown


def test_a_dialogue_escapes_what_was_asked_and_what_came_back(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    pages.show_dialogue(
        [("answered: <b>x</b>", "What is '<script>alert(1)</script>'?", ["a <i>star</i>", "round & red"])]
    )
    html = shown[0].data
    assert "<script" not in html
    assert "<i>" not in html
    assert "<b>" not in html
    assert html.count("<li>") == 2
    assert "round &amp; red" in html


def test_a_dialogue_says_once_who_answered(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    pages.show_dialogue([("a", "1?", ["x"]), ("a", "2?", ["y"]), ("b", "3?", ["z"])])
    assert shown[0].data.count("cmm-who") == 2


def test_a_figure_is_shown_in_a_notebook_that_nobody_trusts(tmp_path, monkeypatch):
    """JupyterLab draws no SVG there, but it does draw PNG; where neither can be drawn, its text stands."""
    shown = {}
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: shown.update(data | {"raw": raw}))
    figure = plt.figure(figsize=(4, 3))
    figure.set_label("two points")
    figure.add_subplot().plot([0, 1], [0, 1])
    pages.show_figure(replace(run_of("cat", "dog"), folder=tmp_path), figure, "line")
    assert (shown["raw"], shown["text/plain"]) == (True, "two points")
    assert shown["image/svg+xml"] == (tmp_path / "figures/line.svg").read_text()
    with Image.open(tmp_path / "figures/line.png") as kept:
        half = tuple((side + 1) // 2 for side in kept.size)
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
    assert (picture.format, picture.size) == ("PNG", half)


def test_letters_that_no_font_has_are_told_by_their_numbers_and_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("IPython.display.display", lambda *args, **more: None)
    monkeypatch.setattr("cmmlib.report.plots.style._fonts", lambda: ["DejaVu Sans"])
    figure = plt.figure(figsize=(4, 3))
    figure.add_subplot().set_title("\u72ee \ue000 \U0001f98a \u5b50 and \u00e9")
    pages.show_figure(replace(run_of("cat", "dog"), folder=tmp_path), figure, "line")
    letters = "U+5B50 CJK UNIFIED IDEOGRAPH-5B50, U+72EE CJK UNIFIED IDEOGRAPH-72EE, U+E000 without a name and 1 more"
    assert capsys.readouterr().err == f"figure line: no font here has {letters}: install one, for example Noto\n"
