"""Names in the words that training read most often."""

from __future__ import annotations

import pandas as pd
import pytest

from cmmlib.blazon import card
from cmmlib.blazon.classes import load_classes
from cmmlib.blazon.heraldry import Arms, blazon
from cmmlib.blazon.real_prompt import frequent_wordings, real_name


def table(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["term", "wording", "is_name", "shown"])


def test_the_most_read_wording_of_every_term_is_taken_and_the_name_at_a_tie():
    found = frequent_wordings(
        table(
            ("or", "or", True, 5),
            ("or", "gold", False, 7),
            ("or", "yellow", False, 6),
            ("azure", "blue", False, 4),
            ("azure", "azure", True, 4),
        )
    )
    assert found == {"or": "gold", "azure": "azure"}


def test_the_shipped_counts_give_the_largest_count_of_every_term():
    counts = card.load_frequencies()
    found = frequent_wordings(counts)
    assert found.keys() == set(counts["term"])
    for term, wording in found.items():
        own = counts[counts["term"] == term].set_index("wording")["shown"]
        assert own[wording] == own.max()


def test_without_wordings_a_name_stays_as_it_is_unless_it_is_a_special_one():
    for arms in load_classes():
        if arms.charge != "roundel":
            assert real_name(arms, {}) == blazon(arms)


@pytest.mark.parametrize(
    ("arms", "name"),
    [
        (Arms("azure", division="barry", second="argent"), "striped blue and white"),
        (Arms("azure", charge="estoile", tincture="argent"), "blue, a wavy star white"),
        (Arms("azure", charge="roundel", tincture="argent", count=3), "blue, three discs white"),
    ],
)
def test_terms_are_replaced_one_by_one(arms, name):
    wordings = {"azure": "blue", "argent": "white", "barry": "striped", "estoile": "wavy star", "roundel": "disc"}
    assert real_name(arms, wordings) == name
