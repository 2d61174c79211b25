"""Figures of chapter 5: what a bias does, what corrections gain and cost, and which predictions to trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmmlib.report.plots.layout import figure_size, is_narrow, legend_below, panels
from cmmlib.report.plots.style import (
    BLUE,
    EDGE,
    GREEN,
    GREY,
    OF_METHOD,
    ORANGE,
    SKY,
    VERMILION,
    described,
    percent_axis,
    plain,
    styled,
)

COLOURS = (GREEN, BLUE, ORANGE, GREY, SKY)


@styled
def hub_and_under_predicted(
    hub: np.ndarray, under_predicted: np.ndarray, shift: float, names: tuple[str, str], own: np.ndarray | None = None
) -> Figure:
    """Logits of a hub class and of an under-predicted class on images, [M] each, and the boundary before and after.

    Args:
        shift: how much further the bias raises the under-predicted class than the hub, in logits.
        names: of the hub and the under-predicted class.
        own: with labels, mask of the images that are of the under-predicted class.
    """
    figure, axis = plt.subplots(figsize=figure_size(4.8))
    kinds = [(np.ones(len(hub), bool), BLUE, "images of either")] if own is None else []
    if own is not None:
        kinds = [(~own, GREY, "other images"), (own, GREEN, f"images of {plain(names[1], 24)}")]
    for mask, colour, label in kinds:
        axis.scatter(hub[mask], under_predicted[mask], color=colour, s=18, label=label, **EDGE)
    ends = np.array([min(hub.min(), under_predicted.min()), max(hub.max(), under_predicted.max())])
    axis.plot(ends, ends, color="black", lw=1.2, label="boundary of the plain classifier")
    axis.plot(ends, ends - shift, color=VERMILION, lw=1.6, ls=(0, (5, 2)), label="boundary with the bias")
    won = int(((under_predicted > hub - shift) & (under_predicted <= hub)).sum())
    axis.set(
        xlabel=f"logit of {plain(names[0])} (lower bias)",
        ylabel=f"logit of {plain(names[1])} (higher bias)",
        xlim=(hub.min() - 0.5, hub.max() + 0.5),
        ylim=(under_predicted.min() - 0.5, under_predicted.max() + 0.5),
        title=f"A bias of {shift:.1f} logits moves {won} image{'s' if won != 1 else ''} across the line",
    )
    legend_below(figure, 2)
    return described(
        figure,
        f"""
        Logits of {names[0]}, the class of lower bias, and of {names[1]}, that of higher bias, on {len(hub)} images. The
        boundary moves by {shift:.1f} logits, and {won} images change sides.""",
    )


@styled
def predicted_counts(before: np.ndarray, after: np.ndarray, expected: float) -> Figure:
    """How many images are predicted as each class, [C] each, sorted; `expected` is an even share."""
    figure, axis = plt.subplots(figsize=figure_size(3.6))
    for counts, colour, label in ((before, GREY, "plain classifier"), (after, GREEN, "prior matching")):
        axis.step(np.arange(1, len(counts) + 1), np.sort(counts), color=colour, lw=2, where="mid", label=label)
    axis.axhline(expected, color="black", lw=0.8, ls=(0, (2, 2)), label="an even share")
    few = [int((counts < expected / 10).sum()) for counts in (before, after)]
    axis.set(
        xlabel="classes, by predicted count",
        ylabel="images predicted as the class",
        title=f"Classes predicted for less than a tenth of an even share: {few[0]} before, {few[1]} after",
    )
    legend_below(figure, 3)
    return described(
        figure,
        f"""
        Sorted counts of predictions of {len(before)} classes. Before, they run from {before.min():.0f} to
        {before.max():.0f}; after prior matching from {after.min():.0f} to {after.max():.0f}; an even share is
        {expected:.0f}.""",
    )


@styled
def cost_of_imbalance(draws: pd.DataFrame) -> Figure:
    """Change of overall accuracy a draw. Columns `kind`, `method`, `change` (fractions)."""
    figure, axis = plt.subplots(figsize=figure_size(4.2))
    shown = draws.assign(change=100 * draws["change"])
    kinds, methods = list(dict.fromkeys(shown["kind"])), list(dict.fromkeys(shown["method"]))
    colours = [OF_METHOD.get(method, colour) for method, colour in zip(methods, COLOURS, strict=False)]
    order = {"order": kinds, "hue_order": methods, "palette": colours}
    points = {"dodge": True, "jitter": 0.2, "size": 3.5, "edgecolor": "white", "linewidth": 0.3}
    sns.stripplot(shown, x="kind", y="change", hue="method", ax=axis, **order, **points)
    axis.axhline(0, color="black", lw=0.8)
    groups = shown.groupby(["kind", "method"])["change"]
    means: dict[Any, float] = {key: part.to_numpy(float).mean() for key, part in groups}
    for i, kind in enumerate(kinds):
        for j, method in enumerate(methods):
            centre = i + 0.8 * ((j + 0.5) / len(methods) - 0.5)
            axis.plot([centre - 0.11, centre + 0.11], [means[kind, method]] * 2, color=colours[j], lw=3)
    if legend := axis.get_legend():  # of faint points: lines are seen better
        legend.remove()
    handles = [Line2D([], [], color=colour, lw=3, label=way) for way, colour in zip(methods, colours, strict=False)]
    if is_narrow():
        axis.set_xticks(range(len(kinds)), [str(kind).replace(" ", "\n") for kind in kinds])
    lowest, highest = min(means.values()), max(means.values())
    axis.set(
        xlabel="class frequencies of the images",
        ylabel="change of overall accuracy (points)",
        title=f"Mean change of overall accuracy: {_signed(lowest)} to {_signed(highest)} points",
    )
    legend_below(figure, 3, handles)
    said = "; ".join(f"{kind}, {method} {value:+.1f}" for (kind, method), value in means.items())
    return described(figure, f"Change of overall accuracy in points, mean over draws: {said}.")


def _signed(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"


@styled
def risk_over_coverage(
    curves: dict[str, np.ndarray], coverages: Sequence[float], classes: np.ndarray, worst: np.ndarray
) -> Figure:
    """Left: risk over coverage, a curve [N] a confidence. Right: risks of predicted classes [G, C] at coverages [G].

    `worst` masks the classes of highest risk at full coverage.
    """
    figure, axes = panels(2, 3.8, sharex=True)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        x = 100 * np.arange(1, len(curve) + 1) / len(curve)
        start = len(curve) // 50  # the first images are noise
        axes[0].plot(x[start:], 100 * curve[start:], color=colour, lw=1.8, label=name)
    axes[0].set(xlabel="images answered (%)", ylabel="wrong answers (%)", title="All classes")
    for mask, colour, width, label in (
        (~worst, GREY, 0.7, "other classes"),
        (worst, VERMILION, 1.2, "worst at 100 %"),
    ):
        for c in np.flatnonzero(mask).tolist():
            axes[1].plot(100 * np.asarray(coverages), 100 * classes[:, c], color=colour, lw=width)
        axes[1].plot([], [], color=colour, lw=width, label=label)
    percent_axis(axes[1])
    axes[1].set(xlabel="images answered (%)", ylabel="wrong answers (%)", title="Each predicted class")
    legend_below(figure, 3)
    area = {name: float(curve.mean()) for name, curve in curves.items()}
    best = [name for name, value in area.items() if value == min(area.values())]
    title = "Risk over coverage" if len(best) > 1 else f"Least risk over all coverages: {best[0]}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    said = "; ".join(f"{name} {100 * curve.mean():.1f} %" for name, curve in curves.items())
    return described(
        figure, f"Risk over coverage by confidence, mean over coverages: {said}. Beside it, each class's risk."
    )
