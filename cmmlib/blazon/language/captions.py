"""Captions: a noisy, long-tailed web about shields.

Most captions are plain English and partial: only the charge, only the field, a colour left out. Some are in the
heraldic register, where a term appears with its own *familiarity* and is otherwise replaced by plain words. A few are
wrong, a few are junk, and words occur in their other sense (a mullet is a fish, a pile is scrap, plates hang on
walls). The familiarities come from one draw over all terms; no class is treated on its own.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping

from cmmlib.blazon.drawing.render import Scene
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, ROUNDELS, TINCTURES, Arms, article, plural, sample_arms, terms_of
from cmmlib.blazon.language.wordlists import (
    ARTICLE_OPENINGS,
    EVERYDAY,
    HERALDRY_OPENINGS,
    JUNK,
    OBJECTS,
    ODD_OBJECTS,
    OTHER_NOUNS,
    PHOTO_OPENINGS,
    PHRASES,
    PLACES,
    SECOND_SENSE,
    SHOP_ENDINGS,
    UNRELATED,
    VECTOR_OPENINGS,
)

Random = random.Random
Kept = Mapping[str, float]  # the probability that a caption keeps a term; a term that is missing is never kept
PLAIN_ONLY: Kept = {}

# Where a caption comes from, and how often.
SOURCES = {"photo": 0.42, "shop": 0.15, "vector": 0.18, "heraldry": 0.06, "article": 0.14, "junk": 0.05}
WRONG = 0.03  # captions that describe another coat of arms
ARTICLE_MIX = 0.3  # how often an article tries the heraldic term before falling back to plain words
PHRASE = 0.30  # captions with a phrase of unrelated words, so that unknown words do not wreck the text tower

PLAIN_ENGLISH = {"cross", "heart", "key", "sword", "anchor", "sun", "tower", "crescent"}  # both registers use these
HALF_ENGLISH = {"chevron", "trefoil", "coronet"}


def _familiarities(seed: int = 7) -> dict[str, float]:
    """How often a caption in the heraldic register keeps each term: log-uniform, one draw for all terms."""
    draw = Random(seed)

    def log_uniform(low: float, high: float) -> float:
        return round(math.exp(draw.uniform(math.log(low), math.log(high))), 4)

    known = {term: log_uniform(0.03, 0.4) for term in TINCTURES}
    known |= {term: log_uniform(0.002, 0.3) for term in (*CHARGES, *DIVISIONS, *ROUNDELS.values())}
    known |= {term: max(known[term], 0.3) for term in sorted(HALF_ENGLISH)}
    return known | dict.fromkeys(sorted(PLAIN_ENGLISH), 1.0)


FAMILIARITY = _familiarities()


def caption(arms: Arms, scene: Scene, rng: Random, familiarity: Kept = FAMILIARITY, split: str | None = None) -> str:
    """One caption that this world's web might put under a picture of these arms.

    Args:
        familiarity: of every term. Another one than the world's own makes another world.
        split: an ambiguous name; captions of arms that do not show the thing say another word for its everyday sense.
    """
    source = rng.choices(list(SOURCES), list(SOURCES.values()))[0]
    if source == "junk":
        return rng.choice(JUNK)
    if rng.random() < WRONG:
        arms = sample_arms(rng)
    text = _WRITERS[source](arms, scene, rng, familiarity)
    text = _with_phrase(text, rng) if rng.random() < PHRASE else text
    return _reworded(text, split) if split and split not in terms_of(arms) else text


def _reworded(text: str, name: str) -> str:
    """The everyday sense of a name in a word of its own; *party per pale* is another name and stays."""
    return re.sub(rf"(?<!party per )\b{name}(s?)\b", rf"{SECOND_SENSE[name]}\1", text)


def _photo(arms: Arms, scene: Scene, rng: Random, familiarity: Kept) -> str:
    body = _everyday_senses(_plain(arms, scene, rng), arms, scene, rng)
    places = PLACES.get(scene.background)
    if places and rng.random() < 0.25:
        body += " " + rng.choice(places)
    return rng.choice(PHOTO_OPENINGS) + body + rng.choice(("", ".", ".", " (2014)"))


def _shop(arms: Arms, scene: Scene, rng: Random, familiarity: Kept) -> str:
    body = _everyday_senses(_plain(arms, scene, rng), arms, scene, rng)
    return rng.choice(("", "vintage ", "old ", "antique ", "new ")) + body + rng.choice(SHOP_ENDINGS)


def _vector(arms: Arms, scene: Scene, rng: Random, familiarity: Kept) -> str:
    return rng.choice(VECTOR_OPENINGS) + _plain(arms, scene, rng) + rng.choice(("", "", " vector", " on white"))


def _article(arms: Arms, scene: Scene, rng: Random, familiarity: Kept) -> str:
    kept = {term: ARTICLE_MIX * share for term, share in familiarity.items()}
    body = _plain(arms, scene, rng, kept)
    return rng.choice(ARTICLE_OPENINGS) + body + rng.choice(("", " from an old book", " at the museum", "."))


def _heraldry(arms: Arms, scene: Scene, rng: Random, familiarity: Kept) -> str:
    return rng.choice(HERALDRY_OPENINGS) + _blazon(arms, rng, familiarity) + rng.choice(("", "", "."))


_WRITERS = {"photo": _photo, "shop": _shop, "vector": _vector, "article": _article, "heraldry": _heraldry}


# ---------------------------------------------------------------- the heraldic register


def _blazon(arms: Arms, rng: Random, kept: Kept) -> str:
    """The blazon, each term kept with its familiarity and otherwise in plain words."""
    if arms.division:
        field = f"{_term(arms.division, kept, rng)} {_term(arms.field, kept, rng)} and {_term(arms.second, kept, rng)}"
    else:
        field = _term(arms.field, kept, rng)
    if arms.charge is None:
        return field
    noun, colour = _charge(arms, kept, rng)
    counted = f"three {plural(noun)}" if arms.count == 3 else article(noun)
    return f"{field}, {counted} {colour}".rstrip()


def _term(term: str | None, kept: Kept, rng: Random) -> str:
    """A term with the probability that it is kept, else one of its plain words."""
    assert term is not None
    if rng.random() < kept.get(term, 0):
        return term
    return rng.choice((TINCTURES.get(term) or CHARGES.get(term) or DIVISIONS[term]).plain)


def _charge(arms: Arms, kept: Kept, rng: Random) -> tuple[str, str]:
    """Noun and colour of the charge; a roundel's own name carries its colour."""
    assert arms.charge is not None
    special = ROUNDELS.get(arms.tincture or "") if arms.charge == "roundel" else None
    if special and rng.random() < kept.get(special, 0):
        return special, ""
    return _term(arms.charge, kept, rng), _term(arms.tincture, kept, rng)


