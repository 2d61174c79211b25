"""What a book says of itself elsewhere, with and without an address of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from finished_runs import html_pages

from cmmlib.errors import InputError
from cmmlib.report import book, staging
from cmmlib.storage.network import book_url, repository_url

ADDRESS = "https://us.github.io/Book/"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_address(monkeypatch) -> None:
    for name in ("CMM_REPOSITORY_URL", "CMM_BOOK_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("repository", "book", "address"),
    [
        ("", "", ""),
        ("https://github.com/Us/Book", "", ADDRESS),
        ("https://github.com/us/Book.git", "", ADDRESS),
        ("https://github.com/us/us.github.io/", "", "https://us.github.io/"),
        ("https://example.org/us/book", "", ""),
        ("https://github.com/us/Book", "https://example.org/there", "https://example.org/there/"),
    ],
)
def test_the_address_of_a_book_is_told_or_follows_from_github(repository, book, address, monkeypatch):
    monkeypatch.setenv("CMM_REPOSITORY_URL", repository)
    monkeypatch.setenv("CMM_BOOK_URL", book)
    assert book_url() == address


@pytest.mark.parametrize(
    "address",
    [
        'https://github.com/a/b";print(1)',
        "javascript:alert(1)",
        "github.com/a/b",
        "https://github.com/us/book) [x](javascript:alert(1)",
        "https://a.b/<i>",
    ],
)
def test_what_is_no_address_of_a_repository_becomes_no_code_and_no_link(address, monkeypatch):
    monkeypatch.setenv("CMM_REPOSITORY_URL", address)
    with pytest.raises(InputError, match="is no address such as https://github"):
        repository_url()


@pytest.mark.parametrize("address", ["somewhere", "https://example.org/?key=1", "file:///book"])
def test_what_is_no_address_of_a_book_is_refused(address, monkeypatch):
    monkeypatch.setenv("CMM_BOOK_URL", address)
    with pytest.raises(InputError, match=r"^CMM_BOOK_URL: "):
        book_url()


def built(place: Path) -> Path:
    """A book of two pages, with the configuration of the whole one."""
    staged = place / "staged"
    (staged / "_static").mkdir(parents=True)
    (staged / "references.bib").touch()
    (staged / "_static" / "favicon.svg").write_text((ROOT / "book" / "_static" / "favicon.svg").read_text())
    (staged / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters: [{file: part/other}]\n")
    (staged / "_config.yml").write_text(yaml.safe_dump(staging._configuration(), sort_keys=False))
    (staged / "index.md").write_text(
        f"# One\n\n```{{note}}\n{'in a box ' * 9}\n```\n\nshort\n\n{'the first words ' * 30}\n"
    )
    (staged / "part").mkdir()
    (staged / "part" / "other.md").write_text("# Two\n\nshort\n")
    return book._jupyter_book(staged, place / "work")


@pytest.fixture(scope="module")
def two_books(tmp_path_factory, warm_jupyter_book) -> tuple[Path, Path]:
    """Pages of a book of an unknown address, and of one on GitHub Pages."""
    with warm_jupyter_book(), pytest.MonkeyPatch.context() as patch:
        nowhere = built(tmp_path_factory.mktemp("nowhere"))
        patch.setenv("CMM_REPOSITORY_URL", "https://github.com/us/Book")
        return nowhere, built(tmp_path_factory.mktemp("known"))


def told(page: Path) -> dict[str, str]:
    """What a page's head says: its meta tags and its canonical address."""
    soup = BeautifulSoup(page.read_text(), "html.parser")
    tags = {str(t.get("property") or t.get("name")): str(t["content"]) for t in soup("meta", content=True)}
    return tags | {str(link["rel"][0]): str(link["href"]) for link in soup("link", rel="canonical")}


def test_every_page_is_described_by_its_first_words_and_its_title(two_books):
    for pages in two_books:
        head = told(pages / "index.html")
        assert head["description"].startswith("the first words the first words")
        assert 150 < len(head["description"]) <= 200
        assert (head["og:description"], head["og:title"]) == (head["description"], "One")
        assert head["og:site_name"] == "CLIP's worst categories"


def test_addresses_are_whole_or_missing(two_books):
    nowhere, known = two_books
    assert not {"canonical", "og:url", "og:image"} & set(told(nowhere / "index.html"))
    assert not (nowhere / "sitemap.xml").exists()
    assert not (nowhere / "404.html").exists()
    head = told(known / "part" / "other.html")
    assert head["canonical"] == head["og:url"] == f"{ADDRESS}part/other.html"
    assert head["og:image"] == f"{ADDRESS}_static/real_and_own.png"
    listed = re.findall("<loc>(.*?)</loc>", (known / "sitemap.xml").read_text())
    assert sorted(listed) == [f"{ADDRESS}index.html", f"{ADDRESS}part/other.html"]


def test_a_wrong_address_leads_home_from_any_depth(two_books):
    _, known = two_books
    page = BeautifulSoup((known / "404.html").read_text(), "html.parser")
    assert "/Book/index.html" in [link["href"] for link in page.select("article a")]
    places = [tag.get("src") or tag.get("href") for tag in page.select("script[src], link[rel=stylesheet], a.internal")]
    assert len(places) > 8
    assert [place for place in places if not place.startswith("/Book/")] == []
    for place in places:
        assert (known / place.removeprefix("/Book/").partition("?")[0]).is_file(), place


def test_the_picture_that_other_sites_show_is_there(labelled_book):
    picture = labelled_book / "html" / "_static" / "real_and_own.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert all(told(page).get("description") for page in html_pages(labelled_book / "html") if page.stem != "search")


def test_the_page_on_citing_says_what_the_citation_file_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    text = " ".join((ROOT / "book" / "references.md").read_text().split())
    paper = citation["references"][0]
    said = [citation["title"], citation["version"], citation["authors"][0]["name"], paper["title"], str(paper["year"])]
    said += [paper["identifiers"][0]["value"], *(author["family-names"] for author in paper["authors"])]
    assert [words for words in said if words not in text] == []
