"""Interventions on the captions: does a class recover when its name is read more often, or in one sense only?

Three models are trained from nothing, each on half of the shipped model's samples. The control reads captions as
before; in one intervention five rare names are frequent, in the other the everyday sense of an ambiguous name has a
word of its own. Pictures, order and every other setting are the same. `benchmarks/interventions.py` trains and
measures; the record is shipped, the weights are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from cmmlib.blazon.heraldry import Arms, blazon, terms_of
from cmmlib.blazon.training.model import SHIPPED
from cmmlib.blazon.training.pairs import Recipe

RECORD = SHIPPED / "interventions.json"
CONTROL = Recipe(seed=2, samples=300_000)  # the recipe of the weights `early`
# The names behind ten classes of the shipped list that the shipped model gets wrong: rare, without another sense.
FREQUENT = ("estoile", "escallop", "gyronny", "pall", "party per pale")
SPLIT = "pale"  # read hundreds of times as a stripe, and far more often as a shade
RECIPES = {
    "control": CONTROL,
    "frequent": replace(CONTROL, frequent=FREQUENT),
    "split": replace(CONTROL, split=SPLIT),
}


def load_record() -> dict[str, Any]:
    """What was measured: `evaluation_seeds`, and `runs` by the names of `RECIPES`.

    Each run has its `recipe`, `steps`, `first_batch`, `last_loss`, `weights`, `versions`, `processor`, `readings` (how
    often the changed names were read, in their own sense and `elsewhere`), and `accuracy` and `cmm` of every class of
    the shipped list, means over the evaluation seeds.
    """
    return json.loads(RECORD.read_text("utf-8"))


def touched(classes: Sequence[Arms], recipe: Recipe) -> Bool[np.ndarray, "C"]:
    """Mask of the classes whose blazon holds a name that a recipe made frequent or split."""
    changed = {*recipe.frequent, recipe.split} - {None}
    return np.array([bool(terms_of(arms) & changed) for arms in classes])


def effect(
    before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], mask: Bool[np.ndarray, "C"]
) -> dict[str, Any]:
    """What an intervention did to the classes that it touched, beside all others.

    Args:
        before: class accuracies of the control, in [0, 1].
        after: class accuracies of the intervention.
        mask: the touched classes.

    Returns:
        `touched` (count), `before`, `after` (mean accuracies of the touched), `change` and `change_of_others`, and the
        `..._interval` of both: 95 %, bootstrap over classes, which says little where few were touched.
    """
    change, others = (after - before)[mask], (after - before)[~mask]
    return {
        "touched": len(change),
        "before": float(before[mask].mean()),
        "after": float(after[mask].mean()),
        "change": float(change.mean()),
        "change_interval": _mean_interval(change),
        "change_of_others": float(others.mean()),
        "change_of_others_interval": _mean_interval(others),
    }


def bars(
    classes: Sequence[Arms],
    title: str,
    before: Float[np.ndarray, "C"],
    after: Float[np.ndarray, "C"],
    mask: Bool[np.ndarray, "C"],
) -> list[dict[str, Any]]:
    """Rows of `plots.recovery` for the touched classes."""
    return [
        {"group": title, "name": blazon(classes[c]), "before": before[c], "after": after[c]}
        for c in np.flatnonzero(mask).tolist()
    ]


def readings(record: dict[str, Any]) -> pd.DataFrame:
    """How often each changed name was read, in its own sense and elsewhere, in the control and in its intervention."""
    runs, rows = record["runs"], []
    for key in ("frequent", "split"):
        recipe = Recipe(**runs[key]["recipe"])
        for name in (*recipe.frequent, *([recipe.split] if recipe.split else [])):
            row = {"name": name, "intervention": key}
            for run in ("control", key):
                label = "control" if run == "control" else "intervention"
                row |= {f"{what}, {label}": count for what, count in runs[run]["readings"][name].items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _mean_interval(values: np.ndarray, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), (0.025, 0.975))
    return float(low), float(high)
