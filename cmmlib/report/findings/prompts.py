"""Sentences and tables of chapter 2: which prompts CMM prefers. `cmm` has the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

import cmmlib.functional as F
from cmmlib.report.findings.cmm import compared
from cmmlib.report.formatting import decimal, percent, plain, signed
from cmmlib.report.titles import titled

FORMS = {"cmm_mean": "plain", "cmm_mean_scale_free": "scale-free"}


@titled("Every prompt of the pool, by its mean CMM")
def prompt_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """`tables.prompt_table` with its numbers spelled, the highest plain CMM first; empty columns left out."""
    spelled = {"overall": percent, "worst_10": percent, **dict.fromkeys(FORMS, signed)}
    if (prompts["worst_10"].to_numpy(float) == 0).all():  # then the column tells nothing
        prompts = prompts.drop(columns="worst_10")
    ordered = prompts.sort_values("cmm_mean", ascending=False, kind="stable").dropna(axis=1, how="all")
    return ordered.assign(**{column: ordered[column].map(spelled[column]) for column in ordered if column in spelled})


def prompts_said(prompts: pd.DataFrame) -> str:
    """The prompt that each form of CMM prefers; with labels, how well either ranks the prompts and what is the best.

    Args:
        prompts: `tables.prompt_table`.
    """
    rows, chosen = prompts.to_dict("records"), _preferred(prompts)
    if all(row["overall"] is None for row in rows):
        return f"{chosen}."
    best = max(row["overall"] for row in rows)
    first = [f'"{plain(row["prompt"])}"' for row in rows if percent(row["overall"], 3) == percent(best, 3)]
    most = f"{first[0]} and {len(first) - 1} more" if len(first) > 1 else first[0]
    preferred = f"{chosen[0].upper()}{chosen[1:]}"
    return f"{_rank_correlations(rows)} {preferred}. The labels say which is best: {most}, at {percent(best)}."


def _preferred(prompts: pd.DataFrame) -> str:
    rows = prompts.to_dict("records")
    chosen = [int(prompts[column].to_numpy(float).argmax()) for column in FORMS]
    plainly, free = (
        f'"{plain(row["prompt"])}"' + ("" if row["overall"] is None else f" ({percent(row['overall'])})")
        for row in (rows[p] for p in chosen)
    )
    if chosen[0] == chosen[1]:
        return f"both forms of CMM prefer the prompt {plainly}"
    return f"plain CMM prefers the prompt {plainly}, scale-free CMM {free}"


SMALL = 0.1  # a difference of rank correlations over some dozens of prompts that chance makes easily


def _rank_correlations(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Rank correlations of both forms with overall accuracy, and which is higher."""
    overall, *scores = (torch.tensor([row[c] for row in rows], dtype=torch.float64) for c in ("overall", *FORMS))
    plainly, free = (F.spearman(score, overall) for score in scores)
    if plainly is None or free is None:
        return "there is no rank correlation of CMM and accuracy, since one of the two is the same for all prompts."
    few = " (of two prompts it can only be 1 or -1)" if len(rows) == 2 else ""
    better = compared(plainly, free, 0, "the plain form ranks", "the scale-free form ranks", "neither form ranks")
    small = ", by too little to count on" if "neither" not in better and abs(plainly - free) < SMALL else ""
    return (
        f"the rank correlation of CMM with the accuracy of {len(rows)} prompts{few} is {decimal(plainly)} in the plain "
        f"form and {decimal(free)} in the scale-free form: {better} them better{small}."
    )
