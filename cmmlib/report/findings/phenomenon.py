"""Sentences and tables of chapter 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

import cmmlib.functional as F
from cmmlib.blazon.language.plain_english import glosses
from cmmlib.functional.accuracy import ClassAccuracy
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import counted, interval, join_names, name, percent, percent_number, plain
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

WIDE = 0.05  # a bracket wider than this is called so


def best_and_worst(run: Run, accuracy: ClassAccuracy, report: Mapping[str, Any]) -> str:
    """Overall accuracy beside that of the best and the worst k classes, and the names of the lowest."""
    k = run.worst_k
    best, worst = F.worst_at_k(-accuracy.value, k), F.worst_at_k(accuracy.value, k)
    return (
        f"the classifier is right on {percent(report['overall'])} of the images (95 % interval "
        f"{interval(report['overall_interval'])}), on {percent(None if best is None else -best)} in its best "
        f"{counted(k, 'class', 'classes')} and on {percent(worst)} in its worst {k}. {_lowest(run, accuracy)}"
    )


def _lowest(run: Run, accuracy: ClassAccuracy, shown: int = 5) -> str:
    """The lowest classes by name; of many at one accuracy, some, with their number."""
    lowest = F.true_worst(accuracy.value, 1).nonzero()[:, 0].tolist()
    spoken = [_spoken(run, c) for c in lowest[:shown]]
    if len(lowest) == 1:
        return f"The lowest is {spoken[0]}, at {percent(accuracy.value[lowest[0]].item())}."
    listed = "; ".join(spoken)
    more = f" and {len(lowest) - shown} more" if len(lowest) > shown else ""
    return (
        f"{len(lowest)} classes share the lowest accuracy, {percent(accuracy.value[lowest[0]].item())}: {listed}{more}."
    )


def _spoken(run: Run, c: int) -> str:
    """A class's name; a coat of arms with its plain English behind it."""
    plain_english = glosses(run.pictures)
    return name(run.classnames[c]) + (f" ({plain_english[c]})" if plain_english else "")


def low_classes(accuracy: ClassAccuracy) -> str:
    """How many classes are never recognised, and how many less than half as often as all images are."""
    zero = int((accuracy.value == 0).sum())
    low, n = int((accuracy.value < accuracy.overall / 2).sum()), int((accuracy.count > 0).sum())
    never = counted(zero, "class", "classes")
    return f"{never} without one recognised image; {low} of {n} below half of the overall accuracy."


def tied_halves(report: Mapping[str, Any], accuracy: ClassAccuracy) -> str:
    """Why split half is one number for several k, where it is: so many classes tie at zero on each half."""
    halves = report["worst_split_half"]
    zero = int(((accuracy.value == 0) & (accuracy.count > 1)).sum())  # one image is in one half alone
    ks = [k for k, value in halves.items() if value is not None and int(k) <= zero]
    if len(ks) < 2:
        return ""
    return (
        f"Split half is the same for k = {join_names(ks)}: {zero} classes are at zero on each half of the images, and "
        "of classes that tie each counts in part."
    )


def names_told_apart(run: Run, published: Mapping[str, Any], told_apart: Mapping[str, Any]) -> str:
    """Which names were shared, what stands in their place, and the classes at zero under both lists."""
    assert run.disambiguated is not None
    pairs = [(old, new) for old, new in zip(run.classnames, run.disambiguated, strict=True) if old != new]
    shared = join_names(sorted({f'"{plain(old)}"' for old, _ in pairs}))
    distinct = join_names([f'"{plain(new)}"' for _, new in pairs])
    return (
        f"shared names: {shared}; told apart: {distinct}. Classes at zero: {published['zero_classes']} as published, "
        f"{told_apart['zero_classes']} with the names told apart."
    )


def swallowed_and_scattered(fates: pd.DataFrame) -> str:
    """Of the worst classes, the one that another takes most of, and the one whose images scatter most."""
    swallowed = fates.sort_values("other", ascending=False, kind="stable").iloc[0]
    scattered = fates.sort_values("rest", ascending=False, kind="stable").iloc[0]
    taken = f"{percent(swallowed['other'], 0)} of the images of {name(swallowed['name'])}"
    spread = f"{percent(scattered['rest'], 0)} of the images of {name(scattered['name'])}"
    return (
        f"the most that one other class takes is {taken}, which are called {name(swallowed['taken_for'])}. The most "
        f"that scatter over further classes are {spread}."
    )


