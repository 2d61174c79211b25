"""Books in a browser, served and from disk: whole, silent, light, as narrow as a phone, usable by keyboard and by ear.

The pages of each book are visited once, by one browser; the tests look at what was noted then. Pictures of all pages
are left in the folder that CMM_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from finished_runs import MADE, html_pages
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
# Not the browser's own requests, and none that leaves the machine: a page's are noted before they fail.
FLAGS = ("--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
WIDTHS = (1300, 390, 360)
PICTURED = (1300, 390)
MOST = 1_500_000  # bytes of a page view with all of its pictures, nothing compressed and nothing cached
MOST_OF_ALL_IMAGES = 2_400_000  # of the playground, which carries numbers of every image, where the book has them all
SETTLED = """async () => {
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
}"""
MEASURE = """() => ({
  scroll: document.documentElement.scrollWidth,
  broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
  formulas: document.querySelectorAll(".math").length,
  set: [...document.querySelectorAll(".math > math")].filter(math => math.getBoundingClientRect().height > 5).length,
})"""
AXE = """() => axe.run({preload: false, resultTypes: ["violations"], rules: {
  "label-content-name-mismatch": {enabled: true}}})"""
FOCUSED = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  const line = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
  return {what: element.outerHTML.slice(0, 90), line};
}"""


@dataclass
class Visit:
    """What was noted of a page: complaints of the console, addresses it asked for, and measures for every width."""

    page: Path
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    at_first: list[str] = field(default_factory=list)  # at the first width: another has other figures
    measured: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def outside(self) -> list[str]:
        return [url for url in self.asked if urlsplit(url).hostname not in (None, "", "127.0.0.1")]

    def weight(self, root: Path) -> int:
        """Bytes of all that was asked for, of which a browser's cache takes nothing away."""
        places = {root / unquote(urlsplit(url).path).lstrip("/") for url in self.at_first if url.startswith("http")}
        return sum(place.stat().st_size for place in places if place.is_file())


def visit(tab: Page, address: str, page: Path, pictures: Path | None = None) -> Visit:
    """Open a page at the first width and look at it at all."""
    visited = Visit(page)
    notes = {
        "request": lambda request: visited.asked.append(request.url),
        "console": lambda message: visited.complaints.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: visited.complaints.append(str(error)),
    }
    for event, note in notes.items():
        tab.on(event, note)  # type: ignore[call-overload]
    tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
    tab.goto(address)
    tab.evaluate(SETTLED)
    visited.at_first = [*visited.asked]
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        visited.measured[width] = tab.evaluate(MEASURE)
        if pictures and width in PICTURED:
            tab.screenshot(path=pictures / f"{page.stem}_{width}.png", full_page=True, animations="disabled")
    for event, note in notes.items():
        tab.remove_listener(event, note)
    return visited


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    yield context
    context.close()


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def served(default_book) -> Iterator[str]:
    """The address of the book of the default study."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(default_book / "html"))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def over_http(browser, served, default_book) -> list[Visit]:
    """Every page of the default book."""
    root, wanted = default_book / "html", os.environ.get("CMM_SCREENSHOTS")
    pictures = Path(wanted) if wanted else None
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    tab = browser.new_page()
    found = [visit(tab, served + page.relative_to(root).as_posix(), page, pictures) for page in html_pages(root)]
    tab.close()
    return found


@pytest.fixture(scope="module")
def from_disk(browser, labelled_book, many_book) -> list[Visit]:
    """Every page of a book of embeddings, and the chapters of one of classes whose names are markup."""
    tab = browser.new_page()
    pages = [*html_pages(labelled_book / "html"), *html_pages(many_book / "html" / "chapters")]
    found = [visit(tab, page.as_uri(), page) for page in pages]
    tab.close()
    return found


@pytest.fixture(scope="module")
def visits(over_http, from_disk) -> list[Visit]:
    return over_http + from_disk


def test_no_page_complains(visits):
    assert [(visit.page, visit.complaints) for visit in visits if visit.complaints] == []


def test_no_page_asks_a_network_for_anything(visits):
    assert [(visit.page, visit.outside) for visit in visits if visit.outside] == []


def test_every_picture_is_shown(visits):
    found = [(visit.page, measured["broken"]) for visit in visits for measured in visit.measured.values()]
    assert [(page, broken) for page, broken in found if broken] == []


def test_every_formula_is_set_and_nothing_else(visits):
    """Class names such as `$x$` are no formulas."""
    counts = [(visit.measured[1300]["formulas"], visit.measured[1300]["set"]) for visit in visits]
    assert [visit.page for visit, (formulas, drawn) in zip(visits, counts, strict=True) if formulas != drawn] == []
    assert sum(drawn for _, drawn in counts) > 40


def test_no_page_scrolls_sideways(visits):
    wide = [(v.page, width, m["scroll"]) for v in visits for width, m in v.measured.items() if m["scroll"] > width]
    assert wide == []


def test_a_phone_shows_every_figure_whole_in_its_own_variant(browser, served):
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    shown = "[...document.querySelectorAll('picture > img')].map(i => [i.currentSrc.endsWith('_narrow.svg'), i.width])"
    for page, least in (("chapters/02_cmm.html", 6), ("index.html", 1)):
        tab.goto(f"{served}/{page}")
        tab.evaluate(SETTLED)
        narrow = tab.evaluate(shown)
        assert len(narrow) >= least
        assert all(own and 250 < width <= 344 for own, width in narrow), narrow
    tab.set_viewport_size({"width": 1300, "height": 800})
    tab.reload()
    tab.evaluate(SETTLED)
    assert [own for own, _ in tab.evaluate(shown)] == [False] * len(narrow)
    tab.close()


def test_no_page_view_is_heavy(over_http, default_book):
    weights = {visit.page.name: visit.weight(default_book / "html") for visit in over_http}
    most = {"11_playground.html": MOST_OF_ALL_IMAGES} if MADE else {}
    assert {name: weight for name, weight in weights.items() if weight > most.get(name, MOST)} == {}
    assert min(weights.values()) > 300_000  # the theme's files were counted


def test_the_search_finds_the_matching_margin(context, served):
    tab = context.new_page()
    tab.goto(f"{served}search.html?q=matching+margin")
    tab.wait_for_selector("#search-results li")
    links = [link.get_attribute("href") or "" for link in tab.query_selector_all("#search-results li > a")]
    assert any("chapters/02_cmm.html" in link for link in links)


def luminance(tab: Page, selector: str) -> float:
    """Of an element's background, from 0 to 255."""
    colour = tab.evaluate("selector => getComputedStyle(document.querySelector(selector)).backgroundColor", selector)
    return sum(float(part) for part in colour.strip("rgba()").split(",")[:3]) / 3


