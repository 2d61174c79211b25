"""What a class gets: exercises and questions on the book's pages, the pages for teachers, slides, a zip file."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from finished_runs import Page, cmm, html_pages, write_embeddings
from playwright.sync_api import sync_playwright

from cmmlib.report import classroom as packing
from cmmlib.report import lesson, slides
from cmmlib.report.chapter_slides import of_chapter
from cmmlib.report.chapters import read_notebook
from cmmlib.report.formatting import percent
from cmmlib.report.glossary import definitions
from cmmlib.report.staging import keep_blocks

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom")
FLAGS = (*FLAGS, "--allow-file-access-from-files", "--virtual-time-budget=20000")
CHAPTERS = [f"{number:02d}" for number in (0, 1, 2, 3, 4, 5, 7, 8, 9)]  # of a study of embeddings


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_answers_and_hints_unfold_without_a_script(chapter, labelled_book):
    (page,) = (labelled_book / "html" / "chapters").glob(f"{chapter}_*.html")
    html = page.read_text()
    assert html.count("<summary>Hint</summary>") == html.count('<div class="exercise admonition"') > 0
    assert len(re.findall("<summary>[A-C]: ", html)) == 9
    assert len(re.findall("<details[ >]", html)) == html.count("</details>")
    assert "````" not in html  # of a directive that did not end


def test_a_book_of_a_study_without_labels_has_exercises_too(unlabelled_book):
    for page in (unlabelled_book / "html" / "chapters").glob("0[0-8]*.html"):
        assert '<div class="exercise admonition"' in Path(page).read_text(), page


# ---------------------------------------------------------------- the pages for teachers

TEACH = sorted((ROOT / "book" / "teach").glob("*.md"))
every_page = pytest.mark.parametrize("path", TEACH, ids=lambda path: path.stem)


def named(kind: str, text: str) -> set[str]:
    """Numbers of the exercises or questions that a text names: "exercises 1.1, 1.2 and 2.1"."""
    lists = re.findall(rf"{kind}s?:? ((?:\d\.\d(?:, | and | or )?)+)", text, re.I)
    return {number for found in lists for number in re.findall(r"\d\.\d", found)}


def asked(heading: re.Pattern[str] | str) -> set[str]:
    sources = [
        "".join(cell["source"])
        for path in (ROOT / "notebooks").glob("0*.ipynb")
        for cell in json.loads(path.read_text())["cells"]
    ]
    return {number for source in sources for number in re.findall(heading, source, re.M)}


@every_page
def test_what_a_page_names_exists(path):
    text = path.read_text()
    assert named("exercise", text) <= asked(r"^### Exercise (\d\.\d)")
    assert named("question", text) <= asked(r"^### Question (\d\.\d)")
    for command in re.findall(r"cmm (\w+)", text):
        assert cmm(command, "--help").code == 0, command
    sections = {title for path in (ROOT / "notebooks").glob("*.ipynb") for title in headings(path)}
    assert {title.strip("?") for title in re.findall(r"\*(How .+?|The price|Two curves|What .+?)\*", text)} <= sections


def headings(notebook: Path) -> list[str]:
    text = "\n".join("".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"])
    return [title.strip("?") for title in re.findall("^## (.+)$", text, re.M)]


def test_there_are_pages_and_they_name_much():
    assert {path.stem for path in TEACH} == {"assignment", "lesson", "mistakes", "projects"}
    text = "\n".join(path.read_text() for path in TEACH)
    assert len(named("exercise", text)) > 12
    assert len(named("question", text)) > 8
    assert len(re.findall(r"^## \d\. ", (ROOT / "book" / "teach" / "projects.md").read_text(), re.M)) >= 6


def test_the_plan_of_the_lesson_is_that_of_its_slides_ninety_minutes_without_a_gap():
    rows = re.findall(
        r"^\| (\d+ to \d+) \| (.+?) \| (.+) \|$", (ROOT / "book" / "teach" / "lesson.md").read_text(), re.M
    )
    assert [(minutes, title) for minutes, title, _ in rows] == [(p["minutes"], p["title"]) for p in lesson.plan()]
    spans = [minutes.split(" to ") for minutes, *_ in rows]
    assert [start for start, _ in spans] == ["0", *(end for _, end in spans[:-1])]
    assert spans[-1][1] == "90"
    for (_, _, what), part in zip(rows, lesson.plan(), strict=True):
        shown = {lesson.name_of(wanted) for wanted in part["slides"]}
        assert {f"question {number}" for number in named("question", what)} <= shown
        assert {f"exercise {number}" for number in named("exercise", what)} <= shown


@pytest.mark.parametrize("name", ["assignment", "projects"])
def test_the_points_of_a_marking_guide_make_a_hundred(name):
    guide = (ROOT / "book" / "teach" / f"{name}.md").read_text().partition("## Marking guide")[2]
    assert sum(map(int, re.findall(r"^\| [^|]+ \| (\d+) \|", guide, re.M))) == 100


def test_the_assignment_gives_points_for_each_of_its_exercises_and_has_their_chapters_read():
    text = (ROOT / "book" / "teach" / "assignment.md").read_text()
    first_week = text.partition("## First week")[2].partition("## Second week")[0]
    asked_for = named("exercises", first_week)
    assert len(asked_for) == 11
    assert "one for each of the eleven" in text
    assert {number[0] for number in asked_for} == {*re.findall(r"<../chapters/0(\d)_", first_week)}
    own, shared = re.findall(r"^- .*?xercises ((?:\d\.\d(?:, | and )?)+)", text, re.M)[:2]
    own, shared = ({*re.findall(r"\d\.\d", found)} for found in (own, shared))
    assert own | shared == asked_for
    assert not own & shared


def test_the_answers_that_the_assignment_gives_for_a_number_are_right():
    for n in range(1, 19):
        images, recognised = [10, 10 + n, 10, 70], [0, 5, 10, 63]
        accuracies = sorted(r / i for r, i in zip(recognised, images, strict=True))
        assert sum(recognised) / sum(images) == pytest.approx(78 / (100 + n))
        assert sum(accuracies[:2]) / 2 == pytest.approx(2.5 / (10 + n))
        margins = 0.30 - max(0.28 - n / 100, 0.10), 0.20 - 0.26
        assert margins == pytest.approx((0.02 + n / 100, -0.06))
        assert 0.8 * margins[0] + 0.2 * margins[1] == pytest.approx(0.004 + 0.008 * n)


@pytest.mark.parametrize("page", sorted((ROOT / "book").rglob("*.md")), ids=lambda page: page.stem)
def test_no_page_has_two_headings_of_one_name(page):
    text = keep_blocks(page.read_text(), {})
    titles = re.findall("^#+ (.+)$", re.sub("^```.*?^```", "", text, flags=re.M | re.S), re.M)
    assert len(titles) == len({*titles})


def test_the_pages_stand_in_the_book_and_lead_to_its_slides(labelled_book, unlabelled_book):
    for folder in (labelled_book, unlabelled_book):
        for path in TEACH:
            assert (folder / "html" / "teach" / f"{path.stem}.html").is_file()
        links = [a.get("href") or "" for a in Page(folder / "html" / "teach" / "lesson.html").all("a")]
        for name in (slides.FILE, slides.LESSON):
            (found,) = (link for link in links if link.endswith(f"_static/{name}"))
            assert (folder / "html" / "teach" / found).resolve().is_file()


# ---------------------------------------------------------------- slides

PAPER = 5  # exercises that need no computer


def deck(run: Path, name: str) -> list[str]:
    """The slides of a deck, each its HTML."""
    return re.findall("<section .*?</section>", slides.pages(run)[name], re.S)


def titles(deck: list[str]) -> list[str]:
    return [re.sub("<[^>]*>", "", re.findall("<h[12].*?</h[12]>", slide)[0]) for slide in deck]


def test_slides_have_every_figure_and_the_sentences_of_the_run(labelled, tmp_path):
    said = cmm("slides", labelled, "--out", tmp_path / "out")
    assert (said.code, said.out) == (0, f"{tmp_path / 'out' / 'slides.html'}\n"), said.err
    page = Page(tmp_path / "out" / "slides.html")
    figures = [path.stem for path in (labelled / "figures").glob("*.png")]
    assert len(page.all("figure")) == len(page.all("img")) == len(figures)
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    overall = percent(json.loads((labelled / "results.json").read_text())["accuracy"]["overall"])
    assert f"In this run: the classifier is right on {overall} of the images" in page.text
    assert page.text.count("Predict, then run") >= 6
    assert len(page.all("summary")) == 9 * len(CHAPTERS) + 2 * PAPER


def test_slides_have_every_table_under_its_title(labelled):
    shown, wanted = "".join(deck(labelled, slides.FILE)), []
    for path in sorted((labelled / "chapters").glob("0*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            source, marks = "".join(cell["source"]), {*cell["metadata"].get("tags", [])}
            if "pages.study_table(" not in source and not marks & {"exercise", "solution", "check"}:
                outputs = ("".join(output.get("data", {}).get("text/html", "")) for output in cell.get("outputs", []))
                wanted += [title for html in outputs for title in re.findall(r"<b>Table\.</b> ([^<]+)</p>", html)]
    assert len(wanted) > 10
    for title in wanted:
        assert f">{title}</p><table" in shown, title


def test_every_slide_shows_something_and_numbers_are_addresses(labelled):
    shown = deck(labelled, slides.FILE)
    assert [re.findall('id="([^"]+)"', slide)[0] for slide in shown] == [str(n + 1) for n in range(len(shown))]
    for slide in shown:
        assert re.sub("<[^>]*>", "", slide.partition("</h")[2]).strip("12> \n") or "<img" in slide, slide
    chapters = [n for n, slide in enumerate(shown) if n and 'class="chapter"' in slide]
    assert all(after - before > 1 for before, after in itertools.pairwise([*chapters, len(shown)]))
    assert "In this run: " not in titles(shown)


def test_the_decks_are_called_by_model_and_data_and_lead_to_each_other(labelled):
    study = {row["what"]: row["value"] for row in json.loads((labelled / "results.json").read_text())["study"]}
    for name, other in ((slides.LESSON, slides.FILE), (slides.FILE, slides.LESSON)):
        text = slides.pages(labelled)[name]
        title = re.findall("<title>(.*)</title>", text)[0]
        assert study["data set"] in title
        assert labelled.name not in title
        assert f'<a href="{other}">' in text


def planned() -> list[str]:
    return [name for part in lesson.plan() for wanted in part["slides"] if (name := lesson.name_of(wanted))]


def test_every_slide_that_the_lesson_names_is_in_a_notebook_and_every_word_in_the_glossary():
    notebooks = {path.name[:2]: read_notebook(path) for path in (ROOT / "notebooks").glob("[01]*.ipynb")}
    known = {key for number, of in notebooks.items() for slide in of_chapter(of, number) for key in slide.keys}
    known |= {
        f"figure {name}"
        for of in notebooks.values()
        for cell in of.cells
        for name in re.findall(r'show_figure\(.*?"(\w+)"\)', cell.source, re.S)
    }
    sections = {f"section {n} {title}" for n, of in notebooks.items() for title in sections_of(of)}
    assert len(planned()) == len({*planned()}) > 20
    assert {*planned()} <= known | sections
    own = [wanted for part in lesson.plan() for wanted in part["slides"] if not isinstance(wanted, str)]
    assert {key for wanted in own for key in wanted} == {"slide", "title", "said", "words", "text", "table"}
    words = {word for wanted in own for word in wanted.get("words", [])}
    assert words <= {*definitions(ROOT / "book" / "glossary.md")}


def sections_of(notebook) -> list[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall("^## (.+)$", text, re.M)


def test_the_lesson_is_short_and_defines_and_predicts_before_it_shows(labelled):
    shown = deck(labelled, slides.LESSON)
    assert 25 <= len(shown) <= 36
    order = titles(shown)
    assert order[1] == "Question 0.1: what an average leaves room for"
    assert order[-1] == "One sentence"
    assert order.index("Three numbers and an interval") < order.index("Exercise 1.1: four classes on paper")
    assert order.index("Margin and CMM") < order.index("One class: CMM")
    assert order.index("One class: CMM") < order.index("Exercise 2.1: a margin and a CMM on paper")
    repairs = "The first repair on this run", "The second repair on this run"
    for figure in ("Average and tail", "The picture", "Does CMM know?", *repairs):
        place = max(n for n, title in enumerate(order) if title == figure)
        assert order[place - 1] == "Predict, then run", figure
    for number in ("1.1", "2.1"):
        (exercise,) = (slide for slide in shown if f"Exercise {number}" in slide)
        assert "<summary>Hint</summary>" in exercise
        assert "<summary>Solution</summary>" in exercise
    text = "".join(shown)
    assert "<math" in text
    assert "$" not in text
    assert "CMM orders the classes; it has no unit of accuracy" in text


def readable(slide: str) -> str:
    """What a slide says, without the line that names the part of the lesson."""
    return re.sub("<[^>]*>", "", re.sub('<p class="part">.*?</p>', "", slide))


def test_the_lesson_uses_no_word_of_the_glossary_that_it_has_not_explained(labelled):
    _, *shown = deck(labelled, slides.LESSON)
    told: set[str] = set()
    for slide in shown:
        told |= {word for words in re.findall("<dt>(.*?)</dt>", slide) for word in words.lower().split(", ")}
        told |= {word.lower() for word in re.findall("<em>(.*?)</em>", slide)}  # explained where it stands
        text = readable(slide)
        used = {word for word in definitions(ROOT / "book" / "glossary.md") if re.search(rf"\b{word}s?\b", text, re.I)}
        assert {word.lower() for word in used} - told <= {"auroc"}, text  # the sentence says in brackets what it is
    for other in ("CARPRT", "OTTER", "gaussians", "fitted prior"):
        assert other not in "".join(shown)


def test_every_figure_and_table_of_the_lesson_has_a_sentence(labelled):
    pictures = [slide for slide in deck(labelled, slides.LESSON) if "<figure" in slide or 'class="rows"' in slide]
    assert len(pictures) >= 8
    for slide in pictures:
        said = slide.partition('<div class="said">')[2]
        assert "In this run:" in said or "In the published numbers:" in said, slide[-800:]


def test_the_lesson_of_a_run_without_labels_lacks_what_needs_them(unlabelled):
    order = titles(deck(unlabelled, slides.LESSON))
    assert "Does CMM know?" not in order
    assert {"Margin and CMM", "Exercise 2.1: a margin and a CMM on paper", "What cannot be said"} <= {*order}


def test_slides_ask_for_nothing_and_names_that_are_markup_stay_text(hostile):
    for text in slides.pages(hostile).values():
        loaded = re.findall(r'\b(?:src|href)="([^"]*)"', text)
        assert loaded
        assert {re.sub("[,#].*", "", address) for address in loaded} <= {
            "",
            slides.FILE,
            slides.LESSON,
            "data:image/svg+xml;base64",
            "data:image/png;base64",
        }
        assert "<script>alert" not in text
        assert "default-src 'none'" in text
    assert "&lt;script&gt;alert" in slides.pages(hostile)[slides.FILE]


def test_slides_of_what_is_no_run_or_into_it_are_refused(labelled, tmp_path):
    assert "is no finished run" in cmm("slides", tmp_path, "--out", tmp_path / "out").err
    assert "overlaps" in cmm("slides", labelled, "--out", labelled / "slides").err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert cmm("slides", labelled, "--out", tmp_path / "mine").code == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert not (tmp_path / "out").exists()
    assert not (labelled / "slides").exists()


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def screen() -> Iterator[Callable[[Path], Any]]:
    """Opens a file in a window of a projector's size."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def show(path: Path) -> Any:
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(path.as_uri())
            return page

        yield show
        browser.close()


