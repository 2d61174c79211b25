"""The pages of a sweep in the book: all its runs side by side, and a page for each."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cmmlib.errors import InputError
from cmmlib.evaluation import comparison_text, run_comparison
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import decimal, percent, plain
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
    table, failures = (read_csv(sweep / name, dtype=str) for name in FILES[:2])
    names = [name for name in table if name not in ("method", *_NUMBERS)]
    base = table[table["method"] == "base"]
    shown = pd.DataFrame({_shown(name): base[name] for name in names})
    for name in ("overall", "worst_10"):
        shown[display_name(name)] = [_percent(value) for value in base[name]]
    parts = [
        f"# All runs of {plain(sweep.name)}",
        f"{len(runs)} runs, each with a page of its own; percent, under the base prompt.",
        table_html(shown),
    ]
    if (sweep / FIGURE).is_file():
        parts.append(f"```{{figure}} {FIGURE}\nOverall accuracy and that of the ten worst classes, a point a run.\n```")
    parts += _comparisons(runs)
    if len(failures):
        told = failures.rename(columns={name: _shown(name) for name in failures})
        parts += ["## Studies that failed", table_html(told)]
    parts.append("All runs and methods: {download}`table.csv`.")
    return "\n\n".join(parts) + "\n"


_NUMBERS = ("overall", "worst_10", "gain_overall", "gain_worst_10")


def _shown(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: str) -> str:
    return percent(float(value)) if value else percent(None)


def _comparisons(runs: Sequence[Path]) -> list[str]:
    """What `cmm compare` says of the runs that have the same classes."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for run in runs:
        groups.setdefault(tuple(run_comparison.of_folder(run).classnames), []).append(run)
    parts = []
    for same in (group for group in groups.values() if len(group) > 1):
        sides = comparison_text.read_summaries(same)
        text = comparison_text.comparison_text(sides, min(10, *(side.n_ranked for side in sides)))
        parts += ["## Runs with the same classes", f"<pre>{html.escape(text)}</pre>"]
    return parts


def _run_page(run: Path) -> str:
    manifest, results = read_run(run)
    study = {name: value for name, value in manifest["study"].items() if value is not None}
    facts = pd.DataFrame({"parameter": [_shown(name) for name in study], "value": [str(v) for v in study.values()]})
    parts = [f"# {plain(run.name)}", table_html(facts)]
    if results.get("ensembles"):
        parts += ["## Methods", table_html(_methods(results["ensembles"]))]
    parts += ["## Classes that CMM suspects most", table_html(_suspects(run / PER_CLASS))]
    for name in FIGURES:
        if (run / "figures" / f"{name}.svg").is_file():
            parts.append(f"```{{figure}} {run.name}/figures/{name}.svg\n{_shown(name).capitalize()}.\n```")
    parts.append(
        f"{{download}}`per_class.csv <{run.name}/{PER_CLASS}>` · {{download}}`results.json <{run.name}/{RESULTS}>`"
    )
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


def _suspects(file: Path) -> pd.DataFrame:
    table = read_csv(file, dtype=str)
    lowest = table.assign(cmm_soft=table["cmm_soft"].astype(float)).sort_values("cmm_soft", kind="stable").head(WORST)
    shown = {"class": lowest["class_name"], "CMM": [decimal(value, 3) for value in lowest["cmm_soft"]]}
    if "accuracy" in lowest:
        shown["accuracy"] = [_percent(value) for value in lowest["accuracy"]]
    return pd.DataFrame(shown)
