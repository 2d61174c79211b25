"""Chapter 6's sentences and tables say the truth of extreme numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cmmlib.blazon import anatomy
from cmmlib.blazon.anatomy import CAUSES, Explained
from cmmlib.blazon.training import interventions
from cmmlib.report.findings import anatomy as findings
from cmmlib.report.findings import intervention_record, repairs


def explained(values: dict[str, tuple[float, float, float]], share: float = 0.1) -> Explained:
    table = pd.DataFrame(values, index=["value", "low", "high"]).T
    return Explained(table, table.assign(value=share), share * len(table), (0.1, 0.9))


NONE = Explained(
    *(pd.DataFrame(columns=["value", "low", "high"], dtype=float) for _ in range(2)), np.nan, (np.nan, np.nan)
)
BLIND = explained(
    {"name_frequency": (0.2, 0.1, 0.3), "ambiguity": (0.1, 0.05, 0.2), "visual_confusability": (-0.1, -0.3, 0.1)}
)
SEES = explained(
    {"name_frequency": (0.0, -0.1, 0.1), "ambiguity": (-0.1, -0.2, -0.05), "visual_confusability": (-0.2, -0.3, -0.1)}
)


def failing(*rows: tuple[float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["described", "prior_matched"], dtype=float)
    return table.assign(by_name=0.1, kind="rare", suspected=[True] + [False] * (len(rows) - 1) if rows else [])


@pytest.mark.parametrize(
    ("bounds", "n", "sign", "told"),
    [
        ((0.9, 1.0), 2, 1, "too few classes to say"),
        ((0.9, 1.0), 12, 1, "held"),
        ((-0.3, -0.1), 12, 1, "did not hold"),
        ((-0.3, -0.1), 12, -1, "held"),
        ((-0.3, 0.1), 12, -1, "undecided"),
        ((np.nan, np.nan), 12, 1, "undefined"),
    ],
)
def test_a_verdict_needs_classes(bounds, n, sign, told):
    assert findings.verdict(bounds, n, sign) == told


def test_verdicts_are_of_the_effects_that_the_claims_expect():
    assert findings.verdicts(SEES, 20) == {
        "name_frequency": "undecided",
        "ambiguity": "held",
        "visual_confusability": "held",
    }
    assert findings.verdicts(BLIND, 20)["ambiguity"] == "did not hold"
    assert set(findings.verdicts(BLIND, 9).values()) == {"too few classes to say"}
    assert set(findings.verdicts(NONE, 20).values()) == {"undefined"}


def test_only_what_is_clear_of_zero_is_called_so():
    told = findings.explained(BLIND, BLIND, 20)
    assert "excludes zero: *name frequency* and *ambiguity*; it contains zero: *visual confusability*." in told
    assert "nothing to explain" in findings.explained(NONE, BLIND, 20)
    assert "too few" in findings.explained(BLIND, BLIND, 3)


def test_sight_is_judged_by_its_interval():
    assert "so what the embeddings do not separate fails more often" in findings.of_sight(SEES, 0.9, 20)
    assert "is undecided" in findings.of_sight(BLIND, 0.9, 20)
    helps = explained({"visual_confusability": (0.2, 0.1, 0.3)})
    assert "so it does not go with lower accuracy" in findings.of_sight(helps, 0.9, 20)
    for of, n in ((NONE, 20), (SEES, 4)):
        assert "cannot be judged" in findings.of_sight(of, None, n)


def test_the_end_names_the_causes_that_held():
    assert findings.what_it_means(SEES, 20) == (
        "a name that was read in another sense and pictures that a linear probe confuses go with lower accuracy; for a "
        "name that was read seldom that is not shown."
    )
    assert "none is shown to go with lower accuracy" in findings.what_it_means(NONE, 20)
    assert findings.what_it_means(SEES, 3) == "too few classes to say which cause matters."
    one = explained({"name_frequency": (0.2, 0.1, 0.3)})
    assert findings.what_it_means(one, 20).startswith(
        "a name that was read seldom goes with lower accuracy; for a name"
    )


def test_what_the_interventions_show_is_their_verdict():
    found = intervention_record.effects_of_interventions(interventions.load_record())
    told = intervention_record.proved(found)
    for key, row in found.items():
        assert f"*{row['held']}* for {intervention_record.DONE[key]}" in told


@pytest.mark.parametrize(
    ("values", "n", "told"),
    [
        # nine small values in the order of accuracy, and one large value at the worst class: ranks hide it
        (
            [0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 1.0],
            20,
            "the values themselves (Pearson's) is -",
        ),
        ([0.5, 0.4, 0.1, 0.2, 0.9, 0.8, 0.3, 0.45, 0.6, 0.5], 20, "with the other causes held fixed; by itself"),
        ([0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 1.0], 5, ""),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 1.0], 20, ""),
    ],
)
def test_an_effect_without_a_rank_correlation_is_explained(values, n, told):
    accuracy = torch.tensor([0.35, 0.3, 0.4, 0.2, 0.45, 0.5, 0.25, 0.55, 0.6, 0.0]).double()
    causes = pd.DataFrame(dict.fromkeys(CAUSES, values))
    ranks = {cause: {"accuracy": 0.05 if told else -0.9, "CMM": None} for cause in CAUSES}
    of = explained({"ambiguity": (-0.1, -0.2, -0.05), "synonymy": (0.1, -0.2, 0.3)})
    said = findings.without_rank(of, causes, accuracy, ranks, n)
    assert (told in said) if told else said == ""
    assert "synonymy" not in said


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(0.9, 0.1), (0.1, 0.9), (0.9, 0.9)], "the ensemble 1, prior matching 1; both lift 1."),
        ([(0.9, 0.9), (0.9, 0.1)], "Whatever prior matching lifts to half or more, the ensemble lifts too"),
        ([(0.9, 0.9), (0.1, 0.9)], "Whatever the ensemble lifts to half or more, prior matching lifts too"),
        ([(0.9, 0.9)], "lift the same classes"),
        ([(0.1, 0.1)], "Neither repair lifts"),
    ],
)
def test_whether_repairs_reach_different_classes(rows, told):
    assert told in repairs.reach(failing(*rows))


def test_repairs_are_counted():
    told = repairs.repaired(failing((0.9, 0.9), (0.9, 0.1), (0.1, 0.1)), ["pall", "pile", "<b>"])
    assert "of 3 failing classes 1 is among the suspects" in told
    assert (
        "lifts 2 to half or more, prior matching 1: both 1, only the ensemble 1, only prior matching 0, neither 1"
        in told
    )
    assert "The weakest names of those left: *&#60;b&#62;*. Of the 1 class left, CMM did not suspect 1." in told
    assert repairs.repaired(failing(), []) == "no class fails: all are right at least half of the time."
    assert "1 failing class 1 is" in repairs.repaired(failing((0.9, 0.9)), ["pall"])


def test_the_lowest_classes_do_not_hang_on_the_order():
    accuracy, names = torch.tensor([0.0, 0.5, 0.0, 1.0]), ["d", "c", "b", "a"]
    assert findings.lowest(accuracy, names, 1) == [2, 0]
    kinds = pd.Series(["rare", "known", "ambiguous", "known"])
    told = findings.of_the_lowest(kinds, accuracy, names)
    assert told.startswith("these are 4 classes. The weakest name of 1 was read fewer than 20 times, that of 1 mostly")
    many = torch.zeros(50)
    told = findings.of_the_lowest(pd.Series(["rare"] * 50), many, [str(c) for c in range(50)])
    assert told.startswith("these are 20 classes, of 50 at or below 0.0 %.")


def test_ranks_of_equal_accuracies_are_undefined():
    causes = pd.DataFrame({cause: [1.0, 2.0, 3.0] for cause in CAUSES})
    ranks = findings.rank_correlations(causes, torch.ones(3), torch.tensor([1.0, 2.0, 3.0]))
    assert "no rank correlation is defined" in findings.cmm_follows(ranks, None)
    assert set(findings.ranks_table(ranks)["accuracy"]) == {"n/a"}
    ranks = findings.rank_correlations(causes, torch.arange(3.0), torch.tensor([3.0, 2.0, 1.0]))
    assert "differ by at most 2.00" in findings.cmm_follows(ranks, -1.0)


@pytest.mark.parametrize(
    ("alone", "both", "told"),
    [
        (0.4, 0.6, "adds to it"),
        (0.4, 0.2, "takes away"),
        (0.4, 0.45, "too little to count on"),
        (None, 0.2, "undefined"),
    ],
)
def test_one_number(alone, both, told):
    assert told in findings.one_number(alone, both)


def test_the_interventions_are_judged_by_the_classes_that_they_touched():
    record = interventions.load_record()
    found = intervention_record.effects_of_interventions(record)
    for row in found.values():
        assert (row["held"] == "too few classes to say") == (row["touched"] < findings.FEW_CLASSES)
    table = intervention_record.interventions_table(found)
    assert table["do they recover?"].tolist() == [row["held"] for row in found.values()]
    assert table["change (points)"].tolist() == [f"{100 * row['change']:+.1f}" for row in found.values()]
    assert "one of them is this study's" in intervention_record.recipes(record, 600_000, record["evaluation_seeds"][0])
    assert "none is this study's" in intervention_record.recipes(record, 600_000, 0)
    assert "*pale* was read in its own sense" in intervention_record.readings(record)


def test_who_stays_behind_is_named():
    found = intervention_record.effects_of_interventions(interventions.load_record())
    rows = pd.DataFrame({"name": ["a$", "b", "c"], "before": [0.1, 0.1, 0.1], "after": [0.12, 0.9, 0.0]})
    assert intervention_record.followed(found, rows).endswith(
        "1 class gained less than 5 points: *a&#36;*. 1 class lost: *c*."
    )
    assert intervention_record.followed(found, rows[1:2]).endswith(
        "0 classes gained less than 5 points. 0 classes lost."
    )


def test_descriptions_are_said_to_be_missing():
    assert "templates alone" in repairs.described(0, [1, 2])
    assert repairs.described(1, [4]) == "descriptions are known of 1 of 1 suspect."


def test_the_section_has_what_other_pages_quote():
    fates = anatomy.fates(failing((0.9, 0.9)))
    section = findings.section(SEES, SEES, 20, fates)
    assert section["effects"]["ambiguity"] == {"value": -0.1, "low": -0.2, "high": -0.05}
    assert section["verdicts"]["ambiguity"] == "held"


def test_other_wordings_are_told_with_what_they_lift():
    before, after = torch.tensor([0.9, 0.0, 0.2, torch.nan]), torch.tensor([0.8, 0.7, 0.3, torch.nan])
    told = repairs.real_prompt(["a", "<b>", "c", "d"], ["a", "x <y>", "c", "e"], before, after)
    assert told.startswith(
        '2 of 4 classes have another wording. For example "&#60;b&#62;" becomes "x &#60;y&#62;", and goes'
    )
    assert "from 0.0 % to 70.0 %. Of 2 failing classes the wordings lift 1 to half or more" in told
    assert told.endswith("from 36.7 % to 60.0 %, that of the worst 10 from n/a to n/a.")
    assert repairs.real_prompt(["a"], ["a"], torch.tensor([0.9]), torch.tensor([0.1])) == (
        "0 of 1 class have another wording."
    )
