"""Two widths of every figure: a page's, and a phone's, where panels stand one above the other and titles are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from textwrap import wrap
from typing import Any, Literal
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

PAGE, PHONE = 7.6, 4.0  # inches
LEAST = 8.5  # points of the smallest letters of a narrow figure: 9 pixels on a screen of 360
NAME = 28  # characters of a name at a narrow figure's left, before it is folded
SHORTEST = 8  # characters of a line, however little room there is
LETTER = 0.57  # width of a letter, as a part of its size
_narrow: ContextVar[bool] = ContextVar("narrow", default=False)
_REDRAWN: WeakKeyDictionary[Figure, Callable[[], Figure]] = WeakKeyDictionary()


def is_narrow() -> bool:
    """Whether the figure that is being drawn is for a phone."""
    return _narrow.get()


@contextmanager
def _for_a_phone() -> Iterator[None]:
    token = _narrow.set(True)
    try:
        yield
    finally:
        _narrow.reset(token)


def figure_size(height: float, narrow: float | None = None) -> tuple[float, float]:
    """Width and height of a figure, in inches; `narrow` is the height on a phone, if it is another."""
    return (PHONE, height if narrow is None else narrow) if is_narrow() else (PAGE, height)


def panels(n: int, height: float, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `n` axes side by side; on a phone one above the other, each nearly as high.

    Args:
        height: in inches.
        options: of `matplotlib.pyplot.subplots`.
    """
    rows, columns = (n, 1) if is_narrow() else (1, n)
    figure, axes = plt.subplots(rows, columns, figsize=figure_size(height, 0.9 * n * height), squeeze=False, **options)
    if is_narrow():
        for axis in axes.flat:
            axis.tick_params(labelbottom=True)  # the lowest alone has numbers where axes share them
    return figure, axes.ravel().tolist()


def letters(points: float) -> float:
    """A size of letters, in points, as this figure has it."""
    return max(LEAST, points) if is_narrow() else points


def legend_within(axis: Axes, place: Literal["upper left", "lower right", "center right"]) -> Legend:
    """A legend within the axes, at matplotlib's name of a place; below them on a phone, which has no room within."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    return legend_below(figure, 1) if is_narrow() else axis.legend(loc=place)


def legend_below(
    figure: Figure, columns: int, handles: Iterable[Artist] | None = None, labels: Iterable[str] | None = None
) -> Legend:
    """A legend below the axes, in one column on a phone; handles and labels are those of the axes by default."""
    given = {"handles": handles and [*handles], "labels": labels and [*labels]}
    entries: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return figure.legend(**entries, loc="outside lower center", ncols=1 if is_narrow() else columns)


def redrawn_by(figure: Figure, draw: Callable[[], Figure]) -> None:
    """Note what draws the figure once more."""
    _REDRAWN[figure] = draw


def narrow(figure: Figure) -> Figure | None:
    """The same figure for a phone; None for one that the book's own functions did not draw."""
    draw = _REDRAWN.get(figure)
    if draw is None:
        return None
    with _for_a_phone():
        return draw()


def fit(figure: Figure) -> None:
    """Fold the titles and labels of a narrow figure, and give all of its letters a size that can be read."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(letters(float(text.get_fontsize())))
    for axis in figure.axes:
        axis.tick_params(labelsize=LEAST)
        if isinstance(axis.yaxis.get_major_formatter(), FixedFormatter):
            given = [label.get_text().split("\n") for label in axis.get_yticklabels()]
            names = ["\n".join(line for part in parts for line in _lines(part, NAME)) for parts in given]
            axis.set_yticks(axis.get_yticks(), names, linespacing=0.9)
    _lift_title(figure)
    for part in (figure, *_parts(figure)):
        for title in part.texts:
            _fold(title, part.bbox.width)
    for axis in figure.axes:
        place = axis.get_subplotspec()
        columns = 1 if place is None else place.get_gridspec().ncols
        _fold_labels(axis, 0.6 * figure.bbox.width / columns, 0.8 * figure.bbox.height)  # long ones take axes' room
    figure.draw_without_rendering()
    for axis in figure.axes:
        room = axis.get_window_extent()
        _fold_labels(axis, room.width, room.height)


def _fold_labels(axis: Axes, width: float, height: float) -> None:
    titles = [child for child in axis.get_children() if isinstance(child, Text) and child not in axis.texts]
    for text in (*titles, axis.xaxis.label):
        _fold(text, width)
    _fold(axis.yaxis.label, height)


def _parts(figure: Figure | SubFigure) -> list[SubFigure]:
    return [part for own in figure.subfigs for part in (own, *_parts(own))]


def _lift_title(figure: Figure) -> None:
    """The one title of the axes becomes the figure's, which has the room beside the axes as well."""
    titled = [axis for axis in figure.axes if axis.get_title("left")]
    if len(titled) == 1 and not figure.get_suptitle():
        figure.suptitle(titled[0].get_title("left"), x=0.01, ha="left", fontsize=12)
        titled[0].set_title("", loc="left")


def _fold(text: Text, width: float) -> None:
    """Break a text into lines of at most a width in pixels."""
    figure = text.get_figure(root=True)
    assert figure is not None
    text.set_text("\n".join(_lines(text.get_text(), room_for(width, float(text.get_fontsize()), figure.dpi))))


def room_for(width: float, points: float, dpi: float) -> int:
    """Characters of a size in points that a width in pixels has room for, about."""
    return int(72 * width / dpi / (LETTER * points))


def _lines(text: str, longest: int) -> list[str]:
    """A text in the lines that it needs, as even as can be: a last word is not left alone, a number keeps its %."""
    words = " ".join(text.split()).replace(" %", "\u00a0%")

    def lines(width: int) -> list[str]:
        return wrap(words, width, break_long_words=False)

    longest = max(longest, SHORTEST)
    needed = len(lines(longest))
    return next(even for even in map(lines, range(SHORTEST, longest + 1)) if len(even) == needed)
