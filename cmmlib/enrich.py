"""Suspect classes -> a language model -> descriptions, with a transcript that is both the cache and the record.

A question names a class, the domain, and in the `contrast` style the class's rivals. Nothing here takes labels: which
classes are asked about is decided by CMM. An answer is checked before anything uses it, wherever it came from.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cmmlib.cache import cache_folder, digest, file_digests
from cmmlib.errors import InputError

VERSION = "1"  # of the wording below: answers to another wording are not answers to this one
Style = Literal["describe", "contrast"]
STYLES: tuple[str, ...] = get_args(Style)
FEWEST, MOST = 3, 8  # sentences of an answer
LONGEST_ANSWER = 100_000  # characters that are read at all
N_RIVALS = 3
DEFAULT_DOMAIN = "photographs"
RECORDED = "recorded"  # the "language model" that only replays transcripts

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
        rivals = " or ".join(f"'{name}'" for name in self.rivals)
        template = CONTRAST if self.style == "contrast" and self.rivals else DESCRIBE
        parts = {"class_name": self.class_name, "domain": self.domain, "rivals": rivals}
        filled = re.sub(r"\{(\w+)\}", lambda slot: parts[slot[1]], template)  # at once: a name may hold braces
        return f"{filled} {FORM}"


@dataclass(frozen=True)
class Record:
    """One line of a transcript: a question, its answer, and where it came from; None where something is not known."""

    class_name: str
    domain: str
    style: str
    rivals: tuple[str, ...]
    answer: tuple[str, ...]
    model: str | None = None
    tokens: int | None = None
    cost: float | None = None  # US dollars
    date: str | None = None
    origin: str | None = None
    version: str = VERSION

    def line(self) -> str:
        return json.dumps({"class" if k == "class_name" else k: v for k, v in asdict(self).items()}, ensure_ascii=False)


@dataclass(frozen=True)
class Enrichment:
    """Descriptions of the classes that were asked about.

    Attributes:
        asked: class indices, the first suspect first.
        records: the record behind each described class; `descriptions` are those that passed every check.
        missing: classes without a recorded answer.
        failed: classes whose answer was unusable, with the reason.
        other_rivals: classes whose recorded `contrast` answer was given for other rivals.
    """

    asked: list[int]
    questions: dict[int, Question]
    descriptions: dict[int, list[str]] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    other_rivals: list[int] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of classes whose descriptions are there, replayed or live."""
        return len(self.descriptions)


# ---------------------------------------------------------------- questions


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


# ---------------------------------------------------------------- answers


def checked(answer: Any, fits: Callable[[str], bool] = lambda text: True) -> list[str]:
    """The usable sentences of an answer: strings without markup, control characters or duplicates that fit.

    Args:
        answer: what a language model wrote (JSON, possibly in a code fence), or the list itself.
        fits: whether the text tower reads a sentence to its end.

    Raises:
        ValueError: fewer than three sentences are left, or the answer is no JSON list of strings; the reason.
    """
    sentences = _parsed(answer) if isinstance(answer, str) else answer
    if not isinstance(sentences, list | tuple) or not all(isinstance(s, str) for s in sentences):
        raise ValueError("no list of sentences")
    unique: dict[str, str] = {}
    for sentence in map(_plain, sentences):
        unique.setdefault(sentence.casefold().rstrip(". "), sentence)
    kept = [sentence for sentence in unique.values() if any(map(str.isalnum, sentence)) and fits(sentence)]
    if len(kept) < FEWEST:
        raise ValueError(f"{len(kept)} usable sentences, {FEWEST} are needed")
    return kept[:MOST]


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_ANSWER:
        raise ValueError(f"an answer of {len(text):,} characters")
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.S)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("no JSON") from None
    return value.get("descriptions") if isinstance(value, dict) else value


def _plain(sentence: str) -> str:
    """Without HTML, Markdown's marks, control characters and spare space."""
    text = re.sub(r"<(script|style)\b.*?(</\1\s*>|$)|<[^<>]*>", " ", sentence, flags=re.S | re.I)
    text = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text)
    text = re.sub(r"[*_`#|<>\[\]{}\\$]+", " ", text)
    return " ".join(re.sub(r"^\s*(?:(?:[-\u2022]|\d+[.)])\s+)+", "", text).split())


# ---------------------------------------------------------------- transcripts


