"""Every figure draws for few and for many classes, without a warning, and says in words what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from cmmlib.report import plots
from cmmlib.report.captions import captions
from cmmlib.report.plots import layout, style, sweeps
from cmmlib.report.plots.style import save, save_svg

SVG, PIXELS = "{http://www.w3.org/2000/svg}", re.compile(r"([\d.]+)px")


def method(name: str, overall: float, worst: float, split_half: float | None, **facts: object) -> dict:
    """A row of `compare.ensemble_rows`, as far as a figure looks at it."""
    ends = {"overall_interval": (overall - 0.01, overall + 0.01), "worst_split_half": {"10": split_half}}
    row = {"name": name, "overall": overall, "worst": {"10": worst}, "label_free": True, "requests": 0}
    return {**row, **ends, **facts}


METHODS = [
    method("base", 0.5, 0.0, 0.1),
    method("best_template", 0.6, 0.0, None, label_free=False),
    method("enriched_cmm", 0.9, 0.3, 0.4, requests=3),
    method("describe_all", 0.7, 0.1, 0.2, requests=9),
    method("cmm_global", 0.55, 0.0, 0.1),
    method("zpe", 0.45, 0.05, 0.1),
]
STATIC = Path(__file__).parents[2] / "book" / "_static"


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
    margins = torch.linspace(-0.2, 0.3, 50).expand(2, 50)
    ranked = {"prompt": names, "overall": np.nan_to_num(accuracy, nan=0.5)}
    prompts = pd.DataFrame({**ranked, "cmm_mean": score, "cmm_mean_scale_free": score})
    return {
        "curve": plots.class_accuracy_curve(accuracy, intervals, float(np.nanmean(accuracy)), k),
        "confusions": plots.worst_confusions(frame),
        "mass": plots.prediction_mass(np.arange(n), np.full(n, n), accuracy, worst),
        "bracket": plots.worst_bracket(list(range(1, k + 1)), [0.1] * k, [0.2] * k),
        "no bracket": plots.worst_bracket([1, 2], [0.1, 0.2], [None, None]),
        "margin": plots.one_margin(np.nan_to_num(score), names),
        "margins": plots.class_margins(["low", "high"], margins, torch.rand(2, 50), margins.mean(1)),
        "scatter": plots.cmm_against_accuracy(score, accuracy, worst, names, 0.9),
        "scatter without rank": plots.cmm_against_accuracy(score, accuracy, worst, names, None),
        "grid": plots.score_grid({"soft": score, "pseudo": accuracy}, accuracy, worst, {"soft": 0.9, "pseudo": None}),
        "found": plots.worst_found(np.argsort(score), accuracy, worst, k),
        "prompts": plots.prompt_scores(prompts),
    }


def repair_figures(n: int) -> dict[str, Figure]:
    """Figures of chapters 3 and 4 and of the cards."""
    accuracy, score, worst, names = world(n)
    known = np.nan_to_num(accuracy, nan=0.5)
    weights = np.full((min(n, 30), 9), 0.1)
    weights[0, 8:] = np.nan
    curve = pd.DataFrame({"count": [0, n], "method": "CMM weights", "overall": [0.5, 0.6], "worst_10": [None, 0.1]})
    grid = pd.DataFrame(0.2, index=pd.Index([1.0, None], dtype=object), columns=[0.1, 0.3])
    image = np.zeros((64, 64, 3), np.uint8)
    share = pd.DataFrame({"value": [0.2, 0.0], "low": [0.1, -0.1], "high": [0.3, 0.1]}, index=["name_frequency", "b"])
    kinds = np.array(["rare", "ambiguous", "known"])[np.arange(n) % 3]
    failing = pd.DataFrame({"kind": kinds, "described": known, "prior_matched": known[::-1]})
    retrained = pd.DataFrame({"group": kinds, "name": names, "before": known, "after": known[::-1]})[: min(n, 30)]
    probes = [{"step": 9, "overall": 0.5, "worst_10": 0.0}, {"step": 19, "overall": 0.7, "worst_10": 0.1}]
    told = pd.DataFrame({"class": names, "before": known, "after": score / 2})[: min(n, 30)]
    return {
        "described": plots.described_classes(told),
        "contenders": plots.compare_methods(METHODS[: max(2, n)]),
        "weights": plots.weight_map(weights, names[: len(weights)], 6),
        "gains": plots.who_gains(accuracy, known[::-1], worst, names, "enriched cmm"),
        "counts": plots.two_curves(curve, "count", "How many", "classes", chosen=n // 2),
        "sensitivity": plots.sensitivity_grid(grid, 0.3, 1.0),
        "sensitivity without a cut": plots.sensitivity_grid(grid, 0.1, None),
        "causes": plots.causes_of_failure(share, {"accuracy": share, "CMM": share}),
        "repairs": plots.repair_plane(failing[:40], names[:40], 0.5),
        "recovery": plots.recovery(retrained.sort_values("group")),
        "gallery": plots.gallery([image] * min(n, 20), names[: min(n, 20)], "Some images", 6),
        "course": plots.training_course([6.0, 3.0, 2.0], 20, probes, 384),
        "names": plots.accuracy_by_name(np.arange(n), np.arange(n)[::-1], known, names),
    }


def backbone_figures(n: int) -> dict[str, Figure]:
    """Figures of chapter 7."""
    accuracy, score, worst, names = world(n)
    runs = ["first $x$", "second", "third"]
    rows = [
        {"run": run, "method": m, "gain_overall": 0.1, "gain_worst_10": 0.02} for run in runs for m in ("base", "zpe")
    ]
    two = ("first $x$", "second")
    return {
        "curves": plots.runs_curves({"first $x$": accuracy, "second": score}, [0.5, 0.6], max(1, n // 4)),
        "two": plots.classes_in_two(accuracy, score, np.stack([worst, ~worst]), names, two, max(1, n // 4)),
        "gains": plots.gains_by_run(pd.DataFrame(rows)),
    }


def published_figures(n: int) -> dict[str, Figure]:
    """Figures of chapter 0, and of the pages on speed and on sweeps."""
    accuracy, score, *_ = world(n)
    sets = pd.DataFrame({"data": [f"set {i}" for i in range(min(n, 20))], "classes": 100})
    models = {"pretrained": ["laion400m", "laion2b", "datacomp", "openai"] * 2, "multiply_adds": [4, 18, 81, 6] * 2}
    accuracies = {"overall": 0.7, "worst_share": 0.2, "worst_10": 0.1, "data": ["imagenet", *["other"] * 7]}
    table = pd.DataFrame(models | accuracies)
    changes = {"overall": 0.03, "worst": 0.01, "models": 9, "overall_up": 8, "worst_up": 5}
    medians = {"median": 0.4, "lowest": 0.1, "highest": 0.6}
    frequency = {"spearman": 0.2, "low": 0.1, "high": 0.3}
    curve = pd.DataFrame({"share": np.linspace(0, 100, n) / 100, "accuracy": np.sort(score)})
    runs = pd.DataFrame({"overall": accuracy, "worst": accuracy / 2, "seed": np.arange(n) % 7}).dropna()
    return {
        "two curves": plots.two_curves_of_classes(curve, "CLIP", accuracy, "own"),
        "models": plots.overall_and_worst(table, ("own", 0.7, 0.1)),
        "sizes": plots.accuracy_over_computation(table),
        "changes": plots.better_prompts(sets.assign(**changes)),
        "agreement": plots.agreement(sets.assign(**medians)),
        "frequency": plots.name_frequency(sets.assign(**frequency), ("own", 0.5, 0.3, 0.7)),
        "growth": plots.scaling(pd.read_csv(STATIC / "scale.csv")),
        "sweep": sweeps.overall_and_worst(runs, "seed", 10),
    }


def test_the_gain_in_the_title_is_one_that_every_run_has():
    rows = [("a", "zpe", 0.5), ("b", "zpe", -0.1), ("a", "uniform", 0.1), ("b", "uniform", 0.2), ("a", "base", 0.0)]
    table = pd.DataFrame(rows, columns=["run", "method", "gain_worst_10"]).assign(gain_overall=0.0)
    figure = plots.gains_by_run(table)
    assert figure.get_suptitle() == "Best in the worst 10, by its smallest gain: uniform"
    assert "ZPE -10.0; uniform +10.0" in figure.get_label()
    none = plots.gains_by_run(table.assign(gain_worst_10=0.0))
    assert none.get_suptitle() == "No method raises the worst 10 classes in every run"


def test_the_title_counts_what_two_runs_share():
    worst = np.array([[True, True, False], [True, False, True]])
    x = np.array([0.0, 0.1, 0.9])
    figure = plots.classes_in_two(x, x[[0, 2, 1]], worst, list("abc"), ("one", "other"), 2)
    assert figure.axes[0].get_title(loc="left") == "1 class is among the worst 2 of both runs"


def unlabelled_figures(n: int) -> dict[str, Figure]:
    """Figures of chapter 5."""
    accuracy, _, worst, names = world(n)
    hub, starved = np.linspace(5, 9, n), np.linspace(4, 10, n)
    sorts = ["hub remedies and published methods"] * (len(METHODS) - 1) + ["this chapter's corrections"]
    kinds = ["balanced", "long tail"]
    drawn = pd.DataFrame([(k, m, 0.01 * d) for k in kinds for m in "ab" for d in range(3)])
    curve = pd.DataFrame({"count": [1, 5] * 2, "method": [*"aabb"], "overall": 0.5, "worst_10": [None, 0.1] * 2})
    risks = np.stack([accuracy, accuracy / 2])
    return {
        "hub": plots.hub_and_under_predicted(hub, starved, 1.5, (names[0], names[1])),
        "hub with labels": plots.hub_and_under_predicted(hub, starved, 1.5, (names[0], names[1]), worst),
        "counts": plots.predicted_counts(np.arange(n), np.full(n, 3), 3.0),
        "neighbours": plots.compare_methods(METHODS, sorts),
        "price": plots.cost_of_imbalance(drawn.set_axis(["kind", "method", "change"], axis=1)),
        "curves": plots.two_curves(curve, "count", "How many", "images", base=(0.4, None)),
        "risk": plots.risk_over_coverage({"margin": np.linspace(0, 0.5, n)}, [0.5, 1.0], risks, worst),
    }


def test_the_bias_moves_the_images_between_the_lines():
    figure = plots.hub_and_under_predicted(
        np.array([5.0, 5.0, 5.0]), np.array([4.5, 3.0, 6.0]), 1.0, ("hub", "starved")
    )
    assert figure.axes[0].get_title(loc="left") == "A bias of 1.0 logits moves 1 image across the line"


def test_the_price_names_the_lowest_and_the_highest_mean():
    rows = [("even", "a", 0.1), ("odd", "a", -0.1), ("odd", "a", -0.3)]
    figure = plots.cost_of_imbalance(pd.DataFrame(rows, columns=["kind", "method", "change"]))
    assert figure.axes[0].get_title(loc="left") == "Mean change of overall accuracy: -20.0 to +10.0 points"


def test_the_setting_of_the_study_is_framed():
    grid = pd.DataFrame([[0.1, 0.2], [0.3, 0.4]], index=pd.Index([1.0, None], dtype=object), columns=[0.1, 0.3])
    figure = plots.sensitivity_grid(grid, 0.3, None)
    (frame,) = (patch for patch in figure.axes[0].patches if not patch.get_fill())
    assert frame.get_xy() == (1, 1)
    assert "the study's setting, 40.0 %, is framed" in figure.get_label()


def test_who_gains_and_who_loses_is_counted():
    before, after = np.array([0.0, 0.5, 0.9, np.nan, 0.4]), np.array([0.8, 0.52, 0.1, np.nan, 0.0])
    figure = plots.who_gains(before, after, np.array([True, False, False, False, True]), list("abcde"), "new")
    assert figure.axes[0].get_title(loc="left") == "More than 5 points gained: 1 class; lost: 2"
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[:3] == ["not described (2)", "described (2)", "of both: loses more than 5 points (2)"]


def test_the_largest_loss_has_its_name_whatever_stands_around():
    """As in a study in which many classes end at 100 %, and several at 0 % beside each other."""
    before = np.linspace(0, 1, 120)
    after = np.where(np.arange(120) % 10 == 5, 0.0, np.ceil(before))
    after[118] = 0.0
    figure = plots.who_gains(before, after, before < 0.2, [f"a class of number {c}" for c in range(120)], "new")
    for drawn in (figure, layout.narrow(figure)):
        assert drawn is not None
        assert "a class of number 118" in [text.get_text() for text in drawn.axes[0].texts]


@pytest.mark.parametrize("s", [(0.68, 0.61, 0.45), (0.9, 0.3, 0.29), (0.5, 0.499, 0.2), (0.7, 0.6), (0.4, 0.4)])
def test_the_margin_stands_between_the_rows(s):
    figure = plots.one_margin(np.array(s), list("abc")[: len(s)], Image.new("RGB", (40, 40)))
    for drawn in (figure, layout.narrow(figure)):
        assert drawn is not None
        drawn.draw_without_rendering()
        axis = drawn.axes[1]
        (text,) = axis.texts
        (dots,) = (marks for marks in axis.collections if isinstance(marks, PathCollection))
        box = text.get_window_extent().padded(np.sqrt(dots.get_sizes()[0]) / 2 * drawn.dpi / 72)
        assert not box.count_contains(axis.transData.transform(dots.get_offsets()))
        assert text.get_window_extent().x0 >= axis.get_window_extent().x0


def test_the_worst_tenth_is_a_band_that_is_seen_where_accuracies_are_0():
    own = np.array([0.0] * 30 + [1.0] * 70)
    curve = pd.DataFrame({"share": [0.0, 0.1, 1.0], "accuracy": [0.1, 0.25, 0.9]})
    figure = plots.two_curves_of_classes(curve, "CLIP", own, "own")
    for drawn in (figure, layout.narrow(figure)):
        assert drawn is not None
        for axis in drawn.axes:
            (band,) = axis.patches
            assert band.get_extents().height == pytest.approx(axis.bbox.height)
            assert axis.transData.inverted().transform(band.get_extents())[:, 0] == pytest.approx([0, 10])
    assert "CLIP: mean 42 %, of the worst tenth 18 %; own: mean 70 %, of the worst tenth 0 %" in figure.get_label()
    page = (STATIC.parent / "index.md").read_text("utf-8")
    for words in (page, captions()["real_and_own"]):
        assert re.search(r"orange bands? the worst tenth of the classes", words)


SCREEN = 327  # pixels of a figure on a screen of 360


@pytest.mark.parametrize("n", [2, 47])
@pytest.mark.parametrize("drawn", [figures, repair_figures, unlabelled_figures, backbone_figures, published_figures])
def test_letters_on_a_phone_can_be_read(drawn, n, tmp_path):
    for name, figure in drawn(n).items():
        save_svg(figure, tmp_path, name)
        assert is_alternative(figure.get_label()), name
        image = ElementTree.parse(tmp_path / f"{name}_narrow.svg").getroot()
        width = float(image.attrib["viewBox"].split()[2])
        parts = [part for text in image.iter(f"{SVG}text") for part in text.iter()]  # of a formula, its letters
        sizes = [float(found) for part in parts for found in PIXELS.findall(part.attrib.get("style", ""))]
        assert len(sizes) > 1, name
        assert min(sizes) * SCREEN / width >= 9, (name, min(sizes), width)
        plt.close(figure)


# ---------------------------------------------------------------- marks that are seen, on white and in the dark theme

FILTER = r"cmm-drawing \{ filter: invert\((0\.\d+)\) hue-rotate\(180deg\)"
INVERTED = re.search(FILTER, (STATIC / "cmm.css").read_text("utf-8"))
TURNED = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])  # hue-rotate(180deg)


def in_the_dark(colour: np.ndarray) -> np.ndarray:
    """An opaque colour [3] behind the filter of the dark theme."""
    assert INVERTED
    amount = float(INVERTED[1])
    return np.clip(TURNED @ (amount * (1 - colour) + (1 - amount) * colour), 0, 1)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """As WCAG has it."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (one, other)]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


