"""The parts that the compiled loops share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmmlib.functional._kernels.numba_helpers import compiled, exp2, ordered

POWERS = np.concatenate([np.linspace(-126, 127, 200_001), np.arange(-126, 128), np.arange(-126, 127) + 0.5]).astype(
    np.float32
)
FLOATS = st.floats(width=32, allow_nan=False)


@compiled()
def exp2_of_each(x, out):
    for i in range(len(x)):
        out[i] = exp2(x[i])


def test_exp2_errs_by_a_last_bit():
    found = np.empty_like(POWERS)
    exp2_of_each(POWERS, found)
    np.testing.assert_allclose(found, np.exp2(POWERS.astype(float)), rtol=1.2e-7)
    assert exp2(np.float32(0)) == 1


@pytest.mark.parametrize("power", [-127.0, -130.0, -150.0, -1e10, -np.inf])
def test_exp2_is_zero_below_the_normal_numbers(power):
    assert exp2(np.float32(power)) == 0


def order(x: float) -> int:
    return int(ordered(np.float32(x).view(np.int32)))


@given(FLOATS, FLOATS)
def test_ordered_integers_compare_as_the_floats(a, b):
    assert (order(a) < order(b), order(a) == order(b)) == (a < b, a == b)


@given(FLOATS)
def test_ordered_leads_back_to_the_float(x):
    assert np.int32(ordered(np.int32(order(x)))).view(np.float32) == np.float32(x)
