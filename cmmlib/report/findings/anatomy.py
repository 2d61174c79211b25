"""Sentences and tables of chapter 6: what explains failure. `repairs` and `intervention_record` have the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

import cmmlib.functional as F
from cmmlib.blazon import anatomy
from cmmlib.blazon.anatomy import Explained
from cmmlib.blazon.language.plain_english import glosses
from cmmlib.evaluation import claims
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import (
    counted,
    decimal,
    interval,
    join_names,
    percent,
    points,
    points_interval,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

FEW_CLASSES = 10  # below which a bootstrap over classes decides nothing
CLAIMS = {
    "name_frequency": 1,
    "ambiguity": -1,
    "visual_confusability": -1,
}  # cause -> sign of the effect it should have
SHOWN = 20  # rows of a table of classes, at most


def verdict(bounds: Sequence[float], n: int, sign: int = 1) -> str:
    """`claims.verdict` of an interval over n classes, of an effect with this sign; too few decide nothing."""
    low, high = sorted(sign * bound for bound in bounds)
    if n < FEW_CLASSES:
        return "too few classes to say"
    return claims.verdict(low, high) if low == low and high == high else "undefined"


# ---------------------------------------------------------------- what explains failure


def lowest(accuracy: Float[Tensor, "C"], classnames: Sequence[str], k: int = 10) -> list[int]:
    """Classes at or below the k-th lowest accuracy, the lowest first, ties by name; `SHOWN` at most."""
    tied = F.true_worst(accuracy, min(k, int((~accuracy.isnan()).sum()))).nonzero()[:, 0].tolist()
    return sorted(tied, key=lambda c: (float(accuracy[c]), classnames[c]))[:SHOWN]


@titled("The classes of lowest accuracy, and their causes")
def lowest_classes(
    run: Run, causes: pd.DataFrame, weakest: Sequence[str], accuracy: Float[Tensor, "C"]
) -> pd.DataFrame:
    """The classes of lowest accuracy, with plain English beside their names, and their causes."""
    worst, plain = lowest(accuracy, run.classnames), glosses(run.pictures) or run.classnames
    table = causes.iloc[worst].map(decimal)
    table.insert(0, "class", [f"{run.classnames[c]}: {plain[c]}" for c in worst])
    table.insert(1, "weakest name", [weakest[c] for c in worst])
    return table.assign(accuracy=[percent(float(accuracy[c])) for c in worst])


def of_the_lowest(kinds: pd.Series, accuracy: Float[Tensor, "C"], classnames: Sequence[str]) -> str:
    """How many classes are shown, of how many that are tied, and what is wrong with their weakest names."""
    worst = lowest(accuracy, classnames)
    ties = int((accuracy <= accuracy[worst[-1]]).sum())
    of_all = f", of {ties} at or below {percent(float(accuracy[worst[-1]]))}" if ties > len(worst) else ""
    kind = kinds.iloc[worst]
    return (
        f"these are {counted(len(worst), 'class', 'classes')}{of_all}. The weakest name of "
        f"{(kind == 'rare').sum()} was read fewer than {anatomy.FEW} times, that of {(kind == 'ambiguous').sum()} "
        f"mostly under other pictures, that of {(kind == 'known').sum()} neither."
    )


def can_judge(of_accuracy: Explained, n: int) -> bool:
    """Whether there are enough weakest names, and a cause and an accuracy that differ between classes."""
    return n >= FEW_CLASSES and len(of_accuracy.coefficients) > 0


@titled("Effect of each cause, and what it explains")
def effects(of_accuracy: Explained, of_cmm: Explained) -> pd.DataFrame:
    """Effect of each cause on accuracy, and its share of the variance of accuracy and of CMM."""
    table = of_accuracy.coefficients
    bounds = list(zip(table["low"], table["high"], strict=True))
    return pd.DataFrame(
        {
            "cause": list(map(display_name, table.index)),
            "effect (points)": list(map(points, table["value"])),
            "95 % interval": list(map(points_interval, bounds)),
            "share of accuracy": list(map(percent, of_accuracy.shares["value"])),
            "share of CMM": [percent(of_cmm.shares["value"].get(cause)) for cause in table.index],
        }
    )


def explained(of_accuracy: Explained, of_cmm: Explained, n: int) -> str:
    """How much all causes explain, which explains most, whose effects differ from zero, what is left.

    Args:
        n: weakest names, which the bootstrap draws.
    """
    table, shares = of_accuracy.coefficients, _values(of_accuracy.shares)
    if not len(table):
        return "every class has the same accuracy, or every cause is the same for all, so there is nothing to explain."
    if n < FEW_CLASSES:
        return f"{counted(n, 'weakest name')} in all: too few to say what explains accuracy."
    largest = max(shares, key=lambda cause: shares[cause])
    low, high = _values(table, "low"), _values(table, "high")
    clear = [cause for cause in shares if low[cause] > 0 or high[cause] < 0]
    unclear = [cause for cause in shares if cause not in clear]
    return (
        f"together the causes explain {percent(of_accuracy.r2, 0)} of the variance of class accuracy (95 % interval "
        f"{interval(of_accuracy.r2_interval)}), and {percent(of_cmm.r2, 0)} of that of CMM; they leave "
        f"{percent(1 - of_accuracy.r2, 0)} of the variance of accuracy unexplained. {_cause(largest)} has the largest "
        f"share, {percent(shares[largest], 0)}. The interval of the effect excludes zero: {_causes(clear)}; it "
        f"contains zero: {_causes(unclear)}."
    )


def _values(table: pd.DataFrame, column: str = "value") -> dict[str, float]:
    return {str(cause): float(value) for cause, value in zip(table.index, table[column], strict=True)}


def of_sight(of_accuracy: Explained, probe: float | None, n: int) -> str:
    """Whether what a linear probe confuses explains failure, beside the probe's accuracy."""
    table, shares = of_accuracy.coefficients, _values(of_accuracy.shares)
    told = f"the linear probe is right on {percent(probe)} of the images. "
    if "visual_confusability" not in table.index or n < FEW_CLASSES:
        return told + "Whether visual confusability goes with lower accuracy cannot be judged here."
    low, high = (_values(table, end)["visual_confusability"] for end in ("low", "high"))
    own = shares.pop("visual_confusability")
    changes = f"goes with a change of accuracy of {points_interval((low, high))} points"
    meaning = {
        "held": "so what the embeddings do not separate fails more often",
        "did not hold": "so it does not go with lower accuracy",
        "undecided": "so whether it goes with lower accuracy is undecided",
    }
    return (
        f"{told}Visual confusability explains {percent(own)} of the variance of accuracy, "
        f"the other causes {percent(sum(shares.values()))}. One standard deviation of it "
        f"{changes} (95 % interval), {meaning.get(verdict((low, high), n, -1), 'which says nothing')}."
    )


