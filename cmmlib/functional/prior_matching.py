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
from cmmlib.functional._arguments import require_one_or_more
from cmmlib.functional.checks import require_images_and_texts
from cmmlib.functional.zero_shot import similarities

TOLERANCE = 1e-4  # of the log of mean probability over prior, from the highest class to the lowest
MAX_ROUNDS = 500
LONGEST = 4.0  # logits that a class may move in one step
DAMPING = 0.05  # of the first step that is damped; four times as much whenever a step leads astray
NOISE = 1e-7  # of the loss in float32: what changes less has not changed
BLOCK_BYTES = 64 << 20  # one [B, C] float32 block
KEPT_BYTES = 256 << 20  # all blocks together; where they are more, each is computed anew
SLOW = 0.1  # Newton's matrix is measured anew where a step leaves more of the widest gap
FAINT = -60.0  # log of a class's probabilities summed over a block: below it the logarithms are summed instead
GRID = 2.0**-20  # biases are rounded to it: copies of a class then tie exactly


@dataclass(frozen=True)
class Bias:
    """What prior matching found.

    Attributes:
        value: added to logit_scale * similarity, in logits, [C], float64, mean 0.
        converged: whether the gap between mean probabilities and prior came below `TOLERANCE`.
        rounds: times that all mean probabilities were computed.
        overlap: sum of q q^T over the sum of q, row by row, where it was measured last: what a fit that starts here
            needs for Newton's steps.
    """

    value: Float[Tensor, "C"]
    converged: bool
    rounds: int
    overlap: Float[Tensor, "C C"] | None = None


