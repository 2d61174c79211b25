"""What chapters 3 and 4 do with a run: choose suspects, ask about them, and make every classifier that is compared.

All of it is label-free, and takes `run.blind`, a run without its labels. `cmmlib.evaluation.evaluation` evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.prototypes import fit_both
from cmmlib.functional.zero_shot import predict
from cmmlib.study.enrich import encode_descriptions, enrich_all
from cmmlib.study.run import Run, label_free
from cmmlib.texts.waffle import waffle_texts

# ---------------------------------------------------------------- every classifier that is compared


@dataclass(frozen=True)
class MethodResult:
    """A way to classify: its predictions, whether it needed labels, and how many classes' descriptions it uses.

    Where it is linear in the image, also its texts, [C, D], or their correction.
    """

    name: str
    prediction: Int[Tensor, "N"]
    label_free: bool = True
    requests: int = 0
    classifier: Float[Tensor, "C D"] | None = None
    correction: Correction | None = None


@label_free
def compare_methods(
    run: Run, described: Mapping[int, Tensor], ensemble: Float[Tensor, "C D"] | None = None
) -> list[MethodResult]:
    """Every label-free method on the same images. What needs a text tower, or more than one prompt, is left out
    without it.

    Args:
        described: text vectors of the described classes' descriptions.
        ensemble: the weighted ensemble of all candidates, where it was computed already.
    """
    methods = [_linear(run, "base", run.base_text_features)]
    if run.backbone is not None:
        methods.append(_linear(run, "class_name", run.encode(run.classnames)))
    if len(run.text_features) > 1:
        methods += _published_ensembles(run)
    if run.backbone is not None:
        methods.append(_linear(run, "waffle", F.uniform_mean(_waffle_features(run))))
    if len(run.text_features) > 1:
        methods += _cmm_of_templates(run, None if described else ensemble)
    if run.backbone is not None:
        methods += _all_described(run)
    return methods + (_enriched(run, described, ensemble) if described else [])


def _published_ensembles(run: Run) -> list[MethodResult]:
    """Ways to combine the pool's prompts that others have published."""
    texts = run.text_features
    weights = F.zpe(run.image_features, texts, run.logit_scale)
    return [
        _linear(run, "uniform", F.uniform_mean(texts)),
        _linear(run, "zpe", _weighted(texts, weights)),
        MethodResult("autoclip", F.autoclip(run.image_features, texts, run.logit_scale)),
        _linear(run, "carprt", _carprt(run, texts)),
    ]


def _carprt(run: Run, texts: Float[Tensor, "P C D"]) -> Float[Tensor, "C D"]:
    weights = F.carprt(run.image_features, texts, run.logit_scale, passed=run.pool_pass)
    return F.combine_candidates(Candidates.of_templates(texts), weights.flatten())


def _waffle_features(run: Run) -> Float[Tensor, "P C D"]:
    waffle = waffle_texts(run.classnames, seed=run.study.seed)
    return run.encode([text for texts in waffle for text in texts]).unflatten(0, (len(waffle), run.n_classes))


def _cmm_of_templates(run: Run, ensemble: Float[Tensor, "C D"] | None) -> list[MethodResult]:
    """CMM's weights among the pool's prompts: class by class, and one for all classes."""
    texts = run.text_features
    own = weighted_ensemble(run, Candidates.of_templates(texts)) if ensemble is None else ensemble
    score = F.class_matching_margin(run.pool_pass, "soft")
    for_all = _weighted(texts, F.weigh_prompts(texts, score))
    return [_linear(run, "cmm_templates", own), _linear(run, "cmm_global", for_all)]


def _all_described(run: Run) -> list[MethodResult]:
    """Descriptions in place of every name, where all are recorded."""
    everything = encode_descriptions(run, enrich_all(run))
    if len(everything) < run.n_classes:
        return []
    return [_linear(run, "describe_all", F.replace_classes(run.base_text_features, everything), run.n_classes)]