def least_contrast(colour: object) -> float:
    """Of a colour over white: with white, and with the ground of the dark theme where it is turned about."""
    red, green, blue, alpha = to_rgba(colour)  # pyright: ignore[reportArgumentType]
    white = np.ones(3)
    seen = alpha * np.array([red, green, blue]) + 1 - alpha
    return min(contrast(seen, white), contrast(in_the_dark(seen), in_the_dark(white)))


def colours_of_marks(axis: Axes) -> set[tuple]:
    """Of points, lines, and bars or their edges; without bands, grids and lines that lead the eye."""
    found = [to_rgba(line.get_color(), line.get_alpha()) for line in axis.lines]
    for marks in axis.collections:
        if isinstance(marks, LineCollection):
            found += map(tuple, marks.get_edgecolor())
        elif isinstance(marks, PathCollection):
            found += map(tuple, marks.get_facecolor())
    bars = [patch for patch in axis.patches if patch.get_alpha() != style.BAND["alpha"]]
    found += [max(bar.get_facecolor(), bar.get_edgecolor(), key=least_contrast) for bar in bars]
    return set(found) - {to_rgba(style.REST)}


def test_the_dark_theme_is_computed_as_browsers_do():
    assert np.round(255 * in_the_dark(np.ones(3))).tolist() == [31, 31, 31]
    assert least_contrast("#E69F00") == pytest.approx(2.25, abs=0.01)  # on white
    assert least_contrast(to_rgba("#E69F00", 0.5)) == pytest.approx(1.50, abs=0.01)


