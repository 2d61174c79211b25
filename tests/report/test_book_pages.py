"""The built book: whole, escaped, complete without a network, and true to its run."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from finished_runs import HOSTILE, Page, cmm, html_pages

from cmmlib import InputError
from cmmlib.errors import ChapterError
from cmmlib.report import book, formatting, placed_chapters, staging
from cmmlib.storage import own_folders


def page(book_folder: Path, name: str) -> Page:
    return Page(book_folder / "html" / f"{name}.html")


def test_every_page_is_there_with_the_numbers_of_the_run(labelled, labelled_book):
    results = json.loads((labelled / "results.json").read_text())
    overall = formatting.percent(results["accuracy"]["overall"])
    spearman = formatting.decimal(results["cmm"]["soft"]["spearman"])
    assert overall in page(labelled_book, "index").text
    assert overall in page(labelled_book, "chapters/01_phenomenon").text
    assert spearman in page(labelled_book, "chapters/02_cmm").text
    for name in ("method", "results", "rerun", "references"):
        assert page(labelled_book, name).text


def test_nothing_is_loaded_from_elsewhere(labelled_book, many_book):
    for file in (*html_pages(labelled_book / "html"), *html_pages(many_book / "html")):
        found = Page(file)
        loaded = [a.get("src") for a in (*found.all("script"), *found.all("img"), *found.all("iframe"))]
        loaded += [a.get("href") for a in found.all("link") if a.get("rel") in ("stylesheet", "preload", "icon")]
        outside = [url for url in loaded if url and re.match(r"(https?:)?//", url)]
        assert not outside, (file.name, outside)
        for url in filter(None, loaded):
            assert url.startswith("data:") or (file.parent / url.partition("?")[0]).exists(), (file.name, url)


def test_every_link_within_a_book_leads_somewhere(labelled_book, many_book):
    for root in (labelled_book / "html", many_book / "html"):
        pages = {file: Page(file) for file in html_pages(root)}
        places = {file: {a.get("id") for _, a in found.elements} for file, found in pages.items()}
        for file, found in pages.items():
            links = [str(a["href"]) for a in found.all("a") if not re.match(r"[a-z]+:", a.get("href") or "https:")]
            assert len(links) > 10
            for path, _, place in (link.partition("#") for link in links):
                target = Path(os.path.normpath(file.parent / unquote(path.partition("?")[0]))) if path else file
                assert target.is_file(), (file.name, path)
                assert not place or place in places[target], (file.name, path, place)


def test_no_page_loads_a_picture_twice(labelled_book, many_book):
    for file in (*html_pages(labelled_book / "html"), *html_pages(many_book / "html")):
        pictures = [picture["src"] for picture in Page(file).all("img")]
        assert len(set(pictures)) == len(pictures), file


def test_every_figure_has_an_alt_text(labelled_book, many_book):
    for folder in (labelled_book, many_book):
        figures = [
            a for file in html_pages(folder / "html") for a in Page(file).all("img") if "_images" in (a["src"] or "")
        ]
        assert len(figures) > 8
        assert all(len(a.get("alt") or "") > 20 for a in figures)


def test_names_that_are_markup_stay_text(many_book):
    for file in html_pages(many_book / "html"):
        found = Page(file)
        assert not any("alert(1)" in script and not script.startswith("{") for script in found.scripts)  # { is data
        assert not [a for a in found.all("img") if a.get("onerror")]
        assert "http://example.org" not in [a.get("href") for a in found.all("a")]
    text = page(many_book, "chapters/02_cmm").text
    assert sum(" ".join(name.split()) in text for name in HOSTILE) >= 2  # some of them are suspects, and shown whole


def test_no_page_shows_markup_as_it_is_written(labelled_book):
    for file in html_pages(labelled_book / "html"):
        assert not re.findall(r"\{(?:term|doc|ref|eq)\}", Page(file).text), file


def test_further_runs_get_parts_of_their_own(many_book, changed, twins):
    text = page(many_book, "index").text
    for folder in (changed, twins[0]):
        assert folder.name in text
        assert (many_book / "html" / "chapters" / folder.name / "01_phenomenon.html").is_file()
    assert not (many_book / "html" / "chapters" / changed.name / "02_cmm.html").exists()


def test_a_study_without_labels_claims_no_accuracy(unlabelled, unlabelled_book):
    results = json.loads((unlabelled / "results.json").read_text())
    assert results["accuracy"] is None
    assert results["cmm"] is None
    for name in ("index", "chapters/01_phenomenon", "chapters/02_cmm"):
        text = page(unlabelled_book, name).text
        assert "n/a" not in text
        assert not re.search(r"overall accuracy (is|of) \d", text)


def test_a_second_build_does_nothing(labelled, labelled_book):
    index = labelled_book / "html" / "index.html"
    before = index.stat().st_mtime_ns
    assert cmm("book", labelled, "--out", labelled_book).code == 0
    assert index.stat().st_mtime_ns == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    said = cmm("book", tmp_path)
    assert said.code == 2
    assert "is no finished run" in said.err


def test_a_page_with_a_warning_is_an_error_and_the_old_book_stays(labelled, tmp_path, warm_jupyter_book, monkeypatch):
    sources = tmp_path / "sources"
    shutil.copytree(book.source("book"), sources / "book")
    shutil.copy(book.source("_config.yml"), sources / "_config.yml")
    with open(sources / "book" / "method.md", "a") as file:
        file.write("\n{doc}`no-such-page`\n")
    for module in (book, staging):
        monkeypatch.setattr(module, "source", lambda name: sources / name)
    old = tmp_path / "out" / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    own_folders.mark(old.parent)
    with warm_jupyter_book(), pytest.raises(ChapterError, match="no-such-page"):
        book.build([labelled], tmp_path / "out")
    assert old.read_text() == "old"


def test_a_page_that_lost_a_sentence_is_found(labelled_book, tmp_path):
    built = tmp_path / "html"
    shutil.copytree(labelled_book / "html", built)
    target = built / "chapters" / "01_phenomenon.html"
    target.write_text(target.read_text().replace("the classifier is right on", "?"))
    with pytest.raises(ChapterError, match=r"01_phenomenon.html lacks the sentence 'In this run: the classifier is"):
        book._verify(labelled_book / "book", built)


def test_pages_show_neither_warnings_nor_paths(labelled, labelled_book):
    for chapter in (labelled / "chapters").glob("*.ipynb"):
        outputs = [o for cell in nbformat.read(chapter, 4).cells for o in cell.get("outputs", [])]
        assert outputs or chapter.stem in ("03_enrichment", "07_backbones")  # no text tower, nothing to compare
        assert not [o for o in outputs if o.get("name") == "stderr"]
    for file in html_pages(labelled_book / "html"):
        assert str(Path.home()) + "/" not in file.read_text()
        assert str(labelled_book) not in file.read_text()


def test_sources_are_found_beside_the_package_or_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("cmmlib.report.chapters.PACKAGE", tmp_path / "cmmlib")
    (tmp_path / "cmmlib" / "share" / "book").mkdir(parents=True)
    assert book.source("book") == tmp_path / "cmmlib" / "share" / "book"
    with pytest.raises(InputError, match=r"notebooks is missing from this installation"):
        book.source("notebooks")


@pytest.mark.parametrize(
    ("address", "repository"),
    [
        ("https://github.com/us/book.git", "us/book"),
        ("https://github.com/us/book/", "us/book"),
        ("", None),
        ("https://example.org/us/book", None),
    ],
)
def test_a_chapter_opens_elsewhere_where_its_repository_is_known(address, repository, monkeypatch):
    monkeypatch.setenv("CMM_REPOSITORY_URL", address)
    buttons = " ".join(placed_chapters._ways_to_run("01_x.ipynb"))
    assert "/students/01_x.ipynb" in buttons
    links = re.findall(r"\]\((.*?)\)", buttons)
    elsewhere = ["colab.research.google.com/github/{}/blob/notebooks/01_x.ipynb"]
    elsewhere += ["mybinder.org/v2/gh/{}/notebooks?labpath=01_x.ipynb"]
    assert links == ([f"https://{place.format(repository)}" for place in elsewhere] if repository else [])


def test_a_book_of_the_miniature_world_offers_its_notebooks(default_book):
    found = page(default_book, "chapters/01_phenomenon")
    files = [a["href"] for a in found.all("a") if "download" in (a.get("class") or "")]
    assert [Path(file or "").name for file in files][:2] == ["01_phenomenon.ipynb", "notebooks.zip"]
    for file in files:
        assert (default_book / "html" / "chapters" / (file or "")).resolve().is_file()


def downloads(place: Path, chapter: str) -> dict[str, Path]:
    """Names of the files that a chapter offers, and where they lie."""
    hrefs = [a["href"] or "" for a in page(place, f"chapters/{chapter}").all("a")]
    return {Path(href).name: (place / "html" / "chapters" / href).resolve() for href in hrefs if "_downloads" in href}


def test_a_book_of_the_user_s_own_data_offers_no_notebook(labelled_book):
    assert not [name for name in downloads(labelled_book, "01_phenomenon") if name.endswith(".ipynb")]


def test_a_chapter_offers_what_it_wrote(labelled_book, labelled):
    found = downloads(labelled_book, "02_cmm")
    assert set(found) == {"results.json", "per_class.csv", "prompts.csv", "02_cmm_figures.zip"}
    for name in ("results.json", "per_class.csv", "prompts.csv"):
        assert found[name].read_bytes() == (labelled / name).read_bytes()
    with zipfile.ZipFile(found["02_cmm_figures.zip"]) as archive:
        drawn = json.loads((labelled / "manifest.json").read_text())["files"]
        assert set(archive.namelist()) == {
            n for n, of in drawn.items() if "02_cmm" in of["chapters"] and n[:8] == "figures/"
        }
        assert archive.testzip() is None


def test_the_repository_is_named_only_where_the_environment_names_it(monkeypatch):
    monkeypatch.delenv("CMM_REPOSITORY_URL", raising=False)
    assert "repository" not in staging._configuration()
    monkeypatch.setenv("CMM_REPOSITORY_URL", "https://example.org/us/book")
    assert staging._configuration()["repository"]["url"] == "https://example.org/us/book"
