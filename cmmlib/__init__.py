"""cmmlib: find the categories that CLIP gets wrong without labels, and repair part of them.

`cmmlib.functional` has the method as pure functions of tensors; `open_run(Study.of({...}))` opens a whole study.
CONTRIBUTING.md draws the packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmmlib.errors import InputError
from cmmlib.study.study import Study

if TYPE_CHECKING:
    from cmmlib.study.open_run import open_run
    from cmmlib.study.run import Run

LAZY = {"Run": "cmmlib.study.run", "open_run": "cmmlib.study.open_run"}
__all__ = ["InputError", "Run", "Study", "open_run"]


def __getattr__(name: str) -> Any:
    """`open_run` and `Run` on first use, so that `cmm --help` does not wait for torch."""
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'cmmlib' has no attribute {name!r}")
