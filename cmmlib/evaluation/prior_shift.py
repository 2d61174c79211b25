"""What the corrections of `cmmlib.evaluation.corrections` are worth, and what they cost where their assumption fails.

Evaluations of chapter 5, with labels as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.evaluation.corrections import cross_fitted
from cmmlib.evaluation.evaluation import ensemble_rows
from cmmlib.evaluation.methods import MethodResult
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.prototypes import fit_both
from cmmlib.functional.zero_shot import predict
from cmmlib.study.run import Run

KINDS = ("balanced", "Dirichlet 5", "Dirichlet 1", "Dirichlet 0.3", "long tail")
DRAWS = 20
WORST = (10, 20)  # sizes of the worst sets of a curve
PRICE_SIMILARITIES = 1 << 20  # images times classes; of a larger study, some classes and all of their images are taken
HALF_STRENGTH = 0.5  # the strength that is advised where balance is unknown
REPORTED = (
    *("overall", "worst", "worst_split_half", "base_worst", "base_worst_count", "base_worst_split_half"),
    "zero_classes",
)


def report(run: Run, labels: Int[Tensor, "N"], name: str, correction: Correction) -> dict[str, Any]:
    """The section of results.json: transductive on all images, and `inductive`, on halves that it was not fitted on."""
    inductive, converged = cross_fitted(run, name)
    ways = [
        MethodResult("fitted here", correction.predict(run.image_features)),
        MethodResult("fitted elsewhere", inductive),
    ]
    base = predict(run.image_features, run.base_text_features)
    here, elsewhere = ensemble_rows(ways, labels, run.n_classes, base, run.study.seed)
    section = {key: here[key] for key in REPORTED} | {"strength": 1.0, "converged": correction.converged}
    return section | {
        "inductive": {key: elsewhere[key] for key in REPORTED} | {"strength": 1.0, "converged": converged}
    }


def part_of_classes(run: Run, labels: Int[Tensor, "N"]) -> tuple[Run, Int[Tensor, "M"]]:
    """The run that the price is measured on, and its labels: `draws`, `sizes` and `strengths` fit hundreds of times.

    The run itself, or where it has more than `PRICE_SIMILARITIES` images times classes, so many of its classes, drawn
    by the seed, two at least; all of their images, and no other. Their descriptions are those that are recorded.
    """
    counts = labels.bincount(minlength=run.n_classes)
    if len(labels) * run.n_classes <= PRICE_SIMILARITIES:
        return run, labels
    order = torch.randperm(run.n_classes, generator=torch.Generator().manual_seed(run.study.seed))
    order = _appearance(labels, run.n_classes)[order]
    sizes = counts[order].cumsum(0) * torch.arange(1, run.n_classes + 1)
    classes = order[: max(2, int((sizes <= PRICE_SIMILARITIES).sum()))].sort().values
    place = torch.full((run.n_classes,), -1).index_put_((classes,), torch.arange(len(classes)))
    kept = place[labels] >= 0
    part = replace(
        run,
        study=run.study.model_copy(update={"llm": "recorded"}),  # its suspects are others: nothing is asked for them
        image_features=run.image_features[kept],
        labels=None,
        classnames=[run.classnames[c] for c in classes.tolist()],
        base_text_features=run.base_text_features[classes],
        text_features=run.text_features[:, classes],
        pictures=None,  # which are of all images
        disambiguated=None,
    )
    return part, place[labels[kept]]


def plain_scores(run: Run, labels: Int[Tensor, "N"]) -> dict[str, Any]:
    """Accuracies of the base prompt: what the curves of `sizes` and `strengths` are compared with."""
    return _accuracies(predict(run.image_features, run.base_text_features), labels, run.n_classes)


def strengths(run: Run, labels: Int[Tensor, "N"], values: Sequence[float]) -> list[dict[str, Any]]:
    """Accuracies over the strength of the bias."""
    given = run.image_features, run.base_text_features, run.logit_scale
    whole, rows = F.fit_prior_matching(*given), []
    for value in values:
        matched = whole.with_strength(value)
        ways = {"prior matching": matched, "prototypes": F.fit_prototypes(*given, strength=value, start=matched)}
        rows += [{"strength": value, "method": way, **_scores(run, labels, c)} for way, c in ways.items()]
    return rows


def reference_counts(labels: Int[Tensor, "N"]) -> list[int]:
    """Sizes of a reference set, images a class, from 1 to 50, that leave a quarter of a median class to judge on."""
    counts = labels.bincount()
    most = 0.75 * float(counts[counts > 0].double().median())
    return [n for n in (1, 2, 5, 10, 20, 30, 50) if n <= most] or [1]


def sizes(run: Run, labels: Int[Tensor, "N"], counts: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Accuracies on all other images, when the corrections are fitted on so many reference images a class."""
    rows = []
    for count in counts:
        reference = F.few_per_class(labels, count, seed)
        others = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, reference, False)
        others = others if others.any() else ~others  # nothing is left: judged on the reference itself
        corrections = fit_both(run.image_features[reference], run.base_text_features, run.logit_scale)
        for name, correction in corrections.items():
            scores = _scores(run, labels, correction, others)
            rows.append({"count": count, "method": name.replace("_", " "), **scores})
    return rows


