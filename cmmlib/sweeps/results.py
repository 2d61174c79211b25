"""What a sweep leaves: a table of all runs and methods, the failures, a figure, and which study became which run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cmmlib.errors import InputError
from cmmlib.evaluation import run_comparison
from cmmlib.report.formatting import DEFAULT
from cmmlib.storage.cache import whole_file
from cmmlib.storage.csv_files import write_csv
from cmmlib.study.run_files import SWEEP, read_run, write_json
from cmmlib.study.study import Study
from cmmlib.sweeps.plan import shown, varied

TABLE, FAILURES, FIGURE = "table.csv", "failures.csv", "overall_and_worst"
COLUMNS = ("method", "overall", "worst_10", "gain_overall", "gain_worst_10")
WAITING: Mapping[str, Any] = {"run": None, "failed": "not run yet", "seconds": None}


def write_results(
    folder: Path, studies: Sequence[Study], outcomes: Mapping[Study, Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[Study, str]]:
    """Write what is known so far.

    Returns:
        The table, a row a run and method after the parameters that differ (a run without labels has its row too,
        without numbers), and the studies that have no row, each with its reason.
    """
    names = varied(studies)
    rows, failures, entries = [], {}, []
    runs: set[str | None] = {None}  # that have their rows
    for study in studies:
        outcome, own = outcomes.get(study, WAITING), shown(study, names)
        failed = outcome["failed"]
        try:
            if outcome["run"] not in runs:
                rows += [{**own, "run": Path(outcome["run"]).name, **r} for r in _rows(outcome["run"])]
                runs.add(outcome["run"])
        except InputError as error:  # changed by hand
            failed = str(error)
        if failed:
            failures[study] = failed
        entries.append({"study": shown(study, sorted(study.model_fields_set)), **_within(outcome), "failed": failed})
    table = pd.DataFrame(rows, columns=[*names, "run", *COLUMNS], dtype=object)  # whole numbers stay so beside none
    write_json(folder / SWEEP, {"schema_version": 1, "studies": entries})
    failed = [{**shown(study, names), "failed": reason} for study, reason in failures.items()]
    for name, found in ((TABLE, table), (FAILURES, pd.DataFrame(failed, columns=[*names, "failed"], dtype=object))):
        with whole_file(folder / name) as temporary:
            write_csv(found, temporary)
    return table, failures


def _within(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The outcome with the run's place within the sweep's folder."""
    return {**outcome, "run": None if outcome["run"] is None else f"runs/{Path(outcome['run']).name}"}


def _rows(run: str) -> list[dict[str, Any]]:
    """The base prompt and every method of a run; of one without chapter 2, the base prompt alone."""
    try:
        found = run_comparison.gains([run_comparison.of_folder(Path(run))]).to_dict("records")
    except run_comparison.ChaptersMissing:
        accuracy = read_run(Path(run))[1].get("accuracy")
        base = accuracy and {"overall": accuracy["overall"], "worst_10": accuracy["worst"].get("10")}
        found = [{**dict.fromkeys(COLUMNS), **base, "method": "base"}] if base else []
    return [{name: row[name] for name in COLUMNS} for row in found] or [dict.fromkeys(COLUMNS)]


def draw(folder: Path, table: pd.DataFrame) -> None:
    """The base prompt of every run with worst classes to tell, coloured by the first parameter that differs."""
    base = table.assign(worst=table["worst_10"]).query("method == 'base'").dropna(subset=["overall", "worst"])
    if base.empty:
        return
    import matplotlib.pyplot as plt

    from cmmlib.report.plots.style import save, save_svg
    from cmmlib.report.plots.sweeps import overall_and_worst

    group = str(table.columns[0])
    values = [DEFAULT if pd.isna(value) else str(value) for value in base[group]]
    figure = overall_and_worst(base.assign(**{group: values}), group, run_comparison.GAIN_OF)
    save_svg(figure, folder, FIGURE)
    with whole_file(folder / f"{FIGURE}.png") as temporary:
        save(figure, temporary, dpi=200)
    plt.close(figure)
