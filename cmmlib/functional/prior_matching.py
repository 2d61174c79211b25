"""Corrections learnt from unlabelled images: prior matching, and prototypes. No label and no further text enters.

Prior matching adds a bias to every class, in units of logits (logit_scale * similarity), such that the mean
probability of each class equals its prior. Its plain fixed point is Sinkhorn's algorithm; OTTER (Shin et al. 2024) is
its limit at temperature zero. Prototypes add what the images say a class looks like. Both assume that the images they
are fitted on follow the prior, and both are fitted once and applied anywhere: what comes out is one vector and one
number for each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional.checks import check_embeddings
from cmmlib.functional.zero_shot import similarities

TOLERANCE = 1e-4  # of the log of mean probability over prior, from the highest class to the lowest
MAX_ROUNDS = 500
CAREFUL = 5  # rounds of the plain fixed point after a step of Newton's that led astray
BLOCK_BYTES = 64 << 20  # one [B, C] float32 block; fewer images are kept as one block, more are computed anew
FAINT = -60.0  # log of a class's probabilities summed over a block: below it the logarithms are summed instead
GRID = 2.0**-20  # biases are rounded to it: copies of a class then tie exactly


@dataclass(frozen=True)
class Bias:
    """What prior matching found.

    Attributes:
        value: added to logit_scale * similarity, in logits, [C], float64, mean 0.
        converged: whether the gap between mean probabilities and prior came below `TOLERANCE`.
        rounds: of the fixed point.
    """

    value: Float[Tensor, "C"]
    converged: bool
    rounds: int


class SimilarityBlocks:
    """Similarities of images and class vectors, block by block, as often as they are asked for.

    One block is kept; where there are more, none is: each is computed anew.
    """

    def __init__(self, image_features: Float[Tensor, "N D"], vectors: Float[Tensor, "C D"]) -> None:
        self.image_features, self.vectors = image_features, vectors
        self.rows = max(1, BLOCK_BYTES // (4 * len(vectors)))
        self.kept = list(similarities(image_features, vectors, self.rows)) if len(image_features) <= self.rows else None

    def __iter__(self) -> Iterator[Float[Tensor, "B C"]]:
        return iter(self.kept) if self.kept is not None else similarities(self.image_features, self.vectors, self.rows)


def match_prior(
    similarity: Float[Tensor, "N C"] | Iterable[Float[Tensor, "B C"]],
    logit_scale: float,
    prior: Float[Tensor, "C"] | None = None,
    strength: float = 1.0,
    *,
    start: Float[Tensor, "C"] | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> Bias:
    """Prior matching: the bias b at which mean_n softmax_c(logit_scale * similarity + b) is the prior (reconstruction).

        b <- b - step(log(mean_n q[n] / prior)),  centred,  until those logarithms lie within `TOLERANCE`

    where the step is Newton's, or for some rounds the identity (Sinkhorn's) after one that led astray.

    Compare "prior matching" in Shin et al. 2024 (OTTER), and Kahana et al. 2022 (CLIPPR). The images must follow the
    prior: nothing in them can tell a rare class from one that is never recognised.

    Args:
        similarity: cosines of reference images and class texts; or blocks of them that can be gone through again
            (`SimilarityBlocks`), so that no [N, C] is held.
        logit_scale: 1 / temperature, positive.
        prior: positive class frequencies, scaled to sum to 1; uniform by default.
        strength: in [0, 1], multiplies the bias; 0 is the plain classifier.

    Raises:
        InputError: no image, fewer than two classes, NaN or Inf, or a prior, logit_scale or strength out of range.
    """
    blocks = _split(similarity) if isinstance(similarity, Tensor) else similarity
    log_prior = _log_prior(blocks, logit_scale, prior, strength)
    kept = bias = torch.zeros_like(log_prior) if start is None else start.double()
    size, careful, rounds, kept_gap = float("inf"), 0, 0, torch.zeros_like(log_prior)
    while rounds < max_rounds:
        log_share, overlap = _shares(blocks, logit_scale, bias)
        gap, rounds = log_share - log_prior, rounds + 1
        if float(gap.max() - gap.min()) < size:
            kept, kept_gap, size = bias, gap, float(gap.max() - gap.min())
        else:  # only Newton's step can widen the gaps
            careful = rounds + CAREFUL
        if size < TOLERANCE:
            break
        step = kept_gap if rounds < careful else _newton_step(gap, log_share, overlap)
        bias = kept - step + step.mean()
    return Bias(strength * (kept / GRID).round() * GRID, size < TOLERANCE, rounds)


def _newton_step(gap: Float[Tensor, "C"], log_share: Float[Tensor, "C"], overlap: Float[Tensor, "C C"]) -> Tensor:
    """Newton's step for log share = log prior. The Jacobian lacks the direction in which all biases move alike."""
    n_classes = len(gap)
    jacobian = torch.eye(n_classes).to(overlap) - overlap / log_share.exp().clamp_min(1e-300)[:, None]
    step, failed = torch.linalg.solve_ex(jacobian + 1 / n_classes, gap)
    return step if failed == 0 and bool(step.isfinite().all()) else gap


