"""Suspect classes -> questions to a language model -> descriptions, live or from a transcript.

A question names a class, the domain, and in the `contrast` style the class's rivals. Nothing here takes labels: which
classes are asked about is decided by CMM. An answer is checked before anything uses it, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cmmlib.texts.questions import Question, checked_sentences
from cmmlib.texts.transcripts import Record, Transcript

if TYPE_CHECKING:
    from cmmlib.texts.llm import Spent

RECORDED = "recorded"  # the "language model" that only replays transcripts


@dataclass(frozen=True)
class Enrichment:
    """Descriptions of the classes that were asked about.

    Attributes:
        asked: class indices, the first suspect first.
        records: the record behind each described class; `descriptions` are those that passed every check.
        missing: classes without a recorded answer.
        failed: classes whose answer was unusable, with the reason.
        other_rivals: classes whose recorded `contrast` answer was given for other rivals.
        spent: what live questions took, None where nothing was asked.
    """

    asked: list[int]
    questions: dict[int, Question]
    descriptions: dict[int, list[str]] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    other_rivals: list[int] = field(default_factory=list)
    spent: Spent | None = None

    @property
    def requests(self) -> int:
        """Number of classes whose descriptions are there, replayed or live."""
        return len(self.descriptions)


def replay(
    questions: dict[int, Question],
    transcript: Transcript,
    fits_context: Callable[[str], bool] = lambda text: True,
    model: str | None = None,
) -> Enrichment:
    """Answers from a transcript: checked again, since anyone may have written it.

    A `contrast` question whose rivals differ from the recorded ones takes the recorded answer and is listed in
    `other_rivals`.

    Args:
        model: only answers of this model; None for any.
    """
    enrichment = Enrichment(list(questions), questions)
    for c, question in questions.items():
        record = transcript.find(question, model)
        if record is None:
            enrichment.missing.append(c)
            continue
        try:
            enrichment.descriptions[c] = checked_sentences(list(record.answer), fits_context)
        except ValueError as error:
            enrichment.failed[c] = str(error)
            continue
        enrichment.records[c] = record
        if question.style == "contrast" and set(record.rivals) != set(question.rivals):
            enrichment.other_rivals.append(c)
    return enrichment
