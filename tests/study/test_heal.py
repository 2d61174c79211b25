"""A run folder that was damaged is made whole by the same command, which executes no more than it must and says why."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
from finished_runs import Said, cmm, write_chapter, write_embeddings

from cmmlib.errors import ChapterError
from cmmlib.report import book, chapters
from cmmlib.study import run_schema
from cmmlib.study.made_files import PLACES, Made, command, drop_left_behind
from cmmlib.study.run import Run
from cmmlib.study.run_files import (
    SCHEMA_VERSION,
    merge_columns,
    merge_sections,
    read_manifest,
    read_run,
    write_manifest,
)


def first(run: Run) -> None:
    run.record(first={"a": 0.1, "b": [1, None]}, both=1)
    run.record_table("per_class.csv", table(run, name=run.classnames, a=0.25), "class_index")
    (run.folder / "figures").mkdir(exist_ok=True)
    for kind in ("svg", "png"):
        (run.folder / "figures" / f"drawn.{kind}").write_text("drawn by the first chapter")


def second(run: Run) -> None:
    run.record(second="text")
    run.record_table("per_class.csv", table(run, b=range(run.n_classes)), "class_index")


def third(run: Run) -> None:
    run.record_classifier("plain", run.base_text_features)


def table(run: Run, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"class_index": range(run.n_classes), **columns})


WRITES = {"01_first": first, "02_second": second, "03_third": third}
FIRST, SECOND, THIRD = WRITES
MADE_BY = {
    "results.json": [FIRST, SECOND],
    "per_class.csv": [FIRST, SECOND],
    "figures/drawn.svg": [FIRST],
    "figures/drawn.png": [FIRST],
    f"chapters/{SECOND}.ipynb": [SECOND],
    "classifiers/plain.safetensors": [THIRD],
    "manifest.json": [*WRITES],
}
DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "of another type": lambda path: path.write_text("[1, 2]"),
    "an empty object": lambda path: path.write_text("{}"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 9),
}


class Story:
    """A study of three chapters that are not run in kernels; `executed` are those that were since the last look."""

    def __init__(self, place: Path) -> None:
        self.flags = ["--dataset", write_embeddings(place / "x.npz"), "--out", str(place / "runs")]
        self.log: list[str] = []

    def run(self, *flags: str) -> Said:
        said = cmm("run", *self.flags, *flags)
        assert said.code == 0, said.err
        return said

    @property
    def executed(self) -> list[str]:
        log, self.log = self.log, []
        return log


@pytest.fixture
def story(tmp_path, monkeypatch) -> Story:
    told = Story(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in WRITES:
        write_chapter(tmp_path / "notebooks" / f"{name}.ipynb", "pass")

    def execute(source: Path, run: Run, _: type) -> Any:
        told.log.append(source.stem)
        WRITES[source.stem](run)
        return chapters.read_notebook(source)

    for module in (chapters, book):  # both by name, so that none is imported while the other is replaced
        monkeypatch.setattr(module, "source", chapters.source)
    monkeypatch.setattr(chapters, "source", lambda name: tmp_path / "notebooks")
    monkeypatch.setattr(chapters, "_execute", execute)
    monkeypatch.setattr("cmmlib.report.kernels.forked", lambda imports: nullcontext())
    return told


@pytest.fixture
def folder(story) -> Path:
    """The folder of the finished run."""
    folder = story.run().folder
    assert story.executed == [*WRITES]
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which has the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", MADE_BY)
def test_what_is_damaged_is_made_again_and_nothing_else(name, damage, story, folder):
    before, manifest = contents(folder), json.loads((folder / "manifest.json").read_text())
    DAMAGE[damage](folder / name)
    said = story.run()
    assert story.executed == MADE_BY[name]
    again = "every chapter" if name == "manifest.json" else ", ".join(MADE_BY[name])
    assert said.err.splitlines()[0] == f"missing or damaged: {name}; to be executed again: {again}"
    assert contents(folder) == before
    healed = json.loads((folder / "manifest.json").read_text())
    assert (healed["files"], list(healed["chapters"])) == (manifest["files"], list(manifest["chapters"]))
    story.run()
    assert story.executed == []


@pytest.mark.parametrize("content", ["", "[" * 100_000, "null", '{"chapters": 1}', '{"chapters": {"01_first": 1}}'])
def test_no_json_gives_a_traceback(content, story, folder):
    before = contents(folder)
    for name in ("manifest.json", "results.json"):
        (folder / name).write_text(content)
    story.run()
    assert story.executed == [*WRITES]
    assert read_run(folder)[1].items() >= json.loads(before["results.json"]).items()


@pytest.mark.parametrize("damage", ["deleted", "an empty object", "garbage"])
@pytest.mark.parametrize("name", MADE_BY)
def test_a_book_of_a_damaged_run_names_the_command(name, damage, folder, tmp_path):
    DAMAGE[damage](folder / name)
    said = cmm("book", folder, "--out", tmp_path / "out")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    if (name, damage) == ("manifest.json", "deleted"):
        assert said.err.endswith("it lacks manifest.json or chapter 01; run `cmm run` first\n")
        return
    command = "cmm run ..." if name == "manifest.json" else "cmm run --dataset embeddings:PATH/x.npz"
    assert said.err == (f"cmm: {folder} is damaged, as {name} shows: the study's own command heals it: {command}\n")


def test_a_run_that_was_renamed_is_to_be_called_as_before(folder):
    mine = folder.rename(folder.with_name("renamed"))
    (mine / "results.json").unlink()
    said = cmm("book", mine).err
    assert f"damaged, as results.json shows: call the folder {folder.name} again, and the study's own command" in said


def test_several_damaged_files_show_it_and_one_shows_it(folder):
    (folder / "results.json").unlink()
    (folder / "per_class.csv").unlink()
    assert "is damaged, as per_class.csv, results.json show: " in cmm("book", folder).err


STRANGE = [
    {"../precious.csv": {"chapters": [FIRST], "sha256": {"x": "0"}}},
    {"figures/../../precious.csv": {"chapters": [FIRST], "sha256": {}}},
    {"figures": {"chapters": [FIRST], "sha256": {}}},
    {"\0.csv": {"chapters": [FIRST], "sha256": {}}},
    {"a.csv": None},
    {"results.json": {"chapters": None, "sha256": {}}},
    {"results.json": {"chapters": [FIRST], "sha256": 5}},
    [],
]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_a_manifest_that_names_others_files_deletes_none(strange, absolute, story, folder, tmp_path):
    precious = folder.parent / "precious.csv"
    precious.write_text("mine")
    if absolute and isinstance(strange, dict):
        strange = {**strange, str(precious): {"chapters": [FIRST], "sha256": {"x": "0"}}}
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {**manifest["files"], **strange} if isinstance(strange, dict) else strange
    rewrite = {key: value for key, value in manifest.items() if key != "sha256"} | {"files": files}
    write_manifest(folder / "manifest.json", rewrite)
    said = cmm("book", folder, "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    assert "is damaged, as manifest.json shows" in said.err
    story.log.clear()
    assert "missing or damaged: manifest.json; to be executed again: every chapter" in story.run().err
    assert story.executed == [*WRITES]
    assert precious.read_text() == "mine"


def test_a_folder_that_became_a_link_loses_nothing(story, folder, tmp_path):
    mine = tmp_path / "mine"
    shutil.move(folder / "figures", mine)
    (folder / "figures").symlink_to(mine)
    (mine / "drawn.svg").write_text("a drawing of my own, of the same name")
    made = Made.of(read_manifest(folder / "manifest.json") or {}, [*WRITES])
    made.forget_lost(folder, {*WRITES})
    assert (mine / "drawn.svg").read_text() == "a drawing of my own, of the same name"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("results.json", "0.1", "0.2"), ("results.json", '"second"', '"other"'), ("per_class.csv", "0.25", "0.5")],
)
def test_a_number_that_was_changed_is_computed_again(name, old, new, story, folder):
    before = contents(folder)
    change(folder / name, old, new)
    story.run()
    assert story.executed == MADE_BY[name]
    assert contents(folder) == before


def test_what_somebody_recorded_beside_the_chapters_is_no_damage(story, folder):
    merge_sections(folder / "results.json", {"mine": 1})
    merge_columns(folder / "per_class.csv", pd.DataFrame({"class_index": range(12), "mine": 1}), "class_index")
    assert "missing" not in story.run().err
    assert story.executed == []
    assert read_run(folder)[1]["mine"] == 1


def test_a_notebook_that_its_reader_edited_is_left_as_it_is(story, folder):
    notebook = folder / "chapters" / f"{FIRST}.ipynb"
    change(notebook, '"pass"', '"my answer"')
    edited = notebook.read_bytes()
    said = story.run()
    assert (
        f"chapters/{FIRST}.ipynb was edited, and is left so; remove it to have it made again" in said.err.splitlines()
    )
    assert (story.executed, notebook.read_bytes()) == ([], edited)


@pytest.mark.parametrize("lost", ["figures/drawn.svg", "per_class.csv", "results.json", "manifest.json"])
def test_what_a_reader_wrote_in_a_chapter_that_is_made_again_is_kept_beside_it(lost, story, folder):
    notebook = folder / "chapters" / f"{FIRST}.ipynb"
    for name in ("edited", "edited2"):
        change(notebook, '"pass"', '"my answer"')
        edited = notebook.read_bytes()
        (folder / lost).unlink()
        said = story.run()
        assert FIRST in story.executed
        aside = f"chapters/{name}_{FIRST}.ipynb"
        told = f"chapters/{FIRST}.ipynb was edited, and is made again: what was there is kept as {aside}"
        assert told in said.err.splitlines()
        assert "is left so" not in said.err
        assert (folder / aside).read_bytes() == edited
        assert b"my answer" not in notebook.read_bytes()
    assert "kept" not in story.run().err
    assert not any("edited" in name for name in read_manifest(folder / "manifest.json")["files"])


def test_a_manifest_of_another_version_is_called_so(story, folder):
    change(folder / "manifest.json", '"schema_version": 1', '"schema_version": 99')
    assert story.run().err.startswith("of another version, 99: manifest.json; to be executed again: every chapter\n")


def test_a_chapter_with_the_same_cells_is_not_kept_twice(story, folder):
    (folder / "manifest.json").unlink()
    assert "kept" not in story.run().err
    assert story.executed == [*WRITES]
    assert sorted(path.name for path in (folder / "chapters").iterdir()) == [f"{name}.ipynb" for name in WRITES]


def test_chapters_that_are_not_asked_for_are_made_again_when_they_are(story, folder):
    before = contents(folder)
    change(folder / "per_class.csv", "class 03,0.25,3", "class 03,0.25,7")
    story.run("--only", "01")
    assert story.executed == [FIRST]
    story.run()
    assert story.executed == [SECOND]
    assert contents(folder) == before


def test_everything_at_once(story, folder):
    before = contents(folder)
    shutil.rmtree(folder / "figures")
    shutil.rmtree(folder / "chapters")
    (folder / "results.json").unlink()
    (folder / "per_class.csv").write_text("x")
    (folder / "classifiers" / "plain.safetensors").write_text("x")
    story.run()
    assert story.executed == [*WRITES]
    assert contents(folder) == before


def earlier(folder: Path) -> None:
    """The manifest as earlier versions wrote it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({k: manifest[k] for k in manifest if k not in ("files", "sha256")})
    )


