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
    assert "settings of the run" in playground.locator(".cmm-playground .cmm-said").inner_text()


SETTINGS = {
    "no descriptions": {"described": 0},
    "all described, high temperature": {"described": 120, "temperature": 1.0},
    "equal weights": {"weights": False},
    "CMM alone": {"balanced": False},
    "prior matching": {"strength": 1.0},
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
        playground.locator(".cmm-playground summary").click()
        playground.get_by_role("button", name="only the first").click()
    expected = by_the_library(data, **settings)
    assert np.abs(computed(playground) - expected).mean() < 0.001  # another order of sums may turn a tie


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
    page = (default_book / "html" / "chapters" / "10_every_class.html").read_text()
    one, many = data["classes"][0], []
    many = [
        {**one, "name": f"class {i}", "cmm": ((i * 389) % 1000) / 1000, "rank": i + 1, "pictures": []}
        for i in range(1000)
    ]
    text = json.dumps({**data, "classes": many}).replace("<", "\\u003c")
    large = re.sub(
        r'(<script class="cmm-data-explorer"[^>]*>).*?(</script>)', lambda m: m[1] + text + m[2], page, flags=re.S
    )
    file = tmp_path / "many_classes.html"
    file.write_text(large)
    tab = browser.new_page()
    tab.goto(file.as_uri())
    tab.wait_for_selector(READY.format("explorer"))
    first = "document.querySelector('.cmm-explorer tbody button').textContent"
    assert tab.evaluate(f"(document.querySelectorAll('.cmm-explorer thead button')[3].click(), {first})") == "class 0"
    assert len(rows(tab)) == 1000
    tab.close()


def test_hostile_names_and_answers_stay_text(browser, many_book):
    tab = opened(browser, many_book, "10_every_class", "explorer")
    assert {" ".join(name.split()) for name in HOSTILE} <= {" ".join(row.split()) for row in rows(tab)}
    assert tab.locator(".cmm-explorer :is(script, b, img[src=x])").count() == 0
    tab.close()
