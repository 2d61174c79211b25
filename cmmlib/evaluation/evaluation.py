"""What the classifiers of `methods` are worth: evaluations of chapters 3 and 4, with labels as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.evaluation.claims import followed_on_other_half, lift
from cmmlib.evaluation.methods import MethodResult
from cmmlib.functional.similarity import SimilarityPass
from cmmlib.functional.zero_shot import similarities
from cmmlib.study.run import Run

BALANCE_OR_CMM = Path(__file__).parent / "balance_or_cmm.csv"
FOLLOWED = (10, 20)  # sizes of the base prompt's worst sets that are followed through every method
NESTED = ("worst", "worst_split_half", "base_worst", "base_worst_count", "base_worst_split_half")


def accuracy_report(
    prediction: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
    n_classes: int,
    worst_k: int,
    duplicates: Sequence[dict[str, Any]] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The `accuracy` section of results.json: fractions, None where something is undefined."""
    accuracy = F.class_accuracy(prediction, labels, n_classes)
    twins = {c for group in duplicates for c in group["classes"]}
    single = torch.tensor([c for c in range(n_classes) if c not in twins], dtype=torch.long)
    ks = sorted({*F.WORST_KS, worst_k})
    halves = F.worst_split_half(prediction == labels, labels, n_classes, ks, seed)
    return {
        "overall": accuracy.overall,
        "overall_interval": list(F.wilson_interval(int(accuracy.correct.sum()), int(accuracy.count.sum()))),
        "mean_per_class": accuracy.mean_per_class,
        "worst": {str(k): F.worst_at_k(accuracy.value, k) for k in ks},
        "worst_split_half": {str(k): half for k, half in zip(ks, halves, strict=True)},
        "worst_without_duplicates": {str(k): F.worst_at_k(accuracy.value[single], k) for k in ks},
        "zero_classes": F.zero_classes(accuracy.value),
        "harmonic_mean": F.harmonic_mean(accuracy.value),
        "harmonic_mean_floored": F.harmonic_mean(F.floored(accuracy)),
        "geometric_mean": F.geometric_mean(accuracy.value),
        "geometric_mean_floored": F.geometric_mean(F.floored(accuracy)),
        "base_worst_classes": lowest_classes(accuracy.value, worst_k).tolist(),
    }


def lowest_classes(accuracy: Float[Tensor, "C"], k: int) -> Int[Tensor, "n"]:
    """Every class at or below the k-th lowest accuracy, the lowest first: more than k where some tie with the k-th."""
    return F.worst_classes(accuracy, max(1, int(F.true_worst(accuracy, k).sum())))


def followed_sets(accuracy: Float[Tensor, "C"]) -> dict[int, Int[Tensor, "n"]]:
    """k -> the classes that are worst under the base prompt, with all that tie with the k-th, to be followed.

    Empty where fewer than k classes have images.
    """
    enough = int((~accuracy.isnan()).sum())
    return {k: lowest_classes(accuracy, k)[: None if k <= enough else 0] for k in FOLLOWED}


def names_report(run: Run, told_apart: Mapping[str, Any]) -> dict[str, Any]:
    """The `disambiguated` section of results.json: the names that changed, by class index, and accuracy with them."""
    assert run.disambiguated is not None
    pairs = enumerate(zip(run.classnames, run.disambiguated, strict=True))
    names = {c: new for c, (old, new) in pairs if old != new}
    return {"names": names, **{key: told_apart[key] for key in ("overall", "worst", "zero_classes")}}


NEAR = 1e-3  # margins below this are ties that rounding can turn


def sizes(run: Run, passed: SimilarityPass) -> dict[str, Any]:
    """What results.json says of every run: sizes, the k of its worst set, and images that rounding could turn."""
    near = {"margin_below": NEAR, "n_images": int((passed.margin[0] < NEAR).sum())}
    counts = {"n_images": len(run.image_features), "n_classes": run.n_classes, "worst_k": run.worst_k}
    return {**counts, "near_ties": near}


