"""Python code that a model brings: it is never run, and nobody is asked at the terminal whether it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def no_foreign_code() -> Iterator[None]:
    """transformers asks at the terminal whether Python code that a model brings may run; here it may not, unasked."""
    if find_spec("transformers") is None:
        yield
        return
    from transformers import dynamic_module_utils as asking

    seconds, asking.TIME_OUT_REMOTE_CODE = asking.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        asking.TIME_OUT_REMOTE_CODE = seconds
