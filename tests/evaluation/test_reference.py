"""Runs beside reference figures: which rows apply, what counts as agreement, and what is said of a difference."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import open_clip
import pandas as pd
import pytest
from finished_runs import cmm

from cmmlib import InputError, open_run
from cmmlib.evaluation.reference import COLUMNS, REFERENCE, load_reference, matching, verify
from cmmlib.study.study import Study

SIZE = 200_000  # bytes that the shipped figures may take


def manifest(backbone: str, pretrained: str | None, dataset: str, digest: str = "d" * 64, **study: object) -> dict:
    return {
        "id": "run",
        "study": {"dataset": dataset, "base_template": "a photo of a {}.", "precision": "fp32", **study},
        "model": {"backbone": backbone, "pretrained": pretrained},
        "data": {"name": dataset, "digest": digest},
        "templates": study.pop("pool", None),
        "chapters": {},
    }


def write_run(folder: Path, what: dict, overall: float, worst_10: float = 0.1, uniform: float | None = None) -> Path:
    folder.mkdir()
    what["study"].setdefault("storage", "float32")
    accuracy = {"overall": overall, "mean_per_class": overall, "worst": {"5": 0.05, "10": worst_10, "20": 0.2}}
    rows = [{"name": "uniform", "overall": uniform, "mean_per_class": uniform, "worst": {"10": worst_10}}]
    results = {"accuracy": accuracy, "ensembles": rows if uniform is not None else None}
    (folder / "manifest.json").write_text(json.dumps(what))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def published(metric: str, dataset: str = "cifar100", backbone: str = "ViT-B-32", pretrained: str = "openai") -> float:
    """The first published figure of that kind."""
    table = load_reference(REFERENCE)
    asked = {"metric": metric, "dataset": dataset, "backbone": backbone, "pretrained": pretrained}
    for column, value in asked.items():
        table = table[table[column] == value]
    return float(table["value"].iloc[0])


def test_the_shipped_figures_are_fractions_of_registered_models_with_sources():
    table = load_reference(REFERENCE)
    assert REFERENCE.stat().st_size < SIZE
    assert set(COLUMNS) | {"value", "tolerance"} == set(table.columns)
    counts, tails = table["metric"] == "zero_classes", table["metric"].str.startswith("worst_")
    assert table.loc[~counts, "value"].between(0, 1).all()
    assert table.loc[~counts & ~tails, "tolerance"].between(0.0005, 0.02).all()
    assert table.loc[tails, "tolerance"].between(0.0005, 0.04).all()  # one image of 30 in each class
    assert table.loc[counts, "value"].between(0, 1000).all()
    known = set(open_clip.list_pretrained())
    models = set(zip(table["backbone"], table["pretrained"], strict=True))
    assert {pair for pair in models if pair[0] != "blazon-mini"} <= known
    assert (table["source"] != "").all()
    assert (table.loc[table["backbone"] != "blazon-mini", "commit"] != "").all()
    assert not table.duplicated([*COLUMNS]).any()


def test_openai_weights_are_one_model_under_both_names():
    table = load_reference(REFERENCE)
    rows = [matching(manifest(name, "openai", "cifar100"), table) for name in ("ViT-B-32", "ViT-B-32-quickgelu")]
    assert len(rows[0]) > 3
    pd.testing.assert_frame_equal(*rows)
    other = matching(manifest("ViT-B-32-quickgelu", "laion400m_e32", "cifar100"), table)
    assert set(other["backbone"]) == {"ViT-B-32-quickgelu"}


def test_a_run_within_the_tolerance_agrees(tmp_path):
    what = manifest("ViT-B-32", "openai", "cifar100", pool="cifar100")
    value = published("accuracy")
    checks = verify(write_run(tmp_path / "run", what, 0.1, published("worst_10"), uniform=value + 0.001))
    accuracy = [check for check in checks if check.metric == "accuracy"]
    assert len(accuracy) >= 2
    assert any(check.agrees for check in accuracy)
    assert any("agrees within 0.6 points" in check.sentence for check in accuracy)
    assert [check.agrees for check in checks if check.metric == "worst_10"] == [True]


@pytest.mark.parametrize(
    ("found", "agrees", "said"), [(3, True, "agrees within"), (400, False, "differs by +397 classes")]
)
def test_classes_at_zero_are_counted_not_shares(found, agrees, said, tmp_path):
    model = ("imagenet", "ViT-B-32", "laion2b_s34b_b79k")
    what = manifest(model[1], model[2], model[0], pool="openai-80")
    run = write_run(tmp_path / "run", what, 0.1, published("worst_10", *model), uniform=published("accuracy", *model))
    results = json.loads((run / "results.json").read_text())
    results["ensembles"][0]["zero_classes"] = found
    (run / "results.json").write_text(json.dumps(results))
    checks = {check.metric: check for check in verify(run)}
    assert published("zero_classes", *model) == 3
    assert checks["zero_classes"].agrees is agrees
    assert "zero_classes: reference 3, bethgelab" in checks["zero_classes"].sentence
    assert said in checks["zero_classes"].sentence
    assert checks["worst_10"].agrees
    assert checks["worst_5"].found is None


@pytest.mark.parametrize(
    ("pool", "said"), [("openai-80", "nothing in the settings"), ("openai-7", "templates: the reference uses those of")]
)
def test_on_imagenet_the_pool_of_80_is_that_of_the_figures(pool, said, tmp_path):
    what = manifest("ViT-B-32", "laion2b_s34b_b79k", "imagenet", pool=pool)
    checks = verify(write_run(tmp_path / "run", what, 0.1, uniform=0.2))
    assert all(said in check.sentence for check in checks if check.metric == "accuracy")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"pool": "openai-7"}, "templates: the reference uses those of the data set, this run openai-7"),
        ({"class_names": "/x/mine.txt"}, "class names: this run's are from /x/mine.txt"),
        ({"precision": "bf16"}, "precision: the model ran in bf16"),
        ({"storage": "float16"}, "precision: image embeddings are stored as float16"),
        ({"split": "train"}, "split: the reference is of test, this run of train"),
        ({}, "nothing in the settings"),
    ],
    ids=str,
)
def test_a_difference_names_its_likely_causes(changes, cause, tmp_path):
    what = manifest("ViT-B-32", "openai", "cifar100", **{"pool": "cifar100", **changes})
    checks = verify(write_run(tmp_path / "run", what, 0.1, uniform=published("accuracy") - 0.05))
    (check, *_) = [check for check in checks if check.metric == "accuracy"]
    assert not check.agrees
    assert "differs by -5.0" in check.sentence
    assert f"likely because of {cause}" in check.sentence
    assert len(check.causes) == len(changes)


def test_one_prompt_is_a_cause_where_the_figure_is_of_several(tmp_path):
    checks = verify(write_run(tmp_path / "run", manifest("ViT-B-32", "openai", "dtd"), 0.3))
    assert all("templates" in check.sentence for check in checks if check.metric == "accuracy")


def test_a_study_without_figures_or_accuracies_is_refused_in_one_line(tmp_path, labelled, unlabelled):
    unknown = write_run(tmp_path / "a", manifest("ViT-B-32", "openai", "folder:mine"), 0.5)
    with pytest.raises(InputError, match="no figure of ViT-B-32 openai on folder:mine"):
        verify(unknown)
    with pytest.raises(InputError, match="no accuracies to verify"):
        verify(unlabelled)
    for folder, said in ((tmp_path / "none", "is no finished run"), (labelled, "reference.csv has no figure of")):
        done = cmm("verify", folder)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "backbone,value,tolerance\nx,0.5,0.1\n", "value,tolerance\nx,y\n"])
def test_a_file_that_holds_no_figures_is_refused(text, tmp_path, labelled):
    (tmp_path / "mine.csv").write_text(text)
    done = cmm("verify", labelled, "--reference", tmp_path / "mine.csv")
    assert done.code == 2
    assert "mine.csv" in done.err
    assert done.err.count("\n") == 1


def test_figures_of_ones_own_are_compared_and_a_difference_is_exit_code_1(tmp_path, labelled):
    what, results = (json.loads((labelled / f"{name}.json").read_text()) for name in ("manifest", "results"))
    right = {"metric": "accuracy", "value": results["accuracy"]["overall"], "tolerance": 0.001}
    row = dict.fromkeys(COLUMNS, "x") | {"prompts": "base", "data": what["data"]["digest"][:16], **right}
    pd.DataFrame([row]).to_csv(tmp_path / "mine.csv", index=False)
    done = cmm("verify", labelled, "--reference", tmp_path / "mine.csv")
    assert done.code == 0
    assert "agrees within 0.1 points" in done.out
    pd.DataFrame([row | {"value": row["value"] - 0.2}]).to_csv(tmp_path / "mine.csv", index=False)
    done = cmm("verify", labelled, "--reference", tmp_path / "mine.csv")
    assert done.code == 1
    assert "differs by +20.00 points" in done.out
    pd.DataFrame([row | {"metric": "worst_7"}]).to_csv(tmp_path / "mine.csv", index=False)
    done = cmm("verify", labelled, "--reference", tmp_path / "mine.csv")
    assert (done.code, done.out) == (2, "")
    assert "measured none of the figures of mine.csv: worst_7" in done.err


@pytest.mark.real
@pytest.mark.parametrize("name", ["dtd_vitb32", "pets25_vitb32"])
def test_real_embeddings_give_the_figures_that_ship(name, real_data, tmp_path):
    from cmmlib.evaluation import evaluation
    from cmmlib.functional.zero_shot import predict

    run = open_run(Study.of({"dataset": f"embeddings:{os.fspath(real_data / name)}.npz", "out": str(tmp_path)}))
    assert run.labels is not None
    report = evaluation.accuracy_report(
        predict(run.image_features, run.base_text_features), run.labels, run.n_classes, run.worst_k
    )
    run.write_manifest({})
    run.record(accuracy=report)
    checks = verify(run.folder)
    assert len(checks) == 5
    assert all(check.found == pytest.approx(check.value, abs=1e-4) for check in checks)


HEAD = ",".join([*COLUMNS[:6], "value", "tolerance", *COLUMNS[6:]])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("worst,0.5,0.1", "line 2: metric is 'worst': use accuracy"),
        ("worst_split_half,0.5,0.1", "line 2: metric is 'worst_split_half'"),
        ("overall_interval,0.5,0.1", "line 2: metric is"),
        ("f1,0.5,0.1", "line 2: metric is 'f1'"),
        ("accuracy,98.75,0.1", "line 2: value is 98.75"),
        ("accuracy,nan,0.1", "line 2: value is nan"),
        ("accuracy,-0.5,0.1", "line 2: value is -0.5"),
        ("accuracy,0.5,-1", "line 2: tolerance is -1"),
        ("accuracy,0.5,inf", "line 2: tolerance is inf"),
        ("accuracy,half,0.1", "line 2: value and tolerance must be numbers"),
        ("zero_classes,-1,1", "line 2: value is -1"),
    ],
)
def test_figures_that_nothing_can_be_compared_with_are_refused(row, said, tmp_path):
    (tmp_path / "mine.csv").write_text(f"{HEAD}\nm,t,d,test,base,{row},,me,x\n")
    with pytest.raises(InputError, match=re.escape(said)):
        load_reference(tmp_path / "mine.csv")


@pytest.mark.parametrize("head", ["a,b", HEAD.replace(",", ";"), HEAD.replace("tolerance", "x")])
def test_missing_columns_are_named(head, tmp_path):
    (tmp_path / "mine.csv").write_text(f"{head}\n")
    with pytest.raises(InputError, match="lacks the columns"):
        load_reference(tmp_path / "mine.csv")


def test_reference_figures_of_another_encoding_are_told_so(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("name,value\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"mine\.csv cannot be read as reference figures: it is not UTF-8 text$"):
        load_reference(file)


def test_an_empty_file_is_told_in_plain_words(tmp_path):
    (tmp_path / "mine.csv").touch()
    with pytest.raises(InputError, match=r"mine\.csv cannot be read as reference figures: it is empty$"):
        load_reference(tmp_path / "mine.csv")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text(f"{HEAD},value\nm,t,d,test,base,accuracy,0.5,0.1,,me,x,0.7\n")
    with pytest.raises(InputError, match="has the column value twice: keep one"):
        load_reference(tmp_path / "mine.csv")


def test_prompts_of_another_kind_are_refused(tmp_path):
    (tmp_path / "mine.csv").write_text(f"{HEAD}\nm,t,d,test,xx,accuracy,0.5,0.1,,me,x\n")
    with pytest.raises(InputError, match="prompts is 'xx': use ensemble or base"):
        load_reference(tmp_path / "mine.csv")


def test_a_model_without_a_tag_is_compared_too(tmp_path):
    (tmp_path / "mine.csv").write_text(f"{HEAD}\nlocal-dir:mine,,folder:two,test,base,accuracy,0.5,0.1,,me,x\n")
    run = write_run(tmp_path / "run", manifest("local-dir:mine", None, "folder:two"), 0.55)
    (check,) = verify(run, tmp_path / "mine.csv")
    assert check.agrees
