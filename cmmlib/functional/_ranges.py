"""Whether the arguments of a call go together, and lie in the range that their names say: axes, classes, fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from jaxtyping import AbstractArray
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_labels

FRACTIONS = ("accuracy", "probability", "frequencies")  # tensors of shares; NaN is "undefined" in the first alone
MEANS = ("harmonic_mean", "geometric_mean")  # of accuracies; others may take changes of accuracy, which may be negative
ORDERED = ("confidence", "logits")  # what is sorted, in which NaN has no place
POSITIVE = ("logit_scale", "concentration", "weight_decay")
CLASSES = ("prediction", "labels")


def require_ranges(arguments: Mapping[str, Any], what: str) -> None:
    """Refuse values that a function would use and that mean nothing.

    Raises:
        InputError: a scale that is not positive, shares outside [0, 1], NaN where values are sorted, or classes that
            are none; `what` begins the line.
    """
    for name in POSITIVE:
        if name in arguments and not 0 < float(arguments[name]) < math.inf:
            raise InputError(f"{what}: {name} must be positive and finite, got {float(arguments[name]):g}")
    if arguments.get("block") is not None and arguments["block"] < 1:
        raise InputError(f"{what}: block must be 1 or more, got {arguments['block']}")
    if arguments.get("seed", 0) < 0:
        raise InputError(f"{what}: seed must be 0 or more, got {arguments['seed']}")
    for name in FRACTIONS:
        if isinstance(x := arguments.get(name), Tensor) and (name != "accuracy" or what in MEANS):
            _require_fractions(x, name, f"{what}: {name}")
    for name in ORDERED:
        if isinstance(x := arguments.get(name), Tensor) and bool(x.isnan().any()):
            raise InputError(f"{what}: {name} {int(x.isnan().reshape(-1).nonzero()[0, 0])} is NaN: leave it out")
    for name in CLASSES:
        if isinstance(x := arguments.get(name), Tensor) and "n_classes" in arguments:
            require_labels(x, int(arguments["n_classes"]), f"{what}: {name}")
        elif isinstance(x, Tensor) and bool((x < 0).any()):
            raise InputError(f"{what}: {name} run from {int(x.min())} to {int(x.max())}: classes are counted from 0")


def _require_fractions(x: Tensor, name: str, what: str) -> None:
    defined = x[~x.isnan()] if name == "accuracy" else x
    wrong = defined[~((defined >= 0) & (defined <= 1 + 1e-6))]
    if len(wrong):
        raise InputError(f"{what} holds {float(wrong[0]):g}: expected fractions from 0 to 1")


def require_same_axes(arguments: Mapping[str, Any], hints: Mapping[str, Any], what: str) -> None:
    """Refuse arrays of which an axis of one name has two sizes, as images and texts of different widths.

    Raises:
        InputError: with both shapes; `what` begins the line.
    """
    known: dict[str, tuple[int, str]] = {}
    for name, value in arguments.items():
        for axis, size in _axes(value, hints.get(name)):
            n, first = known.setdefault(axis, (size, name))
            if n != size:
                shapes = " and ".join(f"{one} {list(arguments[one].shape)}" for one in (first, name))
                raise InputError(f"{what}: {shapes} do not fit: axis {axis} has {n} and {size}")


def _axes(value: Any, hint: Any) -> list[tuple[str, int]]:
    options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    for option in options:
        if isinstance(value, Tensor) and isinstance(option, type) and issubclass(option, AbstractArray):
            names = option.dim_str.split()
            fixed = [axis for axis in names if axis.isidentifier()]
            if len(fixed) == value.ndim or (len(fixed) < len(names) and len(fixed) <= value.ndim):
                return list(zip(fixed[::-1], value.shape[::-1], strict=False))  # any number of axes comes first
    return []
