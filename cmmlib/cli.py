"""`cmm`: run a study, build the book. Every field of `Study` is a flag. User errors are one line, exit code 2."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from cmmlib import process
from cmmlib.errors import InputError, ProviderError, counted, tell, visible
from cmmlib.study.study import LARGEST, Study

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="CLIP's worst categories: find them without labels, repair part of them.",
)


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


def _study_flags(command):
    """Give a command one flag for each field of Study, named and described as the field is."""
    signature = inspect.signature(command, eval_str=True)  # typer reads no annotation that is a text
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(name, field) for name, field in Study.model_fields.items()]
    command.__signature__ = inspect.Signature([*own, *flags])
    command.__annotations__ = {p.name: p.annotation for p in (*own, *flags)}
    return command


def _given_study(context: typer.Context, fields: dict[str, Any]) -> Study:
    """The study of the flags that were given; the others are left to its defaults."""
    default = "ParameterSource.DEFAULT"
    return Study.of({n: v for n, v in fields.items() if str(context.get_parameter_source(n)) != default})


def _flag(name: str, field: Any) -> inspect.Parameter:
    kinds = (field.annotation, *get_args(field.annotation))
    kind = next((kind for kind in (int, float) if kind in kinds), str)
    option = typer.Option(
        f"--{name.replace('_', '-')}", help=field.description, show_default=field.default not in (None, "")
    )
    annotation = Annotated[kind | None if field.default is None else kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


@app.command()
@_study_flags
def run(
    context: typer.Context,
    only: Annotated[str | None, typer.Option(help="chapters to run, for example 01,02 [default: all]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be run, and stop")] = False,
    **fields: Any,
) -> None:
    """Run a study: embed what is missing, execute the chapters, write results to OUT/<id>/ and print that folder."""
    study = _given_study(context, fields)
    if dry_run:
        from cmmlib.report.plan import plan

        print(visible(plan(study, only)))
        return
    from cmmlib.report import chapters

    process.show_path(chapters.run_study(study, only))


@app.command()
@_study_flags
def describe(
    context: typer.Context,
    every_class: Annotated[bool, typer.Option("--every-class", help="ask about all classes, not the suspects")] = False,
    **fields: Any,
) -> None:
    """Ask a language model (--llm) about a study's suspects and record its answers; what is recorded is not asked."""
    study = _given_study(context, fields)
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
    enrichment = enrich.enrich(run.blind, list(range(run.n_classes)) if every_class else None)
    for c, reason in enrichment.failed.items():
        tell(f"{run.classnames[c]}: {reason}")
    if enrichment.spent:
        cost = f"{enrichment.spent.cost:.4f} US dollars" if enrichment.spent.priced else "at an unknown cost"
        tell(f"{counted(enrichment.spent.requests, 'request')}, {counted(enrichment.spent.tokens, 'token')}, {cost}")
    print(f"{enrichment.requests} of {len(enrichment.asked)} classes described")
    if enrichment.failed and not enrichment.descriptions:
        reason = Counter(enrichment.failed.values()).most_common(1)[0][0]
        raise ProviderError(f"llm: {study.llm} described no class: {reason}")
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


cache_app = typer.Typer(rich_markup_mode=None, help="The cache of embeddings: what it holds, is it sound, how large.")
app.add_typer(cache_app, name="cache")


@cache_app.command("list")
def list_cache() -> None:
    """Say what the cache holds, by kind."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    folder = cache_folder()
    entries, others = cache_maintenance.entries(folder), cache_maintenance.others(folder)
    print(folder)
    print(cache_maintenance.summary(entries, others).to_string(index=False))


@cache_app.command("verify")
def verify_cache() -> None:
    """Read every entry that has a checksum and compare them; damaged ones are removed, to be computed again, and the
    exit code is 1."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    entries = [entry for entry in cache_maintenance.entries(cache_folder()) if entry.has_checksum]
    damaged = cache_maintenance.drop_damaged(entries)
    for path in damaged:
        done = "could not be removed" if path.exists() else "removed"
        tell(f"damaged, {done}: {path.relative_to(cache_folder())}")
    print(f"{counted(len(entries), 'entry', 'entries')}, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)


@cache_app.command("prune")
def prune_cache(size: Annotated[str, typer.Option(help="what the cache may keep, as in 500MB or 20GB")]) -> None:
    """Cut the cache to a size: what was not used for longest goes first, and what killed processes left behind."""
    from cmmlib.storage import cache_maintenance
    from cmmlib.storage.cache import cache_folder

    most = cache_maintenance.parse_size(size)
    left = cache_maintenance.drop_left_behind(cache_folder())
    removed = cache_maintenance.prune(cache_maintenance.entries(cache_folder()), most)
    freed = sum(entry.size for entry in removed) / 1e6
    entries, files = counted(len(removed), "entry", "entries"), counted(len(left), "file")
    print(f"{entries} removed, {freed:.1f} MB; {files} that killed processes left behind")


blazon_app = typer.Typer(rich_markup_mode=None, help="The embedded world: train its model.")
app.add_typer(blazon_app, name="blazon")


@blazon_app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="folder of the training run; a killed run goes on there")],
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="seed of images, captions, order and weights")] = 0,
    samples: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="image-caption pairs seen; fixes the schedule")
    ] = 600_000,
    images: Annotated[int, typer.Option(min=1, max=LARGEST, help="training images rendered")] = 160_000,
    captions: Annotated[int, typer.Option(min=1, max=LARGEST, help="captions written for each image")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, max=LARGEST, help="pairs a step")] = 384,
    frequent: Annotated[list[str] | None, typer.Option(help="intervention: make a name frequent; repeatable")] = None,
    split: Annotated[str | None, typer.Option(help="intervention: give a name's everyday sense its own word")] = None,
) -> None:
    """Train blazon-mini from scratch: render, caption, tokenise, train; writes weights, configuration and record."""
    from cmmlib.blazon.training import pretrain as training

    if not batch_size <= min(images, samples):
        raise InputError(f"--batch-size: {batch_size} is more than the images or the samples")
    recipe = training.Recipe(
        seed=seed,
        samples=samples,
        images=images,
        captions=captions,
        batch_size=batch_size,
        frequent=tuple(frequent or ()),
        split=split,
    )
    print(training.pretrain(recipe, out, tell, training.zero_shot_probe()))


@blazon_app.command()
def measure(
    weights: Annotated[list[Path], typer.Argument(help="safetensors files of blazon-mini, one a training run")],
) -> None:
    """What trained weights can do, over evaluation seeds 1, 2 and 3: the numbers of the model card, as JSON."""
    import json

    from cmmlib.evaluation.model_card import measure as measured

    print(json.dumps([measured(path) for path in weights], indent=1))
