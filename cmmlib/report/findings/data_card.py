"""Sentences and tables of the data card: of the embedded world's images, names and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cmmlib.blazon.drawing.render import draw
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, terms_of
from cmmlib.blazon.language import captions
from cmmlib.blazon.language.plain_english import COLOURS, FIGURES, plain_english
from cmmlib.report.formatting import counted, name, percent
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

SHOWN_FIRST = ("or", "argent", "gules", "azure", "vert", "purpure", "sable")  # the colours that a reader meets most
FEW_IMAGES = 24

# ---------------------------------------------------------------- the data card


def six_shields(run: Run, n: int = 6) -> list[tuple[np.ndarray, str, str]]:
    """Classes that show together as many colours and kinds of shields as they can, for `plots.shields`.

    Returns:
        (an evaluation image, the class name, its plain English) for each, one at least.
    """
    arms, first = _arms(run), _first_images(run)
    there = sorted(first)
    chosen, seen = [], set()
    while there and len(chosen) < n:
        best = max(there, key=lambda c: len(_worth_seeing(arms[c]) - seen))
        seen |= _worth_seeing(arms[best])
        chosen.append(best)
        there.remove(best)
    return [(first[c], run.classnames[c], plain_english(arms[c])) for c in chosen]


def _arms(run: Run) -> list[Arms]:
    return run.pictures.arms  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]


def _first_images(run: Run) -> dict[int, np.ndarray]:
    """Class -> its first image, of the classes that have one."""
    assert run.pictures is not None
    assert run.labels is not None
    first = dict(reversed([(c, i) for i, c in enumerate(run.labels.tolist())]))
    return {c: np.asarray(run.pictures.read(i)) for c, i in first.items()}


def _worth_seeing(arms: Arms) -> set[str]:
    """What one shield of six teaches: its first colours, its kind, whether it has three figures."""
    kind = CHARGES[arms.charge].kind if arms.charge else "division"
    return (terms_of(arms) & {*SHOWN_FIRST, arms.division, arms.charge}) | {kind, f"{arms.count} of them"}


def some_images(run: Run, n: int = FEW_IMAGES) -> tuple[list[np.ndarray], list[str]]:
    """One image of each of some classes, and its caption: the class name and its plain English."""
    first, arms = _first_images(run), _arms(run)
    some = sorted(first)[:: max(1, len(first) // n)][:n]
    return [first[c] for c in some], [f"{run.classnames[c]}: {plain_english(arms[c])}" for c in some]


@titled("The data set")
def data_facts(run: Run) -> pd.DataFrame:
    """What the data set of this run is, a row a fact."""
    assert run.labels is not None
    sizes = run.labels.bincount(minlength=run.n_classes)
    low, high = int(sizes.min()), int(sizes.max())
    per_class = f"{low}" if low == high else f"{low} to {high}"
    rows = {
        "classes": f"{run.n_classes:,}",
        "evaluation images": f"{len(run.labels):,}, {per_class} of each class, 64 by 64 pixels",
        "seed": f"{run.study.seed}; another seed draws other images of the same classes",
        "class list": "one fixed file; blazon:7 as a data set is another list, drawn with seed 7",
        "labels": "exact: the picture was painted from its class",
        "people, places, personal data": "none",
    }
    return fact_table(rows)


def fact_table(rows: Mapping[str, str]) -> pd.DataFrame:
    """A row a fact: what it is of, and its value."""
    return pd.DataFrame({"what": rows.keys(), "value": rows.values()})


def kinds_of_classes(run: Run) -> str:
    """How many classes show a small figure, a band that spans the shield, or a divided field alone."""
    kinds = [CHARGES[arms.charge].kind if arms.charge else "division" for arms in _arms(run)]
    n = {kind: kinds.count(kind) for kind in ("small", "ordinary", "division")}
    return (
        f"of {counted(len(kinds), 'class', 'classes')} {n['small']} show small figures, {n['ordinary']} a band or "
        f"similar that spans the shield, and {n['division']} a divided or patterned field."
    )


def drawn_charges() -> tuple[list[np.ndarray], list[str]]:
    """Every charge, drawn in red on silver, and its caption."""
    drawn = [draw(Arms("argent", charge=term, tincture="gules")) for term in CHARGES]
    return drawn, [f"{term}: {FIGURES[term]}" for term in CHARGES]


def drawn_fields() -> tuple[list[np.ndarray], list[str]]:
    """Every division, in blue and gold, then every tincture, and their captions."""
    drawn = [draw(Arms("azure", term, "or")) for term in DIVISIONS] + [draw(Arms(term)) for term in TINCTURES]
    words = [f"{term}: {division.plain[0]}" for term, division in DIVISIONS.items()]
    return drawn, words + [f"{term}: {COLOURS[term]}" for term in TINCTURES]


def vocabulary() -> str:
    """How many charges, divisions and tinctures there are."""
    return (
        f"{counted(len(CHARGES), 'charge')}, {len(DIVISIONS)} divisions and patterns, and "
        f"{counted(len(TINCTURES), 'tincture')}."
    )


@titled("Where the training captions come from")
def caption_sources() -> pd.DataFrame:
    """Kinds of captions and their shares."""
    rows = [(source, percent(share, 0)) for source, share in captions.SOURCES.items()]
    return pd.DataFrame(rows, columns=["source", "share of captions"])


@titled("Captions of some training images")
def captions_of(examples: Sequence[tuple[np.ndarray, Sequence[str]]], n: int = 2) -> pd.DataFrame:
    """The first captions of some training images, numbered as their picture is."""
    rows = [(number, text) for number, (_, texts) in enumerate(examples, 1) for text in texts[:n]]
    return pd.DataFrame(rows, columns=["image", "caption"])


def _charges_read(frequencies: pd.DataFrame) -> pd.DataFrame:
    """Rows of the charges' names, the least read first, with the readings of `plain` words beside them."""
    charges = frequencies.query("kind == 'charge'")
    words, rows = charges.query("not is_name"), charges.query("is_name").sort_values(["shown", "term"])
    plain = [int(words.loc[words["term"] == term, "shown"].to_numpy(int).sum()) for term in rows["term"]]
    return rows.assign(plain=plain).set_index("term")


@titled("How often names were read")
def names_read(frequencies: pd.DataFrame) -> pd.DataFrame:
    """How often each charge was pictured, and its name and plain words for it were read.

    Args:
        frequencies: `card.load_frequencies`.
    """
    rows = _charges_read(frequencies)
    columns = {
        "pictures": "pictures",
        "shown": "name read",
        "not_shown": "name read elsewhere",
        "plain": "plain words read",
    }
    spelled = {head: rows[column].map("{:,}".format) for column, head in columns.items()}
    return pd.DataFrame({"name": rows.index, "in plain English": [FIGURES[term] for term in rows.index], **spelled})


def least_and_most_read(frequencies: pd.DataFrame) -> str:
    """The charges whose names were read least and most; and names read more often under other pictures."""
    rows = _charges_read(frequencies)
    read, elsewhere, pictures = (rows[column].to_numpy(int) for column in ("shown", "not_shown", "pictures"))
    least, most = str(rows.index[0]), str(rows.index[-1])
    other = int((elsewhere > read).sum())
    return (
        f"the least read name, {name(least)}, stood {_times(int(read[0]))} under a picture that shows "
        f"it, of {pictures[0]:,} such pictures; the most read, {name(most)}, "
        f"{_times(int(read[-1]))}. {counted(other, 'name')} of {len(rows)} stood more often under other pictures."
    )


def _times(n: int) -> str:
    return counted(n, "time")
