"""The chapters as they lie in git: clean, short, parameterised; and what a parameter changes when they run."""

from __future__ import annotations

import ast
import builtins
import json
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from finished_runs import CLASSES, cmm, read_through, small_chapter, write_embeddings
from synthetic_embeddings import synthetic_arrays

from cmmlib import Study, open_run
from cmmlib.report import exercises
from cmmlib.report.book_cells import tags
from cmmlib.report.chapters import belongs
from cmmlib.report.execution import SETUP, applies
from cmmlib.report.placed_chapters import APPENDIX
from cmmlib.report.questions import questions
from cmmlib.study.run import Run

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"parameters", "remove-cell", "question", "exercise", "solution", "check", SETUP}
NAMES = ("labels", "images", "pool", "blazon", "tower", "disambiguated", "others", "browser")
CONDITIONS = {f"if-{name}" for name in NAMES}
TO_USE = ("10", "11")  # chapters that are used more than read
every_chapter = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# The first code cell of every notebook; `cmm notebooks` and the book fill in the address that CMM_REPOSITORY_URL names.
INSTALL_CELL = """\
import importlib.util
import subprocess
import sys

repository = ""
if importlib.util.find_spec("cmmlib") is None and not repository:
    print("cmmlib is missing: install it, or write its address above")
elif importlib.util.find_spec("cmmlib") is None:
    command = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.check_call([*command, f"cmmlib[book] @ git+{repository}"])"""
LEVELS = ("first steps", "practice", "challenge")


def cells(path: Path, kind: str = "code") -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def conditions(cell) -> list[str]:
    return [tag.removeprefix("if-") for tag in tags(cell) if tag in CONDITIONS]


@every_chapter
def test_a_chapter_is_prose_with_short_cells(path):
    for cell in cells(path):
        assert not cell.outputs
        assert cell.execution_count is None
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M)
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 10 or SETUP in tags(cell), cell.source
        assert all(len(line) <= 80 or "parameters" in tags(cell) for line in lines), cell.source  # the page's width
    assert len(cells(path, "markdown")) > (4 if path.stem.startswith((APPENDIX, *TO_USE)) else 8)


@every_chapter
def test_prose_is_plain_markdown(path):
    """Jupyter, Colab and GitHub show roles and directives of MyST as they are written."""
    for cell in cells(path, "markdown"):
        assert not re.search(r"\{[\w:.-]+\}`|^ *:::|```\{|^ *\([\w-]+\)=", cell.source, re.M), cell.source


@every_chapter
def test_bold_is_for_the_heads_of_boxes_and_for_findings(path):
    """Findings are said by functions ("In this run: ..."); prose has no other bold words."""
    for cell in cells(path, "markdown"):
        assert "**" not in re.sub(r"^> \*\*[^*]+\*\*$", "", cell.source, flags=re.M), cell.source


@every_chapter
def test_every_link_leads_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", cell.source):
            if re.match(r"\w+:", target):
                assert target.startswith("https://"), target
            else:
                assert (path.parent / target.partition("#")[0]).is_file(), target


@every_chapter
def test_the_parameters_are_the_common_fields_of_a_study(path):
    (cell,) = (cell for cell in cells(path) if "parameters" in tags(cell))
    assert cell.source == Study.parameters_cell()


@every_chapter
def test_no_cell_rebinds_a_parameter(path):
    """The cell that makes the study reads them again when somebody runs it again."""
    for cell in cells(path):
        if "parameters" not in tags(cell):
            assert not bound(ast.parse(cell.source)) & {*Study.model_fields}, cell.source


@every_chapter
def test_the_first_cell_installs_the_package_where_it_is_missing(path, monkeypatch, capsys):
    first = cells(path)[0]
    assert (first.source, tags(first)) == (INSTALL_CELL, [SETUP, "remove-cell"])
    assert not applies(first, {})
    commands: list[list[str]] = []
    monkeypatch.setattr("subprocess.check_call", commands.append)
    exec(first.source, {})
    assert (commands, capsys.readouterr().out) == ([], "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(first.source, {})
    assert (commands, capsys.readouterr().out.count("\n")) == ([], 1)  # no address: a sentence, not pip's error
    exec(first.source.replace('repository = ""', 'repository = "https://example.org/us/book"'), {})
    assert commands[0][-1] == "cmmlib[book] @ git+https://example.org/us/book"


@every_chapter
def test_every_tag_is_known(path):
    used = {tag for kind in ("code", "markdown") for cell in cells(path, kind) for tag in tags(cell)}
    assert used <= TAGS | CONDITIONS


@every_chapter
def test_a_cell_with_conditions_asks_for_them_itself(path):
    """Jupyter's "Run all" does not know the tags. The first such cell under a heading says what is missing."""
    says_it = False
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            says_it = says_it and not re.search("^#+ ", cell.source, re.M)
        elif conditions(cell):
            *before, guarded = ast.parse(cell.source).body
            assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in before), cell.source
            assert isinstance(guarded, ast.If), cell.source
            assert not guarded.orelse
            asked = " and ".join(f"has['{name}']" for name in conditions(cell))
            said = f"pages.needs(run, {', '.join(map(repr, conditions(cell)))})"
            test = ast.unparse(guarded.test)
            assert test.startswith(said) if not says_it else test.startswith((asked, said)), cell.source
            says_it = True


