"""Sentences and tables of the chapter on real CLIP: published accuracies per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.evaluation import published
from cmmlib.evaluation.published import PAPER as PAPER
from cmmlib.report.formatting import counted, decimal, join_names, names, percent, plain, points
from cmmlib.report.titles import titled
from cmmlib.study.run import Run
from cmmlib.study.study import FETCH

SOURCE = "In the published numbers"  # how a sentence begins that is not of this run
SHOWN = 5  # rows of the first table
MOST = 20  # names of lowest classes in a cell
Row = Mapping[str, Any]


def model_name(row: Row) -> str:
    """Backbone and training data, in a sentence."""
    return plain(f"{row['backbone']} {row['pretrained']}")


def where(models: pd.DataFrame, source: str | None) -> str:
    """How many published models and data sets there are, and where the figures come from."""
    n_models = len(models[["backbone", "pretrained"]].drop_duplicates())
    origin = {None: "from the tables of the package", FETCH: "from the authors' repository"}
    return (
        f"{n_models} models on {models['data'].nunique()} data sets, "
        f"{origin.get(source) or f'from the files of {plain(Path(str(source)).name)}'}."
    )


def title(run: Run) -> str:
    """The run's data and model, as a figure calls them."""
    data = f"{'drawn shields: ' if run.conditions['blazon'] else ''}{run.study.public()['dataset']}"
    return f"{data}, {run.facts['model']['backbone'] or 'embeddings'}"


@titled("Some of the published models, overall and in the tail")
def some_rows(models: pd.DataFrame) -> pd.DataFrame:
    """Rows of `published.model_table`: the largest models on ImageNet with the template ensemble."""
    chosen = [row for row in models.to_dict("records") if row["data"] == "imagenet"]
    chosen = [row for row in chosen if row["prompts"] == published.PROMPTS["ensemble"]]
    largest = sorted(chosen, key=lambda row: (_size(row), row["overall"]), reverse=True)[:SHOWN]
    return pd.DataFrame(
        {
            "model": f"{row['backbone']} {row['pretrained']}",
            "parameters (millions)": decimal(row["parameters"], 0),
            "overall": percent(row["overall"]),
            "worst 10": percent(row["worst_10"]),
            "worst twentieth": percent(row["worst_share"]),
            "classes at 0": row["zero_classes"],
        }
        for row in largest
    )


def _computation(row: Row) -> float:
    """Multiplications for an image, in billions; an architecture that open_clip does not have counts as the least."""
    return row["multiply_adds"] if row["multiply_adds"] == row["multiply_adds"] else 0.0


def _size(row: Row) -> float:
    """Parameters in millions; an architecture that open_clip does not have counts as the smallest."""
    return row["parameters"] if row["parameters"] == row["parameters"] else 0.0


def near_the_paper(row: Row) -> str:
    """The published model nearest to the paper's overall accuracy, beside the paper's own figures."""
    zero = counted(int(row["zero_classes"]), "class", "classes")
    return (
        f"the paper reports {percent(PAPER)} overall on ImageNet and ten classes at 0. Of the published models, "
        f"prompted with the bare class name, the nearest is {model_name(row)}: {percent(row['overall'])} overall, "
        f"{percent(row['worst_10'])} in its worst 10 classes, {zero} at 0."
    )


@titled("The classes of lowest accuracy of this model")
def lowest_classes(table: pd.DataFrame) -> pd.DataFrame:
    """`published.lowest_table`, a row an accuracy: the names of the classes that have it, at most `MOST`."""
    by_accuracy: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        by_accuracy.setdefault(percent(row["accuracy"]), []).append(row["class_name"])
    rows = [{"accuracy": value, "classes": _listed(classes)} for value, classes in by_accuracy.items()]
    return pd.DataFrame(rows)


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - MOST} more" if len(classes) > MOST else ""
    return ", ".join(classes[:MOST]) + more