def rarely_predicted(predicted: Int[Tensor, "C"]) -> str:
    """How many classes are never predicted, and how many for less than a tenth of an even share of the images."""
    never, rarely = int((predicted == 0).sum()), int((predicted < 0.1 * predicted.sum() / len(predicted)).sum())
    return (
        f"{never} of {len(predicted)} classes are never predicted; {rarely}, these included, for fewer than a tenth of "
        "an even share of the images."
    )


def bracket(
    accuracy: ClassAccuracy, ks: Sequence[int], naive: Sequence[float | None], halves: Sequence[float | None], k: int
) -> str:
    """Images a class, the bracket of worst@k, and how wide it is."""
    index = min(k, len(ks)) - 1
    images, low, high = int(accuracy.count[accuracy.count > 0].double().median()), naive[index], halves[index]
    told = f"a class has {counted(images, 'image')} (median); the bracket of worst@{ks[index]} is"
    if low is None or high is None:
        return f"{told} {interval((low, high))}: there are too few images or classes for one."
    width = high - low
    more = f", more than {100 * WIDE:.0f}: more images a class would narrow it" if width > WIDE else ""
    return f"{told} {interval((low, high))}, {percent_number(width)} points wide{more}."


def fixed_set(accuracies: Float[Tensor, "n"], k: int, bootstrap: Sequence[float | None] | None) -> str:
    """The mean of the worst classes with its bootstrap interval, taken as a set that was fixed before.

    Args:
        accuracies: of the k worst classes, and of those that tie with the last of them.
    """
    n = len(accuracies)
    if not n:
        return f"fewer than {counted(k, 'class', 'classes')} have images, so there is no set of the worst {k}."
    ties = f" ({k}, and those that tie with the last)" if n > k else ""
    return (
        f"the mean accuracy of the {counted(n, 'class', 'classes')} of lowest accuracy{ties} is "
        f"{percent(float(accuracies.double().mean()))}. Its 95 % bootstrap interval is {interval(bootstrap)}: where "
        "the mean of *these* classes would lie on other images, were they not chosen for being low on these."
    )


# ---------------------------------------------------------------- tables

WORST_COLUMNS = {
    "worst": "worst@k",
    "worst_split_half": "split half",
    "worst_without_duplicates": "without duplicates",
}
MEANS = ("overall", "mean_per_class", "geometric_mean", "harmonic_mean")
FLOORED = ("geometric_mean_floored", "harmonic_mean_floored")


@titled("Accuracy of the k worst classes")
def worst_at_k(report: Mapping[str, Any]) -> pd.DataFrame:
    """worst@k of an accuracy report: as measured, split half, and without classes that share a name or a text."""
    table = pd.DataFrame({head: pd.Series(report[key]) for key, head in WORST_COLUMNS.items()}).map(percent)
    return table.rename_axis("k").reset_index()


@titled("Means of the class accuracies")
def means(report: Mapping[str, Any]) -> pd.DataFrame:
    """The means of an accuracy report, the mildest first."""
    rows = [(display_name(key), percent(report[key])) for key in (*MEANS, *FLOORED)]
    return pd.DataFrame(rows, columns=["summary", "accuracy"])


def fates_of_classes(
    run: Run, accuracy: ClassAccuracy, other: Int[Tensor, "C"], share: Float[Tensor, "C"], classes: Int[Tensor, "n"]
) -> pd.DataFrame:
    """Where the images of some classes go: shares `own`, `other`, `rest`, and the names: `name`, `taken_for`.

    Args:
        other, share: for every class, the wrong class that takes most of its images, and how many (`F.taken_for`).
    """
    frame = pd.DataFrame({"own": accuracy.value[classes], "other": share[classes]})
    frame["rest"] = 1 - frame["own"] - frame["other"]
    return frame.assign(name=run.names(classes), taken_for=run.names(other[classes]))


@titled("Names as published, and told apart")
def told_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """`evaluation.tables.names_table` in percent."""
    return frame.assign(**{column: frame[column].map(percent) for column in frame.columns[1:]})
