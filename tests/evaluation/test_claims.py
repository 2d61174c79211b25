"""Whether a claim held is decided by a rule: checked where the answer is known."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_embeddings import synthetic_arrays

import cmmlib.functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.evaluation import claims
from cmmlib.functional.worst import default_worst_k
from cmmlib.report import pages

STATIC = Path(__file__).parents[2] / "book" / "_static"


def synthetic() -> tuple[torch.Tensor, ...]:
    arrays = synthetic_arrays()
    images = torch.from_numpy(arrays["image_features"]).float()
    heads = torch.from_numpy(arrays["text_features"]).float()
    return images, heads[0], heads, torch.from_numpy(arrays["labels"]).long()


def test_an_interval_decides():
    assert claims.verdict(0.1, 0.2) == "held"
    assert claims.verdict(0.1, 0.2, than=0.15) == "undecided"
    assert claims.verdict(0.1, 0.2, than=0.3) == "did not hold"
    assert claims.verdict(0.0, 0.0) == "did not hold"
    assert claims.verdict(np.nan, np.nan) == "undecided"


def test_every_claim_has_a_row_with_an_interval_around_its_value():
    images, base, heads, labels = synthetic()
    rows = claims.claim_rows(images, base, heads, labels, 100.0, 3)
    said = [row["claim"] for row in rows]
    assert said.count(claims.FINDS) == 10  # five readings, two measures
    assert said.count(claims.RATES) == 0  # two prompts cannot be ranked
    measures = {row["measure"] for row in rows}
    assert {"change of the worst 3, chosen on other images", "change overall", "overall minus worst 3"} <= measures
    assert "AUROC of the worst 3, soft" in measures
    followed = claims.claim_rows(images, base, heads, labels, 100.0, 3, followed_k=5)
    assert "change of the worst 5, chosen on other images" in {row["measure"] for row in followed}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"], row
    many = claims.claim_rows(images, base, torch.cat([heads, heads.flip(1), heads[:1]]), labels, 100.0, 3)
    (rated,) = (row for row in many if row["claim"] == claims.RATES)
    assert rated["measure"] == "rank correlation over 5 prompts"


def predictions(*accuracies: float, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and labels with these class accuracies; errors go to the next class."""
    labels = torch.arange(len(accuracies)).repeat_interleave(n)
    right = torch.cat([torch.arange(n) < round(a * n) for a in accuracies])
    return torch.where(right, labels, (labels + 1) % len(accuracies)), labels


def test_a_tail_is_found_where_there_is_one_only():
    tail, labels = predictions(0.1, 0.2, 0.9, 0.9, 0.9, 0.9)
    found = claims.phenomenon(tail, labels, 6, 2)
    assert found["held"] == "held"
    assert found["low"] < 0.65 - 0.15 < found["high"]
    level, labels = predictions(0.7, 0.7, 0.7, 0.7, 0.7, 0.7)
    assert claims.phenomenon(level, labels, 6, 2)["held"] == "did not hold"


def test_a_lift_counts_only_what_regression_to_the_mean_does_not_give():
    before, labels = predictions(0.1, 0.2, 0.8, 0.9)
    after, _ = predictions(0.6, 0.7, 0.8, 0.9)
    worst, overall = claims.lift("it", before, after, labels, 4, 2)
    assert worst["value"] == pytest.approx(0.5, abs=0.02)
    assert (worst["held"], overall["held"]) == ("held", "held")
    assert overall["value"] == pytest.approx(0.25)
    random = torch.Generator().manual_seed(0)  # the same coin thrown twice: no method at all
    labels = torch.arange(40).repeat_interleave(20)
    coins = [torch.where(torch.rand(800, generator=random) < 0.5, labels, (labels + 1) % 40) for _ in range(2)]
    worst, overall = claims.lift("nothing", *coins, labels, 40, 10)
    assert worst["held"] == "undecided"
    assert abs(worst["value"]) < 0.1
    assert claims.lift("harm", after, before, labels=torch.arange(4).repeat_interleave(400), n_classes=4, k=2)[1][
        "held"
    ] == ("did not hold")


