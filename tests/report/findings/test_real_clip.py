"""The sentences of the chapter on published accuracies."""

from __future__ import annotations

import pandas as pd
import pytest

from cmmlib.evaluation import published
from cmmlib.report.findings import real_clip


def test_steps_go_from_less_computation_to_more_whatever_the_parameters():
    rows = [
        ("ViT-B-16", "a", 149.6, 17.6, 0.6, 0.07),  # as many parameters as the next, and four times the computation
        ("ViT-B-32", "a", 151.3, 4.4, 0.5, 0.01),
        ("ViT-L-14", "a", 427.6, 81.0, 0.7, 0.05),
        ("ViT-B-32", "b", 151.3, 4.4, 0.4, 0.0),
        ("ViT-L-14", "b", 427.6, 81.0, 0.5, 0.0),
    ]
    columns = ["backbone", "pretrained", "parameters", "multiply_adds", "overall", "worst_10"]
    told = real_clip.scale(pd.DataFrame(rows, columns=columns))
    assert "a, from ViT-B-32 (50.0 %, 1.0 %) to ViT-L-14 (70.0 %, 5.0 %). Over the 3 steps" in told
    assert "that computes more, the worst 10 rise in 1, fall in 1 and stay at 0 in 1." in told
    unknown = pd.DataFrame(rows, columns=columns).assign(multiply_adds=float("nan"))
    assert "Over the 3 steps" in real_clip.scale(unknown)


def with_prompts(*values: tuple[float, float], data: str = "imagenet") -> pd.DataFrame:
    """Models of one data set: a value with one template, and with the ensemble."""
    rows = [
        {"data": data, "backbone": f"b{i}", "pretrained": "p", "prompts": published.PROMPTS[key], "overall": value}
        | {"worst_10": value, "worst_share": value}
        for i, pair in enumerate(values)
        for key, value in zip(("simple", "ensemble"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


def test_what_stays_at_zero_is_counted_apart_from_what_stays_as_it_is():
    models = with_prompts((0.0, 0.0), (0.0, 0.1), (0.2, 0.1), (0.2, 0.2))
    told = real_clip.worst_ten(models)
    assert "rise in 1 of 4 models, fall in 1, have the same value above 0 in 1 and stay at 0 in 1, where" in told
    assert "rise in 0 of 1 models, fall in 0 and stay at 0 in 1," in real_clip.worst_ten(with_prompts((0.0, 0.0)))


def test_data_sets_whose_worst_classes_mostly_stay_at_zero_are_counted():
    models = pd.concat([with_prompts((0.0, 0.0), (0.0, 0.1)), with_prompts((0.0, 0.0), (0.2, 0.1), data="birds")])
    changes = published.prompt_changes(models)
    told = real_clip.prompts(changes)
    assert "the worst twentieth rises in 1, falls in 1 and stays at 0 in 2. On 0 of the 2 data sets" in told
    table = real_clip.changes_table(changes)
    assert table[["worst twentieth rises in", "falls in", "stays at 0 in"]].to_numpy().tolist() == [
        [1, 0, 1],
        [0, 1, 1],
    ]
    alone = published.prompt_changes(with_prompts((0.0, 0.0)))
    assert "On 1 of the 1 data sets it stays at 0 in more than half" in real_clip.prompts(alone)


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ([0.0, 0.1, 0.2], "3 classes have an accuracy of 20.0 % or less. The published"),
        ([0.0, 0.1, 0.2, 0.2], "4 classes have an accuracy of 20.0 % or less (3, and those that tie with the last). "),
        ([0.0] * 25, "25 classes have an accuracy of 0.0 % or less (3, and those that tie with the last). "),
    ],
)
def test_the_lowest_classes_are_counted_with_their_ties(accuracies, told):
    table = pd.DataFrame({"class_name": [f"class {i}" for i in range(len(accuracies))], "accuracy": accuracies})
    assert real_clip.lowest_said(table, 3).startswith(told)
    shown = real_clip.lowest_classes(table)
    assert shown["accuracy"].tolist() == list(dict.fromkeys(f"{100 * value:.1f} %" for value in accuracies))
    assert shown["classes"].iloc[-1].endswith("and 5 more") == (len(accuracies) > real_clip.MOST)
