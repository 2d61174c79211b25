"""How often a training run read each name and each plain wording, and in which sense: the anatomy of a failure.

Counted in what the model was given: the tokens of every pair it saw, decoded. A wording is counted twice over, once for
captions whose picture shows the thing and once for the others: *mullet* under a star, and *mullet* under a fish.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, ROUNDELS, TINCTURES, Arms, plural, terms_of

COLUMNS = ["term", "kind", "wording", "is_name", "pictures", "shown", "not_shown"]


def frequencies(pairs: Iterable[tuple[Arms, np.ndarray]], tokenizer) -> pd.DataFrame:
    """A row for each term and wording.

    Args:
        pairs: coat of arms and tokens [28] of every picture-caption pair, as often as it was seen.
        tokenizer: blazon-mini's.

    Returns:
        Columns `term` (the heraldic name), `kind` (tincture, charge, division, roundel), `wording` (the name itself or
        plain words for the same thing), `is_name`, `pictures` (pairs whose picture shows the thing), `shown` and
        `not_shown` (captions with the wording, under a picture that shows the thing or does not).
    """
    wordings = list(_wordings())
    of_words: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for term, _, wording, forms in wordings:
        for form in forms:
            of_words.setdefault(_words(form), set()).add((term, wording))
    longest = max(map(len, of_words))
    pictures, shown, not_shown = Counter(), Counter(), Counter()
    decoded: dict[bytes, set[tuple[str, str]]] = {}
    for arms, tokens in pairs:
        key = tokens.tobytes()
        if key not in decoded:
            decoded[key] = _found(_words(_decode(tokens, tokenizer)), of_words, longest)
        there = terms_of(arms)
        pictures.update(there)
        for term, wording in decoded[key]:
            (shown if term in there else not_shown)[term, wording] += 1
    rows = [
        (term, kind, wording, wording == term, pictures[term], shown[term, wording], not_shown[term, wording])
        for term, kind, wording, _ in wordings
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _wordings() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(term, kind, wording, its forms): the names first, then plain words."""
    for kind, table in (("tincture", TINCTURES), ("charge", CHARGES), ("division", DIVISIONS)):
        for term, thing in table.items():
            for wording in dict.fromkeys((term, *thing.plain)):
                forms = (wording, plural(wording)) if kind == "charge" else (wording,)
                yield term, kind, wording, forms
    for term in ROUNDELS.values():
        yield term, "roundel", term, (term, plural(term))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", text.lower()))


def _decode(tokens: np.ndarray, tokenizer) -> str:
    special = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    return tokenizer.decode([t for t in tokens.tolist() if t not in special])


def _found(words: tuple[str, ...], of_words, longest: int) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for start in range(len(words)):
        for stop in range(start + 1, min(start + longest, len(words)) + 1):
            found |= of_words.get(words[start:stop], set())
    return found
