"""Predictions of one classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finished_runs import unit

from cmmlib.functional.zero_shot import predict


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (200, 6), (9000, 3)])
def test_a_prediction_is_the_class_of_highest_similarity(n, n_classes):
    images, classifier = unit(n, 12), unit(n_classes, 12, seed=1)
    s = images.double().numpy() @ classifier.double().numpy().T
    found = predict(images, classifier).numpy()
    assert (s[np.arange(n), found] >= s.max(1) - 1e-6).all()


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (200, 3), (500, 65)])
def test_a_tie_goes_to_the_lowest_index(n, n_classes):
    """A product in blocks may give equal texts different last bits; predictions must not be split by them."""
    images, classifier = unit(n, 48), unit(n_classes, 48, seed=1)
    found = predict(images, torch.cat([classifier, classifier]))
    assert found.max() < n_classes
    assert found.equal(predict(images, classifier))
    assert predict(images.half(), torch.cat([classifier[:1]] * 3)).eq(0).all()
