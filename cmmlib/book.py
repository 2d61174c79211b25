"""Papermill over notebooks/, then Jupyter Book over book/ and the executed chapters; both are checked afterwards."""

from __future__ import annotations

import ast
import errno
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmmlib.cache import digest, file_digests, write_text
from cmmlib.errors import ChapterError, InputError
from cmmlib.study import Study

if TYPE_CHECKING:
    from cmmlib.run import Run

KERNEL = "python3"
PACKAGE = Path(__file__).parent


# ---------------------------------------------------------------- where the sources are


def source(name: str) -> Path:
    """`notebooks`, `book` or `_config.yml`: of the clone that the package runs from, else of the installed package.

    Raises:
        InputError: neither is there.
    """
    for root in (PACKAGE.parent, PACKAGE / "share"):
        if (root / name).exists():
            return root / name
    raise InputError(f"{name} is missing from this installation: reinstall cmmlib, or run from a clone")


def chapters(only: str = "") -> list[Path]:
    """Notebooks to run, in order. `only` lists numbers or names, separated by commas.

    Raises:
        InputError: a chapter that does not exist.
    """
    known = sorted(source("notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not only:
        return known
    chosen = []
    for wanted in (part.strip() for part in only.split(",")):
        found = [path for path in known if path.stem == wanted or path.stem[:2] == wanted.zfill(2)]
        if not found:
            raise InputError(f"--only: no chapter {wanted!r}: there are {', '.join(path.stem for path in known)}")
        chosen += found
    return sorted(set(chosen))


# ---------------------------------------------------------------- running the chapters


def run_study(study: Study, only: str = "") -> Path:
    """Execute the chapters of a study and return the run's folder. A chapter that is up to date is left alone.

    Raises:
        InputError: whatever is wrong with the study's inputs.
        ChapterError: a chapter failed; it is named with its cell and error.
    """
    from cmmlib.run import open_run

    notebooks = chapters(only)
    run = open_run(study)
    known = run.read_manifest().get("chapters", {})
    done = {path.stem: known[path.stem] for path in chapters() if path.stem in known}
    for path in notebooks:
        stamp = _stamp(path, run)
        target = run.folder / "chapters" / path.name
        if known.get(path.stem, {}).get("stamp") == stamp and target.exists():
            _note(f"{path.stem}: up to date")
            continue
        start = time.perf_counter()
        _execute(path, target, run)
        seconds = round(time.perf_counter() - start, 1)
        done[path.stem] = {"stamp": stamp, "seconds": seconds}
        run.write_manifest(done)
        _note(f"{path.stem}: {seconds} s")
    return run.folder


def plan(study: Study, only: str = "") -> str:
    """What `run_study` would do, without doing it."""
    from cmmlib.datasets import ImageFolder, load_dataset

    data = load_dataset(study.dataset, study.class_names)
    n_images = len(data.paths) if isinstance(data, ImageFolder) else len(data.images)
    lines = [f"data set {study.public()['dataset']}: {n_images:,} images, {len(data.classnames):,} classes"]
    if isinstance(data, ImageFolder):
        from cmmlib.backbones import load_backbone
        from cmmlib.embed import missing

        backbone = load_backbone(study.backbone, study.pretrained, study.device, study.precision)
        n_missing = missing(backbone, data, study.storage)
        lines.append(f"model {backbone.public_name}: {n_missing:,} image embeddings to compute, the rest is cached")
    return "\n".join([*lines, "chapters: " + ", ".join(path.stem for path in chapters(only))])


def _stamp(notebook: Path, run: Run) -> str:
    """Changes whenever the chapter's page could."""
    code = sorted(PACKAGE.glob("**/*.py"))
    return digest(file_digests(PACKAGE, code), file_digests(notebook.parent, [notebook]), run.id, run.study.public())


def _execute(source_path: Path, target: Path, run: Run) -> None:
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    notebook = nbformat.read(source_path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if _applies(cell, run.conditions)]
    _refuse_unknown_parameters(notebook, source_path)
    work = target.with_name(f".{target.stem}-{os.getpid()}.ipynb")
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        nbformat.write(notebook, work)
        papermill.execute_notebook(
            work,
            work,
            parameters=run.study.model_dump(),
            kernel_name=KERNEL,
            cwd=run.folder,
            progress_bar=False,
            config=Config(KernelManager={"transport_encryption": "auto"}),  # other users of the machine listen in vain
            extra_arguments=["--log-level=50"],  # what fails in a cell is reported below, once
        )
        executed = nbformat.read(work, as_version=4)
        _clean(executed, run.study)
        nbformat.write(executed, work)
        os.replace(work, target)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from None
        if error.ename == "OSError" and error.evalue.startswith(f"[Errno {errno.ENOSPC}]"):
            raise OSError(errno.ENOSPC, "no space left", str(run.folder)) from None  # as if it had not been in a kernel
        raise ChapterError(f"{source_path.stem}, cell {error.cell_index}: {error.ename}: {error.evalue}") from None
    finally:
        work.unlink(missing_ok=True)


def _applies(cell: Any, known: dict[str, bool]) -> bool:
    tags = cell.metadata.get("tags", [])
    wanted = all(known[tag[3:]] for tag in tags if tag.startswith("if-"))
    return wanted and not any(known[tag[7:]] for tag in tags if tag.startswith("unless-"))


def _refuse_unknown_parameters(notebook: Any, path: Path) -> None:
    """Papermill only logs a parameter that the notebook does not know, and goes on with the default."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    declared = set(re.findall(r"^(\w+) *=", cells[0].source, re.M)) if cells else set()
    unknown = set(Study.model_fields) - declared
    if unknown:
        raise InputError(f"{path.name} does not declare the parameters {', '.join(sorted(unknown))}")


def _clean(notebook: Any, study: Study) -> None:
    """Take out what differs from run to run or tells where it ran; hand each figure's alt text to the book."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.source = "\n".join(["# Parameters", *(f"{k} = {v!r}" for k, v in study.public().items())])
            cell.metadata["tags"] = sorted({*tags, "remove-cell"})
        outputs = cell.get("outputs", [])
        for warning in (o for o in outputs if o.get("name") == "stderr"):
            _note(warning["text"].rstrip())  # told to whoever runs it; a reader can do nothing about it
        if outputs:
            cell.outputs = [o for o in outputs if o.get("name") != "stderr"]
        for output in outputs:
            alt = output.get("metadata", {}).get("image/svg+xml", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}


# ---------------------------------------------------------------- building the book


def build(runs: Sequence[Path], out: Path = Path("_build")) -> Path:
    """Build the HTML of one or more runs and return its index.html. The first run owns the main chapters.

    The pages are staged in `out`/book, built beside the old HTML and moved into its place when every check has passed.

    Raises:
        InputError: no run, or a run without its chapters.
        ChapterError: Jupyter Book warned or failed, or a page or number is missing.
    """
    folders = [Path(run).resolve() for run in runs] or [_newest_run()]
    for folder in folders:
        if not (folder / "manifest.json").is_file() or not (folder / "chapters" / "01_phenomenon.ipynb").is_file():
            raise InputError(f"{folder} is no finished run: it lacks manifest.json or chapter 01; run `cmm run` first")
    stamp = _build_stamp(folders)
    index, seal = out / "html" / "index.html", out / "stamp"
    if index.exists() and seal.exists() and seal.read_text() == stamp:
        _note("book: up to date")
        return index
    staged = out / "book"
    _stage(folders, staged)
    page_root = _jupyter_book(staged, out / "work")
    _verify(staged, page_root)
    seal.unlink(missing_ok=True)
    shutil.rmtree(out / "html", ignore_errors=True)
    shutil.move(page_root, out / "html")
    write_text(seal, stamp)
    return index


def _newest_run() -> Path:
    found = sorted(Path("runs").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError("no run in runs/: give a run folder, or run `cmm run --dataset ...` first")
    return found[-1].parent.resolve()


def _build_stamp(folders: Sequence[Path]) -> str:
    pages = [p for p in sorted(source("book").rglob("*")) if p.is_file()]
    files = [*pages, source("_config.yml"), *(p for f in folders for p in sorted(f.rglob("*")) if p.is_file())]
    return digest(file_digests(source("book"), files), os.environ.get("CMM_REPOSITORY_URL", ""))


def _stage(folders: Sequence[Path], staged: Path) -> None:
    """Pages, executed chapters and a table of contents, in one folder that Jupyter Book reads."""
    import yaml

    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(source("book"), staged, ignore=shutil.ignore_patterns("chapters", "_build"))
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    shutil.copytree(folders[0] / "figures", staged / "figures")
    for page in staged.rglob("*.md"):
        page.write_text(_keep_blocks(page.read_text(), manifest["conditions"]))
    toc = yaml.safe_load((staged / "_toc.yml").read_text())
    parts = []
    for number, folder in enumerate(folders):
        place = Path("chapters") if number == 0 else Path("chapters") / folder.name
        (staged / place).mkdir(parents=True)
        for path in _chapter_files(folder):
            _place(path, staged / place / path.name, with_exercises=number == 0)
        files = [(place / path.stem).as_posix() for path in _chapter_files(folder)]
        title = "Chapters" if number == 0 else f"The same chapters: {folder.name}"
        parts.append({"caption": title, "chapters": [{"file": file} for file in files]})
    toc["parts"] = [*parts, *toc["parts"]]
    (staged / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (staged / "_config.yml").write_text(yaml.safe_dump(_configuration(), sort_keys=False))


def _place(chapter: Path, target: Path, with_exercises: bool) -> None:
    """Copy a chapter; a further run of the same chapter goes without the exercises, which a book has once."""
    import nbformat

    notebook = nbformat.read(chapter, as_version=4)
    if not with_exercises:
        notebook.cells = [cell for cell in notebook.cells if "exercise" not in cell.metadata.get("tags", [])]
    nbformat.write(notebook, target)


def _configuration() -> dict[str, Any]:
    """_config.yml, with buttons to the repository where the environment names one."""
    import yaml

    config = yaml.safe_load(source("_config.yml").read_text())
    url = os.environ.get("CMM_REPOSITORY_URL", "")
    if url:
        config["repository"] = {"url": url, "branch": "main"}
        config.setdefault("html", {})["use_repository_button"] = True
    return config


_BLOCK = re.compile(r"^<!-- (if|unless)-(\w+) -->\n(.*?)^<!-- end -->\n", re.M | re.S)


def _keep_blocks(text: str, known: dict[str, bool]) -> str:
    return _BLOCK.sub(lambda m: m[3] if known[m[2]] == (m[1] == "if") else "", text)


def _jupyter_book(staged: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(staged), "--path-output", str(work), "-W", "--keep-going", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    pages = work / "_build" / "html"
    if done.returncode or not (pages / "index.html").is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if re.search("WARNING|ERROR|rror:", line)]
        raise ChapterError("the book has warnings or errors:\n" + "\n".join(lines or [done.stderr.strip()[-2000:]]))
    _prune(pages)
    return pages


MATHJAX = ("tex-chtml.js", "output/chtml", "input/tex")  # what a page loads: the menu, which loads more, is off


def _prune(pages: Path) -> None:
    """Drop what no page loads: most of MathJax, source maps, page sources."""
    shutil.rmtree(pages / "_sources", ignore_errors=True)
    mathjax = pages / "_static" / "mathjax"
    spare = [p for p in mathjax.rglob("*") if p.is_file() and not p.relative_to(mathjax).as_posix().startswith(MATHJAX)]
    for path in [*spare, *(pages / "_static").rglob("*.map")]:
        path.unlink()


def _chapter_files(folder: Path) -> list[Path]:
    return sorted((folder / "chapters").glob("[0-9]*.ipynb"))


_GLUE = re.compile(r"\{glue:text\}`(?:([\w/.-]+)::)?(\w+)(?::s)?`")


@cache
def _glued_values(chapter: Path) -> dict[str, str]:
    """Name and text of everything that a chapter glued."""
    import nbformat

    mime, values = "application/papermill.record/text/plain", {}
    for output in (o for cell in nbformat.read(chapter, as_version=4).cells for o in cell.get("outputs", [])):
        if output.get("data", {}).get(mime, "").startswith(("'", '"')):  # a string; a glued table is none
            values[output["metadata"]["scrapbook"]["name"]] = ast.literal_eval(output["data"][mime])
    return values


def _verify(staged: Path, pages: Path) -> None:
    """Every page exists, and every number that its prose takes from the run stands on it."""
    for path in sorted([*staged.glob("*.md"), *(staged / "chapters").rglob("*.ipynb")]):
        page = (pages / path.relative_to(staged)).with_suffix(".html")
        if not page.is_file():
            raise ChapterError(f"the book has no page {page.relative_to(pages)}")
        text = " ".join(html.unescape(page.read_text(encoding="utf-8")).split())
        for place, name in _GLUE.findall(_prose(path)):
            value = _glued_values(path.parent / place if place else path).get(name)
            if value is None or " ".join(value.split()) not in text:
                raise ChapterError(f"page {page.name} lacks the value of {name}: {value!r}")


def _prose(path: Path) -> str:
    import nbformat

    if path.suffix == ".md":
        return path.read_text()
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


def _note(message: str) -> None:
    print(message, file=sys.stderr)