def verdicts(of_accuracy: Explained, n: int) -> dict[str, str]:
    """For each cause with a claim: whether it held that it goes with lower accuracy (name frequency: higher)."""
    table = of_accuracy.coefficients
    bounds = {cause: table.loc[cause, ["low", "high"]].tolist() for cause in CLAIMS if cause in table.index}
    return {cause: verdict(bounds[cause], n, CLAIMS[cause]) if cause in bounds else "undefined" for cause in CLAIMS}


def _cause(cause: str) -> str:
    return f"*{display_name(cause)}*"


def _causes(causes: Sequence[str] | pd.Index) -> str:
    return join_names([_cause(str(cause)) for cause in causes]) or "none"


def rank_correlations(
    causes: pd.DataFrame, accuracy: Float[Tensor, "C"], cmm: Float[Tensor, "C"]
) -> dict[str, dict[str, float | None]]:
    """Cause -> its rank correlation with `accuracy` and with `CMM`; None where one is the same for every class."""
    outcomes = {"accuracy": accuracy.double(), "CMM": cmm.double()}
    columns = {str(cause): outcomes["CMM"].new_tensor(causes[cause].to_numpy()) for cause in causes}
    return {
        cause: {label: F.spearman(column, outcome) for label, outcome in outcomes.items()}
        for cause, column in columns.items()
    }


@titled("Rank correlation of each cause with accuracy and with CMM")
def ranks_table(ranks: Mapping[str, Mapping[str, float | None]]) -> pd.DataFrame:
    """`rank_correlations` as a page shows them."""
    return pd.DataFrame(
        [
            {"cause": display_name(cause), **{key: decimal(value) for key, value in row.items()}}
            for cause, row in ranks.items()
        ]
    )


def cmm_follows(ranks: Mapping[str, Mapping[str, float | None]], agreement: float | None) -> str:
    """How far the causes' correlations with CMM differ from those with accuracy, and how the two agree."""
    apart = {
        cause: abs(row["accuracy"] - row["CMM"])
        for cause, row in ranks.items()
        if row["accuracy"] is not None and row["CMM"] is not None
    }
    if not apart:
        return "no rank correlation is defined: accuracy or CMM is the same for every class."
    most = max(apart, key=lambda cause: apart[cause])
    return (
        f"the two columns differ by at most {decimal(apart[most])}, for {_cause(most)}; CMM and accuracy themselves "
        f"have rank correlation {decimal(agreement)}."
    )


