"""Class prototypes from unlabelled images: what the images themselves say a class looks like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.checks import require_images_and_texts
from cmmlib.functional.equal_texts import first_with_equal_texts
from cmmlib.functional.prior_matching import (
    Bias,
    Correction,
    SimilarityBlocks,
    apply_bias,
    fit_prior_matching,
    match_prior,
)

TEXT_WEIGHT, IMAGE_WEIGHT = 4.0, 2.0  # of text and prototype similarities, each in standard deviations
PROTOTYPE_ROUNDS = 8
SETTLED = 1e-3  # share of predictions that may still change in the last of these rounds


@torch.no_grad()
def fit_prototypes(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    prior: Float[Tensor, "C"] | Int[Tensor, "C"] | None = None,
    strength: float = 1.0,
    *,
    text_weight: float = TEXT_WEIGHT,
    image_weight: float = IMAGE_WEIGHT,
    rounds: int = PROTOTYPE_ROUNDS,
    start: Correction | None = None,
) -> Correction:
    """Prototypes from unlabelled images (reconstruction): what the images themselves say a class looks like.

    Begins with the probabilities q of prior matching; then, in rounds,

        prototype_c = sum_n q[n, c] x_n, unit norm
        logits = text_weight s / std(s) + image_weight p / std(p) + bias,  q = softmax(logits)

    where s and p are the similarities of images with texts and with prototypes, and std is over all of them. The bias
    is that of prior matching, fitted anew in each round. Rounds end early once no more than `SETTLED` of the
    predictions change. Relatives: TransCLIP (Zanella et al. 2024), InMaP (Qian et al. 2023), EM-Dirichlet (Martin et
    al. 2024).

    Args:
        image_features: unlabelled reference images, which must follow the prior; unit norm.
        text_features: class texts, unit norm.
        logit_scale: of the first probabilities.
        prior: as in `match_prior`.
        strength: of the bias, in every round.
        start: prior matching of these images and texts, prior and strength, where it was fitted before.

    Raises:
        InputError: as `fit_prior_matching`, for no round or weights that are not positive, and for a start that was
            fitted to other texts.
    """
    require_images_and_texts(image_features, text_features, logit_scale)
    if rounds < 1 or text_weight <= 0 or image_weight <= 0:
        raise InputError(
            f"prototypes: rounds and weights must be positive, got {rounds}, {text_weight}, {image_weight}"
        )
    texts, before = text_features.float(), None
    first = first_with_equal_texts(texts)  # copies of a text share a prototype, to the last bit
    images = moments(image_features)
    text_scale = text_weight / deviation(images, texts)
    correction = first_correction(start, image_features, text_features, logit_scale, prior, strength)
    blocks, bias = SimilarityBlocks(image_features, correction.vectors), None
    for done in range(1, rounds + 1):
        centres = _weighted_means(image_features, blocks, correction.bias)[first]
        scaled = image_weight / deviation(images, centres) * centres
        blocks = SimilarityBlocks(image_features, text_scale * texts + scaled)
        bias = match_prior(blocks, 1.0, prior, strength, start=bias or Bias(correction.bias, False, 0))
        now = torch.cat([apply_bias(block, 1.0, bias.value).argmax(1) for block in blocks])
        settled = before is not None and float((now != before).double().mean()) <= SETTLED
        correction = Correction(text_features, text_scale, scaled, bias.value, bias.converged and settled, done)
        if settled:
            break
        before = now
    return correction


def fit_both(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, strength: float = 1.0
) -> dict[str, Correction]:
    """`prior_matching`, and the `prototypes` that begin with it: it is fitted once."""
    given = image_features, text_features, logit_scale
    matched = fit_prior_matching(*given, strength=strength)
    return {"prior_matching": matched, "prototypes": fit_prototypes(*given, strength=strength, start=matched)}


def first_correction(
    start: Correction | None, image_features: Tensor, text_features: Tensor, logit_scale: float, *settings: Any
) -> Correction:
    """Prior matching, fitted here where no start is given."""
    if start is None:
        return fit_prior_matching(image_features, text_features, logit_scale, *settings)
    same = torch.equal(start.text_features, text_features) and start.text_scale == logit_scale
    if not same or bool(start.prototypes.any()):
        raise InputError("start: expected prior matching of the same texts and logit_scale (fit_prior_matching)")
    return start


Moments = tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]


def moments(vectors: Float[Tensor, "N D"]) -> Moments:
    """Means of x and of x x^T, float64."""
    mean = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    square = torch.zeros(*(2 * [vectors.shape[1]]), dtype=torch.float64, device=vectors.device)
    for block in vectors.split(BLOCK_ROWS):
        x = block.double()
        mean, square = mean + x.sum(0), square + x.T @ x
    return mean / len(vectors), square / len(vectors)


def deviation(images: Moments, vectors: Float[Tensor, "C D"]) -> float:
    """Standard deviation of the similarities over all images and classes; 1 where all are equal.

    The mean of squares is the trace of mean(x x^T) mean(v v^T): no similarity is computed.
    """
    mean, square = moments(vectors)
    variance = float((images[1] * square).sum()) - float(images[0] @ mean) ** 2
    return variance**0.5 if variance > 1e-12 else 1.0


def _weighted_means(
    image_features: Float[Tensor, "N D"], blocks: Iterable[Float[Tensor, "B C"]], bias: Float[Tensor, "C"]
) -> Float[Tensor, "C D"]:
    """Direction of each class's images, weighted by its probability.

    The weights are relative to the highest of the class so far, since all of them may underflow.
    """
    total, start = torch.zeros(len(bias), image_features.shape[1], device=image_features.device), 0
    highest = torch.full_like(bias, -torch.inf, dtype=torch.float32)
    for block in blocks:
        x, log_q = image_features[start : start + len(block)].float(), apply_bias(block, 1.0, bias).log_softmax(1)
        before, highest = highest, torch.maximum(highest, log_q.amax(0))
        total = total * (before - highest).exp()[:, None] + (log_q - highest).exp_().T @ x
        start += len(block)
    return torch.nn.functional.normalize(total, dim=1)
