"""Runs and books that several test modules look at: each is made once a session, by all processes of pytest-xdist."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from conftest import write_images
from forked_commands import COMMAND, forking
from PIL import Image
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.blazon import classes
from cmmlib.cli import _exit_code
from cmmlib.evaluation import bootstrap, evaluation, prior_shift, tables
from cmmlib.evaluation.corrections import fit_corrections
from cmmlib.evaluation.methods import MethodResult, compare_methods, weighted_ensemble
from cmmlib.functional.candidates import Candidates
from cmmlib.report import book, kernels, pages, plots
from cmmlib.report.execution import applies
from cmmlib.study import enrich
from cmmlib.study.run import Run

CMM = Path(sys.executable).with_name("cmm")
DOCUMENT = (Path(__file__).parents[1] / "book" / "results.md").read_text()
# What a class may be called by somebody who means no good, or by nobody who thought of markup.
HOSTILE = [
    "<script>alert(1)</script>",
    "=1+$x$",  # to a spreadsheet a formula
    "{{ overall }} {doc}`index`",
    "a|b",
    "\"quotes\" & 'ticks' <b>",
    "fox \N{FOX FACE}",
    "long " * 40,
    r"$\frac{",
    r"back\slash",
    "`code`",
    "<img src=x onerror=alert(1)>",
    "*star* [link](http://example.org)",
]
HOSTILE_PROMPTS = ["@<script>alert(1)</script> {}", r"$p$ | {doc}`index` \(x\)"]
# The clone in which the gate, which sets this, has just made the default study and its book. Copies of both go through
# the same commands, which make again what was lost or made by other code; the clone's own are only read.
MADE = os.environ.get("CMM_MADE_BOOK")


@dataclass(frozen=True)
class Said:
    """What a call of `cmm` came to."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run folder that `cmm run` printed."""
        assert self.code == 0, self.err
        return Path(self.out.splitlines()[-1])


def cmm(*arguments: object) -> Said:
    """`cmm` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _exit_code([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def write_embeddings(file: Path, **changes: object) -> str:
    """Write the synthetic embeddings with some arrays changed (None drops one); returns the study's `dataset`."""
    arrays = {key: value for key, value in {**synthetic_arrays(), **changes}.items() if value is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return f"embeddings:{file}"


def small_chapter(folder: Path, *cells: str) -> Path:
    """A folder of notebooks that holds one chapter: the parameters and these cells."""
    folder.mkdir()
    write_chapter(folder / "01_phenomenon.ipynb", *cells)
    return folder


def write_chapter(file: Path, *cells: str) -> None:
    parameters = nbformat.v4.new_code_cell(Study.parameters_cell(), metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(notebook, file)


def read_through(run: Run, chapter: Path, by_tags: bool = True, figures: bool = True) -> list[str]:
    """Run a chapter's cells in this process, where a warning is an error; returns the sentences that they show.

    Figures are drawn, not kept (without `figures` they are not even made); tables are made, not shown. What the chapter
    records goes to the run's folder. Without `by_tags` every cell is run, as "Run all" does in Jupyter, which does not
    know the tags.
    """
    said: list[str] = []

    def draw(_, figure, name):
        if figures:
            assert figure.get_label(), name
            figure.draw_without_rendering()
            plt.close(figure)

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(pages, "show_figure", draw)
        for name in () if figures else plots.__all__:
            patch.setattr(plots, name, lambda *_, **__: None)
        patch.setattr(pages, "display_markdown", said.append)
        patch.setattr("IPython.display.display", lambda *_, **__: None)
        names: dict[str, object] = {}
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code" and (not by_tags or applies(cell, run.conditions)):
                exec(cell.source, names)
                if "parameters" in cell.metadata.get("tags", []):
                    names.update(run.study.model_dump())
    return said


class Page(HTMLParser):
    """A page's elements with their attributes, its text, and the text of its scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        {"script": self.scripts, "style": []}.get(self._inside, self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def html_pages(root: Path) -> list[Path]:
    return [page for page in sorted(root.rglob("*.html")) if "_static" not in page.parts]


def opened(dataset: str, **parameters: Any) -> Run:
    return open_run(Study.of({"dataset": dataset, **parameters}))


def run_of(*classnames: str, pictures: Any = None) -> Run:
    """An unlabelled run of these classes; every image and text is one unit vector of its own."""
    x = torch.eye(len(classnames))
    features = {"image_features": x, "base_text_features": x, "text_features": x[None]}
    names = {"classnames": list(classnames), "prompts": ["{}"], "base_prompt": "{}"}
    study, none = Study.of({"dataset": "embeddings:none.npz"}), {"labels": None, "backbone": None}
    return Run(study, "none", Path("none"), logit_scale=10.0, pictures=pictures, **features, **names, **none)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def strict_json(path: Path) -> Any:
    """The file as plain JSON: no NaN, no Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path.name} holds {word}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def documented(section: str) -> dict[str, str]:
    """Name -> meaning of every field or column in a table of results.md."""
    text = DOCUMENT.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", text, re.M)
    return {name: meaning for names, meaning in rows for name in re.findall("`(.+?)`", names)}


def words(meaning: str) -> list[str]:
    return re.findall("`(.+?)`", meaning)


def write_many(folder: Path) -> str:
    """240 small images in 4 classes: coloured noise, each class around a colour of its own."""
    random = np.random.default_rng(0)
    for n in range(240):
        place = folder / f"colour_{n % 4}"
        place.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (32, 32, 3)) * 0.9 + random.integers(0, 26, 3)
        Image.fromarray(noise.astype(np.uint8)).save(place / f"{n:03d}.png")
    return f"folder:{folder}"


