"""Papermill over notebooks/: which chapters a study runs, in order, and what is left of them when they are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmmlib.errors import InputError, one_line, some, tell
from cmmlib.report.execution import execute
from cmmlib.storage.cache import digest, file_digests, fix_cache_folder, whole_file
from cmmlib.storage.locks import locked
from cmmlib.storage.text_files import content, listed
from cmmlib.study.made_files import Made, drop_left_behind
from cmmlib.study.run_files import MANIFEST, RUNNING, SCHEMA_VERSION, read_manifest, read_object, read_run
from cmmlib.study.study import Study
from cmmlib.texts.enrichment import RECORDED

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cmmlib.study.run import Run

PACKAGE = Path(__file__).parents[1]
WITH_ANSWERS = ("03", "04", "05", "06", "07", "08")  # chapters that read a language model's answers
APPENDIX = "9"  # first digit of the notebooks that are cards, not chapters
CODE = (".py", ".js", ".css", ".html", ".json", ".toml", ".csv")


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


def chapters(only: str | None = None) -> list[Path]:
    """Notebooks to run, in order. `only` lists numbers or names, separated by commas.

    Raises:
        InputError: a chapter that does not exist, or a comma that has nothing beside it.
    """
    known = sorted(source("notebooks").glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return known
    chosen = []
    for wanted in listed(only, "--only: "):
        found = [path for path in known if path.stem == wanted or path.stem[:2] == wanted.zfill(2)]
        if not found:
            raise InputError(f"--only: no chapter {wanted!r}: there are {', '.join(path.stem for path in known)}")
        chosen += found
    return sorted(set(chosen))


def executed_chapters(run: Path) -> list[Path]:
    """The executed chapters of a run that this version has, in order."""
    known = {path.name for path in chapters()}
    return [path for path in _notebooks(run) if path.name in known]


def note_unknown(run: Path) -> None:
    """A line on executed notebooks that are no chapters of this version: an earlier one made them."""
    unknown = [path.name for path in _notebooks(run) if path.name not in {known.name for known in chapters()}]
    if unknown:
        note(f"{run.name}: no chapters of this version of cmmlib, and left out: {some(unknown)}")


def _notebooks(run: Path) -> list[Path]:
    return sorted((run / "chapters").glob("[0-9]*.ipynb"))


def tell_missing(run: Path, where: str, first: str = "") -> None:
    """A line on the chapters, of names that begin so, which a finished run could have and has not."""
    conditions = read_run(run)[0]["conditions"]
    there = {chapter.name for chapter in executed_chapters(run)}
    could = [path for path in chapters() if path.name.startswith(first) and belongs(path, conditions)]
    missing = [path.stem for path in could if path.name not in there]
    if missing:
        tell(f"chapters that did not run are not among {where}: {', '.join(missing)}")


def belonging(wanted: Sequence[Path], conditions: dict[str, bool]) -> list[Path]:
    """Those of the chapters that a study has.

    Raises:
        InputError: none.
    """
    found = [path for path in wanted if belongs(path, conditions)]
    if not found:
        own = ", ".join(path.stem for path in chapters() if belongs(path, conditions))
        raise InputError(
            f"--only: {', '.join(path.stem for path in wanted)} belongs to another kind of study: this one has {own}"
        )
    return found


# ---------------------------------------------------------------- running the chapters


def run_study(study: Study, only: str | None = None, forks: Connection | None = None) -> Path:
    """Execute the chapters of a study and return the run's folder. A chapter that is up to date is left alone.

    Args:
        only: numbers or names of chapters; all by default.
        forks: a process that forks kernels (`kernels.serve`); by default one that ends with the run.

    Raises:
        InputError: whatever is wrong with the study's inputs.
        ChapterError: a chapter failed; it is named with its cell and error.
    """
    from cmmlib.report import kernels

    wanted = chapters(only)
    fix_cache_folder()
    if forks:
        return _run_chapters(study, wanted, kernels.forked_by(forks))
    imports = kernels.IMPORTS if study.dataset.startswith("embeddings:") else kernels.WITH_MODEL
    with kernels.forked(imports) as kind:  # they are imported while the study opens
        return _run_chapters(study, wanted, kind)


def _run_chapters(study: Study, wanted: list[Path], kernels: type) -> Path:
    from cmmlib.report.cost import Cost
    from cmmlib.report.kernels import end_orphans
    from cmmlib.study.enrich import ask, require_described
    from cmmlib.study.open_run import open_run
    from cmmlib.study.remarks import of_model

    run = open_run(study)
    if study.llm != RECORDED and run.backbone is not None and any(path.stem[:2] in WITH_ANSWERS for path in wanted):
        answers = ask(run.blind)
        require_described(answers, study.llm)
        run = open_run(study) if answers.spent else run  # which is another run: answers are part of what it is
    short_of_memory = Cost.of(run.image_features, run.text_features).warning() if wanted == chapters() else None
    for remark in (
        *of_model(study, run.backbone),
        *run.facts["data"]["remarks"],
        *_of_broken(run.facts["data"].get("broken", [])),
        *filter(None, [short_of_memory]),
    ):
        note(remark)
    notebooks = belonging(wanted, run.conditions)
    with locked(run.folder / RUNNING, lambda who: note(f"{run.id} is being executed by {who}: waiting for its end")):
        end_orphans(run.folder)
        drop_left_behind(run.folder)
        made = _made(run, {path.stem for path in notebooks})
        for path in notebooks:
            _bring_up_to_date(path, run, made, kernels)
    return run.folder


def _of_broken(images: list[str]) -> list[str]:
    """A line on images that could not be read, where there are any."""
    return [f"images that cannot be read are left out, {len(images)} in all: {some(images)}"] if images else []


def _made(run: Run, wanted: set[str]) -> Made:
    """What was made before and is sound; says what is to be made again, and why."""
    path = run.folder / MANIFEST
    manifest = read_manifest(path)
    if manifest is None and (path.exists() or _notebooks(run.folder)):
        version = (read_object(path) or {}).get("schema_version", SCHEMA_VERSION)
        what = "missing or damaged" if version == SCHEMA_VERSION else f"of another version, {version}"
        note(f"{what}: {MANIFEST}; to be executed again: every chapter")
    made = Made.of(manifest or {}, [path.stem for path in chapters()])
    lost = made.forget_lost(run.folder, wanted)
    if lost:
        note(lost)
    return made


def _bring_up_to_date(path: Path, run: Run, made: Made, kernels: type) -> None:
    stamp = _stamp(path, run)
    name = f"chapters/{path.name}"
    if made.is_done(path.stem, stamp):
        if made.is_edited(run.folder, name):
            note(f"{name} was edited, and is left so; remove it to have it made again")
        note(f"{path.stem}: up to date")
        return
    if made.files:  # a chapter that is stopped or fails may leave sections that nobody has noted
        unfinished = made.without(path.stem)
        run.write_manifest(unfinished.chapters, unfinished.files)
    start = time.perf_counter()
    with made.noting(run.folder, path.stem):
        executed = _execute(path, run, kernels)
        if made.is_edited(run.folder, name):  # asked now: its reader may have saved it while it was executed
            _put_aside(run.folder / name, executed)
        _write(executed, run.folder / name)
    seconds = round(time.perf_counter() - start, 1)
    made.chapters = dict(sorted({**made.chapters, path.stem: {"stamp": stamp, "seconds": seconds}}.items()))
    run.write_manifest(made.chapters, made.files)
    note(f"{path.stem}: {seconds} s")


def _write(notebook: Any, target: Path) -> None:
    import nbformat

    with whole_file(target) as temporary:
        nbformat.write(notebook, temporary)


def _put_aside(notebook: Path, executed: Any) -> None:
    """Rename a chapter that somebody wrote in, before it is written anew; one with the same cells goes."""
    try:
        cells = read_notebook(notebook).cells
    except (InputError, FileNotFoundError):
        return  # damaged, as was told, or not there
    if [cell.source for cell in cells] == [cell.source for cell in executed.cells]:
        return
    names = (f"edited{n}_{notebook.name}" for n in ("", *range(2, 1000)))
    aside = next(path for path in map(notebook.with_name, names) if not path.exists())
    notebook.rename(aside)
    note(f"chapters/{notebook.name} was edited, and is made again: what was there is kept as chapters/{aside.name}")


def read_notebook(path: Path) -> Any:
    """A notebook in the fourth format.

    Raises:
        InputError: the file is no notebook, or a damaged one.
    """
    import nbformat

    try:
        notebook = nbformat.reads(content(path).decode(), as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # nbformat and jsonschema raise several kinds
        raise InputError(f"{path} is no notebook: {one_line(error)}") from None
    return notebook


def belongs(chapter: Path, known: dict[str, bool]) -> bool:
    """A notebook may ask for a condition as its cells may: `only_if` in its metadata."""
    wanted = _metadata(chapter).get("only_if")
    return wanted is None or known.get(wanted, False)


def _metadata(notebook: Path) -> dict[str, Any]:
    """What a notebook says of itself to this module: `only_if` and `reads`."""
    return read_notebook(notebook).metadata.get("cmm", {})


def code_files() -> list[Path]:
    """Files of the package that pages may depend on."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in CODE)


def _stamp(notebook: Path, run: Run) -> str:
    """Changes whenever the chapter's page could."""
    sources = file_digests(PACKAGE, code_files()), file_digests(notebook.parent, [notebook])
    patterns = _metadata(notebook).get("reads", [])  # files of chapters before it
    read = sorted(path for pattern in patterns for path in run.folder.glob(pattern))
    return digest(*sources, run.id, run.study.public(), file_digests(run.folder, read))


def _execute(path: Path, run: Run, kernels: type) -> Any:
    return execute(read_notebook(path), path, run, kernels)


def note(message: str) -> None:
    """A line for whoever runs the command, on stderr."""
    tell(message)
