"""Gaussians from unlabelled images: prototypes whose classes share one covariance, so that directions are weighed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.checks import require_images_and_texts
from cmmlib.functional.equal_texts import first_with_equal_texts
from cmmlib.functional.prior_matching import (
    Correction,
    SimilarityBlocks,
    apply_bias,
    match_prior,
)
from cmmlib.functional.prototypes import SETTLED, deviation, first_correction, moments

GAUSSIAN_TEXT_WEIGHT, GAUSSIAN_IMAGE_WEIGHT = 4.0, 4.0  # of text similarities and discriminants, in deviations
RIDGE = 5.0  # added to the covariance's diagonal, in units of its mean: see `benchmarks/correction_variants.py`
GAUSSIAN_ROUNDS = 8
FAINT = 1e-30  # a class's probabilities summed over a block


@torch.no_grad()
def fit_gaussians(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    prior: Float[Tensor, "C"] | Int[Tensor, "C"] | None = None,
    strength: float = 1.0,
    *,
    text_weight: float = GAUSSIAN_TEXT_WEIGHT,
    image_weight: float = GAUSSIAN_IMAGE_WEIGHT,
    ridge: float = RIDGE,
    rounds: int = GAUSSIAN_ROUNDS,
    start: Correction | None = None,
) -> Correction:
    """Gaussians of the images with one shared covariance, in the prototypes' place (reconstruction).

    Begins with the probabilities q of prior matching; then, in rounds,

        mu_c = sum_n q[n, c] x_n / sum_n q[n, c]
        S = 1/N sum_n sum_c q[n, c] (x_n - mu_c)(x_n - mu_c)^T,  plus `ridge` times the mean of its diagonal
        g_nc = x_n S^-1 mu_c - 1/2 mu_c S^-1 mu_c,  less its mean over classes
        logits = text_weight s / std(s) + image_weight g / std(g) + bias,  q = softmax(logits)

    where s are the similarities of images with texts, std is over all images and classes, and the bias is that of prior
    matching. g is linear discriminant analysis; with an infinite ridge it is a prototype again. Relatives: TransCLIP
    (Zanella et al. 2024; one diagonal covariance and a graph), Wang et al. 2024 ("A hard-to-beat baseline for
    training-free CLIP-based adaptation"; labelled images). Rounds end as those of `fit_prototypes`.

    Args:
        image_features: unlabelled reference images, which must follow the prior; unit norm.
        text_features: class texts, unit norm.
        logit_scale: of the first probabilities.
        prior: as in `match_prior`.
        strength: of the bias, in every round.
        ridge: positive: with fewer images than dimensions the covariance has no inverse of its own.
        start: as in `fit_prototypes`.

    Returns:
        A classifier linear in the image; its `bias` holds the discriminants' constants too.

    Raises:
        InputError: as `fit_prototypes`, and for a ridge that is not positive.
    """
    require_images_and_texts(image_features, text_features, logit_scale)
    if rounds < 1 or not all(value > 0 for value in (text_weight, image_weight, ridge)):
        raise InputError(
            "gaussians: rounds, weights and ridge must be positive, "
            f"got {rounds}, {text_weight}, {image_weight} and {ridge}"
        )
    texts, before = text_features.float(), None
    first = first_with_equal_texts(texts)  # copies of a text share a Gaussian, to the last bit
    correction = first_correction(start, image_features, text_features, logit_scale, prior, strength)
    images = torch.nn.functional.pad(image_features.float(), (0, 1), value=1.0)  # a constant is one more dimension
    of_images = moments(images)
    square = of_images[1][:-1, :-1]
    text_scale = text_weight / deviation(of_images, torch.nn.functional.pad(texts, (0, 1)))
    bias = None
    for done in range(1, rounds + 1):
        found = _discriminants(image_features, square, correction, ridge)[first]
        found = image_weight / deviation(of_images, found) * found
        vectors = found + torch.nn.functional.pad(text_scale * texts, (0, 1))
        blocks = SimilarityBlocks(images, vectors)
        bias = match_prior(blocks, 1.0, prior, strength, start=bias)
        now = torch.cat([apply_bias(block, 1.0, bias.value).argmax(1) for block in blocks])
        settled = before is not None and float((now != before).double().mean()) <= SETTLED
        whole = bias.value + found[:, -1].double()
        correction = Correction(text_features, text_scale, found[:, :-1], whole, bias.converged and settled, done)
        if settled:
            break
        before = now
    return correction


def _discriminants(
    image_features: Float[Tensor, "N D"], square: Float[Tensor, "D D"], correction: Correction, ridge: float
) -> Float[Tensor, "C D1"]:
    """For every class the vector S^-1 mu_c and the number -1/2 mu_c S^-1 mu_c, less their means over classes.

    Args:
        square: mean of x x^T over the images, float64.
    """
    n_classes, width = correction.text_features.shape
    mass = torch.zeros(n_classes, dtype=torch.float64, device=image_features.device)
    total = mass.new_zeros(n_classes, width)
    for block in image_features.split(BLOCK_ROWS):
        logits = correction.logits(block)
        q = logits.softmax(1)
        if float(q.sum(0).min()) < FAINT:  # too close to what float32 can hold
            q = logits.double().softmax(1)
        mass, total = mass + q.sum(0, dtype=torch.float64), total + q.T @ block.to(q)
    mean = total / mass.clamp_min(1e-300)[:, None]
    covariance = square - total.T @ mean / len(image_features)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean().clamp_min(1e-12))
    direction = torch.linalg.solve(covariance, mean.T).T
    found = torch.cat([direction, -(direction * mean).sum(1, keepdim=True) / 2], 1)
    return (found - found.mean(0)).float()
