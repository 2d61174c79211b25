"""A linear probe: a logistic regression on image embeddings, fitted with labels. An oracle of what can be seen."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def linear_probe_accuracy(
    image_features: Float[Tensor, "M D"],
    labels: Int[Tensor, "M"],
    test_images: Float[Tensor, "N D"],
    test_labels: Int[Tensor, "N"],
    weight_decay: float = 1e-5,
) -> float:
    """Test accuracy of `fit_linear_probe`."""
    model = fit_linear_probe(image_features, labels, weight_decay)
    with torch.inference_mode():
        return float((model(test_images).argmax(1) == test_labels).double().mean())


def fit_linear_probe(
    image_features: Float[Tensor, "M D"], labels: Int[Tensor, "M"], weight_decay: float = 1e-5
) -> nn.Linear:
    """A multinomial logistic regression on image embeddings, fitted with L-BFGS."""
    with torch.enable_grad():
        model = nn.Linear(image_features.shape[1], int(labels.max()) + 1)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = (
                nn.functional.cross_entropy(model(image_features), labels) + weight_decay * model.weight.square().sum()
            )
            value.backward()
            return value

        optimizer.step(loss)  # type: ignore[arg-type]
    return model


def visual_confusability(
    probe: nn.Linear, image_features: Float[Tensor, "N D"], labels: Int[Tensor, "N"]
) -> Float[Tensor, "C"]:
    """Mean cross-entropy of a linear probe on each class's images, in nats: what the eye alone cannot tell apart.

    The probe is an oracle: it was fitted with labels, on other images (`quality.fit_probe`).
    """
    with torch.inference_mode():
        loss = nn.functional.cross_entropy(probe(image_features), labels, reduction="none").double()
    total = torch.zeros(probe.out_features, dtype=torch.float64).index_add_(0, labels, loss)
    return total / labels.bincount(minlength=probe.out_features)
