"""What stands above a table of a page: the function that makes the table says it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import pandas as pd

P = ParamSpec("P")
_TITLE = "title"  # in the attributes of a table


def titled(title: str) -> Callable[[Callable[P, pd.DataFrame]], Callable[P, pd.DataFrame]]:
    """A decorator: the table that a function makes carries this title."""

    def decorate(make: Callable[P, pd.DataFrame]) -> Callable[P, pd.DataFrame]:
        @wraps(make)
        def table(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
            frame = make(*args, **kwargs)
            frame.attrs[_TITLE] = title
            return frame

        return table

    return decorate


def title_of(table: pd.DataFrame) -> str | None:
    """The title of a table; None where the function that made it gives none."""
    return table.attrs.get(_TITLE)