def _enriched(run: Run, described: Mapping[int, Tensor], ensemble: Float[Tensor, "C D"] | None) -> list[MethodResult]:
    """Uses of some classes' descriptions: in the name's place, as equals of the prompts, with the mass of the prompts,
    by CARPRT's weights, by CMM's weights without and with that, so with the first description of each class alone, and
    by fitted weights.
    """
    n, templates = len(described), Candidates.of_templates(run.text_features)
    enriched = templates.with_descriptions(described)
    first = templates.with_descriptions({c: vectors[:1] for c, vectors in described.items()})
    own = weighted_ensemble(run, enriched) if ensemble is None else ensemble
    others = F.uniform_mean(run.text_features)
    carprt = F.carprt_of_candidates(run.image_features, enriched, others, run.logit_scale)
    return [
        _linear(run, "enriched_replace", F.replace_classes(run.base_text_features, described), n),
        _linear(run, "enriched_uniform", F.combine_candidates(enriched, F.uniform_weights(enriched)), n),
        _linear(run, "enriched_balanced", balanced_mean(enriched), n),
        _linear(run, "enriched_carprt", F.combine_candidates(enriched, carprt), n),
        _linear(run, "enriched_cmm_unbalanced", weighted_ensemble(run, enriched, balanced=False), n),
        _linear(run, "enriched_cmm_first", weighted_ensemble(run, first), n),
        *_with_corrections(run, "enriched_cmm", own, n),
        *_fitted(run, enriched, n),
    ]


def _fitted(run: Run, candidates: Candidates, requests: int) -> list[MethodResult]:
    """Weights that are fitted to an assignment of the images: TransCLIP's, and for those who may assume equal class
    frequencies that of prototypes, with prior matching afterwards.
    """
    x, scale = run.image_features, run.logit_scale

    def by_images(classifier: Float[Tensor, "C D"]) -> Float[Tensor, "N C"]:
        return torch.nn.functional.one_hot(F.transclip(x, classifier, scale), run.n_classes).float()

    balanced = F.fitted_ensemble(x, candidates, scale)
    matched = F.fit_prior_matching(x, balanced, scale)
    return [
        _linear(run, "enriched_fitted", F.fitted_ensemble(x, candidates, scale, by_images), requests),
        MethodResult("enriched_fitted_prior", matched.predict(x), True, requests, correction=matched),
    ]


def balanced_mean(candidates: Candidates) -> Float[Tensor, "C D"]:
    """The ensemble without CMM: in a class all templates together weigh as much as all descriptions, and no text of a
    group more than another.
    """
    return F.combine_candidates(candidates, F.uniform_weights(candidates, balanced=True))


def _with_corrections(run: Run, name: str, ensemble: Float[Tensor, "C D"], requests: int) -> list[MethodResult]:
    """The ensemble and, fitted to it, the corrections that chapter 5 explains."""
    methods = [_linear(run, name, ensemble, requests)]
    corrections = fit_both(run.image_features, ensemble, run.logit_scale)
    for suffix, fitted in zip(("prior", "prototypes"), corrections.values(), strict=True):
        prediction = fitted.predict(run.image_features)
        methods.append(MethodResult(f"{name}_{suffix}", prediction, True, requests, correction=fitted))
    return methods


@label_free
def record_classifiers(
    run: Run, described: Mapping[int, Tensor], ensemble: Float[Tensor, "C D"], methods: Iterable[MethodResult] = ()
) -> None:
    """Put classifiers into the run folder: the base prompt, the ensemble, the ensemble with each correction.

    Args:
        methods: results of `compare_methods`, of which every classifier goes there too.
    """
    by_name = {one.name: one for one in methods if one.label_free}
    if "base" not in by_name:
        by_name["base"] = _linear(run, "base", run.base_text_features)
    name = "enriched_cmm" if described else "cmm_templates"
    if (described or len(run.text_features) > 1) and f"{name}_prior" not in by_name:
        by_name |= {one.name: one for one in _with_corrections(run, name, ensemble, len(described))}
    for one in by_name.values():
        own = one.classifier if one.correction is None else one.correction
        if own is not None:
            run.record_classifier(one.name, own)


@label_free
def weighted_ensemble(run: Run, candidates: Candidates, **settings: Any) -> Float[Tensor, "C D"]:
    """The project's ensemble of these candidates; the others' classifier is the uniform mean of the templates."""
    others = F.uniform_mean(run.text_features)
    settings = {"precision": run.study.analysis_precision, **settings}
    return F.cmm_ensemble(run.image_features, candidates, others, run.logit_scale, **settings)


def _linear(run: Run, name: str, classifier: Float[Tensor, "C D"], requests: int = 0) -> MethodResult:
    return MethodResult(name, predict(run.image_features, classifier), True, requests, classifier)


def _weighted(text_features: Float[Tensor, "P C D"], weights: Float[Tensor, "P"]) -> Float[Tensor, "C D"]:
    return torch.nn.functional.normalize(torch.einsum("p,pcd->cd", weights.float(), text_features.float()), dim=-1)
