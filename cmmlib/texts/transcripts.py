"""Transcripts: recorded answers of language models, a JSON line each. They are the cache and the record.

Those that come with the package lie in `texts/recorded/`; one's own live answers in the cache, or in a named file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from cmmlib.errors import InputError, tell, why
from cmmlib.storage.cache import cache_folder, digest, file_digests
from cmmlib.storage.text_files import content, parse_json, require_writable
from cmmlib.texts.questions import DEFAULT_DOMAIN, VERSION

if TYPE_CHECKING:
    from cmmlib.texts.questions import Question

CUT, TRAILING = "cut short", "with text after the record"  # of lines of a transcript
SHIPPED = Path(__file__).parent / "recorded"


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
        """The record as a line of a transcript."""
        return json.dumps({"class" if k == "class_name" else k: v for k, v in asdict(self).items()}, ensure_ascii=False)


_RECORD = TypeAdapter(Record)


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

    Others that are left out are counted in a line on stderr, once: those with text after their JSON, and answers to
    another version of the questions. So are cut ones, but for a last line, which any kill may leave.

    Raises:
        InputError: a file that cannot be read, or a line that is no record; the line is named.
    """
    try:
        lines = content(path).split(b"\n")  # bytes, since a kill may cut a character, and JSON may hold U+2028
    except OSError as error:
        raise InputError(f"transcript: cannot read {path.name}: {why(error)}") from None
    if any(b"\0" in line for line in lines):  # two bytes a letter
        raise InputError(f"transcript: {path.name} holds a NUL character, as UTF-16 does: save it as UTF-8")
    records, left_out = [], Counter()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in numbered:
        try:
            record = _record(parse_json(line))
        except (ValueError, TypeError, KeyError):
            reason = _why_left_out(line)
            if reason is None:
                fault = f"transcript: line {number} of {path.name} is"
                if line.replace(b" ", b"").startswith(b"[{"):
                    raise InputError(f"{fault} a list: write each record on a line of its own, no list") from None
                raise InputError(f"{fault} no record of an answer: delete it, the other lines stay") from None
            left_out[reason] += reason != CUT or number != numbered[-1][0]
            continue
        records.append(record)
        left_out[f"of version {record.version} of the questions, which is {VERSION} now"] += record.version != VERSION
    _tell_left_out(path, len(numbered), +left_out)
    return Transcript(records)


def _why_left_out(line: bytes) -> str | None:
    """Why a line that is no JSON is a record all the same; None where it is none."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        text = line.decode("utf-8-sig").strip()
        _record(json.JSONDecoder().raw_decode(text)[0])
        return TRAILING
    return CUT if b'{"class"'.startswith(line[:8]) and not line.rstrip().endswith(b"}") else None


def _tell_left_out(path: Path, n_lines: int, left_out: Counter[str]) -> None:
    if left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        _tell_once(path, f"{left_out.total()} of {n_lines} records of {path.name} are left out: {reasons}")


@cache
def _tell_once(path: Path, line: str) -> None:
    tell(line)


def _record(raw: dict[str, Any]) -> Record:
    """The record of a line's JSON; ValueError, TypeError or KeyError where a key is missing or of another type."""
    return _RECORD.validate_json(json.dumps({"rivals": [], **raw, "class_name": raw["class"]}), strict=True)


def shipped_transcripts() -> dict[str, Transcript]:
    """The transcripts that come with the package, by name."""
    return {path.stem: load_transcript(path) for path in sorted(SHIPPED.glob("*.jsonl"))}


def own_transcript_path() -> Path:
    """Where live answers go unless a file is named."""
    return cache_folder() / "transcripts" / "answers.jsonl"


def known_answers(path: str | None = None) -> Transcript:
    """What is recorded: the named file alone; or what the package brought, with one's own answers where it has none."""
    if path is not None:
        return load_transcript(Path(path)) if Path(path).exists() else Transcript()
    own = own_transcript_path()
    all_records = load_transcript(own) if own.exists() else Transcript()
    for transcript in shipped_transcripts().values():
        all_records += transcript
    return all_records


def answers_digest(classnames: Sequence[str], path: str | None = None) -> str:
    """Changes whenever what `known_answers` has of these classes could; not with answers about others."""
    own = Path(path) if path is not None else own_transcript_path()
    names = {name.casefold() for name in classnames}
    records = load_transcript(own).records if own.exists() else []
    about = [record.line() for record in records if record.class_name.casefold() in names]
    shipped = [] if path is not None else sorted(SHIPPED.glob("*.jsonl"))
    return digest([*([about] if about else []), *(file_digests(file.parent, [file]) for file in shipped)])


def find_domain(classnames: Sequence[str]) -> str:
    """The domain of the shipped transcript that knows every one of these classes, else `photographs`."""
    known = knowing_transcript(classnames)
    return known.domain if known else DEFAULT_DOMAIN


class Knowing(NamedTuple):
    """A shipped transcript that knows every class of a list: its name, a domain, and how many classes it has there."""

    name: str
    domain: str
    n_classes: int


def knowing_transcript(classnames: Sequence[str]) -> Knowing | None:
    """The first shipped transcript that knows every one of these classes in one domain; None where none does."""
    wanted = {name.casefold() for name in classnames}
    for name, transcript in shipped_transcripts().items():
        for domain in dict.fromkeys(record.domain for record in transcript.records):
            known = {r.class_name.casefold() for r in transcript.records if r.domain == domain}
            if wanted <= known:
                return Knowing(name, domain, len(known))
    return None


def append(path: Path, record: Record) -> None:
    """Add a line to a transcript; a line that a kill cut short is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((record.line() + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def require_appendable(path: Path) -> None:
    """Try, before answers are paid for, whether they could be added to a transcript.

    Raises:
        OSError: they could not, as the system says it.
    """
    if path.exists():
        open(path, "ab").close()
    else:
        require_writable(path)
