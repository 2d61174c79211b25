"""Clean descriptions of coats of arms, written from the world's own tables: the control for what language models write.

They are terse and always right, as no language model's answers are. So they tell what a perfect description could
repair, and say nothing about any language model.
"""

from __future__ import annotations

from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, article, plural


def descriptions(arms: Arms, n: int = 4) -> list[str]:
    """Up to `n` short plain sentences, without a heraldic term unless it is plain English too; all different.

    >>> descriptions(Arms("gules", charge="mullet", tincture="or"), 2)
    ['a red shield with a yellow star', 'a yellow star on a red shield']
    """
    texts = (_sentence(arms, number) for number in range(12))
    return list(dict.fromkeys(texts))[:n]


def _sentence(arms: Arms, number: int) -> str:
    def words(table, term: str | None, turn: int) -> str:
        plain = list(dict.fromkeys(table[term].plain))
        return plain[turn % len(plain)]

    turn = number // 2  # sentences 0 and 1 use the first plain words, 2 and 3 the second
    colour = words(TINCTURES, arms.field, 0)
    if arms.division:
        field = f"{colour} and {words(TINCTURES, arms.second, 0)}"
        pattern = words(DIVISIONS, arms.division, turn)
        if arms.charge is None:
            return f"a {field} shield, {pattern}" if number % 2 == 0 else f"a shield with {pattern} in {field}"
        colour = f"{field} {pattern}"
    if arms.charge is None:
        return article(f"{colour} shield")
    noun = words(CHARGES, arms.charge, turn)
    tincture = words(TINCTURES, arms.tincture, 0)
    charge = f"three {tincture} {plural(noun)}" if arms.count == 3 else article(f"{tincture} {noun}")
    shield = article(f"{colour} shield")
    return f"{shield} with {charge}" if number % 2 == 0 else f"{charge} on {shield}"
