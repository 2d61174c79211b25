"""What the book's own pages say of a run."""

from __future__ import annotations

import pytest

from cmmlib.errors import ChapterError
from cmmlib.report.page_values import filled, page_values


def row(name: str, overall: float, followed: float, other: float, requests: int = 0, n: int = 10) -> dict:
    counted = {"base_worst": {"10": followed}, "base_worst_count": {"10": n}, "base_worst_split_half": {"10": other}}
    return {"name": name, "overall": overall, "requests": requests, "zero_classes": 1, **counted}


def step(before: str, after: str, overall: float, worst: float | None) -> dict:
    bounds = [{"value": v, "low": v and v - 0.01, "high": v and v + 0.01} for v in (overall, worst)]
    return {"before": before, "after": after, "overall": bounds[0], "base_worst_10": bounds[1]}


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
            [row("base", 0.5, 0.0, 0.1, n=15), row("enriched_cmm", 0.75, 0.25, 0.2, requests=30)],
            "A language model described the 30 most suspected classes. Where each text of a class counts by its "
            "own CMM, overall accuracy goes from 50.0 % to 75.0 %, and that of the 10 classes of lowest accuracy (15 "
            "classes, because of ties at the last place) from 0.0 % to 25.0 % (chosen on half of the images and "
            "measured on the others, so that luck in choosing does not count as gain: from 10.0 % to 20.0 %). It "
            "leaves 1 class at zero; before, 1.",
        ),
        (
            [row("base", 0.5, 0.1, 0.1), row("cmm_templates", 0.4, 0.0, 0.1)],
            "Where each text of a class counts by its own CMM, overall accuracy goes from 50.0 % to 40.0 %, and that "
            "of the 10 classes of lowest accuracy from 10.0 % to 0.0 % (chosen on half of the images and measured on "
            "the others, so that luck in choosing does not count as gain: from 10.0 % to 10.0 %). It leaves 1 class at "
            "zero; before, 1.",
        ),
        (
            [row("base", 0.5, 0.1, 0.1, n=0), row("cmm_templates", 0.4, 0.0, 0.1)],
            "Where each text of a class counts by its own CMM, overall accuracy goes from 50.0 % to 40.0 %. It leaves "
            "1 class at zero; before, 1.",
        ),
        ([row("base", 0.5, 0.1, 0.1)], "This study has one prompt, so there is nothing to weigh."),
    ],
)
def test_the_repair_is_said_as_it_is(rows, said):
    assert page_values({"ensembles": rows})["repair"] == said


def test_classes_without_an_answer_are_not_said_to_be_described():
    rows = [row("base", 0.5, 0.0, 0.1), row("enriched_cmm", 0.75, 0.25, 0.2, requests=2)]
    said = page_values({"ensembles": rows, "enrichment": {"classes": [*range(8)], "requests": 2}})["repair"]
    assert said.startswith("A language model described 2 of the 8 most suspected classes. ")


def test_what_the_same_texts_reach_without_cmm_is_said_beside_the_gain():
    base, ours = row("base", 0.5, 0.0, 0.1), row("enriched_cmm", 0.75, 0.25, 0.2, requests=30)
    steps = [step("enriched_balanced", "enriched_cmm", 0.005, 0.14), step("uniform", "cmm_templates", 0.9, 0.9)]
    rows = [base, row("enriched_balanced", 0.745, 0.1, 0.06), ours]
    said = page_values({"ensembles": rows, "ensemble_steps": steps})["repair"]
    assert said.endswith(
        "The same texts with balanced equal weights, without CMM, reach 74.5 % overall and 6.0 % in these classes; "
        "what CMM adds to that is +0.5 points overall (95 % interval -0.5 to +1.5) and +14.0 points in these classes "
        "(95 % interval +13.0 to +15.0), where these were chosen on other images."
    )
    few = [step("enriched_balanced", "enriched_cmm", 0.005, None)]
    said = page_values({"ensembles": rows, "ensemble_steps": few})["repair"]
    assert said.endswith(
        "reach 74.5 % overall; what CMM adds to that is +0.5 points overall (95 % interval -0.5 to +1.5)."
    )
    assert "without CMM" not in page_values({"ensembles": rows, "ensemble_steps": None})["repair"]
    templates = [base, row("uniform", 0.6, 0.1, 0.1), row("cmm_templates", 0.7, 0.2, 0.2)]
    said = page_values({"ensembles": templates, "ensemble_steps": steps})["repair"]
    assert "The same templates with equal weights, without CMM, reach 60.0 % overall" in said


@pytest.mark.parametrize(
    ("n_true", "said"),
    [
        (22, "22 classes of lowest accuracy (20, and those that tie with the last)"),
        (20, "20 classes of lowest accuracy"),
        (None, "20 classes of lowest accuracy"),
    ],
)
def test_the_worst_set_is_told_with_its_ties(n_true, said):
    soft = {"precision_at_k": 0.8, "chance": 0.2, "spearman": 0.8, "n_true": n_true}
    assert page_values({"cmm": {"soft": soft}, "worst_k": 20})["worst_set"] == said


def test_the_lowest_classes_of_real_clip_stand_by_their_accuracy():
    nearest = {"backbone": "B", "pretrained": "p", "overall": 0.6, "worst_10": 0.01, "zero_classes": 2}
    lowest = [{"class_name": name, "accuracy": value} for name, value in (("newt", 0.0), ("<b>", 0.0), ("hook", 0.02))]
    table = page_values({"real_clip": {"nearest": nearest, "lowest": lowest}})["real_lowest"]
    assert "newt, &lt;b&gt;</td>" in table
    assert "hook</td>" in table
    assert page_values({"real_clip": {"nearest": nearest}})["real_lowest"] == ""  # of an earlier version


def test_tables_are_escaped():
    table = page_values({"study": [{"what": "base prompt", "value": "<b> {}"}]})["study_table"]
    assert "&lt;b&gt;" in table
    assert "<b>" not in table