def _split(similarity: Float[Tensor, "N C"]) -> tuple[Tensor, ...]:
    return similarity.split(max(1, BLOCK_BYTES // (4 * max(1, similarity.shape[1]))))


def apply_bias(similarity: Float[Tensor, "B C"], logit_scale: float, bias: Float[Tensor, "C"]) -> Float[Tensor, "B C"]:
    """Corrected logits, logit_scale * similarity + bias, of any images, one at a time if need be. Float32."""
    return logit_scale * similarity.float() + bias.to(similarity.device, torch.float32)


def _shares(
    blocks: Iterable[Tensor], logit_scale: float, bias: Tensor
) -> tuple[Float[Tensor, "C"], Float[Tensor, "C C"]]:
    """Log of the mean probability of every class, finite where the probability underflows; mean of q q^T."""
    total, n = torch.full_like(bias, -torch.inf), 0
    overlap = torch.zeros(len(bias), len(bias), dtype=torch.float64, device=bias.device)
    for block in blocks:
        logits = apply_bias(block, logit_scale, bias)
        q = logits.softmax(1)
        mass = q.sum(0).double().log()
        if float(mass.min()) < FAINT:  # too close to what float32 can hold
            mass = logits.log_softmax(1).logsumexp(0).double()
        total, n = torch.logaddexp(total, mass), n + len(block)
        overlap += q.T @ q
    return total - log(n), overlap / n


def _log_prior(
    blocks: Iterable[Tensor], logit_scale: float, prior: Tensor | None, strength: float
) -> Float[Tensor, "C"]:
    sizes = [(tuple(block.shape), bool(block.isfinite().all())) for block in blocks]
    if not sizes or not sizes[0][0][0] or sizes[0][0][1] < 2:
        raise InputError("prior matching needs at least one image and two classes")
    if not all(finite for _, finite in sizes):
        raise InputError("prior matching: a similarity is NaN or Inf: recompute the embeddings")
    if not 0 < logit_scale < float("inf") or not 0 <= strength <= 1:
        raise InputError(
            f"prior matching: logit_scale must be positive and strength in [0, 1], got {logit_scale} and {strength}"
        )
    n_classes = sizes[0][0][1]
    prior = torch.full((n_classes,), 1 / n_classes) if prior is None else prior
    if len(prior) != n_classes or not bool((prior > 0).all()) or not bool(prior.isfinite().all()):
        raise InputError(f"prior: {n_classes} positive frequencies are needed, one a class")
    return (prior.double() / prior.double().sum()).log()


# ---------------------------------------------------------------- prototypes


@dataclass(frozen=True)
class Correction:
    """A corrected classifier: logits = x . (text_scale * t_c + prototypes_c) + bias_c, linear in the image.

    It keeps the texts it was fitted to: under other texts its bias says nothing.

    Attributes:
        text_features: that it was fitted to, [C, D].
        text_scale: what text similarities are multiplied by; the logit scale for prior matching alone.
        prototypes: scaled prototypes, [C, D]; zero for prior matching alone.
        bias: in logits, [C].
        converged: whether the rounds settled; it is right to use it where they did not, and to say so.
        rounds: of the fixed point, or of the prototypes.
    """

    text_features: Float[Tensor, "C D"]
    text_scale: float
    prototypes: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]
    converged: bool
    rounds: int

    @property
    def vectors(self) -> Float[Tensor, "C D"]:
        """What an image is multiplied with: one vector a class, so inference costs what one prompt costs."""
        return self.text_scale * self.text_features.float() + self.prototypes

    def logits(self, image_features: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """Corrected logits of any images, [B, C]: for blocks."""
        return apply_bias(next(similarities(image_features, self.vectors, len(image_features))), 1.0, self.bias)

    def predict(self, image_features: Float[Tensor, "N D"]) -> Int[Tensor, "N"]:
        """The class of highest corrected logit for every image, ties to the lowest index."""
        blocks = similarities(image_features, self.vectors)
        return torch.cat([apply_bias(block, 1.0, self.bias).argmax(1) for block in blocks])

    def with_strength(self, strength: float) -> Correction:
        """The same with the bias scaled: for prior matching, the fit at that strength."""
        return replace(self, bias=strength * self.bias)

    def with_texts(self, text_features: Float[Tensor, "C D"]) -> Correction:
        """The same under texts that it was not fitted to: to compare, not to classify with."""
        return replace(self, text_features=text_features)


def fit_prior_matching(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    prior: Float[Tensor, "C"] | None = None,
    strength: float = 1.0,
) -> Correction:
    """`match_prior` on unlabelled images and the texts of one prompt, as a `Correction`; both of unit norm.

    Raises:
        InputError: as `match_prior`, and for NaN, Inf or zero-length embeddings.
    """
    _check(image_features, text_features, logit_scale)
    bias = match_prior(SimilarityBlocks(image_features, text_features), logit_scale, prior, strength)
    none = torch.zeros_like(text_features.float())
    return Correction(text_features, logit_scale, none, bias.value, bias.converged, bias.rounds)


def _check(image_features: Tensor, text_features: Tensor, logit_scale: float) -> None:
    if not 0 < logit_scale < float("inf"):
        raise InputError(f"logit_scale must be positive and finite, got {logit_scale}")
    if image_features.ndim != 2 or text_features.ndim != 2 or image_features.shape[1] != text_features.shape[1]:
        raise InputError(
            f"image_features {list(image_features.shape)} and text_features {list(text_features.shape)} do not fit: "
            "expected [N, D] and [C, D]"
        )
    check_embeddings(image_features, "image_features")
    check_embeddings(text_features, "text_features")
