"""`cmm compare`: finished runs side by side as text for a terminal, and what of them is not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cmmlib.errors import InputError
from cmmlib.evaluation.run_comparison import (
    GAIN_OF,
    RunSummary,
    agreement,
    gains,
    of_folder,
    overview,
    same_classes,
    with_distinct_names,
    worst_everywhere,
)


def read_summaries(folders: Sequence[Path], k: int | None = None) -> list[RunSummary]:
    """The sides of two or more run folders.

    Args:
        k: size of the worst sets that somebody asked for.

    Raises:
        InputError: fewer than two, one twice, a folder that is no run, or one of fewer than `k` classes with images.
    """
    if len(folders) < 2:
        raise InputError("compare: name two or more run folders, as in cmm compare runs/FIRST runs/SECOND")
    sides = [of_folder(folder) for folder in folders]
    if len({side.run for side in sides}) < len(sides):
        raise InputError("compare: one run is named twice: name different ones")
    smallest = min(sides, key=lambda side: side.n_ranked)
    if k is not None and k > smallest.n_ranked:
        most, kind = smallest.n_ranked, "classes" if smallest.accuracy is None else "classes with images"
        raise InputError(f"--worst-k: {k} is more than the {most} {kind} of {smallest.run}: give at most {most}")
    return with_distinct_names([side.in_order(sides[0].classnames) for side in sides])


def comparison_text(sides: Sequence[RunSummary], k: int) -> str:
    """The comparison as text for a terminal, percent; class by class only where all runs have the same classes."""
    shown = overview(sides, k)
    for column in ("overall", "worst", "gap"):
        shown[column] = 100 * shown[column].astype(float)
    parts = [_text(shown.rename(columns={"worst": f"worst {k}"}))] if len(shown) else []
    parts += [line + "\n" for line in remarks(sides, k)]
    if same_classes(sides):
        parts.append(_text(agreement(sides, k)))
        names = [sides[0].classnames[c] for c in worst_everywhere(sides, k)]
        parts.append(f"among the {k} worst everywhere: {', '.join(names) or 'no class'}\n")
    gained = gains(sides)
    wide = 100 * gained.pivot_table("gain_worst_10", "method", "run", sort=False) if len(gained) else gained
    if len(wide):
        parts.append("gain in the worst 10 classes, points\n" + _text(wide.reset_index()))
    return "\n".join(parts)


def remarks(sides: Sequence[RunSummary], k: int) -> list[str]:
    """Lines on what some runs cannot have, or do not have yet, and so is not compared."""
    without = [side.name for side in sides if side.accuracy is None]
    lines = [f"without accuracies, so compared by CMM alone: {', '.join(without)}"] if without else []
    few = {size: [f"{s.name} ({s.n_ranked})" for s in sides if s.n_ranked < size] for size in sorted({k, GAIN_OF})}
    lines += [f"fewer than {size} classes to rank: {', '.join(names)}" for size, names in few.items() if names]
    lines += unfinished(sides)
    if not same_classes(sides):
        lines.append("these runs have different classes, so none is compared class by class")
    if len({side.facts["data"].get("digest") for side in sides}) > 1:
        images = "; ".join(f"{side.name}: {_images(side.facts['data'])}" for side in sides)
        lines.append(f"these runs have different images: {images}")
    return lines


def _images(data: Mapping[str, Any]) -> str:
    """`1,880 of dtd test`, of a manifest's `data`; an edited one may lack the number."""
    number = f"{data['n_images']:,} of" if data.get("n_images") else ""
    return " ".join(filter(None, (number, data["name"], data.get("split"))))


def unfinished(sides: Sequence[RunSummary]) -> list[str]:
    """A line a run of which chapter 4 did not run, with the command that completes it."""
    done_by = [f"{side.name}; to complete it: {side.completed_by}" for side in sides if side.completed_by]
    return [f"without chapter 4, so without its methods: {run}" for run in done_by]


def _text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.2f}".format, na_rep="n/a") + "\n"
