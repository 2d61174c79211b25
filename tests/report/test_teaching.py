"""What a class gets: exercises and questions on the book's pages, the pages for teachers, slides, a zip file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from finished_runs import Page, cmm, html_pages, write_embeddings

from cmmlib.report import slides
from cmmlib.report.formatting import percent

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


def test_the_minutes_of_the_lesson_are_ninety_without_a_gap():
    spans = re.findall(r"^\| (\d+) to (\d+) \|", (ROOT / "book" / "teach" / "lesson.md").read_text(), re.M)
    assert [start for start, _ in spans] == ["0", *(end for _, end in spans[:-1])]
    assert spans[-1][1] == "90"


@pytest.mark.parametrize("name", ["assignment", "projects"])
def test_the_points_of_a_marking_guide_make_a_hundred(name):
    guide = (ROOT / "book" / "teach" / f"{name}.md").read_text().partition("## Marking guide")[2]
    assert sum(map(int, re.findall(r"^\| [^|]+ \| (\d+) \|", guide, re.M))) == 100


def test_the_assignment_gives_points_for_each_of_its_exercises():
    text = (ROOT / "book" / "teach" / "assignment.md").read_text()
    first_week = text.partition("## First week")[2].partition("## Second week")[0]
    assert len(named("exercises", first_week)) == 14
    assert "two for each of the fourteen" in text


def test_the_pages_stand_in_the_book_and_lead_to_its_slides(labelled_book, unlabelled_book):
    for folder in (labelled_book, unlabelled_book):
        for path in TEACH:
            assert (folder / "html" / "teach" / f"{path.stem}.html").is_file()
        links = [a.get("href") or "" for a in Page(folder / "html" / "teach" / "lesson.html").all("a")]
        (slides,) = (link for link in links if link.endswith("slides.html"))
        assert (folder / "html" / "teach" / slides).resolve().is_file()


# ---------------------------------------------------------------- slides


def test_slides_have_every_figure_and_the_sentences_of_the_run(labelled, tmp_path):
    said = cmm("slides", labelled, "--out", tmp_path / "out")
    assert (said.code, said.out) == (0, f"{tmp_path / 'out' / 'slides.html'}\n"), said.err
    page = Page(tmp_path / "out" / "slides.html")
    figures = [path.stem for path in (labelled / "figures").glob("*.svg")]
    assert len(page.all("figure")) == len(page.all("img")) == len(figures)
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    overall = percent(json.loads((labelled / "results.json").read_text())["accuracy"]["overall"])
    assert f"In this run: the classifier is right on {overall} of the images" in page.text
    assert page.text.count("Predict, then run") >= 6
    assert len(page.all("summary")) == 9 * len(CHAPTERS)


def test_slides_ask_for_nothing_and_names_that_are_markup_stay_text(hostile):
    text = slides.html(hostile)
    loaded = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert loaded
    assert {re.sub("[,#].*", "", address) for address in loaded} <= {
        "",
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    }
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "default-src 'none'" in text


def test_slides_of_what_is_no_run_or_into_it_are_refused(labelled, tmp_path):
    assert "is no finished run" in cmm("slides", tmp_path, "--out", tmp_path / "out").err
    assert "overlaps" in cmm("slides", labelled, "--out", labelled / "slides").err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert cmm("slides", labelled, "--out", tmp_path / "mine").code == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert not (tmp_path / "out").exists()
    assert not (labelled / "slides").exists()


TURN = """<script>
const press = (key, shiftKey) => dispatchEvent(new KeyboardEvent("keydown", {key, shiftKey, cancelable: true}));
const seen = [["ArrowRight"], ["ArrowRight"], ["PageUp"], ["End"], ["ArrowRight"], ["Home"], ["ArrowRight", true]].map(
  ([key, shift]) => { press(key, shift); return document.activeElement.id; });
document.querySelector("main").replaceChildren(JSON.stringify(seen));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_keys_turn_the_slides(labelled, tmp_path):
    text = slides.html(labelled)
    last = text.count("<section") - 1
    page = tmp_path / "slides.html"
    page.write_text(text.replace("scroll-behavior: smooth", "").replace("</body>", f"{TURN}</body>"))
    done = subprocess.run([CHROMIUM or "", *FLAGS, page.as_uri()], capture_output=True, text=True, check=True)
    seen = re.search(r"<main>(\[.*?\])</main>", done.stdout, re.S)
    assert seen, done.stdout[-2000:]
    assert json.loads(seen[1]) == ["s1", "s2", "s1", f"s{last}", f"s{last}", "s0", "s0"]


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
    assert not [name for name in names if "solutions/" in name or (name.endswith(".zip") and "notebooks/" in name)]
    assert "book/_static/slides.html" in names
    assert {"notebooks/01_phenomenon.ipynb", "notebooks/data/synthetic.npz"} <= set(names)
    for named_file in re.findall(r"^(?:book|notebooks)/\S*", (tmp_path / "README.txt").read_text(), re.M):
        assert (tmp_path / named_file).exists(), named_file


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
