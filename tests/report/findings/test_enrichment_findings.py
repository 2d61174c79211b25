"""Sentences of chapter 3 against numbers at their extremes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from finished_runs import run_of

from cmmlib.report.findings import enrichment as findings
from cmmlib.study.run import Run
from cmmlib.texts.enrichment import Enrichment
from cmmlib.texts.questions import ask_about
from cmmlib.texts.transcripts import Record

NAN = float("nan")


def answered(
    run: Run, *classes: int, asked: int | None = None, domain: str = "photographs", **facts: Any
) -> Enrichment:
    """Answers for some classes; the other classes that were asked about have none."""
    questions = ask_about(range(run.n_classes if asked is None else asked), run.classnames, domain)
    sentences = ("one", "two", "three")
    records = {c: Record(run.classnames[c], domain, "describe", (), sentences, **facts) for c in classes}
    missing = [c for c in questions if c not in records]
    return Enrichment(list(questions), questions, {c: list(sentences) for c in records}, records, missing)


# ---------------------------------------------------------------- suspects


@pytest.mark.parametrize(
    ("suspects", "said"),
    [
        ([1], "1 of 3 classes is a suspect, *b*; its CMM is -0.2000."),
        (
            [1, 2],
            "2 of 3 classes are suspects; their CMM lies between -0.2000 and +0.1000, and no other class has a lower",
        ),
        ([1, 2, 0], "all 3 classes are suspects; their CMM lies between -0.2000 and +0.5000."),
    ],
)
def test_suspects_are_some_or_all(suspects, said):
    told = findings.suspects_said(run_of("a", "b", "c"), suspects, torch.tensor([0.5, -0.2, 0.1]))
    assert told.startswith(said)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((21, 25, 30, 120), "contain 21 of the 25 classes of lowest accuracy (84 %)"),
        ((21, 25, 30, 120), "would contain 25 % on average, which is less."),
        ((0, 4, 30, 120), "(0 %). As many classes chosen at random would contain 25 % on average, which is more."),
        ((4, 4, 120, 120), "would contain 100 % on average, which is as much."),
        (
            (1, 1, 1, 2),
            "the class of lowest accuracy is among the suspects. Among as many classes at random it would be in 50 %",
        ),
        ((0, 1, 1, 2), "the class of lowest accuracy is not among the suspects."),
    ],
)
def test_recall_is_compared_with_chance(numbers, said):
    assert said in findings.recall_said(*numbers)


# ---------------------------------------------------------------- answers


def test_as_many_answers_are_shown_as_there_are():
    run = run_of(*"abcde")
    for classes in ([], [2], [0, 1, 2, 4]):
        turns = findings.dialogue(run, answered(run, *classes, model="m"))
        assert len(turns) == min(3, len(classes))
        assert all(turn[0] == "answered: m" and turn[2] == ["one", "two", "three"] for turn in turns)
    assert findings.dialogue(run, answered(run, 0))[0][0] == "answered: origin not recorded"


def test_answers_are_counted_by_what_came_of_them():
    found = answered(run_of(*"abc"), 0)
    found.failed[2] = "no JSON"
    found.missing.remove(2)
    assert findings.answers_table(found)["classes"].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([0, 1, 2], "Every class that was asked about has a usable answer."),
        ([0, 1], "Origin of the answers: a&#95;b. Without a usable answer: *c&#42;*."),
        ([], "that the images are *photo&#60;b&#62;s*. Without a usable answer: *a*, *b*, *c&#42;*."),
    ],
)
def test_classes_without_an_answer_are_named(classes, said):
    run = run_of("a", "b", "c*")
    assert said in findings.answers_said(run, answered(run, *classes, domain="photo<b>s", origin="a_b"))


def test_of_many_classes_without_an_answer_some_are_named():
    run = run_of(*"abcdefghij")
    assert findings.answers_said(run, answered(run)).endswith("*g*, *h* and 2 more.")


# ---------------------------------------------------------------- effects


def effects(*changes: tuple[float, float, float, float]):
    names = [f"c{c}" for c in range(max(2, len(changes)))]
    return findings.effects(
        run_of(*names), dict(enumerate(changes)), {c: (c + 1) % len(names) for c in range(len(names))}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "no class that has images was described."),
        (
            [(0.1, 0.4, 0.5, 0.5)],
            "of 1 described class 1 gains, 0 lose and 0 stay as they were; the mean change is +30.0",
        ),
        (
            [(0.4, 0.1, 0.5, 0.5)] * 2,
            "of 2 described classes 0 gain, 2 lose and 0 stay as they were; the mean change is -30",
        ),
        (
            [(0.4, 0.4, 0.5, 0.5), (0.1 + 0.2, 0.3, 0.5, 0.5)],
            "0 gain, 0 lose and 2 stay as they were; the mean change is 0.0",
        ),
        ([(0.4, 0.4, 0.5, 0.5), (0.2, 0.1, 0.5, 0.5)], "0 gain, 1 loses and 1 stays as it was"),
    ],
)
def test_gains_and_losses_are_counted(changes, said):
    assert said in findings.effects_said(effects(*changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "no rival has images"),
        ([(0.1, 0.4, NAN, NAN)], "no rival has images"),
        ([(0.1, 0.4, 0.5, 0.5)], "the rival changes by 0.0 points on average of 1 description. No rival loses."),
        ([(0.1, 0.4, 0.5, 0.7)], "by +20.0 points on average of 1 description. No rival loses."),
        (
            [(0.1, 0.4, 0.5, 0.45)],
            "In 1 case it loses, in none of them more than 5 points. The largest loss: *c1* loses 5.0",
        ),
        (
            [(0.1, 0.4, 0.5, 0.49), (0.1, 0.4, 0.9, 0.3), (0.1, 0.4, NAN, NAN)],
            "by -30.5 points on average of 2 descriptions. In 2 cases it loses, in 1 of them more than 5 points. The "
            "largest loss: *c2* loses 60.0 points to *c1*.",
        ),
    ],
)
def test_rivals_lose_or_not(changes, said):
    assert said in findings.rivals_said(effects(*changes))


def test_the_rivals_that_lose_most_come_first_and_those_that_do_not_lose_are_left_out():
    changes = [(0.1, 0.4, 0.5, 0.5), (0.1, 0.0, 0.9, 0.3), (0.1, 0.4, 0.5, 0.4), (0.1, 0.4, NAN, NAN)]
    table = findings.rivals_table(effects(*changes, (0.1, 0.4, 0.5, 0.6)))
    assert list(table) == ["class", "gain (points)", "rival", "rival's gain (points)"]
    assert table.values.tolist() == [["c1", "-10.0", "c2", "-60.0"], ["c2", "+30.0", "c3", "-10.0"]]
    assert not len(findings.rivals_table(effects(changes[0])))
    assert not len(findings.rivals_table(effects()))


# ---------------------------------------------------------------- costs


def test_costs_are_summed_over_the_answers_that_say_them():
    run = run_of(*"abc")
    assert findings.costs_table(run, answered(run))["value"].tolist() == ["3", "3", "not recorded", "not recorded"]
    found = answered(run, 0, 1, tokens=700, cost=0.00125)
    assert findings.costs_table(run, found)["value"].tolist()[2:] == ["1,400", "0.0025"]
    some = answered(run, 2)
    found.records.update(some.records)
    assert findings.costs_table(run, found)["value"].tolist()[2:] == [
        "1,400 (2 of 3 answers)",
        "0.0025 (2 of 3 answers)",
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (1, "1 request, 25 % of the 4"),
        (3, "3 requests, 75 % of the 4"),
        (4, "every class is asked about, so nothing is"),
    ],
)
def test_asking_about_all_saves_nothing(asked, said):
    run = run_of(*"abcd")
    assert findings.costs_said(run, answered(run, asked=asked)).startswith(said)
