"""What the figures share: colours, a style, alt text, and class names that are safe to draw.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; worst classes are vermilion, the
rest is blue, wherever they appear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

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


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @wraps(draw)
    def figure(*args, **kwargs) -> Figure:
        with mpl.rc_context(), sns.axes_style("ticks", STYLE):
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return figure


def described(figure: Figure, alt: str) -> Figure:
    """The figure, with its alt text as its label."""
    figure.set_label(" ".join(alt.split()))
    return figure


def plain(name: str, width: int = 34) -> str:
    """A class name as matplotlib shows it: no mathematics, and no longer than a label can be."""
    name = name if len(name) <= width else name[: width - 1] + "…"
    return name.replace("$", r"\$")


def name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], chosen: Sequence[int]) -> None:
    """Names beside points, moved apart until they can be read."""
    chosen = [c for c in chosen if np.isfinite(x[c]) and np.isfinite(y[c])]
    labels = [axis.text(x[c], y[c], plain(names[c], 22), fontsize=8) for c in chosen]
    line = {"arrowstyle": "-", "color": GREY, "lw": 0.6}
    known = np.isfinite(y)
    adjust_text(labels, x[known], y[known], ax=axis, expand=(1.15, 1.5), arrowprops=line, ensure_inside_axes=True)


def percent_axis(axis: Axes, which: str = "y", low: float = 0, high: float = 100) -> None:
    pad = 0.03 * (high - low)
    axis.set(**{f"{which}lim": (low - pad, high + pad)})


def thumbnail(image: Image.Image, size: int = 160) -> np.ndarray:
    """The image's middle square, [size, size, 3]."""
    return np.asarray(ImageOps.fit(image, (size, size)))