@pytest.fixture
def lesson_page(labelled, screen, tmp_path) -> Any:
    slides.write(labelled, tmp_path / "out")
    return screen(tmp_path / "out" / slides.LESSON)


@in_a_browser
def test_keys_turn_the_slides_and_the_address_follows(lesson_page):
    last = lesson_page.locator("section").count()
    for key, at in (
        ("ArrowRight", 2),
        ("PageDown", 3),
        ("PageUp", 2),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 1),
    ):
        lesson_page.keyboard.press(key)
        assert lesson_page.evaluate("[location.hash, document.activeElement.id]") == [f"#{at}", str(at)]
    lesson_page.keyboard.press("Shift+ArrowRight")
    for _ in range(9):
        lesson_page.keyboard.press("ArrowRight")
    assert lesson_page.evaluate("location.hash") == "#10"
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert lesson_page.evaluate(style) == "none"


@in_a_browser
def test_a_key_opens_and_closes_the_answers_of_a_slide(lesson_page):
    lesson_page.keyboard.press("ArrowRight")
    for n_open in (3, 0):
        lesson_page.keyboard.press("a")
        assert lesson_page.locator("details[open]").count() == n_open
    lesson_page.locator("summary").first.focus()
    lesson_page.keyboard.press("Enter")
    assert lesson_page.locator("details[open]").count() == 1


