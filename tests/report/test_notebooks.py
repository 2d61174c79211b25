"""The chapters as they lie in git: clean, short, parameterised; and what a parameter changes when they run."""

from __future__ import annotations

import ast
import json
import re
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from finished_runs import CLASSES, cmm, read_through, small_chapter, write_embeddings
from synthetic_embeddings import synthetic_arrays

from cmmlib import Study, open_run
from cmmlib.evaluation import claims, prior_shift
from cmmlib.report import book
from cmmlib.report.chapters import COLAB, INSTALL_CELL, applies, belongs
from cmmlib.study.run import Run

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"parameters", "remove-cell", "exercise", "colab"}
NAMES = ("labels", "images", "pool", "blazon", "tower", "disambiguated", "others")
CONDITIONS = {f"{word}-{name}" for word in ("if", "unless") for name in NAMES}


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_is_prose_with_short_cells(path):
    for cell in cells(path, "code"):
        assert not cell.outputs
        assert cell.execution_count is None
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M)
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 12 or "parameters" in tags(cell), cell.source
        assert all(len(line) <= 80 or "remove-cell" in tags(cell) for line in lines), cell.source  # the page's width
    assert len(cells(path, "markdown")) > (4 if path.stem.startswith(book.APPENDIX) else 10)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_are_the_fields_of_a_study(path):
    (cell,) = (cell for cell in cells(path, "code") if "parameters" in tags(cell))
    assert cell.source == Study.parameters_cell()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_the_package_in_colab_and_nowhere_else(path, monkeypatch):
    first = cells(path, "code")[0]
    assert (first.source, tags(first)) == (INSTALL_CELL, [COLAB, "remove-cell"])
    assert not applies(first, {})
    commands: list[list[str]] = []
    monkeypatch.setattr("subprocess.check_call", commands.append)
    exec(first.source, {})
    assert commands == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(first.source.replace('repository = ""', 'repository = "https://example.org/us/book"'), {})
    assert commands[0][-1] == "cmmlib[book] @ git+https://example.org/us/book"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_tag_is_known(path):
    used = {tag for kind in ("code", "markdown") for cell in cells(path, kind) for tag in tags(cell)}
    assert used <= TAGS | CONDITIONS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_with_conditions_asks_for_them_itself(path):
    """Jupyter's "Run all" does not know the tags."""
    for cell in (cell for cell in cells(path, "code") if CONDITIONS & {*tags(cell)}):
        *before, guarded = ast.parse(cell.source).body
        assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in before), cell.source
        assert isinstance(guarded, ast.If), cell.source
        assert not guarded.orelse
        conditions = (tag.split("-") for tag in tags(cell) if tag in CONDITIONS)
        wanted = [f"has['{name}']" if word == "if" else f"not has['{name}']" for word, name in conditions]
        assert ast.unparse(guarded.test).split(" and ")[: len(wanted)] == wanted


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("tower", [True, False])
@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("disambiguated", [True, False])
def test_prose_takes_only_what_the_chapter_says(path, labels, pool, tower, disambiguated, others):
    known = {"labels": labels, "images": False, "pool": pool, "blazon": True, "tower": tower}
    known |= {"disambiguated": disambiguated, "others": others}
    kept = [cell for cell in nbformat.read(path, as_version=4).cells if applies(cell, known)]
    code = "\n".join(cell.source for cell in kept if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    glued = [call for call in calls if ast.unparse(call.func) == "pages.glue_texts"]
    names = [str(keyword.arg) for call in glued for keyword in call.keywords]
    said = set(names)
    assert len(names) == len(said)
    asked = {name for cell in kept if cell.cell_type == "markdown" for _, name in book._GLUE.findall(cell.source)}
    assert asked <= said, asked - said


def test_a_parameter_changes_the_numbers(labelled, changed):
    before, after = (json.loads((folder / "results.json").read_text()) for folder in (labelled, changed))
    assert before["worst_k"] != 5
    assert after["worst_k"] == 5
    assert len(after["accuracy"]["base_worst_classes"]) == 5
    assert before["accuracy"]["overall"] == after["accuracy"]["overall"]
    assert before["accuracy"]["worst_split_half"] != after["accuracy"]["worst_split_half"]  # another seed


def test_the_tables_of_two_chapters_make_one_file(labelled):
    table = pd.read_csv(labelled / "per_class.csv")
    assert len(table) == CLASSES
    assert list(table.columns[:2]) == ["class_index", "class_name"]
    assert {"accuracy", "cmm_soft"} <= set(table.columns)


def test_a_parameter_that_a_chapter_does_not_declare_is_refused(tmp_path, monkeypatch):
    chapters = small_chapter(tmp_path / "notebooks")
    path = chapters / "01_phenomenon.ipynb"
    path.write_text(path.read_text().replace("seed = 0", "sed = 0"))
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs")
    assert said.code == 2
    assert "01_phenomenon.ipynb does not declare the parameters seed" in said.err


@pytest.mark.usefixtures("little_imported")
def test_a_chapter_that_fails_stops_with_its_name_cell_and_error(tmp_path, monkeypatch):
    chapters = small_chapter(tmp_path / "notebooks", "x = 1", "raise KeyError('lost')")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs")
    assert said.code == 1
    assert "01_phenomenon, cell 3: KeyError: 'lost'" in said.err
    assert not list((tmp_path / "runs").rglob("*.ipynb"))


# ---------------------------------------------------------------- odd studies


def ideal(classes: int, labels: np.ndarray) -> dict[str, object]:
    """Arrays of a study in which every image lies on the text of its class."""
    texts = np.random.default_rng(0).normal(size=(classes, 16)).astype(np.float32)
    names = np.array([f"class {c}" for c in range(classes)])
    return {
        "image_features": texts[labels],
        "labels": labels,
        "text_features": texts,
        "classnames": names,
        "prompts": None,
    }


def without_class_4() -> dict[str, object]:
    arrays = synthetic_arrays()
    kept = arrays["labels"] != 4
    return {key: arrays[key][kept] for key in ("image_features", "labels")}


def same_texts() -> dict[str, object]:
    texts = synthetic_arrays()["text_features"]
    return {"text_features": np.repeat(texts[:, :1], CLASSES, axis=1)}


ODD = [
    pytest.param(without_class_4(), {}, id="empty class"),
    pytest.param({**ideal(5, np.arange(5)), "labels": np.array([0, 1, 2, 4, 3])}, {}, id="one image a class"),
    pytest.param({**ideal(2, np.arange(20) % 2), "labels": None}, {}, id="two classes, no labels"),
    pytest.param({"prompts": np.array(["p", "p"])}, {"worst_k": CLASSES}, id="k is all classes, prompts of one name"),
    pytest.param(ideal(6, np.arange(60) % 6), {}, id="perfect"),
    pytest.param(without_class_4(), {"worst_k": CLASSES}, id="k over the classes with images"),
    pytest.param({"classnames": np.array(["same"] * CLASSES)}, {}, id="classes of one name"),
    pytest.param(same_texts(), {}, id="classes of one text"),
]


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("changes", "parameters"), ODD)
def test_the_chapters_hold_for_an_odd_study(changes, parameters, tmp_path):
    data = write_embeddings(tmp_path / "odd.npz", **changes)
    run = open_run(Study.of({"dataset": data, "out": str(tmp_path / "runs"), **parameters}))
    for chapter in (path for path in NOTEBOOKS if belongs(path, run.conditions)):
        said = read_through(run, chapter)
        assert not {name: text for name, text in said.items() if text in ("nan", "None")}
    json.loads((run.folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert len(pd.read_csv(run.folder / "per_class.csv")) == run.n_classes


def test_the_chapters_hold_for_a_folder_that_nobody_labelled(tmp_path, tiny_clip, image_folder):
    (image_folder / "noise" / "broken.png").write_text("no image")
    (tmp_path / "names.txt").write_text("".join(f"class {c}\n" for c in range(5)))
    fields = {"class_names": str(tmp_path / "names.txt"), "max_broken": 1, "out": str(tmp_path / "runs")}
    fields |= {"dataset": f"folder:{image_folder / 'noise'}", "backbone": f"local-dir:{tiny_clip}"}
    run = open_run(Study.of(fields))
    assert (run.labels, len(run.image_features)) == (None, 3)
    for chapter in (path for path in NOTEBOOKS if belongs(path, run.conditions)):
        said = read_through(run, chapter)
        assert not {name: text for name, text in said.items() if text in ("nan", "None")}
    results = json.loads((run.folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert (results["accuracy"], results["cmm"], results["n_classes"]) == (None, None, 5)
    assert {"suspect_rank", "cmm_soft"} <= set(pd.read_csv(run.folder / "per_class.csv").columns)


# ---------------------------------------------------------------- "Run all" in Jupyter, which does not know the tags


def tables_of(run: Run) -> dict[str, str]:
    return {path.name: path.read_text() for path in (run.folder / "results.json", *run.folder.glob("*.csv"))}


@pytest.fixture
def few_draws(monkeypatch):
    """Chapter 5 draws 20 times, for its figure, and chapter 4 1000 times; whether cells run is seen with few."""
    monkeypatch.setattr(prior_shift, "draws", partial(prior_shift.draws, n_draws=2))
    monkeypatch.setattr(claims, "DRAWS", 20)


def run_all(run: Run) -> None:
    """Run a study's chapters by their tags, then every cell of them: nothing stops, and nothing comes to differ."""
    known = [path for path in NOTEBOOKS if belongs(path, run.conditions)]
    said = [read_through(run, path) for path in known]
    recorded = tables_of(run)
    assert [read_through(run, path, by_tags=False) for path in known] == said
    assert tables_of(run) == recorded


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("labels", [True, False])
def test_run_all_leaves_the_results_of_embeddings(labels, labelled, tmp_path):
    bare = {"labels": None, "prompts": None, "text_features": synthetic_arrays()["text_features"][0]}
    data = write_embeddings(tmp_path / "x.npz", **({} if labels else bare))
    others = {"compare_with": str(labelled)} if labels else {}
    run = open_run(Study.of({"dataset": data, "out": str(tmp_path / "runs"), **others}))
    conditions = {"labels", "pool", "others"} if labels else set()
    assert {name for name, holds in run.conditions.items() if holds} == conditions
    run_all(run)
    results = json.loads((run.folder / "results.json").read_text())
    sections = ("accuracy", "cmm", "ensembles", "prior_matching", "prototypes", "backbones")
    assert [results[name] is not None for name in sections] == [labels] * 6


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("labels", [True, False])
def test_run_all_leaves_the_results_of_images(labels, tmp_path, tiny_clip, image_folder):
    fields = {"dataset": f"folder:{image_folder}", "backbone": f"local-dir:{tiny_clip}", "out": str(tmp_path / "runs")}
    if not labels:
        (tmp_path / "names.txt").write_text("".join(f"class {c}\n" for c in range(5)))
        fields |= {"dataset": f"folder:{image_folder / 'noise'}", "class_names": str(tmp_path / "names.txt")}
    run = open_run(Study.of(fields))
    conditions = {"images", "pool", "tower"} | ({"labels"} if labels else set())
    assert {name for name, holds in run.conditions.items() if holds} == conditions
    run_all(run)
    assert json.loads((run.folder / "results.json").read_text())["enrichment"] is not None
