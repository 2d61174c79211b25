"""How a book is put together: the runs it takes, when it is built again, the checks before it is shown."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
from finished_runs import cmm

from cmmlib.errors import ChapterError
from cmmlib.report import book

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rebuilt(labelled_book, tmp_path, monkeypatch) -> Path:
    """A finished book; a further build of it takes finished pages in place of jupyter-book's."""
    place = tmp_path / "out"
    shutil.copytree(labelled_book / "html", place / "html")
    shutil.copy(labelled_book / "stamp", place / "stamp")
    shutil.copytree(labelled_book / "html", tmp_path / "fresh")
    monkeypatch.setattr(book, "_jupyter_book", lambda staged, work: tmp_path / "fresh")
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
    with pytest.raises(ChapterError, match=f"no page {lost}"):
        book.build([labelled], rebuilt)
    assert (rebuilt / "html" / "index.html").read_text() == "old"


def glued_name(output) -> str | None:
    return output.get("metadata", {}).get("scrapbook", {}).get("name")


def test_a_chapter_that_does_not_say_a_value_is_found(labelled_book, tmp_path):
    staged = tmp_path / "book"
    shutil.copytree(labelled_book / "book", staged)
    book._verify(staged, labelled_book / "html")
    chapter = staged / "chapters" / "02_cmm.ipynb"
    book._glued_values.cache_clear()
    notebook = nbformat.read(chapter, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if glued_name(o) != "low_cmm"]
    nbformat.write(notebook, chapter)
    with pytest.raises(ChapterError, match=r"02_cmm.html lacks the value of low_cmm: None"):
        book._verify(staged, labelled_book / "html")


def test_a_first_run_without_all_chapters_is_refused(changed, labelled, tmp_path):
    said = cmm("book", changed, labelled, "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    lacking = "02_cmm, 03_enrichment, 04_ensemble, 05_unlabelled, 07_backbones"
    assert said.err == f"cmm: {changed.name} lacks {lacking}, which the book's pages quote: run it without --only\n"
    assert not (tmp_path / "out").exists()


def test_the_newest_run_is_taken_where_none_is_named(labelled, labelled_book, tmp_path, monkeypatch):
    shutil.copytree(labelled, tmp_path / "runs" / labelled.name)
    shutil.copytree(labelled_book / "html", tmp_path / "fresh")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(book, "_jupyter_book", lambda staged, work: tmp_path / "fresh")
    said = cmm("book")
    assert (said.code, said.out) == (0, "_build/html/index.html\n")
    assert (tmp_path / "_build" / "html" / "index.html").is_file()


def test_a_page_keeps_the_blocks_that_hold_for_its_study():
    text = "a\n<!-- if-labels -->\nb\n<!-- end -->\n<!-- unless-labels -->\nc\n<!-- end -->\nd\n"
    assert book._keep_blocks(text, {"labels": True}) == "a\nb\nd\n"
    assert book._keep_blocks(text, {"labels": False}) == "a\nc\nd\n"
    both = "<!-- if-labels unless-tower -->\nb\n<!-- end -->\n"
    assert book._keep_blocks(both, {"labels": True, "tower": False}) == "b\n"
    assert book._keep_blocks(both, {"labels": True, "tower": True}) == ""
    assert book._keep_blocks(both, {"labels": False, "tower": False}) == ""
    for page in book.source("book").glob("*.md"):
        known = ("labels", "images", "pool", "blazon", "tower", "others")
        kept = book._keep_blocks(page.read_text(), dict.fromkeys(known, True))
        assert "<!--" not in kept, page.name


def test_every_exercise_is_once_in_a_book(many_book):
    staged = (many_book / "book" / "chapters").rglob("*.ipynb")
    labels = [label for path in staged for label in re.findall(r":label: ([\w-]+)", path.read_text())]
    assert len(labels) == len(set(labels)) >= 4


def test_a_wheel_carries_the_sources_that_the_package_looks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    code = "".join((ROOT / "cmmlib" / f"{module}.py").read_text() for module in ("chapters", "book"))
    asked = set(re.findall(r'source\("([^"]+)"\)', code))
    assert asked == {"notebooks", "book", "_config.yml"}
    assert {name: carried[name] for name in asked} == {name: f"cmmlib/share/{name}" for name in asked}
    assert all((ROOT / name).exists() for name in asked)
