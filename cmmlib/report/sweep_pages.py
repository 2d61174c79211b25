"""The pages of a sweep in the book: all its runs side by side, and a page for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.errors import InputError, counted
from cmmlib.evaluation import run_comparison
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import DEFAULT, MISSING, decimal, names, percent, plain, points, points_interval
from cmmlib.report.pages import table_html
from cmmlib.storage import own_folders
from cmmlib.storage.csv_files import read_csv
from cmmlib.study.run_files import PER_CLASS, RESULTS, SWEEP, read_object, read_run

PLACE = "sweep"  # of the staged book
FIGURE = "overall_and_worst.svg"
FIGURES = ("class_accuracy", "cmm_against_accuracy", "contenders")  # of a run, shown on its page
FILES = ("table.csv", "failures.csv", FIGURE)  # of the sweep's folder
WORST = 10  # classes on a run's page


def runs_of(sweep: Path) -> list[Path]:
    """Folders of the runs that a sweep finished, in its order.

    Raises:
        InputError: a damaged sweep.json, or no run.
    """
    entries = (read_object(sweep / SWEEP) or {}).get("studies")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{sweep / SWEEP} is damaged: run `cmm sweep` again")
    found = [str(e["run"]) for e in entries if e.get("run") and not e.get("failed")]
    folders = [sweep / "runs" / Path(name).name for name in dict.fromkeys(found)]
    if not folders:
        raise InputError(f"{sweep} has no finished run: its failures.csv says why")
    return folders


def write(sweep: Path, runs: Sequence[Path], staged: Path) -> list[str]:
    """Write the pages into the staged book; returns their names for the table of contents."""
    own_folders.copy([sweep / name for name in FILES if (sweep / name).is_file()], sweep, staged / PLACE)
    for run in runs:
        figures = [run / "figures" / f"{name}.svg" for name in FIGURES]
        kept = [path for path in (*figures, run / PER_CLASS, run / RESULTS) if path.is_file()]
        own_folders.copy(kept, run.parent, staged / PLACE)
        (staged / PLACE / f"{run.name}.md").write_text(_run_page(run), "utf-8")
    (staged / PLACE / "index.md").write_text(_overview(sweep, runs), "utf-8")
    return [f"{PLACE}/index", *(f"{PLACE}/{run.name}" for run in runs)]


def _overview(sweep: Path, runs: Sequence[Path]) -> str:
    table, failures = _tables(sweep)
    base = table[table["method"].isin(["base", ""])]  # a run without labels has a row of no method
    own = [key for key in table if key not in ("method", *_NUMBERS)]
    shown = pd.DataFrame({_shown(key): [value or DEFAULT for value in base[key]] for key in own})
    for name in ("overall", "worst_10"):
        shown[display_name(name)] = [_percent(value) for value in base[name]]
    parts = [
        f"# All runs of {plain(sweep.name)}",
        f"{counted(len(runs), 'run')}, each with a page of its own; percent, under the base prompt.",
        table_html(shown),
    ]
    if (sweep / FIGURE).is_file():
        parts.append(f"```{{figure}} {FIGURE}\nOverall accuracy and that of the ten worst classes, a point a run.\n```")
    if len(table) > len(base):
        parts += ["## Methods over all runs", "Points, against each run's own base prompt.", table_html(_gains(table))]
    parts += _comparisons(runs)
    if len(failures):
        told = pd.DataFrame({_shown(name): [value or DEFAULT for value in failures[name]] for name in failures})
        parts += ["## Studies that failed", table_html(told)]
    parts.append("All runs and methods: {download}`table.csv`.")
    return "\n\n".join(parts) + "\n"


def _tables(sweep: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of all runs, and that of failures.

    Raises:
        InputError: one that cannot be read, or lacks a column or a number.
    """
    tables = []
    for name, columns in zip(FILES[:2], ({"run", "method", *_NUMBERS}, {"failed"}), strict=True):
        try:
            tables.append(read_csv(sweep / name, dtype=str))
            for column in columns:
                tables[-1][column].map(_number if column in _NUMBERS else str)
        except (OSError, ValueError, KeyError):
            raise InputError(f"{sweep / name} is damaged or was changed: run `cmm sweep` again") from None
    return tables[0], tables[1]


_NUMBERS = ("overall", "worst_10", "gain_overall", "gain_worst_10")


def _shown(name: str) -> str:
    return name.replace("_", " ")