def assigned(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}


def imported(tree: ast.AST) -> set[str]:
    aliases = (alias for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names)
    return {(alias.asname or alias.name).partition(".")[0] for alias in aliases}


def bound(tree: ast.AST) -> set[str]:
    """Names that some code binds anywhere."""
    return assigned(tree) | imported(tree) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


@every_chapter
def test_no_variable_takes_the_name_of_an_import(path):
    trees = [ast.parse(cell.source) for cell in cells(path)]
    assert not set().union(*map(assigned, trees)) & set().union(*map(imported, trees))


def used(tree: ast.AST) -> set[str]:
    loads = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return loads - bound(tree) - {*dir(builtins)}


@every_chapter
def test_no_cell_uses_a_name_that_a_reader_did_not_see(path):
    """A name comes from an earlier cell that asks for no more than its own; a visible cell's from visible ones."""
    known: list[tuple[set[str], bool, set[str]]] = []
    for cell in cells(path):
        tree = ast.parse(cell.source)
        shown = "remove-cell" not in tags(cell)
        asked = {*conditions(cell), *re.findall(r'has\["(\w+)"\]', cell.source)}
        there = {name for names, visible, wants in known if wants <= asked and (visible or not shown) for name in names}
        there |= {*Study.model_fields}
        assert used(tree) <= there, (used(tree) - there, cell.source)
        known.append((bound(tree), shown, {*conditions(cell)}))


@every_chapter
def test_a_chapter_records_its_results_once_at_its_end(path):
    places = [number for number, cell in enumerate(cells(path)) if "run.record(" in cell.source]
    assert places in ([], [len(cells(path)) - 1])
    assert sum(cell.source.count("run.record(") for cell in cells(path)) <= 1


@every_chapter
def test_every_exercise_has_an_answer_with_a_number_to_check(path):
    sequence = [(cell, {*tags(cell)}) for cell in nbformat.read(path, as_version=4).cells]
    tasks = [n for n, (cell, known) in enumerate(sequence) if "exercise" in known and "### Exercise" in cell.source]
    for start, end in zip(tasks, [*tasks, len(sequence)][1:], strict=bool(tasks)):
        after = [known for _, known in sequence[start + 1 : end]]
        assert any("solution" in known for known in after)
        checks = [cell.source for cell, known in sequence[start:end] if "check" in known]
        assert [source.count("exercises.answer(") for source in checks] == [1]


@every_chapter
def test_exercises_are_numbered_in_the_order_of_their_levels_and_have_a_hint(path):
    found = [exercises.HEADING.search(cell.source) for cell in cells(path, "markdown") if "exercise" in tags(cell)]
    heads = [head for head in found if head]
    assert [head["number"] for head in heads] == [f"{int(path.stem[:2])}.{n + 1}" for n in range(len(heads))]
    marks = [head["marks"].split(", ") for head in heads]
    levels = [LEVELS.index(level) for level, *_ in marks]
    assert levels == sorted(levels)
    assert all(kind in exercises.KINDS for _, *kinds in marks for kind in kinds)
    assert all(len(exercises.hint(head["number"]) or "") > 40 for head in heads)


def test_there_are_exercises_of_every_level_and_kind():
    sources = [cell.source for path in NOTEBOOKS for cell in cells(path, "markdown")]
    marks = [found["marks"].split(", ") for found in map(exercises.HEADING.search, sources) if found]
    assert len(marks) >= 24
    assert {level for level, *_ in marks} == {*LEVELS}
    assert sum("experiment" in kinds for _, *kinds in marks) >= 5
    assert sum("pencil and paper" in kinds for _, *kinds in marks) >= 2


@every_chapter
def test_every_chapter_has_three_questions_with_one_right_answer_and_a_remark_on_each(path):
    asked = [q for cell in cells(path, "markdown") if "question" in tags(cell) for q in questions(cell.source)]
    if path.stem.startswith((APPENDIX, *TO_USE)):
        assert asked == []
        return
    assert [q.number for q in asked] == [f"{int(path.stem[:2])}.{n}" for n in (1, 2, 3)]
    for question in asked:
        assert [*question.answers] == ["A", "B", "C"]
        assert len(question.right) == 1
        assert all(len(said) > 20 for _, said in question.answers.values())


