"""Why classes fail: what the embedded world knows of every name, and how much of the failure each cause explains.

On CLIP nobody can count how often a name, a description or a sense was read in training; here it was counted. Causes
are columns of a table with a row a class; an outcome (accuracy, CMM) is regressed on them, and the variance that they
explain is shared out among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, ROUNDELS, TINCTURES
from cmmlib.errors import InputError

CAUSES = ("name_frequency", "ambiguity", "synonymy", "visual_confusability", "description_frequency")
FEW = 20  # readings below which a name is called rare, as in `plots.accuracy_by_name`
FAILING = 0.5  # a class below this accuracy is wrong more often than right
KINDS = ("rare", "ambiguous", "known")
REPAIRS = ("both", "description", "prior matching", "neither")
DRAWS = 1000


# ---------------------------------------------------------------- causes


def causes(names: pd.DataFrame, table: pd.DataFrame, confusability: Float[Tensor, "C"]) -> pd.DataFrame:
    """The five causes of every class, those of language for its weakest name.

    Args:
        names: `card.weakest_names` of the classes.
        table: `card.load_frequencies`.
        confusability: see `visual_confusability`.

    Returns:
        A row a class: `name_frequency` (log10 of one plus the captions with the name under a picture that shows the
        thing), `ambiguity` (share of the captions with the name whose picture does not, in [0, 1]), `synonymy`
        (effective number of plain wordings of the thing: the exponential of their entropy), `visual_confusability`, and
        `description_frequency` (log10 of one plus the readings of all its plain wordings).
    """
    plain = {thing: _plain_readings(table, thing) for thing in names["name"].unique()}
    return pd.DataFrame(
        {
            "name_frequency": np.log10(names["read"] + 1),
            "ambiguity": names["elsewhere"] / (names["read"] + names["elsewhere"]).clip(lower=1),
            "synonymy": [float(np.exp(stats.entropy(plain[name]))) for name in names["name"]],
            "visual_confusability": confusability.numpy(),
            "description_frequency": [float(np.log10(plain[name].sum() + 1)) for name in names["name"]],
        }
    )


def _plain_readings(table: pd.DataFrame, name: str) -> np.ndarray:
    """How often each plain wording of a thing was read under it; the special name of a roundel is a roundel's."""
    term = "roundel" if name in ROUNDELS.values() else name
    wordings = (TINCTURES.get(term) or CHARGES.get(term) or DIVISIONS[term]).plain
    own = (table["term"] == term) & (table["kind"] != "roundel") & table["wording"].isin(wordings)
    return table["shown"].to_numpy(float)[own.to_numpy()]


def kinds_of(names: pd.DataFrame) -> pd.Series:
    """What is wrong with every weakest name: `rare`, `ambiguous` (read mostly under other pictures), or `known`."""
    other = names["elsewhere"] > names["read"]
    return pd.Series(np.select([other, names["read"] < FEW], ["ambiguous", "rare"], "known"), index=names.index)


# ---------------------------------------------------------------- how much each explains


@dataclass(frozen=True)
class Explained:
    """A linear regression on standardised causes. Intervals are 95 %.

    Attributes:
        coefficients: a row a cause: `value`, `low`, `high`, change of the outcome for one standard deviation. A cause
            that is the same for every class explains nothing and has no row; no cause has one where the outcome is.
        shares: a row a cause: `value`, `low`, `high`, its share of the outcome's variance; they sum to `r2`.
        r2: share of the outcome's variance that all causes explain together, in [0, 1]; NaN where it has none.
        r2_interval: its low and high end.
    """

    coefficients: pd.DataFrame
    shares: pd.DataFrame
    r2: float
    r2_interval: tuple[float, float]


