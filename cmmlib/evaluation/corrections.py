"""What chapter 5 does with a run: corrections from its unlabelled images, what is near in print, and the ensemble.

All of it is label-free, and takes `run.blind`. `cmmlib.evaluation.prior_shift` evaluates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.evaluation.methods import MethodResult, weighted_ensemble
from cmmlib.functional import ensemble as ens
from cmmlib.functional.candidates import Candidates, candidate_cmm
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.prototypes import fit_both
from cmmlib.functional.zero_shot import predict
from cmmlib.study.run import Run, label_free

NEAREST = 5  # images that ZLaP joins each with; TransCLIP takes the first of them
CORRECTIONS: dict[str, Callable[..., Correction]] = {
    "prior_matching": F.fit_prior_matching,
    "prototypes": F.fit_prototypes,
}


@label_free
def fit_corrections(run: Run) -> dict[str, Correction]:
    """Every correction, fitted on all images under the base prompt: uniform prior, strength 1."""
    return fit_both(run.image_features, run.base_text_features, run.logit_scale)


@label_free
def cross_fitted(run: Run, name: str) -> tuple[Int[Tensor, "N"], bool]:
    """Inductive predictions: each image's by a correction that was fitted on the half of the images it is not in.

    Returns:
        A prediction for each image, and whether both fits converged. One image alone is its own other half.
    """
    order = torch.randperm(len(run.image_features), generator=torch.Generator().manual_seed(run.study.seed))
    halves = order.chunk(2) if len(order) > 1 else (order, order)
    prediction, converged = torch.empty_like(order), True
    for fitted_on, judged in (halves, halves[::-1]):
        correction = CORRECTIONS[name](run.image_features[fitted_on], run.base_text_features, run.logit_scale)
        prediction[judged] = correction.predict(run.image_features[judged])
        converged &= correction.converged
    return prediction, converged


@label_free
def hub_and_under_predicted(run: Run, matched: Correction) -> tuple[int, int, Int[Tensor, "M"]]:
    """The two classes between which prior matching moves most images, and the images that either ever gets.

    Returns:
        The class that gives, the class that takes (of highest and of lowest bias where no image moves), image indices.
    """
    before, after = predict(run.image_features, run.base_text_features), matched.predict(run.image_features)
    moves = torch.stack([before, after], 1)[before != after]
    order = matched.bias.argsort(stable=True)
    hub, under_predicted = int(order[0]), int(order[-1])
    if len(moves):
        pairs, counts = moves.unique(dim=0, return_counts=True)
        hub, under_predicted = pairs[counts.argmax()].tolist()
    either = torch.stack([p == c for p in (before, after) for c in (hub, under_predicted)]).any(0)
    return hub, under_predicted, (either if either.any() else ~either).nonzero()[:, 0]


@label_free
def compare_corrections(run: Run, corrections: Mapping[str, Correction]) -> list[MethodResult]:
    """The base prompt, what is near in print, and the corrections, all on all images of the run and without a label."""
    x, texts, scale = run.image_features, run.base_text_features, run.logit_scale
    nearest = F.nearest_images(x, NEAREST)
    predictions = {
        "base": predict(x, texts),
        "mean_centred": F.mean_centred(x, texts),
        "z_scored": F.z_scored(x, texts),
        "label_shift_em": F.label_shift_em(x, texts, scale),
        "frolic": F.frolic(x, texts, scale),
        "zlap": F.zlap(x, texts, nearest=nearest),
        "transclip": F.transclip(x, texts, scale, nearest=nearest),
        "inmap": F.inmap(x, texts, scale),
        "otter": F.otter(x, texts),
        **{name: correction.predict(x) for name, correction in corrections.items()},
        "gaussians": F.fit_gaussians(x, texts, scale, start=corrections.get("prior_matching")).predict(x),
    }
    return [MethodResult(name, prediction) for name, prediction in predictions.items()]


@label_free
def compare_orders(
    run: Run, described: Mapping[int, Tensor], corrections: Mapping[str, Correction]
) -> list[MethodResult]:
    """The ensemble and each correction in both orders: fitted to the ensemble, or before its weights are chosen.

    Args:
        described: text vectors of the described classes' descriptions.
        corrections: fitted under the base prompt (`fit_corrections`).
    """
    candidates = Candidates.of_templates(run.text_features).with_descriptions(described)
    ensemble = weighted_ensemble(run, candidates)
    methods = [MethodResult("ensemble", predict(run.image_features, ensemble))]
    after = fit_both(run.image_features, ensemble, run.logit_scale)
    for name, first in corrections.items():
        methods.append(MethodResult(f"{name} alone", first.predict(run.image_features)))
        methods.append(MethodResult(f"ensemble, then {name}", after[name].predict(run.image_features)))
        weighed = corrected_ensemble(run, candidates, first)
        methods.append(MethodResult(f"{name}, then ensemble", first.with_texts(weighed).predict(run.image_features)))
    return methods


@label_free
def corrected_ensemble(run: Run, candidates: Candidates, correction: Correction) -> Float[Tensor, "C D"]:
    """The weighted ensemble whose candidates' CMM is measured under a correction that is there already.

    A bias is one more dimension, in which every image is 1; so the margins are those of corrected logits.
    """
    x = torch.nn.functional.pad(run.image_features.float(), (0, 1), value=1.0)
    own = correction.prototypes[candidates.classes], correction.bias[candidates.classes]
    vectors = _with_bias(correction.text_scale * candidates.vectors + own[0], own[1])
    corrected = Candidates(vectors, candidates.classes, candidates.groups, candidates.n_classes)
    others = F.uniform_mean(run.text_features)
    for _ in range(ens.ROUNDS):
        rivals = _with_bias(correction.with_texts(others).vectors, correction.bias)
        score = candidate_cmm(x, corrected, rivals, 1.0)
        others = F.combine_candidates(candidates, F.weigh_candidates(candidates, score))
    return others


def _with_bias(vectors: Float[Tensor, "T D"], bias: Float[Tensor, "T"]) -> Float[Tensor, "T D1"]:
    return torch.cat([vectors, bias[:, None].to(vectors)], 1)
