"""What a class gets: exercises and questions on the book's pages, the pages for teachers, slides, a zip file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHAPTERS = [f"{number:02d}" for number in (0, 1, 2, 3, 4, 5, 7, 8)]  # of a study of embeddings


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_answers_and_hints_unfold_without_a_script(chapter, labelled_book):
    (page,) = (labelled_book / "html" / "chapters").glob(f"{chapter}_*.html")
    html = page.read_text()
    assert html.count("<summary>Hint</summary>") == html.count('<div class="exercise admonition"') > 0
    assert len(re.findall("<summary>[A-C]: ", html)) == 9
    assert html.count("<details>") == html.count("</details>")
    assert "````" not in html  # of a directive that did not end


def test_a_book_of_a_study_without_labels_has_exercises_too(unlabelled_book):
    for page in (unlabelled_book / "html" / "chapters").glob("0*.html"):
        assert '<div class="exercise admonition"' in Path(page).read_text(), page
