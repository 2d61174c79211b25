"""What the book makes of a plain notebook."""

from __future__ import annotations

import nbformat
import pytest

from cmmlib.report.book_cells import for_the_book, without_exercises
from cmmlib.report.execution import SETUP


def notebook(*cells: tuple[str, str, list[str]]):
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    return nbformat.v4.new_notebook(cells=[make[kind](text, metadata={"tags": tags}) for kind, text, tags in cells])


def sources(*cells: tuple[str, str, list[str]], pages: tuple[str, ...] = ()) -> list[str]:
    return [cell.source for cell in for_the_book(notebook(*cells), "chapters", pages.__contains__).cells]


def test_a_quotation_with_a_bold_title_is_a_box():
    text = "# Title\n\n> **What you will learn**\n>\n> - a;\n> - b.\n>\n> Ten minutes.\n\nThen **bold** text."
    expected = "# Title\n\n:::{admonition} What you will learn\n:class: tip\n- a;\n- b.\n\nTen minutes.\n:::\n"
    assert sources(("markdown", text, [])) == [expected + "\nThen **bold** text."]


@pytest.mark.parametrize("text", ["> A quotation.\n> **Bold**", "a **b**\n>\n> c", "> **Title** and more\n>\n> text"])
def test_another_quotation_stays_one(text):
    assert sources(("markdown", text, [])) == [text]


def test_an_exercise_is_numbered_and_its_solution_unfolds():
    cells = [
        ("markdown", "## Exercises", ["exercise"]),
        ("markdown", "### Exercise 2.1: margins\n\nDo it.", ["exercise", "if-labels"]),
        ("code", "x = 1", ["solution"]),
        ("markdown", "So it is.", ["solution"]),
        ("code", "exercises.answer(x=x)", ["check"]),
        ("markdown", "### Exercise 2.2: more\n\nAgain.", ["exercise"]),
        ("code", "y = 1", ["solution"]),
    ]
    assert sources(*cells) == [
        "## Exercises",
        "````{exercise} 2.1: margins\n:label: exercise-2-1\n:nonumber:\nDo it.\n````",
        "````{solution-start} exercise-2-1\n:class: dropdown\n````",
        "x = 1",
        "So it is.",
        "````{solution-end}\n````",
        "````{exercise} 2.2: more\n:label: exercise-2-2\n:nonumber:\nAgain.\n````",
        "````{solution-start} exercise-2-2\n:class: dropdown\n````",
        "y = 1",
        "````{solution-end}\n````",
    ]


def test_an_exercise_says_its_level_and_its_hint_unfolds():
    text = "### Exercise 2.1 (first steps, pencil and paper): margins\n\nDo it.\n\n> **Hint**\n>\n> Take `x`."
    expected = "````{exercise} 2.1: margins\n:label: exercise-2-1\n:nonumber:\n\n"
    expected += ":::{container} cmm-marks\nfirst steps · pencil and paper\n:::\n\nDo it.\n\n"
    expected += "<details>\n<summary>Hint</summary>\n\nTake `x`.\n\n</details>\n````"
    assert sources(("markdown", text, ["exercise"])) == [expected]


def test_what_is_for_whoever_runs_a_notebook_stays_out_of_the_book():
    cells = [("markdown", "install", [SETUP]), ("code", "seed = 0", ["parameters"]), ("code", "x", [])]
    assert sources(*cells) == ["x"]


def test_links_lead_to_the_pages_that_the_book_has():
    text = (
        "See [four](04_ensemble.ipynb), [method](../book/method.md#cmm), [six](06_anatomy.ipynb), [x](https://x.org)."
    )
    pages = ("chapters/04_ensemble.ipynb", "method.md")
    expected = "See [four](04_ensemble.ipynb), [method](../method.md#cmm), six, [x](https://x.org)."
    assert sources(("markdown", text, []), pages=pages) == [expected]


def test_a_further_run_links_to_the_first_one_s_chapter_where_it_lacks_its_own():
    text = "[one](01_x.ipynb) [two](02_x.ipynb) [method](../book/method.md)"
    pages = {"chapters/run/01_x.ipynb", "chapters/02_x.ipynb", "chapters/01_x.ipynb", "method.md"}
    placed = for_the_book(notebook(("markdown", text, [])), "chapters/run", pages.__contains__)
    assert placed.cells[0].source == "[one](01_x.ipynb) [two](../02_x.ipynb) [method](../../method.md)"


def test_a_further_run_has_no_exercises():
    cells = [
        ("markdown", "a", []),
        ("markdown", "b", ["exercise"]),
        ("code", "c", ["solution"]),
        ("code", "d", ["check"]),
        ("markdown", "e", ["question"]),
    ]
    assert [cell.source for cell in without_exercises(notebook(*cells)).cells] == ["a"]