def lowest_said(table: pd.DataFrame, k: int = 10) -> str:
    """How many classes have the lowest accuracies, and what is not known of them."""
    ties = f" ({k}, and those that tie with the last)" if len(table) > k else ""
    highest = percent(table["accuracy"].to_numpy(float).max())
    return (
        f"{counted(len(table), 'class has', 'classes have')} an accuracy of {highest} or less{ties}. The published "
        "files do not say what their images are taken for."
    )


def far_below(models: pd.DataFrame) -> str:
    """How far the worst twentieth lies below the average, over all models and data sets."""
    rows = models.to_dict("records")
    gap = [row["overall"] - row["worst_share"] for row in rows]
    chosen = [row for row in rows if row["data"] == "imagenet"]
    zero = sum(row["zero_classes"] > 0 for row in chosen)
    best = max(chosen, key=lambda row: row["overall"])
    return (
        f"over {len(models)} pairs of model and data set, the worst twentieth of the classes lies "
        f"{100 * float(np.median(gap)):.0f} points below the overall accuracy in the median. On ImageNet "
        f"{zero} of {len(chosen)} models have a class at 0. The best of them, {model_name(best)}, has "
        f"{percent(best['overall'])} overall and {percent(best['worst_10'])} in its worst 10 classes."
    )


def scale(models: pd.DataFrame) -> str:
    """Does scale repair the tail? With the same training data, from the least computation to the most; then more data.

    Parameters do not order models: ViT-B-16 has about as many as ViT-B-32, and computes four times as much.
    """
    rows: dict[str, list[Row]] = {}
    for row in sorted(models.to_dict("records"), key=_computation):
        rows.setdefault(row["pretrained"], []).append(row)
    large = [f"{plain(data)}, from {_ends(some, 'backbone')}" for data, some in rows.items() if len(some) > 2]
    same = [row for some in rows.values() for row in some if row["backbone"] == "ViT-B-32"]
    more = _ends(sorted(same, key=lambda row: row["overall"]), "pretrained")
    steps = [step for some in rows.values() for step in pairwise(row["worst_10"] for row in some)]
    up, down = (sum(sign * (after - before) > 0 for before, after in steps) for sign in (1, -1))
    zero = sum(before == after == 0 for before, after in steps)
    return (
        f"overall and in the worst 10 classes, with the same training data: {'; '.join(large)}. Over the {len(steps)} "
        f"steps from one model to the next that computes more, the worst 10 rise in {up}, fall in {down} and stay at 0 "
        f"in {zero}. With ViT-B-32 and other training data: from {more}."
    )


def _ends(rows: Sequence[Row], key: str) -> str:
    told = [f"{plain(row[key])} ({percent(row['overall'])}, {percent(row['worst_10'])})" for row in (rows[0], rows[-1])]
    return " to ".join(told)


def prompts(changes: pd.DataFrame) -> str:
    """In how many models better prompts raise the average and the worst classes: on ImageNet and over all data sets."""
    rows = {row["data"]: row for row in changes.to_dict("records")}
    first = rows["imagenet"]
    columns = ("models", "overall_up", "worst_up", "worst_down", "worst_zero")
    pairs, up, worst_up, worst_down, zero = (sum(row[c] for row in rows.values()) for c in columns)
    mostly_zero = sum(2 * row["worst_zero"] > row["models"] for row in rows.values())
    same = pairs - worst_up - worst_down - zero
    unchanged = f", has the same value above 0 in {same}" if same else ""
    return (
        f"on ImageNet, 80 templates in place of one raise overall accuracy in {first['overall_up']} of "
        f"{first['models']} models, and the worst twentieth in {first['worst_up']} (it falls in "
        f"{first['worst_down']}). Over all data sets, overall rises in {up} of {pairs} pairs of model and data set; "
        f"the worst twentieth rises in {worst_up}, falls in {worst_down}{unchanged} and stays at 0 in {zero}. On "
        f"{mostly_zero} of the {len(rows)} data sets it stays at 0 in more than half of the models."
    )


