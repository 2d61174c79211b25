"""Figures of the chapter on real CLIP."""

from __future__ import annotations

from collections.abc import Sized

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from cmmlib.report.plots.layout import figure_size, legend_below, legend_within, panels
from cmmlib.report.plots.style import (
    BAND,
    BLUE,
    EDGE,
    GREEN,
    GREY,
    ORANGE,
    PAPER,
    SKY,
    VERMILION,
    described,
    plain,
    styled,
)

COLOURS = {"laion400m": SKY, "laion2b": BLUE, "datacomp": GREEN}  # of training data with several models


@styled
def two_curves_of_classes(real: pd.DataFrame, model: str, own: np.ndarray | None, data: str) -> Figure:
    """Sorted class accuracies: of a real CLIP model on ImageNet, and of this study beside it where it has labels.

    Args:
        real: `share` of the classes and `accuracy`, as in `published.curve_table`.
        own: [C], NaN where a class has no images; None where there are no labels.
    """
    curves = [(f"ImageNet, {model}", 100 * real["share"].to_numpy(), 100 * real["accuracy"].to_numpy())]
    if own is not None:
        values = np.sort(own[~np.isnan(own)])
        curves.append((plain(data, 40), np.linspace(0, 100, len(values)), 100 * values))
    figure, axes = panels(len(curves), 3.1, sharey=True)
    said = []
    for axis, (title, share, accuracy) in zip(axes, curves, strict=True):
        axis.axvspan(0, 10, color=VERMILION, label="the worst tenth of the classes, and its mean", **BAND)
        axis.plot(share, accuracy, color=BLUE, lw=2)
        tenth = _mean_up_to(share, accuracy, 10)
        axis.hlines(tenth, 0, 10, color=VERMILION, lw=1.6)
        axis.annotate(
            f"{tenth:.0f} %", (10, tenth), (3, 0), textcoords="offset points", color=VERMILION, va="center", bbox=PAPER
        )
        axis.axhline(accuracy.mean(), color="black", lw=0.8, ls=(0, (2, 2)))
        axis.text(100, accuracy.mean() + 2, f"mean {accuracy.mean():.0f} %", ha="right", va="bottom", fontsize=9)
        axis.set(title=title, xlabel="share of the classes (%), the worst first", ylim=(0, 104), xlim=(0, 100))
        axis.title.set_fontsize(10)
        said.append(f"{title}: mean {accuracy.mean():.0f} %, of the worst tenth {tenth:.0f} %")
    for axis in axes:
        axis.set_ylabel("accuracy of a class (%)")
        axis.label_outer()
    legend_below(figure, 1, *axes[0].get_legend_handles_labels())
    return described(figure, "Accuracy of every class, from the worst to the best. " + "; ".join(said) + ".")


def _mean_up_to(share: np.ndarray, accuracy: np.ndarray, end: float) -> float:
    """The mean height of a curve from the first class to a share of them."""
    at = np.linspace(0, end, 101)
    return float(np.interp(at, share, accuracy).mean())


@styled
def overall_and_worst(models: pd.DataFrame, own: tuple[str, float, float] | None = None) -> Figure:
    """Overall accuracy against that of the worst twentieth of the classes: a point a model and data set.

    Args:
        models: rows of `published.model_table` of one prompt set.
        own: name, overall and worst twentieth of this study.
    """
    figure, axis = plt.subplots(figsize=figure_size(4.2))
    x, y = 100 * models["overall"], 100 * models["worst_share"]
    chosen = (models["data"] == "imagenet").to_numpy()
    axis.scatter(x[~chosen], y[~chosen], s=16, color=GREY, label="18 other data sets", **EDGE)
    axis.scatter(x[chosen], y[chosen], s=26, color=BLUE, label="ImageNet", **EDGE)
    if own is not None:
        name, overall, worst = own
        axis.scatter(
            100 * overall, 100 * worst, s=160, marker="*", color=VERMILION, label=f"this study ({plain(name)})"
        )
    axis.plot((0, 100), (0, 100), color="black", lw=0.8, ls=(0, (2, 2)), label="equally good at all classes")
    axis.set(
        xlabel="overall accuracy (%)",
        ylabel="accuracy of the worst twentieth\nof the classes (%)",
        title=f"Worst twentieth more than 30 points below the average: {_far(models)} of {len(models)}",
        xlim=(0, 101),
        ylim=(-1, 101),
    )
    legend_within(axis, "upper left")
    gap = (models["overall"] - models["worst_share"]).median()
    return described(
        figure,
        f"""{len(models)} pairs of model and data set: overall accuracy against that of the worst twentieth of the
        classes, which lies below it by {100 * gap:.0f} points in the median.""",
    )


def _far(models: pd.DataFrame) -> int:
    return int(np.count_nonzero(models["overall"] - models["worst_share"] > 0.3))


