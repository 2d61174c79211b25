"""Sentences and tables of chapter 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

import cmmlib.functional as F
from cmmlib.evaluation.evaluation import gains_and_losses, most_lost
from cmmlib.functional.accuracy import ClassAccuracy
from cmmlib.functional.prior_matching import Correction
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import (
    counted,
    decimal,
    join_names,
    name,
    percent,
    percent_number,
    points,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

OWN = ("prior_matching", "prototypes")  # this chapter's corrections, among the compared methods
MADE_HERE = (*OWN, "gaussians")  # and a variant
KINDS = ("base prompt", "hub remedies and published methods", "this chapter's corrections")

# ---------------------------------------------------------------- prior matching and prototypes


def by_hand(bias: Float[Tensor, "C"], found: Correction, rounds: int, converged: bool, difference: float) -> str:
    """How many rounds the loop and the library took, and how far their biases and probabilities lie apart.

    Args:
        difference: of the probabilities, summed over classes, mean over images.
    """
    apart = (bias - bias.mean()) - (found.bias - found.bias.mean())
    took = f"the loop took {counted(rounds, 'round')}, the library {found.rounds}"
    if not (converged and found.converged):
        which = "the library has not" if converged else "the loop has not" if found.converged else "neither has"
        return f"{took}; {which} reached the prior, so the two need not agree."
    return (
        f"{took}. Their biases differ by at most {decimal(float(apart.abs().max()), 3)} logits, and the probabilities "
        f"that they give to an image by {decimal(difference, 5)} in sum, on average over the images."
    )


def moved(run: Run, pair: Sequence[int], matched: Correction, before: Int[Tensor, "N"], after: Int[Tensor, "N"]) -> str:
    """How prior matching moves the predictions: between one pair of classes, and in all.

    Args:
        pair: the class that gives most images to the other (`hub_and_under_predicted`).
    """
    change = float((before != after).double().mean())
    settled = "reached the prior" if matched.converged else "stopped before it reached the prior"
    search = f"The search for the bias {settled}, after {counted(matched.rounds, 'round')}."
    if change == 0:
        return f"no image changes class. {search}"
    hub, gaining = pair
    n = int(((before == hub) & (after == gaining)).sum())
    second = name(run.classnames[gaining])
    sizes = [int((p == gaining).sum()) for p in (before, after)]
    return (
        f"no move between two classes has more images than that from {name(run.classnames[hub])} to "
        f"{second}, {counted(n, 'image')}. The bias of the second is "
        f"{decimal(float(matched.bias[gaining] - matched.bias[hub]), 1)} logits higher. {second} was predicted for "
        f"{sizes[0]:,} of {len(before):,} images, and then for {sizes[1]:,}; an even share is "
        f"{len(before) / run.n_classes:,.0f}. In all, {percent(change)} of the images change class. {search}"
    )


@titled("How the fits ended")
def fits(corrections: Mapping[str, Correction]) -> pd.DataFrame:
    """Rounds of each correction, and whether it converged."""
    return pd.DataFrame(
        {"correction": display_name(key), "rounds": found.rounds, "converged": "yes" if found.converged else "no"}
        for key, found in corrections.items()
    )


# ---------------------------------------------------------------- the gain


def kinds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each compared method is, for the figure's legend."""
    return [KINDS[0] if row["name"] == "base" else KINDS[2 if row["name"] in MADE_HERE else 1] for row in rows]


def worst_ks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The worst sets to speak of: 10 and 20 as far as there are so many classes, else the largest that there is."""
    sizes = [k for k in rows[0]["worst"] if all(row["worst"][k] is not None for row in rows)]
    return [k for k in ("10", "20") if k in sizes] or sizes[-1:]


def gains(rows: Sequence[Mapping[str, Any]]) -> str:
    """The base prompt beside this chapter's corrections, and which method has the highest value of each kind."""
    shown = [row for row in rows if row["name"] in ("base", *OWN)]
    best = [f"overall, {_highest(rows, lambda row: row['overall'])}"]
    best += [f"in the worst {k}, {_highest(rows, lambda row, k=k: row['worst'][k])}" for k in worst_ks(rows)]
    told = "; ".join(_values(row, _telling(shown)) for row in shown)
    return f"{told}. The highest accuracy: {'; '.join(best)}. The fewest classes at zero: {_fewest(rows)}."