class Transcript:
    """Recorded answers, by class, domain and style. Later records win over earlier ones."""

    def __init__(self, records: Iterable[Record] = ()):
        self.records = [record for record in records if record.version == VERSION]
        self._by_key = {(r.class_name.casefold(), r.domain, r.style, r.model): r for r in self.records}
        self._any_model = {(r.class_name.casefold(), r.domain, r.style): r for r in self.records}

    def find(self, question: Question, model: str | None = None) -> Record | None:
        """The recorded answer of a model, or of any."""
        key = (question.class_name.casefold(), question.domain, question.style)
        return self._any_model.get(key) if model is None else self._by_key.get((*key, model))

    def __add__(self, other: Transcript) -> Transcript:
        return Transcript([*self.records, *other.records])


def load_transcript(path: Path) -> Transcript:
    """Records of a JSON-lines file. A line that a kill cut short is left out, also where others were added after it.

    Raises:
        InputError: a file that cannot be read, or a line that is no record; the line is named.
    """
    try:
        lines = path.read_bytes().split(b"\n")  # bytes, since a kill may cut a character, and JSON may hold U+2028
    except OSError as error:
        raise InputError(f"transcript: cannot read {path.name}: {(error.strerror or '').lower()}") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            if not _cut_short(line):
                raise InputError(f"transcript: line {number} of {path.name} is no record of an answer") from None
    return Transcript(records)


def _cut_short(line: bytes) -> bool:
    return b'{"class"'.startswith(line[:8]) and not line.rstrip().endswith(b"}")


def _record(raw: dict[str, Any]) -> Record:
    known = {"class_name": raw["class"], **{k: raw[k] for k in Record.__dataclass_fields__ if k in raw}}
    strings = (known["class_name"], known["domain"], known["style"], *known["answer"], *known.get("rivals", ()))
    strings = (*strings, known.get("model") or "", known.get("version", ""))
    if not all(isinstance(s, str) for s in strings) or isinstance(known["answer"], str):
        raise TypeError
    return Record(**{**known, "answer": tuple(known["answer"]), "rivals": tuple(known.get("rivals", ()))})


def shipped_transcripts() -> dict[str, Transcript]:
    """The transcripts that come with the package, by name."""
    return {path.stem: load_transcript(path) for path in sorted(_shipped_folder().glob("*.jsonl"))}


def _shipped_folder() -> Path:
    return Path(__file__).parent / "transcripts"


def own_transcript_path() -> Path:
    """Where live answers go unless a file is named."""
    return cache_folder() / "transcripts" / "answers.jsonl"


def known_answers(path: str | None = None) -> Transcript:
    """What is recorded: the named file alone; or what the package brought, with one's own answers where it has none."""
    if path is not None:
        return load_transcript(Path(path)) if Path(path).exists() else Transcript()
    own = own_transcript_path()
    known = load_transcript(own) if own.exists() else Transcript()
    for transcript in shipped_transcripts().values():
        known += transcript
    return known


def answers_digest(path: str | None = None) -> str:
    """Changes whenever `known_answers` could."""
    own = Path(path) if path is not None else own_transcript_path()
    known = [own] if own.exists() else []
    shipped = [] if path is not None else sorted(_shipped_folder().glob("*.jsonl"))
    return digest([file_digests(file.parent, [file]) for file in (*known, *shipped)])


def find_domain(classnames: Sequence[str]) -> str:
    """The domain of the shipped transcript that knows every one of these classes, else `photographs`."""
    wanted = {name.casefold() for name in classnames}
    for transcript in shipped_transcripts().values():
        for domain in dict.fromkeys(record.domain for record in transcript.records):
            if wanted <= {r.class_name.casefold() for r in transcript.records if r.domain == domain}:
                return domain
    return DEFAULT_DOMAIN


def replay(
    questions: dict[int, Question],
    known: Transcript,
    fits: Callable[[str], bool] = lambda text: True,
    model: str | None = None,
) -> Enrichment:
    """Answers from a transcript: checked again, since anyone may have written it.

    A `contrast` question whose rivals differ from the recorded ones takes the recorded answer and is listed in
    `other_rivals`.

    Args:
        model: only answers of this model; None for any.
    """
    found = Enrichment(list(questions), questions)
    for c, question in questions.items():
        record = known.find(question, model)
        if record is None:
            found.missing.append(c)
            continue
        try:
            found.descriptions[c] = checked(list(record.answer), fits)
        except ValueError as error:
            found.failed[c] = str(error)
            continue
        found.records[c] = record
        if question.style == "contrast" and set(record.rivals) != set(question.rivals):
            found.other_rivals.append(c)
    return found