@in_a_browser
@pytest.mark.parametrize("name", [slides.FILE, slides.LESSON])
def test_every_slide_fits_a_projector_and_figures_are_large(name, labelled, screen, tmp_path):
    slides.write(labelled, tmp_path / "out")
    page = screen(tmp_path / "out" / name)
    too_much = "slides.filter(s => s.scrollHeight > s.clientHeight || s.scrollWidth > s.clientWidth).map(s => s.id)"
    assert page.evaluate(too_much) == []
    page.evaluate("for (const answer of document.querySelectorAll('details')) answer.open = true; slides.forEach(fit)")
    assert page.evaluate(too_much) == []
    heights = page.evaluate("[...document.images].map(image => image.getBoundingClientRect().height)")
    assert min(heights) > 0.5 * 720


@in_a_browser
def test_letters_of_the_lessons_figures_can_be_read_from_afar(lesson_page):
    scales = "[...document.images].map(i => [i.src, Math.min(i.width / i.naturalWidth, i.height / i.naturalHeight)])"
    drawings = [one for one in lesson_page.evaluate(scales) if "svg+xml" in one[0]]
    assert len(drawings) >= 6
    for address, scale in drawings:
        sizes = re.findall(r"font: (?:\w+ )*([\d.]+)px|font-size: ([\d.]+)px", unsealed(address))
        common = statistics.mode(float(a or b) for a, b in sizes)
        assert common * 4 / 3 * scale > 15


