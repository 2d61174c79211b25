"""Explorer and playground as a reader has them: in a browser, opened from disk, by mouse and keyboard."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from finished_runs import HOSTILE
from playwright.sync_api import Browser, Page, sync_playwright

from cmmlib import functional as F
from cmmlib.functional.candidates import DESCRIPTION, TEMPLATE, Candidates
from cmmlib.report.widgets.playground import unpacked

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
READY = ".cmm-{}[data-state=ready]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, book: Path, chapter: str, widget: str) -> Page:
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    tab.set_default_timeout(120_000)
    tab.on("pageerror", lambda error: pytest.fail(f"{chapter}: {error}"))
    tab.on("dialog", lambda dialog: pytest.fail(f"{chapter}: a script of a name was run: {dialog.message}"))
    tab.goto((book / "html" / "chapters" / f"{chapter}.html").as_uri())
    tab.wait_for_selector(READY.format(widget))
    return tab


def changed_page(book: Path, chapter: str, widget: str, data: Any, place: Path) -> str:
    """The address of a page of the book whose widget carries other data."""
    page = (book / "html" / "chapters" / f"{chapter}.html").read_text()
    text = json.dumps(data).replace("<", "\\u003c")
    pattern = rf'(<script class="cmm-data-{widget}"[^>]*>).*?(</script>)'
    page = re.sub(pattern, lambda found: found[1] + text + found[2], page, flags=re.DOTALL)
    style = (book / "html" / "_static").as_uri()
    (place / f"{widget}.html").write_text(page.replace("../_static", style))
    return (place / f"{widget}.html").as_uri()


def carried(book: Path, chapter: str, widget: str) -> Any:
    page = (book / "html" / "chapters" / f"{chapter}.html").read_text()
    found = re.search(rf'<script class="cmm-data-{widget}"[^>]*>(.*?)</script>', page, re.S)
    return json.loads(found[1]) if found else None


# ---------------------------------------------------------------- the playground


@pytest.fixture(scope="module")
def playground(browser, default_book) -> Page:
    return opened(browser, default_book, "11_playground", "playground")


@pytest.fixture(scope="module")
def data(default_book) -> Any:
    return carried(default_book, "11_playground", "playground")


def computed(tab: Page) -> np.ndarray:
    """Class accuracies, when the page has computed them."""
    tab.wait_for_timeout(300)  # a control waits that its reader stops
    tab.wait_for_selector(READY.format("playground"))
    return np.array(tab.evaluate("document.querySelector('.cmm-playground').accuracy"), float)


def move(tab: Page, control: str, value: float) -> None:
    slider = tab.locator(".cmm-playground label", has_text=control).locator("input[type=range]")
    slider.evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value)


def test_with_the_settings_of_the_run_it_has_the_numbers_of_the_run(playground, default_run):
    accuracy = computed(playground)
    row = pd.read_csv(default_run / "ensembles.csv", index_col="name").loc["enriched_cmm"]
    assert accuracy.mean() == pytest.approx(row["overall"], abs=0.005)  # classes of equal size; eight bits a number
    assert np.sort(accuracy)[:10].mean() == pytest.approx(row["worst_10"], abs=0.02)
    assert "settings of the run" in playground.locator(".cmm-playground .cmm-said").first.inner_text()


def followed(tab: Page) -> dict[int, list[str]]:
    """k -> the cells of the base prompt's worst k: name, base prompt, now, change."""
    found = tab.locator(".cmm-playground tr", has_text="base prompt's worst").all()
    cells = [row.locator("th, td").all_inner_texts() for row in found]
    return {int(re.search(r"worst (\d+)", name)[1]): [name, *numbers] for name, *numbers in cells}  # type: ignore[index]


def in_percent(cell: str) -> float:
    return float(cell.replace("\u2212", "-").removesuffix("\u00a0%")) / 100