def worst_ten(models: pd.DataFrame, data: str = "imagenet") -> str:
    """The same question for the worst 10 classes of one data set."""
    part = models[models["data"] == data]
    change = published.changes(part, "worst_10")
    up, down = int(np.count_nonzero(change > 0)), int(np.count_nonzero(change < 0))
    zero = int(published.stays_at_zero(part, "worst_10").sum())
    same = len(change) - up - down - zero
    unchanged = f", have the same value above 0 in {same}" if same else ""
    return (
        f"with the templates in place of one, the worst 10 classes of ImageNet rise in {up} of {len(change)} models, "
        f"fall in {down}{unchanged} and stay at 0 in {zero}, where they could not fall."
    )


@titled("What the prompt ensemble changes, data set by data set")
def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """`published.prompt_changes` in points, and in how many of the models each value rises, falls or stays at 0."""
    numbers = {"worst_up": "worst twentieth rises in", "worst_down": "falls in", "worst_zero": "stays at 0 in"}
    return pd.DataFrame(
        {
            "data set": changes["data"],
            "models": changes["models"],
            "overall": changes["overall"].map(points),
            "overall rises in": changes["overall_up"],
            "worst twentieth": changes["worst"].map(points),
            **{head: changes[column] for column, head in numbers.items()},
        }
    )


def agreement(table: pd.DataFrame) -> str:
    """On which data sets models agree most and least, and the classes at 0 in most models."""
    rows = table.sort_values("median", kind="stable").to_dict("records")
    low, high = rows[0], rows[-1]
    zeros = [row for row in table.to_dict("records") if row["zero_in_most"]]
    most = max(zeros, key=lambda row: row["zero_in_most"] / row["classes"], default=None)
    failing = most and (
        f", in the largest share {most['data']}: {most['zero_in_most']} of {most['classes']}, among them "
        f"{names(str(most['names']).split('; '))}"
    )
    return (
        f"the median rank correlation of two models' class accuracies runs from {decimal(low['median'])} "
        f"({low['data']}) to {decimal(high['median'])} ({high['data']}). {len(zeros)} of {len(table)} data sets have "
        f"classes that are at 0 in more than half of the models{failing or ''}."
    )


def frequency(table: pd.DataFrame) -> str:
    """On how many data sets the frequency of a name goes with accuracy, by the intervals."""
    value, low, high = (table[column].to_numpy(float) for column in ("spearman", "low", "high"))
    return (
        f"on {int((low > 0).sum())} of {len(table)} data sets the interval lies above zero, so that classes with more "
        f"frequent names are recognised better; on {int((high < 0).sum())} it lies below. The median of the "
        f"correlations is {decimal(float(np.median(value)))}, the highest {decimal(float(value.max()))}."
    )


@titled("Worst classes that are chosen anew, and the old ones followed")
def selection_table(table: pd.DataFrame) -> pd.DataFrame:
    """`published.selection_table` in percent."""
    return pd.DataFrame(
        {
            "classes": row["set"],
            "chosen anew": f"{percent(row['lowest_before'])} to {percent(row['lowest_after'])}",
            "chosen before": f"{percent(row['before'])} to {percent(row['followed'])}, {row['classes']} classes",
            "chosen after": f"{percent(row['traced_back'])} to {percent(row['after'])}, {row['classes_after']} classes",
        }
        for row in table.to_dict("records")
    )


def selection(table: pd.DataFrame) -> str:
    """What the three ways to choose the same worst set make of one change."""
    row = next(row for row in table.to_dict("records") if row["set"] == "worst 20")
    change = {
        "chosen before": row["followed"] - row["before"],
        "chosen anew": row["lowest_after"] - row["lowest_before"],
        "chosen after": row["after"] - row["traced_back"],
    }
    told = [f"{points(value)} points if they are {way}" for way, value in change.items()]
    return f"from class names to descriptions, the worst 20 classes change by {join_names(told)}."
