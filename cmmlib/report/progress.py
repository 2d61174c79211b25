"""What a chapter is doing while it is executed: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm

from cmmlib.errors import tell

SECONDS = 30  # between two lines where there is no terminal
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


class Progress(AbstractContextManager):
    """A chapter's code cells, each under the heading of its section.

    On a terminal a bar has the section, the seconds and an estimate of those that are left, from the number of cells;
    it goes when the chapter ends. Elsewhere a line says the section, at the start of a cell and `SECONDS` after the
    last line at the earliest, so that quick chapters say nothing.
    """

    def __init__(self, chapter: str, notebook: Any) -> None:
        self.chapter, self.section = chapter, {}  # cell id -> heading
        heading = ""
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                heading = (_HEADING.findall(cell.source) or [heading])[-1]
            else:
                self.section[cell.id] = heading
        self.begun = self.told = time.monotonic()
        self.done = 0
        self.bar = tqdm(total=len(self.section), desc=chapter, unit="cell", leave=False, disable=None)

    def start(self, cell: Any, cell_index: int) -> None:
        """A cell begins: nbclient calls this (`on_cell_execute`)."""
        if cell.id not in self.section:
            return  # the parameters, which papermill adds
        section, now = self.section[cell.id], time.monotonic()
        if not self.bar.disable:
            self.bar.set_postfix_str(section, refresh=False)
            self.bar.update(self.done - self.bar.n)
            self.bar.refresh()
        elif now - self.told >= SECONDS:
            self.told = now
            tell(f"{self.chapter}: {section} (cell {self.done + 1} of {len(self.section)}, {now - self.begun:.0f} s)")
        self.done += 1

    def __exit__(self, *error: object) -> None:
        self.bar.close()
