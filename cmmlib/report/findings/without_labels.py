"""Sentences and tables of chapter 8: what can be said of images without their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

import cmmlib.functional as F
from cmmlib.functional.prior_matching import Correction
from cmmlib.report.display_names import display_name
from cmmlib.report.findings.cmm import in_plain_english
from cmmlib.report.formatting import counted, decimal, interval, join_names, name, names, percent, signed
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

SHOWN = 5  # classes at either end of a list
FEW = 0.1  # of an even share of the images: a class that is predicted for less is predicted rarely
COUNTS = (6, 10, 20, 50, 100)  # labelled images of one class

# ---------------------------------------------------------------- suspects


@titled("The suspects")
def suspects(
    run: Run,
    cmm: Float[Tensor, "C"],
    classes: Sequence[int],
    rival: Int[Tensor, "C"],
    predicted: Int[Tensor, "C"],
) -> pd.DataFrame:
    """The suspected classes with their CMM, their rival and the images predicted as them.

    Args:
        classes: of lowest CMM, the lowest first.
        rival: for every class, the class that it is confused with most (`F.rivals`).
    """
    return pd.DataFrame(
        {
            "class": run.names(torch.tensor(classes)),
            **in_plain_english(run, classes),
            "CMM": [signed(float(cmm[c])) for c in classes],
            "rival": run.names(rival[list(classes)]),
            "images predicted": [int(predicted[c]) for c in classes],
        }
    )


def behind_their_rivals(cmm: Float[Tensor, "C"], classes: Sequence[int], rival: Int[Tensor, "C"]) -> str:
    """How many suspects are behind their rivals on average, and how many are rivals of each other."""
    pairs = {frozenset((c, int(rival[c]))) for c in classes if int(rival[c]) in classes and int(rival[rival[c]]) == c}
    behind = int((cmm[list(classes)] < 0).sum())
    are = "is" if len(pairs) == 1 else "are"
    mutual = f"{counted(len(pairs), 'pair')} of suspects {are}" if pairs else "No two suspects are"
    return (
        f"{behind} of {counted(len(classes), 'suspect')} and {int((cmm < 0).sum())} of all {len(cmm)} classes have a "
        "negative CMM: on the images that count for them, they are behind their best rival on average. "
        f"{mutual} each other's rival."
    )


# ---------------------------------------------------------------- counts of predictions


@titled("The classes that are predicted most and least")
def counts(run: Run, predicted: Int[Tensor, "C"], shown: int = SHOWN) -> pd.DataFrame:
    """The classes that receive the fewest and the most images, the fewest first; all where there are few classes."""
    order = predicted.argsort(stable=True)
    order = order if len(order) <= 2 * shown else order[[*range(shown), *range(-shown, 0)]]
    even = float(predicted.sum()) / len(predicted)
    return pd.DataFrame(
        {
            "class": run.names(order),
            **in_plain_english(run, order.tolist()),
            "images predicted": predicted[order].tolist(),
            "even shares": [decimal(float(n) / even, 1) for n in predicted[order]],
        }
    )


def most_and_least(run: Run, predicted: Int[Tensor, "C"]) -> str:
    """How unevenly the predictions are spread over the classes."""
    n, even = len(predicted), float(predicted.sum()) / len(predicted)
    never, rarely = int((predicted == 0).sum()), int((predicted < FEW * even).sum())
    if predicted.max() == predicted.min():
        return f"every class receives {counted(int(predicted[0]), 'image')}."
    top = predicted.sort(descending=True).values[: max(1, round(n / 10))]
    first = run.names((predicted == predicted.max()).nonzero()[:, 0])
    most = name(first[0]) if len(first) == 1 else f"each of {len(first)} classes"
    share = percent(float(top.sum()) / float(predicted.sum()))
    return (
        f"classes that are never predicted: {never} of {n}; predicted for fewer than a tenth of an even share, which "
        f"is {even:,.1f} images: {rarely}, with these. The most images, {int(predicted.max()):,}, are predicted as "
        f"{most}. Of all images, {share} go to the {counted(len(top), 'class', 'classes')} predicted most."
    )


# ---------------------------------------------------------------- how the predictions move


def changes(
    base: Int[Tensor, "N"], answers: Mapping[str, Int[Tensor, "N"]], suspected: Sequence[int], n_classes: int
) -> dict[str, dict[str, Any]]:
    """What each method does to the base prompt's predictions, as results.json has it.

    Returns:
        method -> `n_changed` images of another class than before, their `share`, `never_predicted` classes after, and
        `suspects_before` and `suspects_after`: the images predicted as one of the suspects.
    """
    chosen = np.isin(base.numpy(), list(suspected))
    found = {}
    for method, prediction in answers.items():
        changed = prediction != base
        found[method] = {
            "n_changed": int(changed.sum()),
            "share": float(changed.double().mean()),
            "never_predicted": int((prediction.bincount(minlength=n_classes) == 0).sum()),
            "suspects_before": int(chosen.sum()),
            "suspects_after": int(np.isin(prediction.numpy(), list(suspected)).sum()),
        }
    return found


@titled("Images that change class, by method")
def changes_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """`changes`, a row a method."""
    return pd.DataFrame(
        {
            "method": display_name(method),
            "images that change class": f"{row['n_changed']:,}",
            "in %": percent(row["share"]).removesuffix(" %"),
            "classes never predicted": row["never_predicted"],
            "predicted as suspects, before": f"{row['suspects_before']:,}",
            "after": f"{row['suspects_after']:,}",
        }
        for method, row in found.items()
    )


def most_change(found: Mapping[str, Mapping[str, Any]], agreed: tuple[int, int]) -> str:
    """Which method changes most predictions and which fewest, and on how many images all methods agree.

    Args:
        agreed: images on which the base prompt and all methods say the same, and all images.
    """
    shares = {display_name(method): row["n_changed"] for method, row in found.items()}
    same, n = agreed
    together = f"On {percent(same / n)} of the images all of them agree with the base prompt."
    if max(shares.values()) == 0:
        return f"no method changes a prediction. {together}"
    ends = [_those(shares, end) for end in (max, min)]
    if ends[0] == ends[1]:
        return f"each method changes {counted(max(shares.values()), 'prediction')}. {together}"
    return f"most predictions change under {ends[0]}, fewest under {ends[1]}. {together}"


def _those(values: Mapping[str, int], end: Any) -> str:
    most = end(values.values())
    return f"{join_names([key for key, value in values.items() if value == most])} ({most:,})"


@titled("The classes of highest and of lowest bias")
def biases(
    run: Run, matched: Correction, before: Int[Tensor, "N"], after: Int[Tensor, "N"], shown: int = SHOWN
) -> pd.DataFrame:
    """The classes of highest and of lowest bias, the highest first, with the images predicted before and after."""
    order = matched.bias.argsort(descending=True, stable=True)
    order = order if len(order) <= 2 * shown else order[[*range(shown), *range(-shown, 0)]]
    n = [p.bincount(minlength=run.n_classes)[order].tolist() for p in (before, after)]
    head = {
        "class": run.names(order),
        **in_plain_english(run, order.tolist()),
        "bias": [decimal(float(b), 1) for b in matched.bias[order]],
    }
    return pd.DataFrame({**head, "images before": n[0], "images after": n[1]})


def bias_range(run: Run, matched: Correction) -> str:
    """The range of the biases, and what the highest is worth in frequency."""
    low, high = int(matched.bias.argmin()), int(matched.bias.argmax())
    spread = float(matched.bias[high] - matched.bias[low])
    if spread == 0:
        return "all biases are zero: the mean probability of every class is an even share already."
    settled = "" if matched.converged else " The search stopped before it reached the prior."
    return (
        f"the bias of {name(run.classnames[high])} is {decimal(spread, 1)} logits higher than that of "
        f"{name(run.classnames[low])}, the lowest.{settled}"
    )


# ---------------------------------------------------------------- what to label


@titled("Intervals by the number of labelled images")
def interval_widths() -> pd.DataFrame:
    """How exactly n labelled images of a class say its accuracy: 95 % Wilson intervals at a half, and of none right."""
    rows = []
    for n in COUNTS:
        half, none = F.wilson_interval(n // 2, n), F.wilson_interval(0, n)
        rows.append(
            {
                "labelled images": n,
                "half of them right": interval(half),
                "width (points)": f"{100 * (half[1] - half[0]):.0f}",
                "none of them right": interval(none),
            }
        )
    return pd.DataFrame(rows)


def images_for_width(width: float) -> int:
    """The fewest images of a class whose 95 % Wilson interval is no wider, where half of them are right."""
    n = 2
    while F.wilson_interval(n // 2, n)[1] - F.wilson_interval(n // 2, n)[0] > width:
        n += 2
    return n


def plan(run: Run, classes: Sequence[int], width: float = 0.3, shown: int = SHOWN) -> str:
    """What to label first, and how many images that is."""
    n = images_for_width(width)
    listed = [run.classnames[c] for c in classes[:shown]]
    return (
        f"label {n} images of each of {names(listed)}: {counted(n * len(listed), 'image')} in all, for intervals no "
        f"wider than {100 * width:.0f} points."
    )
