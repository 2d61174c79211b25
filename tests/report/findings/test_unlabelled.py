"""Sentences of chapter 5 against numbers at their extremes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cmmlib.functional.prior_matching import Correction
from cmmlib.report.findings import price, trust
from cmmlib.report.findings import unlabelled as findings
from cmmlib.study.run import Run
from cmmlib.study.study import Study

KS = ("1", "5", "10", "20")


def a_run(*classnames: str) -> Run:
    """A run of these classes, with one image and nothing else."""
    zero = torch.zeros(len(classnames), 2)
    names = list(classnames)
    return Run(Study.of({}), "id", Path(), zero[:1], None, names, zero, zero[None], ["{}"], "{}", 1.0, None, None)


def fitted(*bias: float, converged: bool = True, rounds: int = 3) -> Correction:
    value = torch.tensor(bias, dtype=torch.float64)
    none = torch.zeros(len(bias), 2)
    return Correction(none, 1.0, none, value, converged, rounds)


def row(name: str, overall: float, worst: Any = 0.0, zero: int = 0, base: Any = None, **more: Any) -> dict[str, Any]:
    """A row of `ensemble_rows`; `worst` is one value for all k, or k -> value."""
    values = worst if isinstance(worst, dict) else dict.fromkeys(KS, worst)
    same = dict.fromkeys(("10", "20"), base)
    followed = {"base_worst": same, "base_worst_split_half": same, "base_worst_count": {"10": 10, "20": 20}}
    return {"name": name, "overall": overall, "worst": values, "zero_classes": zero, **followed, **more}


# ---------------------------------------------------------------- prior matching


def test_the_loop_and_the_library_agree_up_to_a_constant():
    said = findings.by_hand(torch.tensor([5.0, 7.0]).double(), fitted(-1.0, 1.0), 1, True, 0.0)
    assert said.startswith("the loop took 1 round, the library 3. Their biases differ by at most 0.000 logits")
    assert said.endswith(
        "and the probabilities that they give to an image by 0.00000 in sum, on average over the images."
    )


@pytest.mark.parametrize(
    ("loop", "library", "said"),
    [(False, True, "the loop has not"), (True, False, "the library has not"), (False, False, "neither has")],
)
def test_what_has_not_converged_is_named(loop, library, said):
    told = findings.by_hand(torch.zeros(2).double(), fitted(0.0, 9.0, converged=library), 500, loop, 1.0)
    assert told.endswith(f"{said} reached the prior, so the two need not agree.")


def test_the_pair_that_exchanges_most_is_counted():
    before, after = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    said = findings.moved(a_run("a", "<i>*b*"), (0, 1), fitted(-1.0, 0.5), before, after)
    assert "from *a* to *&#60;i&#62;&#42;b&#42;*, 2 images." in said
    second = "*&#60;i&#62;&#42;b&#42;*"
    assert f"1.5 logits higher. {second} was predicted for 1 of 4 images, and then for 3; an even share is 2." in said
    assert "50.0 % of the images change class. The search for the bias reached the prior, after 3 rounds." in said


def test_nothing_moves():
    same = torch.tensor([0, 1])
    said = findings.moved(a_run("a", "b"), (0, 1), fitted(0.0, 0.0, converged=False, rounds=1), same, same)
    assert said == (
        "no image changes class. The search for the bias stopped before it reached the prior, after 1 round."
    )


# ---------------------------------------------------------------- the gain


def test_the_best_method_is_named_whoever_made_it():
    rows = [row("base", 0.7, 0.1, 3), row("otter", 0.8, 0.4, 0), row("prior_matching", 0.9, 0.2, 1)]
    said = findings.gains(rows)
    assert "prior matching: 90.0 % overall, 20.0 % in its worst 10, 20.0 % in its worst 20, 1 class at zero" in said
    assert "overall, prior matching (90.0 %); in the worst 10, OTTER (40.0 %); in the worst 20, OTTER (40.0 %)" in said
    assert said.endswith("The fewest classes at zero: OTTER (0).")


def test_a_worst_set_at_zero_gives_way_to_the_next():
    worst = {"1": 0.0, "5": 0.0, "10": 0.0, "20": 0.1}
    rows = [row("base", 0.7, worst), row("otter", 0.8, worst), row("prototypes", 0.8, worst)]
    said = findings.gains(rows)
    assert "the base prompt: 70.0 % overall, 10.0 % in its worst 20, 0 classes at zero" in said
    assert "in its worst 10" not in said
    assert "overall, OTTER and prototypes (80.0 %); in the worst 10, 0.0 % by every method" in said


def test_few_classes_have_a_smaller_worst_set():
    rows = [row(name, 0.5, {"1": 0.2, "5": None, "10": None, "20": None}) for name in ("base", "zlap")]
    assert findings.worst_ks(rows) == ["1"]
    assert "20.0 % in its worst 1," in findings.gains(rows)


def test_neighbours_that_gain_nothing_have_no_tail_to_speak_of():
    said = findings.neighbours([row("base", 0.7, 0.1), row("otter", 0.7, 0.9), row("prototypes", 0.9)])
    assert said == "0 of 1 methods of others have a higher overall accuracy than the base prompt."


def test_neighbours_are_counted_without_the_own_corrections():
    rows = [row("base", 0.5, 0.1, 4), row("otter", 0.6, 0.2, 4), row("zlap", 0.4, 0.5), row("prototypes", 0.9, 0.9)]
    rows.append(row("gaussians", 0.9, 0.9))
    said = findings.neighbours(rows)
    assert said.startswith("1 of 2 methods of others has a higher")
    assert said.endswith("higher too: 1 in the worst 10 and 1 in the worst 20; with fewer classes at zero: 0.")


def test_followed_classes_are_all_that_tie():
    tied = {"base_worst_count": {"10": 19, "20": 20}}
    rows = [row("base", 0.5, base=0.0) | tied, row("prior_matching", 0.5, base=0.25) | tied]
    said = findings.followed(rows)
    assert said.startswith("the base prompt's worst 10 (19 classes, with all that tie) go from 0.0 % to 25.0 % under")
    assert "worst 20 (no ties)" in said
    assert "(chosen on one half of the images and measured on the other: from 0.0 % to 25.0 %)" in said


def test_nothing_is_followed_where_there_are_few_classes_or_images():
    assert findings.followed([row("base", 0.5, base_worst_count={"10": 0, "20": 0})]) == ""
    halves = {"10": None, "20": None}
    rows = [row("base", 0.5, base=0.1, base_worst_split_half=halves)]
    assert "half" not in findings.followed([*rows, row("prototypes", 0.5, base=0.1, base_worst_split_half=halves)])


def test_fitting_elsewhere_may_change_nothing():
    same, less = ({"overall": 0.5, "inductive": {"overall": value}} for value in (0.5, 0.4))
    said = findings.elsewhere({"prior_matching": same, "prototypes": less})
    assert said.endswith("prior matching unchanged and prototypes -10.0 points.")


# ---------------------------------------------------------------- who loses


def test_winners_and_losers():
    before, after = torch.tensor([0.0, 0.9, 0.5, torch.nan]), torch.tensor([0.8, 0.1, 0.3, torch.nan])
    said = findings.winners_and_losers(a_run(*"abcd"), before, after, torch.tensor([0, 30, 5, 5]))
    assert said.startswith(
        "with prototypes, 1 class gains more than five points, and 2 lose as much. Of those that lose, 1"
    )
    assert said.endswith("No class loses more than *b*, from 90.0 % to 10.0 %.")


def test_nobody_loses():
    same = torch.tensor([0.5, 0.55])
    said = findings.winners_and_losers(a_run("a", "b"), same, same, torch.tensor([1, 1]))
    assert said == "with prototypes, 0 classes gain more than five points, and 0 lose as much."


def test_orders_name_the_highest():
    names = ["ensemble"]
    for key in findings.OWN:
        names += [f"{key} alone", f"ensemble, then {key}", f"{key}, then ensemble"]
    rows = [row(name, 0.5 + 0.01 * i, 0.0 if i < 2 else 0.1) for i, name in enumerate(names)]
    said = findings.orders(rows)
    assert "in the worst 10: the ensemble alone 50.0 % and 0.0 %" in said
    assert "highest overall: prototypes, then ensemble (56.0 %)" in said


# ---------------------------------------------------------------- the price


def draws(**changes: list[float]) -> pd.DataFrame:
    rows = [("law", draw, way, change) for way, values in changes.items() for draw, change in enumerate(values)]
    return pd.DataFrame(rows, columns=["kind", "draw", "method", "change"])


def test_the_price_names_who_gains_and_who_loses():
    said = price.price_by_law(draws(a=[0.1, 0.11, 0.12], b=[-0.2, -0.21, -0.2], c=[0.2, -0.2, 0.0]))
    assert said.startswith("3 draws of each law")
    assert said.endswith("*law*: gain: a (+11.0); lose: b (-20.3). Highest: a, not clearly above c.")


def test_a_lead_is_judged_draw_by_draw():
    level = draws(a=[0.10, 0.12, 0.11], b=[0.11, 0.10, 0.11], c=[0.05, 0.06, 0.05])
    assert price.price_by_law(level).endswith("Highest: a, not clearly above b.")
    always = draws(a=[0.10, 0.20, 0.30], b=[0.09, 0.19, 0.29])  # widely spread, and always the higher one
    assert price.price_by_law(always).endswith("Highest: a.")


@pytest.mark.parametrize("changes", [[0.0, 0.0], [0.1, -0.1], [0.3]])
def test_chance_is_no_gain(changes):
    assert price.price_by_law(draws(a=changes)).endswith(
        "no way gains or loses clearly. Highest: the classifier as it is."
    )


def test_no_image_can_be_drawn():
    assert price.price_by_law(draws()) == "there are too few images to draw from."
    assert price.prices(draws(a=[0.1]))["standard deviation (points)"].tolist() == ["n/a"]


def test_the_largest_gain_and_loss_are_named_and_what_is_none_is_said():
    said = price.largest_changes(draws(a=[0.1, 0.12], b=[-0.2, -0.22], c=[0.0, 0.02]))
    assert "the largest mean gain is +11.0 points: *a* with" in said
    assert "the largest mean loss is -21.0 points: *b* with" in said
    assert price.largest_changes(draws(a=[0.1, 0.12])).endswith("; no loss.")


def curve(over: str, values: list[float], worst: float | None) -> list[dict[str, Any]]:
    return [
        {over: at, "method": "a", "overall": value, "worst_10": worst, "worst_20": 0.2}
        for at, value in zip((1, 2, 5), values, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.6, 0.7, 0.8], "a at all of these sizes"),
        ([0.4, 0.7, 0.8], "a from 2 on"),
        ([0.6, 0.4, 0.4], "a with 1 only"),
        ([0.6, 0.4, 0.6], "a with 1 and 5 only"),
        ([0.5, 0.5, 0.5], "a at none of these sizes"),
    ],
)
def test_enough_images(values, said):
    told = price.enough_images(curve("count", values, None), (0.5, 0.1))
    begin = "with 1 to 5 reference images per class, higher than the plain classifier: overall"
    assert told.startswith(f"{begin}, {said}. With so many images per class each is highest: overall, ")


def test_the_number_of_images_with_the_highest_accuracy_is_told():
    told = price.enough_images(curve("count", [0.5, 0.8, 0.7], 0.2), (0.5, 0.1))
    assert told.endswith(
        " With so many images per class each is highest: overall, a 2 (80.0 %); in the worst 10, a all alike (20.0 %)."
    )


def test_strengths_may_be_alike():
    said = price.best_strengths(curve("strength", [0.5, 0.6, 0.6], 0.0))
    assert said.endswith("overall, a 2 and 5 (60.0 %); in the worst 10, a all alike (0.0 %).")


def test_curves_show_the_worst_20_where_the_worst_10_are_at_zero():
    flat, not_flat = (curve("count", [0.5, 0.6, 0.7], worst) for worst in (0.0, 0.1))
    other = [row | {"method": "b"} for row in not_flat]
    assert [price.shown_k(rows) for rows in (flat, not_flat, flat + not_flat, flat + other)] == ["20", "10", "10", "20"]
    assert price.shown_k([row | {"worst_20": None} for row in flat]) == "10"  # fewer than 20 classes
    said = price.best_strengths(curve("strength", [0.5, 0.6, 0.7], 0.0), "20")
    assert "in the worst 20, a all alike (20.0 %)" in said


# ---------------------------------------------------------------- which predictions to trust


def test_the_least_risk_may_be_shared():
    zero, some = np.zeros(3), np.full(3, 0.5)
    assert "every confidence has the same risk, 0.0 %" in trust.least_risk({"a": zero, "b": zero})
    said = trust.least_risk({"a": zero, "b": some, "c": zero})
    assert said.endswith("that of a and c, 0.0 %; others: b 50.0 %.")


def risk(coverage: float, worst: float | None, silent: int) -> dict[str, Any]:
    values = {"risk": 0.1, "worst_risk": worst, "worst_risk_by_class": 0.4, "classes_silenced": silent}
    return {"confidence": "corrected margin", "coverage": coverage, **values}


def test_worst_risks():
    said = trust.worst_risks([risk(1.0, 0.5, 0), risk(0.5, 0.2, 1)], 3)
    assert "50.0 % of the answers of the worst 3 predicted classes are wrong" in said
    assert "20.0 % with one threshold for all, which leaves 1 class without an answer; 40.0 % with" in said
    assert "fewer than 3 with one" in trust.worst_risks([risk(1.0, 0.5, 0), risk(0.5, None, 9)], 3)
    assert trust.worst_risks([risk(1.0, None, 0), risk(0.5, None, 0)], 2) == (
        "fewer than 2 classes are predicted at all."
    )


def test_promises():
    kept, broken, silent = ({"asked_risk": 0.1, "true_risk": true, "coverage": 0.5} for true in (0.1, 0.2, None))
    assert trust.promises([kept, broken, silent]) == (
        "1 of 2 thresholds that answer keep the risk that was asked for. 1 of 3 answer no image."
    )
    assert trust.promises([silent]) == "no threshold answers any image, so nothing is promised."
    low = {"asked_risk": 0.1, "true_risk": 0.04, "coverage": 0.5}
    assert "With 1 of them the true risk is less than half of what was asked for" in trust.promises([kept, low])
    assert "less than half" not in trust.promises([kept, low | {"coverage": 1.0}])  # all are answered


# ---------------------------------------------------------------- what it means


def test_classes_that_come_back():
    before, now = torch.tensor([0.0, 0.0, 0.5, torch.nan]), torch.tensor([0.1, 0.0, 0.5, torch.nan])
    said = findings.lost_or_under_predicted(before, {"prototypes": now})
    assert said.startswith("2 classes had no recognised image")
    assert said.endswith("recognised at least once: 1 with prototypes.")
    assert findings.lost_or_under_predicted(now[:1], {}).startswith("under the base prompt, every class with images")
