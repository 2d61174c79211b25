"""Sentences and tables of the chapter on real CLIP: published accuracies per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.evaluation import published
from cmmlib.report.formatting import counted, decimal, join_names, names, percent, plain, points
from cmmlib.report.titles import titled
from cmmlib.study.run import Run
from cmmlib.study.study import FETCH

PAPER = 0.641  # overall accuracy on ImageNet in the abstract of Shao et al., with ten classes at 0
SOURCE = "In the published numbers"  # how a sentence begins that is not of this run
SHOWN = 5  # rows of the first table
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
    return f"{run.study.public()['dataset']}, {run.facts['model']['backbone'] or 'embeddings'}"


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
    """Does scale repair the tail? With the same training data, the smallest model and the largest; then more data."""
    rows: dict[str, list[Row]] = {}
    for row in sorted(models.to_dict("records"), key=_size):
        rows.setdefault(row["pretrained"], []).append(row)
    large = [f"{plain(data)}, from {_ends(some, 'backbone')}" for data, some in rows.items() if len(some) > 2]
    same = [row for some in rows.values() for row in some if row["backbone"] == "ViT-B-32"]
    more = _ends(sorted(same, key=lambda row: row["overall"]), "pretrained")
    steps = [np.diff([row["worst_10"] for row in some]) for some in rows.values()]
    up, down = (sum(int(np.count_nonzero(sign * step > 0)) for step in steps) for sign in (1, -1))
    return (
        f"overall and in the worst 10 classes, with the same training data: {'; '.join(large)}. Over the "
        f"{sum(map(len, steps))} steps from one size to the next, the worst 10 rise in {up} and fall in {down}. With "
        f"ViT-B-32 and other training data: from {more}."
    )


def _ends(rows: Sequence[Row], key: str) -> str:
    told = [f"{plain(row[key])} ({percent(row['overall'])}, {percent(row['worst_10'])})" for row in (rows[0], rows[-1])]
    return " to ".join(told)


def prompts(changes: pd.DataFrame) -> str:
    """In how many models better prompts raise the average and the worst classes: on ImageNet and over all data sets."""
    rows = {row["data"]: row for row in changes.to_dict("records")}
    first = rows["imagenet"]
    columns = ("models", "overall_up", "worst_up", "worst_down")
    pairs, up, worst_up, worst_down = (sum(row[c] for row in rows.values()) for c in columns)
    return (
        f"on ImageNet, 80 templates in place of one raise overall accuracy in {first['overall_up']} of "
        f"{first['models']} models, and the worst twentieth in {first['worst_up']} (it falls in "
        f"{first['worst_down']}). Over all data sets, overall rises in {up} of {pairs} pairs of model and data set; "
        f"the worst twentieth rises in {worst_up}, falls in {worst_down} and stays as it is in "
        f"{pairs - worst_up - worst_down}."
    )


def worst_ten(models: pd.DataFrame, data: str = "imagenet") -> str:
    """The same question for the worst 10 classes of one data set."""
    change = published.changes(models[models["data"] == data], "worst_10")
    up, down = int(np.count_nonzero(change > 0)), int(np.count_nonzero(change < 0))
    at_zero = Counter(
        (row["backbone"], row["pretrained"])
        for row in models.to_dict("records")
        if row["data"] == data and row["worst_10"] == 0
    )
    floor = sum(n == len(published.PROMPTS) for n in at_zero.values())
    return (
        f"with the templates in place of one, the worst 10 classes of ImageNet rise in {up} of {len(change)} models, "
        f"fall in {down} and stay as they are in {len(change) - up - down}; in {floor} models they are at 0 under "
        "every prompt set."
    )


@titled("What the prompt ensemble changes, data set by data set")
def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """`published.prompt_changes` in points."""
    return pd.DataFrame(
        {
            "data set": changes["data"],
            "overall": changes["overall"].map(points),
            "rises in": [f"{r['overall_up']} of {r['models']}" for r in changes.to_dict("records")],
            "worst twentieth": changes["worst"].map(points),
            "rises in ": [f"{r['worst_up']} of {r['models']}" for r in changes.to_dict("records")],
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