def draws(run: Run, labels: Int[Tensor, "N"], seed: int, n_draws: int = DRAWS) -> pd.DataFrame:
    """Change of overall accuracy against the base prompt, on images drawn with given class frequencies.

    Fitted and judged on the drawn images, which break the uniform prior more with every kind; `resampling` says how
    they are drawn. Prior matching at full and half strength, and prototypes.

    Returns:
        A row a draw and method: `kind`, `draw`, `method`, `change` (a difference of fractions).
    """
    rows, plain = [], predict(run.image_features, run.base_text_features)
    for kind in KINDS:
        for draw in range(n_draws):
            frequencies = _by_appearance(_frequencies(kind, run.n_classes, seed + draw), labels)
            kept = F.with_frequencies(labels, frequencies, seed + draw)
            if len(kept) == 0:
                continue
            before = float((plain[kept] == labels[kept]).double().mean())
            for method, correction in _fitted(run, kept).items():
                after = float((correction.predict(run.image_features[kept]) == labels[kept]).double().mean())
                rows.append({"kind": kind, "draw": draw, "method": method, "change": after - before})
    return pd.DataFrame(rows, columns=["kind", "draw", "method", "change"])


def _fitted(run: Run, kept: Int[Tensor, "M"]) -> dict[str, Correction]:
    matched, prototypes = fit_both(run.image_features[kept], run.base_text_features, run.logit_scale).values()
    return {
        "prior matching, half strength": matched.with_strength(HALF_STRENGTH),
        "prior matching": matched,
        "prototypes": prototypes,
    }


def _frequencies(kind: str, n_classes: int, seed: int) -> Tensor:
    if kind == "balanced":
        return torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
    if kind == "long tail":
        return F.long_tailed_frequencies(n_classes, seed)
    return F.dirichlet_frequencies(n_classes, float(kind.split()[1]), seed)


def _by_appearance(frequencies: Tensor, labels: Tensor) -> Tensor:
    """The first frequency for the class of the first image, and so on: the order of the classes changes nothing."""
    return torch.empty_like(frequencies).index_put_((_appearance(labels, len(frequencies)),), frequencies)


def _appearance(labels: Tensor, n_classes: int) -> Int[Tensor, "C"]:
    """Classes in the order of their first images, those without images last."""
    return torch.tensor(list(dict.fromkeys([*labels.tolist(), *range(n_classes)])))


def _scores(run: Run, labels: Tensor, correction: Correction, rows: Tensor | None = None) -> dict[str, Any]:
    images, y = (run.image_features, labels) if rows is None else (run.image_features[rows], labels[rows])
    return _accuracies(correction.predict(images), y, run.n_classes)


def _accuracies(prediction: Tensor, labels: Tensor, n_classes: int) -> dict[str, Any]:
    accuracy = F.class_accuracy(prediction, labels, n_classes)
    return {"overall": accuracy.overall, **{f"worst_{k}": F.worst_at_k(accuracy.value, k) for k in WORST}}
