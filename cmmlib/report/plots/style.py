"""What the figures share: colours, a style, alt text, and class names that are safe to draw.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; worst classes are vermilion, the
rest is blue, wherever they appear.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from adjustText import adjust_text
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from PIL import Image, ImageOps

from cmmlib.report.captions import NARROW
from cmmlib.report.plots import layout
from cmmlib.storage.cache import whole_file

BLUE, VERMILION, GREEN, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#8A8A8A"
OF_METHOD = {"prior matching": GREEN, "prior matching, half strength": SKY, "prototypes": BLUE}  # in every figure
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
}
# Behind DejaVu Sans, which comes with matplotlib: fonts with the letters of other scripts, where they are installed.
FONTS = (
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Emoji"),
    *("WenQuanYi Zen Hei", "Arial Unicode MS", "Segoe UI Symbol", "Unifont"),
)
DEJAVU = "'DejaVu Sans'"  # as matplotlib writes it; Verdana is as wide, and most readers' systems have it
_GLYPH = re.compile(r"Glyph (\d+) .*missing from font")


@contextmanager
def book_style() -> Iterator[None]:
    """The book's settings of matplotlib, and none of the user's own (a matplotlibrc may ask for LaTeX)."""
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: dict[Any, Any] = {**sns.axes_style("ticks"), **STYLE, "font.family": _fonts()}
        mpl.rcParams.update(settings)
        yield


@cache
def _fonts() -> list[str]:
    return ["DejaVu Sans", *sorted(set(FONTS) & set(font_manager.get_font_names()), key=FONTS.index)]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A decorator: the figure is drawn in the book's style, whatever the user's own settings are."""

    @wraps(draw)
    def figure(*args, **kwargs) -> Figure:
        with book_style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", _GLYPH.pattern)  # told when the figure is saved
            drawn = draw(*args, **kwargs)
            if layout.is_narrow():
                layout.fit(drawn)
            else:
                layout.redrawn_by(drawn, partial(figure, *args, **kwargs))
            return drawn

    return figure


def save(figure: Figure, path: Path, **options: Any) -> set[str]:
    """Save a figure in the book's style; returns the characters that no font here has."""
    with warnings.catch_warnings(record=True) as caught, mpl.rc_context():
        warnings.simplefilter("always")
        mpl.rcdefaults()  # and not the style, whose layout would be laid over figures that have their own
        settings: dict[Any, Any] = {"font.family": _fonts(), **options.pop("rc", {})}
        mpl.rcParams.update(settings)
        figure.savefig(path, bbox_inches="tight", **options)
    missing = {chr(int(found[1])) for found in (_GLYPH.search(str(w.message)) for w in caught) if found}
    for other in (warning for warning in caught if not _GLYPH.search(str(warning.message))):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return missing


def save_svg(figure: Figure, folder: Path, name: str) -> set[str]:
    """Write a figure as SVG whose letters are text, and beside it the one for a phone, where it has such a one.

    Returns:
        The characters that no font here has.
    """
    kinds = {name: figure, name + NARROW: layout.narrow(figure)}
    missing: set[str] = set()
    for own_name, drawn in kinds.items():
        if drawn is not None:
            with whole_file(folder / f"{own_name}.svg") as temporary:
                settings = {"svg.hashsalt": own_name, "svg.fonttype": "none"}
                missing |= save(drawn, temporary, metadata={"Date": None}, rc=settings)
                letters = temporary.read_text("utf-8").replace(DEJAVU, f"{DEJAVU}, Verdana, sans-serif")
                temporary.write_text(letters, "utf-8")
    if kinds[name + NARROW] is not None:
        plt.close(kinds[name + NARROW])
    return missing


def described(figure: Figure, alt: str) -> Figure:
    """The figure, with its alt text as its label."""
    figure.set_label(" ".join(alt.split()))
    return figure


def plain(name: str, width: int = 34) -> str:
    """A class name as matplotlib shows it: no mathematics, and no longer than a label can be."""
    name = name if len(name) <= width else name[: width - 1] + "…"
    return name.replace("$", r"\$")


def name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], chosen: Sequence[int]) -> None:
    """Names beside points, moved apart; one that still covers another name or a point, or leaves the axes, is left out.

    Comes last, when everything that takes room in the figure is there: names are placed in the final layout.

    Args:
        x, y: [C]; NaN where a point has no place.
        chosen: indices of the points to name, the most important first.
    """
    chosen = [c for c in chosen if np.isfinite(x[c]) and np.isfinite(y[c])]
    if not chosen:
        return
    figure = axis.get_figure(root=True)
    assert figure is not None
    if layout.is_narrow():
        layout.fit(figure)  # titles take more lines there
    figure.draw_without_rendering()
    longest = min(30, layout.room_for(axis.get_window_extent().width, layout.letters(8), figure.dpi) * 2 // 3)
    labels = [axis.text(x[c], y[c], plain(names[c], longest), fontsize=layout.letters(8)) for c in chosen]
    for label in labels:
        label.set_in_layout(False)  # one that begins near an edge would take room from the axes
    line = {"arrowstyle": "-", "color": GREY, "lw": 0.6}
    known = np.isfinite(x) & np.isfinite(y)
    # a limit of rounds, not of time: a busy machine draws the same figure
    adjust_text(labels, x[known], y[known], ax=axis, expand=(1.15, 1.5), arrowprops=line, iter_lim=300)
    _drop_collisions(axis, labels, axis.transData.transform(np.stack([x[known], y[known]], 1)))


def _drop_collisions(axis: Axes, labels: Sequence[Text], points: np.ndarray) -> None:
    """Remove labels, with their lines, that overlap an earlier label or a point, [P, 2] pixels, or leave the axes."""
    room, kept = axis.get_window_extent(), []
    for label in labels:
        box = label.get_window_extent().padded(1)
        inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
        if inside and not box.count_overlaps(kept) and not box.count_contains(points):
            kept.append(box)
            continue
        for patch in [patch for patch in axis.patches if getattr(patch, "patchA", None) is label]:
            patch.remove()
        label.remove()


def percent_axis(axis: Axes, which: str = "y", low: float = 0, high: float = 100) -> None:
    """Show the fractions of an axis in percent."""
    pad = 0.03 * (high - low)
    axis.set(**{f"{which}lim": (low - pad, high + pad)})


def picture_row(strip: SubFigure, images: Sequence[Image.Image], columns: int, rows: int = 1) -> list[Axes]:
    """Axes with the images side by side in a strip of a figure that has room for `columns` of them in each row."""
    axes = list(strip.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, image in zip(axes, images, strict=False):
        axis.imshow(thumbnail(image))
    return axes


def thumbnail(image: Image.Image, size: int = 160) -> np.ndarray:
    """The image's middle square, [size, size, 3]."""
    return np.asarray(ImageOps.fit(image, (size, size)))
