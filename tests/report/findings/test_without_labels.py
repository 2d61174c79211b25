"""Sentences of chapter 8 against numbers at their extremes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cmmlib.functional as F
from cmmlib.functional.prior_matching import Correction
from cmmlib.report.findings import without_labels as findings
from cmmlib.study.run import Run
from cmmlib.study.study import Study


def a_run(*classnames: str) -> Run:
    """A run of these classes, with one image and nothing else."""
    zero = torch.zeros(len(classnames), 2)
    names = list(classnames)
    return Run(Study.of({}), "id", Path(), zero[:1], None, names, zero, zero[None], ["{}"], "{}", 1.0, None, None)


def fitted(*bias: float, converged: bool = True) -> Correction:
    value, none = torch.tensor(bias, dtype=torch.float64), torch.zeros(len(bias), 2)
    return Correction(none, 1.0, none, value, converged, 1)


def test_suspects_stand_beside_their_rivals():
    table = findings.suspects(
        a_run("a", "b", "c"), torch.tensor([0.1, -0.2, 0.0]), [1, 2], torch.tensor([1, 0, 1]), torch.tensor([5, 0, 1])
    )
    assert table.to_numpy().tolist() == [["b", "-0.2000", "a", 0], ["c", "+0.0000", "b", 1]]


@pytest.mark.parametrize(
    ("rival", "said"),
    [([1, 0, 0], "1 pair of suspects is each other's rival."), ([2, 2, 0], "No two suspects are each other's rival.")],
)
def test_rivals_of_each_other(rival, said):
    told = findings.behind_their_rivals(torch.tensor([-0.1, 0.2, -0.3]), [0, 1], torch.tensor(rival))
    assert told.startswith("1 of 2 suspects and 2 of all 3 classes have a negative CMM")
    assert told.endswith(said)


def test_counts_are_of_both_ends():
    run = a_run(*"abcdefghijkl")
    table = findings.counts(run, torch.arange(12), shown=2)
    assert table["class"].tolist() == ["a", "b", "k", "l"]
    assert table["even shares"].tolist() == ["0.0", "0.2", "1.8", "2.0"]
    assert len(findings.counts(run, torch.arange(12), shown=6)) == 12


def test_most_and_least():
    said = findings.most_and_least(a_run("a", "$b$", "c"), torch.tensor([0, 9, 3]))
    assert said.startswith("classes that are never predicted: 1 of 3; predicted for fewer than a tenth")
    assert "4.0 images: 1, with these. The most images, 9, are predicted as *&#36;b&#36;*." in said
    assert said.endswith("75.0 % go to the 1 class predicted most.")
    assert "are predicted as each of 2 classes" in findings.most_and_least(a_run(*"abc"), torch.tensor([1, 4, 4]))
    assert findings.most_and_least(a_run("a", "b"), torch.tensor([1, 1])) == "every class receives 1 image."


def test_changes_are_counted():
    base = torch.tensor([0, 0, 1, 2])
    found = findings.changes(base, {"prototypes": torch.tensor([0, 1, 1, 1])}, [1], 3)
    assert found["prototypes"] == {
        "n_changed": 2,
        "share": 0.5,
        "never_predicted": 1,
        "suspects_before": 1,
        "suspects_after": 3,
    }
    assert findings.changes_table(found).iloc[0].tolist() == ["prototypes", "2", "50.0", 1, "1", "3"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([0, 0], "no method changes a prediction."),
        ([3, 3], "each method changes 3 predictions."),
        ([1, 1], "each method changes 1 prediction."),
        ([5, 2], "most predictions change under a (5), fewest under b (2)."),
        ([5, 2, 2], "most predictions change under a (5), fewest under b and c (2)."),
    ],
)
def test_most_change(changed, said):
    found = {method: {"n_changed": n} for method, n in zip("abc", changed, strict=False)}
    assert (
        findings.most_change(found, (1, 2)) == f"{said} On 50.0 % of the images all of them agree with the base prompt."
    )


def test_biases_are_of_both_ends():
    before, after = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2])
    table = findings.biases(a_run("a", "b", "c"), fitted(-1.0, 0.25, 0.75), before, after, shown=1)
    assert table.to_numpy().tolist() == [["c", "0.8", 0, 1], ["a", "-1.0", 3, 1]]


def test_the_range_of_biases():
    assert findings.bias_range(a_run("a", "b"), fitted(-1.0, 1.0)) == (
        "the bias of *b* is 2.0 logits higher than that of *a*, the lowest."
    )
    assert findings.bias_range(a_run("a", "b"), fitted(-1.0, 1.0, converged=False)).endswith("reached the prior.")
    assert findings.bias_range(a_run("a", "b"), fitted(0.0, 0.0)).startswith("all biases are zero")


def test_intervals_are_halved_with_their_right_ones():
    assert all(n % 2 == 0 for n in findings.COUNTS)
    assert findings.interval_widths()["half of them right"].iloc[1] == "23.7 to 76.3 %"


@pytest.mark.parametrize("width", [0.1, 0.3])
def test_the_fewest_images_for_a_width(width):
    n = findings.images_for_width(width)
    wide, narrow = (F.wilson_interval(m // 2, m) for m in (n - 2, n))
    assert narrow[1] - narrow[0] <= width < wide[1] - wide[0]


def test_the_plan_names_the_first_suspects():
    assert findings.plan(a_run("a", "b"), [1]) == (
        "label 40 images of each of *b*: 40 images in all, for intervals no wider than 30 points."
    )
