"""How a book is put together: the runs it takes, when it is built again, the checks before it is shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from finished_runs import cmm

from cmmlib.errors import ChapterError
from cmmlib.report import book
from cmmlib.report.staging import keep_blocks
from cmmlib.storage import own_folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rebuilt(labelled_book, tmp_path, monkeypatch) -> Path:
    """A finished book; a further build of it takes finished pages in place of jupyter-book's."""
    place = tmp_path / "out"
    shutil.copytree(labelled_book / "html", place / "html")
    shutil.copytree(labelled_book / "html", tmp_path / "fresh")
    monkeypatch.setattr(book, "_jupyter_book", lambda *_: tmp_path / "fresh")
    return place


def test_a_book_is_built_again_when_something_changed_and_only_then(rebuilt, labelled, tmp_path, monkeypatch):
    book.build([labelled], rebuilt)
    assert (tmp_path / "fresh").exists()
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/book")
    book.build([labelled], rebuilt)
    assert not (tmp_path / "fresh").exists()


def test_the_stamp_changes_with_every_file_of_the_run(labelled, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    stamps = [book._build_stamp([run])]
    for name in ("results.json", "chapters/02_cmm.ipynb", "figures/class_accuracy.svg"):
        with open(run / name, "a") as file:
            file.write(" ")
        stamps.append(book._build_stamp([run]))
    assert len(set(stamps)) == 4


@pytest.mark.parametrize("lost", ["chapters/02_cmm.html", "method.html"])
def test_a_book_that_lacks_a_page_never_replaces_a_whole_one(lost, rebuilt, labelled, tmp_path, monkeypatch):
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/book")
    (tmp_path / "fresh" / lost).unlink()
    (rebuilt / "html" / "index.html").write_text("old")
    own_folders.list_made(rebuilt / "html")
    with pytest.raises(ChapterError, match=f"no page {lost}"):
        book.build([labelled], rebuilt)
    assert (rebuilt / "html" / "index.html").read_text() == "old"


def test_a_first_run_without_all_chapters_is_refused(changed, labelled, tmp_path):
    said = cmm("book", changed, labelled, "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    lacking = "00_real_clip, 02_cmm, 03_enrichment, 04_ensemble, 05_unlabelled, 07_backbones, 08_without_labels"
    lacking += ", 09_trust, 10_every_class, 11_playground"
    assert said.err == f"cmm: {changed.name} lacks {lacking}, which the book's pages quote: run it without --only\n"
    assert not (tmp_path / "out").exists()


def test_the_newest_run_is_taken_where_none_is_named(labelled, labelled_book, tmp_path, monkeypatch):
    shutil.copytree(labelled, tmp_path / "runs" / labelled.name)
    shutil.copytree(labelled_book / "html", tmp_path / "fresh")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(book, "_jupyter_book", lambda *_: tmp_path / "fresh")
    said = cmm("book")
    assert (said.code, said.out) == (0, "_build/html/index.html\n")
    assert (tmp_path / "_build" / "html" / "index.html").is_file()


def test_chapters_that_this_version_does_not_have_are_told_and_left_out(rebuilt, labelled, tmp_path):
    run = tmp_path / labelled.name
    shutil.copytree(labelled, run)
    shutil.copy(run / "chapters" / "01_phenomenon.ipynb", run / "chapters" / "07_of_an_earlier_version.ipynb")
    line = f"{run.name}: no chapters of this version of cmmlib, and left out: 07_of_an_earlier_version.ipynb\n"
    data = ["--data", labelled.parents[1] / "synthetic.npz"]
    for command in (["book", run, "--out", rebuilt], ["notebooks", run, "--out", tmp_path / "course", *data]):
        said = cmm(*command)
        assert (said.code, line in said.err) == (0, True), said.err
    assert not [*rebuilt.rglob("*earlier*"), *(tmp_path / "course").rglob("*earlier*")]


def test_a_page_keeps_the_blocks_that_hold_for_its_study():
    text = "a\n<!-- if-labels -->\nb\n<!-- end -->\n<!-- unless-labels -->\nc\n<!-- end -->\nd\n"
    assert keep_blocks(text, {"labels": True}) == "a\nb\nd\n"
    assert keep_blocks(text, {"labels": False}) == "a\nc\nd\n"
    both = "<!-- if-labels unless-tower -->\nb\n<!-- end -->\n"
    assert keep_blocks(both, {"labels": True, "tower": False}) == "b\n"
    assert keep_blocks(both, {"labels": True, "tower": True}) == ""
    assert keep_blocks(both, {"labels": False, "tower": False}) == ""
    for page in book.source("book").glob("*.md"):
        known = ("labels", "images", "pool", "blazon", "tower", "others")
        kept = keep_blocks(page.read_text(), dict.fromkeys(known, True))
        assert "<!--" not in kept, page.name


def test_every_exercise_is_once_in_a_book(many_book):
    staged = (many_book / "book" / "chapters").rglob("*.ipynb")
    labels = [label for path in staged for label in re.findall(r":label: ([\w-]+)", path.read_text())]
    assert len(labels) == len(set(labels)) >= 4


def test_a_wheel_carries_the_sources_that_the_package_looks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    code = "".join(path.read_text() for path in (ROOT / "cmmlib" / "report").glob("*.py"))
    asked = set(re.findall(r'source\("([^"]+)"\)', code))
    assert asked == {"notebooks", "book", "_config.yml"}
    assert {name: carried[name] for name in asked} == {name: f"cmmlib/share/{name}" for name in asked}
    assert all((ROOT / name).exists() for name in asked)


# ---------------------------------------------------------------- where a book may be built


def contents(folder: Path) -> dict[Path, object]:
    """Every path in a folder: what a link points to, what a file holds."""
    return {p: p.readlink() if p.is_symlink() else p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def place(labelled, tmp_path, monkeypatch) -> Path:
    """A folder with a clone's sources in clone/, from which books are made here, and a finished run in runs/run."""
    for name in ("book", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / "clone" / name)
    shutil.copy(ROOT / "_config.yml", tmp_path / "clone")
    (tmp_path / "clone" / "cmmlib").mkdir()
    shutil.copytree(labelled, tmp_path / "runs" / "run")
    for module in ("chapters", "book"):
        monkeypatch.setattr(f"cmmlib.report.{module}.PACKAGE", tmp_path / "clone" / "cmmlib")
    monkeypatch.setattr(book, "_jupyter_book", lambda *_: pytest.fail("built"))
    return tmp_path


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


SOURCES = ("clone", "clone/book", "clone/book/html", "clone/notebooks/new", "clone/cmmlib", ".")
RUNS = ("runs", "runs/run", "runs/run/figures", "runs/run/new/book")


@pytest.mark.parametrize("way", ["itself", "a link", "by dots"])
@pytest.mark.parametrize("out", [*SOURCES, *RUNS])
def test_a_book_is_never_built_over_what_it_is_made_from(out, way, place):
    given = place / out
    if way == "a link":
        (place / "links").mkdir()
        given = place / "links" / "link"
        given.symlink_to(place / out)
    elif way == "by dots":
        given = place / "clone" / ".." / out
    before = contents(place)
    said = cmm("book", place / "runs" / "run", "--out", given)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"--out: {given} overlaps {place}/" in said.err
    assert contents(place) == before


def test_a_book_is_not_built_over_its_second_run(place, labelled):
    said = cmm("book", labelled, place / "runs" / "run", "--out", place / "runs")
    assert (said.code, f"overlaps {place / 'runs' / 'run'}" in said.err) == (2, True)


@pytest.mark.parametrize("made_here", [False, True])
@pytest.mark.parametrize("part", ["book", "work", "html"])
@pytest.mark.parametrize("kind", ["folder", "folder in a folder", "file", "link", "dangling link"])
def test_what_somebody_else_put_there_is_left_alone(kind, part, made_here, place):
    out, mine = place / "out", place / "out" / part
    if made_here:  # an earlier book, one of whose folders was replaced since
        for name in {*book.PARTS} - {part}:
            own_folders.mark(out / name)
    if kind.startswith("folder"):
        write(mine / ("deep/index.html" if "in" in kind else "index.html"))
    elif kind == "file":
        write(mine)
    else:
        out.mkdir(exist_ok=True)
        mine.symlink_to(place / "elsewhere")
        if kind == "link":
            own_folders.mark(place / "elsewhere")
            write(place / "elsewhere" / "index.html")
    before = contents(place)
    said = cmm("book", place / "runs" / "run", "--out", out)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"--out: {mine} was not made by `cmm book`" in said.err
    assert contents(place) == before


@pytest.mark.parametrize("stamp", ["", "touched by make\n", "0" * 63])
def test_a_stamp_of_another_program_is_no_mark(stamp, place):
    write(place / "out" / "html" / "index.html")
    write(place / "out" / "stamp", stamp)
    before = contents(place)
    assert cmm("book", place / "runs" / "run", "--out", place / "out").code == 2
    assert contents(place) == before


def test_a_file_is_no_place_for_a_book(place):
    out = write(place / "notes.txt")
    said = cmm("book", place / "runs" / "run", "--out", out)
    assert (said.code, said.err) == (2, f"cmm: --out: {out} is a file: choose a folder\n")
    assert out.read_text() == "mine"


def built_from(pages: Path):
    """In place of Jupyter Book: the same pages every time."""
    return lambda staged, work, _: shutil.copytree(pages, own_folders.emptied(work) / "_build" / "html")


def test_a_book_is_built_beside_what_a_folder_holds_and_again(place, labelled_book, monkeypatch):
    monkeypatch.setattr(book, "_jupyter_book", built_from(labelled_book / "html"))
    mine = [write(place / "out" / "notes.txt"), write(place / "out" / "stamp"), write(place / "out" / "docs" / "a.md")]
    (place / "out" / "work").mkdir()  # nothing in it, nothing to lose
    for address in ("https://example.org/us/one", "https://example.org/us/two"):
        monkeypatch.setenv("CMM_REPOSITORY_URL", address)
        assert cmm("book", place / "runs" / "run", "--out", place / "out").code == 0
        assert all(own_folders.noted(place / "out" / part) is not None for part in book.PARTS)
    mine.append(write(place / "out" / "html" / "CNAME"))
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/three")
    refused = cmm("book", place / "runs" / "run", "--out", place / "out")
    assert (refused.code, "that were edited: CNAME: move them away" in refused.err) == (2, True), refused.err
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/two")
    assert [path.read_text() for path in mine] == ["mine"] * 4
    assert cmm("book", place / "runs" / "run", "--out", place / "out").err == "book: up to date\n"


def test_a_book_of_an_earlier_version_is_built_again(place, labelled_book, monkeypatch):
    """It has a file `stamp` and no marks."""
    monkeypatch.setattr(book, "_jupyter_book", built_from(labelled_book / "html"))
    out = place / "clone" / "_build"
    for part in book.PARTS:
        write(out / part / "index.html", "old")
    write(out / "stamp", "0" * 64)
    for said in (cmm("book", place / "runs" / "run", "--out", out) for _ in range(2)):
        assert said.code == 0, said.err
        assert sorted(path.name for path in out.iterdir()) == ["book", "html", "work"]
        assert (out / "html" / "method.html").is_file()
    (out / "html" / own_folders.MARK).unlink()
    assert cmm("book", place / "runs" / "run", "--out", out).code == 2  # the stamp went with the old book


def test_a_failed_build_of_an_earlier_version_s_place_can_be_tried_again(place, labelled_book, monkeypatch):
    out = place / "out"
    write(out / "html" / "index.html", "old")
    write(out / "stamp", "0" * 64)
    monkeypatch.setattr(book, "_jupyter_book", lambda *_: write(place / "no" / "index.html").parent)
    for _ in range(2):
        assert cmm("book", place / "runs" / "run", "--out", out).code == 1
        assert (out / "html" / "index.html").read_text() == "old"
    monkeypatch.setattr(book, "_jupyter_book", built_from(labelled_book / "html"))
    assert cmm("book", place / "runs" / "run", "--out", out).code == 0


def test_the_jupyter_book_of_another_environment_is_not_run(tmp_path, monkeypatch):
    fake = write(tmp_path / "bin" / "jupyter-book")
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyter_book.py").write_text("raise SystemExit(3)")  # a file of this name where the command is given
    for name, text in {
        "_toc.yml": "format: jb-book\nroot: index\n",
        "_config.yml": "title: x\n",
        "index.md": "# A page",
    }.items():
        write(tmp_path / "staged" / name).write_text(text)
    pages = book._jupyter_book(tmp_path / "staged", tmp_path / "work")
    assert "A page" in (pages / "index.html").read_text()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("accuracy", 3), ("cmm", {"soft": 3}), ("ensembles", [{}]), ("evidence", "x")]
)
def test_a_run_whose_results_were_edited_is_one_line(key, value, labelled, tmp_path):
    run = shutil.copytree(labelled, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, key: value}))
    said = cmm("book", run, "--out", tmp_path / "out")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    again = f"call the folder {labelled.name} again, and the study's own command heals it: cmm run"
    assert said.err.startswith(f"cmm: {run} is damaged, as results.json shows: {again}")


