"""What a chapter says of itself while it is executed."""

from __future__ import annotations

import io
import sys

import nbformat
import pytest

from cmmlib.report import progress
from cmmlib.report.progress import Progress

NOTEBOOK = nbformat.v4.new_notebook(
    cells=[
        nbformat.v4.new_markdown_cell("# A chapter\n\n# not the second"),
        nbformat.v4.new_code_cell("1"),
        nbformat.v4.new_markdown_cell("Prose."),
        nbformat.v4.new_code_cell("2"),
        nbformat.v4.new_markdown_cell("## The price\n\nIt is high."),
        nbformat.v4.new_code_cell("3"),
    ]
)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_slow_chapter_says_where_it_is_and_a_quick_one_nothing(clock, capsys):
    with Progress("05_x", NOTEBOOK) as told:
        for place, (cell, seconds) in enumerate(zip(CODE, (29, 31, 60), strict=True)):
            clock[0] = seconds
            told.start(cell, place)
    assert capsys.readouterr().err == "05_x: not the second (cell 2 of 3, 31 s)\n"
    with Progress("05_x", NOTEBOOK) as told:
        clock[0] += 100
        told.start(CODE[2], 5)
        told.start(nbformat.v4.new_code_cell("injected"), 6)
    assert capsys.readouterr().err == "05_x: The price (cell 1 of 3, 100 s)\n"


def test_on_a_terminal_a_bar_has_the_section_and_goes_in_the_end(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("05_x", NOTEBOOK) as told:
        for place, cell in enumerate(CODE):
            told.start(cell, place)
    said = sys.stderr.getvalue()
    assert "05_x: " in said
    assert "2/3" in said
    assert "The price" in said.split("\r")[-3]
    assert said.split("\r")[-2].strip() == ""