@pytest.mark.parametrize("drawn", [figures, repair_figures, unlabelled_figures, backbone_figures, published_figures])
def test_marks_stand_out_from_the_page_in_both_themes(drawn):
    for name, figure in drawn(47).items():
        for axis in figure.axes:
            for colour in colours_of_marks(axis):
                assert least_contrast(colour) >= 3, (name, colour)
        plt.close(figure)


def test_a_phone_gets_panels_one_above_the_other_and_every_name():
    figure = plots.compare_methods(METHODS)
    narrow = layout.narrow(figure)
    assert narrow is not None
    assert not layout.is_narrow()
    (left, right), (upper, lower) = ([axis.get_position() for axis in f.axes] for f in (figure, narrow))
    assert left.x1 <= right.x0
    assert lower.y1 <= upper.y0
    for name in ("base", "CMM global"):
        assert all(name in [label.get_text() for label in axis.get_yticklabels()] for axis in narrow.axes), name
    assert layout.narrow(plt.figure()) is None  # of somebody else


def test_the_name_that_a_worst_class_is_taken_for_is_not_lost_on_a_phone():
    frame = pd.DataFrame({"name": ["a"], "taken_for": ["other"], "own": [0.1], "other": [0.6], "rest": [0.3]})
    narrow = layout.narrow(plots.worst_confusions(frame))
    assert narrow is not None
    assert [label.get_text() for label in narrow.axes[0].get_yticklabels()] == ["a\n\u2192 other"]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a & b", "]]>", "$x$ 'y' \"z\"", "\u72ee\u5b50"])
