"""Tables of the lesson, from the files of a run: a few methods, and what the worst classes are taken for.

Chapters compare many methods in small letters; a lesson has time for few, and a projector needs large ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import join_names, percent, points
from cmmlib.study.run_files import read_columns

PER_CLASS, SHARES = "per_class.csv", ["accuracy", "share_taken_for"]
LOWEST = 6  # classes of which is told what they are taken for
ENSEMBLES = ("enriched_cmm", "cmm_templates")  # ours: the first that a run has
TEXTS = {  # method of chapter 4 -> which texts it has
    "base": "the base prompt alone",
    "uniform": "the mean of all templates",
    "enriched_replace": "descriptions in the place of the suspects' names",
    "enriched_cmm": "templates and descriptions, weighted by CMM",
    "cmm_templates": "templates, weighted by CMM",
}
CORRECTIONS = {  # of chapter 5
    "base": "no correction",
    "prior_matching": "one number is added to each class",
    "prototypes": "prior matching, and a mean image of each class",
}


class Table(NamedTuple):
    """HTML of a table, and Markdown of its main result."""

    html: str
    said: str = ""


def of_run(run: Path, results: Mapping[str, Any]) -> dict[str, Table]:
    """The tables that a run has: `texts`, `corrections`, `taken_for`."""
    methods = {row["name"]: row for row in results.get("ensembles") or []}
    own = next((name for name in ENSEMBLES if name in methods), "")
    corrected = {name: results.get(name) or methods.get(name) for name in CORRECTIONS}
    texts = {name: methods[name] for name in TEXTS if name in methods and name not in {*ENSEMBLES} - {own}}
    tables = {
        "texts": _compared(texts, TEXTS, [own]) if own else None,
        "corrections": _compared({k: row for k, row in corrected.items() if row}, CORRECTIONS, [*CORRECTIONS][1:]),
        "taken_for": _taken_for(run),
    }
    return {name: table for name, table in tables.items() if table}


def _compared(rows: Mapping[str, Any], words: Mapping[str, str], told: Sequence[str]) -> Table | None:
    """The base prompt and other methods: overall, in the worst classes of each, and in those that were worst before."""
    sizes = [k for k in ("10", "20", "5", "1") if all(row["worst"].get(k) is not None for row in rows.values())]
    is_known = all(row["overall"] is not None for row in rows.values())
    if len(rows) < 2 or "base" not in rows or not sizes or not is_known:
        return None
    k = next((k for k in sizes if any(row["worst"][k] for row in rows.values())), sizes[0])
    columns = {"overall": {name: row["overall"] for name, row in rows.items()}}
    columns[f"own worst@{k}"] = {name: row["worst"][k] for name, row in rows.items()}
    before = {name: row.get("base_worst_split_half", {}).get(k) for name, row in rows.items()}
    if None not in before.values():
        columns[f"old worst@{k}"] = before
    heads = [f"{display_name(name)}<small>{escape(words[name])}</small>" for name in rows]
    cells = [[column[name] for column in columns.values()] for name in rows]
    changes = [_changes(name, columns) for name in told if name in rows]
    said = f"**In this run:** beside the base prompt, in points: {'; '.join(changes)}. {_highest(columns)}"
    return Table(_html(["", *columns], heads, cells), f"{said}\n\n{_meaning(columns)}")


def _changes(name: str, columns: Mapping[str, Mapping[str, float]]) -> str:
    told = [f"{head} {points(column[name] - column['base'])}" for head, column in columns.items()]
    return f"*{display_name(name)}*: {', '.join(told)}"


def _highest(columns: Mapping[str, Mapping[str, float]]) -> str:
    told = []
    for head, column in columns.items():
        best = [name for name, value in column.items() if value == max(column.values())]
        names = "all are equal" if len(best) == len(column) else join_names([f"*{display_name(n)}*" for n in best])
        told.append(f"{head}, {names}")
    return f"The highest: {'; '.join(told)}."


def _meaning(columns: Mapping[str, Any]) -> str:
    meant = ("of the lowest classes of each method", "of those of the base prompt, on images that did not choose them")
    return "; ".join(f"*{head}*: {what}" for head, what in zip([*columns][1:], meant, strict=False)) + "."


def _taken_for(run: Path) -> Table | None:
    """The classes of lowest accuracy, and the class that took most of the images of each."""
    classes = read_columns(run / PER_CLASS)
    if classes is None or not {"class_name", "taken_for", *SHARES} <= {*classes}:
        return None
    classes[SHARES] = classes[SHARES].apply(pd.to_numeric, errors="coerce")
    order = ["accuracy", "share_taken_for", "class_name"]  # of equal accuracy the clearest; no order of classes decides
    lowest = classes.sort_values(order, ascending=[True, False, True])
    worst = lowest[(lowest["taken_for"] != "") & lowest[SHARES].notna().all(axis=1)].head(LOWEST)
    if worst.empty:
        return None
    pairs = zip(worst["class_name"], worst["taken_for"], strict=True)
    heads = [f"{escape(name)}<span> taken for </span>{escape(other)}" for name, other in pairs]
    return Table(
        _html(["", "recognised", "taken for it"], heads, list(zip(*(worst[share] for share in SHARES), strict=True)))
    )


def _html(columns: Iterable[str], heads: Iterable[str], cells: Iterable[Sequence[float]]) -> str:
    """A table whose numbers have bars behind them. `heads` are HTML, numbers are shares."""
    top = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = "".join(f"<tr><th>{head}</th>{_bars(row)}</tr>" for head, row in zip(heads, cells, strict=True))
    return f'<div class="rows"><table class="bars"><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def _bars(shares: Iterable[float]) -> str:
    return "".join(f'<td style="--part: {100 * share:.1f}%">{percent(share)}</td>' for share in shares)
