"""How the hot loops on the processor are compiled, with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FAST = {"reassoc", "contract", "arcp", "nsz", "nnan"}  # sums may be reordered, so that they vectorise
ROWS = 256  # images whose sums are float32, before they are added to those in float64


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: compiled in the first call, kept on disk, run without the lock that Python's threads share.

    Under jaxtyping's import hook the function needs `@no_type_check`: numba compiles it as it stands.
    """

    def decorate(function: Callable) -> Callable:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder can be written in which to keep what was compiled
            return njit(nogil=True, **options)(function)

    return decorate
