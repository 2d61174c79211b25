"""Chapter 7's sentences and tables say the truth of extreme numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from cmmlib.evaluation import run_comparison
from cmmlib.evaluation.run_comparison import RunSummary
from cmmlib.report.findings import backbones as findings
from cmmlib.report.titles import title_of


def side(name: str, accuracy: list[float] | None, backbone: str | None = None, overall: float = 0.5) -> RunSummary:
    facts = {"data": {"name": "set"}, "model": {"backbone": backbone, "pretrained": None, "logit_scale": 100.0}}
    score = torch.linspace(0, 1, 20) if accuracy is None else torch.tensor(accuracy, dtype=torch.float64)
    names = [f"class {c}" for c in range(len(score))]
    known = None if accuracy is None else score
    return RunSummary(name, name, facts, names, score.double(), known, None if known is None else overall)


UP, DOWN = [c / 20 for c in range(20)], [1 - c / 20 for c in range(20)]


def run(n: int = 20) -> Any:
    return SimpleNamespace(n_classes=n, classnames=[f"class <{c}>" for c in range(n)])


def overview(*rows: tuple[str, float, float | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["run", "overall", "worst"]).assign(gap=0.1, zero_classes=0)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", 0.6, 0.2), ("b", 0.5, 0.1)], "So the best average has the best tail too."),
        ([("a", 0.6, 0.1), ("b", 0.5, 0.2)], "So the best average does not have the best tail."),
        ([("a", 0.6, 0.0), ("b", 0.5, 0.0)], "to count on, so worst@5 does not say which run is best."),
        (
            [("a", 0.6, 0.02), ("b", 0.5, 0.005)],
            "less than 2 points is too little to count on, so worst@5 does not say which run is best.",
        ),
        ([("a", 0.6, 0.0), ("b", 0.6, 0.0)], "so overall accuracy and worst@5 do not say which run is best."),
        ([("a", 0.6, 0.2), ("b", 0.6, 0.1), ("c", 0.1, 0.0)], "so overall accuracy does not say which run is best."),
        ([("a", 0.6, 0.22), ("b", 0.58, 0.2)], "So the best average has the best tail too."),
        ([("a", 0.6, None), ("b", 0.5, 0.1)], "worst@5 is not defined for every run, so the tails are not compared."),
    ],
)
def test_average_and_tail(rows, told):
    assert findings.average_and_tail(overview(*rows), 5).endswith(told)


def test_the_gap_of_every_run_is_told():
    said = findings.average_and_tail(overview(("a", 0.6, 0.2), ("b", 0.5, 0.2)), 5)
    assert "; the gap between the two runs from 30.0 to 40.0 points. " in said
    said = findings.average_and_tail(overview(("a", 0.6, 0.2), ("b", 0.6, 0.2)), 5)
    assert "; the gap between the two is 40.0 points in every run. " in said


def test_names_of_runs_are_escaped():
    assert "*&#60;b&#62;*" in findings.average_and_tail(overview(("<b>", 0.6, 0.2), ("x", 0.5, 0.1)), 5)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (UP, UP, "shares 5 of its worst; two random sets of 5 and 5 of 20 classes would share 1.2 on average"),
        (UP, UP, "so this is more than chance"),
        (UP, UP[1:] + UP[:1], "so this is more than chance"),
        (UP, DOWN, "so this is no more than chance"),
        (UP, [1.0] * 20, "all classes of one run tie"),
        (UP[:4], UP[:4], "too few to tell from chance"),
        (UP, [float("nan")] * 12 + UP[:8], "too few to tell from chance"),
    ],
)
def test_sharing_is_compared_with_chance(one, other, told):
    sides = [side("a", one), side("b", other)]
    k = min(5, len(one))
    assert told in findings.agree(sides, run_comparison.agreement(sides, k), k)


def test_without_labels_suspicion_is_compared():
    sides = [side("a", None), side("b", None), side("c", UP)]
    told = findings.agree(sides, run_comparison.agreement(sides, 5), 5)
    assert told.count("shares 5 of its worst") == 2


def test_a_shared_recipe_is_named_as_another_reason():
    same = [side("a", UP, "blazon-mini"), side("b", UP, "blazon-mini")]
    assert "learnt from the same captions" in findings.fail_everywhere(run(), same, 5)
    assert "one recipe" in findings.where_from(run(), same)
    for other in ([side("a", UP, "blazon-mini"), side("b", UP, "ViT")], [side("a", UP), side("b", UP)]):
        assert "captions" not in findings.fail_everywhere(run(), other, 5)
        assert "recipe" not in findings.where_from(run(), other)


def test_classes_that_fail_everywhere_are_named():
    both = [side("a", UP), side("b", DOWN)]
    assert findings.fail_everywhere(run(), both, 5) == "0 classes among the worst 5 of every run, ties included."
    one = [side("a", UP[:2]), side("b", UP[:2])]
    told = findings.fail_everywhere(run(2), one, 1)
    assert told == "1 class among the worst 1 of every run, ties included: *class &#60;0&#62;*."
    tied = [side("a", [0.0] * 30), side("b", [0.0] * 30)]
    assert "and 10 more." in findings.fail_everywhere(run(30), tied, 5)


def gains(*rows: tuple[str, str, float | None, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["run", "method", "gain_worst_10", "gain_overall"])
    return table.assign(overall=0.5, worst_10=0.1, base_worst_split_half_10=None)


BASE = [("a", "base", 0.0, 0.0), ("b", "base", 0.0, 0.0)]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [("a", "zpe", 0.1, 0.02), ("b", "zpe", 0.05, 0.01)],
            "By that, *ZPE* gains most in its own worst 10 classes, at least 5.0 points in every run",
        ),
        (
            [("a", "zpe", 0.1, 0.0), ("b", "zpe", -0.05, 0.0)],
            "no method gains in its own worst 10 classes in every run (up in one",
        ),
        (
            [("a", "zpe", 0.0, 0.0), ("b", "zpe", 0.0, 0.0)],
            "no method gains in its own worst 10 classes in every run; no method",
        ),
        ([("a", "zpe", 0.1, 0.0)], "no method has a known change in its own worst 10 classes in every run"),
        (
            [("a", "zpe", None, 0.1), ("b", "zpe", None, 0.1)],
            "*ZPE* gains most overall, at least 10.0 points in every run",
        ),
    ],
)
def test_what_carries_over(rows, told):
    assert told in findings.carries_over(gains(*BASE, *rows))


def test_runs_whose_methods_are_missing_are_told_with_their_command():
    left = replace(side("a <b>", UP), completed_by="cmm run --dataset 'folder:PATH/x_y'")
    told = findings.incomplete([side("c", UP), left])
    assert told.startswith("without chapter 4, so without its methods: a &#60;b&#62;; to complete it: cmm run")
    assert told.endswith("'folder:PATH/x&#95;y'.")
    assert findings.incomplete([side("c", UP)]) == ""


def test_only_known_gains_are_drawn():
    assert not findings.has_gains(gains(*BASE))
    assert not findings.has_gains(gains(*BASE, ("a", "zpe", None, 0.0)))
    assert findings.has_gains(gains(*BASE, ("a", "zpe", 0.1, 0.0)))


def test_gains_stand_beside_each_other_where_a_page_has_room():
    rows = [("a", "zpe", None, 0.02), ("b", "zpe", 0.1, 0.01), ("b", "carprt", 0.2, 0.0)]
    table = findings.gains(gains(*BASE, *rows))
    assert table["method"].tolist() == ["base", "ZPE", "CARPRT"]
    assert table["gain in its own worst 10 (points): a"].fillna("missing").tolist() == ["0.0", "n/a", "missing"]
    assert table["gain in its own worst 10 (points): b"].tolist() == ["0.0", "+10.0", "+20.0"]
    assert table.columns[:3].tolist() == ["method", "gain overall (points): a", "gain overall (points): b"]
    assert all("gain" in head or "accuracy" in head for head in table.columns[1:])
    assert "gains" in (title_of(table) or "")
    assert "accuracy" in (title_of(table) or "")
    many = findings.gains(gains(*((run, "zpe", 0.1, 0.0) for run in "abcd")))
    assert many["run"].tolist() == list("abcd")


@pytest.mark.parametrize(
    ("ceiling", "other", "told"),
    [
        (0.9, 0.7, "differ more"),
        (0.7, 0.9, "differ less"),
        (0.7, 0.75, "less than 0.1, too little to count on"),
        (None, 0.7, "none is defined"),
    ],
)
def test_the_ceiling(ceiling, other, told):
    assert told in findings.noise_ceiling(ceiling, pd.DataFrame({"spearman": [other]}))


def test_the_farthest_classes():
    told = findings.farthest_apart(run(3), [side("a", [0.1, 0.5, 0.9]), side("b", [0.2, 0.5, 0.9])])
    assert "most above it is *b* at *class &#60;0&#62;*: 20.0 % and 10.0 %" in told
    assert "at no class is *b* below *a*" in told