@pytest.mark.parametrize(
    ("name", "executed"), [(None, []), (f"chapters/{SECOND}.ipynb", [SECOND]), ("results.json", [*WRITES])]
)
def test_a_run_of_an_earlier_version_is_valid_where_its_files_are_there(name, executed, story, folder):
    earlier(folder)
    if name:
        (folder / name).unlink()
    story.run()
    assert story.executed == executed


def test_a_chapter_that_fails_half_way_is_executed_again_alone(story, folder, tmp_path, monkeypatch):
    def fail(run: Run) -> None:
        run.record(second="half")
        raise ChapterError("no")

    write_chapter(tmp_path / "notebooks" / f"{SECOND}.ipynb", "x = 1")
    with monkeypatch.context() as patch:
        patch.setitem(WRITES, SECOND, fail)
        assert cmm("run", *story.flags).code == 1
    said = cmm("book", folder, "--out", tmp_path / "out")
    assert f"is damaged, as chapters/{SECOND}.ipynb shows: the study's own command heals it" in said.err
    assert story.executed == [SECOND]
    assert "missing" not in story.run().err
    assert story.executed == [SECOND]
    assert read_run(folder)[1]["second"] == "text"


def test_a_chapter_that_is_gone_or_draws_less_is_no_damage(story, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(WRITES, FIRST, lambda run: run.record(first=1, both=2))
    write_chapter(tmp_path / "notebooks" / f"{FIRST}.ipynb", "x = 1")
    (tmp_path / "notebooks" / f"{THIRD}.ipynb").unlink()
    story.run()
    assert story.executed == [FIRST]
    for name in ("figures/drawn.svg", "classifiers/plain.safetensors"):
        (folder / name).unlink()
    assert "missing" not in story.run().err
    assert story.executed == []


def test_a_finished_run_of_the_real_chapter_is_made_whole(changed, tmp_path):
    folder = tmp_path / "runs" / changed.name
    shutil.copytree(changed, folder)
    data = next(changed.parents[1].glob("*.npz"))
    flags = ["--dataset", f"embeddings:{data}", "--worst-k", 5, "--seed", 1, "--only", "01", "--out", tmp_path / "runs"]
    before = contents(folder)
    for name in ("results.json", "per_class.csv", "figures/class_accuracy.svg"):
        DAMAGE["truncated"](folder / name)
    said = cmm("run", *flags)
    assert said.err.startswith("missing or damaged: figures/class_accuracy.svg, per_class.csv, results.json; to be")
    after = contents(said.folder)
    assert said.folder == folder
    assert {name for name in before if before[name] != after.get(name)} <= {"chapters/01_phenomenon.ipynb"}
    assert cmm("run", *flags).err == "01_phenomenon: up to date\n"


# ---------------------------------------------------------------- what killed processes left behind


def test_what_a_killed_run_left_behind_goes_at_the_next_and_nothing_else(story, folder):
    long_name = "a_name_of_more_than_forty_letters_which_is_cut"[:40]
    left = [
        *(".results.json-abcd_123.json", ".manifest.json-01234567.json", ".per_class.csv-abcdefgh.csv"),
        *("figures/.drawn.svg-abcdefgh.svg", f"figures/.{long_name}-abcdefgh.png"),
        *(f"chapters/.{FIRST}.ipynb-abcdefgh.ipynb", "classifiers/.plain.safetensors-abcdefgh.safetensors"),
    ]
    others = [".hidden", ".mine-abcdefgh.txt", "figures/.mine.svg", "chapters/.ipynb_checkpoints/x.ipynb", ".a-b.json"]
    for name in (*left, *others):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("half")
        os.utime(folder / name, (1e9, 1e9))
    story.run()
    assert [name for name in left if (folder / name).exists()] == []
    assert [name for name in others if not (folder / name).exists()] == []


def test_what_is_being_written_stays(folder):
    fresh = folder / ".results.json-abcdefgh.json"
    fresh.write_text("half")
    drop_left_behind(folder)
    assert fresh.exists()
    os.utime(fresh, (time.time() - 10,) * 2)
    drop_left_behind(folder)
    assert not fresh.exists()


def test_the_schema_knows_the_places_and_the_version_that_runs_write():
    """They stand in two modules, since one imports the other."""
    assert all(re.fullmatch(run_schema.MADE, place.replace("*", "any name").replace("[0-9]", "0")) for place in PLACES)
    assert get_args(run_schema.Version) == (SCHEMA_VERSION,)


def test_the_command_that_heals_says_where_a_path_is_missing(tmp_path):
    study = {"dataset": "folder:birds", "backbone": "local-dir:own", "pretrained": "w.pt", "templates": "t.txt"}
    kept = {"dataset": "cifar100", "backbone": "ViT-B-32", "pretrained": "openai", "templates": "openai80"}
    place = tmp_path / "runs" / "x"
    assert command({"study": study}, place) == (
        "cmm run --dataset folder:PATH/birds --backbone local-dir:PATH/own --pretrained PATH/w.pt "
        "--templates PATH/t.txt"
    )
    assert "PATH" not in command({"study": kept}, place)
    more = {"dataset": "wds:shards", "class_names": "names", "published": "figures", "compare_with": "a-1,b-2"}
    assert command({"study": more}, place) == (
        "cmm run --dataset wds:PATH/shards --class-names PATH/names --published PATH/figures "
        "--compare-with PATH/a-1,PATH/b-2"
    )
    assert "PATH" not in command({"study": {"dataset": "wds:owner/name", "published": "fetch"}}, place)