@styled
def accuracy_over_computation(models: pd.DataFrame, k: int = 10) -> Figure:
    """Overall accuracy and worst@k on one data set over what a model computes; a line joins one training set."""
    figure, axes = panels(2, 3.4, sharex=True)
    for axis, column, label in zip(
        axes, ("overall", f"worst_{k}"), ("overall", f"worst {k} classes, own scale"), strict=True
    ):
        for trained, part in models.groupby("pretrained", sort=False):
            part = part.sort_values("multiply_adds")
            colour = COLOURS.get(str(trained), GREY)
            name = str(trained) if trained in COLOURS else "smaller training sets"
            axis.plot(part["multiply_adds"], 100 * part[column], color=colour, marker="o", ms=4, lw=1.2, label=name)
        axis.set(xscale="log", xlabel="multiplications for an image (billions)", ylabel=f"accuracy (%),\n{label}")
        axis.set_ylim(-0.02 * axis.get_ylim()[1], 1.1 * axis.get_ylim()[1])  # each its own: the worst lie far lower
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())  # its powers of ten are too small for a phone
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    legend_below(figure, 4, handles.values(), handles.keys())
    best = models.loc[models["overall"].idxmax()]
    title = f"The best overall has {100 * best['overall']:.0f} %, and {100 * best[f'worst_{k}']:.0f} % in its worst {k}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    what = f"Accuracy over what the model computes for an image, overall and of the worst {k} classes"
    return described(figure, f"{what}. {title}.")


def _heights(rows: Sized) -> tuple[float, float]:
    """Of a figure with a line for each row, and on a phone, where title, legend and label take more lines."""
    height = 0.9 + 0.25 * len(rows)
    return height, max(3.0, height)


@styled
def better_prompts(changes: pd.DataFrame) -> Figure:
    """From one template to the ensemble: mean change over the models, overall and in the worst twentieth.

    Args:
        changes: a row a data set: `data`, `overall`, `worst` (mean differences of fractions), `models`, `overall_up`
            and `worst_up` (numbers of models).
    """
    table = changes.sort_values("overall", kind="stable").reset_index(drop=True)
    rows = np.arange(len(table))
    figure, axis = plt.subplots(figsize=figure_size(*_heights(table)))
    axis.hlines(rows, 100 * table["overall"], 100 * table["worst"], color=GREY, lw=1)
    axis.scatter(100 * table["overall"], rows, color=BLUE, s=26, label="overall", zorder=3)
    axis.scatter(100 * table["worst"], rows, color=VERMILION, s=26, label="worst twentieth of the classes", zorder=3)
    axis.axvline(0, color="black", lw=0.8, ls=(0, (2, 2)))
    axis.set_yticks(rows, table["data"])
    behind = int(np.count_nonzero(table["worst"] < table["overall"]))
    axis.set(
        xlabel="change of accuracy from one template to the ensemble (points, mean over models)",
        title=f"The worst classes gain less than the average on {behind} of {len(table)} data sets",
    )
    legend_within(axis, "lower right")
    said = "; ".join(
        f"{r['data']} {100 * r['overall']:+.1f} and {100 * r['worst']:+.1f}" for r in table.to_dict("records")
    )
    return described(figure, f"Change of accuracy with more templates, overall and worst twentieth, in points: {said}.")


def _names(table: pd.DataFrame) -> list[str]:
    """Data sets and their numbers of classes."""
    return [f"{row['data']} ({row['classes']})" for row in table.to_dict("records")]


@styled
def agreement(table: pd.DataFrame) -> Figure:
    """Rank correlations of the class accuracies of two models: the median over all pairs, and their range."""
    table = table.sort_values("median", kind="stable").reset_index(drop=True)
    rows = np.arange(len(table))
    figure, axis = plt.subplots(figsize=figure_size(*_heights(table)))
    axis.hlines(rows, table["lowest"], table["highest"], color=SKY, lw=2.2)
    axis.scatter(table["median"], rows, color=BLUE, s=26, zorder=3)
    axis.axvline(0, color="black", lw=0.8, ls=(0, (2, 2)))
    axis.set_yticks(rows, _names(table))
    low, high = table["median"].min(), table["median"].max()
    axis.set(
        xlabel="rank correlation of two models' class accuracies (median and range over all pairs)",
        title=f"Models agree in part on which classes are hard: medians {low:.2f} to {high:.2f}",
    )
    said = f"{len(table)} data sets; medians {low:.2f} to {high:.2f}"
    return described(figure, f"Rank correlations of class accuracies between models on {said}.")


@styled
def name_frequency(table: pd.DataFrame, own: tuple[str, float, float, float] | None = None) -> Figure:
    """Rank correlation of class accuracy with how often captions name the class, with 95 % intervals over classes.

    Args:
        table: rows of `published.frequency_table` of one search and model.
        own: a name, the same correlation in a study of the miniature world, and its interval.
    """
    rows = list(zip(_names(table), *(table[c].tolist() for c in ("spearman", "low", "high")), strict=True))
    rows = sorted(rows, key=lambda row: row[1]) + ([own] if own is not None else [])
    at = np.arange(len(rows))
    names, *values = zip(*rows, strict=True)
    value, low, high = map(np.array, values)
    colours = [BLUE] * len(table) + [ORANGE] * (len(rows) - len(table))
    figure, axis = plt.subplots(figsize=figure_size(*_heights(rows)))
    axis.hlines(at, low, high, color=colours, lw=1.6)
    axis.scatter(value, at, color=colours, s=26, zorder=3)
    axis.axvline(0, color="black", lw=0.8, ls=(0, (2, 2)))
    axis.set_yticks(at, names)
    clear = int(np.count_nonzero(table["low"] > 0))
    axis.set(
        xlabel="rank correlation of class accuracy with the frequency of the name (95 % interval)",
        title=f"More frequent names, better classes: clear on {clear} of {len(table)} data sets",
    )
    said = "; ".join(f"{name} {v:.2f}" for name, v, *_ in rows)
    return described(figure, f"Rank correlation of class accuracy with the frequency of class names: {said}.")
