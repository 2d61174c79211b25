"""Sentences and tables of chapter 6: which failing classes the two repairs reach."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cmmlib import functional as F
from cmmlib.blazon import anatomy
from cmmlib.report.formatting import (
    counted,
    name,
    names,
    percent,
    plain,
)
from cmmlib.report.titles import titled

SHOWN = 20  # names in a list of a sentence, at most


def described(n: int, suspects: Sequence[int]) -> str:
    """How many of the suspects have descriptions; without any, the ensemble is of templates alone."""
    if not n:
        return (
            f"no description is known of {counted(len(suspects), 'suspect')}, so the ensemble weighs templates alone."
        )
    return f"descriptions are known of {n} of {counted(len(suspects), 'suspect')}."


def real_prompt(
    classnames: Sequence[str], renamed: Sequence[str], before: Float[Tensor, "C"], after: Float[Tensor, "C"]
) -> str:
    """What the most frequent wordings in place of the names change, class by class, under one template.

    Args:
        renamed: every class's name in its most frequent wordings.
        before: accuracies by name.
        after: accuracies by those wordings.
    """
    failing = (before < anatomy.FAILING).nonzero()[:, 0]
    changed = sum(old != new for old, new in zip(classnames, renamed, strict=True))
    told = f"{changed} of {counted(len(classnames), 'class', 'classes')} have another wording."
    if not len(failing):
        return told
    lifted = int((after[failing] >= anatomy.FAILING).sum())
    lowest = int(before.nan_to_num(2.0).argmin())
    means, worst = ([percent(of(x)) for x in (before, after)] for of in (_mean, lambda x: F.worst_at_k(x, 10)))
    return (
        f'{told} For example "{plain(classnames[lowest])}" becomes "{plain(renamed[lowest])}", and goes from '
        f"{percent(float(before[lowest]))} to {percent(float(after[lowest]))}. Of "
        f"{counted(len(failing), 'failing class', 'failing classes')} the wordings lift {lifted} to half or more; the "
        f"mean over all classes goes from {' to '.join(means)}, that of the worst 10 from {' to '.join(worst)}."
    )


def _mean(accuracy: Float[Tensor, "C"]) -> float:
    return float(accuracy.nanmean())


def repaired(failing: pd.DataFrame, weakest: Sequence[str]) -> str:
    """How many failing classes CMM suspects, and how many each repair lifts.

    Args:
        failing: see `anatomy.fates`.
        weakest: the weakest name of every row.
    """
    if not len(failing):
        return "no class fails: all are right at least half of the time."
    repair = anatomy.repaired_by(failing["described"].to_numpy(float), failing["prior_matched"].to_numpy(float))
    n = {kind: int((repair == kind).sum()) for kind in anatomy.REPAIRS}
    suspected = failing["suspected"].to_numpy(bool)
    left = sorted({weak for weak, kind in zip(weakest, repair, strict=True) if kind == "neither"})
    unseen = int((~suspected & (repair == "neither")).sum())
    told = (
        f"of {counted(len(failing), 'failing class', 'failing classes')} {_are(int(suspected.sum()))} among "
        f"the suspects of CMM. The ensemble lifts {n['both'] + n['description']} to half or more, prior matching "
        f"{n['both'] + n['prior matching']}: both {n['both']}, only the ensemble {n['description']}, "
        f"only prior matching {n['prior matching']}, neither {n['neither']}."
    )
    if not n["neither"]:
        return told
    of_these = counted(n["neither"], "class", "classes")
    return (
        f"{told} The weakest names of those left: {_some(left)}. Of the {of_these} left, CMM did not suspect {unseen}."
    )


def _some(terms: Sequence[str]) -> str:
    if len(terms) <= SHOWN:
        return names(terms)
    return f"{', '.join(map(name, terms[:SHOWN]))} and {len(terms) - SHOWN} more"


def _are(n: int) -> str:
    return f"{n} is" if n == 1 else f"{n} are"


@titled("Mean accuracy of the failing classes under each repair")
def means_of_fates(fates: pd.DataFrame) -> pd.DataFrame:
    """Failing classes by the kind of their weakest name: counts, and mean accuracies in each way."""
    columns = {"by_name": "by name", "described": "with the ensemble", "prior_matched": "with prior matching"}
    shown = fates[["weakest_name", "failing", "suspected"]]
    return shown.assign(**{head: fates[column].map(percent) for column, head in columns.items()})


@titled("Failing classes that each repair lifts to half or more")
def repairs_of_fates(fates: pd.DataFrame) -> pd.DataFrame:
    """The same classes: how many each repair lifts."""
    heads = {"both": "both", "description": "only the ensemble", "prior matching": "only prior matching"}
    columns = {name: fates[name] for name in ("weakest_name", *anatomy.REPAIRS)}
    return pd.DataFrame({heads.get(name, name): column for name, column in columns.items()})


def reach(failing: pd.DataFrame) -> str:
    """Whether the two repairs lift different failing classes. `failing` as in `repaired`; empty where none fails."""
    if not len(failing):
        return ""
    repair = anatomy.repaired_by(failing["described"].to_numpy(float), failing["prior_matched"].to_numpy(float))
    *only, both = (int((repair == kind).sum()) for kind in ("description", "prior matching", "both"))
    if all(only):
        return (
            f"Each repair lifts some failing classes to half that the other does not: the ensemble {only[0]}, prior "
            f"matching {only[1]}; both lift {both}."
        )
    if any(only):
        reaching, other = ("the ensemble", "prior matching") if only[0] else ("prior matching", "the ensemble")
        return f"Whatever {other} lifts to half or more, {reaching} lifts too, and more."
    return (
        "The two repairs lift the same classes."
        if (repair == "both").any()
        else "Neither repair lifts any class to half."
    )
