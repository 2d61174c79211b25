"""WaffleCLIP's texts: the same random words for every class."""

from __future__ import annotations

from cmmlib.texts import waffle

NAMES = ["ant", "{bee}", "a long name", "ant"]


def test_waffle_texts_hold_the_name_and_the_same_words_for_every_class():
    texts = waffle.waffle_texts(NAMES, n=12)
    assert [len(row) for row in texts] == [4] * 12
    for row in texts:
        ends = {text.removeprefix(f"a photo of a {name}, which has ") for text, name in zip(row, NAMES, strict=True)}
        (end,) = ends
        first, second = end.removesuffix(".").split(" ")
        assert first != second
        assert {first, second} <= set(waffle._words())
    assert len({row[0] for row in texts}) == 12


def test_waffle_texts_depend_on_the_seed_alone():
    first = waffle.waffle_texts(NAMES)
    assert len(first) == 8
    assert waffle.waffle_texts(NAMES) == first
    assert waffle.waffle_texts(NAMES, seed=1) != first
    assert waffle.waffle_texts(NAMES, n=3) == first[:3]
    assert waffle.waffle_texts(NAMES[:2], n=8) == [row[:2] for row in first]


def test_waffle_words_are_plain_words():
    words = waffle._words()
    assert len(words) == len(set(words)) == 5000
    assert all(4 <= len(word) <= 8 and word.isascii() and word.isalpha() and word.islower() for word in words)
