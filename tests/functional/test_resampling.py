"""Drawn images: none twice, as many of each class as asked, and frequencies that follow their law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmmlib import InputError
from cmmlib.functional import resampling
from cmmlib.functional.resampling import dirichlet_frequencies, few_per_class, long_tailed_frequencies, with_frequencies

LABELS = torch.arange(1200) % 12


@pytest.mark.parametrize("n", [1, 7, 100, 500])
def test_few_a_class_takes_as_many_of_each(n):
    kept = few_per_class(LABELS, n)
    assert LABELS[kept].bincount().tolist() == [min(n, 100)] * 12
    assert len(kept.unique()) == len(kept)
    assert n >= 100 or not kept.equal(few_per_class(LABELS, n, seed=1))


def test_no_image_a_class_is_refused():
    with pytest.raises(InputError, match="n must be 1 or more"):
        few_per_class(LABELS, 0)


def test_images_follow_the_frequencies_or_stop_at_what_there_is():
    frequencies = torch.tensor([0.5, *[0.5 / 11] * 11], dtype=torch.float64)
    counts = torch.stack([LABELS[with_frequencies(LABELS, frequencies, s)].bincount(minlength=12) for s in range(200)])
    assert counts[:, 0].eq(100).all()  # 200 are wanted
    wanted = 400 * 0.5 / 11
    assert counts[:, 1:].double().mean() == pytest.approx(wanted, abs=0.1)
    assert set(counts[:, 1:].flatten().tolist()) == {int(wanted), int(wanted) + 1}


def test_a_balanced_law_draws_a_third():
    kept = with_frequencies(LABELS, torch.full((12,), 1 / 12, dtype=torch.float64))
    assert len(kept) == pytest.approx(400, abs=12)
    assert kept.equal(kept.sort().values)


def test_dirichlet_frequencies_have_the_spread_of_their_law():
    for concentration in (5.0, 1.0, 0.3):
        drawn = torch.stack([dirichlet_frequencies(20, concentration, seed) for seed in range(400)])
        torch.testing.assert_close(drawn.sum(1), torch.ones(400, dtype=torch.float64))
        variance = (1 / 20) * (19 / 20) / (20 * concentration + 1)
        assert float(drawn.var(0).mean()) == pytest.approx(variance, rel=0.1)


def test_the_long_tail_falls_exponentially():
    frequencies = long_tailed_frequencies(30, seed=3).sort(descending=True).values
    assert float(frequencies.sum()) == pytest.approx(1)
    ratios = (frequencies[1:] / frequencies[:-1]).numpy()
    np.testing.assert_allclose(ratios, resampling.LONG_TAIL ** (-1 / 29))
    assert not long_tailed_frequencies(30, seed=3).equal(long_tailed_frequencies(30, seed=4))