def test_letters_of_a_drawing_are_text_and_nothing_else(name, tmp_path):
    figure = plt.figure()
    figure.text(0.1, 0.5, style.plain(name))
    save_svg(figure, tmp_path, "drawn")
    drawing = ElementTree.parse(tmp_path / "drawn.svg").getroot()
    (text,) = drawing.iter(f"{SVG}text")
    assert "".join(text.itertext()) == name
    assert "Verdana" in text.attrib["style"]
    assert not list(drawing.iter(f"{SVG}script"))
    assert not (tmp_path / "drawn_narrow.svg").exists()


@pytest.mark.parametrize("n", [5, 400])
@pytest.mark.parametrize("drawn", [figures, repair_figures, unlabelled_figures, backbone_figures, published_figures])
def test_figures_draw_and_describe_themselves(drawn, n):
    for name, figure in drawn(n).items():
        figure.draw_without_rendering()
        assert is_alternative(figure.get_label()), name
        plt.close(figure)


def is_alternative(text: str) -> bool:
    return len(text) > 30 and "\n" not in text


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize(("accuracy", "score"), [(1.0, 0.2), (0.0, 0.0), (0.5, -0.2)])
@pytest.mark.parametrize("drawn", [figures, repair_figures, unlabelled_figures, backbone_figures, published_figures])
def test_figures_draw_where_all_classes_are_alike(drawn, accuracy, score, n, monkeypatch):
    """Limits that come from the data have no width of their own there, of which matplotlib would warn."""
    alike = np.full(n, accuracy), np.full(n, score), np.ones(n, bool), [f"class {c}" for c in range(n)]
    monkeypatch.setitem(globals(), "world", lambda n: alike)
    for figure in drawn(n).values():
        figure.draw_without_rendering()
        plt.close(figure)


