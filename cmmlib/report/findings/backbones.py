"""Sentences and tables of chapter 7: several runs on the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom
from torch import Tensor

import cmmlib.functional as F
from cmmlib.blazon.training.model import NAME as BLAZON_MINI
from cmmlib.evaluation.comparison_text import unfinished
from cmmlib.evaluation.run_comparison import RunSummary, worst_everywhere
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import counted, decimal, join_names, name, names, percent, plain, points
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

SHOWN = 20  # names in one sentence, at most
MOST_BESIDE = 3  # runs that a table has beside each other
GAIN_OVERALL, GAIN_WORST = "gain overall (points)", "gain in its own worst 10 (points)"
OTHER_HALF = "accuracy in the base prompt's worst 10, chosen on other images"
FEW_CLASSES = 10  # of which no share is told from chance
LEAD = 0.02  # by which one run must be ahead of the next to be called the best
SMALL = 0.1  # a difference of rank correlations that chance makes easily


# ---------------------------------------------------------------- the runs


@titled("The runs that are compared")
def runs(sides: Sequence[RunSummary]) -> pd.DataFrame:
    """A row a run: its name, id and logit scale."""
    scales = [decimal(side.facts["model"]["logit_scale"]) for side in sides]
    return pd.DataFrame({"run": [s.name for s in sides], "id": [s.run for s in sides], "logit scale": scales})


def where_from(run: Run, sides: Sequence[RunSummary]) -> str:
    """How many runs are compared, and what those of the miniature world have in common."""
    told = f"{counted(len(sides), 'run')} of {counted(run.n_classes, 'class', 'classes')}."
    if _share_recipe(sides):
        told += (
            f" {BLAZON_MINI} comes with two sets of weights, of one recipe, with the same first weights and the same "
            "training pictures; *early* saw fewer of them. Its model card has the numbers."
        )
    return told


def _share_recipe(sides: Sequence[RunSummary]) -> bool:
    return sum(side.facts["model"]["backbone"] == BLAZON_MINI for side in sides) > 1


@titled("Every run, overall and in the tail")
def overview(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """`run_comparison.overview` in percent and points."""
    shown = table.assign(**{column: table[column].map(percent) for column in ("overall", "worst")})
    shown["gap"] = table["gap"].map(points)
    return shown.rename(columns={"worst": f"worst {k}", "gap": "gap (points)"})


def average_and_tail(table: pd.DataFrame, k: int) -> str:
    """Which run has the best overall accuracy, which the best worst@k, and whether these are one run.

    Args:
        table: `run_comparison.overview`.
    """
    told, highest, level = [], {}, []
    for column, label in (("overall", "overall accuracy"), ("worst", f"worst@{k}")):
        values = table[column].to_numpy(float)
        if np.isnan(values).any():
            return f"worst@{k} is not defined for every run, so the tails are not compared."
        second, first = np.sort(values)[-2:]
        highest[column] = str(table["run"].iloc[int(values.argmax())])
        level += [label] if round(first - second, 9) < LEAD else []
        told.append(_range(label, list(table["run"]), values))
    gaps = (table["overall"] - table["worst"]).to_numpy(float)
    least, most = (points(float(gap)).lstrip("+") for gap in (gaps.min(), gaps.max()))
    gap = f"is {least} points in every run" if least == most else f"runs from {least} to {most} points"
    return f"{'; '.join(told)}; the gap between the two {gap}. {_together(highest, level)}"


def _range(label: str, runs: Sequence[str], values: np.ndarray) -> str:
    lowest, highest = percent(float(values.min())), percent(float(values.max()))
    if lowest == highest:
        return f"{label} is {highest} in every run"
    best = [run for run, value in zip(runs, values, strict=True) if percent(value) == highest]
    return f"{label} runs from {lowest} to {highest}, the highest being that of {names(best)}"


def _together(highest: Mapping[str, str], level: Sequence[str]) -> str:
    """Whether the run of the best average has the best tail, where neither lead is too small to say."""
    if level:
        verb = "does" if len(level) == 1 else "do"
        return (
            f"A lead of less than {100 * LEAD:.0f} points is too little to count on, so {join_names(list(level))} "
            f"{verb} not say which run is best."
        )
    if highest["overall"] == highest["worst"]:
        return "So the best average has the best tail too."
    return "So the best average does not have the best tail."


# ---------------------------------------------------------------- the same classes?


@titled("How far two runs agree on the worst classes")
def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """`run_comparison.agreement` with its numbers spelled."""
    spelled = {"spearman": pairs["spearman"].map(decimal), "chance": pairs["chance"].map(lambda n: decimal(n, 1))}
    return pairs.assign(**spelled)


def agree(sides: Sequence[RunSummary], pairs: pd.DataFrame, k: int) -> str:
    """Each other run and the first: rank correlation, and whether they share more of the worst than chance would."""
    told = []
    with_first = pairs.iloc[: len(sides) - 1].to_dict("records")
    for side, pair in zip(sides[1:], with_first, strict=True):
        n, sizes = _sizes(sides[0], side, k)
        told.append(
            f"{name(side.name)} has rank correlation {decimal(pair['spearman'])} with {name(sides[0].name)} and shares "
            f"{pair['shared_worst']} of its worst; {_by_chance(n, sizes, pair['shared_worst'])}"
        )
    return ". ".join(told) + "."


def _sizes(one: RunSummary, other: RunSummary, k: int) -> tuple[int, list[int]]:
    """Classes with images in both runs, and the sizes of their worst sets, ties included; as `agreement` has them."""
    x, y = _scores([one, other])
    defined = ~(x.isnan() | y.isnan())
    return int(defined.sum()), [int(F.true_worst(score[defined], k).sum()) for score in (x, y)]


def _scores(sides: Sequence[RunSummary]) -> list[Tensor]:
    by_accuracy = all(side.accuracy is not None for side in sides)
    scores = [side.accuracy if by_accuracy else side.suspicion for side in sides]
    return [score.double() for score in scores if score is not None]


def _by_chance(n: int, sizes: Sequence[int], shared: int) -> str:
    if n < FEW_CLASSES:
        return f"of {counted(n, 'class', 'classes')} that is too few to tell from chance"
    a, b = sizes
    if n in (a, b):
        return "all classes of one run tie, so this says nothing"
    usual = hypergeom(n, a, b)
    low, high = int(usual.ppf(0.025)), int(usual.ppf(0.975))
    judged = "more than" if shared > high else "fewer than" if shared < low else "no more than"
    return (
        f"two random sets of {a} and {b} of {n} classes would share {decimal(a * b / n, 1)} on average and {low} to "
        f"{high} in 95 % of draws, so this is {judged} chance"
    )


def fail_everywhere(run: Run, sides: Sequence[RunSummary], k: int) -> str:
    """Classes among the worst of every run; what runs share is not the classes' alone where they share a recipe."""
    everywhere = worst_everywhere(sides, k)
    listed = sorted(run.classnames[c] for c in everywhere)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    shown = ", ".join(map(name, listed[:SHOWN])) + more if more else names(listed)
    told = f"{counted(len(listed), 'class', 'classes')} among the worst {k} of every run, ties included" + (
        f": {shown}." if listed else "."
    )
    if _share_recipe(sides):
        told += (
            f" The runs of {BLAZON_MINI} started from the same weights and learnt from the same captions, so a shared "
            "failure may come from these as well as from the classes."
        )
    return told


