"""cmmlib: find the categories that CLIP gets wrong without labels, and repair part of them.

`cmmlib.functional` has the method as pure functions of tensors; `CMMEnsemble`, `PriorMatching` and `Prototypes` have it
as estimators for your own embeddings; `open_run(Study.of({...}))` opens a whole study.
CONTRIBUTING.md draws the packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmmlib.errors import InputError
from cmmlib.study.study import Study

if TYPE_CHECKING:
    from cmmlib.estimators.classifier_file import load_classifier
    from cmmlib.estimators.corrections import PriorMatching, Prototypes
    from cmmlib.estimators.ensemble import CMMEnsemble
    from cmmlib.study.open_run import open_run
    from cmmlib.study.run import Run

LAZY = {
    "CMMEnsemble": "cmmlib.estimators.ensemble",
    "PriorMatching": "cmmlib.estimators.corrections",
    "Prototypes": "cmmlib.estimators.corrections",
    "Run": "cmmlib.study.run",
    "load_classifier": "cmmlib.estimators.classifier_file",
    "open_run": "cmmlib.study.open_run",
}
__all__ = [
    "CMMEnsemble",
    "InputError",
    "PriorMatching",
    "Prototypes",
    "Run",
    "Study",
    "load_classifier",
    "open_run",
]


def __getattr__(name: str) -> Any:
    """What needs torch on first use, so that `cmm --help` does not wait for it."""
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'cmmlib' has no attribute {name!r}")
