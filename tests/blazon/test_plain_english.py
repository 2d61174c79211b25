"""Plain English beside a heraldic name: short, without heraldry, and different wherever the arms are."""

from __future__ import annotations

import random
import re
from itertools import permutations, product

import pytest

from cmmlib.blazon.classes import draw_classes, load_classes
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, ROUNDELS, TINCTURES, Arms, plural, sample_arms
from cmmlib.blazon.language.captions import PLAIN_ENGLISH
from cmmlib.blazon.language.plain_english import glosses, plain_english
from cmmlib.data.load import load_blazon

TERMS = {*TINCTURES, *CHARGES, *DIVISIONS, *ROUNDELS.values()} - {*PLAIN_ENGLISH, "orange"}
HERALDIC = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted({*TERMS, *map(plural, TERMS)}, key=len)))})\b", re.I)


@pytest.mark.parametrize("classes", [load_classes(), *map(draw_classes, (1, 2, 3))], ids=["shipped", "1", "2", "3"])
def test_every_class_has_plain_words_of_its_own(classes):
    said = [plain_english(arms) for arms in classes]
    assert len(set(said)) == len(said)
    assert all(text and len(text) <= 50 and text == text.strip() for text in said)
    assert [text for text in said if HERALDIC.search(text)] == []


def test_different_arms_have_different_words():
    pairs = list(permutations(TINCTURES, 2))
    every = [Arms(a, charge=charge, tincture=b, count=n) for (a, b), charge, n in product(pairs, CHARGES, (1, 3))]
    every += [Arms(a, division, b) for (a, b), division in product(pairs, DIVISIONS)] + [Arms(a) for a in TINCTURES]
    every += [sample_arms(random.Random(seed)) for seed in range(2000)]
    assert len({plain_english(arms) for arms in every}) == len(set(every))


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (Arms("or", charge="pall", tincture="vert"), "green Y on gold"),
        (Arms("argent", charge="chief", tincture="gules"), "red top stripe on silver"),
        (Arms("gules", charge="luce", tincture="argent", count=3), "three silver fishes on red"),
        (Arms("celeste", "barry", "sanguine"), "light blue and dark red horizontal stripes"),
        (Arms("azure", "quarterly", "or", "sun", "tenne"), "orange sun on blue and gold, in four quarters"),
    ],
)
def test_words(arms, words):
    assert plain_english(arms) == words


def test_a_study_of_shields_has_a_gloss_per_class():
    pictures = load_blazon()
    assert glosses(pictures) == [plain_english(arms) for arms in pictures.arms]
    assert glosses(None) is None
