"""Sentences of chapter 1, at the extremes."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from finished_runs import opened, write_embeddings

from cmmlib import functional as F
from cmmlib.evaluation import evaluation
from cmmlib.report.findings import phenomenon as said
from cmmlib.study.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return opened(write_embeddings(tmp_path / "x.npz"), out=str(tmp_path / "runs"))


def accuracy_of(values: list[float], images: int = 4) -> F.ClassAccuracy:
    """Classes with these accuracies, so many images each; NaN is a class without images."""
    count = torch.tensor([0 if v != v else images for v in values])
    correct = torch.tensor([0 if v != v else round(v * images) for v in values])
    return F.ClassAccuracy(correct.double() / count, count, correct)


def report_of(accuracy: F.ClassAccuracy, k: int) -> dict:
    labels = torch.repeat_interleave(torch.arange(len(accuracy.count)), accuracy.count)
    rank = torch.cat([torch.arange(int(n)) for n in accuracy.count])
    right = rank < accuracy.correct[labels]
    other = (labels + 1) % len(accuracy.count)
    return evaluation.accuracy_report(torch.where(right, labels, other), labels, len(accuracy.count), k)


def test_one_lowest_class_is_named_and_many_are_counted(run):
    one = accuracy_of([0.25, *[0.75] * 11])
    text = said.best_and_worst(run, one, report_of(one, run.worst_k))
    assert f"The lowest is *{run.classnames[0]}*, at 25.0 %." in text
    many = accuracy_of([0.0] * 7 + [1.0] * 5)
    text = said.best_and_worst(run, many, report_of(many, run.worst_k))
    assert "7 classes share the lowest accuracy, 0.0 %: " in text
    assert text.endswith("and 2 more.")


def test_fewer_classes_with_images_than_k_have_no_worst_set(run):
    few = accuracy_of([0.5, 1.0, *[float("nan")] * 10])
    text = said.best_and_worst(run, few, report_of(few, run.worst_k))
    assert "on n/a in its best 3 classes and on n/a in its worst 3." in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 1.0], "1 class without one recognised image; 1 of 3 below half"),
        ([1.0, 1.0], "0 classes without one recognised image; 0 of 2 below half"),
        ([0.0, float("nan"), 0.0, 0.25], "2 classes without one recognised image; 2 of 3 below half"),
    ],
)
def test_low_classes_are_counted(values, expected):
    assert expected in said.low_classes(accuracy_of(values))


def test_a_split_half_that_is_one_number_for_several_k_is_explained():
    accuracy = accuracy_of([0.0] * 6 + [0.25, 1.0, 1.0, 1.0])
    tied = report_of(accuracy, 3)
    assert said.tied_halves(tied, accuracy).startswith(
        "Split half is the same for k = 1, 3 and 5: 6 classes are at zero"
    )
    assert len({round(tied["worst_split_half"][k], 9) for k in ("1", "3", "5")}) == 1
    few = accuracy_of([0.0, 0.5, 1.0])
    assert said.tied_halves(report_of(few, 2), few) == ""


def test_classes_at_zero_with_one_image_tie_on_one_half_alone():
    value = torch.tensor([0.0] * 6 + [1.0] * 6)
    count = torch.tensor([1] * 5 + [4] * 7)
    accuracy = F.ClassAccuracy(value.double(), count, (value * count).long())
    halves = {"1": 0.0, "5": 0.2, "10": 0.4}
    assert said.tied_halves({"worst_split_half": halves}, accuracy) == ""


def test_names_are_no_markup():
    fates = pd.DataFrame({"own": [0.1], "other": [0.9], "rest": [0.0], "name": ["<b>*x*</b>"], "taken_for": ["$y$"]})
    text = said.swallowed_and_scattered(fates)
    assert "<b>" not in text
    assert "$" not in text
    assert "90 % of the images of" in text


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([0, 0, 100], "2 of 3 classes are never predicted; 2, these included"),
        ([5, 5], "0 of 2 classes are never predicted; 0, these included"),
        ([1, 0, 99, 100], "1 of 4 classes are never predicted; 2, these included"),
    ],
)
def test_classes_that_are_hardly_predicted_are_counted(predicted, expected):
    assert expected in said.rarely_predicted(torch.tensor(predicted))


def test_the_bracket_says_how_wide_it_is():
    few = accuracy_of([0.5, 1.0], 4)
    wide = said.bracket(few, [1, 2], [0.5, 0.75], [0.6, 0.75], 1)
    assert wide.startswith(
        "a class has 4 images (median); the bracket of worst@1 is 50.0 to 60.0 %, 10.0 points wide, more"
    )
    assert wide.endswith("more than 5: more images a class would narrow it.")
    narrow = said.bracket(few, [1, 2], [0.5, 0.75], [0.6, 0.76], 2)
    assert narrow.endswith("the bracket of worst@2 is 75.0 to 76.0 %, 1.0 points wide.")
    none = said.bracket(few, [1, 2], [0.5, 0.75], [None, None], 5)
    assert none.endswith("the bracket of worst@2 is n/a: there are too few images or classes for one.")


def test_a_fixed_set_has_its_size():
    low = torch.tensor([0.0, 0.1, 0.2])
    tied = said.fixed_set(low, 2, (0.05, 0.2))
    assert tied.startswith("the mean accuracy of the 3 classes of lowest accuracy (2, and those that tie with the")
    assert " is 10.0 %. Its 95 % bootstrap interval is 5.0 to 20.0 %" in tied
    assert said.fixed_set(low[:1], 1, None).startswith("the mean accuracy of the 1 class of lowest accuracy is 0.0 %.")
    assert "fewer than 3 classes have images" in said.fixed_set(low[:0], 3, None)
