"""Causes of failure and interventions: against worlds whose causes are known, and against their own record."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.blazon import anatomy, card
from cmmlib.blazon.classes import draw_classes, load_classes
from cmmlib.blazon.heraldry import Arms
from cmmlib.blazon.language.frequencies import COLUMNS
from cmmlib.blazon.training import interventions

GROUPS = [f"name {c % 30}" for c in range(90)]


def world(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Ninety classes whose outcome hangs on the first cause twice as much as on the second, and not on the third."""
    random = np.random.default_rng(seed)
    causes = pd.DataFrame(random.normal(size=(90, 3)), columns=["strong", "weak", "none"])
    return causes, 0.2 * causes["strong"].to_numpy() - 0.1 * causes["weak"].to_numpy() + 0.05 * random.normal(size=90)


def test_effects_are_those_of_least_squares_on_standardised_causes():
    causes, outcome = world()
    found = anatomy.explain(causes, outcome, GROUPS, draws=20)
    x = ((causes - causes.mean()) / causes.std(ddof=0)).to_numpy()
    expected = np.linalg.lstsq(np.c_[np.ones(90), x], outcome, rcond=None)[0][1:]
    np.testing.assert_allclose(found.coefficients["value"], expected, atol=1e-10)


def test_shares_are_the_gains_averaged_over_all_orders():
    causes, outcome = world()
    causes["weak"] += 0.5 * causes["strong"]  # causes that overlap

    def r2(columns: tuple[str, ...]) -> float:
        design = np.c_[np.ones(90), causes[list(columns)]]
        rest = outcome - design @ np.linalg.lstsq(design, outcome, rcond=None)[0]
        return 1 - rest.var() / outcome.var()

    orders = list(itertools.permutations(causes.columns))
    expected = dict.fromkeys(causes.columns, 0.0)
    for order in orders:
        for place, name in enumerate(order):
            expected[name] += (r2(order[: place + 1]) - r2(order[:place])) / len(orders)
    found = anatomy.explain(causes, outcome, GROUPS, draws=20)
    assert found.shares["value"].to_dict() == pytest.approx(expected, abs=1e-9)
    assert found.shares["value"].sum() == pytest.approx(found.r2) == pytest.approx(r2(tuple(causes.columns)))


def test_intervals_hold_the_truth_and_tell_a_cause_from_none():
    inside = 0
    for seed in range(20):
        causes, outcome = world(seed)
        rows = anatomy.explain(causes, outcome, GROUPS, draws=200, seed=seed).coefficients
        spread = causes.std(ddof=0)
        inside += sum(
            rows.low[name] <= size * spread[name] <= rows.high[name]
            for name, size in (("strong", 0.2), ("weak", -0.1), ("none", 0.0))
        )
        assert rows.low["strong"] > 0 > rows.high["weak"]
    assert 50 <= inside <= 60


def test_what_is_the_same_for_every_class_explains_nothing():
    causes, outcome = world()
    plain, more = (anatomy.explain(table, outcome, GROUPS, 50) for table in (causes, causes.assign(constant=1.0)))
    pd.testing.assert_frame_equal(plain.coefficients, more.coefficients)
    assert plain.r2 == more.r2
    constant = anatomy.explain(causes, np.full(90, 0.6), GROUPS, 50)
    assert len(constant.coefficients) == len(constant.shares) == 0
    assert np.isnan([constant.r2, *constant.r2_interval]).all()


def test_an_undefined_outcome_is_refused():
    causes, outcome = world()
    with pytest.raises(InputError, match="undefined"):
        anatomy.explain(causes, np.where(outcome > 0, outcome, np.nan), GROUPS)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_classes_are_explained_without_a_warning(n):
    causes, outcome = world()
    found = anatomy.explain(causes[:n], outcome[:n], [f"name {i}" for i in range(n)], 200)
    assert found.r2 == pytest.approx(1) or n > causes.shape[1]


def test_causes_are_read_off_the_frequencies():
    rows = [
        ("mullet", "charge", "mullet", 9, 30),
        ("mullet", "charge", "star", 100, 5),
        ("mullet", "charge", "star shape", 100, 5),
        ("roundel", "charge", "roundel", 1, 0),
        ("roundel", "charge", "disc", 50, 0),
        ("bezant", "roundel", "bezant", 0, 0),
    ]
    table = pd.DataFrame(
        [(term, kind, word, word == term, 500, shown, other) for term, kind, word, shown, other in rows],
        columns=COLUMNS,
    )
    names = pd.DataFrame({"name": ["mullet", "bezant"], "read": [9, 0], "elsewhere": [30, 0]})
    found = anatomy.causes(names, table, torch.tensor([0.1, 0.2]))
    assert tuple(found.columns) == anatomy.CAUSES
    assert found["name_frequency"].tolist() == pytest.approx([1, 0])
    assert found["ambiguity"].tolist() == pytest.approx([30 / 39, 0])
    assert found["synonymy"].tolist() == pytest.approx([2, 1])  # two wordings read equally often; one
    assert found["description_frequency"].tolist() == pytest.approx(np.log10([201, 51]))
    assert anatomy.kinds_of(names).tolist() == ["ambiguous", "rare"]