class SimilarityBlocks:
    """Similarities of images and class vectors, block by block, as often as they are asked for.

    They are kept up to `KEPT_BYTES`; where there are more, each block is computed anew.
    """

    def __init__(self, image_features: Float[Tensor, "N D"], vectors: Float[Tensor, "C D"]) -> None:
        self.image_features, self.vectors = image_features, vectors
        self.rows = max(1, BLOCK_BYTES // (4 * len(vectors)))
        few = 4 * len(vectors) * len(image_features) <= KEPT_BYTES
        self.kept = list(similarities(image_features, vectors, self.rows)) if few else None

    def __iter__(self) -> Iterator[Float[Tensor, "B C"]]:
        return iter(self.kept) if self.kept is not None else similarities(self.image_features, self.vectors, self.rows)


def match_prior(
    similarity: Float[Tensor, "N C"] | Iterable[Float[Tensor, "B C"]],
    logit_scale: float,
    prior: Float[Tensor, "C"] | Int[Tensor, "C"] | None = None,
    strength: float = 1.0,
    *,
    start: Bias | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> Bias:
    """Prior matching: the bias b at which mean_n softmax_c(logit_scale * similarity + b) is the prior (reconstruction).

        minimise  mean_n log sum_c exp(logit_scale * similarity[n, c] + b_c) - sum_c prior_c b_c

    which is convex, and at whose minimum this holds. By Newton's steps, damped (Levenberg and Marquardt) where one
    leads astray, until the logarithms of mean probability over prior lie within `TOLERANCE`. The matrix of the step is
    kept as long as these shrink quickly: to measure it costs more than a step.

    Compare "prior matching" in Shin et al. 2024 (OTTER), and Kahana et al. 2022 (CLIPPR). The images must follow the
    prior: nothing in them can tell a rare class from one that is never recognised.

    Args:
        similarity: cosines of reference images and class texts; or blocks of them that can be gone through again
            (`SimilarityBlocks`), so that no [N, C] is held.
        logit_scale: 1 / temperature, positive.
        prior: positive class frequencies, scaled to sum to 1; uniform by default.
        strength: in [0, 1], multiplies the bias; 0 is the plain classifier.

    Raises:
        InputError: no image, fewer than two classes, NaN or Inf, a prior, logit_scale or strength out of range, no
            round, or blocks that can be gone through once.
    """
    blocks = _split(similarity) if isinstance(similarity, Tensor) else similarity
    if iter(blocks) is blocks:
        raise InputError("prior matching: an iterator can be gone through once: give a list of blocks")
    require_one_or_more(max_rounds, "prior matching: max_rounds")
    log_prior = _log_prior(blocks, logit_scale, prior, strength)
    here = _Point.at(blocks, logit_scale, torch.zeros_like(log_prior) if start is None else start.value, log_prior)
    overlap = None if start is None else start.overlap
    fresh = overlap is None  # whether the matrix is measured at the point where the step begins
    overlap = _overlap(blocks, logit_scale, here.bias) if overlap is None else overlap
    rounds, damping = 1, 0.0
    while here.width >= TOLERANCE and rounds < max_rounds:
        there = _Point.at(blocks, logit_scale, here.bias - _step(here.gap, overlap, damping), log_prior)
        rounds, before = rounds + 1, here.width
        if there.loss < here.loss - NOISE or there.width < before:
            here, damping, fresh = there, damping / 4 if damping > DAMPING / 4 else 0.0, False
        elif fresh:
            damping = max(4 * damping, DAMPING)
        if not fresh and here.width >= max(TOLERANCE, SLOW * before):
            overlap, fresh = _overlap(blocks, logit_scale, here.bias), True
    value = strength * (here.bias / GRID).round() * GRID
    return Bias(value, here.width < TOLERANCE, rounds, overlap)


@dataclass(frozen=True)
class _Point:
    """Biases, and what prior matching makes of them: the loss, log of mean probability over prior, and its width."""

    bias: Float[Tensor, "C"]
    loss: float
    gap: Float[Tensor, "C"]
    width: float

    @classmethod
    def at(cls, blocks: Iterable[Tensor], logit_scale: float, bias: Tensor, log_prior: Tensor) -> _Point:
        loss, log_share = _loss_and_shares(blocks, logit_scale, bias)
        gap = log_share - log_prior
        return cls(bias, loss - float(log_prior.exp() @ bias), gap, float(gap.max() - gap.min()))


def _step(gap: Float[Tensor, "C"], overlap: Float[Tensor, "C C"], damping: float) -> Float[Tensor, "C"]:
    """Newton's step on the loss, its rows over the shares. The matrix lacks the direction in which all biases move
    alike.
    """
    n_classes = len(gap)
    matrix = (1 + damping) * torch.eye(n_classes, dtype=overlap.dtype, device=overlap.device) - overlap + 1 / n_classes
    step, failed = torch.linalg.solve_ex(matrix, 1 - (-gap).exp())
    if failed or not bool(step.isfinite().all()):
        step = gap  # Sinkhorn's
    step = step - step.mean()
    return step * (LONGEST / step.abs().max().clamp_min(LONGEST))


def _split(similarity: Float[Tensor, "N C"]) -> tuple[Tensor, ...]:
    return similarity.split(max(1, BLOCK_BYTES // (4 * max(1, similarity.shape[1]))))


def apply_bias(similarity: Float[Tensor, "B C"], logit_scale: float, bias: Float[Tensor, "C"]) -> Float[Tensor, "B C"]:
    """Corrected logits, logit_scale * similarity + bias, of any images, one at a time if need be. Float32."""
    return logit_scale * similarity.float() + bias.to(similarity.device, torch.float32)


def _loss_and_shares(blocks: Iterable[Tensor], logit_scale: float, bias: Tensor) -> tuple[float, Float[Tensor, "C"]]:
    """Mean of log sum exp of the logits, and log of every class's mean probability, finite where that underflows."""
    total, n, loss = torch.full_like(bias, -torch.inf), 0, 0.0
    for block in blocks:
        logits = apply_bias(block, logit_scale, bias)
        q = logits.softmax(1)
        mass = q.sum(0).double().log()
        if float(mass.min()) < FAINT:  # too close to what float32 can hold
            mass = logits.log_softmax(1).logsumexp(0).double()
        total, n = torch.logaddexp(total, mass), n + len(block)
        loss += float((logits.amax(1).double() - q.amax(1).double().log()).sum())
    return loss / n, total - log(n)


def _overlap(blocks: Iterable[Tensor], logit_scale: float, bias: Tensor) -> Float[Tensor, "C C"]:
    """Sum of q q^T over the sum of q, row by row: what the share of a class has in common with every other."""
    overlap = torch.zeros(len(bias), len(bias), dtype=torch.float64, device=bias.device)
    share = torch.zeros_like(bias)
    for block in blocks:
        q = apply_bias(block, logit_scale, bias).softmax(1)
        overlap += q.T @ q
        share += q.sum(0)
    return overlap / share.clamp_min(1e-300)[:, None]


def _log_prior(
    blocks: Iterable[Tensor], logit_scale: float, prior: Tensor | None, strength: float
) -> Float[Tensor, "C"]:
    first = next(iter(blocks), None)
    if first is None or not first.shape[0] or first.shape[1] < 2:
        raise InputError("prior matching needs at least one image and two classes")
    if not all(bool(block.isfinite().all()) for block in blocks):
        raise InputError("prior matching: a similarity is NaN or Inf: recompute the embeddings")
    if not 0 < logit_scale < float("inf") or not 0 <= strength <= 1:
        raise InputError(
            f"prior matching: logit_scale must be positive and strength in [0, 1], got {logit_scale} and {strength}"
        )
    n_classes = first.shape[1]
    prior = torch.full((n_classes,), 1 / n_classes, device=first.device) if prior is None else prior.to(first.device)
    return class_shares(prior, n_classes).log()


def class_shares(prior: Float[Tensor, "C"] | Int[Tensor, "C"], n_classes: int) -> Float[Tensor, "C"]:
    """Class frequencies scaled to sum to 1, float64.

    Raises:
        InputError: not one positive, finite number a class.
    """
    if prior.shape != (n_classes,) or not bool((prior > 0).all()) or not bool(prior.isfinite().all()):
        raise InputError(f"prior: {n_classes} positive frequencies are needed, one a class")
    return prior.double() / prior.double().sum()


# ---------------------------------------------------------------- a corrected classifier


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
        rounds: of prior matching, or of the prototypes.
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
    prior: Float[Tensor, "C"] | Int[Tensor, "C"] | None = None,
    strength: float = 1.0,
) -> Correction:
    """`match_prior` on unlabelled images and the texts of one prompt, as a `Correction`; both of unit norm.

    Raises:
        InputError: as `match_prior`, and for NaN, Inf or zero-length embeddings.
    """
    require_images_and_texts(image_features, text_features, logit_scale)
    bias = match_prior(SimilarityBlocks(image_features, text_features), logit_scale, prior, strength)
    none = torch.zeros_like(text_features.float())
    return Correction(text_features, logit_scale, none, bias.value, bias.converged, bias.rounds)
