"""Did the claims hold on these embeddings? One row a claim and measure, with an interval; a rule decides, not a hand.

Everything here is an evaluation: labels are an argument of its own, and the label-free functions that are judged never
see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.evaluation.bootstrap import auroc, bootstrap, lead_in_rank, spearman
from cmmlib.functional.linear_probe import fit_linear_probe, visual_confusability
from cmmlib.functional.prototypes import fit_both
from cmmlib.functional.similarity import SimilarityPass, similarity_pass
from cmmlib.functional.zero_shot import predict

FAR = 0.10  # a worst set is far below the overall accuracy when the gap is clear of this
COST = 0.005  # what a method may cost overall
Z95 = 1.959964  # of a normal interval
PHENOMENON = "the worst classes are far below the overall accuracy"
FINDS = "CMM finds them without labels"
RATES = "CMM rates prompts without labels"
SIGHT = "classes that a linear probe confuses are the ones that fail"
LIFTS = "the worst classes gain by {}"
SPARES = "overall accuracy does not suffer by {}"
Row = dict[str, Any]


def verdict(low: float, high: float, than: float = 0.0) -> str:
    """`held` where the whole interval lies above a bound, `did not hold` where none of it does, else `undecided`.

    >>> verdict(0.2, 0.4), verdict(-0.1, 0.1), verdict(-0.3, -0.2)
    ('held', 'undecided', 'did not hold')
    """
    return "held" if low > than else "did not hold" if high <= than else "undecided"


def _row(claim: str, measure: str, value: float, low: float, high: float, than: float = 0.0) -> Row:
    return {
        "claim": claim,
        "measure": measure,
        "value": value,
        "low": low,
        "high": high,
        "held": verdict(low, high, than),
    }


def claim_rows(
    image_features: Float[Tensor, "N D"],
    base_text_features: Float[Tensor, "C D"],
    text_features: Float[Tensor, "P C D"],
    labels: Int[Tensor, "N"],
    logit_scale: float,
    k: int,
    seed: int = 0,
    followed_k: int | None = None,
    pool: SimilarityPass | None = None,
) -> list[Row]:
    """Every claim that embeddings alone can check.

    Args:
        base_text_features: texts of the base prompt, which all rows but one are about.
        text_features: texts of the pool, to be rated.
        k: size of the worst set.
        followed_k: size of the worst set that is followed through a method; k by default.
        pool: the pass over the pool's texts, where it was made already.

    Returns:
        Rows with `claim`, `measure`, `value`, `low`, `high` (95 %, or the bracket of worst@k) and `held`.
    """
    passed = similarity_pass(image_features, base_text_features[None], logit_scale)
    n_classes, before = len(base_text_features), passed.prediction[0].long()
    accuracy = F.class_accuracy(before, labels, n_classes)
    scores = {name: F.class_matching_margin(passed, name)[0] for name in F.ASSIGNMENTS}
    scores["class_mean"] = F.class_mean_margin(passed, image_features, base_text_features[None])[0]
    table = [phenomenon(before, labels, n_classes, k, seed), *detection(scores, accuracy.value, k, seed)]
    if len(text_features) > 2:
        pool = pool or similarity_pass(image_features, text_features, logit_scale)
        table.append(prompt_rating(pool, labels, seed))
    for name, correction in fit_both(image_features, base_text_features, logit_scale).items():
        after = correction.predict(image_features)
        table += lift(name.replace("_", " "), before, after, labels, n_classes, followed_k or k, seed)
    return table


def phenomenon(prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"], n_classes: int, k: int, seed: int = 0) -> Row:
    """Overall accuracy minus worst@k: from overall's lower end and the bracket's upper one to the reverse."""
    accuracy = F.class_accuracy(prediction, labels, n_classes)
    low, high = F.wilson_interval(int(accuracy.correct.sum()), len(labels))
    worst = F.worst_at_k(accuracy.value, k)
    (half,) = F.worst_split_half(prediction == labels, labels, n_classes, [k], seed)
    if worst is None or half is None:
        return _row(PHENOMENON, f"overall minus worst {k}", np.nan, np.nan, np.nan)
    gap = accuracy.overall - (worst + half) / 2
    return _row(PHENOMENON, f"overall minus worst {k}", gap, low - half, high - worst, FAR)


def detection(
    scores: Mapping[str, Float[Tensor, "C"]], accuracy: Float[Tensor, "C"], k: int, seed: int = 0
) -> list[Row]:
    """Rank correlation with accuracy and AUROC of the true worst set, for every reading of CMM, `soft` among them."""
    has_images = ~accuracy.isnan()
    a, worst = accuracy[has_images], F.true_worst(accuracy, k)[has_images]
    table = []
    for reading, values in scores.items():
        score = F.fill_undefined(values, scores["soft"])[has_images]
        name = reading.replace("_", " ")
        for measure, of, truth, than in (
            ("rank correlation", spearman, a, 0.0),
            (f"AUROC of the worst {k}", auroc, worst, 0.5),
        ):
            value, low, high = bootstrap(of, score.numpy(), truth.numpy(), seed)
            table.append(_row(FINDS, f"{measure}, {name}", value, low, high, than))
    return table


PLAINER = ("accuracy_estimate", "predicted_count", "mean_top_probability", "nearest_text_distance")


def cmm_against_plainer_scores(
    scores: Mapping[str, Float[Tensor, "C"]], accuracy: Float[Tensor, "C"], seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Rank correlation of soft CMM with accuracy, minus that of each plainer score, on the same classes.

    Returns:
        name -> difference and its 95 % bootstrap interval over classes; NaN where a correlation is undefined.
    """
    has_images, soft = ~accuracy.isnan(), scores["soft"]
    found = {}
    for name in PLAINER:
        pair = torch.stack((soft.double(), F.fill_undefined(scores[name], soft).double()), 1)[has_images]
        found[name] = bootstrap(lead_in_rank, pair.numpy(), accuracy[has_images].numpy(), seed)
    return found