def test_the_dark_theme_is_dark_and_its_figures_do_not_glare(browser, served):
    context = browser.new_context(color_scheme="dark")
    tab = context.new_page()
    tab.goto(f"{served}chapters/01_phenomenon.html")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert luminance(tab, "body") < 40
    figures = "[...document.querySelectorAll('article img')].map(image => getComputedStyle(image).filter)"
    assert set(tab.evaluate(figures)) == {"brightness(0.85)", "invert(0.88) hue-rotate(180deg)"}
    assert tab.evaluate(figures).count("brightness(0.85)") == 2  # the key to the shields, and the gallery
    tab.click("button.theme-switch-button")
    tab.wait_for_function("document.documentElement.dataset.theme === 'light'")
    assert luminance(tab, "body") > 240
    context.close()


KINDS = (
    "index",
    "chapters/02_cmm",
    "chapters/09_trust",
    "chapters/10_every_class",
    "chapters/11_playground",
    "method",
    "search",
)  # of pages, for what takes seconds


@pytest.fixture(scope="module")
def violations() -> Callable[[Page], list[tuple[str, list[str]]]]:
    """What axe-core calls serious or critical on a page: the rule, and the elements that break it."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")

    def found(tab: Page) -> list[tuple[str, list[str]]]:
        tab.evaluate(script)
        grave = [v for v in tab.evaluate(AXE)["violations"] if v["impact"] in ("serious", "critical")]
        return [(violation["id"], [node["html"][:200] for node in violation["nodes"]]) for violation in grave]

    return found


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1300, "dark")])
def test_no_kind_of_page_has_a_grave_fault_of_accessibility(width, theme, browser, served, violations):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    tab = context.new_page()
    found = {}
    for kind in KINDS:
        tab.goto(f"{served}{kind}.html")
        tab.add_style_tag(content="* { transition: none !important; }")  # a colour on its way is none of the theme's
        tab.wait_for_function("!document.querySelector('[aria-busy=true]')")  # numbers are pale until new ones come
        found[kind] = violations(tab)
    context.close()
    assert found == {kind: [] for kind in KINDS}


def test_the_focus_of_the_keyboard_is_seen(context, served):
    tab = context.new_page()
    tab.goto(f"{served}chapters/02_cmm.html")
    for _ in range(12):
        tab.keyboard.press("Tab")
        focused = tab.evaluate(FOCUSED)
        assert focused["line"] >= 2, focused["what"]


def test_what_scrolls_is_reached_with_the_keyboard_and_nothing_else_is(context, served):
    tab = context.new_page()
    tab.set_viewport_size({"width": 390, "height": 900})
    tab.goto(f"{served}chapters/02_cmm.html")
    boxes = tab.query_selector_all("article :is(pre, .pst-scrollable-table-container):not(details:not([open]) *)")
    found = [box.evaluate("box => [box.scrollWidth > box.clientWidth, box.tabIndex]") for box in boxes]
    assert {(scrolls, tab_index == 0) for scrolls, tab_index in found} == {(True, True), (False, False)}
    box = next(box for box, (scrolls, _) in zip(boxes, found, strict=True) if scrolls)
    box.focus()
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate(FOCUSED)["line"] >= 2
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("document.activeElement.scrollLeft > 0")


FAULTY = """<!doctype html><html><head></head><body><div style="width:900px">wide</div><img src="http://example.invalid/x.png">
<img src="a.png"><script>console.error("a complaint")</script><div class="math">x</div></body></html>"""


def test_the_browser_would_have_told(context, violations, tmp_path):
    """The measures above, on a page with each of the faults."""
    page = tmp_path / "faulty.html"
    page.write_text(FAULTY)
    tab = context.new_page()
    found = visit(tab, page.as_uri(), page, tmp_path)
    assert found.outside == ["http://example.invalid/x.png"]
    assert "a complaint" in found.complaints
    measured = found.measured[390]
    assert measured["scroll"] >= 900
    assert len(measured["broken"]) == 2
    assert (measured["formulas"], measured["set"]) == (1, 0)
    assert (tmp_path / "faulty_390.png").is_file()
    assert {"html-has-lang", "image-alt"} <= {rule for rule, _ in violations(tab)}
