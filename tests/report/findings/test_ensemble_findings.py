"""Each sentence of chapter 4 says what its numbers say, at the extremes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from finished_runs import HOSTILE

from cmmlib import Study
from cmmlib.evaluation import evaluation
from cmmlib.evaluation.evaluation import STEPS
from cmmlib.functional.candidates import Candidates
from cmmlib.report.findings import balance_or_cmm, ensemble_variants
from cmmlib.report.findings import ensemble as findings
from cmmlib.study.run import Run

NONE = {"1": None, "5": None, "10": None, "20": None}


def run(n_classes: int = 40, prompts: int = 3, tower: bool = True, names: list[str] | None = None) -> Run:
    names = names or [f"class {c}" for c in range(n_classes)]
    return Run(
        study=Study.of({"dataset": "embeddings:none.npz", "n_described": 2}),
        id="none",
        folder=Path("none"),
        image_features=torch.zeros(100, 4),
        labels=None,
        classnames=names,
        base_text_features=torch.zeros(len(names), 4),
        text_features=torch.zeros(prompts, len(names), 4),
        prompts=["{}"] * prompts,
        base_prompt="{}",
        logit_scale=10.0,
        pictures=None,
        backbone=cast(Any, object()) if tower else None,
    )


def row(name: str, overall: float, worst: dict[str, float | None] | None = None, **facts: Any) -> dict[str, Any]:
    worst = {**dict.fromkeys(NONE, overall), **(worst or {})}
    followed = {"base_worst": {"10": overall, "20": None}, "base_worst_split_half": {"10": overall, "20": None}}
    counts = {"base_worst_count": {"10": 10, "20": 0}, "zero_classes": 0, "requests": 0, "label_free": True}
    ends = {"overall_interval": (overall - 0.01, overall + 0.01), "worst_split_half": worst, "mean_per_class": overall}
    return {"name": name, "overall": overall, "worst": worst, **ends, **followed, **counts, **facts}


BASE = row("base", 0.5)


# ---------------------------------------------------------------- candidates and weights


def test_what_there_is_to_weigh():
    said = findings.candidates(run(prompts=1, tower=False), {})
    assert "no text tower" in said
    assert "Every class has 1 prompt" in said
    assert "nothing to weigh" in said
    said = findings.candidates(run(), {})
    assert "no class of this study has a description" in said
    assert "Every class has 3 templates as its candidates." in said
    described = {0: torch.zeros(4, 2), 3: torch.zeros(5, 2)}
    assert "2 of 40 classes" in (said := findings.candidates(run(), described))
    assert "4 to 5 descriptions too, 9 in all" in said
    assert "have 4 descriptions too" in findings.candidates(run(), {0: torch.zeros(4, 2)})


@pytest.mark.parametrize("name", HOSTILE)
def test_one_class_with_and_without_descriptions(name):
    vectors, groups = torch.eye(4), torch.tensor([0, 0, 1, 0])
    candidates = Candidates(vectors, torch.tensor([0, 0, 0, 1]), groups, 2)
    weights = torch.tensor([0.2, 0.0, 0.8, 1.0]).double()
    own = run(names=[name, "other"])
    said = findings.one_class(own, candidates, weights, 0)
    assert "has 2 templates and 1 description. The cut leaves 2 of 3; the largest weight is 80 %." in said
    assert "began with half of the weight and have 80 % now" in said
    assert "<" not in said
    alone = findings.one_class(own, candidates, weights, 1)
    assert alone.endswith("has 1 template. The cut leaves 1 of 1; the largest weight is 100 %.")


def test_the_share_of_descriptions_chooses_its_word():
    for share, word in ((0.9, "more than they began with"), (0.2, "less than they"), (0.5, "just as much as they")):
        grid = np.array([[1 - share, share, np.nan]] * 3)
        assert word in findings.description_share(grid, 1)
    assert "in the 1 class shown" in findings.description_share(np.array([[0.4, 0.6]]), 1)


def test_weights_of_unequal_classes_fill_a_grid():
    described = {2: torch.eye(4)[:2], 0: torch.eye(4)[:1]}
    own = run(n_classes=3, prompts=2)
    candidates = Candidates.of_templates(torch.eye(4)[:3].expand(2, 3, 4)).with_descriptions(described)
    weights = torch.arange(len(candidates.classes)).double()
    grid, names, n = findings.weight_grid(own, candidates, weights, described)
    assert (names, n) == (["class 2", "class 0"], 2)
    np.testing.assert_array_equal(grid, [[2, 5, 6, 7], [0, 3, 8, np.nan]])


# ---------------------------------------------------------------- methods


def test_the_worst_set_that_is_spoken_of():
    def spoken(base: dict, own: dict) -> str:
        return findings.headline_k([row("base", 0.5, base), row("cmm_templates", 0.6, own)])

    assert spoken({"10": 0.0, "20": 0.1}, {"10": 0.0, "20": 0.2}) == "20"
    assert spoken({"10": 0.0, "20": 0.1}, {"10": 0.1, "20": 0.2}) == "10"
    assert spoken({"10": 0.0, "20": None}, {"10": 0.0, "20": None}) == "10"
    assert spoken({"10": None, "20": None}, {"10": None, "20": None}) == "5"
    assert spoken({**NONE, "1": 0.0}, {**NONE, "1": 0.0}) == "1"


def test_gain_loss_and_neither():
    for overall, said in ((0.6, "10.0 points more than"), (0.4, "10.0 points less than"), (0.5, "as the base prompt")):
        told = findings.headline(run(), [BASE, row("enriched_cmm", overall, requests=1, zero_classes=1)])
        assert told.count(said) == 2, told
        assert "*enriched CMM*, with descriptions of 1 class, has" in told
        assert "leaves 1 class without" in told
    alone = findings.headline(run(), [BASE])
    assert "the base prompt is the only classifier" in alone


def test_the_best_average_and_the_best_tail():
    low = row("base", 0.5, {"10": 0.0})
    two = [low, row("zpe", 0.8, {"10": 0.1}), row("cmm_templates", 0.7, {"10": 0.2})]
    assert "the best average is not the best tail" in findings.headline(run(), two)
    level = [BASE, row("cmm_templates", 0.7, {"10": 0.5})]
    assert "is that of *CMM templates*; in the worst 10 classes all have 50.0 %." in findings.headline(run(), level)
    assert "the same method is the highest in the worst 10 classes." in findings.headline(
        run(), [BASE, row("cmm_templates", 0.7)]
    )
    tied = [low, row("zpe", 0.8, {"10": 0.1}), row("cmm_templates", 0.8, {"10": 0.2})]
    told = findings.headline(run(), tied)
    assert "not the best tail" not in told
    assert "*CMM templates* and *ZPE*" in told
    oracle = row("best_template", 0.9, label_free=False)
    assert "best template" not in findings.headline(run(), [BASE, row("cmm_templates", 0.7), oracle])


def test_descriptions_of_every_class_are_held_against_the_base_prompt():
    assert findings.all_described([BASE, row("cmm_templates", 0.9)]) == ""
    for overall, word in ((0.6, "clearly above it"), (0.4, "clearly below it"), (0.51, "not clearly apart")):
        told = findings.all_described([BASE, row("describe_all", overall, {"10": 0.2}, zero_classes=3)])
        assert (
            f"overall ({word}, by both intervals), 20.0 % in its worst 10 classes, and 3 classes at zero. The" in told
        )
        assert told.endswith(f"worst 10, chosen on other images, go from 50.0 % to {100 * overall:.1f} %.")
    few = {"base_worst_split_half": {"10": None, "20": None}}
    told = findings.all_described([row("base", 0.5, **few), row("describe_all", 0.5, **few)])
    assert "other images" not in told


def test_followed_sets_say_their_number():
    own = {"base_worst": {"10": 0.6, "20": None}, "base_worst_split_half": {"10": 0.5, "20": None}}
    start = {"base_worst": {"10": 0.0, "20": None}, "base_worst_split_half": {"10": 0.1, "20": None}}
    rows = [row("base", 0.5, **start), row("cmm_templates", 0.6, **own)]
    rows[0]["base_worst_count"] = rows[1]["base_worst_count"] = {"10": 15, "20": 0}
    said = findings.followed_set(rows)
    assert "worst 10 (15 classes, because of ties at the last place), from 0.0 % to 60.0 %, +60.0 points" in said
    assert "chosen on other images, from 10.0 % to 50.0 %, +40.0 points." in said
    assert "worst 20" not in said
    assert list(findings.followed(rows)) == [
        "in %",
        "base's worst 10 (15 classes)",
        "base's worst 10, chosen on other images",
    ]
    for one in rows:
        one["base_worst_split_half"]["10"] = None
    assert findings.followed_set(rows).endswith("+60.0 points.") or "other images" not in findings.followed_set(rows)
    assert "no other method" in findings.followed_set(rows[:1])
    for one in rows:
        one["base_worst_count"] = {"10": 0, "20": 0}
    assert "no worst 10 are followed" in findings.followed_set(rows)


def test_overlaps_are_counted():
    assert "no other method" in findings.overlap([BASE])
    rows = [BASE, row("cmm_templates", 0.6), row("zpe", 0.61), row("best_template", 0.6, label_free=False)]
    assert "1 of 2 other methods without labels: *ZPE*." in findings.overlap(rows)
    assert "0 of 1 other method without labels." in findings.overlap(rows[:2])


# ---------------------------------------------------------------- balance, or CMM?


def step(pair: tuple[str, str], value: float | None, spread: float = 0.01) -> dict[str, Any]:
    bounds = {"value": value, "low": value and value - spread, "high": value and value + spread}
    return {"before": pair[0], "after": pair[1], "overall": bounds, "base_worst_10": bounds}


def told(**values: float | None) -> str:
    pairs = {"balance": balance_or_cmm.BALANCE, "cmm": balance_or_cmm.CMM, "cmm_after": balance_or_cmm.CMM_AFTER}
    pairs |= {"balance_after": balance_or_cmm.BALANCE_AFTER, "both": balance_or_cmm.BOTH, "first": balance_or_cmm.FIRST}
    return balance_or_cmm.parts([step(pair, values.get(name, 0.0)) for name, pair in pairs.items()])


def test_what_each_adds_after_the_other_decides():
    assert "So each adds to the other." in told(cmm_after=0.05, balance_after=0.05)
    said = told(cmm_after=0.05, balance_after=0.001)
    assert "CMM adds to balance, and balance shows no gain" in said
    assert "CMM after balance adds overall (+5.0 points, +4.0 to +6.0)" in said
    assert "balance after CMM has no clear effect overall" in said
    assert "balance adds to CMM" in told(balance_after=0.05, cmm_after=-0.05)
    assert "CMM after balance costs overall (-5.0 points" in told(cmm_after=-0.05)
    assert "neither shows a gain" in told()


def test_steps_that_are_not_there():
    assert "neither balance nor CMM has a part" in balance_or_cmm.parts([])
    assert "nothing is out of balance; CMM's part: +2.0 points" in balance_or_cmm.parts(
        [step(balance_or_cmm.TEMPLATES, 0.02)]
    )
    undefined = [step(pair, 0.02) for pair in STEPS]
    for one in undefined:
        one["base_worst_10"] = {"value": None, "low": None, "high": None}
    assert "worst 10" not in balance_or_cmm.parts(undefined)
    fitted = step(balance_or_cmm.FITTED, 0.02)
    fitted["base_worst_10"] = {"value": -0.06, "low": -0.08, "high": -0.04}
    said = balance_or_cmm.parts([*(step(pair, 0.02) for pair in balance_or_cmm.PARTS), fitted])
    assert said.count("and costs in the base prompt's worst 10") == 1
    assert "in place of CMM's adds overall (+2.0 points, +1.0 to +3.0) and costs in" in said
    assert balance_or_cmm.steps(undefined)["base's worst 10 (points)"].unique().tolist() == ["n/a"]


def studies(n: int, cmm: float) -> pd.DataFrame:
    rows = []
    for i in range(n):
        for method in ("enriched_uniform", "enriched_balanced", "enriched_cmm_unbalanced", "enriched_cmm"):
            value = 0.5 + i / 100 + (cmm + i / 1000) * (method == "enriched_cmm")
            rows.append({"data": f"blazon:{i}", "seed": 0, "descriptions": "recorded", "method": method})
            rows[-1] |= dict.fromkeys(("overall", "worst_10", "worst_20"), value)
        rows.append({**rows[-1], "method": "enriched_cmm_first"})
    return pd.DataFrame(rows)


def test_the_conclusion_follows_the_table():
    assert "CMM after balance adds overall (+10.2 points" in balance_or_cmm.conclusion(studies(5, 0.1))
    assert "CMM after balance costs overall (-9.8 points" in balance_or_cmm.conclusion(studies(5, -0.1))
    assert "CMM after balance has no clear effect overall" in balance_or_cmm.conclusion(studies(5, -0.002))
    one = balance_or_cmm.conclusion(studies(1, 0.1))  # no interval of one study
    assert "CMM after balance has no clear effect overall (+10.0 points)" in one
    means = balance_or_cmm.part_means(studies(5, 0.1))[balance_or_cmm.CMM_AFTER]["overall"]
    assert means["value"] == pytest.approx(0.102)
    assert (means["up"], means["studies"]) == (5, 5)
    assert means["low"] == pytest.approx(0.102 - 2.7764 * np.std([0, 1, 2, 3, 4], ddof=1) / 1000 / 5**0.5, abs=1e-6)


def test_studies_of_lists_that_the_settings_were_chosen_on_are_told_apart():
    said = balance_or_cmm.conclusion(studies(5, 0.1))  # blazon:0 to blazon:4
    assert "chosen on 4 of these class lists (blazon:1, blazon:2, blazon:3 and blazon:4), with" in said
    same = "+10.0 points overall, +10.0 points in its own worst 10 and +10.0 points in its own worst 20."
    assert said.endswith(f"Over the other study CMM after balance is {same}")
    assert "settings" not in balance_or_cmm.conclusion(studies(1, 0.1))
    whole = balance_or_cmm.conclusion(evaluation.balance_or_cmm())
    assert (
        "3 of these class lists (blazon:1, blazon:2 and blazon:3), with other images. Over the 7 other studies" in whole
    )


def test_the_committed_table_is_whole_and_is_concluded_from():
    frame = evaluation.balance_or_cmm()
    counts = frame.groupby(["data", "seed"], sort=False)["method"].nunique()
    assert counts.eq(7).all()
    assert {("blazon", seed) for seed in range(4)} | {(f"blazon:{n}", 0) for n in (1, 2, 3)} <= set(counts.index)
    assert len(balance_or_cmm.parts_over_studies(frame)) == 3 * len(balance_or_cmm.PARTS)
    said = balance_or_cmm.conclusion(frame)
    means = balance_or_cmm.part_means(frame)
    for step, name in (
        (balance_or_cmm.CMM_AFTER, "CMM after balance"),
        (balance_or_cmm.BALANCE_AFTER, "balance after CMM"),
    ):
        low, high = means[step]["overall"]["low"], means[step]["overall"]["high"]
        word = "adds" if low > 0 else "costs" if high < 0 else "has no clear effect"
        assert f"{name} {word} overall" in said


# ---------------------------------------------------------------- who gains, and what it hangs on


def test_images_that_went_to_a_described_class_are_counted():
    labels = torch.tensor([0, 0, 1, 1, 2])
    before, after = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 2, 1, 2, 0])
    lost = ensemble_variants.lost_images(labels, before, after, np.array([True, False, False]))
    assert lost.tolist() == [1, 2]
    described = np.array([False, True, False])
    accuracy = np.array([1.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0])
    said = ensemble_variants.who_gains(*accuracy, described, lost)
    assert "0 classes gain more than five points; 1 loses as much, 1 of them without" in said
    assert "Of the 2 images that this one lost, 1 went to a described class." in said
    assert "described" not in ensemble_variants.who_gains(*accuracy, np.zeros(3, dtype=bool), lost)
    assert ensemble_variants.who_gains(*accuracy[::-1], described, lost[:0]).endswith("0 lose as much.")


def test_the_classes_that_lose_most():
    before, after = np.array([0.5, 0.9, 1.0, np.nan]), np.array([0.6, 0.2, 0.9, np.nan])
    table = ensemble_variants.losers(run(n_classes=4), before, after, np.array([False, True, False, False]))
    assert table["class"].tolist() == ["class 1", "class 2"]
    assert table["before"].tolist() == ["90.0 %", "100.0 %"]
    assert table["change (points)"].tolist() == ["-70.0", "-10.0"]
    assert len(ensemble_variants.losers(run(n_classes=4), after, after, before > 2)) == 0


def test_the_curve_says_its_ends():
    ways = ("CMM weights", "equal weights, balanced")
    curve = [
        {"count": n, "method": way, "overall": 0.5 + n / 100 + (way != "CMM weights") / 100}
        for n in (0, 2, 40)
        for way in ways
    ]
    everything = dict.fromkeys(range(40), torch.zeros(1, 2))
    said = ensemble_variants.described_curve(run(), curve, everything)
    assert "50.0 % with no class described, 52.0 % with the study's 2 and 90.0 % with all 40." in said
    assert "is that of *equal weights, balanced*" in said
    assert "(1 of the classes have" in ensemble_variants.described_curve(run(), curve, {0: torch.zeros(1, 2)})
    assert "no description is recorded" in ensemble_variants.described_curve(run(), curve, {})


def test_versions_above_the_ensemble_are_named():
    def version(name: str, overall: float, worst_20: float | None = None) -> dict[str, Any]:
        return {"version": name, "overall": overall, "worst_10": 0.1, "worst_20": worst_20, "base_worst_10": None}

    rows = [version("as it is", 0.5), version("nothing cut", 0.6), version("templates only", 0.4)]
    said = ensemble_variants.ablated(rows)
    assert "overall, 1 of 2 (*nothing cut*); in its own worst 10, 0 of 2." in said
    assert "worst 20" not in said
    assert list(ensemble_variants.ablation([one | {"base_worst_split_half_10": None} for one in rows], 0)) == [
        *("in %", "overall", "own worst 10")
    ]


def test_clean_descriptions_may_cost():
    rows = [
        {"descriptions": kind, "method": "CMM weights", "overall": overall, "worst_10": None}
        for kind, overall in (("as answered", 0.6), ("clean", 0.5))
    ]
    said = ensemble_variants.clean(rows, True)
    assert said.endswith("clean descriptions in place of the answers change accuracy by -10.0 points overall.")
    assert "where no answer is recorded" in ensemble_variants.clean(rows, False)


def test_the_settings_say_their_range():
    grid = pd.DataFrame([[0.1, 0.3]], index=pd.Index([1.0], dtype=object), columns=[0.1, 0.3])
    said = ensemble_variants.sensitivity(grid, 0.1, 1.0, "20")
    assert "worst 20 runs from 10.0 % to 30.0 %" in said
    assert "has 10.0 %, and 1 of 2 lie above it" in said
    assert "fewer than 10" in ensemble_variants.sensitivity(grid * np.nan, 0.1, 1.0, "10")
