"""`cmm`: run a study, build the book. Every field of `Study` is a flag. User errors are one line, exit code 2."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cmmlib import process
from cmmlib.cli import blazon, cache
from cmmlib.cli.study_flags import given_study, study_flags
from cmmlib.errors import InputError, tell, visible
from cmmlib.study.study import LARGEST, Study

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="CLIP's worst categories: find them without labels, repair part of them.",
)
app.add_typer(cache.app, name="cache")
app.add_typer(blazon.app, name="blazon")


def main() -> None:
    """Entry point of the console script."""
    logging.getLogger().setLevel(logging.ERROR)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read with torch: threads that wait leave the core to others
    process.begin()
    process.end(_exit_code(sys.argv[1:]))


def _exit_code(arguments: list[str]) -> int:
    return process.exit_code(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        return app(arguments or ["--help"], standalone_mode=False) or 0
    except typer.TyperException as error:
        raise InputError(getattr(error, "format_message", error.__str__)()) from None


@app.command()
@study_flags
def run(
    context: typer.Context,
    only: Annotated[str | None, typer.Option(help="chapters to run, for example 01,02 [default: all]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be run, and stop")] = False,
    **fields: Any,
) -> None:
    """Run a study: embed what is missing, execute the chapters, write results to OUT/<id>/ and print that folder."""
    study = given_study(context, fields)
    if dry_run:
        from cmmlib.report.plan import plan

        print(visible(plan(study, only)))
        return
    from cmmlib.report import chapters

    process.show_path(chapters.run_study(study, only))


@app.command()
@study_flags
def describe(
    context: typer.Context,
    every_class: Annotated[bool, typer.Option("--every-class", help="ask about all classes, not the suspects")] = False,
    **fields: Any,
) -> None:
    """Ask a language model (--llm) about a study's suspects and record its answers; what is recorded is not asked."""
    study = given_study(context, fields)
    from cmmlib.study import enrich
    from cmmlib.study.open_run import open_run
    from cmmlib.texts.enrichment import RECORDED
    from cmmlib.texts.transcripts import own_transcript_path

    if study.llm == RECORDED:
        raise InputError(
            "llm: name the model to ask, as in --llm openai/MODEL, --llm anthropic/MODEL, --llm ollama/MODEL"
        )
    run = open_run(study)
    if run.backbone is None:
        raise InputError("describe: an embeddings: study has no text tower that could read descriptions")
    enrichment = enrich.ask(run.blind, list(range(run.n_classes)) if every_class else None)
    print(f"{enrichment.requests} of {len(enrichment.asked)} classes described")
    enrich.require_described(enrichment, study.llm)
    print(study.transcript or own_transcript_path())


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML: a list of studies, a grid, or both")],
    out: Annotated[Path, typer.Option(help="folder that receives the sweep's own folder")] = Path("sweeps"),
    only: Annotated[str | None, typer.Option(help="chapters to run, for example 01,02,04 [default: all]")] = None,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="processes that run studies side by side")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(help="address of a Dask scheduler whose workers see the same files")
    ] = None,
    cluster: Annotated[Path | None, typer.Option(help="YAML of a SLURM, PBS or LSF cluster (dask-jobqueue)")] = None,
) -> None:
    """Run many studies side by side, on this machine or a cluster; a table of all; exit code 1 where one fails."""
    from cmmlib.sweeps.run import run_sweep

    folder, n_failed = run_sweep(file, out, only, workers=workers, scheduler=scheduler, cluster=cluster)
    process.show_path(folder)
    if n_failed:
        raise typer.Exit(1)


@app.command("book")
def build_book(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="run folders, or a sweep's; the first run owns the chapters [default: newest in runs/]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder that receives html/")] = Path("_build"),
) -> None:
    """Build the book of one or more runs, warnings as errors, and check that every page and number is there."""
    from cmmlib.report import book

    process.show_path(book.build(runs or [], out))


@app.command()
def notebooks(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    out: Annotated[Path, typer.Option(help="folder that receives the notebooks")],
    data: Annotated[
        list[Path] | None, typer.Option(help="file or folder that the study reads, to be copied; repeatable")
    ] = None,
) -> None:
    """Write a run's chapters for students: exercises with an answer cell and a check, solutions apart, all in a zip."""
    from cmmlib.report import student_notebooks
    from cmmlib.report.chapters import note_unknown

    archive = student_notebooks.write(run, out, data or [])
    note_unknown(run)
    process.show_path(archive)


