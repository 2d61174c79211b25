"""Whether an argument is what a signature says: an array of so many dimensions, a number, a whole one, a yes or no."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional.checks import check_embeddings

UNIT = 0.05  # how far the length of a row may be from 1; that of float16 and bfloat16 is within 0.01
ROWS = 8192  # whose lengths are looked at together


@cache
def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function's annotations mean."""
    return get_type_hints(function)


def require_type(value: Any, hint: Any, what: str) -> None:
    """Refuse a value that is none of what an annotation names; only arrays, numbers and bool are looked at.

    Raises:
        InputError: it is not; `what` begins the line.
    """
    options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    kinds = [option for option in options if option is not NoneType]
    if value is None and len(kinds) < len(options):
        return
    if all(isinstance(kind, type) and issubclass(kind, AbstractArray) for kind in kinds):
        _require_array(value, [kind.dim_str for kind in kinds], what)
        _require_numbers(value, {name for kind in kinds for name in kind.dtypes}, what)
    elif kinds == [bool] and not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{what} must be True or False, got {value!r}")
    elif kinds == [int] and not _is_whole(value):
        raise InputError(f"{what} must be a whole number, got {value!r}")
    elif kinds == [float] and not is_number(value):
        raise InputError(f"{what} must be a number, got {value!r}")


def _require_array(value: Any, shapes: list[str], what: str) -> None:
    expected = " or ".join(f"[{shape.replace(' ', ', ')}]" for shape in shapes)
    if not isinstance(value, Tensor):
        raise InputError(f"{what} is {type(value).__name__}: expected a numpy array or torch tensor {expected}")
    refuse_sparse(value, what)
    if not any(_fits(shape.split(), value.ndim) for shape in shapes):
        raise InputError(f"{what} has shape {list(value.shape)}, expected {expected}")


def _require_numbers(value: Any, dtypes: set[str], what: str) -> None:
    """Refuse numbers of another kind than a signature's: bool or fractions for labels, whole numbers for embeddings."""
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    kinds = {
        "int64": ("whole numbers", whole),
        "float32": ("floating-point numbers", value.is_floating_point()),
        "bool": ("True and False", value.dtype == torch.bool),
    }
    wanted = [kinds[name] for name in kinds if name in dtypes]
    if wanted and not any(holds for _, holds in wanted):
        given = str(value.dtype).removeprefix("torch.")
        raise InputError(f"{what} is of {given}: expected {' or '.join(told for told, _ in wanted)}")


def _fits(axes: list[str], n: int) -> bool:
    any_number = any(axis.startswith(("*", "...")) for axis in axes)  # of axes, at this place
    return n >= len(axes) - 1 if any_number else n == len(axes)


def _is_whole(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, np.bool_)) and operator.index(value) is not None
    except TypeError:
        return False


def is_number(value: Any) -> bool:
    """A number, or a model's own as a tensor of one."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim <= 1 and len(value.reshape(-1)) == 1 and "bool" not in str(value.dtype)
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def as_number(value: Any) -> float:
    """What `is_number` is true of, as Python's own; of a model's, without the gradient.

    >>> as_number(torch.ones(1, requires_grad=True) * 100)
    100.0
    """
    if isinstance(value, (Tensor, np.ndarray)):
        return float(value.reshape(-1)[0].item())
    return float(value)


def refuse_sparse(value: Any, what: str) -> None:
    """Sparse tensors lack most operations, and those of the meta device all numbers.

    Raises:
        InputError: it is one; `what` begins the line.
    """
    if isinstance(value, Tensor) and value.layout is not torch.strided:
        raise InputError(f"{what} is a sparse tensor: pass x.to_dense()")
    if isinstance(value, Tensor) and value.is_meta:
        raise InputError(f"{what} lies on the meta device, without numbers: pass a tensor that has them")


def require_one_or_more(value: int, what: str) -> None:
    """Refuse a number of things that is none.

    Raises:
        InputError: less than 1; `what` begins the line.
    """
    if value < 1:
        raise InputError(f"{what} must be 1 or more, got {value}")


def require_labels(labels: Tensor, n_classes: int, what: str) -> None:
    """Refuse labels that are no classes.

    Raises:
        InputError: one outside 0..C-1; `what` begins the line.
    """
    if len(labels) and (labels.min() < 0 or labels.max() >= n_classes):
        raise InputError(f"{what} run from {int(labels.min())} to {int(labels.max())}, outside 0..{n_classes - 1}")


def refuse_masked(value: Any, what: str) -> None:
    """Numpy's masked arrays lose their mask in a tensor: what was masked would count.

    Raises:
        InputError: it is one; `what` begins the line.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{what}: a masked array would lose its mask: leave out the masked rows and pass x.data")


def as_tensor(value: Any, what: str) -> Any:
    """A numpy array as a tensor; anything else as it is.

    Raises:
        InputError: an array that is masked, or of no numbers that torch knows; `what` begins the line.
    """
    if not isinstance(value, np.ndarray):
        return value
    refuse_masked(value, what)
    if value.dtype.kind not in "biufc" or value.dtype.itemsize > 16 or value.dtype == np.longdouble:
        raise InputError(f"{what}: an array is of {value.dtype}: pass numbers of 8 to 64 bits, as x.astype('float32')")
    # torch takes neither foreign byte order nor negative strides, and warns of arrays that are read-only
    return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))


def require_unit_rows(x: Tensor, what: str) -> None:
    """Refuse embeddings with rows that are not of unit length: their similarities are no cosines.

    Raises:
        InputError: with the row and its length; as `check_embeddings`; `what` begins the line.
    """
    if not x.numel():
        return check_embeddings(x, what)
    rows = x.reshape(-1, x.shape[-1])
    for start in range(0, len(rows), ROWS):
        length = torch.linalg.vector_norm(rows[start : start + ROWS].float(), dim=-1)
        is_unit = (length - 1).abs() <= UNIT  # not where it is NaN
        if not bool(is_unit.all()):
            check_embeddings(x, what)  # a row without numbers or length has a line of its own
            row = int((~is_unit).nonzero()[0, 0])
            raise InputError(
                f"{what} row {start + row} has length {float(length[row]):.3g}, expected 1: "
                "pass torch.nn.functional.normalize(x, dim=-1)"
            )


def as_texts(given: Any, what: str, axes: str) -> Tensor:
    """Unit-norm text vectors of these axes, as a tensor.

    Raises:
        InputError: another shape or kind, NaN, Inf, rows of another length; `what` begins the line.
    """
    texts = as_tensor(given, what)
    _require_array(texts, [axes], what)
    _require_numbers(texts, {"float32"}, what)
    require_unit_rows(texts, what)
    return texts
