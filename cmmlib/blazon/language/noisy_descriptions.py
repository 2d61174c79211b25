"""Wordy and partly wrong descriptions, generated: for class lists that no language model was asked about.

Settings are chosen on other class lists than the shipped one, and those need descriptions of the kind that language
models write: one sentence about the whole, then sentences about one part, often without a colour, some empty, some
wrong. (Of the recorded sentences 45 in 100 name no colour and 33 name two; of these, 50 and 25.) Nothing that the book
reports about the shipped classes uses them: those descriptions were written by a language model, see
`cmmlib/transcripts`.
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
FIGURE = (
    "The {noun} is in the middle of the shield.",
    "The {noun} is drawn flat, with clean and sharp edges.",
    "The only figure is the {noun}; there are no other symbols.",
    "The outline of the {noun} is easy to see.",
    "The figure on it is {charge}.",
)
GROUND = (
    "The background of the shield is {field}.",
    "Everything around the {noun} is plain {field}.",
    "The rest of the surface is {field}, without a pattern.",
)
DIVIDED_WHOLE = (
    "The shield is {pattern} in {field} and {second}.",
    "{Field} and {second} alternate, {pattern}.",
    "A shield with {pattern}, coloured {field} and {second}.",
)
DIVIDED_PART = (
    "It has {pattern} from edge to edge.",
    "The lines between the parts are straight: {pattern}.",
    "The two colours are {field} and {second}.",
    "One of the two colours is {field}.",
    "The other parts are {second}.",
)
EMPTY = (
    "It is typical of old family arms.",
    "The design is simple and easy to recognise from afar.",
    "The edges of the shield are outlined.",
)


def descriptions(arms: Arms, seed: int, n: int = 5) -> list[str]:
    """`n` different sentences, drawn from the seed."""
    rng = random.Random(f"wordy {seed} {arms}")
    if arms.division:
        forms = [rng.choice(DIVIDED_WHOLE), *rng.sample(DIVIDED_PART, 3)]
    else:
        forms = [rng.choice(WHOLE), *rng.sample(FIGURE, 2), rng.choice(GROUND)]
    texts = [_filled(form, arms, rng) for form in [*forms, rng.choice(EMPTY)]]
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
        words["noun"] = f"three {plural(noun)}" if arms.count == 3 else noun
        words["charge"] = f"three {tincture} {plural(noun)}" if arms.count == 3 else article(f"{tincture} {noun}")
    return form.format(Field=words["field"].capitalize(), **words)
