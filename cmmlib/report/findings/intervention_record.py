"""Sentences and tables of chapter 6 about the interventions: of their shipped record, not of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.blazon.classes import load_classes
from cmmlib.blazon.training import interventions
from cmmlib.report.findings.anatomy import verdict
from cmmlib.report.formatting import (
    counted,
    join_names,
    name,
    names,
    percent,
    points,
    points_interval,
)
from cmmlib.report.titles import titled

GAIN = 0.05  # what a class must gain to count as recovered, as in `plots.recovery`


DONE = {"frequent": "rare names made frequent", "split": "the other sense of a name removed"}


def effects_of_interventions(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each intervention: `names` in its changed captions, what `interventions.effect` says, whether it `held`."""
    classes, runs = load_classes(), record["runs"]
    control, found = np.array(runs["control"]["accuracy"]), {}
    for key in DONE:
        recipe = interventions.RECIPES[key]
        changed = [*recipe.frequent, *([recipe.split] if recipe.split else [])]
        effect = interventions.effect(control, np.array(runs[key]["accuracy"]), interventions.touched(classes, recipe))
        held = verdict(effect["change_interval"], effect["touched"])
        found[key] = {"names": changed, **effect, "held": held}
    return found


def recovered_classes(record: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of `plots.recovery`."""
    classes, runs = load_classes(), record["runs"]
    control, rows = np.array(runs["control"]["accuracy"]), []
    for key, title in DONE.items():
        mask = interventions.touched(classes, interventions.RECIPES[key])
        rows += interventions.bars(classes, title, control, np.array(runs[key]["accuracy"]), mask)
    return pd.DataFrame(rows)


def recipes(record: Mapping[str, Any], shipped_samples: int, seed: int) -> str:
    """What the three models were trained on and measured on."""
    recipe, seeds = record["runs"]["control"]["recipe"], list(record["evaluation_seeds"])
    own = " one of them is this study's seed" if seed in seeds else " none is this study's"
    return (
        f"the three models saw {recipe['samples']:,} pairs of picture and caption each (the shipped one saw "
        f"{shipped_samples:,}). *Frequent* changed captions about {names(list(interventions.FREQUENT))}, "
        f"*split* those with {names([interventions.SPLIT])}. Evaluation seeds: "
        f"{join_names(list(map(str, seeds)))};{own}."
    )


@titled("Classes before and after a retraining")
def interventions_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each intervention did to the classes with a name in the changed captions, beside all others."""
    return pd.DataFrame(
        {
            "intervention": key,
            "names in the changed captions": len(row["names"]),
            "classes": row["touched"],
            "before": percent(row["before"]),
            "after": percent(row["after"]),
            "change (points)": points(row["change"]),
            "95 % interval": points_interval(row["change_interval"]),
            "change of all others, 95 % interval": points_interval(row["change_of_others_interval"]),
            "do they recover?": row["held"],
        }
        for key, row in found.items()
    )


def followed(found: Mapping[str, Mapping[str, Any]], rows: pd.DataFrame) -> str:
    """What became of the touched classes, which of them stayed behind, and what the others did."""
    told = [_followed(DONE[key], row) for key, row in found.items()]
    before, after = rows["before"], rows["after"]
    behind = f"gained less than {100 * GAIN:.0f} points", (after >= before) & ~(after > before + GAIN)
    named = [_named(rows["name"][mask].tolist(), what) for what, mask in (behind, ("lost", after < before))]
    return f"{'; '.join(told)}. {' '.join(named)}"


def proved(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether classes recovered where a cause was taken away: that, and no regression, shows what causes what."""
    told = [f"*{row['held']}* for {DONE[key]}" for key, row in found.items()]
    return (
        "A regression proves no cause. In the record of the interventions, that classes recover where it is taken "
        f"away: {join_names(told)}."
    )


def _named(classes: list[str], what: str) -> str:
    told = f"{counted(len(classes), 'class', 'classes')} {what}"
    return f"{told}: {names(classes)}." if classes else f"{told}."


def _followed(done: str, row: Mapping[str, Any]) -> str:
    others = "the others change"
    low, high = row["change_of_others_interval"]
    if low <= 0 <= high:
        others = "whether the others change is undecided"
    return (
        f"{done}: {counted(row['touched'], 'class', 'classes')} of {counted(len(row['names']), 'name')} from "
        f"{percent(row['before'])} to {percent(row['after'])} (that they recover: *{row['held']}*; {others})"
    )


@titled("How often the names of the changed captions were read")
def readings_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """Readings of each such name, in its own sense and elsewhere, in the control and in its intervention."""
    return interventions.readings(dict(record))


def readings(record: Mapping[str, Any]) -> str:
    """How often the names of changed captions were read in the control and in the intervention, in which sense."""
    before, rare, split = (record["runs"][key]["readings"] for key in ("control", *DONE))
    own = [f"{np.mean([run[term]['read'] for term in interventions.FREQUENT]):.0f}" for run in (before, rare)]
    old, new = before[interventions.SPLIT], split[interventions.SPLIT]
    return (
        f"a name made frequent was read {own[1]} times on average in place of {own[0]}. {name(interventions.SPLIT)} "
        f"was read in its own sense {old['read']:,} times in the control and {new['read']:,} in the intervention; "
        f"under other pictures {old['elsewhere']:,} and {new['elsewhere']:,} times."
    )
