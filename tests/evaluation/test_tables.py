"""The tables of a run: one row a class or a prompt, keyed by index, empty where something is undefined."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from finished_runs import write_embeddings
from synthetic_embeddings import CLASSES

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.evaluation import evaluation, tables
from cmmlib.functional.similarity import SimilarityPass, similarity_pass
from cmmlib.study.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return open_run(Study.of({"dataset": write_embeddings(tmp_path / "x.npz")}))


@pytest.fixture
def passed(run) -> SimilarityPass:
    return similarity_pass(run.image_features, run.base_text_features[None], run.logit_scale)


def test_accuracy_columns_are_empty_for_a_class_without_images_and_name_no_rival_without_an_error(run):
    labels = torch.arange(30) % 3
    prediction = torch.where((labels == 1) & (torch.arange(30) < 15), 7, labels)
    accuracy = F.class_accuracy(prediction, labels, CLASSES)
    other, share = F.taken_for(prediction, labels, CLASSES)
    table = tables.accuracy_columns(run, accuracy, F.wilson_intervals(accuracy), other, share)
    assert table["accuracy"].iloc[:3].tolist() == [1.0, 0.5, 1.0]
    assert table["n_images"].tolist() == [10, 10, 10] + [0] * 9
    assert table.loc[3:, ["accuracy", "accuracy_low", "accuracy_high"]].isna().all(axis=None)
    assert ((table["accuracy_low"] <= table["accuracy"]) & (table["accuracy"] <= table["accuracy_high"]))[:3].all()
    assert table["taken_for"].tolist() == ["", "synthetic class 07"] + [""] * 10
    assert table["taken_for_index"].isna().tolist() == [True, False] + [True] * 10
    assert table["share_taken_for"].tolist() == [0, 0.5] + [0] * 10


def test_an_undefined_index_is_an_empty_cell_and_a_defined_one_an_integer(run, tmp_path):
    labels = torch.arange(30) % 3
    prediction = labels.where(labels != 1, 2)
    accuracy = F.class_accuracy(prediction, labels, CLASSES)
    other, share = F.taken_for(prediction, labels, CLASSES)
    table = tables.accuracy_columns(run, accuracy, F.wilson_intervals(accuracy), other, share)
    run = Run(**{**vars(run), "folder": tmp_path})
    for columns in (table, table[["class_index", "class_name"]].assign(more=1.5)):  # the next chapter adds a column
        run.record_table("per_class.csv", columns, "class_index")
    read = pd.read_csv(tmp_path / "per_class.csv", dtype=str, keep_default_na=False)
    assert read["taken_for_index"].tolist() == ["", "2", *[""] * 10]
    assert read["more"].tolist() == ["1.5"] * CLASSES


def test_names_and_numbers_come_through_a_file_as_they_are(run, tmp_path):
    run = Run(**{**vars(run), "folder": tmp_path})
    names = ["NA", "007", "null", "1.0", "a,b", '"']
    first = pd.DataFrame({"class_index": range(6), "taken_for": names, "share": [0.1 + 0.2, 1 / 3, 1e-17, 0, 1, None]})
    run.record_table("t.csv", first, "class_index")
    before = (tmp_path / "t.csv").read_text()
    run.record_table("t.csv", pd.DataFrame({"class_index": range(6), "rank": range(6)}), "class_index")
    run.record_table("t.csv", first[["class_index"]], "class_index")
    after = (tmp_path / "t.csv").read_text()
    ranks = ["rank", *range(6)]
    assert after.splitlines() == [f"{line},{rank}" for line, rank in zip(before.splitlines(), ranks, strict=True)]


def test_the_suspect_rank_is_the_order_of_suspicion(run, passed):
    soft = F.class_matching_margin(passed, "soft")[0]
    order = F.rank_classes(soft, soft)
    rival, share = F.rivals(run.image_features, run.base_text_features, run.logit_scale)
    scores = {"soft": soft, "predicted_count": F.predicted_count(passed)[0].double()}
    table = tables.cmm_columns(run, scores, order, rival, share)
    assert table.sort_values("suspect_rank")["class_index"].tolist() == order.tolist()
    assert table.sort_values("cmm_soft")["suspect_rank"].tolist() == list(range(1, CLASSES + 1))
    assert "cmm_predicted_count" not in table
    assert table["predicted_count"].sum() == len(run.image_features)
    assert (table["rival_index"] != table["class_index"]).all()
    assert table["rival"].tolist() == [run.classnames[c] for c in rival.tolist()]


def test_the_prompt_table_has_accuracies_only_with_labels(run, tmp_path):
    unlabelled = open_run(Study.of({"dataset": write_embeddings(tmp_path / "u.npz", labels=None)}))
    with_labels, without = (
        tables.prompt_table(r, similarity_pass(r.image_features, r.text_features, r.logit_scale))
        for r in (run, unlabelled)
    )
    assert with_labels["prompt"].tolist() == run.prompts
    assert with_labels["overall"].between(0, 1).all()
    assert (with_labels["worst_10"] < with_labels["overall"]).all()
    assert without["overall"].isna().all()
    assert without["worst_10"].isna().all()
    pd.testing.assert_series_equal(with_labels["cmm_mean"], without["cmm_mean"])


def test_accuracies_under_two_lists_of_names_stand_side_by_side():
    labels = torch.arange(60) % 6
    prediction = torch.where((labels == 1) & (torch.arange(60) < 30), 3, torch.where(labels == 2, 5, labels))
    twins = [{"classes": [2, 5], "names": ["x", "x"], "by": "name"}]
    reports = [evaluation.accuracy_report(p, labels, 6, 1, twins) for p in (prediction, labels)]
    table = tables.names_table(*reports).set_index("accuracy")
    assert table.index.tolist() == ["overall", "worst@1", "worst@5", "worst@10", "worst@20"]
    assert table.loc["worst@1"].tolist() == [0, 0.5, 1]
    assert table.loc["overall", ["as published", "disambiguated"]].tolist() == [0.75, 1]
    assert table.loc["worst@20"].isna().all()
