"""Figures of chapter 2: the margin, CMM against accuracy, and the scores of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import counted, decimal
from cmmlib.report.plots.labels import name_points
from cmmlib.report.plots.layout import figure_size, is_narrow, legend_below, panels
from cmmlib.report.plots.style import (
    BAND,
    BLUE,
    EDGE,
    GREEN,
    GREY,
    PAPER,
    REST,
    VERMILION,
    described,
    percent_axis,
    picture_row,
    plain,
    styled,
    thumbnail,
)

Array = np.ndarray | Tensor


@styled
def one_margin(similarity: Array, names: list[str], image: Image.Image | None = None, top: int = 8) -> Figure:
    """One image's highest similarities [C], and the gap between the first and the second: the margin."""
    values = np.asarray(similarity)
    order = np.argsort(-values, kind="stable")[:top]
    s = values[order]
    beside = {} if image is None else {"height_ratios": [1, 1.8]} if is_narrow() else {"width_ratios": [1, 2.6]}
    figure, (*pictures, axis) = panels(1 if image is None else 2, 3.2, **beside)
    for picture in pictures:
        assert image is not None
        picture.imshow(thumbnail(image, 320))
        picture.set_axis_off()
    y = np.arange(len(s))[::-1]
    text = 0.55 if is_narrow() else 0.3  # part of the axes' width, which the margin's text has left of the bracket
    left = min(s.min() - 0.012, (s[1] - text * s[0]) / (1 - text))
    axis.hlines(y, left, s, color=REST, lw=1.5)
    axis.scatter(s, y, c=[GREEN, VERMILION, *[GREY] * (len(s) - 2)], s=46, zorder=3)
    axis.plot([s[1], s[0]], [y[0] - 0.45] * 2, color="black", lw=1.2, marker="|", ms=7)
    axis.annotate(
        f"margin {s[0] - s[1]:.3f}",
        (s[1], y[0] - 0.45),
        (-5, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=9,
    )
    axis.set_yticks(y, [plain(names[c], 26) for c in order.tolist()])
    axis.set(
        xlabel="cosine similarity of image and class text",
        title="The margin: how far the best class is ahead",
        xlim=(left, s[0] + 0.04 * max(s[0] - left, 0.01)),
        ylim=(-0.6, len(s) - 0.4),
    )
    return described(
        figure,
        f"""
        The {len(s)} classes most similar to one image, on a line of cosine similarity. {names[order[0]]} is first,
        {names[order[1]]} second; the gap between them, the margin, is {s[0] - s[1]:.3f}.""",
    )


@styled
def class_margins(names: Sequence[str], margins: Array, weights: Array, cmm: Array) -> Figure:
    """Margins of all images for each named class, each image weighted by the class's own probability, and its CMM.

    Args:
        margins, weights: a row a class, [n, N].
        cmm: [n].
    """
    margins, weights, centres = np.asarray(margins), np.asarray(weights), np.asarray(cmm)
    seen = np.abs(margins)[weights > 0.01 * weights.max(1, keepdims=True)]
    reach = max(float(np.quantile(seen, 0.995)) if len(seen) else 0.0, np.abs(centres).max(), 1e-4)
    figure, axes = plt.subplots(len(margins), 1, figsize=figure_size(3.8), sharex=True)
    for axis, m, w, name, centre in zip(axes, margins, weights, names, centres, strict=True):
        bins = np.linspace(-reach, reach, 61)
        for side, colour in ((m <= 0, VERMILION), (m > 0, GREEN)):
            axis.hist(m[side], bins=bins, weights=w[side], color=colour)
        axis.axvline(centre, color="black", lw=1.4)
        axis.annotate(
            f"CMM {centre:+.4f}",
            (centre, 0.97),
            (5, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            bbox=PAPER,
        )
        axis.axvline(0, color=GREY, lw=0.8, ls=(0, (2, 2)))
        axis.set(ylabel="images,\nweighted", yticks=[])
        axis.set_title(plain(name, 60), fontsize=10.5, weight="bold", pad=4)
    figure.suptitle("CMM is the mean margin of the images that count for a class", x=0.01, ha="left", fontsize=12)
    axes[-1].set_xlabel("margin of the class on an image: ahead of all others (green) or not (orange)")
    return described(
        figure,
        "Weighted histograms of the margins of two classes: "
        + "; ".join(f"{name}, mean {centre:+.4f}" for name, centre in zip(names, centres, strict=True)),
    )


@styled
def retrieved_images(rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[float]]]) -> Figure:
    """One row a class: its name, the images most similar to its text, and the margin of the class on each."""
    n = max(len(images) for _, images, _ in rows)
    across = -(-n // 2) if is_narrow() else n
    narrow = 0.7 + len(rows) * (0.5 + 2 * (0.25 + 3.7 / across))
    figure = plt.figure(figsize=figure_size(0.5 + 0.47 * len(rows) + 6.9 * len(rows) / n, narrow))
    figure.suptitle("The images most similar to a class text, and the class's margin on each", x=0.01, ha="left")
    for strip, (name, images, margins) in zip(figure.subfigures(len(rows), squeeze=False)[:, 0], rows, strict=True):
        for axis, margin in zip(picture_row(strip, images, across, -(-n // across)), margins, strict=False):
            ahead = GREEN if margin > 0 else VERMILION
            axis.text(0.5, -0.06, f"{margin:+.3f}", transform=axis.transAxes, ha="center", va="top", color=ahead)
        strip.suptitle(plain(name, 90), x=0.01, ha="left", fontsize=10, weight="bold")
    return described(
        figure,
        "For each class, the images most similar to its text. "
        + "; ".join(
            f"{name}: the class is ahead of all others on {sum(m > 0 for m in margins)} of {len(margins)}"
            for name, _, margins in rows
        ),
    )


@styled
def cmm_against_accuracy(
    score: Array, accuracy: Array, worst: Array, names: Sequence[str], rho: float | None
) -> Figure:
    """Soft CMM of every class against its accuracy, [C] each; the worst classes (mask) are coloured.

    Named are up to three worst classes that are not among as many lowest CMM, and the three of lowest CMM.
    """
    score, worst, a = np.asarray(score), np.asarray(worst), 100 * np.asarray(accuracy)
    figure, axis = plt.subplots(figsize=figure_size(4.4))
    for mask, colour, label in ((~worst, BLUE, "other classes"), (worst, VERMILION, "worst classes")):
        axis.scatter(score[mask], a[mask], c=colour, s=32, label=label, **EDGE)
    axis.set_ylim(-7, 104)
    ranking = "" if rho is None else f": rank correlation {rho:.2f}"
    axis.set(
        xlabel="CMM of the class (soft assignment), no labels used",
        ylabel="accuracy (%), from labels",
        title=f"Where CMM is low, accuracy tends to be low{ranking}"
        if (rho or 0) > 0.5
        else f"CMM and accuracy{ranking}",
    )
    legend_below(figure, 2)
    lowest = np.argsort(score, kind="stable")
    missed = [c for c in lowest[::-1].tolist() if worst[c] and c not in lowest[: worst.sum()]]
    name_points(axis, score, a, names, [*missed[:3], *lowest[:3].tolist()])
    return described(
        figure,
        f"""
        Each of {int(np.isfinite(a).sum())} classes as a point: soft CMM against accuracy{ranking}. The
        {int(worst.sum())} worst classes are coloured.""",
    )


@styled
def score_grid(scores: Mapping[str, Array], accuracy: Array, worst: Array, rho: Mapping[str, float | None]) -> Figure:
    """Each score [C] (NaN where undefined) against accuracy [C], small multiples with their rank correlation."""
    a, worst = 100 * np.asarray(accuracy), np.asarray(worst)
    columns = 2 if is_narrow() else 3 if len(scores) % 4 == 1 else 4
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=figure_size(2.2 * rows + 0.3), sharey=True, squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_axis_off()
    for axis, (name, score) in zip(axes.flat, scores.items(), strict=False):
        for mask, colour in ((~worst, BLUE), (worst, VERMILION)):
            axis.scatter(np.asarray(score)[mask], a[mask], c=colour, s=14, **EDGE)
        value = "" if rho[name] is None else f"  {rho[name]:.2f}"
        axis.set_title(display_name(name) + value, fontsize=9.5, pad=4)
        axis.tick_params(labelsize=7.5)
        axis.locator_params(axis="x", nbins=3)
        percent_axis(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy (%)", fontsize=9)
    figure.set_layout_engine("constrained", hspace=0.08)
    figure.suptitle("Every score against accuracy (number: rank correlation)", x=0.01, ha="left", fontsize=12)
    return described(
        figure,
        "Scatter plots of scores against class accuracy, with rank correlations: "
        + ", ".join(f"{display_name(name)} {decimal(rho[name])}" for name in scores),
    )


@styled
def worst_found(order: Array, accuracy: Array, worst: Array, k: int) -> Figure:
    """Classes in the order in which CMM suspects them, a dot on a stem at their accuracy; the true worst are coloured.

    Classes without images are left out. A class at 0 % is a dot on the axis.

    Args:
        k: how many of the classes that are drawn are suspects.
    """
    order, accuracy = np.asarray(order), np.asarray(accuracy)
    order = order[np.isfinite(accuracy[order])]
    a, w = 100 * accuracy[order], np.asarray(worst)[order]
    found = int(w[:k].sum())
    among = f"{found} of the {k} suspects {'is' if found == 1 else 'are'} truly among the worst"
    if k == 1:
        among = f"The one suspect is {'' if found else 'not '}among the worst"
    figure, axis = plt.subplots(figsize=figure_size(3.6))
    rank = np.arange(1, len(a) + 1)
    axis.axvspan(0.5, k + 0.5, color=VERMILION, **BAND)
    room = (200 if is_narrow() else 430) / len(a)  # points of the axes for one class
    for mask, colour, label in ((~w, BLUE, "other classes"), (w, VERMILION, "worst classes")):
        axis.vlines(rank[mask], 0, a[mask], color=colour, lw=min(1.4, 0.5 * room))
        size = np.clip(1.2 * room, 3, 7) ** 2
        axis.scatter(rank[mask], a[mask], c=colour, s=size, label=label, linewidths=0, zorder=3, clip_on=False)
    axis.annotate(f"the {counted(k, 'suspect')}", (0.7, 110), va="center", fontsize=9, color=VERMILION)
    axis.set(
        xlim=(0.2, len(a) + 0.8),
        ylim=(0, 116),
        yticks=range(0, 101, 20),
        xlabel="class, in the order in which CMM suspects it",
        ylabel="accuracy (%)",
        title=among,
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    legend_below(figure, 2)
    return described(
        figure,
        f"""
        Accuracy of {len(a)} classes in the order in which CMM suspects them. {among}.""",
    )


@styled
def prompt_scores(prompts: pd.DataFrame) -> Figure:
    """Mean CMM of every prompt against its overall accuracy, plain and scale-free, of `tables.prompt_table`."""
    texts, overall = prompts["prompt"].tolist(), prompts["overall"].to_numpy(float)
    scores = [prompts[column].to_numpy(float) for column in ("cmm_mean", "cmm_mean_scale_free")]
    figure, axes = panels(2, 3.6, sharey=True)
    for axis, score, title in zip(axes, scores, ("plain", "scale-free"), strict=True):
        axis.scatter(score, 100 * overall, c=BLUE, s=34, **EDGE)
        axis.margins(0.25, 0.12)
        extremes = [*np.argsort(overall)[:2], *np.argsort(overall)[-2:]] if len(overall) > 4 else range(len(overall))
        for p in dict.fromkeys(extremes):
            end = score[p] > np.mean([score.min(), score.max()])
            axis.annotate(
                plain(texts[p], 30),
                (score[p], 100 * overall[p]),
                (-6 if end else 6, 5),
                textcoords="offset points",
                fontsize=8,
                ha="right" if end else "left",
            )
        axis.set(xlabel=f"mean CMM, {title}")
    axes[0].set_ylabel("overall accuracy (%)")
    figure.suptitle("CMM of a prompt against the accuracy it gives", x=0.01, ha="left", fontsize=12)
    return described(
        figure,
        f"""
        Mean CMM of {len(overall)} prompts against the overall accuracy that each gives, plain and scale-free. They
        run from {100 * overall.min():.1f} to {100 * overall.max():.1f} %.""",
    )