@every_chapter
def test_a_reader_predicts_before_the_main_figure(path):
    """The box stands before a figure of its section, and asks for no less than the figure does."""
    sequence = nbformat.read(path, as_version=4).cells
    boxes = [n for n, cell in enumerate(sequence) if cell.source.startswith("> **Predict, then run**")]
    assert len(boxes) == (0 if path.stem.startswith((APPENDIX, *TO_USE)) else 1)
    for n in boxes:
        figure = next(cell for cell in sequence[n:] if "pages.show_figure(" in cell.source)
        assert "?" in sequence[n].source
        assert conditions(sequence[n]) == conditions(figure)


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


def test_a_chapter_without_a_cell_of_parameters_is_refused(tmp_path, monkeypatch):
    chapters = small_chapter(tmp_path / "notebooks")
    path = chapters / "01_phenomenon.ipynb"
    path.write_text(path.read_text().replace('"parameters"', '"solution"'))
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs")
    assert said.code == 2
    assert "01_phenomenon.ipynb has 0 cells with the tag parameters" in said.err


@pytest.mark.usefixtures("little_imported")
def test_a_chapter_that_fails_stops_with_its_name_cell_and_error(tmp_path, monkeypatch):
    chapters = small_chapter(tmp_path / "notebooks", "x = 1", "raise KeyError('lost')")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs")
    assert said.code == 1
    assert "01_phenomenon, cell 3: KeyError: 'lost'" in said.err
    assert not list((tmp_path / "runs").rglob("*.ipynb"))


CHANGE = """import os
import numpy as np
from cmmlib import Study, open_run
path = dataset.removeprefix("embeddings:")
arrays = dict(np.load(path))
arrays["labels"] = arrays["labels"][::-1]
np.savez(path, **arrays)"""


@pytest.mark.usefixtures("little_imported")
def test_data_that_change_while_a_study_runs_are_told_and_nothing_is_kept(tmp_path, monkeypatch):
    """The chapter changes them itself, then opens its study as every chapter does."""
    chapters = small_chapter(
        tmp_path / "notebooks", CHANGE, "run = open_run(Study.from_cell(globals()))\nrun.record(x=1)"
    )
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs")
    assert said.code == 2
    assert "what the study reads changed while it ran" in said.err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.suffix in (".ipynb", ".json")]


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
    pytest.param(ideal(5, np.arange(1)), {}, id="one image"),
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
        assert not [text for text in read_through(run, chapter) if re.search(r"\b(nan|None|inf)\b", text)]
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
        assert not [text for text in read_through(run, chapter) if re.search(r"\b(nan|None|inf)\b", text)]
    results = json.loads((run.folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert (results["accuracy"], results["cmm"], results["n_classes"]) == (None, None, 5)
    assert {"suspect_rank", "cmm_soft"} <= set(pd.read_csv(run.folder / "per_class.csv").columns)


def test_a_set_of_images_that_are_all_recognised_has_no_gallery(tmp_path, tiny_clip, image_folder, monkeypatch):
    fields = {"dataset": f"folder:{image_folder}", "backbone": f"local-dir:{tiny_clip}", "out": str(tmp_path / "runs")}
    run = open_run(Study.of(fields))
    run = replace(run, labels=run.similarity_pass().prediction[0].long())
    monkeypatch.setattr("cmmlib.open_run", lambda study: run)
    chapter = next(path for path in NOTEBOOKS if path.name.startswith("01"))
    assert any("No image of these classes was missed." in text for text in read_through(run, chapter))


# ---------------------------------------------------------------- "Run all" in Jupyter, which does not know the tags


def tables_of(run: Run) -> dict[str, str]:
    return {path.name: path.read_text() for path in (run.folder / "results.json", *run.folder.glob("*.csv"))}


def run_all(run: Run) -> None:
    """Run a study's chapters by their tags, then every cell of them: nothing stops, and nothing comes to differ."""
    known = [path for path in NOTEBOOKS if belongs(path, run.conditions)]
    said = [read_through(run, path) for path in known]
    recorded = tables_of(run)
    for path, sentences in zip(known, said, strict=True):
        every_cell = read_through(run, path, by_tags=False, figures=False)  # they were drawn above
        assert [text for text in every_cell if not text.endswith("nothing to show here.*")] == [
            text for text in sentences if not text.endswith("nothing to show here.*")
        ]
    assert tables_of(run) == recorded


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("labels", [True, False])
def test_run_all_leaves_the_results_of_embeddings(labels, labelled, tmp_path):
    bare = {"labels": None, "prompts": None, "text_features": synthetic_arrays()["text_features"][0]}
    data = write_embeddings(tmp_path / "x.npz", **({} if labels else bare))
    others = {"compare_with": str(labelled)} if labels else {}
    run = open_run(Study.of({"dataset": data, "out": str(tmp_path / "runs"), **others}))
    conditions = {"labels", "pool", "others", "browser"} if labels else set()
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
    conditions = {"images", "pool", "tower"} | ({"labels", "browser"} if labels else set())
    assert {name for name, holds in run.conditions.items() if holds} == conditions
    run_all(run)
    assert json.loads((run.folder / "results.json").read_text())["enrichment"] is not None
