"""Numbers of chapters, sections, equations, figures and tables in the book, and the caption of every figure."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from cmmlib.report.captions import caption_of, captions
from cmmlib.report.numbering import CAPTION, TABLE_TITLE, number_chapter

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def numbered(*texts: str) -> list[str]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in texts])
    number_chapter(notebook, 3)
    return [cell.source for cell in notebook.cells]


def test_chapter_and_sections_are_numbered_and_smaller_heads_are_not():
    assert numbered("# A\n\ntext", "## B\n\n### C\n\n## D") == ["# 3. A\n\ntext", "## 3.1 B\n\n### C\n\n## 3.2 D"]


def test_a_comment_in_code_is_no_head():
    code = "```bash\n# install\n## more\n```"
    assert numbered(f"## A\n\n{code}\n\n## B") == [f"## 3.1 A\n\n{code}\n\n## 3.2 B"]


def test_tables_have_numbers_of_their_own():
    cell = nbformat.v4.new_code_cell()
    html = [f"{TABLE_TITLE.format(text)}<table></table>" for text in ("Table.", "b")]
    texts = (CAPTION.format("a"), *html, "<table></table>")
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": text}) for text in texts]
    number_chapter(nbformat.v4.new_notebook(cells=[cell]), 3)
    shown = [re.sub("<[^>]+>", "", output.data["text/html"]) for output in cell.outputs]
    assert shown == ["Figure 3.1. a", "Table 3.1. Table.", "Table 3.2. b", ""]


def test_figures_are_numbered_in_the_order_of_the_page():
    cells = [nbformat.v4.new_code_cell() for _ in range(2)]
    for cell, captioned in zip(cells, (["a", "Figure."], ["b"]), strict=True):
        html = [CAPTION.format(text) for text in captioned]
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": text}) for text in ("<p>x</p>", *html)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    number_chapter(notebook, 3)
    shown = [output.data["text/html"] for cell in cells for output in cell.outputs]
    assert [re.sub("<[^>]+>", "", text) for text in shown] == [
        "x",
        "Figure 3.1. a",
        "Figure 3.2. Figure.",
        "x",
        "Figure 3.3. b",
    ]


def figures_of(notebook: Path) -> set[str]:
    """Names of the figures that a chapter shows."""
    code = "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code")
    calls = re.findall(r"show_figure\((?:[^()]|\([^()]*\))*?f?\"(\w+?)(?:_\{\w+\})?\"", code)
    assert len(calls) == code.count("show_figure(")
    return set(calls)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_has_a_caption(notebook):
    for figure in figures_of(notebook):
        caption = caption_of(figure)
        assert caption, figure
        assert re.fullmatch(r"[A-Z].*\.", caption), caption
        assert set(re.findall(r"\d+", caption)) <= {"0", "1", "95"}, caption  # ends of a scale, and a kind of interval


def test_captions_show_no_markup():
    """They stand on the page as they are written."""
    for figure, caption in captions().items():
        assert not re.search(r"[*_`$<>{}\[\]\\]|&\w+;", caption), figure


def test_every_caption_has_a_figure():
    assert set(captions()) == set().union(*map(figures_of, NOTEBOOKS))
