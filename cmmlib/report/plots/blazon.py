"""Figures of the embedded world's cards: galleries, the course of its training, and names against accuracy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from PIL import Image

from cmmlib.blazon.heraldry import TINCTURES
from cmmlib.blazon.language.plain_english import COLOURS
from cmmlib.report.plots.labels import name_points
from cmmlib.report.plots.layout import figure_size, is_narrow, legend_below, legend_within, letters, panels
from cmmlib.report.plots.style import (
    BLUE,
    EDGE,
    GREY,
    ORANGE,
    VERMILION,
    described,
    percent_axis,
    plain,
    styled,
    thumbnail,
)


@styled
def gallery(images: Sequence[np.ndarray], captions: Sequence[str], title: str, columns: int = 8) -> Figure:
    """Images, uint8 [H, W, 3], in rows, each above its caption."""
    columns = -(-columns // 2) if is_narrow() else columns
    rows, side = -(-len(images) // columns), figure_size(0)[0] / columns
    points = letters(7)
    longest, most = round(129 * side / points), 6 if is_narrow() else 4
    wrapped = ["\n".join(textwrap.wrap(caption, longest, max_lines=most)) for caption in captions]
    below = 0.02 + 0.018 * points * max(text.count("\n") + 1 for text in wrapped)  # inches
    height = rows * (side + below) + 0.35
    figure = plt.figure(figsize=figure_size(height), layout="none")
    for number, (image, text) in enumerate(zip(images, wrapped, strict=True)):
        row, column = divmod(number, columns)
        top = height - 0.35 - row * (side + below)
        axis = figure.add_axes(
            ((column + 0.04) / columns, (top - 0.92 * side) / height, 0.92 / columns, 0.92 * side / height)
        )
        axis.imshow(thumbnail(Image.fromarray(image), 256))
        axis.set_axis_off()
        axis.text(
            *(0.5, -0.04, plain(text, 200)),
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=points,
            linespacing=1.1,
        )
    figure.text(0.005, 1 - 0.05 / height, title, ha="left", va="top", fontsize=12)
    return described(figure, f"{title}: " + "; ".join(captions))


@styled
def shields(shown: Sequence[tuple[np.ndarray, str, str]]) -> Figure:
    """How to read heraldry: images, uint8 [H, W, 3], each above its name and its plain English; below, the colours."""
    figure = plt.figure(figsize=figure_size(3.2, 6.4))
    above, key = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.6, 1))[:, 0]
    rows = 2 if is_narrow() else 1
    axes = above.subplots(rows, -(-len(shown) // rows), squeeze=False).flat
    colours_of = zip(key.subplots(rows, -(-len(COLOURS) // rows), squeeze=False).flat, COLOURS.items(), strict=False)
    for axis, (image, name, gloss) in zip(axes, shown, strict=False):
        axis.imshow(thumbnail(Image.fromarray(image), 256))
        axis.set_axis_off()
        words = [textwrap.fill(plain(text, 80), 19) for text in (name, gloss)]
        axis.text(0.5, -0.05, words[0], transform=axis.transAxes, ha="center", va="top", fontsize=8, style="italic")
        lower = "\n" * (words[0].count("\n") + 1) + words[1]
        axis.text(0.5, -0.05, lower, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    for axis, (term, colour) in colours_of:
        drawn = TINCTURES[term].plain[0]
        axis.set_facecolor([part / 255 for part in TINCTURES[term].rgb])
        axis.set(xticks=[], yticks=[], box_aspect=0.5)
        axis.spines[:].set(visible=True, color=GREY)
        axis.set_xlabel(f"{term}\n{colour}" + ("" if drawn == colour else f",\n{drawn}"), fontsize=8)
    title = "A class name says a shield's colours and figure in heraldic words"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    said = "; ".join(f"{name}: {gloss}" for _, name, gloss in shown)
    colours = ", ".join(f"{term} is {colour}" for term, colour in COLOURS.items())
    return described(figure, f"{title}. Shields: {said}. Colours: {colours}.")


@styled
def training_course(losses: Sequence[float], every: int, probes: Sequence[dict[str, Any]], batch_size: int) -> Figure:
    """The loss, logged each `every` steps, and zero-shot accuracy at the probes, over the pairs seen."""
    figure, (left, right) = panels(2, 3.0)
    left.plot(np.arange(len(losses)) * every * batch_size / 1000, losses, color=BLUE, lw=1.4)
    left.set(xlabel="pairs seen (thousands)", ylabel="contrastive loss", title="Loss")
    seen = [(probe["step"] + 1) * batch_size / 1000 for probe in probes]
    for key, colour, label in (("overall", BLUE, "overall"), ("worst_10", VERMILION, "worst 10")):
        right.plot(seen, [100 * probe[key] for probe in probes], color=colour, marker="o", ms=4, label=label)
    percent_axis(right)
    right.set(xlabel="pairs seen (thousands)", ylabel="zero-shot accuracy (%)", title="Zero-shot accuracy of the probe")
    legend_within(right, "center right")
    last = probes[-1]
    return described(
        figure,
        f"""
        Left: the loss falls from {losses[0]:.2f} to {losses[-1]:.2f}. Right: zero-shot accuracy of the probe rises to
        {100 * last["overall"]:.0f} % overall, and to {100 * last["worst_10"]:.0f} % in the worst ten classes.""",
    )


@styled
def accuracy_by_name(
    read: np.ndarray, elsewhere: np.ndarray, accuracy: np.ndarray, names: Sequence[str], few: int = 20
) -> Figure:
    """Accuracy [C] against how often the weakest name of each class was read [C], in three kinds of classes."""
    other = elsewhere > read
    kinds = (
        (~other & (read >= few), BLUE, "o", "the others"),
        (~other & (read < few), ORANGE, "^", f"read fewer than {few} times"),
        (other, VERMILION, "s", "read mostly under other pictures"),
    )
    figure, axis = plt.subplots(figsize=figure_size(4.2))
    said = []
    for mask, colour, marker, label in kinds:
        if mask.any():
            mean = 100 * accuracy[mask].mean()
            said.append(f"{label}: {mean:.0f} % right")
            axis.scatter(read[mask] + 1, 100 * accuracy[mask], c=colour, marker=marker, s=30, label=said[-1], **EDGE)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(-9, 104)
    worst = [c for c in np.argsort(accuracy, kind="stable").tolist() if accuracy[c] < 0.3]
    one_each = {names[c]: c for c in reversed(worst)}
    axis.set(
        xlabel="captions with the class's weakest name under a picture that shows it, plus one",
        ylabel="accuracy (%)",
        title="Accuracy and how the weakest name of a class was read",
    )
    legend_below(figure, 2)
    name_points(axis, read + 1.0, 100 * accuracy, names, list(one_each.values())[::-1][:12])
    return described(
        figure,
        "Each class as a point: how often its weakest name was read in its own sense, against its accuracy. Classes "
        + "; ".join(said),
    )