def prompt_rating(passed: SimilarityPass, labels: Int[Tensor, "N"], seed: int = 0) -> Row:
    """Rank correlation of the scale-free CMM of prompts with their accuracies; the bootstrap is over prompts."""
    score = F.prompt_scores(F.scale_free_cmm(passed))
    accuracy = (passed.prediction.long() == labels).double().mean(1)
    value, low, high = bootstrap(spearman, score.numpy(), accuracy.numpy(), seed)
    return _row(RATES, f"rank correlation over {len(score)} prompts", value, low, high)


def sight(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], labels: Int[Tensor, "N"], seed: int = 0
) -> Row:
    """Rank correlation of class accuracy with linear separability: minus the cross-entropy of a linear probe.

    The probe is fitted on one half of each class's images and judged on the other, in both directions.
    """
    accuracy = F.class_accuracy(predict(image_features, text_features), labels, len(text_features)).value
    first, losses = F.random_half(labels, seed), []
    for half in (first, ~first):
        probe = fit_linear_probe(image_features[half].float(), labels[half])
        losses.append(visual_confusability(probe, image_features[~half].float(), labels[~half], len(text_features)))
    clear = -torch.stack(losses).nanmean(0)
    defined = ~accuracy.isnan() & ~clear.isnan()
    value, low, high = bootstrap(spearman, clear[defined].numpy(), accuracy[defined].numpy(), seed)
    return _row(SIGHT, "rank correlation, linear probe", value, low, high)


def lift(
    name: str,
    before: Int[Tensor, "N"],
    after: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
    n_classes: int,
    k: int,
    seed: int = 0,
    base: Int[Tensor, "N"] | None = None,
) -> list[Row]:
    """What a label-free method does to the k worst classes and overall, with intervals of paired differences.

    The k worst, and those tied with the k-th, are chosen on one half of each class's images and followed on the other,
    in both directions: chosen and measured on the same images they would gain by regression to the mean alone.

    Args:
        base: predictions that the k worst are chosen by; `before` by default.
    """
    change = (after == labels).double() - (before == labels).double()
    worst, error = followed_on_other_half(change, before if base is None else base, labels, n_classes, k, seed)
    overall, spread = float(change.mean()), float(change.std(correction=0)) / len(change) ** 0.5
    return [
        _row(
            LIFTS.format(name),
            f"change of the worst {k}, chosen on other images",
            worst,
            worst - Z95 * error,
            worst + Z95 * error,
        ),
        _row(SPARES.format(name), "change overall", overall, overall - Z95 * spread, overall + Z95 * spread, -COST),
    ]


def followed_on_other_half(
    value: Float[Tensor, "N"],
    before: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
    n_classes: int,
    k: int,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean of something that each image has, over classes chosen on other images than those it is measured on.

    Chosen are the classes at or below the k-th lowest accuracy of `before` on one half of each class's images; measured
    is the mean of their means on the other half. Both directions of one random halving are averaged.

    Returns:
        The mean, and its standard error; NaN where fewer than k classes have images in a half.
    """
    first = F.random_half(labels, seed)
    both = [_followed(value, before, labels, n_classes, k, half) for half in (first, ~first)]
    return sum(mean for mean, _ in both) / 2, sum(error**2 for _, error in both) ** 0.5 / 2


def _followed(
    value: Tensor, before: Tensor, labels: Tensor, n_classes: int, k: int, half: Tensor
) -> tuple[float, float]:
    """Mean, and its standard error, over the classes that are worst on a half, measured on the other half."""
    if not half.any():
        return np.nan, np.nan
    accuracy = F.class_accuracy(before[half], labels[half], n_classes).value
    chosen = F.true_worst(accuracy, k).nonzero()[:, 0].tolist()
    own = [values for values in (value[(labels == c) & ~half] for c in chosen) if len(values)]
    if len(chosen) < k or not own:
        return np.nan, np.nan
    variance = sum(float(values.var(correction=0)) / len(values) for values in own)
    return float(torch.stack([values.mean() for values in own]).mean()), variance**0.5 / len(own)
