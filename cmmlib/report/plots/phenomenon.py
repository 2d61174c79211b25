"""Figures of chapter 1: the tail, what the worst classes are taken for, and how far worst@k can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cmmlib.report.plots.layout import figure_size, is_narrow, legend_below, legend_within
from cmmlib.report.plots.style import (
    BAND,
    BLUE,
    EDGE,
    GREY,
    PAPER,
    REST,
    SKY,
    VERMILION,
    described,
    percent_axis,
    picture_row,
    plain,
    styled,
)


@styled
def class_accuracy_curve(accuracy: np.ndarray, intervals: np.ndarray, overall: float, worst_k: int) -> Figure:
    """Sorted class accuracies [C] with intervals [C, 2], the overall accuracy, and the worst k shaded; fractions in.

    Where fewer than k classes have images, all of these are the worst.
    """
    order = np.argsort(np.where(np.isnan(accuracy), np.inf, accuracy), kind="stable")[: np.isfinite(accuracy).sum()]
    a, (low, high) = 100 * accuracy[order], 100 * intervals[order].T
    rank, worst_k = np.arange(1, len(a) + 1), min(worst_k, len(a))
    worst = 100 * float(accuracy[order][:worst_k].mean())
    finding = "The average hides a tail" if worst < 75 * overall else "Accuracy of every class"
    figure, axis = plt.subplots(figsize=figure_size(4.0))
    axis.axvspan(0.5, worst_k + 0.5, color=VERMILION, **BAND)
    room = (200 if is_narrow() else 430) / len(a)  # points of the axes for one class
    axis.vlines(rank, low, high, color=SKY, lw=max(0.4, min(3.0, 0.5 * room)))
    colours = np.where(rank <= worst_k, VERMILION, BLUE)
    axis.scatter(rank, a, c=colours, s=max(4, min(26, 4 * room)), zorder=3, linewidths=0)
    axis.axhline(100 * overall, color="black", lw=1, ls=(0, (4, 3)))
    axis.annotate(
        f"overall {100 * overall:.1f} %", (len(a), 100 * overall), (0, 5), textcoords="offset points", ha="right"
    )
    axis.hlines(worst, 0.5, worst_k + 0.5, color=VERMILION, lw=1.6)
    axis.annotate(
        f"worst {worst_k}: {worst:.1f} %",
        (worst_k + 0.5, worst),
        (5, -3),
        textcoords="offset points",
        color=VERMILION,
        va="center",
        bbox=PAPER,
        zorder=4,
    )
    percent_axis(axis)
    axis.set(
        xlim=(0.2, len(a) + 0.8),
        xlabel="class, from worst to best",
        ylabel="accuracy (%)",
        title=f"{finding}: {100 * overall:.0f} % overall, {worst:.0f} % in the worst {worst_k} classes",
    )
    return described(
        figure,
        f"""
        Accuracy of {len(a)} classes, sorted from worst to best, with 95 % intervals. Overall accuracy is
        {100 * overall:.1f} %; the mean of the worst {worst_k} classes, shaded, is {worst:.1f} %.""",
    )


@styled
def worst_confusions(frame: pd.DataFrame) -> Figure:
    """Where the images of the worst classes go. Rows: `name`, `taken_for`, and the shares `own`, `other`, `rest`."""
    frame = frame.iloc[::-1]
    y = np.arange(len(frame))
    figure, axis = plt.subplots(figsize=figure_size(1.2 + 0.36 * len(frame), 1.6 + 0.42 * len(frame)))
    left = np.zeros(len(frame))
    parts = (
        ("own", BLUE, "recognised"),
        ("other", VERMILION, f"taken for the class {'behind the arrow' if is_narrow() else 'named on the bar'}"),
    )
    for column, colour, label in (*parts, ("rest", REST, "taken for any other class")):
        width = 100 * frame[column].to_numpy()
        edge = GREY if colour == REST else colour
        axis.barh(y, width, left=left, color=colour, edgecolor=edge, height=0.72, label=label)
        left += width
    for row, (own, other, name) in enumerate(zip(frame["own"], frame["other"], frame["taken_for"], strict=True)):
        inside = other > 0.32
        x = 100 * own + (1 if inside else 100 * other + 1)
        if not is_narrow():
            axis.text(x, row, plain(name, 26), va="center", fontsize=8.5, color="white" if inside else "black")
    names = [plain(name) for name in frame["name"]]
    if is_narrow():
        pairs = zip(frame["name"], frame["taken_for"], strict=True)
        names = [f"{plain(name, 28)}\n\u2192 {plain(other, 26)}" for name, other in pairs]
    axis.set_yticks(y, names)
    axis.set(xlim=(0, 100), xlabel="share of the class's images (%)", title="What the worst classes are taken for")
    legend_below(figure, 3)
    return described(
        figure,
        f"""
        Bars for the {len(frame)} worst classes: the share of images recognised, the share taken for one other class,
        and the rest. The worst, {frame["name"].iloc[-1]}, is taken for {frame["taken_for"].iloc[-1]} most often.""",
    )


@styled
def worst_gallery(rows: Sequence[tuple[str, str, Sequence[Image.Image], Sequence[Image.Image]]]) -> Figure:
    """Pictures: one row a class, (name, taken for, images of it that were missed, images of what it is taken for)."""
    n = max(len(missed) for _, _, missed, _ in rows)
    figure = plt.figure(
        figsize=figure_size(0.5 + 0.3 * len(rows) + 3.5 * len(rows) / n, 0.7 + len(rows) * (0.5 + 1.8 / n))
    )
    figure.suptitle("Images of the worst classes (left) and what they are taken for (right)", x=0.01, ha="left")
    strips = figure.subfigures(len(rows), 2, squeeze=False, wspace=0.05)
    for (left, right), (name, other, missed, examples) in zip(strips, rows, strict=True):
        picture_row(left, missed, n)
        picture_row(right, examples, n)
        left.suptitle(plain(name, 40), x=0.02, ha="left", fontsize=9, color=VERMILION)
        right.suptitle("taken for " + plain(other, 36), x=0.02, ha="left", fontsize=9)
    return described(
        figure,
        "Missed images of the worst classes, beside images of the class that each is taken for most: "
        + "; ".join(f"{name}, taken for {other}" for name, other, _, _ in rows),
    )


@styled
def prediction_mass(predicted: np.ndarray, actual: np.ndarray, accuracy: np.ndarray, worst: np.ndarray) -> Figure:
    """Predictions that a class gets for each image it has, against its accuracy. Counts, fractions, mask [C]."""
    has_images = actual > 0
    ratio, a, w = predicted[has_images] / actual[has_images], 100 * accuracy[has_images], worst[has_images]
    under_predicted, most = int((ratio < 0.5).sum()), max(1.0, ratio.max())  # 0 where all take other classes' names
    share = 100 * predicted[has_images][np.argsort(-ratio)][: max(1, len(ratio) // 5)].sum() / predicted.sum()
    figure, axis = plt.subplots(figsize=figure_size(4.0))
    axis.axvline(1, color="black", lw=1, ls=(0, (4, 3)), label="as many predictions as images")
    for mask, colour, label in ((~w, BLUE, "other classes"), (w, VERMILION, "worst classes")):
        axis.scatter(ratio[mask], a[mask], c=colour, s=30, label=label, **EDGE)
    percent_axis(axis)
    axis.set(
        xlim=(-0.05 * most, 1.05 * most),
        xlabel="predictions a class gets, for each image it has",
        ylabel="accuracy (%)",
        title=f"{under_predicted} of {len(ratio)} classes get less than half their share; a fifth takes {share:.0f} %",
    )
    legend_below(figure, 3)
    return described(
        figure,
        f"""
        Each class as a point: predictions it gets for each image it has, against its accuracy. {under_predicted} of
        {len(ratio)} classes get less than half their share; the worst have {ratio[w].mean():.2f} on average.""",
    )


@styled
def worst_bracket(ks: Sequence[int], naive: Sequence[float | None], split_half: Sequence[float | None]) -> Figure:
    """worst@k for every k: the naive value, the split-half value, and the band between; None where undefined."""
    low, high = 100 * np.asarray(naive, float), 100 * np.asarray(split_half, float)
    figure, axis = plt.subplots(figsize=figure_size(3.6))
    axis.fill_between(ks, low, high, color=SKY, **BAND, label="in expectation, the truth lies here")
    axis.plot(ks, low, color=VERMILION, marker="o", ms=4, label="naive: chosen and measured on the same images")
    axis.plot(ks, high, color=BLUE, marker="o", ms=4, label="split half: chosen on one half, measured on the other")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = "worst@k has no upper end here: too few images a class to split"
    if np.isfinite(high - low).any():
        widest = int(np.nanargmax(high - low))
        title = f"worst@k is a bracket: up to {(high - low)[widest]:.1f} points wide, at k = {ks[widest]}"
    axis.set(xlabel="k, number of worst classes", ylabel="worst@k (%)", ylim=(0, None), title=title)
    legend_within(axis, "upper left")
    alt = "Two curves of worst@k over k: the naive value below, the split-half value above. "
    return described(figure, alt + title + ".")
