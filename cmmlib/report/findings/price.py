"""Sentences and tables of chapter 5: what the corrections cost where classes are not equally frequent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.functional.resampling import LONG_TAIL
from cmmlib.report.formatting import (
    counted,
    join_names,
    percent,
    percent_number,
    points,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

CLEAR = 2.0  # a mean change counts as a gain or a loss when it is more than so many standard errors from zero


def measured_on(part: Run, run: Run) -> str:
    """Which part of a large study what follows was measured on; empty where it was the whole."""
    if part.n_classes == run.n_classes:
        return ""
    images = counted(len(part.image_features), "image")
    return (
        f"this study is large, so this is fitted and measured on {part.n_classes:,} of its {run.n_classes:,} "
        f"classes, drawn by the seed, with all of their images ({images}). With fewer classes to be taken for, an "
        "image is right more easily, so these accuracies do not compare with the others of this chapter; the question "
        "here is how they change."
    )


@titled("Change of accuracy, by the class frequencies of the images")
def prices(drawn: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of the change of overall accuracy, a row a law and method. `drawn` is of `prior_shift.draws`."""
    rows = [(law, way, values) for law, ways in _changes(drawn).items() for way, values in ways.items()]
    return pd.DataFrame(
        {
            "class frequencies": law,
            "method": way,
            "mean change (points)": points(float(values.mean())),
            "standard deviation (points)": percent_number(float(values.std(ddof=1)) if len(values) > 1 else None),
        }
        for law, way, values in rows
    )


