"""Sentences and tables of chapter 4: how much of a gain is balance between kinds of texts, and how much is CMM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from cmmlib.report.display_names import display_name
from cmmlib.report.findings.ensemble import Row
from cmmlib.report.formatting import (
    MISSING,
    join_names,
    points,
    points_interval,
)
from cmmlib.report.titles import titled

BALANCE, CMM = ("enriched_uniform", "enriched_balanced"), ("enriched_uniform", "enriched_cmm_unbalanced")


CMM_AFTER, BALANCE_AFTER = ("enriched_balanced", "enriched_cmm"), ("enriched_cmm_unbalanced", "enriched_cmm")


BOTH, FIRST = ("enriched_uniform", "enriched_cmm"), ("enriched_cmm", "enriched_cmm_first")
FITTED = ("enriched_cmm", "enriched_fitted")


TEMPLATES = ("uniform", "cmm_templates")


PARTS = {  # step (`evaluation.STEPS`) between two ways to use descriptions -> what it adds
    BALANCE: "balance alone",
    CMM_AFTER: "CMM after balance",
    CMM: "CMM alone",
    BALANCE_AFTER: "balance after CMM",
    BOTH: "both",
    FIRST: "the first description only",
}


ADDS = {
    ("base", "uniform"): "the mean of all templates",
    TEMPLATES: "CMM, no descriptions",
    ("uniform", "enriched_uniform"): "descriptions, equal weights",
    **PARTS,
    FITTED: "fitted weights in place of CMM's",
}


MEASURES = {"overall": "overall", "worst_10": "in its own worst 10", "worst_20": "in its own worst 20"}


FOLLOWED = {"overall": "overall", "base_worst_10": "in the base prompt's worst 10, chosen on other images"}


CHOSEN_ON = tuple(
    f"blazon:{n}" for n in range(1, 7)
)  # class lists on which the settings were chosen (book/settings.md)


VERDICTS = ("adds", "costs", "has no clear effect")


@titled("What each step adds")
def steps(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of `evaluation.gain_steps` in points, each with its interval."""
    table = []
    for row in rows:
        step = {"from": display_name(row["before"]), "to": display_name(row["after"])}
        step["adds"] = ADDS[row["before"], row["after"]]
        for head, key in (("overall", "overall"), ("base's worst 10", "base_worst_10")):
            bounds = row[key]
            step |= {f"{head} (points)": points(bounds["value"])}
            step |= {f"{head}, 95 % interval": points_interval((bounds["low"], bounds["high"]))}
        table.append(step)
    return pd.DataFrame(table)


def parts(rows: Sequence[Row]) -> str:
    """How much of the gain is balance and how much CMM, in the rows of `evaluation.gain_steps`."""
    found = {(row["before"], row["after"]): row for row in rows}
    if all(part in found for part in PARTS):
        told = _told({part: {key: found[part][key] for key in FOLLOWED} for part in PARTS}, FOLLOWED)
        if FITTED not in found:
            return told
        defined = {key: where for key, where in FOLLOWED.items() if found[FITTED][key]["value"] is not None}
        return f"{told} The use of {ADDS[FITTED]} {_step({key: found[FITTED][key] for key in defined}, defined)}."
    if TEMPLATES in found:
        part = _effect(found[TEMPLATES]["overall"])
        return f"without descriptions nothing is out of balance; CMM's part: {part} overall."
    return "there is one text for each class, so neither balance nor CMM has a part."


def _told(found: Mapping[tuple[str, str], Mapping[str, Row]], measures: Mapping[str, str]) -> str:
    """Balance and CMM alone, then each after the other, and what that comes to; then one description.

    Args:
        found: step -> measure -> `value`, `low`, `high`.
    """
    defined = {key: where for key, where in measures.items() if found[BOTH][key]["value"] is not None}
    alone = [
        f"{where}, balance alone changes accuracy by {points(found[BALANCE][key]['value'])} points, CMM alone by "
        f"{points(found[CMM][key]['value'])}, both by {points(found[BOTH][key]['value'])}"
        for key, where in defined.items()
    ]
    after = {step: {key: _verdict(found[step][key]) for key in defined} for step in (CMM_AFTER, BALANCE_AFTER)}
    turns = [f"{PARTS[step]} {_step(found[step], defined)}" for step in after]
    first = _step(found[FIRST], defined)
    gains = VERDICTS[0] in after[CMM_AFTER].values(), VERDICTS[0] in after[BALANCE_AFTER].values()
    return (
        f"{'; '.join(alone)}. {'; '.join(turns)}. {IN_TURN[gains]} "
        f"The first description of each class instead of all {first}."
    )


