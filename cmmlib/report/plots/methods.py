"""The figure of chapters 4 and 5 in which methods are compared on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmmlib.report.display_names import display_name
from cmmlib.report.plots.layout import legend_below, panels
from cmmlib.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    described,
    styled,
)

BASE, ORACLE = "base prompt", "needs labels"
MARKS = {  # kind of method -> colour and marker, in the order of the legend
    BASE: ("black", "D"),
    "no descriptions": (GREY, "o"),
    "CMM weights, no descriptions": (BLUE, "o"),
    "with descriptions": (ORANGE, "s"),
    "CMM weights, with descriptions": (GREEN, "s"),
    "hub remedies and published methods": (ORANGE, "o"),
    "this chapter's corrections": (GREEN, "s"),
    ORACLE: ("black", "x"),
}


@styled
def compare_methods(rows: Sequence[Mapping[str, Any]], kinds: Sequence[str] | None = None, k: int | str = 10) -> Figure:
    """A row a method: overall accuracy with its 95 % interval, and worst@k with its bracket.

    Args:
        rows: of `evaluation.ensemble_rows`, each with a worst@k; drawn from the top in their order.
        kinds: what each row is, one of `MARKS`; without it, by its weights and its descriptions.
    """
    labels = [_kind(row, None if kinds is None else kinds[i]) for i, row in enumerate(rows)]
    overall = np.array([[row["overall"], *row["overall_interval"]] for row in rows], float)
    worst = np.array(
        [[row["worst"][f"{k}"], row["worst"][f"{k}"], row["worst_split_half"][f"{k}"]] for row in rows], float
    )
    figure, axes = panels(2, 1.3 + 0.27 * len(rows), sharey=True)
    _dots(axes[0], 100 * overall, labels)
    _dots(axes[1], 100 * worst, labels)
    axes[0].set_yticks(range(len(rows)), [display_name(row["name"]) for row in rows])
    axes[0].set(ylim=(len(rows) - 0.4, -0.6), xlabel="overall accuracy (%),\nline: 95 % interval")
    classes = "worst class" if int(k) == 1 else f"worst {k} classes"
    axes[1].set_xlabel(f"accuracy of the {classes} (%),\nline: up to its split-half value")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    legend_below(figure, 3, handles.values(), handles.keys())
    title = _highest(rows, f"{k}") if kinds is None else _better(rows, f"{k}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    values = zip(rows, 100 * overall[:, 0], 100 * worst[:, 0], strict=True)
    said = "; ".join(f"{display_name(row['name'])} {a:.1f} and {b:.1f}" for row, a, b in values)
    return described(figure, f"Overall accuracy and accuracy of the {classes} of every method, in percent: {said}.")


def _kind(row: Mapping[str, Any], given: str | None) -> str:
    if row["name"] == "base":
        return BASE
    if not row["label_free"]:
        return ORACLE
    if given is not None:
        return given
    kind = "with descriptions" if row["requests"] else "no descriptions"
    return f"CMM weights, {kind}" if row["name"].startswith(("enriched_cmm", "cmm_")) else kind


def _dots(axis: Axes, values: np.ndarray, labels: Sequence[str]) -> None:
    """Points of `values` [R, 3] (value, low and high end of its line; percent), the base prompt's as a reference."""
    rows = np.arange(len(values))
    axis.hlines(rows, values[:, 1], values[:, 2], color=[MARKS[label][0] for label in labels], lw=1.6)
    for kind, (colour, marker) in MARKS.items():
        here = np.array([label == kind for label in labels])
        if here.any():
            axis.scatter(values[here, 0], rows[here], c=colour, marker=marker, s=26, label=kind, zorder=3)
    if BASE in labels:
        axis.axvline(values[labels.index(BASE), 0], color=GREY, lw=1, ls=(0, (1, 2)), zorder=1)
    axis.grid(axis="y", color="#EBEBEB", lw=0.7)
    axis.set_axisbelow(True)


def _highest(rows: Sequence[Mapping[str, Any]], k: str) -> str:
    most = max(row["worst"][k] for row in rows)
    best = [row["name"] for row in rows if row["worst"][k] == most]
    return f"Highest worst-{k}: {display_name(best[0])}" if len(best) == 1 else f"Overall accuracy and worst-{k}"


def _better(rows: Sequence[Mapping[str, Any]], k: str) -> str:
    others = [row for row in rows if row["name"] != "base"]
    (base,) = (row for row in rows if row["name"] == "base")
    better = [r for r in others if r["overall"] > base["overall"] and r["worst"][k] > base["worst"][k]]
    return f"Better than the base prompt on both: {len(better)} of {len(others)} methods"
