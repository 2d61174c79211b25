"""Figures of the chapter on causes: what explains failure, which repair helps whom, what an intervention does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmmlib.report.display_names import display_name
from cmmlib.report.plots.labels import name_points
from cmmlib.report.plots.layout import figure_size, legend_below, panels
from cmmlib.report.plots.style import (
    BLUE,
    EDGE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    described,
    percent_axis,
    plain,
    styled,
)

MARKS = {"rare": (ORANGE, "^"), "ambiguous": (VERMILION, "s"), "known": (BLUE, "o")}  # of kinds of names


@styled
def causes_of_failure(effects: pd.DataFrame, shares: Mapping[str, pd.DataFrame]) -> Figure:
    """Left: points of accuracy for one standard deviation of each cause. Right: share of variance it explains.

    Args:
        effects: index causes; `value`, `low`, `high`, fractions.
        shares: outcome -> the same, shares of its variance. The first of at most two outcomes is that of `effects`.
    """
    figure, (left, right) = panels(2, 3.4, sharey=True)
    names = [display_name(cause) for cause in effects.index]
    rows = np.arange(len(names))[::-1]
    left.axvline(0, color=GREY, lw=0.8)
    _interval_points(left, effects, rows, BLUE)
    for (outcome, table), colour, shift in zip(shares.items(), (BLUE, ORANGE), (0.12, -0.12), strict=False):
        label = f"{outcome}: all causes together {100 * table['value'].sum():.0f} %"
        _interval_points(right, table, rows + shift, colour, label)
    left.set_yticks(rows, names)
    left.set(xlabel="points for one standard deviation", title="Effect on accuracy")
    right.set(xlabel="share of the variance (%)", title="What it explains")
    legend_below(figure, 2)
    clear = [name for name, away in zip(names, (effects["low"] > 0) | (effects["high"] < 0), strict=True) if away]
    figure.suptitle(f"Effect differs from zero: {', '.join(clear) or 'none'}", x=0.01, ha="left", fontsize=12)
    values = zip(names, 100 * effects["value"], 100 * next(iter(shares.values()))["value"], strict=True)
    each = "; ".join(f"{name}: {effect:+.0f} points, {share:.0f} %" for name, effect, share in values)
    return described(figure, f"Effect of each cause on class accuracy, and share of its variance: {each}.")


def _interval_points(axis: Axes, table: pd.DataFrame, rows: np.ndarray, colour: str, label: str | None = None) -> None:
    axis.hlines(rows, 100 * table["low"], 100 * table["high"], color=colour, lw=1.6)
    axis.scatter(100 * table["value"], rows, color=colour, s=30, zorder=3, label=label)


@styled
def repair_plane(failing: pd.DataFrame, names: Sequence[str], threshold: float) -> Figure:
    """Failing classes: accuracy with descriptions against accuracy with prior matching, by the kind of weakest name.

    Args:
        failing: columns `kind`, `described`, `prior_matched`; fractions.
        names: the weakest name of each row; each is written once, at its point with most room.
        threshold: accuracy from which a class counts as repaired.
    """
    figure, axis = plt.subplots(figsize=figure_size(4.8))
    x, y = (100 * failing[column].to_numpy(float) for column in ("described", "prior_matched"))
    axis.axvline(100 * threshold, color=GREY, lw=0.8, ls="--")
    axis.axhline(100 * threshold, color=GREY, lw=0.8, ls="--")
    for kind, (colour, marker) in MARKS.items():
        mask = (failing["kind"] == kind).to_numpy()
        if mask.any():
            places, counts = np.unique(np.stack([x[mask], y[mask]], 1), axis=0, return_counts=True)
            axis.scatter(*places.T, s=36 * counts, color=colour, marker=marker, zorder=3, **EDGE)
            axis.scatter([], [], s=36, color=colour, marker=marker, label=f"{kind} name ({mask.sum()})")
    percent_axis(axis, "x", -4, 104)
    percent_axis(axis, "y", -4, 104)
    up, over = x >= 100 * threshold, y >= 100 * threshold
    both, neither = (up & over).sum(), (~up & ~over).sum()
    title = f"Of {len(x)} failing classes: repaired by descriptions {up.sum()}, by prior matching {over.sum()}"
    title += f", by both {both}, by neither {neither}"
    axis.set(xlabel="accuracy with descriptions (%)", ylabel="accuracy with prior matching (%)")
    axis.set_title(title.replace(": ", ":\n", 1))
    legend_below(figure, 3)
    name_points(axis, x, y, names, _with_most_room(x, y, names))
    return described(figure, f"{title}. Repaired means right at least {100 * threshold:.0f} % of the time.")


def _with_most_room(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> list[int]:
    """Of each name the point that is farthest from its nearest neighbour at another place; the loneliest first."""
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    room = np.where(apart > 0, apart, np.inf).min(1)
    of_name: dict[str, int] = {}
    for c in np.argsort(-room, kind="stable").tolist():
        of_name.setdefault(str(names[c]), c)
    return list(of_name.values())


@styled
def recovery(rows: pd.DataFrame) -> Figure:
    """Accuracy of the classes that retrainings touched, in the control and in the intervention.

    Args:
        rows: `group` (what was done), `name`, `before`, `after`, fractions; rows of a group stand together.
    """
    groups = [group for _, group in rows.groupby("group", sort=False)]
    heights = [len(group) + 0.8 for group in groups]
    height, narrow = 1.5 + 0.25 * sum(heights), 1.5 + 0.34 * sum(heights)
    figure, axes = plt.subplots(
        len(groups), 1, figsize=figure_size(height, narrow), sharex=True, squeeze=False, height_ratios=heights
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        _dumbbells(axis, group.sort_values(["after", "before"], kind="stable"))
    axes[-1, 0].set_xlabel("accuracy of the class (%)")
    up = int(np.sum(rows["after"] > rows["before"] + 0.05))
    title = f"More than 5 points gained by {up} of {len(rows)} classes with a name in the changed captions"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, 2, handles, labels)
    values = zip(rows["name"], 100 * rows["before"], 100 * rows["after"], strict=True)
    each = "; ".join(f"{name}: {before:.0f} to {after:.0f} %" for name, before, after in values)
    return described(figure, f"{title}. {each}.")


def _dumbbells(axis: Axes, rows: pd.DataFrame) -> None:
    y, before, after = np.arange(len(rows)), 100 * rows["before"], 100 * rows["after"]
    colours = np.where(after >= before, GREEN, VERMILION)
    axis.hlines(y, before, after, color=colours, lw=1.6)
    axis.scatter(before, y, color=GREY, s=30, zorder=3, label="control")
    axis.scatter(after, y, color=GREEN, s=30, zorder=3, label="intervention")
    axis.set_yticks(y, [plain(name, 38) for name in rows["name"]], fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_title(str(rows["group"].iloc[0]), fontsize=10)
    percent_axis(axis, "x")
