"""The lesson's tables: what they show of a run's files, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cmmlib.report.lesson_tables import LOWEST, PER_CLASS, of_run


def row(name: str, overall: float, worst: float, before: float | None = 0.1) -> dict[str, Any]:
    halves = {"10": before, "20": before}
    return {"name": name, "overall": overall, "worst": {"10": worst, "20": worst}, "base_worst_split_half": halves}


def results(**more: Any) -> dict[str, Any]:
    names = ["base", "uniform", "carprt", "cmm_templates", "enriched_replace", "enriched_cmm"]
    return {"ensembles": [row(name, 0.5 + i / 20, i / 50) for i, name in enumerate(names)], **more}


def test_texts_are_compared_with_our_ensemble_alone(tmp_path):
    table = of_run(tmp_path, results())["texts"]
    assert [name for name in ("base", "uniform", "enriched replace", "enriched CMM") if f"<th>{name}<" in table.html]
    assert "CARPRT" not in table.html
    assert "CMM templates" not in table.html
    assert "75.0 %" in table.html
    assert "*enriched CMM*: overall +25.0, own worst@10 +10.0, old worst@10 0.0" in table.said
    assert (
        "The highest: overall, *enriched CMM*; own worst@10, *enriched CMM*; old worst@10, all are equal." in table.said
    )


def test_a_run_without_descriptions_has_the_ensemble_of_templates(tmp_path):
    found = {"ensembles": [row("base", 0.5, 0.1), row("cmm_templates", 0.4, 0.1)]}
    assert "*CMM templates*: overall -10.0" in of_run(tmp_path, found)["texts"].said


def test_corrections_stand_beside_the_base_prompt(tmp_path):
    own = {
        key: {k: v for k, v in row(key, 0.9, 0.0).items() if k != "name"} for key in ("prior_matching", "prototypes")
    }
    table = of_run(tmp_path, results(**own))["corrections"]
    assert table.html.count("<small>") == 3
    assert "*prior matching*: overall +40.0" in table.said
    assert "*prototypes*: overall +40.0" in table.said


@pytest.mark.parametrize("wrong", [{}, {"ensembles": None}, {"ensembles": [row("base", 0.5, 0.1)]}])
def test_there_is_no_table_of_one_method(wrong, tmp_path):
    assert of_run(tmp_path, wrong) == {}


def test_where_nobody_has_a_recognised_image_in_the_worst_ten_it_is_twenty(tmp_path):
    found = {"ensembles": [row("base", 0.5, 0.0), row("cmm_templates", 0.4, 0.0)]}
    assert "own worst@10" in of_run(tmp_path, found)["texts"].html
    found["ensembles"][1]["worst"]["20"] = 0.2
    assert "own worst@20 +20.0" in of_run(tmp_path, found)["texts"].said


def test_what_no_half_could_measure_is_left_out(tmp_path):
    found = {"ensembles": [row("base", 0.5, 0.1, None), row("cmm_templates", 0.4, 0.1, None)]}
    assert "old worst" not in "".join(of_run(tmp_path, found)["texts"])


def write(folder: Path, *lines: str) -> None:
    head = "class_name,accuracy,taken_for,share_taken_for"
    (folder / PER_CLASS).write_text("\n".join([head, *lines]) + "\n")


def test_the_lowest_classes_and_what_they_are_taken_for(tmp_path):
    write(tmp_path, "a,0.9,b,0.1", "b,,,", "<i>c</i>,0.2,a,0.75", "d,1.0,,0.0", *(f"e{n},0.5,a,0.5" for n in range(9)))
    html = of_run(tmp_path, {})["taken_for"].html
    assert html.count("<tr>") == 1 + LOWEST
    assert html.index("&lt;i&gt;c&lt;/i&gt;<span> taken for </span>a") < html.index("e0<span>")
    assert "20.0 %" in html
    assert "75.0 %" in html


@pytest.mark.parametrize("line", ["a,1.0,,0.0", "a,,,"])
def test_without_a_mistaken_class_there_is_no_such_table(line, tmp_path):
    write(tmp_path, line)
    assert of_run(tmp_path, {}) == {}
