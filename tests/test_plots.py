"""Every figure draws for few and for many classes, without a warning, and says in words what it shows."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cmmlib import plots

SIZES = [2, 5, 47, 400]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def world(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Accuracies (one undefined where there are several), a score, a mask of the worst, and awkward names."""
    rng = np.random.default_rng(n)
    accuracy = rng.random(n)
    if n > 4:
        accuracy[3] = np.nan
    worst = accuracy <= np.sort(accuracy)[max(0, n // 4 - 1)]
    return (
        accuracy,
        accuracy + 0.1 * rng.random(n),
        worst,
        [f"class $x_{{{c}}}$ \\ {'long ' * (c % 9)}" for c in range(n)],
    )


def figures(n: int) -> dict[str, Figure]:
    accuracy, score, worst, names = world(n)
    intervals = np.stack([accuracy - 0.01, accuracy + 0.01], 1)
    k = max(1, n // 4)
    frame = pd.DataFrame({"name": names[:k], "taken_for": ["", *names[: k - 1]], "own": 0.1, "other": 0.5, "rest": 0.4})
    margins = {name: (torch.linspace(-0.2, 0.3, 50), torch.rand(50)) for name in ("low", "high")}
    return {
        "curve": plots.class_accuracy_curve(accuracy, intervals, float(np.nanmean(accuracy)), k),
        "confusions": plots.worst_confusions(frame),
        "mass": plots.prediction_mass(np.arange(n), np.full(n, n), accuracy, worst),
        "bracket": plots.worst_bracket(list(range(1, k + 1)), [0.1] * k, [0.2] * k),
        "no bracket": plots.worst_bracket([1, 2], [0.1, 0.2], [None, None]),
        "margin": plots.one_margin(score, names),
        "margins": plots.class_margins(margins),
        "scatter": plots.cmm_against_accuracy(score, accuracy, worst, names, 0.9),
        "scatter without rank": plots.cmm_against_accuracy(score, accuracy, worst, names, None),
        "grid": plots.score_grid({"soft": score, "pseudo": accuracy}, accuracy, worst, {"soft": 0.9, "pseudo": None}),
        "found": plots.worst_found(np.argsort(score), accuracy, worst, k),
        "prompts": plots.prompt_scores(score, score, np.nan_to_num(accuracy, nan=0.5), names),
    }


@pytest.mark.parametrize("n", SIZES)
def test_figures_draw_and_describe_themselves(n, tmp_path):
    for name, figure in figures(n).items():
        figure.savefig(tmp_path / "figure.svg", bbox_inches="tight")
        assert len(figure.get_label()) > 30, name
        assert "\n" not in figure.get_label(), name
        plt.close(figure)


def test_pictures_stand_beside_what_they_are_taken_for(tmp_path):
    for name, size in (("a", (30, 90)), ("b", (64, 20))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    figure = plots.worst_gallery([("first", "other", [a, b], [b]), ("second", "first", [a], [])])
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 4
    assert "first, taken for other" in figure.get_label()
    plt.close(figure)


def test_a_title_says_what_was_drawn():
    accuracy = np.array([0.0, 0.5, 1.0, 0.9])
    figure = plots.class_accuracy_curve(accuracy, np.stack([accuracy, accuracy], 1), 0.6, 1)
    assert figure.axes[0].get_title(loc="left") == "The average hides a tail: 60 % overall, 0 % in the worst 1 classes"
    plt.close(figure)
    level = np.array([0.6, 0.6, 0.6, 0.6])
    figure = plots.class_accuracy_curve(level, np.stack([level, level], 1), 0.6, 1)
    assert figure.axes[0].get_title(loc="left").startswith("Accuracy of every class")
    plt.close(figure)


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(plt.rcParams)
    plt.close(plots.worst_bracket([1], [0.1], [0.2]))
    assert dict(plt.rcParams) == before
