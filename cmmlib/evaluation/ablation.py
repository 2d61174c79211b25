"""The ensemble with something changed: evaluations of chapter 4, with labels as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.evaluation.claims import followed_on_other_half
from cmmlib.evaluation.evaluation import FOLLOWED, followed_sets, mean_of
from cmmlib.evaluation.methods import balanced_mean, weighted_ensemble
from cmmlib.functional.candidates import TEMPLATE, Candidates
from cmmlib.functional.zero_shot import predict
from cmmlib.study.run import Run


def described_curve(
    run: Run, labels: Int[Tensor, "N"], everything: Mapping[int, Tensor], ranking: list[int], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Overall and worst-10 when the first `counts` of the ranking are described, by each way to use descriptions."""
    candidates, rows = Candidates.of_templates(run.text_features), []
    for count in counts:
        part = {c: everything[c] for c in ranking[:count] if c in everything}
        enriched = candidates.with_descriptions(part)
        ways = {
            "CMM weights": weighted_ensemble(run, enriched),
            "equal weights, balanced": balanced_mean(enriched),
            "in place of the name": F.replace_classes(run.base_text_features, part),
        }
        rows += [{"count": int(count), "method": way, **_scores(run, labels, c)} for way, c in ways.items()]
    return rows


def control(
    run: Run, labels: Int[Tensor, "N"], kinds: Mapping[str, Mapping[int, Tensor]], suspects: list[int]
) -> list[dict[str, Any]]:
    """`described_curve` with all suspects described, once for each kind of descriptions."""
    return [
        {"descriptions": kind, **row}
        for kind, texts in kinds.items()
        for row in described_curve(run, labels, texts, suspects, [len(suspects)])
    ]


def sensitivity(
    run: Run, labels: Int[Tensor, "N"], candidates: Candidates, score: Float[Tensor, "T"], k: int
) -> pd.DataFrame:
    """worst@k over the cut (rows) and the temperature (columns) of the weights, the candidates' CMM as it is."""
    cuts, temperatures = (0.5, 1.0, 2.0, None), (0.1, 0.2, 0.3, 0.6, 1.0)
    grid = pd.DataFrame(index=pd.Index(cuts, dtype=object), columns=temperatures, dtype=float)
    for row, cut in enumerate(cuts):
        for column, temperature in enumerate(temperatures):
            weights = F.weigh_candidates(candidates, score, temperature=temperature, cut=cut)
            answers = predict(run.image_features, F.combine_candidates(candidates, weights))
            grid.iloc[row, column] = F.worst_at_k(F.class_accuracy(answers, labels, run.n_classes).value, k)
    return grid


def ablation(run: Run, labels: Int[Tensor, "N"], described: Mapping[int, Tensor]) -> list[dict[str, Any]]:
    """The ensemble with one part changed at a time, in words a table can show."""
    candidates = Candidates.of_templates(run.text_features)
    enriched = candidates.with_descriptions(described)
    most = max([len(v) for v in described.values()], default=0)
    uniform = F.uniform_mean(run.text_features)
    versions = {
        "as it is": weighted_ensemble(run, enriched),
        "templates only": weighted_ensemble(run, candidates),
        "descriptions only, in the described classes": descriptions_only(run, described, uniform),
        "uniform weights, groups balanced": balanced_mean(enriched),
        "uniform weights": F.combine_candidates(enriched, F.uniform_weights(enriched)),
        "CMM weights, groups not balanced": weighted_ensemble(run, enriched, balanced=False),
        "nothing cut": weighted_ensemble(run, enriched, cut=None),
        "retrieval assignment": weighted_ensemble(run, enriched, assignment="retrieval"),
    }
    for k in range(1, most):
        fewer = {c: vectors[:k] for c, vectors in described.items()}
        name = f"{k} description{'s' if k > 1 else ''} a class"
        versions[name] = weighted_ensemble(run, candidates.with_descriptions(fewer))
    return [{"version": name, **_scores(run, labels, c, followed=True)} for name, c in versions.items()]


def descriptions_only(run: Run, described: Mapping[int, Tensor], others: Tensor) -> Tensor:
    """CMM weights among the descriptions of described classes, the uniform mean of templates elsewhere."""
    if not described:
        return others
    alone = Candidates.of_templates(others[None]).with_descriptions(described)
    replaced = torch.isin(alone.classes, torch.tensor(list(described))) & (alone.groups == TEMPLATE)
    return weighted_ensemble(run, alone.where(~replaced))


def _scores(run: Run, labels: Tensor, classifier: Tensor, followed: bool = False) -> dict[str, Any]:
    prediction = predict(run.image_features, classifier)
    accuracy = F.class_accuracy(prediction, labels, run.n_classes)
    scores = {"overall": accuracy.overall, **{f"worst_{k}": F.worst_at_k(accuracy.value, k) for k in FOLLOWED}}
    if followed:
        base = predict(run.image_features, run.base_text_features)
        before = F.class_accuracy(base, labels, run.n_classes)
        right = (prediction == labels).double()
        half, _ = followed_on_other_half(right, base, labels, run.n_classes, 10, run.study.seed)
        scores["base_worst_10"] = mean_of(accuracy.value[followed_sets(before.value)[10]])
        scores["base_worst_split_half_10"] = None if half != half else half
    return scores