@app.command()
def slides(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    out: Annotated[Path, typer.Option(help="folder that receives slides.html and lesson.html")],
) -> None:
    """Write a run's slides, HTML without a network: slides.html of all chapters, lesson.html of 90 minutes."""
    from cmmlib.report import slides as of_run
    from cmmlib.report.chapters import tell_missing

    file = of_run.write(run, out)
    tell_missing(run, "the slides", "0")
    process.show_path(file)


@app.command()
def classroom(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    out: Annotated[Path, typer.Option(help="folder that receives classroom.zip and the solutions")],
    book: Annotated[Path, typer.Option(help="folder of the run's book, built there if it is not")] = Path("_build"),
    data: Annotated[
        list[Path] | None, typer.Option(help="file or folder that the study reads, to be copied; repeatable")
    ] = None,
) -> None:
    """Pack what a class without a network needs into one zip: the book with its slides, and notebooks for students."""
    from cmmlib.report import classroom as packing

    process.show_path(packing.write(run, out, book, data or []))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    reference: Annotated[
        Path | None, typer.Option(help="CSV of other reference figures [default: those shipped]")
    ] = None,
) -> None:
    """Compare a run with reference figures, published ones and this project's; exit code 1 where one differs."""
    from cmmlib.evaluation import reference as reference_figures

    checks = reference_figures.verify(folder, reference or reference_figures.REFERENCE)
    print(visible("\n".join(check.sentence for check in checks)))
    if not all(check.agrees for check in checks if check.found is not None):
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of two or more finished runs")],
    worst_k: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="size of the worst sets [default: 10]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV with a row a run and method; - is standard output")] = None,
) -> None:
    """Set finished runs side by side: overall against worst-k, classes that fail everywhere, what each method gains."""
    from cmmlib.evaluation import comparison_text, run_comparison
    from cmmlib.storage.csv_files import csv_text
    from cmmlib.study.run_files import replace_table

    sides = comparison_text.read_summaries(runs, worst_k)
    table = csv_text(run_comparison.gains(sides))
    if out == Path("-"):
        for line in comparison_text.remarks(sides, worst_k or 10):
            tell(line)
        process.show_text(table)
        return
    if out:
        replace_table(out, table)
    print(visible(comparison_text.comparison_text(sides, worst_k or 10)), end="")


@app.command()
def classify(
    classifier: Annotated[
        Path,
        typer.Argument(metavar="CLASSIFIER", help="file of a classifier, as in runs/ID/classifiers/METHOD.safetensors"),
    ],
    images: Annotated[
        str, typer.Option(help="folder:PATH, embeddings:FILE, wds:PATH or a data set; labels are not read")
    ],
    out: Annotated[Path, typer.Option(help="CSV with a row an image; - is standard output")] = Path("predictions.csv"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the CSV where it exists")] = False,
    backbone: Annotated[str | None, typer.Option(help="model of the images [default: the classifier's]")] = None,
    pretrained: Annotated[str | None, typer.Option(help="its weights [default: the classifier's]")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test ... [default: the usual one]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or several: cuda:0,cuda:1")] = "auto",
    batch_size: Annotated[int, typer.Option(help="images at a time")] = 64,
    workers: Annotated[int, typer.Option(help="processes that decode images")] = 0,
    max_broken: Annotated[int, typer.Option(help="images that cannot be read and are left out; one more stops")] = 0,
    data_root: Annotated[str | None, typer.Option(help="folder of data sets that have names")] = None,
) -> None:
    """Classify new images with a classifier that a run or an estimator wrote; the model that it names embeds them."""
    choices = {"backbone": backbone, "pretrained": pretrained, "split": split, "device": device, "data_root": data_root}
    numbers = {"batch_size": batch_size, "workers": workers, "max_broken": max_broken}
    study = Study.of({"dataset": images, **choices, **numbers})
    from cmmlib.estimators.classifier_file import load_classifier
    from cmmlib.storage.csv_files import csv_text
    from cmmlib.study import classify as classifying
    from cmmlib.study.run_files import replace_table

    fitted, to_file = load_classifier(classifier), out != Path("-")
    if to_file:
        classifying.require_place(out, overwrite)
    new_images = classifying.new_images(study, fitted)
    table = classifying.predictions(fitted, new_images)
    text = csv_text(table, "%.6g")
    if to_file:
        replace_table(out, text)
    for line in (*new_images.remarks, classifying.warning(fitted, table)):
        tell(" ".join(line.split()))
    if to_file:
        process.show_path(out)
    else:
        process.show_text(text)