def explain(
    table: pd.DataFrame, outcome: Float[np.ndarray, "C"], groups: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> Explained:
    """Regress an outcome on causes, and share out R2 among them.

    Shares are Shapley values of R2 over all orders of the causes (Lindeman, Merenda and Gold 1980; Groemping 2007).
    Intervals are percentiles of a bootstrap over groups, since classes with one weakest name fail together. A share
    cannot be negative on average, so one near zero is biased up: whether a cause matters, its coefficient says.

    Args:
        table: the causes, a row a class.
        groups: the weakest name of every class.

    Raises:
        InputError: a cause or the outcome is undefined for some class.
    """
    x, y = table.to_numpy(float), np.asarray(outcome, float)
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise InputError("explain: a cause or the outcome is undefined for some class: leave that class out")
    varies = np.ptp(x, 0) > 0
    if not np.ptp(y) or not varies.any():
        none = pd.DataFrame(columns=["value", "low", "high"], dtype=float)
        return Explained(none, none, np.nan, (np.nan, np.nan))
    x, causes = x[:, varies], table.columns[varies]
    coefficient, share = _regression(x, y)
    drawn = [_regression(x[pick], y[pick]) for pick in _draws(groups, draws, seed)]
    r2_interval = _interval([shares.sum() for _, shares in drawn])
    return Explained(
        coefficients=_with_interval(causes, coefficient, [coefficients for coefficients, _ in drawn]),
        shares=_with_interval(causes, share, [shares for _, shares in drawn]),
        r2=float(share.sum()),
        r2_interval=(float(r2_interval[0]), float(r2_interval[1])),
    )


def _draws(groups: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of classes, group by group drawn with replacement."""
    members = [np.flatnonzero(np.asarray(groups) == group) for group in dict.fromkeys(groups)]
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])


def _with_interval(index: pd.Index, value: np.ndarray, drawn: Sequence[np.ndarray]) -> pd.DataFrame:
    low, high = _interval(drawn)
    return pd.DataFrame({"value": value, "low": low, "high": high}, index=index)


def _interval(drawn: Sequence[Any]) -> np.ndarray:
    """95 % of the draws; those without variance are left out, and without any other there is no interval."""
    values = np.asarray(drawn)
    defined = values[np.isfinite(values.reshape(len(values), -1)).all(1)]
    return np.quantile(defined if len(defined) else values, (0.025, 0.975), axis=0)


def _regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of standardised causes, and the Shapley share of R2 of each; NaN where a draw has no variance.

    Where the outcome is the same for all, no cause changes it: the coefficients are 0.
    """
    undefined = np.full(x.shape[1], np.nan)
    if not np.ptp(x, 0).all() or not np.ptp(y):
        return undefined if np.ptp(y) else np.zeros(x.shape[1]), undefined
    x, y = (x - x.mean(0)) / x.std(0), y - y.mean()
    gram, moment, total = x.T @ x, x.T @ y, y @ y
    n = x.shape[1]
    subsets = [subset for size in range(n + 1) for subset in combinations(range(n), size)]
    r2 = {subset: _explained(gram, moment, subset) / total for subset in subsets}
    share = np.zeros(n)
    for subset in subsets:
        for j in set(range(n)) - set(subset):
            gain = r2[tuple(sorted((*subset, j)))] - r2[subset]
            share[j] += gain / (n * comb(n - 1, len(subset)))
    return np.linalg.lstsq(gram, moment, rcond=None)[0], share


def _explained(gram: np.ndarray, moment: np.ndarray, subset: tuple[int, ...]) -> float:
    """Sum of squares that a subset of the causes explains."""
    index = list(subset)
    if not index:
        return 0.0
    return float(moment[index] @ np.linalg.lstsq(gram[np.ix_(index, index)], moment[index], rcond=None)[0])


# ---------------------------------------------------------------- who is seen, who is repaired


def repaired_by(description: Float[np.ndarray, "n"], prior: Float[np.ndarray, "n"]) -> np.ndarray:
    """Which of two repairs lifts failing classes to `FAILING` or more: one of `REPAIRS` for each.

    Args:
        description: their accuracies with descriptions, in [0, 1].
        prior: their accuracies with prior matching.
    """
    up, over = description >= FAILING, prior >= FAILING
    return np.select([up & over, up, over], REPAIRS[:3], REPAIRS[3])


def fates(failing: pd.DataFrame) -> pd.DataFrame:
    """Failing classes by the kind of their weakest name.

    Args:
        failing: a row a failing class: `kind` (one of `KINDS`), `suspected` (among the lowest CMM), and its accuracies
            `by_name`, `described`, `prior_matched`.

    Returns:
        A row a kind that occurs, and one for all: `weakest_name`, the counts `failing` and `suspected`, the mean
        accuracies, and a count for each of `REPAIRS`.
    """
    rows = []
    for kind in (*KINDS, "all"):
        part = failing if kind == "all" else failing.query("kind == @kind")
        if len(part):
            repair = repaired_by(part["described"].to_numpy(float), part["prior_matched"].to_numpy(float))
            rows.append(
                {
                    "weakest_name": kind,
                    "failing": len(part),
                    "suspected": int(part["suspected"].to_numpy(bool).sum()),
                    **part[["by_name", "described", "prior_matched"]].mean().to_dict(),
                    **{name: int((repair == name).sum()) for name in REPAIRS},
                }
            )
    return pd.DataFrame(rows)