def _values(row: Mapping[str, Any], ks: Sequence[str]) -> str:
    worst = [f"{percent(row['worst'][k])} in its worst {k}" for k in ks]
    said = "the base prompt" if row["name"] == "base" else display_name(row["name"])
    zero = f"{counted(row['zero_classes'], 'class', 'classes')} at zero"
    return f"{said}: {percent(row['overall'])} overall, {', '.join(worst)}, {zero}"


def _telling(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the worst sets to speak of, those that are not at zero in every row; else the largest."""
    sizes = worst_ks(rows)
    return [k for k in sizes if any(row["worst"][k] > 0 for row in rows)] or sizes[-1:]


def _highest(rows: Sequence[Mapping[str, Any]], value: Any) -> str:
    most = max(value(row) for row in rows)
    best = [display_name(row["name"]) for row in rows if value(row) == most]
    return f"{percent(most)} by every method" if len(best) == len(rows) else f"{join_names(best)} ({percent(most)})"


def _fewest(rows: Sequence[Mapping[str, Any]]) -> str:
    least = min(row["zero_classes"] for row in rows)
    best = [display_name(row["name"]) for row in rows if row["zero_classes"] == least]
    return f"{least} under every method" if len(best) == len(rows) else f"{join_names(best)} ({least})"


def fitted_on_part(n_images: int, n_classes: int) -> str:
    """On how many images InMaP was fitted, where that was not all; else empty."""
    n = F.inmap_images(n_images, n_classes)
    told = f"InMaP is fitted on {counted(n, 'image')} of {n_images:,}, drawn at random, and judged on all."
    return told if n < n_images else ""


def neighbours(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the methods of others, how many gain overall, and how many of these in the worst classes too."""
    (base,) = (row for row in rows if row["name"] == "base")
    others = [row for row in rows if row["name"] not in ("base", *MADE_HERE)]
    up = [row for row in others if row["overall"] > base["overall"]]
    tails = [f"{sum(row['worst'][k] > base['worst'][k] for row in up)} in the worst {k}" for k in worst_ks(rows)]
    fewer = sum(row["zero_classes"] < base["zero_classes"] for row in up)
    of_these = f" Of these, higher too: {join_names(tails)}; with fewer classes at zero: {fewer}." if up else ""
    have = "has" if len(up) == 1 else "have"
    count = f"{len(up)} of {len(others)} methods of others {have} a higher overall accuracy than the base prompt."
    return f"{count}{of_these}"


def followed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The classes that were worst under the base prompt, followed, also where they were chosen on other images."""
    by_name = {row["name"]: row for row in rows}
    base, told = by_name["base"], []
    for k, n in base["base_worst_count"].items():
        if not n:
            continue
        ways = [f"{percent(by_name[key]['base_worst'][k])} under {display_name(key)}" for key in OWN if key in by_name]
        halves = _on_other_halves(by_name, k)
        change = f"go from {percent(base['base_worst'][k])} to {join_names(ways)}"
        told.append(f"the base prompt's worst {k} ({_tied(n, int(k))}) {change}{halves}")
    return "; ".join(told) + "." if told else ""


def _tied(n: int, k: int) -> str:
    return "no ties" if n == k else f"{n} classes, with all that tie"


def _on_other_halves(by_name: Mapping[str, Mapping[str, Any]], k: str) -> str:
    """The same set, chosen on one half of the images and measured on the other: free of regression to the mean."""
    values = [by_name[key]["base_worst_split_half"][k] for key in ("base", *OWN) if key in by_name]
    if any(value is None for value in values):
        return ""
    first, *rest = map(percent, values)
    return f" (chosen on one half of the images and measured on the other: from {first} to {join_names(rest)})"


@titled("Fitted on these images, and on others")
def here_and_elsewhere(sections: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The corrections, fitted on the images that they are judged on, and on other ones; in percent."""
    ways = [(key, "here", found) for key, found in sections.items()]
    ways += [(key, "elsewhere", found["inductive"]) for key, found in sections.items()]
    return pd.DataFrame(
        {
            "in %": display_name(key),
            "fitted": where,
            "overall": percent_number(found["overall"]),
            **{f"worst {k}": percent_number(found["worst"][k]) for k in ("10", "20")},
            "worst 10, split half": percent_number(found["worst_split_half"]["10"]),
            "classes at zero": found["zero_classes"],
        }
        for key, where, found in ways
    )


def elsewhere(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """What fitting on other images changes."""
    changes = [
        f"{display_name(key)} {_change(found['inductive']['overall'] - found['overall'])}"
        for key, found in sections.items()
    ]
    return f"fitted on the other half of the images instead of on all of them, overall accuracy: {join_names(changes)}."


def _change(difference: float) -> str:
    said = points(difference)
    return "unchanged" if said == "0.0" else f"{said} points"


# ---------------------------------------------------------------- who loses


def winners_and_losers(
    run: Run,
    before: Float[Tensor, "C"],
    after: Float[Tensor, "C"],
    predicted: Int[Tensor, "C"],
    label: str = "prototypes",
) -> str:
    """How many classes gain and lose more than five points, and of the losers how many were predicted most.

    Args:
        predicted: images predicted as each class by the base prompt.
    """
    up, down = gains_and_losses(before.numpy(), after.numpy())
    gain, loss = int(up.sum()), int(down.sum())
    said = (
        f"with {label}, {_classes(gain)} more than five points, and {loss} {'loses' if loss == 1 else 'lose'} as much."
    )
    if not down.any():
        return said
    lost = np.flatnonzero(down)
    over = int((predicted[lost] > predicted.sum() / len(predicted)).sum())
    most = most_lost(before.numpy(), after.numpy(), run.classnames)[0]
    change = f"from {percent(before[most].item())} to {percent(after[most].item())}"
    return (
        f"{said} Of those that lose, {over} had been predicted for more than an even share of the images. "
        f"No class loses more than {name(run.classnames[most])}, {change}."
    )


def _classes(n: int) -> str:
    return f"{counted(n, 'class', 'classes')} {'gains' if n == 1 else 'gain'}"


# ---------------------------------------------------------------- together with the ensemble


def orders(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the corrections add to the ensemble, and whether the order matters."""
    by_name = {row["name"]: row for row in rows}
    k = _telling(rows)[0]
    told = [f"overall, and in the worst {k}: the ensemble alone {_pair(by_name['ensemble'], k)}"]
    for key in OWN:
        first, second = by_name[f"ensemble, then {key}"], by_name[f"{key}, then ensemble"]
        label, alone = display_name(key), by_name[f"{key} alone"]
        ways = {"alone": alone, "fitted to the ensemble": first, "before it": second}
        told.append(f"{label} {', '.join(f'{way} {_pair(row, k)}' for way, row in ways.items())}")
    best = f"highest overall: {_highest(rows, lambda row: row['overall'])}"
    return f"{'; '.join(told)}. The {best}; highest in the worst {k}: {_highest(rows, lambda row: row['worst'][k])}."


def _pair(row: Mapping[str, Any], k: str) -> str:
    return f"{percent(row['overall'])} and {percent(row['worst'][k])}"


# ---------------------------------------------------------------- what it means


def lost_or_under_predicted(before: ClassAccuracy | Float[Tensor, "C"], after: Mapping[str, Float[Tensor, "C"]]) -> str:
    """Of the classes without one recognised image, how many have one with each correction."""
    value = before.value if isinstance(before, ClassAccuracy) else before
    zero = value == 0
    if not bool(zero.any()):
        return "under the base prompt, every class with images has at least one that is recognised."
    back = [f"{int((now[zero] > 0).sum())} with {display_name(key)}" for key, now in after.items()]
    return (
        f"{counted(int(zero.sum()), 'class', 'classes')} had no recognised image under the base prompt; "
        f"of these, recognised at least once: {join_names(back)}."
    )
