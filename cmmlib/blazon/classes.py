"""The classes of the embedded data set: which coats of arms are asked for, and their evaluation images.

The class list is one fixed file of the package, so that transcripts, cards and pages speak of the same classes. Other
lists are drawn with `draw_classes(seed)`: rules are chosen on those and reported on the shipped one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from cmmlib.blazon.drawing.render import render_many
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, blazon, contrasts
from cmmlib.storage.cache import digest, file_digests

PAIRS, CHARGES_A_PAIR, DIVIDED = 10, 9, 30  # 120 classes
IMAGES_A_CLASS = 40
EVALUATION_SEEDS = 1_000_000  # evaluation images of one seed use this many render seeds


def load_classes() -> list[Arms]:
    """The fixed class list, in order."""
    return [Arms(**arms) for arms in json.loads(files("cmmlib.blazon").joinpath("classes.json").read_text("utf-8"))]


def draw_classes(seed: int) -> list[Arms]:
    """A class list: ten pairs of tinctures with nine charges each, and thirty divided fields. Names are all different.

    Charges are drawn evenly, common or rare, so a list holds many names that the captions hardly know.
    """
    rng = random.Random(f"classes {seed}")
    pairs = _tincture_pairs(rng)
    classes = [
        Arms(field, charge=charge, tincture=tincture, count=_count(charge, rng))
        for field, tincture in pairs
        for charge in rng.sample(list(CHARGES), CHARGES_A_PAIR)
    ]
    divided: dict[frozenset[str], Arms] = {}
    few = rng.sample(pairs, 4)
    while len(divided) < DIVIDED:
        field, second = rng.choice(few)
        arms = Arms(field, rng.choice(list(DIVISIONS)), second)
        divided.setdefault(frozenset((str(arms.division), field, second)), arms)
    classes += divided.values()
    assert len({blazon(arms) for arms in classes}) == len(classes)
    return classes


def _tincture_pairs(rng: random.Random) -> list[tuple[str, str]]:
    """Pairs by the rule of tincture, common ones first to be drawn."""
    weights = {
        (a, b): (TINCTURES[a].weight * TINCTURES[b].weight) ** 0.5
        for a in TINCTURES
        for b in TINCTURES
        if contrasts(a, b)
    }
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < PAIRS:
        pairs[rng.choices(list(weights), list(weights.values()))[0]] = None
    return list(pairs)


def _count(charge: str, rng: random.Random) -> int:
    return 3 if CHARGES[charge].kind == "small" and rng.random() < 0.15 else 1


def evaluation_images(
    classes: Sequence[Arms], seed: int, per_class: int = IMAGES_A_CLASS
) -> tuple[np.ndarray, np.ndarray]:
    """Rendered images of every class, uint8 [C * per_class, 64, 64, 3], and their labels, int64, class by class.

    Their render seeds are even, those of training images odd, so no evaluation image was trained on.
    """
    labels = np.repeat(np.arange(len(classes)), per_class)
    first = EVALUATION_SEEDS * seed
    seeds = [2 * (first + i) for i in range(len(labels))]
    images, _ = render_many([classes[c] for c in labels.tolist()], seeds)
    return images, labels


def rendering_digest(classes: Sequence[Arms], seed: int, per_class: int = IMAGES_A_CLASS) -> str:
    """Changes whenever the evaluation images could: with their arms, seed and number, the drawing code, its libraries.

    The images themselves are digested too, once they are there; this names them before they are rendered.
    """
    folder = Path(__file__).parent
    code = [folder / "classes.py", folder / "heraldry.py", *sorted((folder / "drawing").glob("*.py"))]
    libraries = [version("numpy"), version("pillow")]
    return digest([arms.as_dict() for arms in classes], seed, per_class, file_digests(folder, code), libraries)
