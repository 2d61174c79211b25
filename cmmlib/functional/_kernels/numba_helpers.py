"""How the hot loops on the processor are compiled, with numba, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from torch import Tensor

FAST = {"reassoc", "contract", "arcp", "nsz", "nnan"}  # sums may be reordered, so that they vectorise
ROWS = 256  # images whose sums are float32, before they are added to those in float64
NEGATIVE_ZERO = np.int32(-(1 << 31))
LOWEST_POWER = np.float32(-127)  # of two: below those of normal float32 numbers, and the bits of 0
WHOLE = np.float32(3 << 22)  # added to a float32, it leaves the nearest integer in the lowest bits
POLYNOMIAL = tuple(  # of 2 ** x between -0.5 and 0.5, to a float32's last bit
    Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef.astype(np.float32)
)


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: compiled in the first call, kept on disk, run without the lock that Python's threads share.

    Under jaxtyping's import hook the function needs `@no_type_check`: numba compiles it as it stands.
    """
    options |= {"nogil": True, "error_model": "numpy"}  # a division that may raise an error does not vectorise

    def decorate(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder can be written in which to keep what was compiled
            return njit(**options)(function)

    return decorate


@compiled(fastmath={"contract", "nnan", "nsz"})
@no_type_check
def exp2(x):
    """2 ** x of a float32 of at most 127, which vectorises where numpy's does not; 0 below the normal numbers."""
    clipped = max(x, LOWEST_POWER)
    whole = np.float32(clipped + WHOLE)
    part = clipped - (whole - WHOLE)
    c0, c1, c2, c3, c4, c5, c6 = POLYNOMIAL
    mantissa = c0 + part * (c1 + part * (c2 + part * (c3 + part * (c4 + part * (c5 + part * c6)))))
    exponent = np.int32((whole.view(np.int32) + np.int32(127)) << np.int32(23))
    return mantissa * exponent.view(np.float32)


@compiled()
@no_type_check
def ordered(bits):
    """An integer of the same order as the float32 that has these bits; both zeros give 0."""
    return bits if bits >= 0 else np.int32(NEGATIVE_ZERO - bits)


@compiled(fastmath=FAST)
@no_type_check
def widen(source, offset, out):
    """Fills `out` with a row of float32 numbers, or of the bits of bfloat16 numbers, and an offset added to each."""
    if source.itemsize == 2:
        for j in range(len(out)):
            out[j] = np.int32(np.int32(source[j]) << np.int32(16)).view(np.float32) + offset
    else:
        for j in range(len(out)):
            out[j] = source[j] + offset


def as_array(x: Float[Tensor, "..."]) -> NDArray:
    """The numbers of a tensor, without a copy; the bits of bfloat16, which numpy does not have."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
