"""The cards' sentences and tables say the truth of extreme numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from cmmlib.blazon import card
from cmmlib.blazon.heraldry import blazon
from cmmlib.data.load import RenderedShields, load_blazon
from cmmlib.report import plots
from cmmlib.report.findings import data_card, model_card
from cmmlib.study.run import Run
from cmmlib.study.study import Study


@pytest.fixture(scope="module")
def shields() -> RenderedShields:
    return load_blazon().pick(range(0, 4800, 20))


def run_of(pictures: Any, labels: Any = None, names: list[str] | None = None) -> Run:
    names = names or [blazon(arms) for arms in pictures.arms]
    labels = getattr(pictures, "labels", None) if labels is None else labels
    zero = torch.zeros(len(names), 2)
    x = torch.zeros(1 if labels is None else len(labels), 2)
    return Run(Study.of({}), "id", Path(), x, labels, names, zero, zero[None], ["{}"], "{}", 1.0, pictures, None)


def test_six_shields_teach_the_colours_and_kinds(shields):
    shown = data_card.six_shields(run_of(shields))
    assert len(shown) == 6
    words = " ".join(gloss for _, _, gloss in shown)
    assert all(colour in words for colour in ("gold", "silver", "red", "blue", "green", "purple", "black"))
    figure = plots.shields(shown)
    figure.draw_without_rendering()
    assert "or is gold, argent is silver" in figure.get_label()
    assert all(f"{name}: {gloss}" in figure.get_label() for _, name, gloss in shown)
    plt.close(figure)


def test_few_classes_are_all_shown(shields):
    two = shields.with_classes([0, 1], shields.labels)
    run = run_of(two, labels=torch.tensor([1, 1, 1]))
    assert [name for _, name, _ in data_card.six_shields(run)] == [blazon(shields.arms[1])]
    images, captions = data_card.some_images(run)
    assert len(images) == len(captions) == 1
    assert "0 to 3 of each class" in data_card.data_facts(run)["value"][1]


def test_every_kind_of_class_is_counted(shields):
    told = data_card.kinds_of_classes(run_of(shields))
    n = [int(word) for word in told.split() if word.isdigit()]
    assert n[0] == sum(n[1:]) == 120


def test_names_read_are_in_the_order_of_readings():
    frequencies = card.load_frequencies()
    table = data_card.names_read(frequencies)
    counts = [int(text.replace(",", "")) for text in table["name read"]]
    assert counts == sorted(counts)
    told = data_card.least_and_most_read(frequencies)
    assert f"*{table['name'].iloc[0]}*" in told
    assert f"*{table['name'].iloc[-1]}*" in told


@pytest.mark.parametrize(
    ("probe", "by_name", "told"),
    [
        (0.99, 0.5, "most of what fails is language"),
        (0.6, 0.5, "sight may be most of it"),
        (0.5, 0.5, "does not show"),
        (1.0, 1.0, "does not show"),
        (0.4, 0.9, "does not show"),
    ],
)
def test_sight_or_language_is_told_by_the_probe(probe, by_name, told):
    shipped = {"linear_probe": probe, "overall": by_name, "described_overall": 0.9}
    assert told in model_card.sight_or_language(shipped)


def test_the_study_is_told_whether_its_images_were_measured():
    quality = card.load_quality()
    spread = card.spread(quality)
    assert "this study's seed is one of them" in model_card.how_stable(spread, quality, 1)
    assert "this study's seed is none of them" in model_card.how_stable(spread, quality, 0)
    lost = spread.assign(gain=[-0.1] * len(spread))
    assert "change it by -10.0 to -10.0 points" in model_card.how_stable(lost, quality, 0)
    assert list(model_card.training_seeds(spread).columns) == [
        "measure",
        *(f"seed {s}" for s in spread["training_seed"]),
    ]


def test_the_other_weights_are_compared_with_the_default():
    table = card.tags()
    assert "50 % of the samples of *shipped*" in model_card.of_tags(table)
    assert model_card.of_tags(table[:1]) == ""


def test_rare_names_that_are_right():
    names = pd.DataFrame({"name": ["a", "b", "c"], "read": [1, 2, 100], "elsewhere": [0, 9, 0]})
    run = run_of(None, names=["<a>", "b", "c"])
    told = model_card.rare_and_right(run, names, torch.tensor([0.8, 0.1, 0.9]))
    assert "1 class whose weakest name was read fewer than 20 times: 80.0 % right" in told
    assert told.endswith("1 class of a rare name is right at least half of the time, as *&#60;a&#62;* at 80.0 %.")
    told = model_card.rare_and_right(run, names, torch.tensor([0.0, 0.1, 0.9]))
    assert "at least half" not in told
    assert len(model_card.worst_names(run, names, torch.tensor([0.8, 0.1, 0.9]))) == 3


def test_the_section_has_what_other_pages_quote():
    record, spread = card.load_record(), card.spread(card.load_quality())
    shipped = model_card.of_seed(spread, record["recipe"]["seed"])
    section = model_card.section(record, shipped, card.tags())
    assert {"probe", "by_name", "described", "logit_scale"} <= section.keys()
    assert section["probe"] == shipped["linear_probe"]
    assert np.isfinite([section[key] for key in ("probe", "by_name", "described", "logit_scale")]).all()


def test_facts_are_of_the_record():
    record = card.load_record()
    facts = model_card.model_facts(record, 4_100_000).set_index("what")["value"]
    assert facts["parameters"].startswith("4.1 million")
    assert "600,000 pairs" in model_card.how_trained({**record, "recipe": {**record["recipe"], "samples": 600_000}})
    assert "processor" in set(model_card.versions(record)["what"])


def test_the_vocabulary_is_drawn_whole():
    for drawn, words in (data_card.drawn_charges(), data_card.drawn_fields()):
        assert len(drawn) == len(words) == len(set(words))
    assert data_card.vocabulary() == "36 charges, 11 divisions and patterns, and 10 tinctures."