# ---------------------------------------------------------------- does a repair carry over?


@titled("What every method gains in every run, and its accuracy in the worst 10 of the base prompt")
def gains(table: pd.DataFrame) -> pd.DataFrame:
    """`run_comparison.gains` in points, and the base prompt's worst 10 as chosen on other images, in percent.

    A row a method, the runs side by side; where there are more than a page is wide, a row a run and method.
    """
    shown = pd.DataFrame(
        {
            "run": table["run"],
            "method": table["method"].map(display_name),
            GAIN_OVERALL: table["gain_overall"].map(points),
            GAIN_WORST: table["gain_worst_10"].map(points),
            OTHER_HALF: table["base_worst_split_half_10"].map(percent),
        }
    )
    runs = list(dict.fromkeys(shown["run"]))
    if len(runs) > MOST_BESIDE:
        return shown
    methods = list(dict.fromkeys(shown["method"]))
    of_run = {run: shown[shown["run"] == run].set_index("method").reindex(methods) for run in runs}
    measures = (GAIN_OVERALL, GAIN_WORST, OTHER_HALF)
    beside = {f"{measure}: {run}": of_run[run][measure].tolist() for measure in measures for run in runs}
    return pd.DataFrame({"method": methods, **beside})


def incomplete(sides: Sequence[RunSummary]) -> str:
    """The runs whose methods are missing here, each with the command that computes them; empty where there are none."""
    return " ".join(f"{plain(line)}." for line in unfinished(sides))