def _number(value: str) -> float | None:
    return float(value) if value else None


def _percent(value: str) -> str:
    return percent(_number(value))


def _gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each method gains over the base prompt, in the runs that have it."""
    rows = []
    for method, own in table[table["method"] != ""].groupby("method", sort=False):
        overall, worst = (np.array([float(v) for v in own[name] if v]) for name in _NUMBERS[2:])
        medians = [points(float(np.median(gained)) if len(gained) else None) for gained in (overall, worst)]
        span = points_interval((worst.min(), worst.max())) if len(worst) else MISSING
        rows.append((display_name(str(method)), str(len(own)), *medians, span))
    columns = ["method", "runs", "overall (median)", "worst 10 (median)", "worst 10, lowest to highest"]
    return pd.DataFrame([row for row in rows if row[0] != display_name("base")], columns=columns)


def _comparisons(runs: Sequence[Path]) -> list[str]:
    """For the runs that have the same classes: how far they agree on the worst ones, and which are so everywhere."""
    groups: dict[tuple[str, ...], list[run_comparison.RunSummary]] = {}
    without = []
    for run in runs:
        try:
            side = run_comparison.of_folder(run)
        except run_comparison.ChaptersMissing:
            without.append(run.name)
            continue
        group = groups.setdefault(tuple(sorted(side.classnames)), [])
        group.append(side.in_order(group[0].classnames) if group else side)
    parts = []
    for sides in (group for group in groups.values() if _comparable(group)):
        k = min(WORST, *(side.n_ranked for side in sides))
        pairs = [value for value in run_comparison.agreement(sides, k)["spearman"] if value is not None]
        everywhere = names([sides[0].classnames[c] for c in run_comparison.worst_everywhere(sides, k)])
        parts += [
            "## Runs with the same classes",
            f"{len(sides)} runs have the {len(sides[0].classnames)} classes of {plain(sides[0].run)}. "
            f"Rank correlation of class accuracies between two of them, in the median: "
            f"{decimal(float(np.median(pairs)) if pairs else None)}. "
            f"Classes among the {k} worst of every run: {everywhere or 'none'}.",
        ]
    if without:
        parts.append(f"Without chapters 1 and 2, and so not compared by class: {names(without)}.")
    return parts


def _comparable(sides: Sequence[run_comparison.RunSummary]) -> bool:
    return len(sides) > 1 and sides[0].accuracy is not None and run_comparison.same_classes(sides)


def _run_page(run: Path) -> str:
    manifest, results = read_run(run)
    study = {name: value for name, value in manifest["study"].items() if value is not None}
    facts = pd.DataFrame({"parameter": [_shown(name) for name in study], "value": [str(v) for v in study.values()]})
    parts = [f"# {plain(run.name)}", table_html(facts)]
    if results.get("ensembles"):
        parts += ["## Methods", table_html(_methods(results["ensembles"]))]
    if (suspects := _suspects(run / PER_CLASS)) is not None:
        parts += ["## Classes that CMM suspects most", table_html(suspects)]
    for name in FIGURES:
        if (run / "figures" / f"{name}.svg").is_file():
            parts.append(f"```{{figure}} {run.name}/figures/{name}.svg\n{_shown(name).capitalize()}.\n```")
    made = [name for name in (PER_CLASS, RESULTS) if (run / name).is_file()]
    parts.append(" · ".join(f"{{download}}`{name} <{run.name}/{name}>`" for name in made))
    return "\n\n".join(parts) + "\n"


def _methods(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": [display_name(row["name"]) for row in rows],
            "overall": [percent(row["overall"]) for row in rows],
            "worst 10": [percent(row["worst"].get("10")) for row in rows],
            "classes at 0": [str(row["zero_classes"]) for row in rows],
        }
    )


def _suspects(file: Path) -> pd.DataFrame | None:
    """The classes of lowest CMM; None of a run whose chapter 2 did not run."""
    table = read_csv(file, dtype=str) if file.is_file() else pd.DataFrame()
    if "cmm_soft" not in table:
        return None
    lowest = table.assign(cmm_soft=table["cmm_soft"].astype(float)).sort_values("cmm_soft", kind="stable").head(WORST)
    shown = {"class": lowest["class_name"], "CMM": [decimal(value, 3) for value in lowest["cmm_soft"]]}
    if "accuracy" in lowest:
        shown["accuracy"] = [_percent(value) for value in lowest["accuracy"]]
    return pd.DataFrame(shown)