def ensemble_rows(
    methods: Sequence[MethodResult],
    labels: Int[Tensor, "N"],
    n_classes: int,
    base: Int[Tensor, "N"],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What results.json says of every method, all on the images of the run.

    `base_worst` is the mean accuracy of the classes that were worst under the base prompt, `base_worst_count` their
    number (`followed_sets`). They were chosen on the images that they are measured on; `base_worst_split_half` is of
    classes chosen on one half and measured on the other (`claims.followed_on_other_half`).

    Args:
        base: predictions of the base prompt.
        seed: of the split halves.
    """
    followed = followed_sets(F.class_accuracy(base, labels, n_classes).value)
    rows = []
    for method in methods:
        accuracy, right = F.class_accuracy(method.prediction, labels, n_classes), method.prediction == labels
        halves = F.worst_split_half(right, labels, n_classes, list(F.WORST_KS), seed)
        elsewhere = {k: followed_on_other_half(right.double(), base, labels, n_classes, k, seed)[0] for k in followed}
        rows.append(
            {
                "name": method.name,
                "label_free": method.label_free,
                "overall": accuracy.overall,
                "overall_interval": F.wilson_interval(int(accuracy.correct.sum()), len(labels)),
                "mean_per_class": accuracy.mean_per_class,
                "worst": {str(k): F.worst_at_k(accuracy.value, k) for k in F.WORST_KS},
                "worst_split_half": dict(zip(map(str, F.WORST_KS), halves, strict=True)),
                "base_worst": {str(k): mean_of(accuracy.value[index]) for k, index in followed.items()},
                "base_worst_count": {str(k): len(index) for k, index in followed.items()},
                "base_worst_split_half": {str(k): None if v != v else v for k, v in elsewhere.items()},
                "zero_classes": int((accuracy.value == 0).sum()),
                "requests": method.requests,
            }
        )
    return rows


def flat_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of `ensemble_rows` as a table: `worst_10`, `worst_split_half_10`, `base_worst_10` and so on."""
    flat = []
    for row in rows:
        head = {key: row[key] for key in ("name", "label_free", "overall")}
        low, high = row["overall_interval"]
        counts = {key: row[key] for key in ("mean_per_class", "zero_classes", "requests")}
        nested = {f"{key}_{k}": v for key in NESTED for k, v in row[key].items()}
        flat.append({**head, "overall_low": low, "overall_high": high, **counts, **nested})
    return pd.DataFrame(flat)


STEPS = (  # from one method to another, which has something more; from equal weights to the ensemble in two orders
    ("base", "uniform"),
    ("uniform", "cmm_templates"),
    ("uniform", "enriched_uniform"),
    ("enriched_uniform", "enriched_balanced"),
    ("enriched_balanced", "enriched_cmm"),
    ("enriched_uniform", "enriched_cmm_unbalanced"),
    ("enriched_cmm_unbalanced", "enriched_cmm"),
    ("enriched_uniform", "enriched_cmm"),
    ("enriched_cmm", "enriched_cmm_first"),
    ("enriched_cmm", "enriched_fitted"),
)


def gain_steps(
    methods: Sequence[MethodResult], labels: Int[Tensor, "N"], n_classes: int, seed: int = 0
) -> list[dict[str, Any]]:
    """What each of `STEPS` adds, where both methods are there: `before`, `after`, and paired differences of accuracy.

    Returns:
        Rows whose `overall` and `base_worst_10` have `value`, `low` and `high` (95 %); the latter is of the base
        prompt's worst classes, chosen on one half of the images and measured on the other (`claims.lift`), None where
        fewer than 10 classes have images there.
    """
    by_name = {one.name: one.prediction for one in methods}
    rows = []
    for before, after in STEPS:
        if before in by_name and after in by_name:
            pair = by_name[before], by_name[after]
            worst, overall = lift(after, *pair, labels, n_classes, FOLLOWED[0], seed, by_name["base"])
            rows.append(
                {"before": before, "after": after, "overall": _bounds(overall), "base_worst_10": _bounds(worst)}
            )
    return rows


def balance_or_cmm() -> pd.DataFrame:
    """Accuracies of the steps on several class lists and seeds of the embedded world, a row a study and method.

    Columns `data`, `seed`, `descriptions` (recorded or generated), `method`, `overall`, `worst_10`, `worst_20`,
    `zero_classes`. It comes with the package; benchmarks/balance_or_cmm.py makes it.
    """
    return pd.read_csv(BALANCE_OR_CMM)


def _bounds(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: None if row[key] != row[key] else row[key] for key in ("value", "low", "high")}


def gains_and_losses(
    before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], by: float = 0.05
) -> tuple[Bool[np.ndarray, "C"], Bool[np.ndarray, "C"]]:
    """Masks of the classes that gain, and that lose, more than `by`; a change of just that much counts as neither."""
    change = (after - before).round(9)  # 0.55 - 0.5 is more than 0.05 in binary
    return change > by, change < -by


def most_lost(before: Float[np.ndarray, "C"], after: Float[np.ndarray, "C"], names: Sequence[str]) -> list[int]:
    """The classes that lose, the largest loss first; of equal ones that of lower accuracy after it, then by name."""
    change = (after - before).round(9)
    return [c for c in np.lexsort((np.asarray(names, str), after, change)).tolist() if change[c] < 0]


def mean_of(values: Tensor) -> float | None:
    """The mean; None of no values."""
    return float(values.mean()) if len(values) else None


def best_template(run: Run, labels: Int[Tensor, "N"]) -> list[MethodResult]:
    """The template with the highest overall accuracy, known only from the labels; nothing where there is one prompt."""
    if len(run.text_features) < 2:
        return []
    right = torch.stack([(prediction == labels).double().mean() for prediction in run.pool_pass.prediction])
    best = int(right.argmax())
    prediction = run.pool_pass.prediction[best].long()
    return [MethodResult("best_template", prediction, label_free=False, classifier=run.text_features[best])]


def replaced_alone(
    run: Run, labels: Int[Tensor, "N"], described: Mapping[int, Tensor], rivals: Mapping[int, int]
) -> dict[int, tuple[float, float, float, float]]:
    """What each class's descriptions do when that class alone is replaced in the base classifier.

    Returns:
        For each class with images: its accuracy before and after, and its rival's before and after (NaN for a rival
        without images).
    """
    similarity = torch.cat(list(similarities(run.image_features, run.base_text_features)))
    before = similarity.argmax(1)
    new = F.replace_classes(run.base_text_features, described)
    changes = {}
    for c in described:
        changed = similarity.clone()
        changed[:, c] = run.image_features.float() @ new[c]
        after = changed.argmax(1)
        own, rival = labels == c, labels == rivals[c]
        if own.any():
            shares = [_share(p, rows, k) for k, rows in ((c, own), (rivals[c], rival)) for p in (before, after)]
            changes[c] = (shares[0], shares[1], shares[2], shares[3])
    return changes


def _share(prediction: Tensor, rows: Tensor, c: int) -> float:
    return float((prediction[rows] == c).double().mean())
