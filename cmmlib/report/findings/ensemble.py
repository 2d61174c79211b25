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
) -> tuple[Float[np.ndarray, "K T"], list[str], int]:
    """Weights of the candidates of the first described classes (NaN where a class has fewer), their names, and how many
    of the columns are templates.
    """
    n, shown = len(run.text_features), list(described)[:SHOWN]
    grid = np.full((len(shown), n + max((len(described[c]) for c in shown), default=0)), np.nan)
    for row, c in enumerate(shown):
        own = weights[candidates.classes == c].numpy()
        grid[row, : len(own)] = own
    return grid, [run.classnames[c] for c in shown], n


def description_share(grid: Float[np.ndarray, "K T"], n_templates: int) -> str:
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
    texts = f", with descriptions of {counted(own['requests'], 'class', 'classes')}" if own["requests"] else ""
    worst = f"in its worst {k} classes" if k != "1" else "in its worst class"
    zero = counted(own["zero_classes"], "class", "classes")
    return (
        f"{images}, *{display_name(own['name'])}*{texts}, has {_against(own['overall'], base['overall'])} overall, and "
        f"{_against(own['worst'][k], base['worst'][k])} {worst}. It leaves {zero} without one recognised image, the "
        f"base prompt {base['zero_classes']}. {_best(rows)}"
    )


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
        return f"{said}; that of its worst {k} is the highest too."
    shared = "" if overall & worst else " So the best average is not the best tail."
    return f"{said}, the highest worst {k} is that of {_listed(worst)}.{shared}"


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
    base, own, sentences = rows[0], ours(rows), []
    for k, n in base["base_worst_count"].items():
        if n:
            ways = [(row["base_worst"][k], row["base_worst_split_half"][k]) for row in (base, own)]
            sentences.append(_followed_set(k, n, *zip(*ways, strict=True)))
    if not sentences:
        return "fewer than 10 classes have images, so no worst 10 are followed."
    return f"from the base prompt to *{display_name(own['name'])}*: " + "; ".join(sentences) + "."


def _followed_set(k: str, n: int, same: tuple[float, float], other: tuple[float | None, float | None]) -> str:
    more = f" ({n} classes, because of ties at the last place)" if n > int(k) else ""
    said = f"the base prompt's worst {k}{more}, from {percent(same[0])} to {percent(same[1])}"
    if other[0] is None or other[1] is None:
        return said
    apart = round((other[1] - other[0]) - (same[1] - same[0]), 9)
    word = (
        "as large a gain"
        if not apart
        else f"a gain {abs(100 * apart):.1f} points {'larger' if apart > 0 else 'smaller'}"
    )
    if same[1] <= same[0]:
        word = f"a change of {points(other[1] - other[0])} points"
    return f"{said} (chosen on other images, from {percent(other[0])} to {percent(other[1])}, {word})"


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
        return _told({part: found[part] for part in PARTS}, FOLLOWED)
    if TEMPLATES in found:
        part = _effect(found[TEMPLATES]["overall"])
        return f"without descriptions nothing is out of balance; CMM's part: {part} overall."
    return "there is one text for each class, so neither balance nor CMM has a part."


def _told(found: Mapping[tuple[str, str], Mapping[str, Row]], measures: Mapping[str, str]) -> str:
    """Balance and CMM alone, one after the other, and what that comes to; then one description.

    Args:
        found: step -> measure -> `value`, `low`, `high`.
    """
    defined = {key: where for key, where in measures.items() if found[BOTH][key]["value"] is not None}
    alone = [
        f"{where}, balance alone changes accuracy by {_effect(found[BALANCE][key])}, CMM alone by "
        f"{_effect(found[CMM][key])}, both by {_effect(found[BOTH][key])}"
        for key, where in defined.items()
    ]
    verdicts = [
        f"{part} {join_names([_verdict(found[step][key], where) for key, where in defined.items()])}"
        for part, step in (("CMM after balance", CMM_AFTER), ("balance after CMM", BALANCE_AFTER))
    ]
    first = f"the first description of each class instead of all {_verdict(found[FIRST]['overall'], 'overall')}"
    return f"{'; '.join(alone)}. In turn, {'; '.join(verdicts)}; {first}."