def test_classes_that_get_no_prediction_at_all_are_drawn():
    """Where every image is taken for a class without images."""
    accuracy = np.array([0.0, 0.0, np.nan])
    figure = plots.prediction_mass(np.array([0, 0, 9]), np.array([4, 5, 0]), accuracy, np.array([True, True, False]))
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < 1 < high  # classes, and the line of as many predictions as images


def test_methods_are_told_apart_by_weights_and_descriptions():
    figure = plots.compare_methods(METHODS)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "base prompt",
        "no descriptions",
        "CMM weights, no descriptions",
        "with descriptions",
        "CMM weights, with descriptions",
        "needs labels",
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "ZPE"
    assert figure.get_suptitle() == "Highest worst-10: enriched CMM"
    assert "enriched CMM 90.0 and 30.0" in figure.get_label()


def test_methods_of_other_kinds_are_counted_against_the_base_prompt():
    kinds = ["hub remedies and published methods"] * 5 + ["this chapter's corrections"]
    figure = plots.compare_methods(METHODS, kinds)
    assert figure.get_suptitle() == "Better than the base prompt on both: 2 of 5 methods"
    with pytest.raises(KeyError, match="another"):
        plots.compare_methods(METHODS, ["another"] * 6)


def test_few_classes_are_named_the_missed_and_the_lowest():
    score = np.arange(30.0)
    worst = np.isin(np.arange(30), [0, 1, 2, 3, 4, 20, 22, 24, 26])
    figure = plots.cmm_against_accuracy(score, np.where(worst, 0, score / 30), worst, [f"c{c}" for c in range(30)], 0.9)
    assert {text.get_text() for text in figure.axes[0].texts} <= {"c26", "c24", "c22", "c0", "c1", "c2"}


