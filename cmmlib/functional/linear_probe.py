"""A linear probe: a logistic regression on image embeddings, fitted with labels. An oracle of what can be seen."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cmmlib.errors import InputError


def linear_probe_accuracy(
    image_features: Float[Tensor, "M D"],
    labels: Int[Tensor, "M"],
    test_images: Float[Tensor, "N D"],
    test_labels: Int[Tensor, "N"],
    weight_decay: float = 1e-5,
) -> float:
    """Test accuracy of `fit_linear_probe`, in [0, 1]."""
    return float(fit_linear_probe(image_features, labels, weight_decay).score(test_images, test_labels))


def fit_linear_probe(
    image_features: Float[Tensor, "M D"], labels: Int[Tensor, "M"], weight_decay: float = 1e-5
) -> LogisticRegression:
    """The logistic regression of least mean cross-entropy + weight_decay * the squared norm of its weights.

    Raises:
        InputError: images of one class alone.
    """
    if len(labels.unique()) < 2:
        raise InputError("fit_linear_probe: labels: a probe tells classes apart: give images of at least two")
    return LogisticRegression(C=1 / (2 * weight_decay * len(labels)), max_iter=300).fit(image_features, labels)


def visual_confusability(
    probe: LogisticRegression, image_features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], n_classes: int
) -> Float[Tensor, "C"]:
    """Mean cross-entropy of a linear probe on each class's images, in nats: how little the embeddings separate it.

    The probe was fitted with labels, on other images. NaN for a class without images here, Inf for one without there.
    """
    log_probability = np.full((len(labels), n_classes), -np.inf)
    log_probability[:, probe.classes_] = probe.predict_log_proba(image_features)
    loss = -torch.from_numpy(log_probability).gather(1, labels[:, None])[:, 0]
    total = torch.zeros(n_classes, dtype=torch.float64).index_add_(0, labels, loss)
    return total / labels.bincount(minlength=n_classes)
