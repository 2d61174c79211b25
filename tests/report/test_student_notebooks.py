"""Notebooks for students: they run where they lie, hold no answer, and tell a right answer from a wrong one."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from finished_runs import cmm, write_embeddings
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import Study
from cmmlib.errors import InputError
from cmmlib.report import exercises, plots, student_notebooks
from cmmlib.report.book_cells import tags
from cmmlib.storage import own_folders
from cmmlib.storage.cache import digest
from cmmlib.study.named_paths import file_fields


@pytest.fixture(scope="session")
def for_students(made_once, labelled) -> Path:
    """The labelled run's notebooks for students."""

    def make(place: Path) -> None:
        write_embeddings(place / "synthetic.npz")
        said = cmm("notebooks", labelled, "--out", place / "course", "--data", place / "synthetic.npz")
        assert (said.code, said.out) == (0, f"{place / 'course' / 'notebooks.zip'}\n"), said.err

    return made_once("for-students", make) / "course"


@pytest.fixture
def unpacked(for_students, tmp_path, monkeypatch) -> Path:
    """What the zip file holds and the solutions, in an empty folder that is the working folder."""
    with zipfile.ZipFile(for_students / "notebooks.zip") as archive:
        archive.extractall(tmp_path / "desk")
    assert not (tmp_path / "desk" / "solutions").exists()
    shutil.copytree(for_students / "solutions", tmp_path / "desk" / "solutions")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def read(path: Path):
    return nbformat.read(path, as_version=4)


