"""Multiple-choice questions: plain Markdown in a notebook; in the book, in slides and for students each answer unfolds.

A question is a heading, a list of answers with letters, and a box that says something of each. An answer becomes a
`<details>`, which a browser opens by mouse and keyboard, and whose state it tells a screen reader, without a script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

from cmmlib.report.exercises import HINT, unquoted

FEEDBACK = "What each answer says"  # title of the box
_QUESTION = re.compile(
    r"^### Question (?P<number>[\d.]+): (?P<title>.+)\n\n(?P<text>.+?)\n\n(?P<answers>- A: .+?)\n\n"
    rf"> \*\*{FEEDBACK}\*\*\n>\n(?P<said>(?:>.*\n?)+)",
    re.M | re.S,
)
_ITEM = re.compile(r"^- ([A-Z]): (.+?)(?=\n- [A-Z]: |\Z)", re.M | re.S)
TEXT = MarkdownIt("commonmark", {"html": False})  # HTML in it stays text


@dataclass(frozen=True)
class Question:
    """Attributes:
    number: "2.1": chapter and place.
    title, text: Markdown.
    answers: letter -> Markdown of the answer and of what is said to whoever chooses it.
    """

    number: str
    title: str
    text: str
    answers: dict[str, tuple[str, str]]

    @property
    def right(self) -> list[str]:
        """Letters of the answers that are right, by the first word of what is said."""
        return [letter for letter, (_, said) in self.answers.items() if said.startswith("Right")]


def questions(source: str) -> list[Question]:
    """The questions of a Markdown cell."""
    return [_question(found) for found in _QUESTION.finditer(source)]


def _question(found: re.Match[str]) -> Question:
    said = _items(unquoted(found["said"]))
    answers = {letter: (text, said.get(letter, "")) for letter, text in _items(found["answers"]).items()}
    return Question(found["number"], found["title"], found["text"], answers)


def _items(text: str) -> dict[str, str]:
    return {letter: " ".join(item.split()) for letter, item in _ITEM.findall(text)}


def for_the_book(source: str) -> str:
    """The cell with each question as a box; answers and hints unfold."""
    return _replaced(source, ":::{{admonition}} {head}\n:class: cmm-question\n{body}\n:::\n")


def unfolding(source: str) -> str:
    """The cell as students have it in Jupyter: answers and hints unfold."""
    return _replaced(source, "### {head}\n\n{body}\n")


def _replaced(source: str, form: str) -> str:
    def shown(found: re.Match[str]) -> str:
        question = _question(found)
        return form.format(head=f"Question {question.number}: {question.title}", body=with_answers(question))

    return _unfolding_hint(_QUESTION.sub(shown, source))


def _unfolding_hint(source: str) -> str:
    return HINT.sub(lambda found: details("Hint", unquoted(found["hint"])) + "\n", source)


def with_answers(question: Question) -> str:
    """Markdown of what is asked, and of the answers, which unfold."""
    return "\n\n".join([question.text, *_answers(question)])


def _answers(question: Question) -> Iterator[str]:
    for letter, (text, said) in question.answers.items():
        yield details(f"{letter}: {TEXT.renderInline(text)}", said)


def details(summary: str, text: str) -> str:
    """What unfolds: Markdown between HTML, with a blank line before and after it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"
