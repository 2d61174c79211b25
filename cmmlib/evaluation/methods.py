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
from cmmlib.functional.zero_shot import predict
from cmmlib.study.enrich import encode_descriptions, enrich_all
from cmmlib.study.run import Run, label_free

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
    text_features, n = run.text_features, len(described)
    candidates = Candidates.of_templates(text_features)
    methods = [_linear(run, "base", run.base_text_features)]
    if run.backbone is not None:
        methods.append(_linear(run, "class_name", run.encode(run.classnames)))
    if len(text_features) > 1:
        methods.append(_linear(run, "uniform", F.uniform_mean(text_features)))
        weights = F.zpe(run.image_features, text_features, run.logit_scale)
        methods.append(_linear(run, "zpe", _weighted(text_features, weights)))
        methods.append(MethodResult("autoclip", F.autoclip(run.image_features, text_features, run.logit_scale)))
    if run.backbone is not None:
        waffle = F.waffle_texts(run.classnames, seed=run.study.seed)
        vectors = run.encode([text for texts in waffle for text in texts]).unflatten(0, (len(waffle), run.n_classes))
        methods.append(_linear(run, "waffle", F.uniform_mean(vectors)))
    if len(text_features) > 1:
        own = None if described else ensemble
        methods.append(_linear(run, "cmm_templates", weighted_ensemble(run, candidates) if own is None else own))
        score = F.class_matching_margin(run.similarity_pass(text_features), "soft")
        methods.append(_linear(run, "cmm_global", _weighted(text_features, F.weigh_prompts(text_features, score))))
    if run.backbone is not None:
        everything = encode_descriptions(run, enrich_all(run))
        if len(everything) == run.n_classes:
            methods.append(
                _linear(run, "describe_all", F.replace_classes(run.base_text_features, everything), run.n_classes)
            )
    if described:
        enriched = candidates.with_descriptions(described)
        methods.append(_linear(run, "enriched_replace", F.replace_classes(run.base_text_features, described), n))
        methods.append(_linear(run, "enriched_uniform", F.combine_candidates(enriched, F.uniform_weights(enriched)), n))
        own = weighted_ensemble(run, enriched) if ensemble is None else ensemble
        methods += _with_corrections(run, "enriched_cmm", own, n)
    return methods


def _with_corrections(run: Run, name: str, ensemble: Float[Tensor, "C D"], requests: int) -> list[MethodResult]:
    """The ensemble and, fitted to it, the corrections that chapter 5 explains."""
    methods = [_linear(run, name, ensemble, requests)]
    for suffix, fit in (("prior", F.fit_prior_matching), ("prototypes", F.fit_prototypes)):
        fitted = fit(run.image_features, ensemble, run.logit_scale)
        prediction = fitted.predict(run.image_features)
        methods.append(MethodResult(f"{name}_{suffix}", prediction, True, requests, correction=fitted))
    return methods


@label_free
def record_classifiers(
    run: Run, described: Mapping[int, Tensor], ensemble: Float[Tensor, "C D"], methods: Iterable[MethodResult] = ()
) -> None:
    """Put classifiers into the run folder: the base prompt, the ensemble, the ensemble with each correction.

    Args:
        known: results of `compare_methods`, of which every classifier goes there too.
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