@pytest.mark.parametrize("classes", [load_classes(), draw_classes(7)], ids=["shipped", "another list"])
def test_causes_are_defined_for_every_class_list(classes):
    names = card.weakest_names(classes)
    found = anatomy.causes(names, card.load_frequencies(), torch.rand(len(classes)))
    assert np.isfinite(found.to_numpy()).all()
    assert set(anatomy.kinds_of(names)) == set(anatomy.KINDS)


def test_what_the_eye_confuses_has_a_high_cross_entropy():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.96, 0.28]])
    images = torch.nn.functional.normalize(centres[labels] + 0.2 * torch.randn(300, 3, generator=random), dim=-1)
    probe = F.fit_linear_probe(images[:150], labels[:150])
    alone, one, other = F.visual_confusability(probe, images[150:], labels[150:], 3).tolist()
    assert alone < 0.5 * min(one, other)


def test_failing_classes_are_counted_by_name_and_by_repair():
    failing = pd.DataFrame(
        {
            "kind": ["rare", "rare", "ambiguous", "ambiguous"],
            "suspected": [True, False, True, True],
            "by_name": [0.0, 0.1, 0.2, 0.3],
            "described": [1.0, 0.5, 0.49, 0.0],
            "prior_matched": [0.9, 0.2, 0.5, 0.1],
        }
    )
    rows = anatomy.fates(failing).set_index("weakest_name")
    assert rows.index.tolist() == ["rare", "ambiguous", "all"]
    assert rows.loc["all", list(anatomy.REPAIRS)].tolist() == [1, 1, 1, 1]
    assert rows.loc["rare", ["failing", "suspected", "both", "description"]].tolist() == [2, 1, 1, 1]
    assert rows.loc["ambiguous", "described"] == pytest.approx(0.245)


# ---------------------------------------------------------------- interventions


def test_the_record_is_that_of_the_recipes_and_the_shipped_list():
    record, classes = interventions.load_record(), load_classes()
    assert set(record["runs"]) == set(interventions.RECIPES)
    for name, run in record["runs"].items():
        assert interventions.Recipe(**run["recipe"]) == interventions.RECIPES[name]
        assert len(run["accuracy"]) == len(run["cmm"]) == len(classes)
        assert all(0 <= value <= 1 for value in run["accuracy"])
    digests = [run["weights"]["sha256"] for run in record["runs"].values()]
    assert len(set(digests)) == 3


def test_an_intervention_changes_the_readings_that_it_should():
    runs = interventions.load_record()["runs"]
    before, frequent, split = (runs[name]["readings"] for name in ("control", "frequent", "split"))
    for name in interventions.FREQUENT:
        assert before[name]["read"] <= 5 < frequent[name]["read"]
    assert split[interventions.SPLIT]["elsewhere"] < 0.1 * before[interventions.SPLIT]["elsewhere"]
    table = interventions.readings(interventions.load_record())
    assert table["name"].tolist() == [*interventions.FREQUENT, interventions.SPLIT]
    assert (table["read, intervention"][:5] > table["read, control"][:5]).all()


def test_the_frequent_names_stand_behind_ten_classes_that_the_card_calls_rare():
    classes = load_classes()
    names = card.weakest_names(classes)
    touched = interventions.touched(classes, interventions.RECIPES["frequent"])
    assert touched.sum() >= 10
    assert set(names["name"][touched]) == set(interventions.FREQUENT)
    assert set(anatomy.kinds_of(names)[touched]) == {"rare"}
    split = interventions.touched(classes, interventions.RECIPES["split"])
    assert set(names["name"][split]) == {interventions.SPLIT}
    assert set(anatomy.kinds_of(names)[split]) == {"ambiguous"}
    assert not interventions.touched(classes, interventions.CONTROL).any()


def test_an_effect_stands_beside_that_on_the_others():
    before, after = np.array([0.0, 0.2, 0.9, 0.8]), np.array([0.8, 0.6, 0.9, 0.9])
    found = interventions.effect(before, after, np.array([True, True, False, False]))
    assert found["touched"] == 2
    assert (found["before"], found["after"]) == (pytest.approx(0.1), pytest.approx(0.7))
    assert found["change"] == pytest.approx(0.6)
    assert found["change_interval"] == pytest.approx((0.4, 0.8))
    assert found["change_of_others"] == pytest.approx(0.05)
    arms = [Arms("gules", charge="pall", tincture="or"), Arms("or")]
    rows = interventions.bars(arms, "done", before[:2], after[:2], np.array([True, False]))
    assert rows == [{"group": "done", "name": "gules, a pall or", "before": 0.0, "after": 0.8}]