def test_the_base_prompts_worst_classes_are_those_of_the_run_and_are_followed(playground, default_run):
    playground.get_by_role("button", name="as in the run").click()
    computed(playground)
    table = pd.read_csv(default_run / "ensembles.csv", index_col="name")
    assert set(followed(playground)) == {10, 20}
    for k, (name, before, after, change) in followed(playground).items():
        for method, cell in (("base", before), ("enriched_cmm", after)):
            assert in_percent(cell) == pytest.approx(table.loc[method, f"base_worst_{k}"], abs=0.02)
        assert in_percent(change) == pytest.approx(in_percent(after) - in_percent(before), abs=0.0011)
        n = int(table.loc["base", f"base_worst_count_{k}"])
        assert (f"({n} classes, as some tie)" in name) == (n > k)
    assert "the same classes in both columns" in playground.locator(".cmm-playground").inner_text()


SETTINGS = {
    "no descriptions": {"described": 0},
    "all described, high temperature": {"described": 120, "temperature": 1.0},
    "equal weights": {"weights": False},
    "CMM alone": {"balanced": False},
    "prior matching": {"strength": 1.0},
    "one template and descriptions": {"templates": [0]},
    "one template, half of the bias": {"templates": [0], "described": 0, "strength": 0.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_it_computes_what_the_library_computes(playground, data, settings):
    playground.get_by_role("button", name="as in the run").click()
    if "described" in settings:
        move(playground, "suspects described", settings["described"])
    if "temperature" in settings:
        move(playground, "temperature", np.log10(settings["temperature"]))
    if "strength" in settings:
        move(playground, "strength", settings["strength"])
    for name, text in (("weights", "weights by CMM"), ("balanced", "balance of")):
        if name in settings:
            playground.locator(".cmm-playground label", has_text=text).locator("input").uncheck()
    if "templates" in settings:
        playground.locator(".cmm-playground details").evaluate("details => { details.open = true; }")
        playground.get_by_role("button", name="only the first").click()
    expected = by_the_library(data, **settings)
    assert np.abs(computed(playground) - expected).mean() < 0.001  # another order of sums may turn a tie
    shown, sets = followed(playground), {one["k"]: one["classes"] for one in data["base_worst"]}
    assert {k: in_percent(cells[2]) for k, cells in shown.items()} == pytest.approx(
        {k: expected[classes].mean() for k, classes in sets.items()}, abs=0.006
    )


def with_the_base_prompt(data: Any) -> np.ndarray:
    labels = torch.from_numpy(np.frombuffer(base64.b64decode(data["labels"]), "<u2").astype(np.int64))
    prediction = F.predict(unpacked(data["images"]), unpacked(data["base"]))
    return F.class_accuracy(prediction, labels, len(data["names"])).value.numpy()


def listed(tab: Page) -> list[tuple[str, list[tuple[str, ...]]]]:
    """What is above each list of movers, and its rows."""
    tables = tab.locator(".cmm-playground .cmm-names").all()
    return [
        (
            table.locator("caption").inner_text(),
            [tuple(row.locator("th, td").all_inner_texts()) for row in table.locator("tbody tr").all()],
        )
        for table in tables
    ]


@pytest.mark.parametrize("settings", [{}, {"templates": [0], "described": 0}], ids=["as in the run", "one template"])
def test_who_gains_and_who_loses_most_is_listed(playground, data, settings):
    playground.get_by_role("button", name="as in the run").click()
    if settings:
        move(playground, "suspects described", 0)
        playground.locator(".cmm-playground details").evaluate("details => { details.open = true; }")
        playground.get_by_role("button", name="only the first").click()
    now, base = computed(playground), with_the_base_prompt(data)
    found = listed(playground)
    assert len(found) == 2
    for (title, few), sign, verb in zip(found, (1, -1), ("gain", "lose"), strict=True):
        change = sign * (now - base)
        order = [c for c in np.argsort(-change, kind="stable") if change[c] > 0]
        assert [name for name, _ in few] == [data["names"][c] for c in order[:5]]
        shown = [[in_percent(cell) for cell in cells.split(" → ")] for _, cells in few]
        assert np.abs(np.array(shown) - [(base[c], now[c]) for c in order[:5]]).max(initial=0) < 0.0051
        said = {0: f"No class {verb}s", 1: f"{verb.title()}: 1 class"}.get(len(order))
        many = len(order) > 5
        said = said or (f"the {len(order)} classes that {verb}" if many else f"{verb.title()}: {len(order)} classes")
        assert title.endswith(said)


def test_a_class_of_the_list_is_opened_by_keyboard_and_the_list_keeps_its_reader(playground, data):
    playground.get_by_role("button", name="as in the run").click()
    computed(playground)
    button = playground.locator(".cmm-playground .cmm-names").first.locator("button").nth(1)
    name = button.inner_text()
    button.focus()
    playground.keyboard.press("Enter")
    assert playground.locator(".cmm-playground .cmm-title").inner_text() == name
    assert playground.locator(".cmm-playground select").input_value() == str(data["names"].index(name))
    assert button.get_attribute("aria-pressed") == "true"
    move(playground, "strength", 0.05)
    computed(playground)
    assert playground.evaluate("document.activeElement.closest('.cmm-names') !== null")
    assert playground.locator(".cmm-playground .cmm-title").inner_text() == name
    playground.locator(".cmm-playground select").select_option(label=data["names"][0])
    pressed = playground.locator(".cmm-playground .cmm-names button[aria-pressed=true]").all_inner_texts()
    assert pressed in ([], [data["names"][0]])


def test_numbers_of_an_earlier_move_are_dim_and_what_is_overtaken_is_abandoned(browser, default_book, data, tmp_path):
    images = data["images"]
    times = max(1, 4000 // images["rows"])  # so that a computation takes a while on any computer
    repeated = {
        key: base64.b64encode(base64.b64decode(text) * times).decode()
        for key, text in {"codes": images["codes"], "labels": data["labels"]}.items()
    }
    many = {
        **data,
        "labels": repeated["labels"],
        "images": {**images, "codes": repeated["codes"], "rows": times * images["rows"]},
    }
    tab = browser.new_page()
    tab.set_default_timeout(120_000)
    tab.goto(changed_page(default_book, "11_playground", "playground", many, tmp_path))
    tab.wait_for_selector(READY.format("playground"))
    results = tab.locator(".cmm-playground .cmm-columns")
    assert results.get_attribute("aria-busy") == "false"
    tab.evaluate(RECORD)
    move(tab, "suspects described", 110)
    assert results.get_attribute("aria-busy") == "true"
    tab.wait_for_function(OPACITY + " < 0.9")
    tab.wait_for_selector(".cmm-playground[data-state=computing]")
    move(tab, "suspects described", 0)
    now = computed(tab)
    assert results.get_attribute("aria-busy") == "false"
    tab.wait_for_function(OPACITY + " === 1")
    assert tab.locator(".cmm-playground").get_attribute("data-overtaken") == "1"
    assert tab.evaluate("window.shown") == 1
    assert np.abs(now - by_the_library(data, described=0)).mean() < 0.001
    tab.close()


OPACITY = "Number(getComputedStyle(document.querySelector('.cmm-playground .cmm-columns')).opacity)"
RECORD = """() => {
  window.shown = 0;
  new MutationObserver(() => { window.shown += 1; })
    .observe(document.querySelector('.cmm-playground'), { attributes: true, attributeFilter: ['data-base'] });
}"""


def by_the_library(
    data: Any,
    described: int | None = None,
    temperature: float | None = None,
    weights: bool = True,
    balanced: bool = True,
    strength: float = 0.0,
    templates: list[int] | None = None,
) -> np.ndarray:
    images, n_classes = unpacked(data["images"]), len(data["names"])
    labels = torch.from_numpy(np.frombuffer(base64.b64decode(data["labels"]), "<u2").astype(np.int64))
    classes, n_templates = torch.tensor(data["classes"]), len(data["classes"]) - data["described"]
    place = torch.arange(len(classes))
    groups = torch.where(place < n_templates, TEMPLATE, DESCRIPTION)
    asked = data["suspects"][: data["n_described"] if described is None else described]
    prompts = list(range(len(data["prompts"]))) if templates is None else templates
    kept = torch.where(
        groups == TEMPLATE,
        torch.isin(place // n_classes, torch.tensor(prompts)),
        torch.isin(classes, torch.tensor(asked)),
    )
    candidates = Candidates(unpacked(data["candidates"]), classes, groups, n_classes).where(kept)
    alone = candidates.only(TEMPLATE)
    others = F.combine_candidates(alone, F.uniform_weights(alone))
    settings = {"balanced": balanced, "temperature": temperature or data["temperature"]}
    texts = F.combine_candidates(candidates, F.uniform_weights(candidates, balanced=balanced))
    if weights:
        texts = F.cmm_ensemble(images, candidates, others, data["scale"], **settings)
    prediction = F.fit_prior_matching(images, texts, data["scale"], strength=strength).predict(images)
    return F.class_accuracy(prediction, labels, n_classes).value.numpy()


def test_one_class_is_shown_with_its_texts_and_what_it_is_taken_for(playground, data):
    playground.get_by_role("button", name="as in the run").click()
    computed(playground)
    described = data["suspects"][0]
    playground.locator(".cmm-playground select").select_option(str(described))
    shown = playground.locator(".cmm-playground .cmm-card").inner_text()
    assert data["names"][described] in shown
    assert "heaviest texts" in shown
    assert re.search(r"\d\s%", shown)


# ---------------------------------------------------------------- the explorer


def rows(tab: Page) -> list[str]:
    return tab.locator(".cmm-explorer tbody").first.locator("tr td:first-child").all_inner_texts()


def test_the_explorer_filters_sorts_and_opens_a_class_by_keyboard(browser, default_book):
    tab, data = (
        opened(browser, default_book, "10_every_class", "explorer"),
        carried(default_book, "10_every_class", "explorer"),
    )
    names = [row["name"] for row in data["classes"]]
    assert rows(tab)[0] == min(data["classes"], key=lambda row: row["accuracy"])["name"]
    assert sorted(rows(tab)) == sorted(names)
    tab.get_by_role("columnheader", name="CMM").get_by_role("button").focus()
    tab.keyboard.press("Enter")
    by_cmm = [row["name"] for row in sorted(data["classes"], key=lambda row: row["rank"])]
    assert rows(tab) == by_cmm
    tab.keyboard.press("Enter")
    assert rows(tab)[0] == by_cmm[-1]
    word = names[0].split()[-1]
    tab.get_by_role("searchbox", name="filter by name").fill(word)
    expected = {row["name"] for row in data["classes"] if word in f"{row['name']} {row['plain']}"}
    assert set(rows(tab)) == expected
    assert 0 < len(expected) < len(names)
    tab.locator(".cmm-explorer tbody button").first.focus()
    tab.keyboard.press("ArrowDown")
    second = tab.evaluate("document.activeElement.textContent")
    assert second == rows(tab)[1]
    tab.keyboard.press("Enter")
    assert tab.locator(".cmm-explorer .cmm-title").inner_text() == second
    assert tab.evaluate("document.activeElement.textContent") == second
    tab.close()


def test_a_thousand_classes_are_sorted_at_once(browser, default_book, tmp_path):
    """At once: the rows stand in the new order before the click has returned."""
    data = carried(default_book, "10_every_class", "explorer")
    one = data["classes"][0]
    many = [
        {**one, "name": f"class {i}", "cmm": ((i * 389) % 1000) / 1000, "rank": i + 1, "pictures": []}
        for i in range(1000)
    ]
    tab = browser.new_page(viewport={"width": 1300, "height": 800})
    tab.goto(changed_page(default_book, "10_every_class", "explorer", {**data, "classes": many}, tmp_path))
    tab.wait_for_selector(READY.format("explorer"))
    first = "document.querySelector('.cmm-explorer tbody button').textContent"
    assert tab.evaluate(f"(document.querySelectorAll('.cmm-explorer thead button')[3].click(), {first})") == "class 0"
    assert len(rows(tab)) == 1000
    boxes = places(tab)
    assert boxes["rows"]["height"] < 300  # it scrolls in its own box
    assert boxes["chart"]["top"] + boxes["chart"]["height"] - boxes["explorer"]["top"] < 752
    tab.close()


def places(tab: Page) -> Any:
    """Where the parts of the explorer stand, in pixels of the page."""
    return tab.evaluate(PLACES)


PLACES = """() => Object.fromEntries(Object.entries({
  explorer: '.cmm-explorer', rows: '.cmm-explorer .cmm-rows', chart: '.cmm-explorer svg',
  title: '.cmm-explorer .cmm-title',
  first: '.cmm-explorer .cmm-pictures figure:nth-child(1)', second: '.cmm-explorer .cmm-pictures figure:nth-child(2)',
  image: '.cmm-explorer .cmm-pictures img',
}).map(([name, selector]) => [name, document.querySelector(selector)?.getBoundingClientRect().toJSON() ?? null]))"""


def confused_class(data: Any) -> Any:
    """A class with a picture of its own and one of the class that it is taken for."""
    pictured = (row for row in data["classes"] if row["taken"] and len(row["pictures"]) > 1)
    return next(row for row in pictured if data["pictures"][row["pictures"][1]]["name"] == row["taken"])


def at_a_class(browser, book, width: int) -> tuple[Any, Any, Any]:
    """The explorer at a confused class, on a screen so wide: the tab, the class, and where everything lies."""
    tab = opened(browser, book, "10_every_class", "explorer")
    row = confused_class(carried(book, "10_every_class", "explorer"))
    tab.set_viewport_size({"width": width, "height": 800})
    tab.locator(".cmm-explorer tbody button", has_text=re.compile(f"^{re.escape(row['name'])}$")).click()
    return tab, row, places(tab)


def test_table_chart_and_pictures_of_a_class_are_on_one_screen(browser, default_book):
    tab, row, boxes = at_a_class(browser, default_book, 1300)
    head = 48  # pixels of the theme's bar, which stays
    for part in ("rows", "chart", "title", "first", "second"):
        assert boxes[part]["bottom"] - boxes["explorer"]["top"] <= 800 - head, part
    assert boxes["second"]["left"] > boxes["first"]["right"]
    assert boxes["second"]["top"] == boxes["first"]["top"]
    assert min(boxes["image"]["width"], boxes["image"]["height"]) >= 160
    names = tab.locator(".cmm-explorer .cmm-pictures b").all_inner_texts()
    assert names[:2] == [row["name"], row["taken"]]
    tab.close()


def test_on_a_telephone_the_pictures_are_as_large_and_nothing_scrolls_sideways(browser, default_book):
    tab, _, boxes = at_a_class(browser, default_book, 390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert boxes["image"]["width"] >= 160
    assert boxes["second"]["top"] == boxes["first"]["top"]
    assert boxes["rows"]["bottom"] <= boxes["title"]["top"] < boxes["chart"]["top"]
    tab.close()


def test_hostile_names_and_answers_stay_text(browser, many_book):
    tab = opened(browser, many_book, "10_every_class", "explorer")
    assert {" ".join(name.split()) for name in HOSTILE} <= {" ".join(row.split()) for row in rows(tab)}
    assert tab.locator(".cmm-explorer :is(script, b, img[src=x])").count() == 0
    tab.close()