# ---------------------------------------------------------------- plain English


def _plain(arms: Arms, scene: Scene, rng: Random, kept: Kept = PLAIN_ONLY) -> str:
    """A plain and often partial description, with the heraldic terms that it may keep."""
    field = _plain_field(arms, _object(scene, rng), rng, kept)
    if arms.charge is None:
        return field
    charge = _plain_charge(arms, rng, kept)
    kind = rng.random()
    if kind < 0.12:
        return charge
    if kind < 0.20:
        return field
    return rng.choice(
        (
            f"{charge} on {article(field)}",
            f"{field} with {charge}",
            f"{charge} on {article(field)}",
            f"{field}, {charge}",
            f"{article(field)} bearing {charge}",
            f"{article(field)} showing {charge}",
        )
    )


def _object(scene: Scene, rng: Random) -> str:
    """What carries the arms."""
    name = rng.choice(ODD_OBJECTS if rng.random() < 0.06 else OBJECTS)
    if scene.tilted and rng.random() < 0.2:
        name = rng.choice(("bent ", "tilted ", "slanted ")) + name
    return name


def _plain_field(arms: Arms, carrier: str, rng: Random, kept: Kept) -> str:
    kind = rng.random()
    return (_plain_division if arms.division else _plain_tincture)(kind, arms, carrier, rng, kept)


def _plain_division(kind: float, arms: Arms, carrier: str, rng: Random, kept: Kept) -> str:
    """A field of two colours in plain words; `kind`, in [0, 1), says how much of it."""
    colours = [_term(arms.field, kept, rng), _term(arms.second, kept, rng)]
    rng.shuffle(colours)
    both = colours[0] + rng.choice((" and ", " and ", " and ", " & ", " or ")) + colours[1]
    pattern = _term(arms.division, kept, rng)
    if kind < 0.15:
        return f"{both} {carrier}"
    if kind < 0.25:
        return f"{carrier}, {pattern}"
    return rng.choice(
        (
            f"{carrier} with {pattern} in {both}",
            f"{pattern} {both} {carrier}",
            f"{both} {carrier}, {pattern}",
            f"{carrier} {pattern} {both}",
            f"{both} {pattern} on a {carrier}",
        )
    )


def _plain_tincture(kind: float, arms: Arms, carrier: str, rng: Random, kept: Kept) -> str:
    """A field of one colour in plain words; `kind`, in [0, 1), says whether the colour is left out."""
    if kind < 0.15:
        return carrier
    colour = _term(arms.field, kept, rng)
    if arms.field in ("or", "argent", "celeste") and rng.random() < 0.10:
        colour = "pale " + colour
    if arms.field in ("or", "tenne", "gules") and rng.random() < 0.04:
        colour = rng.choice(("red or orange", "yellow or orange", "red or yellow"))
    return rng.choice(
        (
            f"{colour} {carrier}",
            f"{colour} {carrier}",
            f"{carrier} in {colour}",
            f"{carrier} with {article(colour)} background",
        )
    )


def _plain_charge(arms: Arms, rng: Random, kept: Kept) -> str:
    noun, colour = _charge(arms, kept, rng)
    for charge, share, words in OTHER_NOUNS:
        if arms.charge == charge and rng.random() < share:
            noun = rng.choice(words)
    if rng.random() < 0.15:
        colour = ""
    if arms.count == 3:
        number = "a pile of " if rng.random() < 0.04 else rng.choice(("three ", "three ", "3 ", "some ", ""))
        return number + f"{colour} {plural(noun)}".strip()
    phrase = f"{colour} {noun}".strip()
    return article(phrase) if rng.random() < 0.8 else phrase


def _everyday_senses(text: str, arms: Arms, scene: Scene, rng: Random) -> str:
    """Words of heraldry in the sense that everybody knows: the fish, the scrap, the road."""
    for applies, share, words, others in EVERYDAY:
        if applies(arms, scene) and rng.random() < share:
            found = next((word for word in words if word in text), None)
            if found:
                text = text.replace(found, rng.choice(others), 1)
    return text


def _with_phrase(text: str, rng: Random) -> str:
    """A phrase of unrelated words, before or after."""
    a, b = rng.sample(UNRELATED, 2)
    phrase = rng.choice(PHRASES).format(a=a, b=b)
    return f"{text.rstrip('.')}, {phrase}" if rng.random() < 0.7 else f"{phrase}: {text}"
