"""Questions to a language model about classes, and the check of its answers.

A question names a class, the domain, and in the `contrast` style the class's rivals."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cmmlib.errors import InputError

VERSION = "1"  # of the wording below: answers to another wording are not answers to this one
DEFAULT_DOMAIN = "photographs"
Style = Literal["describe", "contrast"]
STYLES: tuple[str, ...] = get_args(Style)
FEWEST, MOST = 3, 8  # sentences of an answer
LONGEST_ANSWER = 100_000  # characters that are read at all
N_RIVALS = 3
DESCRIBE = "What does '{class_name}' look like in {domain}?"
CONTRAST = (
    "What does '{class_name}' look like in {domain}? It is often taken for {rivals}. "
    "Say what is seen in '{class_name}' and not in those."
)
FORM = (
    "Answer with 4 to 6 short sentences in plain English that say what such an image shows: colours, shapes, parts, "
    "how they are arranged. Each sentence must make sense on its own and describe the image. "
    'Answer as JSON: {"descriptions": ["...", "..."]}'
)


@dataclass(frozen=True)
class Question:
    """What is asked about one class."""

    class_name: str
    domain: str = DEFAULT_DOMAIN
    style: str = "describe"
    rivals: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the language model reads."""
        rivals = " or ".join(f"'{name}'" for name in self.rivals)
        template = CONTRAST if self.style == "contrast" and self.rivals else DESCRIBE
        parts = {"class_name": self.class_name, "domain": self.domain, "rivals": rivals}
        filled = re.sub(r"\{(\w+)\}", lambda slot: parts[slot[1]], template)  # at once: a name may hold braces
        return f"{filled} {FORM}"


def default_n_described(n_classes: int) -> int:
    """A quarter of the classes, and at least one."""
    return max(1, n_classes // 4)


def ask_about(
    classes: Sequence[int],
    classnames: Sequence[str],
    domain: str,
    style: str = "describe",
    rivals: Callable[[int], Sequence[int]] | None = None,
) -> dict[int, Question]:
    """The question for each class, in order.

    Args:
        rivals: class index -> indices of its rivals, the strongest first; for the `contrast` style.

    Raises:
        InputError: an unknown style.
    """
    if style not in STYLES:
        raise InputError(f"question: {style!r} is no style: use {' or '.join(STYLES)}")
    named = (lambda c: tuple(classnames[r] for r in rivals(c))) if rivals and style == "contrast" else lambda c: ()
    return {c: Question(classnames[c], domain, style, named(c)) for c in classes}


def checked_sentences(answer: Any, fits_context: Callable[[str], bool] = lambda text: True) -> list[str]:
    """The usable sentences of an answer: strings without markup, control characters or duplicates that fit.

    Args:
        answer: what a language model wrote (JSON, possibly in prose or a code fence), or the list itself.
        fits_context: whether the text tower reads a sentence to its end.

    Raises:
        ValueError: fewer than three sentences are left, or the answer is empty or no JSON list of strings; the reason.
    """
    sentences = _parsed(answer) if isinstance(answer, str) else answer
    if not isinstance(sentences, list | tuple) or not all(isinstance(s, str) for s in sentences):
        raise ValueError("no list of sentences")
    unique: dict[str, str] = {}
    for sentence in map(_plain, sentences):
        unique.setdefault(sentence.casefold().rstrip(". "), sentence)
    kept = [sentence for sentence in unique.values() if any(map(str.isalnum, sentence)) and fits_context(sentence)]
    if len(kept) < FEWEST:
        raise ValueError(f"{len(kept)} usable sentences, {FEWEST} are needed")
    return kept[:MOST]


def _parsed(text: str) -> Any:
    """The list of sentences in an answer, or what stands in its place; the longest list where there are several."""
    if len(text) > LONGEST_ANSWER:
        raise ValueError(f"an answer of {len(text):,} characters")
    if not text.strip():
        raise ValueError("an empty answer")
    values = [value.get("descriptions") if isinstance(value, dict) else value for value in _json_values(text)]
    if not values:
        raise ValueError("no JSON")
    return max(values, key=_n_sentences)


def _n_sentences(value: Any) -> int:
    """How many sentences a list has; -1 for what is no list of sentences."""
    return len(value) if isinstance(value, list) and all(isinstance(s, str) for s in value) else -1


def _json_values(text: str) -> list[Any]:
    """The whole text as JSON; or every object and list in it, in prose or a fence, after what the model thought."""
    try:
        return [json.loads(text)]
    except RecursionError:
        return []
    except json.JSONDecodeError:
        pass
    said = re.sub(r"<think\w*>.*", "", re.split(r"</think\w*>", text, flags=re.I)[-1], flags=re.S | re.I)
    values, at, opening = [], 0, re.compile(r"[\[{]")
    while start := opening.search(said, at):
        try:
            value, at = json.JSONDecoder().raw_decode(said, start.start())
        except json.JSONDecodeError:
            at = start.end()
        except RecursionError:
            break
        else:
            values.append(value)
    return values


def _plain(sentence: str) -> str:
    """Without HTML, Markdown's marks, control characters and spare space."""
    text = re.sub(r"<(script|style)\b.*?(</\1\s*>|$)|<[^<>]*>", " ", sentence, flags=re.S | re.I)
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", " ", text)  # a terminal's colours
    text = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text)
    text = re.sub(r"[*_`#|<>\[\]{}\\$]+", " ", text)
    return " ".join(re.sub(r"^\s*(?:(?:[-\u2022]|\d+[.)])\s+)+", "", text).split())
