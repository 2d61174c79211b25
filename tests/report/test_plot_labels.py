"""Names beside points: none on another or on a mark, and the first is never lost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from cmmlib.report.plots.labels import name_points


@pytest.fixture
def axis():
    figure, axis = plt.subplots(figsize=(4, 3), layout="constrained")
    axis.set(xlim=(-3, 103), ylim=(-3, 103))
    yield axis
    plt.close(figure)


def boxes(axis: Axes) -> list:
    axis.figure.draw_without_rendering()
    return [text.get_window_extent() for text in axis.texts]


@pytest.mark.parametrize("place", [(50, 50), (100, 0), (0, 100)])
def test_names_of_points_on_one_spot_do_not_collide(axis, place):
    x, y = (np.full(15, float(value)) for value in place)
    name_points(axis, x, y, [f"a class of number {c}" for c in range(15)], range(15))
    found = boxes(axis)
    assert 1 < len(found) < 15
    assert not any(box.count_overlaps(found[:i]) for i, box in enumerate(found))
    assert all(axis.get_window_extent().count_contains(box.get_points()) == 2 for box in found)
    assert len(axis.lines) < len(found)  # the first stands beside its mark


def test_a_name_covers_no_mark_however_large(axis):
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 100, (2, 40))
    marks = axis.scatter(x, y, s=np.linspace(10, 200, 40))
    name_points(axis, x, y, ["name"] * 40, range(40))
    radii = np.sqrt(marks.get_sizes()) / 2 * axis.figure.dpi / 72
    found = boxes(axis)
    assert len(found) > 10
    for box in found:
        for spot, radius in zip(axis.transData.transform(np.stack([x, y], 1)), radii, strict=True):
            nearest = np.clip(spot, box.min, box.max)
            assert np.hypot(*(nearest - spot)) >= radius


def test_the_first_name_stands_where_there_is_room_however_far(axis):
    """A crowd leaves a strip at the other end of the axes; another name that far is left out."""
    x, y = (v.ravel() for v in np.meshgrid(np.arange(0, 101, 2.5), np.arange(0, 81, 2.5)))
    axis.scatter(x, y)
    name_points(axis, x, y, [f"number {c}" for c in range(len(x))], [0, 20])
    (text,) = axis.texts
    assert text.get_text() == "number 0"
    assert text.get_position()[1] > 80
    (leader,) = axis.lines
    assert (leader.get_xdata()[0], leader.get_ydata()[0]) == pytest.approx((x[0], y[0]))


def test_a_name_keeps_off_lines_where_it_can(axis):
    axis.vlines([30, 40, 60], 0, 100)
    name_points(axis, np.array([40.0]), np.array([50.0]), ["between"], [0])
    (box,) = boxes(axis)
    left, right = axis.transData.inverted().transform(box.get_points())[:, 0]
    assert right < 30 or left > 60 or (left > 40 and right < 60)


def test_a_class_without_a_place_has_no_name(axis):
    name_points(axis, np.array([np.nan]), np.array([1.0]), ["lost"], [0])
    assert not axis.texts