def has_gains(table: pd.DataFrame) -> bool:
    """Whether every run has methods beside its base prompt whose gain in the worst 10 is known."""
    return len(table) > len(set(table["run"])) and not np.isnan(table["gain_worst_10"].to_numpy(float)).any()


def carries_over(table: pd.DataFrame) -> str:
    """The methods whose smallest gain over the runs is largest, in the worst 10 and overall; who gains and loses.

    In a single run another method may gain more.

    Args:
        table: `run_comparison.gains`.
    """
    told = "; ".join(_carries_over(table, *measure) for measure in MEASURES)
    return f"every method counts by its smallest gain over the runs. By that, {told}."


MEASURES = (("gain_worst_10", "in its own worst 10 classes"), ("gain_overall", "overall"))


def _carries_over(table: pd.DataFrame, column: str, of: str) -> str:
    n_runs, gained = len(set(table["run"])), {}
    for method, gain in zip(table["method"], table[column].to_numpy(float), strict=True):
        if method != "base" and gain == gain:
            gained.setdefault(method, []).append(round(100 * gain, 1))
    gained = {method: gains for method, gains in gained.items() if len(gains) == n_runs}
    if not gained:
        return f"no method has a known change {of} in every run"
    mixed = [method for method, gains in gained.items() if min(gains) < 0 < max(gains)]
    both_ways = f" (up in one and down in another: {_methods(mixed)})" if mixed else ""
    most = max(map(min, gained.values()))
    if most <= 0:
        return f"no method gains {of} in every run{both_ways}"
    best = [method for method, gains in gained.items() if min(gains) == most]
    gain, least = "gains" if len(best) == 1 else "gain", points(most / 100).lstrip("+")
    return f"{_methods(best)} {gain} most {of}, at least {least} points in every run{both_ways}"


def _methods(methods: Sequence[str]) -> str:
    return join_names([f"*{display_name(method)}*" for method in methods])


# ---------------------------------------------------------------- exercises


def noise_ceiling(ceiling: float | None, pairs: pd.DataFrame) -> str:
    """How the correlation of two halves of one run compares with that of this run and the next."""
    other = pairs["spearman"].iloc[0]
    told = f"two halves of this run have rank correlation {decimal(ceiling)}, this run and the next {decimal(other)}"
    if ceiling is None or other is None or other != other:
        return f"{told}: where classes do not differ, none is defined."
    if abs(other - ceiling) < SMALL:
        return f"{told}: they differ by less than {SMALL:g}, too little to count on."
    less = "more" if other < ceiling else "less"
    return f"{told}: the two models differ {less} than two halves of the images do."


def farthest_apart(run: Run, sides: Sequence[RunSummary]) -> str:
    """The classes at which the second run is most above and most below the first, with both accuracies."""
    first, second = _scores(sides[:2])
    difference = (second - first).nan_to_num()
    told = []
    for sign, where in ((1, "above"), (-1, "below")):
        c = int((sign * difference).argmax())
        if sign * float(difference[c]) <= 0:
            told.append(f"at no class is {name(sides[1].name)} {where} {name(sides[0].name)}")
            continue
        both = f"{percent(float(second[c]))} and {percent(float(first[c]))}"
        told.append(f"most {where} it is {name(sides[1].name)} at {name(run.classnames[c])}: {both}")
    return f"beside {name(sides[0].name)}, " + "; ".join(told) + "."