def _changes(drawn: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """law -> method -> the change in each draw."""
    found: dict[str, dict[str, list[float]]] = {}
    for law, way, change in zip(drawn["kind"], drawn["method"], drawn["change"], strict=True):
        found.setdefault(str(law), {}).setdefault(str(way), []).append(float(change))
    return {law: {way: np.array(values) for way, values in ways.items()} for law, ways in found.items()}


def largest_changes(drawn: pd.DataFrame) -> str:
    """The largest mean gain and the largest mean loss of overall accuracy: of which method, under which law."""
    mean = {(way, law): values.mean() for law, ways in _changes(drawn).items() for way, values in ways.items()}
    told = []
    for what, most in (("gain", max(mean.values())), ("loss", min(mean.values()))):
        at = [f"*{way}* with the frequencies *{law}*" for (way, law), value in mean.items() if value == most]
        is_one = most > 0 if what == "gain" else most < 0
        told.append(f"the largest mean {what} is {points(most)} points: {join_names(at)}" if is_one else f"no {what}")
    return f"overall, {'; '.join(told)}."


def price_by_law(drawn: pd.DataFrame) -> str:
    """For each law of class frequencies: which ways gain and lose, beyond the draws' chance, and the highest."""
    found = _changes(drawn)
    if not found:
        return "there are too few images to draw from."
    n = max(len(values) for ways in found.values() for values in ways.values())
    how = (
        f"{counted(n, 'draw')} of each law; in the long tail the first class has {LONG_TAIL:.0f} times the frequency "
        "of the last. Mean changes in points:"
    )
    return "\n\n".join([how, "\n".join(f"- *{law}*: {_of_law(ways)}" for law, ways in found.items())])


def _of_law(ways: Mapping[str, np.ndarray]) -> str:
    mean = {way: float(values.mean()) for way, values in ways.items()}
    sure = [way for way, values in ways.items() if abs(mean[way]) > CLEAR * _standard_error(values)]
    kinds = {"gain": [way for way in sure if mean[way] > 0], "lose": [way for way in sure if mean[way] < 0]}
    told = [f"{kind}: {join_names([f'{w} ({points(mean[w])})' for w in some])}" for kind, some in kinds.items() if some]
    best = max(kinds["gain"], key=lambda way: mean[way], default="the classifier as it is")
    level = _level_with(best, ways)
    near = f", not clearly above {join_names(level)}" if level else ""
    return f"{'; '.join(told) or 'no way gains or loses clearly'}. Highest: {best}{near}."


def _level_with(best: str, ways: Mapping[str, np.ndarray]) -> list[str]:
    """The ways that are not clearly below the best one, by their differences on the same draws."""
    if best not in ways:
        return []
    apart = {way: ways[best] - values for way, values in ways.items() if way != best}
    return [way for way, lead in apart.items() if lead.mean() <= CLEAR * _standard_error(lead)]


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("inf")


def shown_k(rows: Sequence[Mapping[str, Any]]) -> str:
    """The worst set that the curves show: 10, or 20 where the worst 10 of some correction are at 0 at every point.

    Args:
        rows: of `prior_shift.sizes` and `prior_shift.strengths`.
    """
    flat = any(all(row["worst_10"] == 0 for row in part) for part in _by_method(rows, "worst_20").values())
    return "20" if flat else "10"


def _measures(k: str) -> dict[str, str]:
    """Columns of a curve, as a sentence names them."""
    return {"overall": "overall", f"worst_{k}": f"in the worst {k}"}


def enough_images(rows: Sequence[Mapping[str, Any]], base: tuple[float | None, float | None], k: str = "10") -> str:
    """From how many reference images per class on each correction is above the plain classifier, and with how many it
    is best.

    Args:
        rows: of `prior_shift.sizes`.
        base: overall and worst-k of the plain classifier.
        k: see `shown_k`.
    """
    told = []
    for (key, label), plain in zip(_measures(k).items(), base, strict=True):
        if plain is not None:
            ways = [f"{way} {_from(part, key, plain)}" for way, part in _by_method(rows, key).items()]
            told += [f"{label}, {join_names(ways)}"] if ways else []
    counts = sorted({row["count"] for row in rows})
    sizes = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    images = "image" if counts == [1] else "images"
    said = f"with {sizes} reference {images} per class, higher than the plain classifier: {'; '.join(told)}."
    return (
        said
        if len(counts) == 1
        else f"{said} With so many images per class each is highest: {_highest(rows, 'count', k)}."
    )


def _by_method(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each method in which a value is defined."""
    defined = [row for row in rows if row[key] is not None]
    return {
        way: [row for row in defined if row["method"] == way] for way in dict.fromkeys(r["method"] for r in defined)
    }


def _from(rows: Sequence[Mapping[str, Any]], key: str, plain: float) -> str:
    above = [row[key] > plain for row in rows]
    if all(above):
        return "at all of these sizes"
    if not any(above):
        return "at none of these sizes"
    first = len(above) - above[::-1].index(False)  # after the last size at which it is not
    if first < len(above) and not any(above[:first]):
        return f"from {rows[first]['count']} on"
    return f"with {join_names([str(row['count']) for row, is_above in zip(rows, above, strict=True) if is_above])} only"


def best_strengths(rows: Sequence[Mapping[str, Any]], k: str = "10") -> str:
    """At which strength of the bias each correction is best on this run. `rows` are of `prior_shift.strengths`."""
    highest = _highest(rows, "strength", k)
    return f"with the class frequencies of these images, the highest accuracy is at strength: {highest}."


def _highest(rows: Sequence[Mapping[str, Any]], over: str, k: str) -> str:
    """Where along a column each method is best, overall and in the worst k."""
    told = []
    for key, label in _measures(k).items():
        ways = [f"{way} {_best(part, key, over)}" for way, part in _by_method(rows, key).items()]
        told += [f"{label}, {join_names(ways)}"] if ways else []
    return "; ".join(told)


def _best(rows: Sequence[Mapping[str, Any]], key: str, over: str) -> str:
    most = max(row[key] for row in rows)
    at = [f"{row[over]:g}" for row in rows if row[key] == most]
    return f"{'all alike' if len(at) == len(rows) else join_names(at)} ({percent(most)})"
