"""Runs side by side: from folders and from tensors alike, compared with numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_runs import HOSTILE, cmm, documented, opened, read_through, strict_json, words, write_embeddings
from scipy import stats
from synthetic_embeddings import CLASSES

from cmmlib import InputError, Study
from cmmlib.evaluation import comparison_text, run_comparison
from cmmlib.evaluation.run_comparison import RunSummary
from cmmlib.report.plan import plan
from cmmlib.study.run import other_weights

ROOT = Path(__file__).resolve().parents[2]
NAN = float("nan")


def side(name: str, accuracy: list[float] | None, **changes) -> RunSummary:
    values = None if accuracy is None else torch.tensor(accuracy, dtype=torch.float64)
    size = 5 if accuracy is None else len(accuracy)
    names = [f"class {c}" for c in range(size)]
    facts = {"model": {"backbone": name, "pretrained": None}, "data": {"name": "d"}}
    made = RunSummary(name, f"{name}-12345678", facts, names, torch.linspace(-1, 1, size).double(), values)
    return replace(made, overall=None if values is None else float(values.nanmean()), **changes)


A = side("a", [0.0, 0.2, 0.4, 0.9, 1.0])
B = side("b", [0.1, 0.8, 0.0, 1.0, NAN])


# ---------------------------------------------------------------- what is compared


def test_the_overview_is_overall_against_the_worst():
    table = run_comparison.overview([A, side("c", None), B], 2)
    assert table["run"].tolist() == ["a", "b"]
    assert table["worst"].tolist() == pytest.approx([0.1, 0.05])
    assert table["gap"].tolist() == pytest.approx([0.5 - 0.1, 1.9 / 4 - 0.05])
    assert table["zero_classes"].tolist() == [1, 1]


def test_agreement_counts_classes_with_images_in_both():
    (row,) = run_comparison.agreement([A, B], 2).to_dict("records")
    assert row["spearman"] == pytest.approx(stats.spearmanr([0.0, 0.2, 0.4, 0.9], [0.1, 0.8, 0.0, 1.0]).statistic)
    assert (row["shared_worst"], row["chance"]) == (1, 1.0)
    assert len(run_comparison.agreement([A, B, replace(A, name="c")], 2)) == 3


def test_without_labels_the_suspicion_is_compared():
    (row,) = run_comparison.agreement([A, side("c", None)], 2).to_dict("records")
    assert row["spearman"] == pytest.approx(1)
    assert run_comparison.worst_everywhere([A, side("c", None)], 2) == [0, 1]


def test_worst_everywhere_are_the_worst_of_every_run_the_lowest_first():
    assert run_comparison.worst_everywhere([A, B], 2) == [0]
    assert run_comparison.worst_everywhere([A, B], 3) == [0, 2, 1]
    masks = run_comparison.worst_masks([A, B], 2)
    assert masks.sum(1).tolist() == [2, 2]
    assert masks.all(0).nonzero().tolist() == [[0]]


def method(name: str, overall: float, worst: float | None, followed: float | None = None) -> dict:
    return {"name": name, "overall": overall, "worst": {"10": worst}, "base_worst": {"10": followed}}


def test_gains_are_over_the_run_s_own_base_prompt():
    wide = side("w", [0.5] * 10, methods=(method("base", 0.5, 0.5), method("uniform", 0.7, 0.4, 0.6)))
    table = run_comparison.gains([wide, A])
    assert table["method"].tolist() == ["base", "uniform", "base"]
    assert table["gain_overall"].tolist() == pytest.approx([0, 0.2, 0])
    assert table["gain_worst_10"].tolist()[:2] == pytest.approx([0, -0.1])
    assert np.isnan(table["gain_worst_10"].astype(float).iloc[2])  # a run of five classes


def test_runs_of_one_model_are_told_apart_by_their_ids():
    names = [s.name for s in run_comparison.with_distinct_names([A, replace(A, run="other-87654321"), B])]
    assert names == ["a (12345678)", "a (87654321)", "b"]


# ---------------------------------------------------------------- where sides come from


def test_a_folder_and_its_tensors_give_the_same_side(labelled, synthetic):
    read, computed = run_comparison.of_folder(labelled), run_comparison.of_run(synthetic, synthetic.labels)
    assert (read.name, read.classnames, read.overall) == (computed.name, computed.classnames, computed.overall)
    torch.testing.assert_close(read.accuracy, computed.accuracy)
    torch.testing.assert_close(read.suspicion, computed.suspicion, atol=1e-6, rtol=0)
    assert [row["name"] for row in read.methods] + ["best_template"] == [
        *(row["name"] for row in computed.methods),
        "best_template",
        "best_template",
    ]
    assert run_comparison.of_run(synthetic.blind).accuracy is None


def test_a_run_without_labels_is_read(unlabelled):
    read = run_comparison.of_folder(unlabelled)
    assert read.accuracy is None
    assert len(read.suspicion) == CLASSES


def test_no_csv_of_a_run_holds_a_formula(hostile):
    tables = {file.name: csv.reader(io.StringIO(file.read_text(), newline="")) for file in hostile.glob("*.csv")}
    cells = {name: [cell for row in table for cell in row] for name, table in tables.items()}
    assert "'=1+$x$" in cells["per_class.csv"]
    assert "'@<script>alert(1)</script> {}" in cells["prompts.csv"]
    texts = [cell for table in cells.values() for cell in table if not is_number(cell)]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]


def is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def test_names_of_classes_come_back_as_they_were(hostile, tmp_path):
    names = run_comparison.of_folder(hostile).classnames
    assert names == HOSTILE
    for name in ("NA", "null", "007"):
        copied = tmp_path / name
        shutil.copytree(hostile, copied)
        table = pd.read_csv(copied / "per_class.csv", keep_default_na=False).assign(class_name=name)
        table.to_csv(copied / "per_class.csv", index=False)
        as_of_an_earlier_version(copied)
        assert set(run_comparison.of_folder(copied).classnames) == {name}


def test_runs_that_cannot_be_compared_are_refused(labelled, changed, tmp_path):
    for folders, said in (
        ([labelled], "two or more run folders"),
        ([labelled, labelled], "named twice"),
        ([labelled, tmp_path], "is no finished run"),
        ([labelled, changed], "run its chapters 01 and 02 first"),
    ):
        done = cmm("compare", *folders)
        assert (done.code, done.out) == (2, ""), done
        assert said in done.err
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "pattern", "edit"),
    [
        ("manifest.json", r'"seed": \d+', '"seed": 99'),
        ("results.json", r'"overall": 0\.\d+', '"overall": 0.99'),
        ("results.json", r"(?s).*", "{}"),
        ("per_class.csv", r"0\.\d+", "0.99"),
    ],
)
def test_results_that_somebody_edited_are_not_compared(name, pattern, edit, labelled, unlabelled, tmp_path):
    edited = tmp_path / "edited"
    shutil.copytree(labelled, edited)
    text, n_edits = re.subn(pattern, edit, (edited / name).read_text(), count=1)
    assert n_edits == 1
    (edited / name).write_text(text)
    commands = [("compare", unlabelled, edited), ("verify", edited)]
    for command in commands if name != "per_class.csv" else commands[:1]:  # `verify` reads no table
        said = cmm(*command)
        assert (said.code, said.out) == (2, ""), said
        assert f"edited is damaged, as {name} shows" in said.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 99}, "schema_version in results.json: input should be 1"),
        ({"accuracy": {"overall": 81.7, "worst": {}}}, "accuracy.overall in results.json: input should be less than"),
        ({"accuracy": {"overall": 0.8, "worst": {"10": -0.1}}}, "accuracy.worst.10 in results.json"),
    ],
)
def test_results_that_no_run_can_have_are_refused(changes, said, labelled, unlabelled, tmp_path):
    edited = tmp_path / "edited"
    shutil.copytree(labelled, edited)
    as_of_an_earlier_version(edited)
    results = json.loads((edited / "results.json").read_text())
    (edited / "results.json").write_text(json.dumps({**results, **changes}))
    done = cmm("compare", edited, unlabelled)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_run_without_accuracies_is_named(labelled, unlabelled):
    said = cmm("compare", labelled, unlabelled)
    name = run_comparison.with_distinct_names([run_comparison.of_folder(run) for run in (labelled, unlabelled)])[1].name
    assert f"without accuracies, so compared by CMM alone: {name}" in said.out


# ---------------------------------------------------------------- the command


def as_of_an_earlier_version(folder: Path, **changes) -> None:
    """Give a run a manifest without checksums, and with changes."""
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
    (folder / "manifest.json").write_text(json.dumps({**kept, **changes}))


def another_model(labelled: Path, folder: Path) -> Path:
    """The labelled run as another model might have made it: other accuracies, another id."""
    shutil.copytree(labelled, folder)
    model = json.loads((folder / "manifest.json").read_text())["model"]
    as_of_an_earlier_version(folder, id=folder.name, model={**model, "backbone": "another"})
    table = pd.read_csv(folder / "per_class.csv")
    table.assign(accuracy=table["accuracy"][::-1].to_numpy()).to_csv(folder / "per_class.csv", index=False)
    return folder


def test_the_command_prints_a_comparison_and_writes_a_csv(labelled, tmp_path):
    other = another_model(labelled, tmp_path / "another-87654321")
    said = cmm("compare", labelled, other, "--worst-k", 3)
    assert said.code == 0
    for text in ("another", "worst 3", "spearman", "among the 3 worst everywhere", "uniform"):
        assert text in said.out
    written = cmm("compare", labelled, other, "--out", tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert written.code == 0
    assert set(table["run"]) == {run_comparison.of_folder(folder).name for folder in (labelled, other)}
    assert cmm("compare", labelled, other, "--out", "-").out == (tmp_path / "table.csv").read_text()


def test_a_k_above_the_classes_of_a_run_is_refused_and_the_usual_one_is_told(labelled, unlabelled):
    for other, kind in ((unlabelled, "classes"), (labelled, "classes with images")):
        said = cmm("compare", other, *{labelled, unlabelled} - {other}, "--worst-k", CLASSES + 1)
        run = run_comparison.of_folder(other).run
        assert (said.code, said.out) == (2, "")
        assert said.err == f"cmm: --worst-k: 13 is more than the 12 {kind} of {run}: give at most 12\n"
    assert cmm("compare", labelled, unlabelled, "--worst-k", CLASSES).code == 0
    said = comparison_text.comparison_text([A, B], 5)
    assert "fewer than 5 classes to rank: b (4)\n" in said  # one class has no images
    assert "fewer than 10 classes to rank: a (5), b (4)\n" in said


def test_a_run_without_chapter_4_is_told_with_the_command_that_completes_it(labelled, tmp_path):
    other = another_model(labelled, tmp_path / "another-87654321")
    assert "without chapter 4" not in cmm("compare", labelled, other).out
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "ensembles": None}))
    lines = [line for line in cmm("compare", labelled, other).out.splitlines() if "without chapter 4" in line]
    name = run_comparison.of_folder(other).name
    kind, _, file = json.loads((other / "manifest.json").read_text())["study"]["dataset"].partition(":")
    command = f"cmm run --dataset {kind}:PATH/{file}"
    assert lines == [f"without chapter 4, so without its methods: {name}; to complete it: {command} --out {tmp_path}"]
    as_table = cmm("compare", labelled, other, "--out", "-")
    assert (as_table.out[:11], as_table.err.splitlines()) == ("run,method,", lines)


@pytest.mark.parametrize("content", ["mine", "run,method\n", "\n\n", None])
def test_a_comparison_replaces_a_comparison_and_nothing_else(content, labelled, tmp_path):
    other, table = another_model(labelled, tmp_path / "another-87654321"), tmp_path / "table.csv"
    for path in (table, tmp_path / "empty.csv"):
        path.write_text("")
        for _ in range(2):
            assert cmm("compare", labelled, other, "--out", path).code == 0
    mine = tmp_path / "mine"
    mine.mkdir() if content is None else mine.write_text(content)
    for path in (mine, other / "per_class.csv", other / "results.json"):
        before = None if path.is_dir() else path.read_bytes()
        said = cmm("compare", labelled, other, "--out", path)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert f"--out: {path} is there already" in said.err
        assert (None if path.is_dir() else path.read_bytes()) == before


def test_a_comparison_is_written_to_where_a_link_points(labelled, tmp_path):
    other, link = another_model(labelled, tmp_path / "another-87654321"), tmp_path / "link.csv"
    link.symlink_to("table.csv")
    for _ in range(2):
        assert cmm("compare", labelled, other, "--out", link).code == 0
        assert link.is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("run,")


def test_runs_of_other_classes_are_compared_by_their_totals(labelled, twins):
    said = cmm("compare", labelled, twins[0])
    assert said.code == 0
    assert "these runs have different classes" in said.out


def test_classes_in_another_order_are_compared_by_name():
    again = replace(A, classnames=A.classnames[::-1], suspicion=A.suspicion.flip(0), accuracy=A.accuracy.flip(0))
    side = again.in_order(A.classnames)
    assert side.classnames == A.classnames
    assert torch.equal(side.suspicion, A.suspicion)
    assert torch.equal(side.accuracy, A.accuracy)
    assert replace(again, accuracy=None).in_order(A.classnames).accuracy is None
    others = [
        replace(A, classnames=["x", *A.classnames[1:]]),
        replace(A, classnames=[A.classnames[1], *A.classnames[1:]]),
    ]
    assert all(other.in_order(A.classnames) is other for other in others)
    assert others[1].in_order(others[1].classnames[::-1]) is others[1]  # one name stands for two classes


def test_a_run_in_another_order_of_classes_is_compared_and_joins_chapter_7(synthetic, labelled, tmp_path):
    other = another_model(labelled, tmp_path / "another-87654321")
    before = cmm("compare", labelled, other).out
    lines = (other / "per_class.csv").read_text().splitlines()
    (other / "per_class.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert cmm("compare", labelled, other).out == before
    assert "different classes" not in before
    run = replace(synthetic, study=synthetic.study.model_copy(update={"compare_with": str(other)}))
    sides = run_comparison.gather(run, run.labels)
    expected = run_comparison.of_folder(labelled).accuracy.flip(0)  # the values of `another_model`
    assert torch.equal(sides[-1].accuracy.nan_to_num(-1), expected.nan_to_num(-1))


def test_other_images_are_told():
    data = {"name": "dtd", "split": "test", "n_images": 1880}
    sides = [replace(A, facts={**A.facts, "data": {**data, "digest": digest}}) for digest in "xy"]
    assert "these runs have different images: a: 1,880 of dtd test; a: 1,880 of dtd test" in comparison_text.remarks(
        sides, 5
    )
    edited = [replace(A, facts={**A.facts, "data": {"name": "d", "digest": digest}}) for digest in "xy"]
    assert "these runs have different images: a: d; a: d" in comparison_text.remarks(edited, 5)


# ---------------------------------------------------------------- chapter 7


@pytest.mark.parametrize("labels", [True, False])
def test_the_chapter_compares_with_the_runs_that_the_study_names(labels, labelled, tmp_path):
    other = another_model(labelled, tmp_path / "another-87654321")
    arrays = {} if labels else {"labels": None}
    run = opened(write_embeddings(tmp_path / "x.npz", **arrays), compare_with=str(other), out=str(tmp_path / "runs"))
    said = read_through(run, ROOT / "notebooks" / "07_backbones.ipynb")
    section = strict_json(run.folder / "results.json")["backbones"]
    assert list(section) == [w for w in words(documented("results.json")["backbones"]) if w in section]
    assert [row["id"] for row in section["runs"]] == [run.id, other.name]
    assert len(section["overview"]) == (2 if labels else 1)  # the other run has accuracies
    assert any("overall accuracy" in sentence for sentence in said) == labels
    shared = section["agreement"][0]["shared_worst"]
    assert any(re.search(rf"\b{shared}\b", sentence) for sentence in said if "worst" in sentence) or not labels


def test_a_study_with_nothing_to_compare_says_so(labelled):
    assert strict_json(labelled / "results.json")["backbones"] is None


def test_runs_to_compare_with_are_checked_before_anything_is_computed(labelled, unlabelled, tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    said = cmm("run", "--dataset", data, "--compare-with", tmp_path / "none", "--out", tmp_path / "runs")
    assert said.code == 2
    assert "none is no finished run" in said.err
    run = opened(data, compare_with=str(unlabelled))
    with pytest.raises(InputError, match="has no accuracies"):
        run_comparison.gather(run, run.labels)
    names = np.array([f"other {c}" for c in range(CLASSES)])
    run = opened(write_embeddings(tmp_path / "y.npz", classnames=names), compare_with=str(labelled))
    with pytest.raises(InputError, match="has other classes"):
        run_comparison.gather(run, run.labels)


def test_compared_runs_are_part_of_the_id_by_name_and_no_path_is_told(labelled, tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    copied = tmp_path / "elsewhere" / labelled.name
    shutil.copytree(labelled, copied)
    plain, first, second = (
        opened(data, **c) for c in ({}, {"compare_with": str(labelled)}, {"compare_with": str(copied)})
    )
    assert plain.id != first.id == second.id
    assert first.study.public()["compare_with"] == labelled.name
    assert Study.of({"compare_with": " a , ../b"}).other_runs == [Path.cwd() / "a", Path.cwd().parent / "b"]


def test_one_run_under_two_places_is_refused_before_anything_is_computed(labelled, tmp_path):
    copied = tmp_path / "elsewhere" / "copy"
    shutil.copytree(labelled, copied)
    for others in (f"{labelled},{labelled}", f"{labelled},{copied}"):
        data = write_embeddings(tmp_path / "x.npz")
        with pytest.raises(InputError, match="compare_with: one run is named twice"):
            opened(data, compare_with=others)
        with pytest.raises(InputError, match="compare_with: one run is named twice"):
            plan(Study.of({"dataset": data, "compare_with": others}))


def test_only_the_embedded_world_s_own_model_has_other_weights():
    tags = [other_weights(Study.of({"pretrained": tag})) for tag in (None, "shipped", "early", "/x/y.pt")]
    assert tags == ["early", "early", "shipped", None]
    assert other_weights(Study.of({"dataset": "blazon:3"})) == "early"
    assert other_weights(Study.of({"backbone": "ViT-B-32"})) is None
    assert other_weights(Study.of({"dataset": "folder:x"})) is None
    assert run_comparison.other_study(Study.of({"llm": "openai/x"})) == Study.of({"pretrained": "early"})


@pytest.mark.real
def test_two_real_backbones_fail_on_the_same_classes(real_data, tmp_path):
    """DTD's test images under ViT-B/32 and ViT-L/14; overall, worst 10 and agreement as others measured them."""
    sides = []
    for name in ("dtd_test_vitb32", "dtd_test_vitl14"):
        run = opened(f"embeddings:{real_data / name}.npz", out=str(tmp_path))
        sides.append(run_comparison.of_run(run, run.labels))
    found = run_comparison.report(run_comparison.with_distinct_names(sides), 10)
    rows = [(round(100 * row["overall"], 2), round(100 * row["worst"], 2)) for row in found["overview"]]
    assert rows == [(43.94, 7.75), (55.37, 10.75)]
    (pair,) = found["agreement"]
    assert round(pair["spearman"], 2) == 0.76
    assert pair["shared_worst"] > 2 * pair["chance"]
