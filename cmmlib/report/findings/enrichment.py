"""Sentences and tables of chapter 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cmmlib.report.findings.cmm import in_plain_english
from cmmlib.report.formatting import counted, join_names, name, percent, percent_number, plain, points, signed
from cmmlib.report.titles import titled
from cmmlib.study.run import Run
from cmmlib.texts.enrichment import Enrichment

LOSS = 0.05  # a rival that loses more than this is counted
UNKNOWN = "not recorded"


# ---------------------------------------------------------------- who is asked about


def suspects_said(run: Run, suspects: Sequence[int], soft: Float[Tensor, "C"]) -> str:
    """How many of the classes are suspects, and between which CMM they lie."""
    low, high = (signed(float(soft[suspects[end]])) for end in (0, -1))
    if len(suspects) == 1:
        return f"1 of {run.n_classes:,} classes is a suspect, {name(run.classnames[suspects[0]])}; its CMM is {low}."
    lie = f"are suspects; their CMM lies between {low} and {high}"
    if len(suspects) == run.n_classes:
        return f"all {run.n_classes:,} classes {lie}."
    return f"{len(suspects):,} of {run.n_classes:,} classes {lie}, and no other class has a lower one."


def recall_said(found: int, n_worst: int, n_asked: int, n_classes: int) -> str:
    """How many of the worst classes are among the suspects, and how many of as many random classes would be.

    Args:
        found: worst classes that are asked about.
        n_worst: the worst classes, ties included.
    """
    recall, chance = found / n_worst, n_asked / n_classes
    if n_worst == 1:
        which = "is" if found else "is not"
        at_random = f"Among as many classes at random it would be in {percent(chance, 0)} of the draws."
        return f"the class of lowest accuracy {which} among the suspects. {at_random}"
    than = "as much"
    if percent(recall, 0) != percent(chance, 0):
        than = "less" if recall > chance else "more"
    return (
        f"the suspects contain {found} of the {n_worst} classes of lowest accuracy ({percent(recall, 0)}). As many "
        f"classes chosen at random would contain {percent(chance, 0)} on average, which is {than}."
    )


# ---------------------------------------------------------------- questions and answers


def dialogue(run: Run, found: Enrichment, n: int = 3) -> list[tuple[str, str, list[str]]]:
    """The first n questions that have an answer: who answered, the question, the sentences of the answer."""
    shown = [c for c in found.asked if c in found.descriptions][:n]
    sources = {c: found.records[c].model or found.records[c].origin or f"origin {UNKNOWN}" for c in shown}
    return [(f"answered: {sources[c]}", found.questions[c].text, found.descriptions[c]) for c in shown]


@titled("What came of the questions")
def answers_table(found: Enrichment) -> pd.DataFrame:
    """What came of the questions, by number of classes."""
    rows = {
        "described": len(found.descriptions),
        "no recorded answer": len(found.missing),
        "unusable answer": len(found.failed),
        "described by an answer for other rivals": len(found.other_rivals),
    }
    return pd.DataFrame(rows.items(), columns=["answers", "classes"])


def answers_said(run: Run, found: Enrichment) -> str:
    """What the images are said to be, who answered, and the classes without an answer."""
    domains = {question.domain: None for question in found.questions.values()}
    told = f"the questions say that the images are {join_names([name(domain) for domain in domains])}."
    sources = sorted({record.origin or record.model or UNKNOWN for record in found.records.values()})
    told += f" Origin of the answers: {join_names([plain(source) for source in sources])}." if sources else ""
    lacking = [name(run.classnames[c]) for c in (*found.missing, *found.failed)]
    if not lacking:
        return f"{told} Every class that was asked about has a usable answer."
    more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
    return f"{told} Without a usable answer: {', '.join(lacking[:8])}{more}."


# ---------------------------------------------------------------- what the answers do


def effects(run: Run, changes: Mapping[int, Sequence[float]], rivals: Mapping[int, int]) -> pd.DataFrame:
    """A row a described class with images: accuracy `before` and `after`, `gain`, `rival`, `rival's gain`; fractions.

    Args:
        changes: `evaluation.replaced_alone`.
    """
    parts = ["before", "after", "rival before", "rival after"]
    frame = pd.DataFrame.from_dict(dict(changes), orient="index", columns=parts, dtype=float)
    for column, shown in in_plain_english(run, list(changes)).items():
        frame[column] = shown
    frame["class"] = [run.classnames[c] for c in frame.index]
    frame["rival"] = [run.classnames[rivals[c]] for c in frame.index]
    frame["gain"] = frame["after"] - frame["before"]
    frame["rival's gain"] = frame["rival after"] - frame["rival before"]
    return frame


def effects_said(frame: pd.DataFrame) -> str:
    """How many described classes gain and lose, each replaced alone, and the mean change."""
    gain = frame["gain"].to_numpy(float).round(9)
    if not len(gain):
        return "no class that has images was described."
    up, down = int((gain > 0).sum()), int((gain < 0).sum())
    same = len(gain) - up - down
    stay = "1 stays as it was" if same == 1 else f"{same} stay as they were"
    return (
        f"of {counted(len(gain), 'described class', 'described classes')} {up} {_s('gain', up)}, {down} "
        f"{_s('lose', down)} and {stay}; the mean change is {points(float(gain.mean()))} points."
    )


def _s(verb: str, n: int) -> str:
    return f"{verb}s" if n == 1 else verb


@titled("The described classes whose rivals lose most")
def rivals_table(frame: pd.DataFrame, n: int = 6) -> pd.DataFrame:
    """The described classes whose rivals lose, n at most, the largest loss first; changes in points."""
    losing: Any = frame[frame["rival's gain"].to_numpy(float).round(9) < 0]
    lowest = losing.sort_values(["rival's gain", "class"], kind="stable").head(n)
    names = [column for column in ("class", "in plain English") if column in lowest]
    table = pd.DataFrame({column: lowest[column] for column in names})
    table["gain (points)"] = lowest["gain"].map(points)
    return table.assign(rival=lowest["rival"], **{"rival's gain (points)": lowest["rival's gain"].map(points)})


def rivals_said(frame: pd.DataFrame) -> str:
    """How many rivals lose from a description that is not theirs, and which loses most."""
    known = frame.dropna(subset="rival's gain").to_dict("records")
    change = [round(row["rival's gain"], 9) for row in known]
    if not change:
        return "no rival has images, so nothing can be said about rivals."
    losing, much = sum(c < 0 for c in change), sum(c < -LOSS for c in change)
    mean = sum(change) / len(change)
    told = f"the rival changes by {points(mean)} points on average of {counted(len(change), 'description')}."
    if not losing:
        return f"{told} No rival loses."
    most = min(known, key=lambda row: row["rival's gain"])
    lost = f"{name(most['rival'])} loses {percent_number(-min(change))} points to {name(most['class'])}"
    cases = f"In {counted(losing, 'case')} it loses, in {much or 'none'} of them more than {100 * LOSS:.0f} points"
    return f"{told} {cases}. The largest loss: {lost}."


# ---------------------------------------------------------------- costs


@titled("What the questions cost")
def costs_table(run: Run, found: Enrichment) -> pd.DataFrame:
    """Requests for this study and for all classes; tokens and US dollars, as far as the answers say."""
    rows = {
        "requests, this study": f"{len(found.asked):,}",
        "requests, all classes": f"{run.n_classes:,}",
        "tokens": _total(found, "tokens", ",.0f"),
        "US dollars": _total(found, "cost", ".4f"),
    }
    return pd.DataFrame(rows.items(), columns=["cost", "value"])


def _total(found: Enrichment, field: str, form: str) -> str:
    """A sum over the answers that say it, and how many these are where not all do."""
    values: list[Any] = [getattr(record, field) for record in found.records.values()]
    said = [value for value in values if value is not None]
    if not said:
        return UNKNOWN
    return f"{sum(said):{form}}" + ("" if len(said) == len(values) else f" ({len(said)} of {len(values)} answers)")


def costs_said(run: Run, found: Enrichment) -> str:
    """The share of the requests that asking about suspects only takes."""
    n, of = len(found.asked), run.n_classes
    if n == of:
        return "every class is asked about, so nothing is saved."
    return f"{counted(n, 'request')}, {percent(n / of, 0)} of the {of:,} that all classes would take."