def test_a_class_at_zero_is_a_dot_on_the_axis():
    accuracy, worst = np.array([0.0, 0.4, 1.0]), np.array([True, False, False])
    figure = plots.worst_found(np.arange(3), accuracy, worst, 1)
    dots = {c.get_label(): c for c in figure.axes[0].collections}["worst classes"]
    assert dots.get_offsets().tolist() == [[1, 0]]
    assert not dots.get_clip_on()


def test_gains_and_losses_are_entries_of_their_own():
    figure = plots.described_classes(
        pd.DataFrame({"class": ["up", "down", "level"], "before": [0.1, 0.9, 0.4], "after": [0.5, 0.2, 0.4]})
    )
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["by name", *(f"by its descriptions: {change}" for change in ("gain", "loss", "no change"))]


def test_pictures_stand_beside_what_they_are_taken_for():
    a, b = (Image.new("RGB", size, "red") for size in ((30, 90), (64, 20)))
    figure = plots.worst_gallery([("first", "other", [a, b], [b]), ("second", "first", [a], [])])
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 4
    assert "first, taken for other" in figure.get_label()
    plt.close(figure)


def test_retrieved_images_carry_their_margins():
    image = Image.new("RGB", (64, 64), "red")
    figure = plots.retrieved_images([("low", [image, image], [-0.02, 0.01]), ("high", [image], [0.2])])
    assert {text.get_text() for axis in figure.axes for text in axis.texts} == {"-0.020", "+0.010", "+0.200"}
    assert "low: the class is ahead of all others on 1 of 2" in figure.get_label()
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


