"""Figure of the page on speed: how time and memory grow with the sizes of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from cmmlib.report.plots.layout import legend_below, panels
from cmmlib.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    described,
    styled,
)

LETTERS = {"images": "images N", "classes": "classes C", "prompts": "prompts P", "width": "width D"}
COLOURS = {"images": BLUE, "classes": VERMILION, "prompts": GREEN, "width": ORANGE}


@styled
def scaling(table: pd.DataFrame) -> Figure:
    """Time and memory of the analysis where one size at a time grows, each against the base size.

    Columns: `varied` ("base", or the size that grew), `images`, `classes`, `prompts`, `width`, `analysis (s)`,
    `peak (MiB)` (beyond the inputs).
    """
    base = table[table["varied"] == "base"].iloc[0]
    figure, (time, memory) = panels(2, 3.9)
    powers = _draw(time, table, base, "analysis (s)")
    key, steepest = max(powers.items(), key=lambda pair: pair[1][-1])
    steps = [*powers.values(), *_draw(memory, table, base, "peak (MiB)").values()]
    time.set(ylabel="time of the analysis (s)", title="Time")
    memory.set(ylabel="memory beyond the inputs (MiB)", title="Memory")
    title = "Doubling a size at most doubles time and memory"
    if max(map(max, steps)) > 1.1:
        title = f"Time grows fastest with {key}"
    figure.suptitle(title, x=0.02, ha="left")
    legend_below(figure, 5, *time.get_legend_handles_labels())
    sizes = ", ".join(f"{base[key]:,.0f} {key}" if key != "width" else f"width {base[key]:.0f}" for key in LETTERS)
    return described(
        figure,
        f"""
        Time and memory of the label-free analysis on logarithmic axes, from {sizes}, with one size at a time doubled.
        Time grows most with {key}, as its power {steepest[-1]:.2f}.""",
    )


def _draw(axis: Axes, table: pd.DataFrame, base: pd.Series, column: str) -> dict[str, list[float]]:
    """A line for each size that grew; returns the powers that it grows with: in each step, and over all of them."""
    powers, largest = {}, 1.0
    for key, label in LETTERS.items():
        grown = table[table["varied"] == key]
        factor = np.array([1, *(grown[key] / base[key])])
        value = np.array([base[column], *grown[column]])
        axis.plot(factor, value, "o-", color=COLOURS[key], label=label, ms=4.5)
        steps, over_all = np.diff(np.log(value)) / np.diff(np.log(factor)), np.log(value[-1] / value[0])
        powers[key] = [*steps.tolist(), float(over_all / np.log(factor[-1]))]
        largest = max(largest, factor[-1])
    ends = np.array([1, largest])
    axis.plot(ends, base[column] * ends, "--", color=GREY, lw=1, label="in proportion", zorder=1)
    axis.set(xscale="log", yscale="log", xlabel="size, as a multiple of the base")
    ticks = [2**i for i in range(int(np.log2(largest)) + 1)]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for side in (axis.xaxis, axis.yaxis):
        side.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    return powers
