"""Every figure of the book, one function each. A figure has one message, said in its title; accuracies are in percent.

Fractions go in. The figure's label is its alt text. `worst` is always a mask of the classes in the true worst set.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; worst classes are vermilion, the
rest is blue, wherever they appear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps
from torch import Tensor

BLUE, VERMILION, GREEN, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#8A8A8A"
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # behind text that crosses a drawing
STYLE: dict[Any, Any] = {
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
}


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @wraps(draw)
    def figure(*args, **kwargs) -> Figure:
        with mpl.rc_context(), sns.axes_style("ticks", STYLE):
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return figure


def _described(figure: Figure, alt: str) -> Figure:
    """The figure, with its alt text as its label."""
    figure.set_label(" ".join(alt.split()))
    return figure


def _text(name: str, width: int = 34) -> str:
    """A class name as matplotlib shows it: no mathematics, and no longer than a label can be."""
    name = name if len(name) <= width else name[: width - 1] + "…"
    return name.replace("\\", "\\\\").replace("$", r"\$")


def _percent_axis(axis: Axes, which: str = "y", low: float = 0, high: float = 100) -> None:
    pad = 0.03 * (high - low)
    axis.set(**{f"{which}lim": (low - pad, high + pad)})


@_styled
def class_accuracy_curve(accuracy: np.ndarray, intervals: np.ndarray, overall: float, worst_k: int) -> Figure:
    """Sorted class accuracies [C] with intervals [C, 2], the overall accuracy, and the worst k shaded; fractions in."""
    order = np.argsort(np.where(np.isnan(accuracy), np.inf, accuracy), kind="stable")[: np.isfinite(accuracy).sum()]
    a, (low, high) = 100 * accuracy[order], 100 * intervals[order].T
    rank = np.arange(1, len(a) + 1)
    worst = 100 * float(accuracy[order][:worst_k].mean())
    finding = "The average hides a tail" if worst < 75 * overall else "Accuracy of every class"
    figure, axis = plt.subplots(figsize=(7.6, 4.0))
    axis.axvspan(0.5, worst_k + 0.5, color=VERMILION, alpha=0.10, lw=0)
    axis.vlines(rank, low, high, color=SKY, lw=max(0.6, min(3.0, 160 / len(a))), alpha=0.55)
    colours = np.where(rank <= worst_k, VERMILION, BLUE)
    axis.scatter(rank, a, c=colours, s=max(4, min(26, 1600 / len(a))), zorder=3, linewidths=0)
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
    _percent_axis(axis)
    axis.set(
        xlim=(0.2, len(a) + 0.8),
        xlabel="class, from worst to best",
        ylabel="accuracy (%)",
        title=f"{finding}: {100 * overall:.0f} % overall, {worst:.0f} % in the worst {worst_k} classes",
    )
    return _described(
        figure,
        f"""
        Accuracy of {len(a)} classes, sorted from worst to best, with 95 % intervals. Overall accuracy is
        {100 * overall:.1f} %; the mean of the worst {worst_k} classes, shaded, is {worst:.1f} %.""",
    )


@_styled
def worst_confusions(frame: pd.DataFrame) -> Figure:
    """Where the images of the worst classes go. Rows: `name`, `taken_for`, and the shares `own`, `other`, `rest`."""
    frame = frame.iloc[::-1]
    y = np.arange(len(frame))
    figure, axis = plt.subplots(figsize=(7.6, 1.2 + 0.36 * len(frame)))
    left = np.zeros(len(frame))
    parts = (("own", BLUE, "recognised"), ("other", VERMILION, "taken for the class named on the bar"))
    for column, colour, label in (*parts, ("rest", "#D9D9D9", "taken for any other class")):
        width = 100 * frame[column].to_numpy()
        axis.barh(y, width, left=left, color=colour, height=0.72, label=label)
        left += width
    for row, (own, other, name) in enumerate(zip(frame["own"], frame["other"], frame["taken_for"], strict=True)):
        inside = other > 0.32
        x = 100 * own + (1 if inside else 100 * other + 1)
        axis.text(x, row, _text(name, 26), va="center", fontsize=8.5, color="white" if inside else "black")
    axis.set_yticks(y, [_text(name) for name in frame["name"]])
    axis.set(xlim=(0, 100), xlabel="share of the class's images (%)", title="What the worst classes are taken for")
    figure.legend(loc="outside lower center", ncols=3)
    return _described(
        figure,
        f"""
        Bars for the {len(frame)} worst classes: the share of images recognised, the share taken for one other class,
        and the rest. The worst, {frame["name"].iloc[-1]}, is taken for {frame["taken_for"].iloc[-1]} most often.""",
    )


@_styled
def worst_gallery(rows: Sequence[tuple[str, str, Sequence[Path], Sequence[Path]]]) -> Figure:
    """Pictures: one row a class, (name, taken for, images of it that were missed, images of what it is taken for)."""
    n = max(len(missed) for _, _, missed, _ in rows)
    figure, axes = plt.subplots(len(rows), 2 * n + 1, figsize=(7.6, 1.25 * len(rows) + 0.5), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, other, missed, examples) in zip(axes, rows, strict=True):
        for axis, path in [*zip(line[:n], missed, strict=False), *zip(line[n + 1 :], examples, strict=False)]:
            axis.imshow(_thumbnail(path))
        line[0].set_title(_text(name, 22), fontsize=9, color=VERMILION, pad=3)
        line[n + 1].set_title("taken for " + _text(other, 22), fontsize=9, pad=3)
    figure.suptitle(
        "Images of the worst classes (left) and what they are taken for (right)", x=0.01, ha="left", fontsize=12
    )
    return _described(
        figure,
        "Missed images of the worst classes, beside images of the class that each is taken for most: "
        + "; ".join(f"{name}, taken for {other}" for name, other, _, _ in rows),
    )


def _thumbnail(path: Path, size: int = 160) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size)))


@_styled
def prediction_mass(predicted: np.ndarray, actual: np.ndarray, accuracy: np.ndarray, worst: np.ndarray) -> Figure:
    """Predictions that a class gets for each image it has, against its accuracy. Counts, fractions, mask [C]."""
    known = actual > 0
    ratio, a, w = predicted[known] / actual[known], 100 * accuracy[known], worst[known]
    starved = int((ratio < 0.5).sum())
    share = 100 * predicted[known][np.argsort(-ratio)][: max(1, len(ratio) // 5)].sum() / predicted.sum()
    figure, axis = plt.subplots(figsize=(7.6, 4.0))
    axis.axvline(1, color="black", lw=1, ls=(0, (4, 3)))
    for mask, colour, label in ((~w, BLUE, "other classes"), (w, VERMILION, "worst classes")):
        axis.scatter(ratio[mask], a[mask], c=colour, s=30, alpha=0.8, linewidths=0, label=label)
    axis.annotate(
        "as many predictions\nas images",
        (1, 103),
        (-5, 0),
        textcoords="offset points",
        va="top",
        ha="right",
        fontsize=8.5,
    )
    _percent_axis(axis)
    axis.set(
        xlim=(-0.05 * ratio.max(), 1.05 * ratio.max()),
        xlabel="predictions a class gets, for each image it has",
        ylabel="accuracy (%)",
        title=f"{starved} of {len(ratio)} classes get less than half their share; a fifth takes {share:.0f} %",
    )
    axis.legend(loc="lower right")
    return _described(
        figure,
        f"""
        Each class as a point: predictions it gets for each image it has, against its accuracy. {starved} of
        {len(ratio)} classes get less than half their share; the worst have {ratio[w].mean():.2f} on average.""",
    )


@_styled
def worst_bracket(ks: Sequence[int], naive: Sequence[float | None], split_half: Sequence[float | None]) -> Figure:
    """worst@k for every k: the naive value, the split-half value, and the band between; None where undefined."""
    low, high = 100 * np.asarray(naive, float), 100 * np.asarray(split_half, float)
    figure, axis = plt.subplots(figsize=(7.6, 3.6))
    axis.fill_between(ks, low, high, color=SKY, alpha=0.35, lw=0, label="in expectation, the truth lies here")
    axis.plot(ks, low, color=VERMILION, marker="o", ms=4, label="naive: chosen and measured on the same images")
    axis.plot(ks, high, color=BLUE, marker="o", ms=4, label="split half: chosen on one half, measured on the other")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = "worst@k has no upper end here: too few images a class to split"
    if np.isfinite(high - low).any():
        widest = int(np.nanargmax(high - low))
        title = f"worst@k is a bracket: up to {(high - low)[widest]:.1f} points wide, at k = {ks[widest]}"
    axis.set(xlabel="k, number of worst classes", ylabel="worst@k (%)", ylim=(0, None), title=title)
    axis.legend(loc="upper left")
    alt = "Two curves of worst@k over k: the naive value below, the split-half value above. "
    return _described(figure, alt + title + ".")


@_styled
def one_margin(similarity: np.ndarray, names: list[str], image: Path | None = None, top: int = 8) -> Figure:
    """One image's highest similarities [C], and the gap between the first and the second: the margin."""
    order = np.argsort(-similarity, kind="stable")[:top]
    s = similarity[order]
    columns = {"width_ratios": [1, 2.6]} if image is not None else None
    figure, axes = plt.subplots(1, 1 + (image is not None), figsize=(7.6, 3.2), gridspec_kw=columns, squeeze=False)
    axis = axes[0, -1]
    if image is not None:
        axes[0, 0].imshow(_thumbnail(image, 320))
        axes[0, 0].set_axis_off()
    y = np.arange(len(s))[::-1]
    axis.hlines(y, s.min() - 0.012, s, color="#D9D9D9", lw=1.5)
    axis.scatter(s, y, c=[GREEN, VERMILION, *[GREY] * (len(s) - 2)], s=46, zorder=3)
    axis.plot([s[1], s[0]], [y[0] - 0.45] * 2, color="black", lw=1.2, marker="|", ms=7)
    axis.annotate(
        f"margin {s[0] - s[1]:.3f}",
        ((s[0] + s[1]) / 2, y[0] - 0.45),
        (0, -11),
        textcoords="offset points",
        ha="center",
        fontsize=9,
    )
    axis.set_yticks(y, [_text(names[c], 26) for c in order.tolist()])
    axis.set(
        xlabel="cosine similarity of image and class text",
        title="The margin: how far the best class is ahead",
        ylim=(-0.6, len(s) - 0.4),
    )
    return _described(
        figure,
        f"""
        The {len(s)} classes most similar to one image, on a line of cosine similarity. {names[order[0]]} is first,
        {names[order[1]]} second; the gap between them, the margin, is {s[0] - s[1]:.3f}.""",
    )