@pytest.mark.parametrize("lost", ["", "real_and_own.svg"])
def test_a_run_of_an_earlier_version_without_its_figures_is_one_line_and_nothing_is_staged(lost, labelled, tmp_path):
    """Its manifest does not list them."""
    run = shutil.copytree(labelled, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["files"], manifest["sha256"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "figures" / lost).unlink() if lost else shutil.rmtree(run / "figures")
    said = cmm("book", run, "--out", tmp_path / "out")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    shown = "as figures/real_and_own.svg shows: the study's own command heals it: cmm run --dataset"
    assert said.err.startswith(f"cmm: {run} is damaged, {shown}")
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_name_are_refused_and_nothing_is_staged(labelled, tmp_path):
    twin = shutil.copytree(labelled, tmp_path / labelled.name)
    other = shutil.copytree(labelled, tmp_path / "other")
    for runs, remedy in (
        ([labelled, twin], "rename one folder"),
        ([other, labelled, twin], "rename one folder"),
        ([other, twin, twin], "name it once"),
        ([twin, tmp_path / "other" / ".." / twin.name], "name it once"),
    ):
        said = cmm("book", *runs, "--out", tmp_path / "out")
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert f"two runs are called {twin.name}, " in said.err
        assert remedy in said.err
        assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_while_pages_are_copied_is_told_as_elsewhere(place, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("cmmlib.storage.own_folders.shutil.copyfile", full)
    said = cmm("book", place / "runs" / "run", "--out", place / "out")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"cmm: no space left on device ({place}/out/book/")
    assert said.err.endswith("): free space or choose another place (--out, CMM_CACHE)\n")
    assert not list((place / "out").iterdir())


def test_a_disk_that_is_full_while_pages_are_made_is_told_as_elsewhere(tmp_path, monkeypatch):
    program = "import sys; sys.exit('OSError: [Errno 28] No space left on device')"
    monkeypatch.setattr(book, "JUPYTER_BOOK", program)
    with pytest.raises(OSError, match="No space left on device") as error:
        book._jupyter_book(tmp_path / "staged", tmp_path / "work")
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "work"))


@pytest.mark.parametrize("held", ["", "{", "{}", '{"cells": 3}', "[]"])
def test_a_chapter_that_is_no_notebook_is_one_line(held, labelled, tmp_path):
    run = shutil.copytree(labelled, tmp_path / "run")
    (run / "chapters" / "02_cmm.ipynb").write_text(held)
    for arguments in (["book", run, "--out", tmp_path / "out"], ["notebooks", run, "--out", tmp_path / "students"]):
        said = cmm(*arguments)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert "02_cmm.ipynb" in said.err or "--data" in said.err
