"""Sentences of chapter 2 against numbers at their extremes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from finished_runs import run_of

import cmmlib.functional as F
from cmmlib import Study
from cmmlib.data.images import ImageSet
from cmmlib.report.findings import cmm as findings
from cmmlib.report.findings import prompts
from cmmlib.study.open_run import study_data

NAN = float("nan")


def scored(
    spearman: float | None, precision: float | None, n_true: int | None, chance: float | None, auroc: float | None = 0.5
):
    return {"spearman": spearman, "precision_at_k": precision, "n_true": n_true, "chance": chance, "auroc": auroc}


# ---------------------------------------------------------------- margins and suspects


def test_a_margin_is_behind_or_none():
    run = run_of("a*b", "<i>")
    ahead = findings.one_image(run, run.similarity_pass(), 0)
    assert "predicted as *a&#42;b*; its rival, *&#60;i&#62;*, lies 1.0000 of cosine similarity behind" in ahead
    tied = findings.one_image(run, run.similarity_pass(torch.ones(2, 2) / 2**0.5), 0)
    assert tied.endswith("has the same similarity.")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.2, 0.1, "*a* is 0.2000 behind the best other class; *b* is 0.1000 ahead of it"),
        (-0.2, -0.1, "*a* is 0.2000 behind the best other class; *b* is 0.1000 behind it"),
        (0.0, 0.00001, "*a* is level with the best other class; *b* is level with it"),
    ],
)
def test_the_ends_are_ahead_or_behind(low, high, said):
    assert said in findings.lowest_and_highest(run_of("a", "b"), torch.tensor([low, high]), torch.tensor([0, 1]))


def test_a_class_is_ahead_only_where_no_other_is_level():
    rows = [("a", [], [0.1, 0.0, -0.1]), ("b", [], [])]
    assert findings.ahead_on_nearest(rows).endswith("*a* is ahead on 1 of 3, *b* is ahead on 0 of 0.")


def test_the_nearest_images_carry_the_margin_of_their_class_and_plain_english():
    data = study_data(Study.of({"limit": 1}))
    assert isinstance(data, ImageSet)
    run, similarity = run_of(*data.classnames, pictures=data), torch.eye(len(data.classnames))
    (name, images, margins), _ = findings.nearest_images(run, torch.tensor([5, 0]), similarity, 2 * similarity, n=2)
    (gloss,) = findings.in_plain_english(run, [5])["in plain English"]
    assert name == f"{data.classnames[5]} ({gloss})"
    assert (len(images), margins) == (2, [2.0, 0.0])
    table = findings.suspect_table(run, torch.tensor([5]), similarity[5], torch.arange(len(similarity)))
    assert table["in plain English"].tolist() == [gloss]


def test_suspects_stand_beside_their_rivals():
    run, soft = run_of("a", "b", "c"), torch.tensor([0.5, -0.25, 0.0])
    rival = torch.tensor([1, 2, 1])
    table = findings.suspect_table(run, torch.tensor([1, 2]), soft, rival)
    assert table.values.tolist() == [["b", "-0.2500", "c"], ["c", "+0.0000", "b"]]


@pytest.mark.parametrize(
    ("soft", "suspects", "rival", "said"),
    [
        ([0.5, 0.1, 0.2], [1, 2], [2, 0, 0], "none of the 3 classes has a CMM below zero. Of the 2 suspects none has"),
        ([0.5, -0.1, 0.2], [1, 2], [2, 2, 0], "1 of the 3 classes has a CMM below zero. Of the 2 suspects 1 has"),
        ([0.5, -0.2, -0.1], [1, 2], [2, 2, 1], "2 of the 3 classes have a CMM below zero. Of the 2 suspects 2 have"),
    ],
)
def test_suspects_that_are_rivals_are_counted(soft, suspects, rival, said):
    assert findings.suspects_said(*map(torch.tensor, (soft, suspects, rival))).startswith(said)


def test_one_suspect_has_no_other():
    assert "suspect" not in findings.suspects_said(torch.tensor([0.1, 0.2]), torch.tensor([0]), torch.tensor([1, 0]))


# ---------------------------------------------------------------- does CMM know?


@pytest.mark.parametrize(
    ("found", "k", "said"),
    [
        (
            scored(0.79, 0.85, 25, 0.21, 0.96),
            20,
            "17 of the 20 classes of lowest CMM (85 %) belong to the 25 of lowest",
        ),
        (scored(0.79, 0.85, 25, 0.21, 0.96), 20, "more than 20 because of ties. At random"),
        (scored(0.79, 0.85, 25, 0.5, 0.96), 20, "is 50 %, and 7 to 13 of 20 would be in 95 % of random choices: CMM"),
        (scored(0.79, 0.75, 25, 0.5, 0.96), 20, "CMM finds more than chance. The probability"),
        (scored(0.79, 0.65, 25, 0.5, 0.96), 20, "CMM finds no more than chance."),  # 13 of 20, and 10 on average
        (scored(0.79, 0.25, 25, 0.5, 0.96), 20, "CMM finds fewer than chance."),
        (scored(-0.3, 0.05, 20, 0.2, 0.4), 20, "1 of the 20 classes of lowest CMM (5 %) belongs to the 20 of lowest"),
        (scored(0.1, 0.125, 4, 0.4), 4, "0.5 of the 4 classes of lowest CMM (12 %; a mean, since classes tie in CMM)"),
        (scored(0.1, 1.0, 1, 0.2), 1, "The class of lowest CMM belongs to the 1 of lowest accuracy."),
        (
            scored(0.1, 0.0, 2, 0.4),
            1,
            "The class of lowest CMM does not belong to the 2 of lowest accuracy, which are more",
        ),
        (scored(None, 1.0, 50, 1.0, None), 20, "No class is better than the worst 20, ties included"),
        (scored(None, 1.0, 50, 1.0, None), 20, "there is no rank correlation"),
        (
            scored(0.5, None, None, None, None),
            60,
            "Only 50 classes of the data set have images: there is no worst set of 60",
        ),
    ],
)
def test_what_cmm_finds_is_compared_with_chance(found, k, said):
    text = findings.detection(found, k, 50)
    assert said in text
    assert not any(word in text for word in ("None", "nan", "n/a"))


def test_ties_at_the_last_place_do_not_count_as_more_than_k():
    assert "because of ties" not in findings.detection(scored(0.1, 0.5, 20, 0.2), 20, 100)


def test_the_class_that_is_missed_most_is_named_with_what_is_predicted_as_it():
    soft = torch.linspace(0, 1, 6)  # the last class is suspected least
    accuracy = torch.tensor([0.0, 1.0, 1.0, 0.25, 1.0, 1.0])
    labels, prediction = torch.tensor([3, 3, 3, 3, 0, 1]), torch.tensor([3, 0, 1, 1, 3, 3])
    shown = [*"abcdef"], soft, accuracy, prediction, labels
    told = findings.missed(*shown, accuracy < 0.5)
    assert told.startswith("Of the 2 classes of lowest accuracy CMM suspects *d* least, number 4 of 6: its accuracy is")
    assert told.endswith("is 25.0 %, and of the 3 images predicted as it 1 is its own.")
    assert findings.missed(*shown, accuracy < 0) == findings.missed(*shown, accuracy < 2) == ""


# ---------------------------------------------------------------- one score against another


def quality(**rho: float | None) -> dict[str, dict[str, Any]]:
    return {name: {"spearman": value, "precision_at_k": None, "auroc": None} for name, value in rho.items()}


def test_scores_that_lack_a_class_are_compared_without_it():
    accuracy = torch.tensor([0.0, 0.5, 0.7, 1.0, NAN])
    given = {"soft": torch.tensor([0.0, 0.2, 0.1, 0.3, 0.4]), "pseudo": torch.tensor([NAN, 0.1, 0.2, 0.3, NAN])}
    told = findings.filled_said(given, accuracy)
    assert told.endswith("over the classes with a value: *pseudo* lacks 1 class (1.00; *soft* 0.50).")
    assert findings.filled_said({"soft": given["soft"]}, accuracy) == ""


@pytest.mark.parametrize(
    ("rho", "said", "unsaid"),
    [
        (
            {"labels": 0.9, "soft": 0.5, "retrieval": 0.8, "nearest_text_distance": 0.1},
            "0.80, is that of *retrieval*; *soft* has 0.50; the oracle has 0.90. Texts alone, without any image "
            "(*nearest text distance*), have 0.10, lower than that of *soft*.",
            "None",
        ),
        ({"labels": 0.9, "soft": 0.8, "pseudo": 0.8}, "0.80, is that of *soft* and *pseudo*; the oracle", "soft* has"),
        ({"soft": 0.1, "nearest_text_distance": 0.7}, "0.70, higher than that of *soft*", "lower"),
        ({"soft": 0.7, "nearest_text_distance": 0.7}, "equal to that of *soft*", "higher than that"),
        ({"soft": None, "pseudo": -0.4, "nearest_text_distance": -0.5}, "-0.40, is that of *pseudo*.", "Texts alone"),
        ({"labels": None, "soft": None}, "no score has a rank correlation", "oracle"),
    ],
)
def test_the_best_score_is_named(rho, said, unsaid):
    text = findings.scores_compared(quality(**rho))
    assert said in text
    assert unsaid not in text


def test_plainer_scores_are_compared_by_their_intervals():
    said = findings.against_plainer(
        {
            "predicted_count": (0.2, 0.1, 0.3),
            "accuracy_estimate": (-0.02, -0.05, 0.01),
            "mean_top_probability": (-0.3, -0.4, -0.2),
            "nearest_text_distance": (float("nan"),) * 3,
        }
    )
    assert said.startswith("*soft* CMM ranks the classes better than *predicted count* (+0.10 to +0.30); worse")
    assert "worse than *mean top probability* (-0.40 to -0.20); not clearly better or worse than *acc" in said
    assert "nearest" not in said
    assert "no rank correlation is defined" in findings.against_plainer({"predicted_count": (float("nan"),) * 3})


def scores(**changed: list[float]) -> dict[str, torch.Tensor]:
    even = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in changed.items()}
    return {"soft": even, "pseudo": even, "accuracy_estimate": even, **given}


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        ([0.5, 0.5, 0.9], "off by 30.0 points (mean absolute error), and on average 30.0 points too high"),
        ([0.0, 0.1, 0.9], "off by 15.0 points (mean absolute error), and on average 15.0 points too low"),
        ([0.1, 0.4, 0.9], "on average neither too high nor too low"),
    ],
)
def test_the_estimate_is_too_high_or_too_low_where_there_are_images(estimate, said):
    accuracy = torch.tensor([0.2, 0.2, NAN]) if estimate[0] == 0.5 else torch.tensor([0.15, 0.25, NAN])
    if estimate[0] == 0.1:
        accuracy = torch.tensor([0.2, 0.3, NAN])
    assert said in findings.estimate_said(scores(accuracy_estimate=estimate), accuracy)


@pytest.mark.parametrize(
    ("pseudo", "said"),
    [
        ([0.1, 0.2, 0.3], "Every class is predicted for some image"),
        ([0.1, NAN, 0.3], "1 class is never predicted and has no"),
        ([NAN, NAN, 0.3], "2 classes are never predicted and have no"),
    ],
)
def test_classes_without_a_pseudo_cmm_are_counted(pseudo, said):
    assert said in findings.estimate_said(scores(pseudo=pseudo), torch.tensor([0.1, 0.2, 0.3]))


def test_every_score_is_judged_and_its_undefined_classes_are_counted():
    accuracy = torch.tensor([0.0, 0.5, 1.0])
    found = findings.score_quality(scores(pseudo=[NAN, 0.2, 0.3], accuracy_estimate=[0.1, 0.5, 0.9]), accuracy, 1)
    assert [found[name]["undefined"] for name in ("soft", "pseudo")] == [0, 1]
    assert [found[name]["spearman"] for name in ("soft", "pseudo")] == [1.0, 1.0]
    assert found["accuracy_estimate"]["mean_absolute_error"] == pytest.approx(0.2 / 3)
    table = findings.quality_table(found)
    assert table["score"].tolist() == ["soft", "pseudo", "accuracy estimate"]
    assert table["precision_at_k"].tolist() == ["100.0 %"] * 3


# ---------------------------------------------------------------- prompts


def ranked(overall: list[float | None], plainly: list[float], free: list[float]) -> pd.DataFrame:
    names = [f"{letter} {{}}" for letter in "abcd"[: len(overall)]]
    table = pd.DataFrame({"prompt": names, "overall": overall, "worst_10": None}, dtype=object)
    return table.assign(cmm_mean=plainly, cmm_mean_scale_free=free)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            ranked([0.1, 0.2, 0.3], [1, 2, 3], [1, 3, 2]),
            "1.00 in the plain form and 0.50 in the scale-free form: the plain",
        ),
        (ranked([0.1, 0.2, 0.3], [1, 3, 2], [1, 2, 3]), "the scale-free form ranks them better. Plain CMM prefers"),
        (ranked([0.1, 0.2, 0.3], [3, 2, 1], [3, 2, 1]), "neither form ranks them better. Both forms of CMM prefer"),
        (ranked([0.1, 0.2], [1, 2], [2, 1]), "2 prompts (of two prompts it can only be 1 or -1) is 1.00 in the plain"),
        (
            ranked([0.2, 0.2, 0.2], [1, 2, 3], [1, 3, 2]),
            "there is no rank correlation of CMM and accuracy, since one of",
        ),
        (ranked([0.2, 0.2, 0.2], [1, 2, 3], [1, 3, 2]), 'which is best: "a &#123;&#125;" and 2 more, at 20.0 %'),
        (ranked([0.1, 0.3, 0.2], [1, 2, 3], [3, 2, 1]), 'scale-free CMM "a &#123;&#125;" (10.0 %). The labels say'),
    ],
)
def test_the_forms_are_compared_by_how_they_rank_the_prompts(table, said):
    assert said in prompts.prompts_said(table)


def test_without_labels_only_the_preferred_prompts_are_named():
    told = prompts.prompts_said(ranked([None, None], [1, 2], [2, 1]))
    assert told == 'plain CMM prefers the prompt "b &#123;&#125;", scale-free CMM "a &#123;&#125;".'


def test_prompts_stand_in_the_order_of_cmm_without_empty_columns():
    table = prompts.prompt_table(ranked([0.1, 0.3, 0.2], [1, 2, 3], [3, 2, 1]))
    assert table["prompt"].tolist() == ["c {}", "b {}", "a {}"]
    assert table["overall"].tolist() == ["20.0 %", "30.0 %", "10.0 %"]
    assert list(table) == ["prompt", "overall", "cmm_mean", "cmm_mean_scale_free"]
    assert list(prompts.prompt_table(ranked([None], [1], [1]))) == ["prompt", "cmm_mean", "cmm_mean_scale_free"]


def test_soft_cmm_by_hand_is_the_librarys():
    """The four lines of the chapter, on images and texts at random, with two equal texts."""
    generator = torch.Generator().manual_seed(0)
    x, t = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (50, 6))
    t[3] = t[1]
    similarity = x @ t.T
    first, second = similarity.topk(2).values.split(1, dim=1)
    margin = similarity - torch.where(similarity == first, second, first)
    q = (20 * similarity).softmax(1)
    expected = F.class_matching_margin(F.similarity_pass(x, t, 20.0), "soft")[0]
    assert torch.allclose(((q * margin).sum(0) / q.sum(0)).double(), expected, atol=1e-5)