@_styled
def class_margins(drawn: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Margins [N] of all images for each named class, each image weighted by the class's own probability [N]."""
    names = list(drawn)
    margins, weights = ([pair[i].numpy() for pair in drawn.values()] for i in (0, 1))
    centres = [float(np.average(m, weights=w)) for m, w in zip(margins, weights, strict=True)]
    reach = float(
        np.quantile(np.abs(np.concatenate([m[w > 0.01] for m, w in zip(margins, weights, strict=True)])), 0.995)
    )
    figure, axes = plt.subplots(len(margins), 1, figsize=(7.6, 3.8), sharex=True)
    for axis, m, w, name, centre in zip(axes, margins, weights, names, centres, strict=True):
        bins = np.linspace(-reach, reach, 61)
        for side, colour in ((m < 0, VERMILION), (m >= 0, GREEN)):
            axis.hist(m[side], bins=bins, weights=w[side], color=colour, alpha=0.8)
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
        axis.text(0.01, 0.92, _text(name), transform=axis.transAxes, va="top", fontsize=10.5, weight="bold")
    axes[0].set_title("CMM is the mean margin of the images that speak for a class")
    axes[-1].set_xlabel("margin of the class on an image: ahead of its rival (green) or behind (vermilion)")
    return _described(
        figure,
        "Weighted histograms of the margins of two classes: "
        + "; ".join(f"{name}, mean {centre:+.4f}" for name, centre in zip(names, centres, strict=True)),
    )


@_styled
def cmm_against_accuracy(
    score: np.ndarray, accuracy: np.ndarray, worst: np.ndarray, names: Sequence[str], rho: float | None
) -> Figure:
    """Soft CMM of every class against its accuracy, [C] each; the worst classes (mask) are coloured and named."""
    figure, axis = plt.subplots(figsize=(7.6, 4.4))
    a = 100 * accuracy
    for mask, colour, label in ((~worst, BLUE, "other classes"), (worst, VERMILION, "worst classes")):
        axis.scatter(score[mask], a[mask], c=colour, s=32, alpha=0.85, linewidths=0, label=label)
    axis.set_ylim(-7, 104)
    _name_points(axis, score, a, names, np.flatnonzero(worst)[:12].tolist())
    ranking = "" if rho is None else f": rank correlation {rho:.2f}"
    axis.set(
        xlabel="CMM of the class (soft assignment), no labels used",
        ylabel="accuracy (%), from labels",
        title=f"CMM orders the classes as their accuracy does{ranking}"
        if (rho or 0) > 0.5
        else f"CMM and accuracy{ranking}",
    )
    axis.legend(loc="lower right")
    return _described(
        figure,
        f"""
        Each of {len(a)} classes as a point: soft CMM against accuracy{ranking}. The {int(worst.sum())} worst classes
        are coloured; they lie where CMM is low."""
        if (rho or 0) > 0.5
        else "Soft CMM of each class against its accuracy.",
    )


def _name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], chosen: Sequence[int]) -> None:
    """Names beside points, moved apart until they can be read."""
    chosen = [c for c in chosen if np.isfinite(x[c]) and np.isfinite(y[c])]
    labels = [axis.text(x[c], y[c], _text(names[c], 22), fontsize=8) for c in chosen]
    line = {"arrowstyle": "-", "color": GREY, "lw": 0.6}
    adjust_text(
        labels,
        x[np.isfinite(y)],
        y[np.isfinite(y)],
        ax=axis,
        expand=(1.15, 1.5),
        arrowprops=line,
        ensure_inside_axes=True,
    )


