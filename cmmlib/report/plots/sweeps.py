"""The figure of a sweep: every run's overall accuracy and that of its worst classes."""

from __future__ import annotations

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmmlib.report.plots.backbones import RUNS
from cmmlib.report.plots.layout import figure_size, is_narrow
from cmmlib.report.plots.style import (
    EDGE,
    GREY,
    described,
    percent_axis,
    plain,
    styled,
)

MARKERS = ("o", "^", "s", "D", "v", "P")
MOST_GROUPS = len(RUNS) * len(MARKERS)


@styled
def overall_and_worst(runs: pd.DataFrame, group: str, k: int) -> Figure:
    """A point a run.

    Args:
        runs: `overall` and `worst`, fractions, and a column of texts that `group` names: its values get a colour.
    """
    figure, axis = plt.subplots(figsize=figure_size(5.0))
    axis.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=(0, (4, 3)))
    styles = cycle((colour, marker) for marker in MARKERS for colour in RUNS)
    for (value, own), (colour, marker) in zip(runs.groupby(group, sort=False), styles, strict=False):
        points = 100 * own["overall"], 100 * own["worst"]
        axis.scatter(*points, color=colour, marker=marker, s=36, **EDGE, label=plain(str(value), 40))
    percent_axis(axis)
    percent_axis(axis, "x")
    axis.set(xlabel="overall accuracy (%)", ylabel=f"accuracy of the worst {k} classes (%)")
    overall, worst = (runs[name].to_numpy(float) for name in ("overall", "worst"))
    gap = float(np.median(overall - worst))
    axis.set_title(f"In the median run the worst {k} classes lie {100 * gap:.0f} points below the average")
    if len(set(runs[group])) <= MOST_GROUPS:
        place = "outside lower center" if is_narrow() else "outside right upper"
        figure.legend(loc=place, title=plain(group, 30))
    return described(
        figure,
        f"""
        A point for each of {len(runs)} runs: overall accuracy from {100 * overall.min():.1f} to
        {100 * overall.max():.1f} %, accuracy of the worst {k} classes from {100 * worst.min():.1f} to
        {100 * worst.max():.1f} %. On the dashed line both are equal.""",
    )
