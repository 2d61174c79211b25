"""Figures of chapter 7: several runs on one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmmlib.report.display_names import display_name
from cmmlib.report.plots.labels import name_points
from cmmlib.report.plots.layout import figure_size, legend_below, panels
from cmmlib.report.plots.style import (
    BAND,
    BLUE,
    EDGE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    described,
    percent_axis,
    plain,
    styled,
)

RUNS = (BLUE, ORANGE, GREEN, SKY, GREY, "black")  # in the order of the runs


@styled
def runs_curves(accuracy: Mapping[str, np.ndarray], overall: Sequence[float], k: int) -> Figure:
    """Sorted class accuracies [C] of every run, fractions, its overall accuracy dashed; the k worst places shaded.

    Where a run has fewer than k classes with images, k is their number.
    """
    figure, axis = plt.subplots(figsize=figure_size(4.2))
    gaps, k = [], min(k, *(int(np.isfinite(values).sum()) for values in accuracy.values()))
    for (name, values), mean, colour in zip(accuracy.items(), overall, cycle(RUNS), strict=False):
        curve = np.sort(values[np.isfinite(values)])
        axis.plot(np.arange(1, len(curve) + 1), 100 * curve, color=colour, lw=2, label=plain(name, 40))
        axis.axhline(100 * mean, color=colour, lw=1, ls=(0, (4, 3)))
        gaps.append(100 * (mean - curve[:k].mean()))
    axis.axvspan(0.5, k + 0.5, color=VERMILION, **BAND)
    percent_axis(axis)
    axis.set(xlabel="classes of a run, its worst first", ylabel="accuracy of the class (%)")
    size = f"{min(gaps):.0f} to {max(gaps):.0f}" if round(min(gaps)) < round(max(gaps)) else f"{max(gaps):.0f}"
    axis.set_title(f"The worst {k} classes lie {size} points below the average")
    legend_below(figure, 2)
    means = "; ".join(f"{n} {100 * m:.1f} %" for n, m in zip(accuracy, overall, strict=True))
    return described(
        figure,
        f"""
        Sorted class accuracies of {len(accuracy)} runs with their overall accuracies as dashed lines: {means}. The
        worst {k} classes of a run lie {size} points below its overall accuracy.""",
    )


@styled
def classes_in_two(
    x: np.ndarray, y: np.ndarray, worst: np.ndarray, names: Sequence[str], runs: tuple[str, str], k: int
) -> Figure:
    """Accuracy of every class in two runs, [C] each, fractions; `worst` marks the k worst of each, [2, C]."""
    both, one = worst.all(0), worst.any(0) & ~worst.all(0)
    figure, axis = plt.subplots(figsize=figure_size(5.2))
    kinds = (
        (~both & ~one, BLUE, "o", "other classes"),
        (one, ORANGE, "^", f"among the worst {k} of one run, ties included"),
        (both, VERMILION, "s", "of both"),
    )
    axis.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=(0, (4, 3)))
    for mask, colour, marker, label in kinds:
        axis.scatter(100 * x[mask], 100 * y[mask], c=colour, marker=marker, s=30, label=label, **EDGE)
    percent_axis(axis, "x")
    percent_axis(axis)
    apart = np.argsort(-np.abs(np.nan_to_num(x - y)), kind="stable")[:8]
    n = int(both.sum())
    title = f"{n} {'class is' if n == 1 else 'classes are'} among the worst {k} of both runs"
    axis.set(xlabel=f"accuracy, {plain(runs[0], 40)} (%)", ylabel=f"accuracy, {plain(runs[1], 40)} (%)", title=title)
    legend_below(figure, 3)
    name_points(axis, 100 * x, 100 * y, names, [int(c) for c in apart])
    return described(figure, f"Accuracy of every class in two runs, {runs[0]} and {runs[1]}. {title}.")


@styled
def gains_by_run(table: pd.DataFrame) -> Figure:
    """Gain over the base prompt. Columns `run`, `method`, `gain_overall`, `gain_worst_10`, fractions."""
    table = table.loc[table["method"] != "base"]
    methods, runs = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["run"]))
    figure, axes = panels(2, 1.6 + 0.26 * len(methods), sharey=True)
    for axis, column, label in zip(axes, ("gain_overall", "gain_worst_10"), ("overall", "worst 10"), strict=True):
        axis.axvline(0, color=GREY, lw=0.8)
        for run, colour, marker in zip(runs, cycle(RUNS), cycle("os^Dv*"), strict=False):
            part = table[table["run"] == run].set_index("method")[column].astype(float).reindex(methods)
            axis.scatter(100 * part, range(len(methods)), c=colour, marker=marker, s=30, label=plain(run, 40), **EDGE)
        axis.set(xlabel=f"gain over the base prompt,\n{label} (points)")
    axes[0].set_yticks(range(len(methods)), [display_name(method) for method in methods])
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    legend_below(figure, 2, handles, labels)
    gain = table["gain_worst_10"].to_numpy(float)
    least = {display_name(method): 100 * gain[table["method"] == method].min() for method in methods}
    in_all = [display_name(method) for method in methods if (table["method"] == method).sum() == len(runs)]
    most = max((least[method] for method in in_all), default=0.0)
    best = [method for method in in_all if least[method] == most]
    title = f"Best in the worst 10, by its smallest gain: {', '.join(best[:2])}{' ...' * (len(best) > 2)}"
    title = title if most > 0 else "No method raises the worst 10 classes in every run"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    said = "; ".join(f"{method} {value:+.1f}" for method, value in least.items())
    return described(figure, f"Gain of every method in {len(runs)} runs. Smallest gain in the worst 10 classes: {said}")