@_styled
def score_grid(
    scores: dict[str, np.ndarray], accuracy: np.ndarray, worst: np.ndarray, rho: dict[str, float | None]
) -> Figure:
    """Each score [C] (NaN where undefined) against accuracy [C], small multiples with their rank correlation."""
    columns = 3 if len(scores) % 4 == 1 else 4
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.6, 2.2 * rows + 0.3), sharey=True, squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_axis_off()
    for axis, (name, score) in zip(axes.flat, scores.items(), strict=False):
        for mask, colour in ((~worst, BLUE), (worst, VERMILION)):
            axis.scatter(score[mask], 100 * accuracy[mask], c=colour, s=12, alpha=0.8, linewidths=0)
        value = "" if rho[name] is None else f"  {rho[name]:.2f}"
        axis.set_title(name.replace("_", " ") + value, fontsize=9.5, pad=4)
        axis.tick_params(labelsize=7.5)
        axis.locator_params(axis="x", nbins=3)
        _percent_axis(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy (%)", fontsize=9)
    figure.set_layout_engine("constrained", hspace=0.08)
    figure.suptitle("Every assignment against accuracy (number: rank correlation)", x=0.01, ha="left", fontsize=12)
    return _described(
        figure,
        "Scatter plots of scores against class accuracy, with rank correlations: "
        + ", ".join(f"{name.replace('_', ' ')} {rho[name]:.2f}" for name in scores if rho[name] is not None),
    )


@_styled
def worst_found(order: np.ndarray, accuracy: np.ndarray, worst: np.ndarray, k: int) -> Figure:
    """Classes in the order in which CMM suspects them, as bars of their accuracy; the true worst are coloured."""
    order = order[np.isfinite(accuracy[order])]
    a, w = 100 * accuracy[order], worst[order]
    found = int(w[:k].sum())
    figure, axis = plt.subplots(figsize=(7.6, 3.6))
    rank = np.arange(1, len(a) + 1)
    axis.axvspan(0.5, k + 0.5, color=VERMILION, alpha=0.10, lw=0)
    axis.bar(rank, np.maximum(a, 0.8), color=np.where(w, VERMILION, "#B9CFE0"), width=0.85)
    axis.annotate(f"the {k} suspects", (k / 2 + 0.5, 99), ha="center", va="top", fontsize=9, color=VERMILION)
    axis.set(
        xlim=(0.2, len(a) + 0.8),
        ylim=(0, 103),
        xlabel="class, in the order in which CMM suspects it",
        ylabel="accuracy (%)",
        title=f"{found} of the {k} suspects are truly among the worst",
    )
    return _described(
        figure,
        f"""
        Accuracy of {len(a)} classes in the order in which CMM suspects them. {found} of the first {k} are truly among
        the worst.""",
    )


@_styled
def prompt_scores(cmm: np.ndarray, scale_free: np.ndarray, overall: np.ndarray, prompts: Sequence[str]) -> Figure:
    """Mean CMM of every prompt against its overall accuracy, plain and scale-free. Arrays [P]."""
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.6), sharey=True)
    for axis, score, title in zip(axes, (cmm, scale_free), ("plain", "scale-free"), strict=True):
        axis.scatter(score, 100 * overall, c=BLUE, s=34, alpha=0.85, linewidths=0)
        axis.margins(0.25, 0.12)
        extremes = [*np.argsort(overall)[:2], *np.argsort(overall)[-2:]] if len(overall) > 4 else range(len(overall))
        for p in dict.fromkeys(extremes):
            end = score[p] > np.mean([score.min(), score.max()])
            axis.annotate(
                _text(prompts[p], 30),
                (score[p], 100 * overall[p]),
                (-6 if end else 6, 5),
                textcoords="offset points",
                fontsize=8,
                ha="right" if end else "left",
            )
        axis.set(xlabel=f"mean CMM, {title}")
    axes[0].set_ylabel("overall accuracy (%)")
    figure.suptitle("CMM of a prompt against the accuracy it gives", x=0.01, ha="left", fontsize=12)
    return _described(
        figure,
        f"""
        Mean CMM of {len(overall)} prompts against the overall accuracy that each gives, plain and scale-free. They
        run from {100 * overall.min():.1f} to {100 * overall.max():.1f} %.""",
    )
