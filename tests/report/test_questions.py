"""Questions: plain Markdown in a notebook, answers that unfold elsewhere; what is no question stays as it is."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from cmmlib.report.questions import for_the_book, questions, unfolding

QUESTION = """\
### Question 2.1: a *sign*

The margin is below zero.
What is certain?

- A: It is `wrong`, and
  more.
- B: <script>alert(1)</script> & so on

> **What each answer says**
>
> - A: Not certain: $x$ may
>   be.
> - B: Right: see [chapter 1](01_phenomenon.ipynb).
"""


def test_a_question_is_read_with_its_answers_and_what_they_say():
    (question,) = questions(f"before\n\n{QUESTION}\nafter\n")
    assert (question.number, question.title, question.right) == ("2.1", "a *sign*", ["B"])
    assert question.text == "The margin is below zero.\nWhat is certain?"
    assert question.answers["A"] == ("It is `wrong`, and more.", "Not certain: $x$ may be.")


def test_every_answer_unfolds_and_is_text():
    for made in (for_the_book(QUESTION), unfolding(QUESTION)):
        assert made.count("<details>") == made.count("</details>") == 2
        assert "<summary>A: It is <code>wrong</code>, and more.</summary>\n\nNot certain: $x$ may be.\n" in made
        assert "<summary>B: &lt;script&gt;alert(1)&lt;/script&gt; &amp; so on</summary>" in made
        assert "> **" not in made


def test_a_question_is_a_box_of_the_book_and_a_heading_for_students():
    assert for_the_book(QUESTION).startswith(":::{admonition} Question 2.1: a *sign*\n:class: cmm-question\nThe margin")
    assert unfolding(QUESTION).startswith("### Question 2.1: a *sign*\n\nThe margin")


def test_what_an_answer_says_is_markdown_between_the_html():
    html = MarkdownIt("commonmark").render(unfolding(QUESTION))
    assert '<p>Right: see <a href="01_phenomenon.ipynb">chapter 1</a>.</p>\n</details>' in html


@pytest.mark.parametrize("made", [for_the_book, unfolding])
def test_a_hint_unfolds(made):
    text = "Do it.\n\n> **Hint**\n>\n> Take `x`\n> and more.\n"
    assert "<summary>Hint</summary>\n\nTake `x`\nand more.\n\n</details>" in made(text)


@pytest.mark.parametrize(
    "text", ["### Question 2.1: no answers\n\nText.\n", "> **Note**\n>\n> text\n", "- A: a list\n- B: only\n"]
)
def test_what_is_no_question_stays(text):
    assert (questions(text), for_the_book(text), unfolding(text)) == ([], text, text)
