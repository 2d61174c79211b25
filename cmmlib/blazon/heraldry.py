"""Vocabulary and grammar: tinctures, charges, divisions of the field, and the blazon that names a coat of arms.

Heraldry is a real picture language. "Gules, a mullet or" is a yellow star on a red shield; a mullet is also a fish,
"or" a conjunction. Each term stands beside the plain words that most people would use for the same thing.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cmmlib.errors import InputError


@dataclass(frozen=True)
class Tincture:
    """A colour or metal: its sRGB value, the plain words for it, and how often it is seen (a weight, not a share)."""

    term: str
    rgb: tuple[int, int, int]
    plain: tuple[str, ...]
    weight: float
    kind: Literal["colour", "metal"]


@dataclass(frozen=True)
class Charge:
    """A figure on the shield. An ordinary spans the shield; a small charge stands once or three times."""

    term: str
    plain: tuple[str, ...]
    weight: float
    kind: Literal["ordinary", "small"]


@dataclass(frozen=True)
class Division:
    """A division or pattern of the field, in two tinctures."""

    term: str
    plain: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class Arms:
    """A coat of arms, by terms: `field` (with `second` where it is divided), and a charge, once or three times."""

    field: str
    division: str | None = None
    second: str | None = None
    charge: str | None = None
    tincture: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        tinctures = {self.field, self.second, self.tincture} - {None}
        unknown = tinctures - TINCTURES.keys()
        unknown |= ({self.charge} - {None, *CHARGES}) | ({self.division} - {None, *DIVISIONS})
        if unknown:
            raise InputError(f"unknown heraldic terms: {', '.join(sorted(map(str, unknown)))}")
        if (self.division is None) != (self.second is None) or (self.charge is None) != (self.tincture is None):
            raise InputError("a division needs a second tincture, and a charge a tincture of its own")

    def as_dict(self) -> dict[str, Any]:
        """The terms that are there, by field."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def _by_term(*things):
    return {thing.term: thing for thing in things}


TINCTURES: dict[str, Tincture] = _by_term(
    Tincture("gules", (200, 30, 40), ("red", "red", "red", "crimson", "scarlet"), 1.0, "colour"),
    Tincture("azure", (35, 75, 185), ("blue", "blue", "blue", "royal blue"), 1.0, "colour"),
    Tincture("sable", (28, 28, 32), ("black", "black", "dark"), 0.7, "colour"),
    Tincture("vert", (25, 130, 60), ("green", "green", "green", "dark green"), 0.5, "colour"),
    Tincture("purpure", (120, 45, 140), ("purple", "purple", "violet"), 0.25, "colour"),
    Tincture("tenne", (225, 115, 25), ("orange", "orange", "tawny orange"), 0.15, "colour"),
    Tincture("sanguine", (105, 20, 30), ("dark red", "maroon", "blood red", "burgundy"), 0.10, "colour"),
    Tincture("celeste", (130, 190, 230), ("light blue", "sky blue", "pale blue"), 0.12, "colour"),
    Tincture("or", (240, 200, 40), ("yellow", "yellow", "gold", "golden"), 1.0, "metal"),
    Tincture("argent", (238, 238, 238), ("white", "white", "silver"), 1.0, "metal"),
)

CHARGES: dict[str, Charge] = _by_term(
    Charge("mullet", ("star", "five-pointed star", "star shape"), 1.0, "small"),
    Charge("estoile", ("wavy star", "star with wavy rays"), 0.15, "small"),
    Charge("crescent", ("crescent moon", "crescent", "half moon", "moon"), 0.7, "small"),
    Charge("annulet", ("ring", "circle outline", "hollow circle"), 0.4, "small"),
    Charge("roundel", ("disc", "circle", "dot", "ball", "round spot"), 0.7, "small"),
    Charge("billet", ("rectangle", "brick", "upright rectangle", "small block"), 0.25, "small"),
    Charge("lozenge", ("diamond", "diamond shape", "rhombus"), 0.4, "small"),
    Charge("mascle", ("hollow diamond", "diamond outline", "diamond-shaped frame"), 0.12, "small"),
    Charge("fusil", ("narrow diamond", "spindle", "thin tall diamond"), 0.10, "small"),
    Charge("cross", ("cross", "plus sign", "plain cross"), 1.0, "ordinary"),
    Charge("saltire", ("diagonal cross", "letter x", "x-shaped cross"), 0.5, "ordinary"),
    Charge("chevron", ("upside-down v", "chevron", "inverted v shape"), 0.5, "ordinary"),
    Charge("pale", ("vertical stripe", "vertical band", "upright stripe"), 0.4, "ordinary"),
    Charge("fess", ("horizontal stripe", "horizontal band", "stripe across the middle"), 0.5, "ordinary"),
    Charge("bend", ("diagonal stripe", "diagonal band", "sash"), 0.5, "ordinary"),
    Charge("pile", ("wedge", "downward triangle", "triangle pointing down"), 0.15, "ordinary"),
    Charge("chief", ("band across the top", "top stripe", "stripe at the top"), 0.4, "ordinary"),
    Charge("bordure", ("border", "frame around the edge", "edge band"), 0.3, "ordinary"),
    Charge("pall", ("letter y", "y-shaped band", "y shape"), 0.12, "ordinary"),
    Charge("canton", ("small square in the corner", "corner square"), 0.15, "ordinary"),
    Charge("heart", ("heart", "heart shape", "love heart"), 0.6, "small"),
    Charge("escallop", ("shell", "scallop shell", "seashell"), 0.25, "small"),
    Charge("fleur-de-lis", ("lily", "lily flower", "french lily"), 0.5, "small"),
    Charge("tower", ("castle", "castle tower", "fort"), 0.5, "small"),
    Charge("key", ("key", "old key", "door key"), 0.4, "small"),
    Charge("trefoil", ("clover", "three-leaf clover", "shamrock"), 0.3, "small"),
    Charge("quatrefoil", ("four-petal flower", "flower", "four-leaf flower"), 0.25, "small"),
    Charge("luce", ("fish", "swimming fish", "fish"), 0.5, "small"),
    Charge("martlet", ("bird", "little bird", "swallow"), 0.5, "small"),
    Charge("pheon", ("arrowhead", "arrow tip", "broad arrow point"), 0.15, "small"),
    Charge("sword", ("sword", "upright sword", "blade"), 0.5, "small"),
    Charge("anchor", ("anchor", "ship anchor", "sailor's anchor"), 0.4, "small"),
    Charge("sun", ("sun", "shining sun", "sun with rays"), 0.5, "small"),
    Charge("coronet", ("crown", "royal crown", "king's crown"), 0.5, "small"),
    Charge("caltrap", ("spiked ball", "spiky four-pointed spike", "iron spike"), 0.08, "small"),
    Charge("mill-rind", ("h-shaped iron", "curled h shape", "mill iron"), 0.06, "small"),
)

