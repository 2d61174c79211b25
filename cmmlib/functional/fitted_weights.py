"""Weights of candidate texts that are fitted to an assignment of the unlabelled images, instead of computed from CMM.

CMM judges every text by the images that it draws itself, so a class that is never predicted is judged on the images of
others. Here a correction that looks at the images (prototypes, TransCLIP) assigns the images first, for all classes at
once, and the weights are those under which the texts reproduce this assignment best.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.ensemble import combine_candidates, uniform_weights
from cmmlib.functional.prototypes import fit_prototypes

STEPS = 100  # of Adam
LEARNING_RATE = 0.1  # of the logarithms of the weights
FITTED_ROUNDS = 2  # in the second, images are assigned under the texts that the first chose

Assign = Callable[[Float[Tensor, "C D"]], Float[Tensor, "N C"]]


def fit_candidate_weights(
    image_features: Float[Tensor, "N D"],
    candidates: Candidates,
    assignment: Float[Tensor, "N C"],
    logit_scale: float,
    *,
    steps: int = STEPS,
) -> Float[Tensor, "T"]:
    """Weights of the candidates under which the classifier reproduces an assignment of images to classes.

    They minimise (reconstruction; no published source)

        -1/N sum_n sum_c a[n, c] log softmax_c(logit_scale <x_n, v_c>),   v_c the unit vector along sum_k w_k t_k

    over weights that are positive and sum to 1 in every class: `steps` steps of Adam on their logarithms, which begin
    at equal mass of templates and descriptions. Unlike CMM this is an optimisation, and a text is judged together with
    all others: by the images of its class that it keeps, and by those of other classes that it draws.

    Args:
        image_features: unlabelled images, unit norm.
        assignment: probabilities of the classes for every image, from a correction such as `fit_prototypes`; rows sum
            to 1. It carries that correction's assumption on class frequencies.
        logit_scale: 1 / temperature, positive.
        steps: 0 leaves the balanced weights.

    Returns:
        Weights in [0, 1], float64, which sum to 1 in every class.

    Raises:
        InputError: an assignment of another shape than [N, C], a class without candidates, or a negative number of
            steps.
    """
    n, n_classes = len(image_features), candidates.n_classes
    if tuple(assignment.shape) != (n, n_classes) or steps < 0:
        raise InputError(
            f"fit_candidate_weights: expected an assignment [{n}, {n_classes}] and 0 steps or more, "
            f"got {list(assignment.shape)} and {steps}"
        )
    place, there = _table(candidates)
    texts = candidates.vectors.float()[place]  # [C, K, D]
    start = uniform_weights(candidates, balanced=True).to(texts)[place]
    log_weights = start.log().masked_fill(~there, -torch.inf)
    optimiser = torch.optim.Adam([log_weights], lr=LEARNING_RATE)
    for _ in range(steps):
        log_weights.grad = _gradient(image_features, texts, log_weights, assignment, logit_scale)
        optimiser.step()
    weights = torch.zeros(len(candidates.classes), dtype=torch.float64, device=texts.device)
    weights[place[there]] = log_weights.double().softmax(1)[there]
    return weights


def _table(candidates: Candidates) -> tuple[Int[Tensor, "C K"], Bool[Tensor, "C K"]]:
    """Places of every class's candidates in rows of equal length, and where one is."""
    rows = candidates.rows_by_class()
    sizes = candidates.classes.bincount(minlength=candidates.n_classes)
    if int(sizes.min()) == 0:
        raise InputError(f"fit_candidate_weights: class {int(sizes.argmin())} has no candidate")
    place = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return place, torch.arange(place.shape[1], device=place.device) < sizes[:, None]


def _gradient(
    image_features: Float[Tensor, "N D"],
    texts: Float[Tensor, "C K D"],
    log_weights: Float[Tensor, "C K"],
    assignment: Float[Tensor, "N C"],
    logit_scale: float,
) -> Float[Tensor, "C K"]:
    """Of the cross-entropy, by the logarithms of the weights; images block by block."""
    weights = log_weights.softmax(1)
    summed = torch.einsum("ck,ckd->cd", weights, texts)
    size = summed.norm(dim=1, keepdim=True).clamp_min(1e-12)
    classifier, pull = summed / size, torch.zeros_like(summed)
    for x, wanted in zip(image_features.split(BLOCK_ROWS), assignment.split(BLOCK_ROWS), strict=True):
        x = x.float()
        pull += ((logit_scale * (x @ classifier.T)).softmax(1) - wanted.float()).T @ x
    pull *= logit_scale / len(image_features)  # by the classifier
    along = (pull * classifier).sum(1, keepdim=True)
    by_weight = torch.einsum("cd,ckd->ck", (pull - along * classifier) / size, texts)
    return weights * (by_weight - (weights * by_weight).sum(1, keepdim=True))


def fitted_ensemble(
    image_features: Float[Tensor, "N D"],
    candidates: Candidates,
    logit_scale: float,
    assign: Assign | None = None,
    *,
    rounds: int = FITTED_ROUNDS,
    steps: int = STEPS,
) -> Float[Tensor, "C D"]:
    """The ensemble whose weights are fitted to the images' assignment, in one call: `fit_candidate_weights` in rounds.

    The first round assigns the images under the balanced mean of the candidates, each further round under the
    classifier of the round before.

    Args:
        assign: from a classifier [C, D] to probabilities [N, C]; by default those of `fit_prototypes`, which assumes
            that classes are about equally frequent among the images.

    Raises:
        InputError: no round; and whatever `fit_candidate_weights` and `assign` refuse.
    """
    if rounds < 1:
        raise InputError(f"fitted_ensemble: rounds must be 1 or more, got {rounds}")

    def by_prototypes(classifier: Float[Tensor, "C D"]) -> Float[Tensor, "N C"]:
        return fit_prototypes(image_features, classifier, logit_scale).logits(image_features).softmax(1)

    classifier = combine_candidates(candidates, uniform_weights(candidates, balanced=True))
    for _ in range(rounds):
        found = (assign or by_prototypes)(classifier)
        weights = fit_candidate_weights(image_features, candidates, found, logit_scale, steps=steps)
        classifier = combine_candidates(candidates, weights)
    return classifier
