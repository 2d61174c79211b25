"""Figures of chapters 3 and 4: what descriptions did, the weights of the ensemble, who gains and who loses."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cmmlib.evaluation.evaluation import gains_and_losses, most_lost
from cmmlib.report.formatting import counted
from cmmlib.report.plots.labels import name_points
from cmmlib.report.plots.layout import figure_size, is_narrow, legend_below, panels
from cmmlib.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    OF_METHOD,
    ORANGE,
    VERMILION,
    described,
    percent_axis,
    plain,
    styled,
)


@styled
def described_classes(effects: pd.DataFrame) -> Figure:
    """Accuracy of each described class before and after its own replacement; the largest gain on top.

    Columns `class`, `before`, `after`, fractions; a row at least.
    """
    names, b, a = effects["class"].tolist(), *(100 * effects[c].to_numpy(float) for c in ("before", "after"))
    order = np.argsort(a - b, kind="stable")
    b, a, y = b[order], a[order], np.arange(len(order))
    kinds = ((a > b, GREEN, "gain"), (a < b, VERMILION, "loss"), (a == b, BLUE, "no change"))
    up, down = int((a > b).sum()), int((a < b).sum())
    figure, axis = plt.subplots(figsize=figure_size(1.2 + 0.2 * len(order), 1.6 + 0.3 * len(order)))
    axis.hlines(y, b, a, color=np.where(a >= b, GREEN, VERMILION), lw=1.6)
    axis.scatter(b, y, color=GREY, s=24, zorder=3, label="by name")
    for mask, colour, change in kinds:
        if mask.any():
            axis.scatter(a[mask], y[mask], color=colour, s=24, zorder=3, label=f"by its descriptions: {change}")
    axis.set_yticks(y, [plain(names[int(i)], 38) for i in order], fontsize=8)
    percent_axis(axis, "x")
    axis.set(
        xlabel="accuracy of the class (%)",
        ylim=(-0.8, len(y) - 0.2),
        title=f"Described one at a time: of {counted(len(order), 'class', 'classes')} {up} gained, {down} lost",
    )
    legend_below(figure, 2)
    return described(
        figure,
        f"""
        Accuracy of {counted(len(order), "class", "classes")} by name and by descriptions, each replaced alone: {up}
        gained, {down} lost; the mean goes from {b.mean():.0f} to {a.mean():.0f} %.""",
    )


@styled
def weight_map(weights: np.ndarray, names: Sequence[str], n_templates: int) -> Figure:
    """Weights of the candidates [K, T] of some classes, NaN where a class has no such candidate."""
    share = np.nansum(weights[:, n_templates:], 1).mean()
    figure, axis = plt.subplots(figsize=figure_size(1.6 + 0.19 * len(names), 1.6 + 0.3 * len(names)))
    sns.heatmap(
        100 * weights,
        ax=axis,
        cmap="viridis",
        mask=np.isnan(weights),
        cbar_kws={"label": "weight (%)", "pad": 0.02, "location": "bottom" if is_narrow() else "right"},
        linewidths=0 if is_narrow() else 0.3,
    )
    axis.axvline(n_templates, color=VERMILION, lw=2)
    axis.set_yticks(np.arange(len(names)) + 0.5, [plain(name, 34) for name in names], rotation=0, fontsize=7.5)
    k = weights.shape[1] - n_templates
    every = n_templates if is_narrow() else 4
    ticks = [*range(0, n_templates, every), *range(n_templates, n_templates + k, max(k - 1, 1) if is_narrow() else 1)]
    labels = [f"t{i + 1}" if i < n_templates else f"d{i + 1 - n_templates}" for i in ticks]
    axis.set_xticks(np.array(ticks) + 0.5, labels, fontsize=8, rotation=0)
    axis.set(
        xlabel="templates (t), then descriptions (d)",
        title=f"Weights in the described classes: descriptions take {100 * share:.0f} % on average",
    )
    return described(
        figure,
        f"""
        Heat map of the weights of {n_templates} templates and up to {k} descriptions in {len(names)} described
        classes. Descriptions take {100 * share:.0f} % of the weight on average.""",
    )


@styled
def who_gains(
    before: np.ndarray,
    after: np.ndarray,
    asked: np.ndarray,
    names: Sequence[str],
    label: str,
    marks: tuple[str, str] = ("described", "not described"),
) -> Figure:
    """Accuracy of every class before and after, [C] each, in the order of before; a mask and losers coloured.

    `marks` says what classes in the mask are, and the others; the legend counts all of either kind, and which of them
    lose. The six largest losses are named.
    """
    b, a = 100 * before, 100 * after
    order = np.lexsort((a, b))
    order = order[np.isfinite(b[order]) & np.isfinite(a[order])]
    b, a, asked, in_order = b[order], a[order], asked[order], [str(names[c]) for c in order.tolist()]
    up, lost = gains_and_losses(before[order], after[order])
    place = np.arange(len(order))
    figure, axis = plt.subplots(figsize=figure_size(4.6))
    kinds = (
        (~asked & ~lost, GREY, f"{marks[1]} ({(~asked).sum()})"),
        (asked & ~lost, GREEN, f"{marks[0]} ({asked.sum()})"),
        (lost, VERMILION, f"of both: loses more than 5 points ({lost.sum()})"),
    )
    size = float(np.clip(2400 / max(len(order), 1), 3, 22))  # of a point: smaller where there are many
    for mask, colour, text in kinds:
        axis.vlines(place[mask], b[mask], a[mask], color=colour, lw=1.2)
        axis.scatter(place[mask], a[mask], s=size, color=colour, zorder=3, label=text)
    axis.step(place, b, where="mid", color="black", lw=1.4, label="base prompt", zorder=4)
    percent_axis(axis)
    gained = int(up.sum())
    axis.set(
        xlabel="classes, the worst with the base prompt first",
        ylabel="accuracy of the class (%)",
        title=f"More than 5 points gained: {gained} class{'es' if gained != 1 else ''}; lost: {int(lost.sum())}",
    )
    legend_below(figure, 2)
    name_points(axis, place.astype(float), a, in_order, [c for c in most_lost(b, a, in_order) if lost[c]][:6])
    return described(
        figure,
        f"""
        Accuracy of every class with {label}, in the order of its accuracy with the base prompt. {gained} classes gain
        more than 5 points, {int(lost.sum())} lose more than 5.""",
    )


@styled
def two_curves(
    table: pd.DataFrame,
    over: str,
    title: str,
    xlabel: str,
    *,
    base: tuple[float | None, float | None] = (None, None),
    chosen: float | None = None,
    k: str = "10",
) -> Figure:
    """Overall and worst@k over a column. Columns `over`, `method`, `overall`, `worst_` and k.

    `base` is the pair of the plain classifier, `chosen` the study's own value of the column.
    """
    figure, axes = panels(2, 3.4, sharex=True)
    labels = ("overall", f"worst {k} classes")
    for axis, column, label, value in zip(axes, ("overall", f"worst_{k}"), labels, base, strict=True):
        for (method, part), colour in zip(table.groupby("method", sort=False), (GREEN, BLUE, ORANGE), strict=False):
            colour = OF_METHOD.get(str(method), colour)
            axis.plot(part[over], 100 * part[column].astype(float), color=colour, marker="o", ms=4, label=method)
        if value is not None:
            axis.axhline(100 * value, color="black", lw=0.8, ls=(0, (2, 2)), label="plain classifier")
        if chosen is not None:
            axis.axvline(chosen, color="black", lw=0.8, ls=(0, (2, 2)))
        axis.set(xlabel=xlabel, ylabel=f"accuracy, {label} (%)")
    handles, names = axes[0].get_legend_handles_labels()
    legend_below(figure, 3, handles, names)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    said = (
        f"{m}: {100 * part['overall'].min():.1f} to {100 * part['overall'].max():.1f} % overall"
        for m, part in table.groupby("method", sort=False)
    )
    return described(figure, f"{title}. " + "; ".join(said))


@styled
def sensitivity_grid(grid: pd.DataFrame, temperature: float, cut: float | None, k: int | str = 10) -> Figure:
    """worst@k over temperature (columns) and cut (rows), fractions; the study's setting is framed."""
    values = 100 * grid.to_numpy(float)
    figure, axis = plt.subplots(figsize=figure_size(3.2))
    sns.heatmap(values, ax=axis, cmap="viridis", annot=True, fmt=".1f", cbar_kws={"label": f"worst {k} (%)"})
    rows = ["none" if pd.isna(row) else f"{row:g}" for row in grid.index]
    axis.set_xticks(np.arange(len(grid.columns)) + 0.5, [f"{column:g}" for column in grid.columns])
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0)
    row = rows.index("none" if cut is None else f"{cut:g}")
    column = list(grid.columns).index(temperature)
    axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=VERMILION, lw=2.5))
    axis.set(
        xlabel="temperature of the weights (standard deviations)",
        ylabel="cut (standard deviations)",
        title=f"Worst-{k} over the settings: {values.min():.1f} to {values.max():.1f} %",
    )
    return described(
        figure,
        f"""
        Accuracy of the worst {k} classes over the temperature of the weights and the cut, from {values.min():.1f} to
        {values.max():.1f} %; the study's setting, {values[row, column]:.1f} %, is framed.""",
    )
