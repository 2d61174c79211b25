"""Numbers and lists as a page spells them: percent, points, decimals, intervals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cmmlib.errors import counted as counted  # pages count as messages do

MISSING = "n/a"
DEFAULT = "default"  # a parameter that one study leaves out and another has


def percent(fraction: float | None, digits: int = 1) -> str:
    """`0.4479` -> `44.8 %`; None and NaN -> `n/a`."""
    return MISSING if fraction is None or fraction != fraction else f"{100 * fraction:.{digits}f} %"


def percent_number(fraction: float | None) -> str:
    """`0.4479` -> `44.8`: a percentage under a head that says so."""
    return percent(fraction).removesuffix(" %")


def decimal(value: float | None, digits: int = 2) -> str:
    """`0.947` -> `0.95`; None and NaN -> `n/a`."""
    return MISSING if value is None or value != value else f"{value:.{digits}f}"


def interval(bounds: Sequence[float | None] | None) -> str:
    """`(0.43, 0.466)` -> `43.0 to 46.6 %`."""
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return MISSING
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def signed(value: float | None) -> str:
    """`-0.02481` -> `-0.0248`: a margin or a CMM, a difference of cosines."""
    return MISSING if value is None or value != value else f"{value:+.4f}"


def points(difference: float | None) -> str:
    """`0.257` -> `+25.7`: a difference of two accuracies is in points, which the head or the prose beside it says."""
    if difference is None or difference != difference:
        return MISSING
    return f"{100 * difference:+.1f}" if abs(difference) >= 0.0005 else "0.0"


def points_interval(bounds: Sequence[float | None] | None) -> str:
    """`(-0.01, 0.569)` -> `-1.0 to +56.9`."""
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return MISSING
    return f"{points(bounds[0])} to {points(bounds[1])}"


def spelt(character: str) -> str:
    """`狮` -> `U+72EE CJK UNIFIED IDEOGRAPH-72EE`: for a character that perhaps no screen shows."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'without a name')}"


def join_names(names: list[str]) -> str:
    """`a, b and c`; where a name without quotes has a comma or an "and" in it, `a; b, c; and d`."""
    if len(names) < 2:
        return "".join(names)
    comma, last = ("; ", "; and ") if any(map(_reads_as_several, names)) else (", ", " and ")
    return comma.join(names[:-1]) + last + names[-1]


def _reads_as_several(name: str) -> bool:
    return not name.startswith('"') and ("," in name or " and " in name)


_MARKUP = re.compile(r"([\\`*_{}\[\]#|~$<>&@]|:(?=/))")


def plain(text: str) -> str:
    """Text from outside as Markdown shows it letter by letter: no markup, no HTML, no formula, no line of its own.

    >>> print(plain("a_b <i> $x$"))
    a&#95;b &#60;i&#62; &#36;x&#36;
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[1])};", " ".join(text.split()))


def name(classname: str) -> str:
    """A class's name in a sentence: in italics, its letters as they are."""
    return f"*{plain(classname)}*" if classname.strip() else MISSING


def names(classnames: Sequence[str]) -> str:
    """Names of classes in a sentence: each in italics, with commas and an "and"."""
    return join_names([name(one) for one in classnames])
