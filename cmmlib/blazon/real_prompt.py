"""REAL-prompt (Parashar et al. 2024, arXiv 2401.12425) in the embedded world: the most frequent synonyms for a name."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cmmlib.blazon.heraldry import Arms, article, plural


def frequent_wordings(table: pd.DataFrame) -> dict[str, str]:
    """For every term the wording that training read most often under a picture that shows the thing.

    Args:
        table: `card.load_frequencies`; the name itself wins a tie.
    """
    order = table.sort_values(["shown", "is_name"], ascending=False, kind="stable")
    first = order.drop_duplicates("term")
    return {str(term): str(wording) for term, wording in zip(first["term"], first["wording"], strict=True)}


def real_name(arms: Arms, wordings: Mapping[str, str]) -> str:
    """The name of a coat of arms with every term in its most frequent wording.

    The paper puts one synonym in place of a class's name, the one that its search counts most often in the captions of
    LAION. Deviation: names here are made of several terms, so each is replaced on its own, and the word order of the
    name stays; counts are exact, and only of captions whose picture shows the thing. A roundel, which has a special
    name with its colour, is worded by charge and colour.

    >>> arms = Arms("gules", charge="mullet", tincture="or", count=3)
    >>> real_name(arms, {"gules": "red", "mullet": "star", "or": "gold"})
    'red, three stars gold'

    Args:
        wordings: `frequent_wordings`; a term without one keeps its name.
    """

    def worded(term: str | None) -> str:
        return wordings.get(term or "", term or "")

    field = worded(arms.field)
    if arms.division:
        field = f"{worded(arms.division)} {field} and {worded(arms.second)}"
    if arms.charge is None:
        return field
    noun = worded(arms.charge)
    counted = f"three {plural(noun)}" if arms.count == 3 else article(noun)
    return f"{field}, {counted} {worded(arms.tincture)}"
