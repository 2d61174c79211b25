"""CSV files that a spreadsheet shows as they are: a cell of text that it would run as a formula begins with a quote."""

from __future__ import annotations

import csv
import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

# The escapes are full-width signs, which spreadsheets take for the others. After OWASP's page "CSV injection".
_FORMULA = re.compile(r"'*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+|inf)")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index; `read_csv` gives the same text back."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(csv_text(table))


def csv_text(table: pd.DataFrame, float_format: str | None = None) -> str:
    """What `write_csv` would write."""
    written = _each_text(table, quoted)
    broken = written.select_dtypes(exclude="number").map(lambda cell: "\r" in str(cell)).any(axis=None)
    quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL  # pandas writes a lone \r as the end of a row
    return written.to_csv(index=False, float_format=float_format, quoting=quoting)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A table that `write_csv` wrote; an empty cell is empty text where `options`, those of pandas, say nothing else.

    Raises:
        OSError: a file that cannot be read.
        ValueError: a file that holds no table.
    """
    if not path.is_file():  # a device has no end, and a pipe may have no beginning
        raise FileNotFoundError(errno.ENOENT, "is no file", str(path))
    how: dict[str, Any] = {"keep_default_na": False, **options}
    try:
        return _each_text(pd.read_csv(path, **how), unquoted)
    except pd.errors.EmptyDataError:
        raise ValueError("it is empty") from None


def quoted(text: str) -> str:
    """The text, with ' before what a spreadsheet would take for a formula; numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unquoted(text: str) -> str:
    """What `quoted` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    texts = [key for key, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    changed = {key: [change(cell) if isinstance(cell, str) else cell for cell in table[key]] for key in texts}
    return table.assign(**{key: pd.Series(cells, table.index, dtype=object) for key, cells in changed.items()})
