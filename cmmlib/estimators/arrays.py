"""numpy or torch in, the same out: what every estimator makes of the embeddings that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import refuse_masked, refuse_sparse
from cmmlib.functional.checks import check_embeddings

Array = np.ndarray | Tensor


def unit_rows(x: Array, name: str, *dims: str) -> Tensor:
    """Embeddings of any float dtype as a float32 tensor whose rows have unit norm.

    Args:
        name: what the error calls them.
        dims: the shapes that are allowed, as in "N D"; a number of dimensions each.

    Raises:
        InputError: another type, dtype or shape; NaN, Inf or zero-length rows.
    """
    tensor = _tensor(x, name)
    if tensor.ndim not in [len(shape.split()) for shape in dims]:
        expected = " or ".join("[" + shape.replace(" ", ", ") + "]" for shape in dims)
        raise InputError(f"{name} has shape {list(tensor.shape)}, expected {expected}")
    check_embeddings(tensor, name)
    return torch.nn.functional.normalize(tensor.float(), dim=-1)


def _tensor(x: Any, name: str) -> Tensor:
    """The numbers as they are stored: what is wrong with them is told before they become float32."""
    refuse_masked(x, name)
    refuse_sparse(x, name)
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach()
    if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating) and x.dtype.itemsize <= 8:
        # torch takes neither foreign byte order nor negative strides, and warns of arrays that are read-only
        return torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), ["C", "W"]))
    kind = str(getattr(x, "dtype", type(x).__name__)).removeprefix("torch.")
    raise InputError(f"{name} is {kind}: expected a numpy array or torch tensor of floating-point numbers")


def as_given(found: Tensor, given: Array) -> Array:
    """What was found in the form of what was given: a numpy array, or a tensor on the same device."""
    return found.to(given.device) if isinstance(given, Tensor) else found.cpu().numpy()
