"""Sentences and tables of chapter 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from cmmlib.evaluation.evaluation import gains_and_losses
from cmmlib.functional.candidates import DESCRIPTION, TEMPLATE, Candidates
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import (
    MISSING,
    counted,
    interval,
    join_names,
    name,
    percent,
    percent_number,
    points,
    points_interval,
)
from cmmlib.study.run import Run

Row = Mapping[str, Any]
OURS = ("enriched_cmm", "cmm_templates", "base")  # the project's ensemble: the first of these that was computed
SHOWN = 30  # classes in the map of weights
MOST_LOSERS = 8

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


def methods(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of `evaluation.ensemble_rows` in percent: overall, every worst set that is defined, classes at zero."""
    sizes = [k for k in rows[0]["worst"] if rows[0]["worst"][k] is not None]
    return pd.DataFrame(
        {
            "in %": display_name(row["name"]),
            "overall": percent_number(row["overall"]),
            **{f"worst {k}": percent_number(row["worst"][k]) for k in sizes},
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
        return f"{said}; the highest in the {_worst(k)} is the same."
    if len(worst) == len(blind):
        return f"{said}; in the {_worst(k)} all have {percent(blind[0]['worst'][k])}."
    shared = "" if overall & worst else " So the best average is not the best tail."
    return f"{said}; in the {_worst(k)} the highest is that of {_listed(worst)}.{shared}"


def _highest(rows: Sequence[Row], of: Callable[[Row], float]) -> set[str]:
    most = max(of(row) for row in rows)
    return {row["name"] for row in rows if of(row) == most}


def _listed(methods: set[str]) -> str:
    return join_names([f"*{display_name(method)}*" for method in sorted(methods)])


def followed(rows: Sequence[Row]) -> pd.DataFrame:
    """The base prompt's worst classes under every method, in percent: chosen on these images, and on others."""
    counts = {k: n for k, n in rows[0]["base_worst_count"].items() if n}
    return pd.DataFrame(
        {"in %": display_name(row["name"])}
        | {
            head: percent_number(row[key][k])
            for k, n in counts.items()
            for head, key in (
                (f"worst {k} ({n} classes)", "base_worst"),
                (f"worst {k}, chosen on other images", "base_worst_split_half"),
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


# ---------------------------------------------------------------- balance, or CMM?

BALANCE, CMM = ("enriched_uniform", "enriched_balanced"), ("enriched_uniform", "enriched_cmm_unbalanced")
CMM_AFTER, BALANCE_AFTER = ("enriched_balanced", "enriched_cmm"), ("enriched_cmm_unbalanced", "enriched_cmm")
BOTH, FIRST = ("enriched_uniform", "enriched_cmm"), ("enriched_cmm", "enriched_cmm_first")
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
}
MEASURES = {"overall": "overall", "worst_10": "in the worst 10", "worst_20": "in the worst 20"}
FOLLOWED = {"overall": "overall", "base_worst_10": "in the base prompt's worst 10, chosen on other images"}
VERDICTS = ("adds", "costs", "has no clear effect")


def steps(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of `evaluation.gain_steps` in points, each with its interval."""
    table = []
    for row in rows:
        step = {"from": display_name(row["before"]), "to": display_name(row["after"])}
        step["adds"] = ADDS[row["before"], row["after"]]
        for head, key in (("overall", "overall"), ("worst 10", "base_worst_10")):
            bounds = row[key]
            step |= {f"{head} (points)": points(bounds["value"])}
            step |= {f"{head}, 95 % interval": points_interval((bounds["low"], bounds["high"]))}
        table.append(step)
    return pd.DataFrame(table)


def parts(rows: Sequence[Row]) -> str:
    """How much of the gain is balance and how much CMM, in the rows of `evaluation.gain_steps`."""
    found = {(row["before"], row["after"]): row for row in rows}
    if all(part in found for part in PARTS):
        return _told({part: {key: found[part][key] for key in FOLLOWED} for part in PARTS}, FOLLOWED)
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
    turns = [f"{PARTS[step]} {_verdicts(found[step], verdicts, defined)}" for step, verdicts in after.items()]
    first = _verdicts(found[FIRST], {"overall": _verdict(found[FIRST]["overall"])}, defined)
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


def studies(frame: pd.DataFrame) -> pd.DataFrame:
    """The studies of `evaluation.balance_or_cmm`, a row each: overall accuracy of every method, in percent."""
    table = []
    for study, part in frame.groupby(frame["data"] + ", seed " + frame["seed"].astype(str), sort=False):
        values = {display_name(m): percent_number(v) for m, v in zip(part["method"], part["overall"], strict=True)}
        table.append({"overall, in %": study, "descriptions": part["descriptions"].iloc[0], **values})
    return pd.DataFrame(table)


def conclusion(frame: pd.DataFrame) -> str:
    """How much is balance and how much CMM, over all studies and by the kind of descriptions: the intervals decide."""
    kinds = [
        f"{points(part_means(part)[CMM_AFTER]['overall']['value'])} points with {kind} descriptions"
        for kind, part in frame.groupby("descriptions", sort=False)
    ]
    by_kind = f" Overall, CMM after balance is {join_names(kinds)}." if len(kinds) > 1 else ""
    return _told(part_means(frame), MEASURES) + by_kind


# ---------------------------------------------------------------- who gains, and what it hangs on


def who_gains(
    before: Float[np.ndarray, "C"],
    after: Float[np.ndarray, "C"],
    described: Bool[np.ndarray, "C"],
    lost_to: Int[np.ndarray, "M"],
) -> str:
    """How many classes gain and lose, and where the images went that losing classes without descriptions lost.

    Args:
        lost_to: what the images are predicted as that such classes had right before and no longer (`lost_images`).
    """
    up, down = gains_and_losses(before, after)
    plain = int((down & ~described).sum())
    gain, lose = ("gains" if up.sum() == 1 else "gain"), ("loses" if down.sum() == 1 else "lose")
    said = (
        f"{counted(int(up.sum()), 'class', 'classes')} {gain} more than five points; {int(down.sum())} {lose} as much"
    )
    if not down.any():
        return f"{said}."
    if not described.any():
        return f"{said}."
    said = f"{said}, {plain} of them without descriptions of their own."
    if not len(lost_to):
        return said
    took, lost = int(described[lost_to].sum()), counted(len(lost_to), "image")
    these = "this one" if plain == 1 else f"these {plain}"
    return f"{said} Of the {lost} that {these} lost, {took} went to a described class."


def lost_images(
    labels: Int[Tensor, "N"],
    before: Int[Tensor, "N"],
    after: Int[Tensor, "N"],
    classes: Bool[np.ndarray, "C"],
) -> Int[np.ndarray, "M"]:
    """What the images of some classes are predicted as that were right before and are no longer."""
    lost = (before == labels) & (after != labels)
    return after[lost].numpy()[classes[labels[lost].numpy()]]


def losers(
    run: Run, before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], described: Bool[np.ndarray, "C"]
) -> pd.DataFrame:
    """The classes that lose most, at most `MOST_LOSERS`."""
    rows = zip(run.classnames, before.tolist(), after.tolist(), described.tolist(), strict=True)
    most = sorted((after - before, after, name, own) for name, before, after, own in rows if after < before)[
        :MOST_LOSERS
    ]
    return pd.DataFrame(
        {
            "class": name,
            "before": percent(after - change),
            "after": percent(after),
            "change (points)": points(change),
            "described": "yes" if own else "no",
        }
        for change, after, name, own in most
    )


def described_curve(run: Run, curve: Sequence[Row], everything: Mapping[int, Tensor]) -> str:
    """CMM weights with no class described, with the study's number, and with all; and the best way at that number.

    Args:
        curve: rows of `evaluation.described_curve`.
        everything: all descriptions that are recorded.
    """
    if not everything:
        return "no description is recorded, so there is no number to choose."
    chosen, own = run.n_described, {row["count"]: row["overall"] for row in curve if row["method"] == "CMM weights"}
    ends = {0: "no class described", chosen: f"the study's {chosen}"}
    if max(own) > chosen:
        ends[max(own)] = f"all {max(own)}"
    values = [f"{percent(own[n])} with {said}" for n, said in ends.items()]
    here = [row for row in curve if row["count"] == chosen]
    ways = [f"*{row['method']}*" for row in here if row["overall"] == max(one["overall"] for one in here)]
    some = "" if len(everything) == run.n_classes else f" ({len(everything)} of the classes have descriptions at all)"
    return (
        f"overall, CMM weights have {join_names(values)}{some}. With {chosen} described, the highest overall accuracy "
        f"is that of {join_names(ways)}."
    )


def ablation(rows: Sequence[Row], count: int) -> pd.DataFrame:
    """Rows of `evaluation.ablation` in percent.

    Args:
        count: how many classes the base prompt's worst 10 are, with ties.
    """
    heads = {"version": "in %", "overall": "overall", "worst_10": "worst 10", "worst_20": "worst 20"}
    if count:
        heads |= {"base_worst_10": f"base worst 10 ({count} classes)"}
        heads |= {"base_worst_split_half_10": "base worst 10, chosen on other images"}
    heads = {key: head for key, head in heads.items() if rows[0][key] is not None}
    return pd.DataFrame(
        {head: row[key] if key == "version" else percent_number(row[key]) for key, head in heads.items()}
        for row in rows
    )


def ablated(rows: Sequence[Row]) -> str:
    """Which versions are above the ensemble as it is, overall and in the worst 10."""
    own, *others = rows
    told = []
    for key, where in MEASURES.items():
        if own[key] is not None:
            higher = [f"*{row['version']}*" for row in others if round(row[key] - own[key], 9) > 0]
            told.append(f"{where}, {len(higher)} of {len(others)}" + (f" ({join_names(higher)})" if higher else ""))
    return (
        f"as it is, the ensemble has {percent(own['overall'])} overall. Changed versions that are above it: "
        f"{'; '.join(told)}."
    )


def control(rows: Sequence[Row]) -> pd.DataFrame:
    """`evaluation.control` in percent."""
    return pd.DataFrame(
        {
            "descriptions": row["descriptions"],
            "method": row["method"],
            "overall": percent(row["overall"]),
            "worst 10": percent(row["worst_10"]),
        }
        for row in rows
    )


def clean(rows: Sequence[Row], answered: bool) -> str:
    """What clean descriptions change under CMM weights, against the answers, or against none."""
    start, now = (
        next(row for row in rows if (row["descriptions"], row["method"]) == (kind, "CMM weights"))
        for kind in ("as answered", "clean")
    )
    told = [
        f"{points(now[key] - start[key])} points {MEASURES[key]}"
        for key in ("overall", "worst_10")
        if now[key] is not None and start[key] is not None
    ]
    place = "in place of the answers" if answered else "where no answer is recorded"
    return f"with CMM weights, clean descriptions {place} change accuracy by {join_names(told)}."


def sensitivity(grid: pd.DataFrame, temperature: float, cut: float, k: str) -> str:
    """The range of worst@k over the settings, and how many lie above the study's own."""
    values, own = grid.to_numpy(float), float(grid.loc[cut, temperature])
    if np.isnan(values).any():
        return f"fewer than {k} classes have images."
    above = int((values > own + 1e-9).sum())
    return (
        f"worst {k} runs from {percent(values.min())} to {percent(values.max())} over these settings; the study's own "
        f"has {percent(own)}, and {above} of {values.size} lie above it."
    )