def run_cells(notebook, answers: dict[str, float] | None = None) -> str:
    """Run the cells; an answer cell gets its answer. Returns what was printed."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr("IPython.display.display", lambda *_, **__: None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
                if cell.id.startswith("answer-"):
                    names.update(answers or {})
    return out.getvalue()


@pytest.mark.usefixtures("few_draws")
def test_every_chapter_runs_from_the_zip_file_alone(unpacked):
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in unpacked.glob("*.ipynb"))
    chapters = sorted(path.name for path in unpacked.glob("*.ipynb"))
    assert chapters == sorted(path.name for path in (unpacked / "solutions").glob("*.ipynb"))
    assert len(chapters) > 5
    for name in chapters:
        said = run_cells(read(unpacked / name))
        assert said.count("no answer yet") == sum(c.id.startswith("check-") for c in read(unpacked / name).cells)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(unpacked / "solutions")
            patch.setattr("cmmlib.report.pages.show_figure", lambda *_: None)  # made and saved above
            for figure in plots.__all__:
                patch.setattr(plots, figure, lambda *_, **__: None)
            run_cells(read(unpacked / "solutions" / name))


def test_a_chapter_runs_in_jupyter(unpacked):
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb"]
    done = subprocess.run([*command, "01_phenomenon.ipynb"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no answer yet" in (unpacked / "done.ipynb").read_text()


def test_a_right_answer_is_told_from_a_wrong_one(unpacked):
    solution = read(unpacked / "solutions" / "01_phenomenon.ipynb")
    outputs = [output for cell in solution.cells if "check" in tags(cell) for output in cell.outputs]
    answers = {o["data"][exercises.ANSWER]["name"]: o["data"][exercises.ANSWER]["value"] for o in outputs}
    assert len(answers) > 1
    chapter = read(unpacked / "01_phenomenon.ipynb")
    assert run_cells(chapter, answers).count("right\n") == len(answers)
    wrong = {name: value + 1 for name, value in answers.items()}
    assert run_cells(chapter, wrong).count("not yet") == len(answers)


def test_students_see_no_output_and_no_solution(for_students):
    for path in for_students.glob("*.ipynb"):
        chapter = read(path)
        assert not [cell for cell in chapter.cells if {"solution", "check"} & {*tags(cell)}]
        assert exercises.ANSWER not in path.read_text()
        assert not re.search(r'exercises.check\(\\"[\d.]+\\", \w+, -?[\d.]', path.read_text())
        assert not [o for cell in chapter.cells for o in cell.get("outputs", [])], path.name
    said = "**In this run:** the classifier is right on"
    assert said not in (for_students / "01_phenomenon.ipynb").read_text()
    assert said in (for_students / "solutions" / "01_phenomenon.ipynb").read_text()


def test_the_parameters_are_those_of_the_run(for_students):
    for path, place in ((for_students, "data"), (for_students / "solutions", "../data")):
        (cell,) = (c for c in read(path / "02_cmm.ipynb").cells if "parameters" in tags(c))
        names: dict[str, object] = {}
        exec(cell.source, names)
        assert names["dataset"] == f"embeddings:{place}/synthetic.npz"


def test_the_address_of_the_package_is_filled_in(labelled, tmp_path, monkeypatch):
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/book")
    data = write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:")
    assert cmm("notebooks", labelled, "--out", tmp_path / "course", "--data", data).code == 0
    text = (tmp_path / "course" / "01_phenomenon.ipynb").read_text()
    assert 'repository = \\"https://example.org/us/book\\"' in text
    assert "(https://example.org/us/book/blob/main/book/results.md)" in text


def test_data_that_is_missing_or_not_the_study_s_is_refused_and_nothing_written(labelled, tmp_path):
    other = tmp_path / "other.npz"
    other.write_text("")
    namesake = tmp_path / "namesake" / "other.npz"
    namesake.parent.mkdir()
    namesake.write_text("")
    for given, said in (
        ([], "of what the study reads, its dataset is synthetic.npz: give the path, a --data for each"),
        ([other], "dataset is synthetic.npz"),
        ([tmp_path / "nosuch"], f"--data: {tmp_path / 'nosuch'} does not exist"),
        ([other, namesake], f"--data: {other} and {namesake} have one name"),
    ):
        flags = [word for path in given for word in ("--data", path)]
        refused = cmm("notebooks", labelled, "--out", tmp_path / "course", *flags)
        assert (refused.code, refused.out, said in refused.err) == (2, "", True), refused.err
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    data = write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:")
    foreign = cmm("notebooks", labelled, "--out", tmp_path / "course", "--data", data, "--data", other)
    assert (foreign.code, "does not read other.npz" in foreign.err) == (2, True)
    assert cmm("notebooks", labelled, "--out", mine.parent, "--data", data).code == 2
    assert not (tmp_path / "course").exists()
    assert mine.read_text() == "mine"


def test_everything_that_is_missing_is_asked_for_at_once(tmp_path):
    fields = {"dataset": "folder:birds", "class_names": "names.txt", "templates": "mine.txt"}  # as manifests have them
    with pytest.raises(InputError) as error:
        student_notebooks._copies(fields, [tmp_path.parent])
    assert "its dataset is birds, its class_names is names.txt, its templates is mine.txt: give" in str(error.value)


def test_data_that_the_run_did_not_read_are_refused(labelled, tmp_path):
    arrays = synthetic_arrays()
    order = np.arange(CLASSES)[::-1]
    changes = {"classnames": arrays["classnames"][order], "text_features": arrays["text_features"][:, order]}
    data = write_embeddings(tmp_path / "synthetic.npz", **changes).removeprefix("embeddings:")
    said = cmm("notebooks", labelled, "--out", tmp_path / "course", "--data", data)
    assert (said.code, "is not what the run read" in said.err) == (2, True), said.err
    assert not (tmp_path / "course").exists()


def test_what_a_teacher_put_beside_the_notebooks_or_edited_there_stays(labelled, tmp_path):
    data = write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:")
    command = ("notebooks", labelled, "--out", tmp_path / "course", "--data", data)
    assert (cmm(*command).code, cmm(*command).code) == (0, 0)
    edited = tmp_path / "course" / "solutions" / "01_phenomenon.ipynb"
    edited.write_text(edited.read_text() + "\n")
    said = cmm(*command)
    assert (said.code, "that were edited: solutions/01_phenomenon.ipynb: move them" in said.err) == (2, True), said.err
    assert edited.is_file()


def test_chapters_that_did_not_run_are_told(labelled, changed, tmp_path):
    """`changed` ran chapter 1 alone."""
    data = next(changed.parents[1].glob("*.npz"))
    said = cmm("notebooks", changed, "--out", tmp_path / "course", "--data", data)
    told = "chapters that did not run are not among the notebooks: 00_real_clip, 02_cmm, 03_enrichment, "
    assert (said.code, told in said.err) == (0, True), said.err


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_run_with_a_damaged_chapter_is_refused_with_the_command_that_heals_it(damage, labelled, tmp_path):
    run = shutil.copytree(labelled, tmp_path / labelled.name)
    chapter = sorted((run / "chapters").glob("*.ipynb"))[1]
    chapter.unlink() if damage is None else chapter.write_text(damage)
    data = write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:")
    said = cmm("notebooks", run, "--out", tmp_path / "course", "--data", data)
    assert (said.code, said.out) == (2, "")
    assert f"as chapters/{chapter.name} shows: the study's own command heals it: cmm run" in said.err
    assert not (tmp_path / "course").exists()


@pytest.fixture(scope="module")
def of_a_folder(labelled, tmp_path_factory) -> Path:
    """The labelled run as if its study were of a folder `img`."""
    run = shutil.copytree(labelled, tmp_path_factory.mktemp("of-a-folder") / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["study"]["dataset"] = "folder:img"
    manifest["sha256"] = digest({key: value for key, value in manifest.items() if key != "sha256"})
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """A folder `img` of two classes, one of them empty, in the working folder; taken for what the run read."""
    monkeypatch.setattr(student_notebooks, "_require_same", lambda manifest, copies: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img" / "an owl").mkdir(parents=True)
    (tmp_path / "img" / "a lion").mkdir()
    (tmp_path / "img" / "a lion" / "1.png").write_text("lion")
    return tmp_path / "img"


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refused(*arguments: object) -> str:
    said = cmm("notebooks", *arguments)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said.err
    return said.err


def test_a_folder_is_copied_with_its_empty_classes_and_what_links_lead_to(of_a_folder, images):
    (images / "a cat").symlink_to(images / "a lion")
    (images / "an owl" / "nowhere.png").symlink_to(images / "nothing")
    (images / ".git").mkdir()
    (images / ".git" / "up").symlink_to(images)
    assert cmm("notebooks", of_a_folder, "--out", "course", "--data", "img").code == 0
    copied = {"a lion", "a lion/1.png", "an owl", "a cat", "a cat/1.png"}
    assert tree(images.parent / "course" / "data" / "img") == copied
    assert not (images.parent / "course" / "data" / "img" / "a cat").is_symlink()


def test_all_of_the_data_is_in_the_zip_file_whatever_its_names(of_a_folder, images):
    (images / "solutions").mkdir()
    (images / "solutions" / "1.png").write_text("solution")
    assert cmm("notebooks", of_a_folder, "--out", "course", "--data", "img").code == 0
    with zipfile.ZipFile("course/notebooks.zip") as archive:
        names = set(archive.namelist())
    assert {"data/img/solutions/1.png", "data/img/a lion/1.png"} <= names
    assert not [name for name in names if name.startswith(("solutions/", "."))]
    assert student_notebooks.is_for_students(Path("data/.embeddings.npz"))
    assert not student_notebooks.is_for_students(Path("solutions/01_phenomenon.ipynb"))
    assert not student_notebooks.is_for_students(Path(".made-by-cmm"))


@pytest.mark.parametrize("to", ["..", ".", "../../outside"])
def test_a_link_back_into_its_own_folder_is_refused_and_nothing_copied(to, of_a_folder, images):
    (images.parent / "outside").mkdir()
    (images.parent / "outside" / "back").symlink_to(images)
    (images / "a lion" / "up").symlink_to(to)
    line = refused(of_a_folder, "--out", "course", "--data", "img")
    assert "a lion/up" in line
    assert "leads back to a folder that it lies in" in line
    assert not Path("course").exists()


@pytest.mark.parametrize("out", ["img/course", "img", ".", "link/course"])
def test_an_out_that_overlaps_the_data_or_the_run_is_refused_before_anything_is_written(out, of_a_folder, images):
    Path("link").symlink_to(images)
    before = tree(images.parent)
    assert f"--out: {out} overlaps img, which is copied from" in refused(of_a_folder, "--out", out, "--data", "img")
    assert "overlaps" in refused(of_a_folder, "--out", of_a_folder / "course", "--data", "img")
    assert tree(images.parent) == before


def test_the_copy_of_an_earlier_course_is_not_emptied_while_it_is_read(of_a_folder, images):
    assert cmm("notebooks", of_a_folder, "--out", "course", "--data", "img").code == 0
    before = tree(Path("course"))
    assert "overlaps course/data/img" in refused(of_a_folder, "--out", "course", "--data", "course/data/img")
    (images / "a cat").symlink_to(Path("course/data/img/a lion").resolve())
    assert "leads into course" in refused(of_a_folder, "--out", "course", "--data", "img")
    assert tree(Path("course")) == before


def test_a_copy_that_fails_half_way_leaves_nothing(of_a_folder, images, monkeypatch):
    def full(source: Path, target: Path) -> None:
        Path(target).write_text("half")
        raise OSError(28, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("cmmlib.storage.own_folders.shutil.copyfile", full)
    line = refused(of_a_folder, "--out", "course", "--data", "img")
    place = "course/.being-made-by-cmm/data/img/a lion/1.png"
    assert line == f"cmm: no space left on device ({place}): free space or choose another place (--out, CMM_CACHE)\n"
    assert not Path("course").exists()


def test_a_second_time_writes_the_same_bytes(labelled, for_students, tmp_path):
    data = write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:")
    for _ in range(2):
        assert cmm("notebooks", labelled, "--out", tmp_path / "course", "--data", data).code == 0
        first = (tmp_path / "course" / "01_phenomenon.ipynb").read_bytes()
        assert first == (for_students / "01_phenomenon.ipynb").read_bytes()
    assert own_folders.is_own(tmp_path / "course")


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({}, {}),
        ({"dataset": "folder:birds"}, {"dataset": "birds"}),
        ({"dataset": "cifar100", "backbone": "ViT-B-32", "pretrained": "openai"}, {}),
        ({"backbone": "local-dir:clip", "pretrained": "a.pt"}, {"backbone": "clip", "pretrained": "a.pt"}),
        ({"dataset": "wds:shards", "templates": "my.prompts"}, {"dataset": "shards", "templates": "my.prompts"}),
        ({"published": "figures"}, {"published": "figures"}),
        ({"published": "fetch"}, {}),
        ({"dataset": "wds:owner/shards", "base_template": "a file.txt of a {}"}, {}),
        ({"templates": "mine.txt", "class_names": "names"}, {"templates": "mine.txt", "class_names": "names"}),
    ],
)
def test_the_files_of_a_study_are_known(fields, files):
    assert file_fields(Study().public() | fields) == files


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (..., 0.5, "no answer yet"),
        (0.5, 0.5, "right"),
        (0.503, 0.5, "right"),
        (0.999, 1.0, "right"),
        (-0.1546, -0.1549, "right"),
        (382, 382, "right"),
        (0.1146, 0.1059, "not yet"),
        (0.0999, 0.1001, "right"),
        (-995.0, -1003.0, "right"),
        (0.6, 0.5, "not yet"),
        (0.05, 0.5, "not yet"),
        (-0.5, 0.5, "not yet"),
        ("half", 0.5, "not yet"),
        (None, 0.5, "not yet"),
        (float("nan"), 0.5, "not yet"),
        (0.0, 0.0, "right"),
        (1.0, 0.996, "right"),  # the nearest digits are of the decade below
        (0.1, 0.0991, "right"),
        (0.1, 0.0985, "not yet"),
        (0.995, 1.0, "right"),
        (10**400, 1.0, "not yet"),
        (1.795e308, 1.0, "not yet"),
        (1, None, "this study has no answer"),
    ],
)
def test_a_check_takes_whatever_a_student_writes(given, expected, said, capsys):
    exercises.check("2.1", given, exercises.key(expected))
    told = capsys.readouterr().out
    assert told.startswith(f"exercise 2.1: {said}")
    assert ("Hint: The margin of a class" in told) == (said == "not yet")


def test_an_exercise_that_the_package_does_not_have_is_checked_without_a_hint(capsys):
    exercises.check("9.9", 0.6, exercises.key(0.5))
    with_parameters = "(with the parameters that this notebook came with)"
    assert capsys.readouterr().out.splitlines() == [
        f"exercise 9.9: not yet: another number is expected, unrounded {with_parameters}"
    ]


@pytest.mark.parametrize("given", [math.nan, np.float32("nan"), torch.tensor(math.nan)])
def test_an_answer_that_is_nan_is_called_so(given, capsys):
    exercises.check("9.9", given, exercises.key(0.5))
    assert "a finite number is expected, this is " in (told := capsys.readouterr().out)
    assert "nan" in told


def test_answers_and_hints_unfold_for_students(for_students):
    solutions = for_students / "solutions"
    for path in (*for_students.glob("0[0-8]*.ipynb"), *solutions.glob("0[0-8]*.ipynb")):
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        assert text.count("<summary>Hint</summary>") == text.count("### Exercise "), path
        assert len(re.findall("<summary>[A-Z]: ", text)) == 3 * text.count("### Question ") == 9
        assert "> **Hint**" not in text


def test_an_answer_cannot_be_read_off_its_key():
    assert exercises.key(-0.15461) == exercises.key(-0.15463) != exercises.key(0.15461)
    assert re.fullmatch("[0-9a-f]{12}", str(exercises.key(-0.1546)))
    assert len({exercises.key(n / 1000) for n in range(100, 1000)}) == 900


@pytest.mark.parametrize("value", [0.25, 3, None, float("nan")])
def test_an_answer_travels_as_json(value, monkeypatch):
    shown: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    exercises.answer(x=value)
    (data,) = shown
    json.dumps(data, allow_nan=False)
    assert data[exercises.ANSWER]["name"] == "x"
