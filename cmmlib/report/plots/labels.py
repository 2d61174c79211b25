"""Names beside points: each at the nearest place where it covers no mark and no other name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from cmmlib.report.plots import layout
from cmmlib.report.plots.style import GREY, plain

LETTERS = 8  # size of a name
REACH = 80  # points between a name and its mark, at most; the first name may stand anywhere
NEAR = 7  # points up to which a name needs no line to its mark
CLEAR = 2  # pixels around a name
ON_LINE, ON_MARK = 2.0, 1e4  # what covering a pixel of a line costs, and of a mark or a name; each pixel away costs 1


def name_points(axis: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], chosen: Sequence[int]) -> None:
    """Names beside points, with a line to those that stand away; one without room is left out, the first never.

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
    room, letters = axis.get_window_extent(), layout.letters(LETTERS)
    longest = min(30, layout.room_for(room.width, letters, figure.dpi) * 2 // 3)
    cost, to_data = _cost(axis, figure.dpi), axis.transData.inverted().transform
    spots = {c: axis.transData.transform((x[c], y[c])) - room.min for c in chosen}
    for spot in spots.values():
        _fill(cost, Bbox([spot, spot]).padded(CLEAR), ON_MARK)  # it may be drawn by something else than a scatter
    for c, spot in spots.items():
        label = axis.text(x[c], y[c], plain(names[c], longest), fontsize=letters, va="bottom")
        label.set_in_layout(False)  # one that begins near an edge would take room from the axes
        box, price = _best_place(label.get_window_extent(), spot, cost)
        end = np.clip(spot, box.min, box.max)
        far = 72 / figure.dpi * np.hypot(*(end - spot))
        if c != chosen[0] and (price >= ON_MARK or far > REACH):
            label.remove()
            continue
        label.set_position(tuple(to_data(box.min + room.min)))
        _fill(cost, box.padded(CLEAR), np.inf)
        if far > NEAR:
            axis.add_artist(Line2D(*to_data([spot + room.min, end + room.min]).T, color=GREY, lw=0.6, zorder=0.9))
            _touch(cost, _along(np.stack([spot, end])), ON_MARK)


def _best_place(size: Bbox, spot: np.ndarray, cost: np.ndarray) -> tuple[Bbox, float]:
    """The cheapest place of a name in the axes, and its price.

    Args:
        spot: of the mark, in pixels from the lower left corner of the axes.
        cost: [H, W], of covering each pixel of the axes; infinite where another name is.
    """
    height, width = cost.shape
    wide, high = int(size.width) + 2 * CLEAR, int(size.height) + 2 * CLEAR
    xs, ys = np.arange(0, max(1, width - wide), 2), np.arange(0, max(1, height - high), 2)
    left, low = (corner.ravel() for corner in np.meshgrid(xs, ys))
    right, top = np.minimum(left + wide, width), np.minimum(low + high, height)
    total = np.pad(np.minimum(cost, ON_MARK).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    covered = total[top, right] - total[low, right] - total[top, left] + total[low, left]
    away = np.stack([np.clip(spot[0], left, right), np.clip(spot[1], low, top)], 1) - spot
    way = (spot + np.linspace(0, 1, 30)[:, None, None] * away).astype(int)  # of the line to the mark
    over_names = np.isinf(cost[way[..., 1].clip(0, height - 1), way[..., 0].clip(0, width - 1)]).any(0)
    price = np.hypot(*away.T) + covered + ON_MARK * over_names
    best = int(price.argmin())
    return Bbox.from_bounds(left[best] + CLEAR, low[best] + CLEAR, size.width, size.height), float(price[best])


def _cost(axis: Axes, dpi: float) -> np.ndarray:
    """What covering each pixel of the axes costs, [H, W]: a line is dear, a mark dearer."""
    room = axis.get_window_extent()
    cost = np.zeros((int(room.height) + 1, int(room.width) + 1))
    for path in _paths(axis):
        _touch(cost, _along(path - room.min), ON_LINE)
    for marks in axis.collections:
        if isinstance(marks, PathCollection):
            spots = marks.get_offset_transform().transform(np.ma.filled(marks.get_offsets(), np.nan)) - room.min
            radii = np.sqrt(np.resize(marks.get_sizes(), len(spots))) / 2 * dpi / 72
            for spot, radius in zip(spots, radii, strict=True):
                if np.isfinite(spot).all():
                    _fill(cost, Bbox([spot, spot]).padded(radius), ON_MARK)
    return cost


def _paths(axis: Axes) -> Iterator[np.ndarray]:
    """The lines of the axes, [P, 2] pixels each."""
    for line in axis.lines:
        yield line.get_transform().transform(np.asarray(line.get_xydata(), float))
    for lines in axis.collections:
        if isinstance(lines, LineCollection):
            yield from (lines.get_transform().transform(segment) for segment in lines.get_segments())


def _along(path: np.ndarray) -> np.ndarray:
    """Points a pixel apart along a path, [P, 2]."""
    ends = path[np.isfinite(path).all(1)]
    length = np.concatenate([[0], np.hypot(*np.diff(ends, axis=0).T).cumsum()])
    at = np.arange(0, length[-1] + 1)
    return np.stack([np.interp(at, length, ends[:, i]) for i in (0, 1)], 1)


def _touch(cost: np.ndarray, points: np.ndarray, value: float) -> None:
    """The pixels at points cost a value at least."""
    x, y = points.astype(int).T
    inside = (points.min(1) >= 0) & (x < cost.shape[1]) & (y < cost.shape[0])
    cost[y[inside], x[inside]] = np.maximum(cost[y[inside], x[inside]], value)


def _fill(cost: np.ndarray, box: Bbox, value: float) -> None:
    """The pixels of a box cost a value at least."""
    x0, y0, x1, y1 = np.maximum(np.asarray(box.extents), 0).astype(int)
    cost[y0 : y1 + 1, x0 : x1 + 1] = np.maximum(cost[y0 : y1 + 1, x0 : x1 + 1], value)
