"""What the book's own pages say of a run."""

from __future__ import annotations

import pytest

from cmmlib.errors import ChapterError
from cmmlib.report.page_values import filled, page_values


def row(name: str, overall: float, followed: float, other: float, requests: int = 0) -> dict:
    counted = {"base_worst": {"10": followed}, "base_worst_count": {"10": 1}, "base_worst_split_half": {"10": other}}
    return {"name": name, "overall": overall, "requests": requests, "zero_classes": 1, **counted}


def test_a_page_is_filled_and_a_value_that_the_run_lacks_is_named():
    assert filled("{{ a }} and {{ b }}", {"a": "1", "b": "2"}) == "1 and 2"
    with pytest.raises(ChapterError, match=r"index.md asks for b, c"):
        filled("{{ c }} {{ b }} {{ a }}", {"a": "1"}, "index.md")


def test_a_value_is_not_filled_again():
    assert filled("{{ a }}", {"a": "{{ b }}", "b": "2"}) == "{{ b }}"


def test_a_study_without_labels_has_sizes_and_no_accuracy():
    values = page_values({"n_images": 4800, "n_classes": 120, "worst_k": 20, "accuracy": None, "cmm": None})
    assert values == {"n_images": "4,800", "n_classes": "120", "worst_k": "20"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [row("base", 0.5, 0.0, 0.1), row("enriched_cmm", 0.75, 0.25, 0.2, requests=30)],
            "A language model described the 30 most suspected classes. Where each text of a class counts by its "
            "own CMM, overall accuracy goes from 50.0 % to 75.0 %, and that of the 1 class of lowest accuracy from "
            "0.0 % to 25.0 % (chosen on half of the images and measured on the others, so that chance is no gain: from "
            "10.0 % to 20.0 %). It leaves 1 class at zero; before, 1.",
        ),
        (
            [row("base", 0.5, 0.1, 0.1), row("cmm_templates", 0.4, 0.0, 0.1)],
            "Where each text of a class counts by its own CMM, overall accuracy goes from 50.0 % to 40.0 %, and that "
            "of the 1 class of lowest accuracy from 10.0 % to 0.0 % (chosen on half of the images and measured on the "
            "others, so that chance is no gain: from 10.0 % to 10.0 %). It leaves 1 class at zero; before, 1.",
        ),
        ([row("base", 0.5, 0.1, 0.1)], "This study has one prompt, so there is nothing to weigh."),
    ],
)
def test_the_repair_is_said_as_it_is(rows, said):
    assert page_values({"ensembles": rows})["repair"] == said


def test_tables_are_escaped():
    table = page_values({"study": [{"what": "base prompt", "value": "<b> {}"}]})["study_table"]
    assert "&lt;b&gt;" in table
    assert "<b>" not in table