HARDLY = 0.1  # a rank correlation this near to zero


def without_rank(
    of_accuracy: Explained,
    causes: pd.DataFrame,
    accuracy: Float[Tensor, "C"],
    ranks: Mapping[str, Mapping[str, float | None]],
    n: int,
) -> str:
    """Causes whose effect differs from zero and whose rank correlation with accuracy is next to none, and why.

    Args:
        n: weakest names; fewer than `FEW_CLASSES` decide nothing.
    """
    table = of_accuracy.coefficients
    if n < FEW_CLASSES:
        return ""
    values, low, high = (_values(table, column) for column in ("value", "low", "high"))
    clear = [cause for cause in values if low[cause] > 0 or high[cause] < 0]
    told = []
    for cause in clear:
        rank = ranks[cause]["accuracy"]
        if rank is not None and abs(rank) < HARDLY:
            told.append(_without_rank(cause, rank, causes[cause].to_numpy(float), accuracy, values[cause]))
    return " ".join(told)


def _without_rank(cause: str, rank: float, values: Float[np.ndarray, "C"], accuracy: Tensor, effect: float) -> str:
    plain = float(np.corrcoef(values, accuracy.numpy())[0, 1])  # Pearson's
    told = f"{_cause(cause)} has an effect that differs from zero, and a rank correlation of only {decimal(rank)}."
    if abs(plain) < 2 * HARDLY or plain * effect < 0:
        return f"{told} The effect is that with the other causes held fixed; by itself it hardly goes with accuracy."
    return (
        f"{told} The correlation of the values themselves (Pearson's) is {decimal(plain)}: ranks count a small "
        f"difference as much as a large one, and the values are unevenly spread, with a median of "
        f"{decimal(float(np.median(values)))}, a mean of {decimal(float(values.mean()))} and a maximum of "
        f"{decimal(float(values.max()))}."
    )


def one_number(alone: float | None, both: float | None) -> str:
    """Whether readings times the share in their own sense rank the classes better than readings alone."""
    told = (
        f"rank correlation with accuracy is {decimal(alone)} for name frequency, {decimal(both)} for both in one number"
    )
    if alone is None or both is None:
        return f"{told}: it is undefined where all classes are alike."
    if abs(alone - both) < HARDLY:
        return f"{told}: they differ by less than {HARDLY:g}, too little to count on."
    return f"{told}: the share in the name's own sense {'adds to it' if both > alone else 'takes away from it'}."


# ---------------------------------------------------------------- the chapter's end


def what_it_means(of_accuracy: Explained, n: int) -> str:
    """Which causes go with lower accuracy by these intervals."""
    held = verdicts(of_accuracy, n)
    if n < FEW_CLASSES:
        return "too few classes to say which cause matters."
    said = {
        "name_frequency": "a name that was read seldom",
        "ambiguity": "a name that was read in another sense",
        "visual_confusability": "pictures that a linear probe confuses",
    }
    by = {key: [said[cause] for cause in said if held[cause] == key] for key in dict.fromkeys(held.values())}
    yes, no = by.get("held", []), [text for key, texts in by.items() if key != "held" for text in texts]
    if not yes:
        return f"of {join_names(no)} none is shown to go with lower accuracy."
    told = f"{join_names(yes)} {'goes' if len(yes) == 1 else 'go'} with lower accuracy"
    return told + (f"; for {join_names(no)} that is not shown." if no else ".")


def section(of_accuracy: Explained, of_cmm: Explained, n: int, fates: pd.DataFrame) -> dict[str, Any]:
    """The `anatomy` section of results.json, but for the interventions."""
    return {
        "n_names": n,
        "r2": of_accuracy.r2,
        "r2_interval": list(of_accuracy.r2_interval),
        "r2_of_cmm": of_cmm.r2,
        "effects": _by_cause(of_accuracy.coefficients),
        "shares": _by_cause(of_accuracy.shares),
        "shares_of_cmm": _by_cause(of_cmm.shares),
        "verdicts": verdicts(of_accuracy, n),
        "fates": [dict(row) for _, row in fates.iterrows()],
    }


def _by_cause(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(cause): {str(end): float(value) for end, value in row.items()} for cause, row in table.iterrows()}
