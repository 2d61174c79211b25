"""WaffleCLIP's texts: class names with random words, which show how much descriptions gain by their words alone."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from functools import cache


def waffle_texts(classnames: Sequence[str], n: int = 8, seed: int = 0) -> list[list[str]]:
    """Texts of WaffleCLIP (Roth et al. 2023): the class name with random words, n lists of C texts.

    "a photo of a {name}, which has {word} {word}." The same words go to every class. Deviation: words only, where the
    paper mixes words and random characters; they are drawn from the whole words of CLIP's tokenizer.
    """
    rng = random.Random(f"waffle {seed}")
    pairs = [rng.sample(_words(), 2) for _ in range(n)]
    return [[f"a photo of a {name}, which has {a} {b}." for name in classnames] for a, b in pairs]


@cache
def _words() -> list[str]:
    """Words of four to eight letters that CLIP's tokenizer knows whole, most frequent first."""
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe()) as file:
        merges = file.read().decode("utf-8").split("\n")[1:]
    whole = (merge.replace(" ", "") for merge in merges if merge.endswith("</w>"))
    words = (word.removesuffix("</w>") for word in whole)
    return [word for word in words if 4 <= len(word) <= 8 and word.isascii() and word.isalpha()][:5000]
