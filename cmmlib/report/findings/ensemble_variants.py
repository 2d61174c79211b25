"""Sentences and tables of chapter 4: which classes gain and lose, and the ensemble with something changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.evaluation.evaluation import gains_and_losses, most_lost
from cmmlib.report.findings.balance_or_cmm import MEASURES
from cmmlib.report.findings.ensemble import Row
from cmmlib.report.formatting import (
    counted,
    join_names,
    percent,
    percent_number,
    points,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

MOST_LOSERS = 8


def who_gains(
    before: Float[np.ndarray, "C"],
    after: Float[np.ndarray, "C"],
    described: Bool[np.ndarray, "C"],
    lost_to: Int[np.ndarray, "M"],
) -> str:
    """How many classes gain and lose, and where the images went that losing classes without descriptions lost.

    Args:
        lost_to: what the images are predicted as that such classes had right before and no longer (`lost_images`).
    """
    up, down = gains_and_losses(before, after)
    plain = int((down & ~described).sum())
    gain, lose = ("gains" if up.sum() == 1 else "gain"), ("loses" if down.sum() == 1 else "lose")
    said = (
        f"{counted(int(up.sum()), 'class', 'classes')} {gain} more than five points; {int(down.sum())} {lose} as much"
    )
    if not down.any():
        return f"{said}."
    if not described.any():
        return f"{said}."
    said = f"{said}, {plain} of them without descriptions of their own."
    if not len(lost_to):
        return said
    took, lost = int(described[lost_to].sum()), counted(len(lost_to), "image")
    these = "this one" if plain == 1 else f"these {plain}"
    return f"{said} Of the {lost} that {these} lost, {took} went to a described class."


def lost_images(
    labels: Int[Tensor, "N"],
    before: Int[Tensor, "N"],
    after: Int[Tensor, "N"],
    classes: Bool[np.ndarray, "C"],
) -> Int[np.ndarray, "M"]:
    """What the images of some classes are predicted as that were right before and are no longer."""
    lost = (before == labels) & (after != labels)
    return after[lost].numpy()[classes[labels[lost].numpy()]]


@titled("The classes that lose most")
def losers(
    run: Run, before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], described: Bool[np.ndarray, "C"]
) -> pd.DataFrame:
    """The classes that lose most, at most `MOST_LOSERS`."""
    return pd.DataFrame(
        {
            "class": run.classnames[c],
            "before": percent(before[c]),
            "after": percent(after[c]),
            "change (points)": points(after[c] - before[c]),
            "described": "yes" if described[c] else "no",
        }
        for c in most_lost(before, after, run.classnames)[:MOST_LOSERS]
    )


def described_curve(run: Run, curve: Sequence[Row], everything: Mapping[int, Tensor]) -> str:
    """CMM weights with no class described, with the study's number, and with all; and the best way at that number.

    Args:
        curve: rows of `evaluation.ablation.described_curve`.
        everything: all descriptions that are recorded.
    """
    if not everything:
        return "no description is recorded, so there is no number to choose."
    chosen, own = run.n_described, {row["count"]: row["overall"] for row in curve if row["method"] == "CMM weights"}
    ends = {0: "no class described", chosen: f"the study's {chosen}"}
    if max(own) > chosen:
        ends[max(own)] = f"all {max(own)}"
    values = [f"{percent(own[n])} with {said}" for n, said in ends.items()]
    here = [row for row in curve if row["count"] == chosen]
    ways = [f"*{row['method']}*" for row in here if row["overall"] == max(one["overall"] for one in here)]
    some = "" if len(everything) == run.n_classes else f" ({len(everything)} of the classes have descriptions at all)"
    return (
        f"overall, CMM weights have {join_names(values)}{some}. With {chosen} described, the highest overall accuracy "
        f"is that of {join_names(ways)}."
    )


@titled("The ensemble with one part changed")
def ablation(rows: Sequence[Row], count: int) -> pd.DataFrame:
    """Rows of `evaluation.ablation.ablation` in percent.

    Args:
        count: how many classes the base prompt's worst 10 are, with ties.
    """
    heads = {"version": "in %", "overall": "overall", "worst_10": "own worst 10", "worst_20": "own worst 20"}
    if count:
        heads |= {"base_worst_10": f"base's worst 10 ({count} classes)"}
        heads |= {"base_worst_split_half_10": "base's worst 10, chosen on other images"}
    heads = {key: head for key, head in heads.items() if rows[0][key] is not None}
    return pd.DataFrame(
        {head: row[key] if key == "version" else percent_number(row[key]) for key, head in heads.items()}
        for row in rows
    )


def ablated(rows: Sequence[Row]) -> str:
    """Which versions are above the ensemble as it is, overall and in the worst 10."""
    own, *others = rows
    told = []
    for key, where in MEASURES.items():
        if own[key] is not None:
            higher = [f"*{row['version']}*" for row in others if round(row[key] - own[key], 9) > 0]
            told.append(f"{where}, {len(higher)} of {len(others)}" + (f" ({join_names(higher)})" if higher else ""))
    return (
        f"as it is, the ensemble has {percent(own['overall'])} overall. Changed versions that are above it: "
        f"{'; '.join(told)}."
    )


@titled("Recorded and clean descriptions")
def control(rows: Sequence[Row]) -> pd.DataFrame:
    """`evaluation.ablation.control` in percent."""
    return pd.DataFrame(
        {
            "descriptions": row["descriptions"],
            "method": row["method"],
            "overall": percent(row["overall"]),
            "own worst 10": percent(row["worst_10"]),
        }
        for row in rows
    )


def clean(rows: Sequence[Row], answered: bool) -> str:
    """What clean descriptions change under CMM weights, against the answers, or against none."""
    start, now = (
        next(row for row in rows if (row["descriptions"], row["method"]) == (kind, "CMM weights"))
        for kind in ("as answered", "clean")
    )
    told = [
        f"{points(now[key] - start[key])} points {MEASURES[key]}"
        for key in ("overall", "worst_10")
        if now[key] is not None and start[key] is not None
    ]
    place = "in place of the answers" if answered else "where no answer is recorded"
    return f"with CMM weights, clean descriptions {place} change accuracy by {join_names(told)}."


def sensitivity(grid: pd.DataFrame, temperature: float, cut: float, k: str) -> str:
    """The range of worst@k over the settings, and how many lie above the study's own."""
    values, own = grid.to_numpy(float), float(grid.loc[cut, temperature])
    if np.isnan(values).any():
        return f"fewer than {k} classes have images."
    above = int((values > own + 1e-9).sum())
    return (
        f"worst {k} runs from {percent(values.min())} to {percent(values.max())} over these settings; the study's own "
        f"has {percent(own)}, and {above} of {values.size} lie above it."
    )
