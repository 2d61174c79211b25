"""Class-wise Matching Margin: which classes an image classifier confuses, read off its own similarities.

    CMM(c) = sum_n a[n, c] margin[n, c] / sum_n a[n, c],    margin[n, c] = s[n, c] - max over j != c of s[n, j]

s are cosine similarities and a assigns images to classes. Shao et al. (arXiv 2310.03324) name the quantity; the paper's
own formula was not available, so the assignments below are a reconstruction (see the book's method page). No label
enters this module but in `cmm_by_labels`, the oracle, which takes them as an argument of its own.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_labels, require_one_or_more
from cmmlib.functional._blocks import BLOCK_ROWS
from cmmlib.functional.similarity import SimilarityPass
from cmmlib.functional.zero_shot import similarities, top_two

Assignment = Literal["pseudo", "soft", "soft_probability", "retrieval"]
ASSIGNMENTS: tuple[Assignment, ...] = ("pseudo", "soft", "soft_probability", "retrieval")


def class_matching_margin(passed: SimilarityPass, assignment: Assignment = "soft") -> Float[Tensor, "P C"]:
    """CMM of every class under every prompt, in [-2, 2]; low means confused.

    Args:
        assignment: which images count for a class.
            `pseudo`: those predicted as it. NaN for a class that is never predicted.
            `soft`: all, each with the probability q[n, c] that the model itself gives. The default.
            `soft_probability`: as soft, with the margin between probabilities, in [-1, 1].
            `retrieval`: the m = max(1, round(N / C)) most similar ones. Fails on unbalanced images.

    Returns:
        float64. For a class whose every probability underflows to zero, `soft` falls back to `retrieval`, and
        `soft_probability` to -1, the lowest.
    """
    if assignment not in ASSIGNMENTS:
        raise InputError(f"assignment must be one of {', '.join(ASSIGNMENTS)}, got {assignment!r}")
    if assignment == "pseudo":
        return _by_prediction(passed, passed.margin) / predicted_count(passed)
    retrieval = passed.retrieval_margin / passed.n_retrieved
    if assignment == "retrieval":
        return retrieval
    if assignment == "soft":
        return torch.where(passed.soft_mass > 0, passed.soft_margin / passed.soft_mass, retrieval)
    return torch.where(passed.soft_mass > 0, passed.soft_probability_margin / passed.soft_mass, -1.0)


def scale_free_cmm(passed: SimilarityPass) -> Float[Tensor, "P C"]:
    """Soft CMM with margins in units of the image's own spread of similarities, for comparing prompts.

    A prompt whose class texts lie closer together has smaller margins at the same accuracy. Each margin is divided by
    the standard deviation of its image's similarities over classes; the result is multiplied by the pool's mean
    deviation, so it is a cosine again. Images whose similarities are all equal have none, and are left out of it.
    """
    spread = passed.spread.double()
    known = spread < 1  # a pass has 1 for none, and that of cosines is less
    spread = spread if known.all() or not known.any() else spread[known]
    scaled = passed.soft_scaled_margin / passed.soft_mass * spread.mean()
    return torch.where(passed.soft_mass > 0, scaled, class_matching_margin(passed, "retrieval"))


def class_mean_margin(
    passed: SimilarityPass, image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "*P C D"]
) -> Float[Tensor, "P C"]:
    """CMM with one rival for a class in place of one for every image. NaN for a class that is never predicted.

    The mean similarity of the images predicted as a class with its own text, minus that of the best other class. (A
    reading of the paper's "most susceptible" class; reviews of it speak of pseudo labels.)

    Raises:
        InputError: features that the pass was not made from.
    """
    text_features = text_features[None] if text_features.ndim == 2 else text_features
    _require_same_pass(passed, image_features, text_features, "class_mean_margin")
    n_classes, rows = passed.n_classes, []
    for classifier, prediction in zip(text_features, passed.prediction.long(), strict=True):
        sums = prediction.new_zeros(n_classes, image_features.shape[1], dtype=torch.float64)
        for images, predicted in zip(image_features.split(BLOCK_ROWS), prediction.split(BLOCK_ROWS), strict=True):
            sums.index_add_(0, predicted, images.double())
        similarity = (sums / prediction.bincount(minlength=n_classes)[:, None]) @ classifier.double().T  # [C, C]
        best_other = similarity.clone().fill_diagonal_(-torch.inf).amax(1)
        rows.append(similarity.diagonal() - best_other)
    return torch.stack(rows)


def _require_same_pass(passed: SimilarityPass, image_features: Tensor, text_features: Tensor, what: str) -> None:
    made = [*passed.margin.shape, passed.n_classes]  # P, N, C
    given = [len(text_features), len(image_features), text_features.shape[1]]
    if made != given:
        raise InputError(f"{what}: the pass is of {made} prompts, images and classes, the features of {given}")


def cmm_by_labels(
    passed: SimilarityPass,
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "*P C D"],
    labels: Int[Tensor, "N"],
) -> Float[Tensor, "P C"]:
    """CMM with the true labels as assignment: the oracle, for evaluation only. NaN for a class without images.

    Raises:
        InputError: not one label an image, or one outside 0..C-1; features that the pass was not made from.
    """
    if len(labels) != len(image_features):
        raise InputError(f"{len(image_features)} images and {len(labels)} labels: expected one label an image")
    text_features = text_features[None] if text_features.ndim == 2 else text_features
    _require_same_pass(passed, image_features, text_features, "cmm_by_labels")
    require_labels(labels, passed.n_classes, "labels")
    count = labels.bincount(minlength=passed.n_classes)
    rows = []
    for p, classifier in enumerate(text_features):
        own = (image_features.float() * classifier.float()[labels]).sum(1)  # similarity with the true class, [N]
        margin = torch.where(passed.prediction[p] == labels, passed.margin[p], own - passed.top_similarity[p])
        rows.append(torch.zeros_like(passed.soft_mass[p]).index_add_(0, labels, margin.double()))
    return torch.stack(rows) / count


def accuracy_estimate(passed: SimilarityPass) -> Float[Tensor, "P C"]:
    """Label-free estimate of every class's accuracy, in [0, 1]; too low on average.

    r_c = (C / N) sum_n [prediction = c] max_j q[n, j]. Assumes balanced classes and calibrated probabilities.
    """
    confident = _by_prediction(passed, passed.top_probability)
    return (confident * passed.n_classes / passed.prediction.shape[1]).clamp(0, 1)


def predicted_count(passed: SimilarityPass) -> Int[Tensor, "P C"]:
    """Images predicted as each class: the plainest baseline of detection."""
    return torch.stack([row.bincount(minlength=passed.n_classes) for row in passed.prediction.long()])


def mean_top_probability(passed: SimilarityPass) -> Float[Tensor, "P C"]:
    """Mean probability of the predicted class over the images predicted as it; NaN for a class never predicted."""
    return _by_prediction(passed, passed.top_probability) / predicted_count(passed)


def nearest_text_distance(text_features: Float[Tensor, "C D"]) -> Float[Tensor, "C"]:
    """Cosine distance from each class text to the nearest other one: a baseline that looks at no image.

    Raises:
        InputError: one text alone.
    """
    if len(text_features) < 2:
        raise InputError(f"nearest_text_distance: text_features {list(text_features.shape)}: expected two or more")
    return (1 - _nearest_text(text_features)[0].double()).clamp_min(0)  # rounding may put a copy's similarity above 1


def _nearest_text(text_features: Float[Tensor, "C D"]) -> tuple[Float[Tensor, "C"], Int[Tensor, "C"]]:
    """Similarity and index of the nearest other text."""
    similarity, nearest = (text_features.float() @ text_features.float().T).fill_diagonal_(-torch.inf).max(1)
    return similarity, nearest


def _by_prediction(passed: SimilarityPass, value: Float[Tensor, "P N"]) -> Float[Tensor, "P C"]:
    totals = torch.zeros_like(passed.soft_mass)
    return totals.scatter_add_(1, passed.prediction.long(), value.double())


def fill_undefined(score: Float[Tensor, "C"], fallback: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
    """Score with undefined classes below every defined one, among themselves in the order of `fallback`.

    Raises:
        InputError: the fallback is undefined too.
    """
    undefined = score.isnan()
    below = fallback[undefined].double()
    if below.isnan().any():
        raise InputError("a class has neither a score nor a fallback: give one that is always defined, such as soft")
    if not len(below):
        return score.double().clone()
    lowest = score.double().nan_to_num(nan=torch.inf).min() if (~undefined).any() else 0.0
    return score.double().masked_scatter(undefined, below - below.max() - 1 + lowest)


def rank_classes(score: Float[Tensor, "*P C"], fallback: Float[Tensor, "*P C"] | None = None) -> Int[Tensor, "C"]:
    """Class indices, the lowest score first; undefined ones before all others, ordered by `fallback`.

    Args:
        score: [C], or [1, C] as a pass with one prompt gives.
        fallback: of the same form.

    Raises:
        InputError: scores of several prompts; an undefined class that has no fallback.
    """
    score = _of_one_prompt(score)
    return fill_undefined(score, score if fallback is None else _of_one_prompt(fallback)).argsort(stable=True)


def _of_one_prompt(score: Float[Tensor, "*P C"]) -> Float[Tensor, "C"]:
    if score.ndim == 2 and len(score) != 1:
        raise InputError(f"rank_classes: scores of {len(score)} prompts: pass those of one, as in score[0]")
    return score.flatten()


def prompt_scores(class_scores: Float[Tensor, "P C"]) -> Float[Tensor, "P"]:
    """CMM of a prompt: the mean over all classes. (The mean over the few lowest is too noisy to rank prompts.)

    Raises:
        InputError: a class is undefined: a mean over different classes would not compare prompts.
    """
    if class_scores.isnan().any():
        raise InputError("a class has no CMM under some prompt: use an assignment that is always defined, such as soft")
    return class_scores.mean(1)


def rivals(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, *, block: int = 1024
) -> tuple[Int[Tensor, "C"], Float[Tensor, "C"]]:
    """The rival of every class: the class that most often attains its margin's maximum, under the soft assignment.

    Returns:
        The rival's index and the share of the class's soft mass, in [0, 1], that it attains. A class whose every
        probability underflows to zero has the nearest other text as rival, with share 0.
    """
    weight = _rival_mass(image_features, text_features, logit_scale, block)
    mass = weight.sum(0)
    share, rival = weight.max(0)
    return rival.where(mass > 0, _nearest_text(text_features)[1]), torch.where(mass > 0, share / mass, 0.0)


def top_rivals(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    n: int = 3,
    *,
    block: int = 1024,
) -> list[list[int]]:
    """Up to n rivals of every class, the strongest first: classes that were its rival on some image, or the nearest.

    Raises:
        InputError: n below 1.
    """
    require_one_or_more(n, "top_rivals: n")
    strongest = _rival_mass(image_features, text_features, logit_scale, block).topk(min(n, len(text_features)), dim=0)
    strongest_of_classes = zip(strongest.indices.T.tolist(), strongest.values.T.tolist(), strict=True)
    nearest = _nearest_text(text_features)[1].tolist()
    return [
        [j for j, mass in zip(*pair, strict=True) if mass > 0] or [nearest[c]]
        for c, pair in enumerate(strongest_of_classes)
    ]


def _rival_mass(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, block: int
) -> Float[Tensor, "C C"]:
    """Soft mass of each class, by the class that attains its margin's maximum: [rival, class]."""
    n_classes = len(text_features)
    weight = torch.zeros(n_classes, n_classes, device=text_features.device)
    for s in similarities(image_features, text_features, block):
        first, second, *_ = top_two(s)
        q = torch.softmax(s * logit_scale, 1)  # [B, C]
        own = q.gather(1, first[:, None])
        weight.index_add_(0, first, q.scatter(1, first[:, None], 0.0))
        weight.index_put_((second, first), own[:, 0], accumulate=True)
    return weight


def margins_of_class(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    c: int,
    *,
    block: int = 1024,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Margin of one class on every image and the class's probability there: what soft CMM averages, and its weights.

    Raises:
        InputError: no such class.
    """
    if c not in range(len(text_features)):
        raise InputError(f"margins_of_class: no class {c}: classes are 0 to {len(text_features) - 1}")
    margins, weights = text_features.new_empty(2, len(image_features), dtype=torch.float32)
    start = 0
    for s in similarities(image_features, text_features, block):
        rows, others = slice(start, start + len(s)), s.clone()
        others[:, c] = -torch.inf
        margins[rows] = s[:, c] - others.amax(1)
        weights[rows] = torch.softmax(s * logit_scale, 1)[:, c]  # copied: a view would keep its whole block
        start = rows.stop
    return margins, weights
