"""Wordy and partly wrong descriptions, generated: for class lists that no language model was asked about.

Settings are chosen on other class lists than the shipped one, and those need descriptions of the kind that language
models write: whole sentences, some of them about one part only, some empty, some wrong. Nothing that the book reports
about the shipped classes uses them: those descriptions were written by a language model, see `cmmlib/transcripts`.
"""

from __future__ import annotations

import random

from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, article, plural

WRONG = 0.12  # sentences about another figure or pattern
WHOLE = (
    "The shield is {field} and shows {charge}.",
    "A {field} shield with {charge} standing out against it.",
    "You can see {charge} placed on a {field} background.",
    "There is {charge} in the middle of a plain {field} shield.",
)
PART = (
    "The background of the shield is {field}.",
    "The figure on it is {charge}, drawn in flat colour.",
    "{Charge} can be seen clearly, with sharp edges.",
    "Only two colours are used, {field} and {tincture}.",
)
DIVIDED = (
    "The shield is {pattern} in {field} and {second}.",
    "{Field} and {second} alternate, {pattern}.",
    "A shield with {pattern}, coloured {field} and {second}.",
    "It has {pattern} from edge to edge.",
    "The two colours are {field} and {second}.",
)
EMPTY = (
    "It is typical of old family arms.",
    "The design is simple and easy to recognise from afar.",
    "The edges of the shield are outlined.",
)


def descriptions(arms: Arms, seed: int, n: int = 5) -> list[str]:
    """`n` different sentences, drawn from the seed."""
    rng = random.Random(f"wordy {seed} {arms}")
    forms = [*DIVIDED] if arms.division else [rng.choice(WHOLE), *rng.sample(PART, 3), rng.choice(WHOLE)]
    rng.shuffle(forms)
    texts = [_filled(form, arms, rng) for form in forms]
    if rng.random() < 0.5:
        texts[-1] = rng.choice(EMPTY)
    return list(dict.fromkeys(texts))[:n]


def _filled(form: str, arms: Arms, rng: random.Random) -> str:
    def plain(table, term: str | None) -> str:
        return rng.choice(table[term].plain)

    slip = rng.random() < WRONG
    words = {"field": plain(TINCTURES, arms.field)}
    if arms.division:
        words["pattern"] = plain(DIVISIONS, rng.choice(list(DIVISIONS)) if slip else arms.division)
        words["second"] = plain(TINCTURES, arms.second)
    if arms.charge:
        noun = plain(CHARGES, rng.choice(list(CHARGES)) if slip else arms.charge)
        tincture = plain(TINCTURES, arms.tincture)
        words["tincture"] = tincture
        words["charge"] = f"three {tincture} {plural(noun)}" if arms.count == 3 else article(f"{tincture} {noun}")
        words["Charge"] = words["charge"].capitalize()
    return form.format(Field=words["field"].capitalize(), **words)