IN_TURN = {  # whether CMM adds after balance, whether balance adds after CMM -> what that comes to
    (True, True): "So each adds to the other.",
    (True, False): "So CMM adds to balance, and balance shows no gain once CMM weighs.",
    (False, True): "So balance adds to CMM, and CMM shows no gain once the groups are balanced.",
    (False, False): "So neither shows a gain after the other.",
}


def _step(found: Mapping[str, Row], measures: Mapping[str, str]) -> str:
    return _verdicts(found, {key: _verdict(found[key]) for key in measures}, measures)


def _verdict(bounds: Row) -> str:
    """Whether a step adds or costs, which its interval decides."""
    low, high = bounds["low"], bounds["high"]
    if low is None or low != low or low <= 0 <= high:
        return VERDICTS[2]
    return VERDICTS[0 if low > 0 else 1]


def _verdicts(found: Mapping[str, Row], verdicts: Mapping[str, str], measures: Mapping[str, str]) -> str:
    """`adds overall (+2.3 points, +1.3 to +3.3) and in the worst 10 (...)`: measures of one verdict together."""
    told = []
    for verdict in VERDICTS:
        where = [f"{measures[key]} ({_effect(found[key])})" for key in verdicts if verdicts[key] == verdict]
        *first, last = where or [""]
        told += [f"{verdict} {', '.join(first)}{' and ' if first else ''}{last}"] if where else []
    return " and ".join(told)


def _effect(bounds: Row) -> str:
    """`+6.0 points, +5.1 to +6.9`."""
    if bounds["value"] is None or bounds["low"] is None or bounds["low"] != bounds["low"]:
        return f"{points(bounds['value'])} points"
    return f"{points(bounds['value'])} points, {points_interval((bounds['low'], bounds['high']))}"


def part_means(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """What each of `PARTS` adds, over the studies of `evaluation.balance_or_cmm`.

    Returns:
        Step -> measure -> `value`, the mean change; `low` and `high`, a 95 % t interval over studies (NaN for one);
        `up`, in how many studies the change is positive; `studies`, their number.
    """
    values = {
        key: {method: part[key].to_numpy() for method, part in frame.sort_values(["data", "seed"]).groupby("method")}
        for key in MEASURES
    }
    return {
        (before, after): {key: _mean_change(of[after] - of[before]) for key, of in values.items()}
        for before, after in PARTS
    }


def _mean_change(change: Float[np.ndarray, "S"]) -> dict[str, Any]:
    n, mean = len(change), float(change.mean())
    reach = float(stats.t.ppf(0.975, n - 1) * change.std(ddof=1) / n**0.5) if n > 1 else np.nan
    return {"value": mean, "low": mean - reach, "high": mean + reach, "up": int((change > 0).sum()), "studies": n}


@titled("What each step adds, over several studies")
def parts_over_studies(frame: pd.DataFrame) -> pd.DataFrame:
    """`part_means` as a page shows it."""
    return pd.DataFrame(
        {
            "adds": PARTS[step],
            "accuracy": MEASURES[key],
            "mean (points)": points(row["value"]),
            "95 % interval": points_interval((row["low"], row["high"])) if row["low"] == row["low"] else MISSING,
            "positive in": f"{row['up']} of {row['studies']} studies",
        }
        for step, measures in part_means(frame).items()
        for key, row in measures.items()
    )


def conclusion(frame: pd.DataFrame) -> str:
    """How much is balance and how much CMM, over all studies and by the kind of descriptions: the intervals decide."""
    kinds = [
        f"{points(part_means(part)[CMM_AFTER]['overall']['value'])} points with {kind} descriptions"
        for kind, part in frame.groupby("descriptions", sort=False)
    ]
    by_kind = f" Overall, CMM after balance is {join_names(kinds)}." if len(kinds) > 1 else ""
    return _told(part_means(frame), MEASURES) + by_kind + _elsewhere(frame)


def _elsewhere(frame: pd.DataFrame) -> str:
    """The same without the studies on whose class lists the settings were chosen; empty where there are none."""
    lists = sorted(set(frame["data"]) & set(CHOSEN_ON))
    others: Any = frame[~frame["data"].isin(CHOSEN_ON)]
    if not lists or not len(others):
        return ""
    found = part_means(others)[CMM_AFTER]
    effects = [f"{points(row['value'])} points {MEASURES[key]}{_in_brackets(row)}" for key, row in found.items()]
    others_are = "other study" if found["overall"]["studies"] == 1 else f"{found['overall']['studies']} other studies"
    return (
        f" The settings were chosen on {len(lists)} of these class lists ({join_names(lists)}), with other images. "
        f"Over the {others_are} CMM after balance is {join_names(effects)}."
    )


def _in_brackets(bounds: Row) -> str:
    return f" ({points_interval((bounds['low'], bounds['high']))})" if bounds["low"] == bounds["low"] else ""