def unsealed(address: str) -> str:
    return base64.b64decode(address.partition("base64,")[2]).decode()


@in_a_browser
def test_the_lesson_is_printed_a_slide_a_page(lesson_page, tmp_path):
    lesson_page.pdf(path=tmp_path / "lesson.pdf", prefer_css_page_size=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "lesson.pdf").read_bytes()))
    assert pages == lesson_page.locator("section").count()


# ---------------------------------------------------------------- a class without a network


@pytest.fixture(scope="module")
def classroom(made_once, labelled, labelled_book) -> Path:
    """The folder that `cmm classroom` wrote."""

    def make(place: Path) -> None:
        data = write_embeddings(place / "synthetic.npz").removeprefix("embeddings:")
        said = cmm("classroom", labelled, "--out", place / "class", "--book", labelled_book, "--data", data)
        assert (said.code, said.out) == (0, f"{place / 'class' / 'classroom.zip'}\n"), said.err

    return made_once("classroom", make) / "class"


def test_the_zip_file_has_all_that_a_class_needs(classroom, tmp_path):
    assert (classroom / "solutions" / "01_phenomenon.ipynb").is_file()
    with zipfile.ZipFile(classroom / "classroom.zip") as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {path.name for path in tmp_path.iterdir()} == {"README.txt", "book", "notebooks"}
    assert not [name for name in names if name.endswith("_figures.zip")]
    assert not [name for name in names if "solutions/" in name or (name.endswith(".zip") and "notebooks/" in name)]
    assert {"book/_static/slides.html", "book/_static/lesson.html"} <= set(names)
    assert {"notebooks/01_phenomenon.ipynb", "notebooks/data/synthetic.npz"} <= set(names)
    assert not [path for path in tmp_path.rglob("*.html") if 'id="marking-guide"' in path.read_text()]
    assert (tmp_path / "README.txt").stat().st_mode & 0o444 == 0o444
    assert "venv/bin/jupyter" in (tmp_path / "README.txt").read_text()
    for named_file in re.findall(r"^(?:book|notebooks)/\S*", (tmp_path / "README.txt").read_text(), re.M):
        assert (tmp_path / named_file).exists(), named_file