def _verdict(bounds: Row, where: str) -> str:
    """Whether a step adds or costs, which its interval decides."""
    low, high = bounds["low"], bounds["high"]
    clear = low is not None and low == low and not low <= 0 <= high
    said = VERDICTS[0 if bounds["value"] > 0 else 1] if clear else VERDICTS[2]
    return f"{said} {where} ({_effect(bounds)})"


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
    values = list(MEASURES)
    wide = frame.pivot_table(index=["data", "seed"], columns="method", values=values, sort=False)
    return {
        (before, after): {key: _mean_change((wide[key][after] - wide[key][before]).to_numpy()) for key in values}
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
    for (data, seed), part in frame.groupby(["data", "seed"], sort=False):
        values = {display_name(m): percent_number(v) for m, v in zip(part["method"], part["overall"], strict=True)}
        table.append({"overall, in %": f"{data}, seed {seed}", "descriptions": part["descriptions"].iloc[0], **values})
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
    table = pd.DataFrame({"class": run.classnames, "before": before, "after": after})
    table["described"], table["change"] = np.where(described, "yes", "no"), table["after"] - table["before"]
    table = table[table["change"] < 0].sort_values(["change", "after", "class"]).head(MOST_LOSERS)
    shown = table[["before", "after"]].map(percent)
    return table.assign(**shown, change=table["change"].map(points)).rename(columns={"change": "change (points)"})


def described_curve(run: Run, curve: pd.DataFrame, everything: Mapping[int, Tensor]) -> str:
    """CMM weights with no class described, with the study's number, and with all; and the best way at that number.

    Args:
        curve: rows of `evaluation.described_curve`.
        everything: all descriptions that are recorded.
    """
    if not everything:
        return "no description is recorded, so there is no number to choose."
    chosen, own = run.n_described, curve[curve["method"] == "CMM weights"].set_index("count")["overall"]
    ends = {0: "no class described", chosen: f"the study's {chosen}"}
    if own.index.max() > chosen:
        ends[int(own.index.max())] = f"all {own.index.max()}"
    values = [f"{percent(own.loc[n])} with {said}" for n, said in ends.items()]
    here = curve[curve["count"] == chosen]
    ways = here.loc[here["overall"] == here["overall"].max(), "method"]
    some = "" if len(everything) == run.n_classes else f" ({len(everything)} of the classes have descriptions at all)"
    return (
        f"overall, CMM weights have {join_names(values)}{some}. With {chosen} described, the highest overall accuracy "
        f"is that of {join_names([f'*{way}*' for way in ways])}."
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
    table = pd.DataFrame(rows)[list(heads)].dropna(axis=1, how="all")
    return table.assign(**table.iloc[:, 1:].map(percent_number)).rename(columns=heads)


def ablated(rows: Sequence[Row]) -> str:
    """Which versions are above the ensemble as it is, overall and in the worst 10."""
    own, *others = rows
    sentences = []
    for key, where in (("overall", "overall"), ("worst_10", "in the worst 10"), ("worst_20", "in the worst 20")):
        if own[key] is None:
            continue
        higher = [f"*{row['version']}*" for row in others if round(row[key] - own[key], 9) > 0]
        which = f": {join_names(higher)}" if higher else ""
        sentences.append(f"{where}, {len(higher)} of {len(others)} changed versions are above it{which}")
    return f"as it is, the ensemble has {percent(own['overall'])} overall. " + "; ".join(sentences).capitalize() + "."


def control(frame: pd.DataFrame) -> pd.DataFrame:
    """`evaluation.control` in percent."""
    table = frame[["descriptions", "method", "overall", "worst_10"]]
    return table.assign(**table[["overall", "worst_10"]].map(percent))


def clean(frame: pd.DataFrame) -> str:
    """What clean descriptions change under CMM weights, against the answers."""
    ours = frame[frame["method"] == "CMM weights"].set_index("descriptions")
    if not {"as answered", "clean"} <= set(ours.index):
        return ""
    gain = ours.loc["clean"] if ours.index.is_unique else ours.loc["clean"].iloc[0]
    start = ours.loc["as answered"]
    said = [f"{points(gain['overall'] - start['overall'])} points overall"]
    if gain["worst_10"] is not None and start["worst_10"] is not None:
        said.append(f"{points(gain['worst_10'] - start['worst_10'])} points in the worst 10")
    return f"with CMM weights, clean descriptions in place of the answers change accuracy by {join_names(said)}."


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
