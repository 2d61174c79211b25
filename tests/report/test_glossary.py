"""Words are linked to the glossary where a chapter first uses them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cmmlib.report.glossary import link_first_uses, terms

GLOSSARY = Path(__file__).parents[2] / "book" / "glossary.md"


def linked(
    *texts: str, words: tuple[str, ...] = ("margin", "rank correlation", "worst@k"), tags: tuple = ()
) -> list[str]:
    cells = [nbformat.v4.new_markdown_cell(text, metadata={"tags": list(tags)}) for text in texts]
    link_first_uses(cells, words)
    return [cell.source for cell in cells]


def test_the_first_use_alone_is_linked_in_the_words_of_the_text():
    found = linked("No word.", "Two margins; a margin.", "A margin.")
    assert found == ["No word.", "Two {term}`margins <margin>`; a margin.", "A margin."]


def test_longer_words_are_linked_as_one():
    assert linked("A Rank correlation of worst@k.") == [
        "A {term}`Rank correlation <rank correlation>` of {term}`worst@k <worst@k>`."
    ]


NO_TEXT = ("`margin`", "# The margin", "$margin$", "$$\nmargin\n$$", "[the margin](x.ipynb)", "```python\nmargin\n```")
NO_TEXT += (
    "**margin**",
    "{doc}`margin`",
    ":label: margin",
    "marginal",
    "on-margin",
    ":::{note} margin\n:::",
    "<margin>",
    "<summary>C: a margin.</summary>",  # of an answer that unfolds, in which no Markdown is read
)


def test_a_part_of_a_longer_word_is_not_linked():
    words = ("logit", "logit scale")
    found = linked("A logit scale, again the logit scale, and a logit.", words=words)
    assert found == ["A {term}`logit scale <logit scale>`, again the logit scale, and a {term}`logit <logit>`."]


@pytest.mark.parametrize("text", NO_TEXT)
def test_what_is_no_running_text_stays_as_it_is(text):
    assert linked(text) == [text]


def test_exercises_have_no_links():
    assert linked("A margin.", tags=("exercise",)) == ["A margin."]


def test_every_word_of_the_glossary_is_read():
    words = terms(GLOSSARY)
    assert {"margin", "worst@k", "Shapley value", "temperature", "Sinkhorn's algorithm", "hub", "oracle"} <= set(words)
    assert len(words) == len(set(words)) > 40
    assert [len(word) for word in words] == sorted(map(len, words), reverse=True)


def test_the_book_links_the_words(default_book):
    page = (default_book / "html" / "chapters" / "02_cmm.html").read_text()
    assert 'href="../glossary.html#term-margin"' in page
    assert page.count('href="../glossary.html#term-margin"') == 1