def test_notebooks_that_a_page_offers_are_those_of_the_class():
    page = '<a href="../_downloads/0a/01_x.ipynb"></a><a href="../_downloads/1b/notebooks.zip"></a>'
    page += '<a href="../_downloads/2c/results.json"></a>'
    links = re.findall('"(.*?)"', packing.for_class(page, {"01_x.ipynb", "notebooks.zip"}))
    assert links == ["../../notebooks/01_x.ipynb", "../../notebooks/", "../_downloads/2c/results.json"]
    figures = ' · <a download="" href="../_downloads/3d/01_x_figures.zip"><code>figures.zip</code></a>'
    assert packing.for_class(f"<p>a table{figures}</p>", set()) == "<p>a table</p>"


def test_the_class_gets_no_marking_guide():
    guide = '<li><a href="#marking-guide">Guide</a></li><section id="marking-guide"><p>two points</p></section>'
    assert packing.for_class(f"<p>kept</p>{guide}", set()) == "<p>kept</p>"


def test_every_link_within_the_unpacked_book_leads_to_a_file(classroom, tmp_path):
    with zipfile.ZipFile(classroom / "classroom.zip") as archive:
        archive.extractall(tmp_path)
    for file in html_pages(tmp_path / "book"):
        page = Page(file)
        links = [a.get("href") or "" for a in (*page.all("a"), *page.all("link"))]
        links += [a.get("src") or "" for a in (*page.all("img"), *page.all("script"))]
        for link in (re.split("[#?]", link)[0] for link in links if not re.match(r"\w+:|#|$", link)):
            assert (file.parent / unquote(link)).exists(), (file.name, link)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_the_unpacked_book_opens_from_disk(classroom, tmp_path):
    with zipfile.ZipFile(classroom / "classroom.zip") as archive:
        archive.extractall(tmp_path)
    page = (tmp_path / "book" / "chapters" / "02_cmm.html").as_uri()
    done = subprocess.run([CHROMIUM or "", *FLAGS, page], capture_output=True, text=True, check=True)
    assert "<math" in done.stdout  # formulas are set
    assert "Question 2.1" in done.stdout


