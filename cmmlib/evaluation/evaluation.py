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
from cmmlib.evaluation.methods import MethodResult, balanced_mean, weighted_ensemble
from cmmlib.functional.candidates import TEMPLATE, Candidates
from cmmlib.functional.similarity import SimilarityPass
from cmmlib.functional.zero_shot import predict, similarities
from cmmlib.study.run import Run

BALANCE_OR_CMM = Path(__file__).parent / "balance_or_cmm.csv"
WORST = (1, 5, 10, 20)
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
        halves = F.worst_split_half(right, labels, n_classes, list(WORST), seed)
        elsewhere = {k: followed_on_other_half(right.double(), base, labels, n_classes, k, seed)[0] for k in followed}
        rows.append(
            {
                "name": method.name,
                "label_free": method.label_free,
                "overall": accuracy.overall,
                "overall_interval": F.wilson_interval(int(accuracy.correct.sum()), len(labels)),
                "mean_per_class": accuracy.mean_per_class,
                "worst": {str(k): F.worst_at_k(accuracy.value, k) for k in WORST},
                "worst_split_half": dict(zip(map(str, WORST), halves, strict=True)),
                "base_worst": {str(k): _mean(accuracy.value[index]) for k, index in followed.items()},
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
        "descriptions only, in the described classes": _descriptions_only(run, described, uniform),
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


def _descriptions_only(run: Run, described: Mapping[int, Tensor], others: Tensor) -> Tensor:
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
        scores["base_worst_10"] = _mean(accuracy.value[followed_sets(before.value)[10]])
        scores["base_worst_split_half_10"] = None if half != half else half
    return scores


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def best_template(run: Run, labels: Int[Tensor, "N"]) -> list[MethodResult]:
    """The template with the highest overall accuracy, known only from the labels; nothing where there is one prompt."""
    if len(run.text_features) < 2:
        return []
    predictions = [predict(run.image_features, texts) for texts in run.text_features]
    right = torch.stack([(prediction == labels).double().mean() for prediction in predictions])
    best = int(right.argmax())
    return [MethodResult("best_template", predictions[best], label_free=False, classifier=run.text_features[best])]


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