def test_causes_whose_effect_is_clear_of_zero_stand_in_the_title():
    table = pd.DataFrame({"value": [0.2, 0.0], "low": [0.1, -0.1], "high": [0.3, 0.1]}, index=["name_frequency", "b"])
    figure = plots.causes_of_failure(table, {"accuracy": table})
    assert figure.get_suptitle() == "Effect differs from zero: name frequency"
    failing = pd.DataFrame(
        {"kind": ["rare", "rare", "known"], "described": [0.9, 0.1, 0.2], "prior_matched": [0.8, 0.0, 0.7]}
    )
    figure = plots.repair_plane(failing, list("abc"), 0.5)
    title = "Of 3 failing classes:\nrepaired by descriptions 1, by prior matching 2, by both 1, by neither 1"
    assert figure.axes[0].get_title(loc="left") == title


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(plt.rcParams)
    plt.close(plots.worst_bracket([1], [0.1], [0.2]))
    assert dict(plt.rcParams) == before


def growth(powers: dict[str, float], peaks: tuple[float, float, float]) -> pd.DataFrame:
    """A size a key, doubled twice: time grows with these powers, memory with the images as told."""
    base = {"images": 100, "classes": 10, "prompts": 2, "width": 8, "analysis (s)": 1.0, "peak (MiB)": peaks[0]}
    rows = [{"varied": "base", **base}]
    for key, power in powers.items():
        for f, peak in zip((2, 4), peaks[1:] if key == "images" else (peaks[0], peaks[0]), strict=True):
            rows.append({"varied": key, **base, key: f * base[key], "analysis (s)": f**power, "peak (MiB)": peak})
    return pd.DataFrame(rows)


def test_the_figure_of_growth_says_what_grows_fastest():
    flat, proportional = (10.0, 10.0, 10.0), {"images": 1, "classes": 1, "prompts": 1, "width": 0.5}
    figure = plots.scaling(growth(proportional | {"classes": 2}, flat))
    assert "Time grows most with classes, as its power 2.00" in figure.get_label()
    assert figure._suptitle.get_text() == "Time grows fastest with classes"
    assert plots.scaling(growth(proportional, flat))._suptitle.get_text().startswith("Doubling a size at most doubles")
    jump = plots.scaling(growth(proportional, (10.0, 35.0, 40.0)))  # at most in proportion from end to end, not halfway
    assert jump._suptitle.get_text() == "Time grows fastest with images"
    assert plots.scaling(pd.read_csv(STATIC / "scale.csv")).get_label()


# ---------------------------------------------------------------- settings and letters that are not the book's


def test_the_user_s_own_settings_have_no_say(tmp_path):
    """A matplotlibrc may ask for LaTeX, which need not be here."""
    with plt.rc_context({"text.usetex": True, "axes.facecolor": "red", "font.family": "no such font"}):
        figure = plots.worst_bracket([1, 2], [0.1, 0.2], [0.2, 0.3])
        assert save(figure, tmp_path / "x.png") == set()
        assert plt.rcParams["text.usetex"]
    plt.close(figure)
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


def test_letters_that_no_font_has_are_told_once_and_nothing_else_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_fonts", lambda: ["DejaVu Sans"])
    figure, axis = plt.subplots()
    axis.set_title("\u72ee\u5b50 and \u00e9")
    assert save(figure, tmp_path / "x.svg") == {"\u72ee", "\u5b50"}
    plt.close(figure)