def test_a_class_keeps_its_zip_file_until_the_new_one_is_whole(
    classroom, labelled, labelled_book, tmp_path, monkeypatch
):
    place = tmp_path / "class"
    shutil.copytree(classroom, place, symlinks=True)
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    monkeypatch.setattr(packing, "_add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    data = classroom.parent / "synthetic.npz"
    said = cmm("classroom", labelled, "--out", place, "--book", labelled_book, "--data", data)
    assert (said.code, "no space left on device" in said.err) == (2, True), said.err
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_times_that_no_zip_file_can_hold_are_left_out(tmp_path):
    (old := tmp_path / "old.svg").write_text("<svg/>")
    os.utime(old, (0, 0))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        packing._add(archive, old, "old.svg")
    assert zipfile.ZipFile(tmp_path / "x.zip").read("old.svg") == b"<svg/>"


def test_a_class_is_not_packed_over_the_book(labelled, labelled_book):
    said = cmm("classroom", labelled, "--out", labelled_book / "class", "--book", labelled_book)
    assert (said.code, "overlaps" in said.err) == (2, True)
    assert not (labelled_book / "class").exists()


def test_slides_of_a_run_without_some_chapters_say_which(changed, tmp_path):
    said = cmm("slides", changed, "--out", tmp_path / "out")
    assert said.code == 0
    assert "chapters that did not run are not among the slides: 00_real_clip, 02_cmm, " in said.err
    assert "91_model_card" not in said.err  # which no slide is of


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--out", "file"), "file is no folder: choose one, or a new name"),
        (("--out", "mine"), "mine holds what cmm did not make"),
        (("--out", "file/class"), "/file): something else lies there"),
        (("--out", "class", "--book", "file"), "--book: file is a file: choose a folder"),
        (("--out", "class", "--book", "file/book"), "not a directory ("),
        (("--out", "class", "--data", "none.npz"), "--data: none.npz does not exist"),
    ],
)
def test_a_wrong_place_is_refused_before_the_book_is_built(wrong, said, labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    own = ("--data", write_embeddings(tmp_path / "synthetic.npz").removeprefix("embeddings:"))
    answer = cmm("classroom", labelled, *wrong, *(() if "--data" in wrong else own))
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "mine", "synthetic.npz"}