@pytest.fixture
def synthetic(tmp_path) -> Run:
    """An opened run of the synthetic embeddings, with labels."""
    return opened(write_embeddings(tmp_path / "x.npz"), out=str(tmp_path / "runs"))


def near_texts(run: Run, sizes: dict[int, int]) -> dict[int, torch.Tensor]:
    """Made-up descriptions: so many vectors around the class's text."""
    width = run.base_text_features.shape[1]
    vectors = {c: run.base_text_features[c] + 0.5 * unit(k, width, seed=c) for c, k in sizes.items()}
    return {c: torch.nn.functional.normalize(v, dim=1) for c, v in vectors.items()}


def by_name(found: list[MethodResult]) -> dict[str, MethodResult]:
    assert len({contender.name for contender in found}) == len(found)
    return {contender.name: contender for contender in found}


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made_once(shared_folder) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)`: a folder that `make` fills, shared by the processes of pytest-xdist, as is its cache."""

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place = shared_folder / name
        with open(shared_folder / f"{name}.lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "made").exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                patch.setenv("CMM_CACHE", str(shared_folder / "cache"))
                make(place)
                (place / "made").touch()
        return place

    return folder


@pytest.fixture
def shared_cache(shared_folder, own_cache, monkeypatch) -> Path:
    """In place of a test's own cache that of the whole session: the embedded world is rendered and embedded once."""
    folder = shared_folder / "cache"
    monkeypatch.setenv("CMM_CACHE", str(folder))
    return folder


@pytest.fixture
def three_a_class(monkeypatch) -> None:
    """The embedded world with three images a class, for what would look at no more of the forty that are rendered."""
    monkeypatch.setattr(classes, "IMAGES_A_CLASS", 3)
    for function in (classes.evaluation_images, classes.rendering_digest):
        monkeypatch.setattr(function, "__defaults__", (3,))


@pytest.fixture(scope="session")
def fork() -> Iterator[Callable[..., Any]]:
    """`fork(program, *arguments)`: a process that runs them, its imports done."""
    with forking() as start:
        yield start


forked = kernels.forked  # as every run has it; tests of kernels put it back


@pytest.fixture(scope="session", autouse=True)
def one_server() -> Iterator[None]:
    """The runs of this process share the one that their kernels are forked off, which imports for seconds."""
    kinds: list[type] = []

    @contextmanager
    def shared(imports: Sequence[str]) -> Iterator[type]:
        if imports == LITTLE:
            with forked(imports) as kind:
                yield kind
            return
        if not kinds:
            with chdir(Path(__file__).parent):  # the folder of the first test that needs it does not outlive that test
                kinds.append(server.enter_context(forked(kernels.WITH_MODEL)))
        yield kinds[0]

    with ExitStack() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "forked", shared)
        yield


@pytest.fixture
def few_draws(monkeypatch) -> None:
    """Chapter 5 draws 20 times, for its figure, and chapter 4 1000 times; whether cells run is seen with few."""
    monkeypatch.setattr(prior_shift, "draws", partial(prior_shift.draws, n_draws=2))
    monkeypatch.setattr(bootstrap, "DRAWS", 20)


LITTLE = ("ipykernel.kernelapp",)  # in place of `kernels.IMPORTS`, for chapters that use nothing of the package


@pytest.fixture
def little_imported(monkeypatch) -> None:
    """Kernels that have not imported the package before a chapter begins, which takes seconds."""
    for name in ("IMPORTS", "WITH_MODEL"):
        monkeypatch.setattr(f"cmmlib.report.kernels.{name}", LITTLE)


def run_in(place: Path, *arguments: object) -> None:
    said = cmm("run", "--out", place / "runs", *arguments)
    assert said.code == 0, said.err


def only_run(place: Path) -> Path:
    (folder,) = (place / "runs").iterdir()
    return folder


@pytest.fixture(scope="session")
def labelled(made_once) -> Path:
    """Run folder of the synthetic embeddings with labels and two prompts."""

    def make(place: Path) -> None:
        run_in(place, "--dataset", write_embeddings(place / "synthetic.npz"))

    return only_run(made_once("labelled", make))


@pytest.fixture(scope="session")
def changed(made_once) -> Path:
    """Chapter 1 of the same embeddings with another worst_k and another seed."""

    def make(place: Path) -> None:
        data = write_embeddings(place / "synthetic.npz")
        run_in(place, "--dataset", data, "--worst-k", 5, "--seed", 1, "--only", "01")

    return only_run(made_once("changed", make))


@pytest.fixture(scope="session")
def unlabelled(made_once) -> Path:
    """Run folder of the same embeddings without labels."""

    def make(place: Path) -> None:
        run_in(place, "--dataset", write_embeddings(place / "unlabelled.npz", labels=None))

    return only_run(made_once("unlabelled", make))


@pytest.fixture(scope="session")
def hostile(made_once) -> Path:
    """Run folder of the same embeddings whose classes and prompts have markup for names."""
    assert len(HOSTILE) == CLASSES

    def make(place: Path) -> None:
        names = {"classnames": np.array(HOSTILE), "prompts": np.array(HOSTILE_PROMPTS)}
        run_in(place, "--dataset", write_embeddings(place / "hostile.npz", **names))

    return only_run(made_once("hostile", make))


@pytest.fixture(scope="session")
def twins(made_once, tiny_clip, fork) -> tuple[Path, Path]:
    """Three chapters of a folder of images, run twice at the same time with one cache, in batches of 7 and of 4096."""

    def make(place: Path) -> None:
        images = write_images(place / "generated-images")
        shared = ["--dataset", f"folder:{images}", "--backbone", f"local-dir:{tiny_clip}", "--only", "01,02,04"]
        with fork(COMMAND, "run", *shared, "--batch-size", 7, "--out", place / "7") as other:
            said = cmm("run", *shared, "--batch-size", 4096, "--out", place / "4096")
            _, told = other.communicate()
        assert (said.code, other.returncode) == (0, 0), said.err + told

    place = made_once("twins", make)
    first, second = (next((place / size).iterdir()) for size in ("7", "4096"))
    return first, second


# What Jupyter Book imports for our pages, which show the package's own documentation.
OF_A_BOOK = (
    *("jupyter_book.cli.main", "jupyter_book.sphinx", "myst_nb.sphinx_ext", "sphinx_book_theme", "sphinx_exercise"),
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.bibtex", "sphinxext.opengraph"),
    *("cmmlib.estimators.ensemble", "cmmlib.estimators.corrections", "cmmlib.estimators.classifier_file"),
    "cmmlib.functional",
)


@pytest.fixture(scope="session")
def warm_jupyter_book() -> Iterator[Callable[[], AbstractContextManager]]:
    """`with warm_jupyter_book():` books are built by forks that have imported Jupyter Book and the package."""
    with forking(OF_A_BOOK) as start:

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
            *_, program = command[: command.index("build")]
            with pytest.MonkeyPatch.context() as patch:
                for name in ("PYTHONUTF8", "PYTHONIOENCODING"):
                    patch.setenv(name, options["env"][name])
                with start(program, *command[command.index("build") :]) as process:
                    out, err = process.communicate()
            return subprocess.CompletedProcess(command, process.returncode, out, err)

        @contextmanager
        def warm() -> Iterator[None]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(book, "subprocess", SimpleNamespace(run=run))
                yield

        yield warm


@pytest.fixture(scope="session")
def labelled_book(made_once, labelled, warm_jupyter_book) -> Path:
    """The labelled run's book: the folder that holds html/ and book/."""
    with warm_jupyter_book():
        return made_once("labelled-book", lambda place: _build(place, labelled))


@pytest.fixture(scope="session")
def unlabelled_book(made_once, unlabelled, warm_jupyter_book) -> Path:
    with warm_jupyter_book():
        return made_once("unlabelled-book", lambda place: _build(place, unlabelled))


@pytest.fixture(scope="session")
def many_book(made_once, hostile, changed, twins, warm_jupyter_book) -> Path:
    """One book of three runs: hostile names, chapter 1 alone, and images."""
    with warm_jupyter_book():
        return made_once("many-book", lambda place: _build(place, hostile, changed, twins[0]))


def _build(place: Path, *runs: Path) -> None:
    said = cmm("book", *runs, "--out", place)
    assert said.code == 0, said.err


@pytest.fixture(scope="session")
def default_run(made_once) -> Path:
    """Run folder of the default study, the embedded world: with a tenth of its images, or the whole one of `MADE`."""

    def make(place: Path) -> None:
        if MADE:
            shutil.copytree(Path(MADE) / "runs", place / "runs")
        run_in(place, *([] if MADE else ["--limit", 4]))

    return only_run(made_once("default", make))


@pytest.fixture(scope="session")
def default_book(made_once, default_run) -> Path:
    def make(place: Path) -> None:
        if MADE:
            shutil.copytree(Path(MADE) / "_build" / "html", place / "html")
        _build(place, default_run)

    return made_once("default-book", make)


@pytest.fixture(scope="session")
def default_numbers(made_once) -> Path:
    """Run folder of the whole default study: what its chapters say first of all, without the chapters."""

    def make(place: Path) -> None:
        run = open_run(Study.of({"out": str(place / "runs")}))
        run.write_manifest({})
        run.record(**headline_numbers(run))

    return only_run(made_once("default-numbers", make))


def headline_numbers(run: Run) -> dict[str, Any]:
    """Sections of results.json of a study of the embedded world, straight from its embeddings."""
    assert run.labels is not None
    base, blind, seed = F.predict(run.image_features, run.base_text_features), run.blind, run.study.seed
    accuracy = F.class_accuracy(base, run.labels, run.n_classes).value
    described = enrich.encode_descriptions(blind, enrich.enrich(blind))
    ensemble = weighted_ensemble(blind, Candidates.of_templates(run.text_features).with_descriptions(described))
    methods = [*compare_methods(blind, described, ensemble), *evaluation.best_template(blind, run.labels)]
    soft = F.class_matching_margin(run.similarity_pass(), "soft")[0]
    corrections = {
        name: prior_shift.report(blind, run.labels, name, fitted) for name, fitted in fit_corrections(blind).items()
    }
    return {
        "n_classes": run.n_classes,
        "n_images": len(run.image_features),
        "accuracy": evaluation.accuracy_report(base, run.labels, run.n_classes, run.worst_k, seed=seed),
        "cmm": {"soft": F.detection_scores(soft, accuracy, run.worst_k)},
        "prompts": tables.prompt_table(run, run.similarity_pass(run.text_features)).to_dict("records"),
        "ensembles": evaluation.ensemble_rows(methods, run.labels, run.n_classes, base, seed),
        **corrections,
    }
