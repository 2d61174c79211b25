"""Sentences and tables of chapter 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional.candidates import DESCRIPTION, TEMPLATE, Candidates
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import (
    counted,
    interval,
    join_names,
    name,
    percent,
    percent_number,
    points,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

Row = Mapping[str, Any]
OURS = ("enriched_cmm", "cmm_templates", "base")  # the project's ensemble: the first of these that was computed
SHOWN = 30  # classes in the map of weights

# ---------------------------------------------------------------- candidates and weights


def candidates(run: Run, described: Mapping[int, Tensor]) -> str:
    """Which texts are candidates, and of how many classes; what a study without a text tower lacks."""
    own = counted(len(run.prompts), _text(run))
    if run.backbone is None:
        lacks = "this study brings embeddings and no text tower, so what needs further texts is left out. "
    else:
        lacks = "" if described else "no class of this study has a description. "
    if not described:
        weighed = "" if len(run.prompts) > 1 else ": there is nothing to weigh, and the ensemble is that one text"
        return f"{lacks}Every class has {own} as its candidates{weighed}."
    sizes = [len(vectors) for vectors in described.values()]
    each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return (
        f"every class has {own} as its candidates; {len(described)} of {run.n_classes} classes, suspects of chapter 3, "
        f"have {each} descriptions too, {sum(sizes)} in all."
    )


def _text(run: Run) -> str:
    return "template" if run.backbone else "prompt"


def one_class(run: Run, candidates: Candidates, weights: Float[Tensor, "T"], c: int) -> str:
    """The candidates of a class, how many the cut leaves, the largest weight, and the share of the descriptions."""
    own = candidates.classes == c
    group, weight = candidates.groups[own], weights[own]
    texts = [counted(int((group == TEMPLATE).sum()), _text(run))]
    n, share = int((group == DESCRIPTION).sum()), float(weight[group == DESCRIPTION].sum())
    both = n > 0 and n < len(group)
    texts += [counted(n, "description")] if n else []
    half = f" The descriptions began with half of the weight and have {percent(share, 0)} now." if both else ""
    return (
        f"{name(run.classnames[c])} has {join_names(texts)}. The cut leaves {int((weight > 0).sum())} of {len(group)}; "
        f"the largest weight is {percent(float(weight.max()), 0)}.{half}"
    )


def changed(before: Int[Tensor, "N"], after: Int[Tensor, "N"]) -> str:
    """How many images the ensemble gives another class than the base prompt does."""
    n = int((before != after).sum())
    return f"the ensemble gives another class than the base prompt to {percent(n / len(before))} of the images."


def weight_grid(
    run: Run, candidates: Candidates, weights: Float[Tensor, "T"], described: Mapping[int, Tensor]
) -> tuple[Float[np.ndarray, "K M"], list[str], int]:
    """Weights of the candidates of the first described classes (NaN where a class has fewer), their names, and how many
    of the columns are templates.
    """
    n, shown = len(run.text_features), list(described)[:SHOWN]
    grid = np.full((len(shown), n + max((len(described[c]) for c in shown), default=0)), np.nan)
    for row, c in enumerate(shown):
        own = weights[candidates.classes == c].numpy()
        grid[row, : len(own)] = own
    return grid, [run.classnames[c] for c in shown], n


def description_share(grid: Float[np.ndarray, "K M"], n_templates: int) -> str:
    """How much of the weight the descriptions have, on average and class by class."""
    share = np.nansum(grid[:, n_templates:], axis=1)
    more, mean = int((share > 0.5).sum()), float(share.mean())
    word = "more" if mean > 0.5 else "less" if mean < 0.5 else "just as much"
    than = "than they began with" if mean != 0.5 else "as they began with"
    return (
        f"in the {counted(len(share), 'class', 'classes')} shown the descriptions have {percent(mean, 0)} of the "
        f"weight on average, {word} {than}; in {more} of them they have more than half."
    )


# ---------------------------------------------------------------- every method


def ours(rows: Sequence[Row]) -> Row:
    """The project's ensemble among the compared methods; the base prompt where there was nothing to weigh."""
    by_name = {row["name"]: row for row in rows}
    return by_name[next(name for name in OURS if name in by_name)]


