"""Sentences and tables of chapter 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Bool, Float, Int
from PIL import Image
from scipy.stats import hypergeom
from torch import Tensor

import cmmlib.functional as F
from cmmlib.blazon.language.plain_english import glosses
from cmmlib.functional.similarity import SimilarityPass
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import (
    counted,
    decimal,
    join_names,
    name,
    names,
    percent,
    percent_number,
    points,
    signed,
)
from cmmlib.report.titles import titled
from cmmlib.study.run import Run

LABELS, TEXTS = "labels", "nearest_text_distance"  # the score that needs labels, and the one that sees no image
Quality = Mapping[str, Mapping[str, Any]]


# ---------------------------------------------------------------- margins and suspects


def one_image(run: Run, passed: SimilarityPass, image: int) -> str:
    """What one image is predicted as, its rival, and the margin between the two."""
    first, second = (name(run.classnames[int(side[0, image])]) for side in (passed.prediction, passed.rival))
    margin = float(passed.margin[0, image])
    behind = f"lies {decimal(margin, 4)} of cosine similarity behind" if margin > 0 else "has the same similarity"
    return f"the image of median margin is predicted as {first}; its rival, {second}, {behind}."


def lowest_and_highest(run: Run, soft: Float[Tensor, "C"], ends: Int[Tensor, "2"]) -> str:
    """The class of lowest CMM and that of highest, and how far they are ahead of their rivals or behind."""
    low, high = (f"{name(run.classnames[c])} is {_lead(float(soft[c]))}" for c in ends.tolist())
    return f"on average over the images that count for it, {low} the best other class; {high} it. No label was used."


def _lead(cmm: float) -> str:
    if round(cmm, 4) == 0:
        return "level with"
    return f"{decimal(abs(cmm), 4)} {'ahead of' if cmm > 0 else 'behind'}"


def nearest_images(
    run: Run, ends: Int[Tensor, "2"], similarity: Float[Tensor, "N C"], margin: Float[Tensor, "N C"], n: int = 8
) -> list[tuple[str, list[Image.Image], list[float]]]:
    """For each class: its name, the n images most similar to its text, and its margin on each of them."""
    assert run.pictures is not None
    rows = []
    for c in ends.tolist():
        near = similarity[:, c].topk(min(n, len(similarity))).indices.tolist()
        (gloss,) = in_plain_english(run, [c]).get("in plain English", [""])
        called = f"{run.classnames[c]} ({gloss})" if gloss else run.classnames[c]
        rows.append((called, [run.pictures.read(i) for i in near], margin[near, c].tolist()))
    return rows


def ahead_on_nearest(rows: Sequence[tuple[str, Sequence[Any], Sequence[float]]]) -> str:
    """On how many of the images most similar to its text a class is ahead of all others."""
    said = (f"{name(c)} is ahead on {sum(m > 0 for m in margins)} of {len(margins)}" for c, _, margins in rows)
    return f"of the images most similar to its own text, {', '.join(said)}."


@titled("The classes of lowest CMM")
def suspect_table(
    run: Run, suspects: Int[Tensor, "n"], soft: Float[Tensor, "C"], rival: Int[Tensor, "C"]
) -> pd.DataFrame:
    """Suspected classes with their CMM and their rival; coats of arms in plain English too."""
    cmm = [signed(value) for value in soft[suspects].tolist()]
    known = {"class": run.names(suspects), **in_plain_english(run, suspects.tolist())}
    return pd.DataFrame({**known, "CMM": cmm, "rival": run.names(rival[suspects])})


def in_plain_english(run: Run, classes: Sequence[int]) -> dict[str, list[str]]:
    """A column that says what each class shows, where the classes are coats of arms; else none."""
    shown = glosses(run.pictures)
    return {} if shown is None else {"in plain English": [shown[c] for c in classes]}


def suspects_said(soft: Float[Tensor, "C"], suspects: Int[Tensor, "n"], rival: Int[Tensor, "C"]) -> str:
    """How many classes have a CMM below zero, and how many suspects have a suspect as rival."""
    n = int((soft < 0).sum())
    below = f"{n or 'none'} of the {len(soft)} classes {_have(n)} a CMM below zero."
    if len(suspects) < 2:
        return below
    listed = set(suspects.tolist())
    among = sum(c in listed for c in rival[suspects].tolist())
    return f"{below} Of the {len(suspects)} suspects {among or 'none'} {_have(among)} another suspect as rival."


def _have(n: int) -> str:
    return "has" if n < 2 else "have"


# ---------------------------------------------------------------- does CMM know?


def detection(found: Mapping[str, Any], k: int, n: int) -> str:
    """How well the order by CMM is that by accuracy, and what it finds of the worst classes.

    Args:
        found: `F.detection_scores` of soft CMM.
        n: classes that have images.
    """
    return f"{_ranking(found['spearman'])} {_found_of_worst(found, k, n)}"


def missed(
    classnames: list[str],
    soft: Float[Tensor, "C"],
    accuracy: Float[Tensor, "C"],
    prediction: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
    is_worst: Bool[Tensor, "C"],
) -> str:
    """The class of the worst set that CMM suspects least, and how many images are predicted as it, rightly or not."""
    order: list[int] = F.rank_classes(soft).tolist()
    worst = [c for c in order if is_worst[c]]
    if not worst or len(worst) == len(order):
        return ""
    c = worst[-1]
    given = prediction == c
    own = int((given & (labels == c)).sum())
    return (
        f"Of the {len(worst)} classes of lowest accuracy CMM suspects {name(classnames[c])} least, number "
        f"{order.index(c) + 1} of {len(order)}: its accuracy is {percent(float(accuracy[c]))}, and of the "
        f"{counted(int(given.sum()), 'image')} predicted as it {own} {'is' if own == 1 else 'are'} its own."
    )


def _ranking(rho: float | None) -> str:
    if rho is None:
        return "there is no rank correlation of CMM and accuracy, since one of the two is the same for all classes."
    return f"Spearman's rank correlation of CMM and accuracy is {decimal(rho)}."


def _found_of_worst(found: Mapping[str, Any], k: int, n: int) -> str:
    n_true, chosen = found["n_true"], found["precision_at_k"]
    if n_true is None:
        return f"Only {counted(n, 'class', 'classes')} of the data set have images: there is no worst set of {k}."
    if n_true == n:
        return f"No class is better than the worst {k}, ties included: there is nothing to find."
    ties = f", which are more than {k} because of ties" if n_true > k else ""
    at_random = percent(found["chance"], 0) + (_by_chance(chosen * k, k, n_true, n) if k > 1 else "")
    return (
        f"{_hits(chosen, k)} to the {n_true} of lowest accuracy{ties}. At random the chance of a class to be one of "
        f"them is {at_random}. The probability that a class of the worst {n_true} has a lower CMM than another class "
        f"(AUROC) is {decimal(found['auroc'])}; at random it is 0.50."
    )


def _by_chance(hits: float, k: int, n_true: int, n: int) -> str:
    """Whether k classes hold more of the n_true worst than 95 % of random choices do."""
    usual = hypergeom(n, n_true, k)
    low, high = int(usual.ppf(0.025)), int(usual.ppf(0.975))
    found = "more than" if hits > high else "fewer than" if hits < low else "no more than"
    return f", and {low} to {high} of {k} would be in 95 % of random choices: CMM finds {found} chance"


def _hits(precision: float, k: int) -> str:
    """How many of the k suspects belong to the worst; no whole number where the k-th ties with others."""
    hits = precision * k
    if k == 1 and hits in (0, 1):
        return f"The class of lowest CMM {'belongs' if hits else 'does not belong'}"
    whole = abs(hits - round(hits)) < 1e-6
    number = f"{round(hits)}" if whole else f"{hits:.1f}"
    tied = "" if whole else "; a mean, since classes tie in CMM"
    verb = "belongs" if number == "1" else "belong"
    return f"{number} of the {counted(k, 'class', 'classes')} of lowest CMM ({percent(precision, 0)}{tied}) {verb}"


def compared(value: float, other: float, digits: int, more: str, less: str, same: str) -> str:
    """One of three words, by two fractions as a page spells them: in percent, with so many digits."""
    if percent(value, digits) == percent(other, digits):
        return same
    return more if value > other else less


# ---------------------------------------------------------------- one score against another


def score_quality(
    scores: Mapping[str, Float[Tensor, "C"]], accuracy: Float[Tensor, "C"], k: int
) -> dict[str, dict[str, Any]]:
    """The `cmm` section of results.json: `F.detection_scores` of every score, and how many classes it leaves undefined.

    Undefined classes are ranked by `scores["soft"]`.
    """
    quality = {}
    for key, score in scores.items():
        quality[key] = F.detection_scores(F.fill_undefined(score, scores["soft"]), accuracy, k)
        quality[key]["undefined"] = int(score.isnan().sum())
    quality["accuracy_estimate"]["mean_absolute_error"] = float(_errors(scores, accuracy).abs().mean())
    return quality


def _errors(scores: Mapping[str, Tensor], accuracy: Tensor) -> Tensor:
    return (scores["accuracy_estimate"] - accuracy)[~accuracy.isnan()].double()


@titled("How well every score ranks the classes")
def quality_table(quality: Quality) -> pd.DataFrame:
    """A row a score: rank correlation with accuracy, precision among the k lowest, AUROC, undefined classes."""
    shown = {"spearman": decimal, "precision_at_k": percent, "auroc": decimal, "undefined": str}
    rows = [[display_name(key), *(show(found[c]) for c, show in shown.items())] for key, found in quality.items()]
    return pd.DataFrame(rows, columns=["score", *shown])


def filled_said(scores: Mapping[str, Float[Tensor, "C"]], accuracy: Float[Tensor, "C"]) -> str:
    """Scores that lack some classes, which the table ranks by *soft*: what they and *soft* have without these."""
    has_images, told = ~accuracy.isnan(), []
    for key, score in scores.items():
        known = has_images & ~score.isnan()
        lacking = int((has_images & score.isnan()).sum())
        if lacking:
            both = (F.spearman(of[known].double(), accuracy[known].double()) for of in (score, scores["soft"]))
            own, soft = map(decimal, both)
            told.append(f"*{display_name(key)}* lacks {counted(lacking, 'class', 'classes')} ({own}; *soft* {soft})")
    if not told:
        return ""
    return (
        "where a score has no value for a class, the table and the comparison below rank the class under all others, "
        f"in the order of *soft*. In brackets the rank correlations over the classes with a value: {'; '.join(told)}."
    )


def scores_compared(quality: Quality) -> str:
    """Which score without labels ranks classes best, beside soft CMM, the oracle and a score that sees no image."""
    rho = {key: found["spearman"] for key, found in quality.items() if found["spearman"] is not None}
    free = {key: value for key, value in rho.items() if key != LABELS}
    if not free:
        return "no score has a rank correlation with accuracy, since all classes have the same accuracy."
    best = max(free.values())
    first = names([display_name(key) for key, value in free.items() if decimal(value) == decimal(best)])
    parts = [f"the highest rank correlation without labels, {decimal(best)}, is that of {first}"]
    parts += [f"*soft* has {decimal(rho['soft'])}"] if "soft" in rho and decimal(rho["soft"]) != decimal(best) else []
    parts += [f"the oracle has {decimal(rho[LABELS])}"] if LABELS in rho else []
    return "; ".join(parts) + "." + _texts_alone(rho)


def _texts_alone(rho: Mapping[str, float]) -> str:
    """What the texts tell without any image, against soft CMM."""
    if TEXTS not in rho or "soft" not in rho:
        return ""
    than = compared(rho[TEXTS], rho["soft"], 0, "higher than", "lower than", "equal to")
    return (
        f" Texts alone, without any image (*nearest text distance*), have {decimal(rho[TEXTS])}, {than} that of *soft*."
    )


def against_plainer(differences: Mapping[str, tuple[float, float, float]]) -> str:
    """Where soft CMM ranks the classes better than plainer scores, where worse, and where the interval decides nothing.

    Args:
        differences: of `claims.cmm_against_plainer_scores`.
    """
    verdicts: dict[str, list[str]] = {"better than": [], "worse than": [], "not clearly better or worse than": []}
    for key, (value, low, high) in differences.items():
        if value == value:
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not clearly better or worse than"
            verdicts[verdict].append(f"*{display_name(key)}* ({low:+.2f} to {high:+.2f})")
    told = [f"{verdict} {join_names(scores)}" for verdict, scores in verdicts.items() if scores]
    if not told:
        return "no rank correlation is defined, so CMM cannot be compared with plainer scores."
    return (
        f"*soft* CMM ranks the classes {'; '.join(told)}. (In brackets: 95 % interval of the difference of the rank "
        "correlations, over classes.)"
    )


def estimate_said(scores: Mapping[str, Float[Tensor, "C"]], accuracy: Float[Tensor, "C"]) -> str:
    """How far the accuracy estimate is off, to which side, and how many classes have no pseudo CMM."""
    errors, undefined = _errors(scores, accuracy), int(scores["pseudo"].isnan().sum())
    bias = float(errors.mean())
    side = "neither too high nor too low"
    if points(bias) != "0.0":
        side = f"{percent_number(abs(bias))} points too {'high' if bias > 0 else 'low'}"
    off = percent_number(float(errors.abs().mean()))
    never = f"{counted(undefined, 'class is', 'classes are')} never predicted and {_have(undefined)} no pseudo CMM"
    return (
        f"the accuracy estimate is off by {off} points (mean absolute error), and on average {side}. "
        f"{never if undefined else 'Every class is predicted for some image, so all have a pseudo CMM'}."
    )
