"""What the figures share: colours, a style, alt text, and class names that are safe to draw.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, so dark that each stands out from white,
and from the ground of the dark theme, which turns light and dark about; so no mark lets the ground shine through. Worst
classes are vermilion, the rest is blue, wherever they appear.
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
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image, ImageOps

from cmmlib.report.captions import NARROW
from cmmlib.report.plots import layout
from cmmlib.storage.cache import whole_file

BLUE, VERMILION, GREEN, ORANGE, SKY, GREY = "#0069A6", "#C44A00", "#009E73", "#C48800", "#3D9AD6", "#8A8A8A"
REST = "#D9D9D9"  # what is left over, and lines that lead the eye: ground, not data
BAND = {"alpha": 0.2, "lw": 0}  # an area behind the data
EDGE = {"edgecolors": "white", "linewidths": 0.4}  # keeps points apart that overlap
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
