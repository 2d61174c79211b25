"""The book's pages of a sweep, from runs that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from finished_runs import cmm, write_embeddings

from cmmlib import InputError, Study
from cmmlib.report import sweep_pages
from cmmlib.storage import own_folders
from cmmlib.study.run_files import write_manifest
from cmmlib.sweeps.results import draw, write_results


@pytest.fixture
def sweep(labelled, hostile, unlabelled, tmp_path) -> Path:
    """A sweep of three runs, one with hostile names, one without labels, and a study that failed."""
    folder = tmp_path / "mine-12345678"
    outcomes, studies = {}, []
    for name, run in (("one", labelled), ("two", hostile), ("blind", unlabelled), ("three", None)):
        studies.append(Study.of({"dataset": write_embeddings(tmp_path / f"{name}.npz")}))
        if run is not None:
            shutil.copytree(run, folder / "runs" / run.name)
        place = None if run is None else str(folder / "runs" / run.name)
        failed = "<b>no</b> file" if run is None else None
        outcomes[studies[-1]] = {"run": place, "failed": failed, "seconds": 1.0}
    draw(folder, write_results(folder, studies, outcomes)[0])
    return folder


def test_every_run_has_a_page_and_all_of_them_one(sweep, labelled, hostile, unlabelled, tmp_path):
    runs = sweep_pages.runs_of(sweep)
    assert [run.name for run in runs] == [labelled.name, hostile.name, unlabelled.name]
    with own_folders.filled(tmp_path / "staged") as place:
        names = sweep_pages.write(sweep, runs, place)
    assert names == ["sweep/index", *(f"sweep/{run.name}" for run in runs)]
    pages = {name: " ".join((tmp_path / "staged" / f"{name}.md").read_text().split()) for name in names}
    for text in pages.values():
        for begun in ("<script", "<img", "<b>"):
            assert begun not in text
    results = json.loads((labelled / "results.json").read_text())
    assert f"{100 * results['accuracy']['overall']:.1f} %" in pages["sweep/index"]
    assert "&lt;b&gt;no&lt;/b&gt; file" in pages["sweep/index"]
    assert f"<td>{unlabelled.name}</td> <td>n/a</td> <td>n/a</td>" in pages["sweep/index"]
    assert "Methods over all runs" in pages["sweep/index"]
    suspects = pages[f"sweep/{labelled.name}"].split("Classes that CMM suspects most")[1]
    assert suspects.count("<tr") == 11  # ten and the head
    for name in ("table.csv", "overall_and_worst.svg", f"{labelled.name}/per_class.csv"):
        assert (tmp_path / "staged" / "sweep" / name).is_file()


def test_what_is_no_sweep_or_one_beside_others_is_refused(sweep, labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = cmm("book", sweep, labelled)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "mine-12345678 is a sweep: name it alone" in refused.err
    for content in ("[]", "{", '{"studies": 3}', '{"studies": [3]}'):
        (sweep / "sweep.json").write_text(content)
        with pytest.raises(InputError, match="is damaged: run `cmm sweep` again"):
            sweep_pages.runs_of(sweep)
    outside = {"studies": [{"run": "../../../etc", "failed": None}]}
    (sweep / "sweep.json").write_text(json.dumps(outside))
    assert sweep_pages.runs_of(sweep) == [sweep / "runs" / "etc"]  # which is no run
    (sweep / "sweep.json").write_text('{"studies": []}')
    with pytest.raises(InputError, match="no finished run"):
        sweep_pages.runs_of(sweep)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", ""),
        ("table.csv", "run;method;overall\na;base;0,5\n"),
        ("table.csv", 'run,method,overall,worst_10,gain_overall,gain_worst_10\na,base,"0,5",0,0,0\n'),
        ("failures.csv", ""),
        ("failures.csv", "dataset\nx\n"),
        ("failures.csv", None),
    ],
)
def test_a_table_that_was_changed_is_one_line(name, content, sweep, tmp_path):
    (sweep / name).unlink() if content is None else (sweep / name).write_text(content)
    said = f"{name} is damaged or was changed: run `cmm sweep` again"
    with own_folders.filled(tmp_path / "staged") as place, pytest.raises(InputError, match=said):
        sweep_pages.write(sweep, sweep_pages.runs_of(sweep), place)


def test_a_sweep_of_chapter_1_alone_has_its_numbers(labelled, tmp_path):
    folder, study = tmp_path / "mine-12345678", Study.of({"dataset": write_embeddings(tmp_path / "one.npz")})
    run = folder / "runs" / labelled.name
    shutil.copytree(labelled, run)
    table = pd.read_csv(run / "per_class.csv")
    table.drop(columns=[name for name in table if name.startswith("cmm")]).to_csv(run / "per_class.csv", index=False)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["sha256"]
    write_manifest(run / "manifest.json", {**manifest, "files": {}})
    written, failed = write_results(folder, [study], {study: {"run": str(run), "failed": None, "seconds": 1.0}})
    accuracy = json.loads((run / "results.json").read_text())["accuracy"]
    assert not failed
    assert written[["method", "overall", "worst_10"]].to_numpy().tolist() == [
        ["base", accuracy["overall"], accuracy["worst"]["10"]]
    ]
    with own_folders.filled(tmp_path / "staged") as place:
        sweep_pages.write(folder, [run], place)
    page = (tmp_path / "staged" / "sweep" / f"{run.name}.md").read_text()
    index = (tmp_path / "staged" / "sweep" / "index.md").read_text()
    assert f"not compared by class: *{run.name}*." in index, index
    assert "suspects most" not in page
    assert "per_class.csv" in page


def test_a_run_that_was_changed_by_hand_is_a_failure_everywhere(labelled, tmp_path):
    folder, study = tmp_path / "mine-12345678", Study.of({"dataset": write_embeddings(tmp_path / "one.npz")})
    run = folder / "runs" / labelled.name
    shutil.copytree(labelled, run)
    with open(run / "per_class.csv", "a") as file:
        file.write("more\n")
    table, failed = write_results(folder, [study], {study: {"run": str(run), "failed": None, "seconds": 1.0}})
    assert table.empty
    assert run.name in failed[study]
    assert failed[study] in pd.read_csv(folder / "failures.csv")["failed"].tolist()
    assert json.loads((folder / "sweep.json").read_text())["studies"][0]["failed"] == failed[study]


def test_a_parameter_that_a_study_leaves_out_is_shown_and_drawn(labelled, hostile, tmp_path):
    folder, outcomes = tmp_path / "mine-12345678", {}
    data = write_embeddings(tmp_path / "one.npz")
    for worst_k, run in ((None, labelled), ("7", hostile)):
        shutil.copytree(run, folder / "runs" / run.name)
        study = Study.of({"dataset": data, "worst_k": worst_k})
        outcomes[study] = {"run": str(folder / "runs" / run.name), "failed": None, "seconds": 1.0}
    table, failed = write_results(folder, list(outcomes), outcomes)
    assert not failed
    draw(folder, table)
    figure = (folder / "overall_and_worst.svg").read_text()
    assert ">default<" in figure
    assert ">7<" in figure
    with own_folders.filled(tmp_path / "staged") as place:
        sweep_pages.write(folder, sweep_pages.runs_of(folder), place)
    assert "<td>default</td>" in (tmp_path / "staged" / "sweep" / "index.md").read_text()