DIVISIONS: dict[str, Division] = _by_term(
    Division("barry", ("horizontal stripes", "horizontally striped", "stripes going across"), 0.6),
    Division("paly", ("vertical stripes", "vertically striped", "upright stripes"), 0.6),
    Division("bendy", ("diagonal stripes", "diagonally striped", "slanting stripes"), 0.4),
    Division("chequy", ("checkerboard", "checkered", "chess board squares"), 0.5),
    Division("lozengy", ("diamond pattern", "diamonds all over", "harlequin pattern"), 0.25),
    Division("party per pale", ("split left and right", "two vertical halves", "divided down the middle"), 0.4),
    Division("party per fess", ("split top and bottom", "two horizontal halves", "divided across the middle"), 0.4),
    Division("party per bend", ("split diagonally", "two diagonal halves"), 0.25),
    Division("party per saltire", ("split in an x", "four triangles"), 0.12),
    Division("quarterly", ("four quarters", "divided in four squares"), 0.3),
    Division("gyronny", ("pinwheel", "windmill wedges", "eight triangular wedges"), 0.12),
)

# A roundel has a name of its own for each tincture.
ROUNDELS = {
    "or": "bezant",
    "argent": "plate",
    "gules": "torteau",
    "azure": "hurt",
    "sable": "pellet",
    "vert": "pomme",
    "tenne": "orange",
    "purpure": "golpe",
}


def blazon(arms: Arms) -> str:
    """The name of a coat of arms.

    >>> blazon(Arms("gules", charge="mullet", tincture="or", count=3))
    'gules, three mullets or'
    >>> blazon(Arms("azure", division="barry", second="argent"))
    'barry azure and argent'
    """
    field = f"{arms.division} {arms.field} and {arms.second}" if arms.division else arms.field
    if arms.charge is None:
        return field
    special = ROUNDELS.get(arms.tincture or "") if arms.charge == "roundel" else None
    noun, colour = (special, "") if special else (arms.charge, f" {arms.tincture}")
    return f"{field}, {f'three {plural(noun)}' if arms.count == 3 else article(noun)}{colour}"


def terms_of(arms: Arms) -> set[str]:
    """Every heraldic term that these arms show; a roundel goes by its general and its special name."""
    terms = {arms.field, arms.second, arms.tincture, arms.charge, arms.division} - {None}
    if arms.charge == "roundel":
        terms |= {ROUNDELS[arms.tincture]} if arms.tincture in ROUNDELS else set()
    return {str(term) for term in terms}


def article(noun: str) -> str:
    """`anchor` -> `an anchor`."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
    """Plural of a noun or of a noun phrase's head: `star with wavy rays` -> `stars with wavy rays`."""
    for joint in (" with ", " of ", " in ", " across ", " at ", " around ", " pointing"):
        if joint in noun:
            head, tail = noun.split(joint, 1)
            return plural(head) + joint + tail
    if noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "sh", "ch")) else "s")


def contrasts(a: str, b: str) -> bool:
    """The rule of tincture: metal on colour, colour on metal."""
    return TINCTURES[a].kind != TINCTURES[b].kind


def sample_arms(random_: random.Random) -> Arms:
    """Draw a coat of arms as the world has them: common tinctures and charges often, rare ones rarely."""
    field = _draw(TINCTURES, random_)
    second = _contrasting(field, random_)
    kind = random_.random()
    if kind < 0.22:
        return Arms(field, _draw(DIVISIONS, random_), second)
    charge = _draw(CHARGES, random_)
    count = 3 if CHARGES[charge].kind == "small" and random_.random() < 0.18 else 1
    if kind < 0.28:
        rest = [t for t in TINCTURES if t not in (field, second)]
        return Arms(field, _draw(DIVISIONS, random_), second, charge, _draw(rest, random_), count)
    return Arms(field, charge=charge, tincture=second, count=count)


def _contrasting(field: str, random_: random.Random) -> str:
    """Another tincture, by the rule of tincture; now and then against it, as in real arms."""
    while True:
        other = _draw(TINCTURES, random_)
        alike = {field, other} <= {"gules", "sanguine", "tenne"}
        if contrasts(field, other) or (other != field and not alike and random_.random() < 0.06):
            return other


def _draw(terms, random_: random.Random) -> str:
    weights = [(TINCTURES.get(t) or CHARGES.get(t) or DIVISIONS[t]).weight for t in terms]
    return random_.choices(list(terms), weights)[0]