def headline_k(rows: Sequence[Row]) -> str:
    """The worst set to speak of: 10; 20 where base prompt and ensemble both have 0 there; else what there is."""
    base, own = rows[0]["worst"], ours(rows)["worst"]
    defined = [k for k in ("10", "20", "5", "1") if base[k] is not None and own[k] is not None]
    saturated = defined[:2] == ["10", "20"] and base["10"] == own["10"] == 0
    return defined[1] if saturated else defined[0]


def settings(temperature: float, cut: float, rounds: int) -> str:
    """The settings of the weights, in the words of the chapter."""
    return (
        f"temperature {temperature:g} and cut {cut:g}, both in standard deviations of the CMMs of a class's "
        f"candidates; {counted(rounds, 'round')}."
    )


@titled("Every method on the same images")
def methods(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of `evaluation.ensemble_rows` in percent: overall, every worst set that is defined, classes at zero."""
    sizes = [k for k in rows[0]["worst"] if rows[0]["worst"][k] is not None]
    return pd.DataFrame(
        {
            "in %": display_name(row["name"]),
            "overall": percent_number(row["overall"]),
            **{f"own worst {k}": percent_number(row["worst"][k]) for k in sizes},
            "classes at 0": row["zero_classes"],
            "described": row["requests"],
        }
        for row in rows
    )


def headline(run: Run, rows: Sequence[Row]) -> str:
    """The ensemble beside the base prompt, overall and in the worst classes."""
    base, own, k = rows[0], ours(rows), headline_k(rows)
    images = f"on the {counted(len(run.image_features), 'image')} of {counted(run.n_classes, 'class', 'classes')}"
    if own is base:
        return f"{images}, the base prompt is the only classifier: {percent(base['overall'])} overall."
    texts = f", with descriptions of {counted(own['requests'], 'class', 'classes')}," if own["requests"] else ""
    worst = f"in its {_worst(k)}"
    zero = counted(own["zero_classes"], "class", "classes")
    return (
        f"{images}, *{display_name(own['name'])}*{texts} has {_against(own['overall'], base['overall'])} overall, and "
        f"{_against(own['worst'][k], base['worst'][k])} {worst}. It leaves {zero} without one recognised image, the "
        f"base prompt {base['zero_classes']}. {_best(rows)}"
    )


def all_described(rows: Sequence[Row]) -> str:
    """The published recipe, descriptions of every class in the place of its name, beside the base prompt."""
    found = next((row for row in rows if row["name"] == "describe_all"), None)
    if found is None:
        return ""
    base = rows[0]
    (low, high), (base_low, base_high) = found["overall_interval"], base["overall_interval"]
    apart = "clearly above it" if low > base_high else "clearly below it" if high < base_low else "not clearly apart"
    k = headline_k(rows)
    followed = ""
    if base["base_worst_split_half"].get("10") is not None:
        before, after = (percent(row["base_worst_split_half"]["10"]) for row in (base, found))
        followed = f" The base prompt's worst 10, chosen on other images, go from {before} to {after}."
    return (
        f"*{display_name(found['name'])}*, descriptions of every class in the place of its name, has "
        f"{_against(found['overall'], base['overall'])} overall ({apart}, by both intervals), "
        f"{percent(found['worst'][k])} in its {_worst(k)}, and {counted(found['zero_classes'], 'class', 'classes')} at "
        f"zero.{followed}"
    )


def _worst(k: str) -> str:
    return "worst class" if k == "1" else f"worst {k} classes"


def _against(value: float, start: float) -> str:
    difference = round(value - start, 9)
    if difference == 0:
        return f"{percent(value)} (as the base prompt)"
    word = "more" if difference > 0 else "less"
    return f"{percent(value)} ({points(abs(difference)).lstrip('+')} points {word} than the base prompt)"


def _best(rows: Sequence[Row]) -> str:
    """Which method without labels is best overall, which in the worst classes, and whether these are one."""
    blind, k = [row for row in rows if row["label_free"]], headline_k(rows)
    overall, worst = (_highest(blind, of) for of in (lambda row: row["overall"], lambda row: row["worst"][k]))
    said = f"Of the methods without labels, the highest overall accuracy is that of {_listed(overall)}"
    if overall == worst:
        return f"{said}; the same method is the highest in the {_worst(k)}."
    if len(worst) == len(blind):
        return f"{said}; in the {_worst(k)} all have {percent(blind[0]['worst'][k])}."
    shared = "" if overall & worst else " So the best average is not the best tail."
    return f"{said}; in the {_worst(k)} the highest is that of {_listed(worst)}.{shared}"


def _highest(rows: Sequence[Row], of: Callable[[Row], float]) -> set[str]:
    most = max(of(row) for row in rows)
    return {row["name"] for row in rows if of(row) == most}


def _listed(methods: set[str]) -> str:
    return join_names([f"*{display_name(method)}*" for method in sorted(methods)])


@titled("The base prompt's worst classes under every method")
def followed(rows: Sequence[Row]) -> pd.DataFrame:
    """The base prompt's worst classes under every method, in percent: chosen on these images, and on others."""
    counts = {k: n for k, n in rows[0]["base_worst_count"].items() if n}
    return pd.DataFrame(
        {"in %": display_name(row["name"])}
        | {
            head: percent_number(row[key][k])
            for k, n in counts.items()
            for head, key in (
                (f"base's worst {k} ({n} classes)", "base_worst"),
                (f"base's worst {k}, chosen on other images", "base_worst_split_half"),
            )
        }
        for row in rows
    )


def followed_set(rows: Sequence[Row]) -> str:
    """The base prompt's worst classes under the ensemble: chosen on the same images, and on others."""
    base, own = rows[0], ours(rows)
    counts = {k: n for k, n in base["base_worst_count"].items() if n}
    if not counts:
        return "fewer than 10 classes have images, so no worst 10 are followed."
    if own is base:
        return "there is no other method to follow them through."
    told = [_followed_set(k, n, base, own) for k, n in counts.items()]
    return f"from the base prompt to *{display_name(own['name'])}*: {'; '.join(told)}."


def _followed_set(k: str, n: int, base: Row, own: Row) -> str:
    same, other = ([row[key][k] for row in (base, own)] for key in ("base_worst", "base_worst_split_half"))
    ties = f" ({n} classes, because of ties at the last place)" if n > int(k) else ""
    said = f"the base prompt's worst {k}{ties}, from {percent(same[0])} to {percent(same[1])}"
    if None in other:
        return said
    changes = [points(after - before) for before, after in (same, other)]
    return (
        f"{said}, {changes[0]} points; chosen on other images, from {percent(other[0])} to {percent(other[1])}, "
        f"{changes[1]} points"
    )


@titled("Intervals of every method")
def intervals(rows: Sequence[Row]) -> pd.DataFrame:
    """The interval of overall accuracy, and the bracket of the worst classes."""
    k = headline_k(rows)
    return pd.DataFrame(
        {
            "method": display_name(row["name"]),
            "overall, 95 % interval": interval(row["overall_interval"]),
            f"worst {k}, bracket": interval((row["worst"][k], row["worst_split_half"][k])),
        }
        for row in rows
    )


def overlap(rows: Sequence[Row]) -> str:
    """The methods without labels whose overall interval overlaps with the ensemble's."""
    own = ours(rows)
    low, high = own["overall_interval"]
    others = [row for row in rows if row["label_free"] and row is not own]
    if not others:
        return "there is no other method without labels to compare with."
    near = [r["name"] for r in others if r["overall_interval"][0] <= high and r["overall_interval"][1] >= low]
    which = f": {_listed(set(near))}" if near else ""
    return (
        f"the overall interval of *{display_name(own['name'])}* overlaps with those of {len(near)} of "
        f"{counted(len(others), 'other method')} without labels{which}."
    )