def test_soft_cmm_is_compared_with_plainer_scores_class_by_class():
    random = torch.Generator().manual_seed(0)
    accuracy = torch.rand(60, generator=random).double()
    accuracy[3] = float("nan")
    noise = torch.rand(60, generator=random).double()
    scores = {"soft": torch.arange(60).double(), **dict.fromkeys(claims.PLAINER, noise)}
    scores["soft"] = scores["accuracy_estimate"] = accuracy.nan_to_num(0.5)
    found = claims.cmm_against_plainer_scores(scores, accuracy)
    assert found["accuracy_estimate"] == (0, 0, 0)  # the same order
    value, low, high = found["predicted_count"]
    seen = ~accuracy.isnan()
    assert value == pytest.approx(1 - F.spearman(noise[seen], accuracy[seen]))
    assert 0 < low < value < high
    order = torch.randperm(60, generator=random)
    moved = {name: score[order] for name, score in scores.items()}
    assert claims.cmm_against_plainer_scores(moved, accuracy[order]) == found
    scores["predicted_count"] = torch.ones(60).double()
    assert np.isnan(claims.cmm_against_plainer_scores(scores, accuracy)["predicted_count"]).all()


def test_few_images_leave_a_claim_undecided():
    images, base, heads, labels = synthetic()
    few = torch.tensor([int((labels == c).nonzero()[0, 0]) for c in range(len(base))])
    rows = claims.claim_rows(images[few], base, heads, labels[few], 100.0, 3)
    assert {row["held"] for row in rows if row["measure"].startswith("change of")} == {"undecided"}
    table = pages.evidence_table(rows)
    assert "nan" not in table.to_csv().lower()


def test_the_page_shows_points_and_decimals():
    table = pages.evidence_table(
        [
            {"claim": "a", "measure": "AUROC, soft", "value": 0.9, "low": 0.8, "high": 1.0, "held": "held"},
            {"claim": "b", "measure": "change overall", "value": 0.02, "low": -0.01, "high": 0.05, "held": "undecided"},
        ]
    )
    assert table["value"].tolist() == ["0.90", "+2.0 points"]
    assert table["95 % interval"].tolist() == ["0.80 to 1.00", "-1.0 to +5.0"]


def test_the_table_by_data_set_has_every_value_of_the_other(monkeypatch):
    monkeypatch.syspath_prepend(str(STATIC.parents[1] / "benchmarks"))
    by_set = importlib.import_module("evidence").by_set
    rows, shown = (pd.read_csv(STATIC / f"{name}.csv", dtype=str) for name in ("evidence_real", "evidence_by_set"))
    assert json.loads(by_set(rows).to_json()) == json.loads(shown.fillna("").to_json())
    cells = [cell for cell in shown.iloc[:, 2:].to_numpy().ravel() if isinstance(cell, str)]
    assert len(cells) == len(rows)
    assert sorted(cell.split(" (")[0] for cell in cells) == sorted(rows["value"])
    lost = by_set(rows.assign(**{"did it hold?": "did not hold"}))
    assert all(not cell or cell.endswith(", did not hold") for cell in lost.iloc[:, 2:].to_numpy().ravel())


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "file", "probed"),  # a linear probe of many classes takes long
    [
        ("DTD", "dtd_vitb32.npz", False),
        ("Pets, 25 breeds", "pets25_vitb32.npz", True),
        ("DTD test, ViT-L/14", "dtd_test_vitl14.npz", False),
    ],
)
def test_the_committed_table_is_what_the_real_embeddings_give(real_data, name, file, probed):
    data = load_embeddings(real_data / file)
    committed = pd.read_csv(STATIC / "evidence_real.csv", dtype=str)
    k = default_worst_k(len(data.classnames))
    texts = data.text_features[0], data.text_features
    rows = claims.claim_rows(data.image_features, *texts, data.labels, data.logit_scale, k, followed_k=10)
    rows += [claims.sight(data.image_features, data.text_features[0], data.labels)] if probed else []
    mine = pages.evidence_table(rows).astype(str)
    theirs = committed[committed["data"] == name].drop(columns="data").reset_index(drop=True)
    theirs = theirs if probed else theirs[theirs["claim"] != claims.SIGHT]
    assert json.loads(mine[["claim", "measure", "did it hold?"]].to_json()) == json.loads(
        theirs[["claim", "measure", "did it hold?"]].to_json()
    )
    number = r"([+-]?[\d.]+)"
    ours, known = (table["value"].str.extract(number)[0].astype(float) for table in (mine, theirs))
    np.testing.assert_allclose(ours, known, atol=0.3)
