"""CMM of candidate texts -> weights -> one classifier [C, D]: the weighted prompt ensemble, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.candidates import Candidates, candidate_cmm

TEMPERATURE = 0.3  # of the weights, in standard deviations of a class's candidate CMMs
CUT = 1.0  # candidates this many standard deviations below the class's best are left out
ROUNDS = 2  # in the second, rivals have the texts that the first chose for them


def weigh_candidates(
    candidates: Candidates,
    cmm: Float[Tensor, "T"],
    *,
    temperature: float = TEMPERATURE,
    cut: float | None = CUT,
    balanced: bool = True,
) -> Float[Tensor, "T"]:
    """Weights of the candidates, which sum to one in every class.

    w is proportional to g exp(CMM / tau_w). tau_w is `temperature` standard deviations of the class's candidate
    CMMs; candidates more than `cut` standard deviations below the class's best get nothing; g gives each group of the
    class equal mass before that (`balanced`), so that 24 templates do not drown 5 descriptions.

    Raises:
        InputError: a temperature that is not positive, or a negative cut.
    """
    if not temperature > 0 or (cut is not None and not cut >= 0):
        raise InputError(f"weigh: temperature must be positive and cut 0 or more, got {temperature} and {cut}")
    weights = torch.zeros(len(cmm), dtype=torch.float64, device=cmm.device)
    for rows in candidates.rows_by_class():
        if not len(rows):
            continue  # `combine_candidates` refuses such a class
        score = cmm[rows].double()
        deviation = score.std(correction=0).clamp_min(1e-12)
        log_weight = (score - score.max()) / (temperature * deviation)
        if balanced:
            group = candidates.groups[rows]
            log_weight = log_weight - group.bincount().to(score)[group].log()
        if cut is not None:
            log_weight = log_weight.masked_fill(score < score.max() - cut * deviation, -torch.inf)
        weights[rows] = log_weight.softmax(0)
    return weights


def weigh_prompts(
    text_features: Float[Tensor, "P C D"], cmm: Float[Tensor, "P C"], *, temperature: float = TEMPERATURE
) -> Float[Tensor, "P"]:
    """One weight a template for all classes, from its mean CMM over classes; tau_w as in `weigh_candidates`."""
    score = cmm.double().mean(1)
    return ((score - score.max()) / (temperature * score.std(correction=0).clamp_min(1e-12))).softmax(0)


def combine_candidates(candidates: Candidates, weights: Float[Tensor, "T"]) -> Float[Tensor, "C D"]:
    """The classifier: for each class the weighted sum of its candidates, unit norm.

    Raises:
        InputError: a class without a candidate of positive weight.
    """
    vectors = candidates.vectors
    summed = torch.zeros(candidates.n_classes, vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for part in torch.arange(len(vectors), device=vectors.device).split(BLOCK_ROWS):  # doubles of all would be large
        summed.index_add_(0, candidates.classes[part], weights[part].to(summed)[:, None] * vectors[part].double())
    empty = (summed.norm(dim=1) == 0).nonzero()
    if len(empty):
        raise InputError(f"combine: class {int(empty[0])} has no candidate of positive weight")
    return torch.nn.functional.normalize(summed, dim=1).float()


def cmm_ensemble(
    image_features: Float[Tensor, "N D"],
    candidates: Candidates,
    others: Float[Tensor, "C D"],
    logit_scale: float,
    *,
    assignment: Literal["soft", "retrieval"] = "soft",
    temperature: float = TEMPERATURE,
    cut: float | None = CUT,
    balanced: bool = True,
    rounds: int = ROUNDS,
    precision: Literal["fp32", "bf16"] = "fp32",
    scores: Float[Tensor, "T"] | None = None,
) -> Float[Tensor, "C D"]:
    """The weighted ensemble of all candidates, in one call.

    The first round measures candidates against `others`, each further round against the classifier of the round
    before: a description that pulls in the images of other classes looks good only as long as those have bad texts.

    Args:
        scores: CMM of the candidates, in place of the first round's. A pass over all templates has measured it:
            `class_matching_margin(passed).flatten()` in the order of `Candidates.of_templates`, there against the
            other classes under the same template. After the second round the ensemble is as good
            (`benchmarks/ensemble_start.py`).
        precision: see `candidate_cmm`.

    Raises:
        InputError: no round; and whatever `weigh_candidates` and `combine_candidates` refuse.
    """
    if rounds < 1:
        raise InputError(f"cmm_ensemble: rounds must be 1 or more, got {rounds}")
    for k in range(rounds):
        score = scores if k == 0 and scores is not None else None
        if score is None:
            score = candidate_cmm(image_features, candidates, others, logit_scale, assignment, precision=precision)
        others = combine_candidates(
            candidates, weigh_candidates(candidates, score, temperature=temperature, cut=cut, balanced=balanced)
        )
    return others


def uniform_weights(candidates: Candidates, *, balanced: bool = False) -> Float[Tensor, "T"]:
    """Equal weights within each class, or within each group of a class (`balanced`)."""
    equal = torch.zeros_like(candidates.classes, dtype=torch.float32)
    return weigh_candidates(candidates, equal, cut=None, balanced=balanced)


def replace_classes(base: Float[Tensor, "C D"], described: Mapping[int, Float[Tensor, "K D"]]) -> Float[Tensor, "C D"]:
    """The base classifier, with the mean description in place of each described class."""
    classifier = base.clone()
    for c, vectors in described.items():
        classifier[c] = torch.nn.functional.normalize(vectors.float().mean(0), dim=0)
    return classifier
