"""What labels say, against loops written from the definitions; worst@k's bracket and the intervals by simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from cmmlib import functional as F
from cmmlib.errors import InputError
from cmmlib.evaluation import evaluation
from cmmlib.functional import worst

small = settings(deadline=None, derandomize=True, max_examples=60)
NAN = float("nan")


@st.composite
def judged(draw, max_classes: int = 7):
    """Predictions and labels of 1 to 30 images in 2 to 7 classes, of which some are empty or never predicted."""
    n_classes = draw(st.integers(2, max_classes))
    pairs = st.tuples(st.integers(0, n_classes - 1), st.integers(0, n_classes - 1))
    prediction, labels = zip(*draw(st.lists(pairs, min_size=1, max_size=30)), strict=True)
    return torch.tensor(prediction), torch.tensor(labels), n_classes


@st.composite
def accuracies(draw, unknown: bool = True):
    """Class accuracies with many ties, some of them NaN."""
    value = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, *([NAN] if unknown else [])])
    return torch.tensor(draw(st.lists(value, min_size=1, max_size=12)), dtype=torch.float64)


def by_hand(prediction, labels, n_classes) -> list[float]:
    """Accuracy of every class, NaN for an empty one."""
    result = []
    for c in range(n_classes):
        own = [p == y for p, y in zip(prediction.tolist(), labels.tolist(), strict=True) if y == c]
        result.append(sum(own) / len(own) if own else NAN)
    return result


def defined(values) -> list[float]:
    return [float(v) for v in values if not math.isnan(v)]


def mean(values) -> float:
    return sum(values) / len(values)


# accuracy of every class


@small
@given(judged())
def test_class_accuracy_is_counted_by_hand(case):
    prediction, labels, n_classes = case
    accuracy = F.class_accuracy(prediction, labels, n_classes)
    expected = by_hand(*case)
    np.testing.assert_allclose(accuracy.value.numpy(), expected, rtol=1e-12)
    assert accuracy.value.dtype == torch.float64
    assert accuracy.count.tolist() == [labels.tolist().count(c) for c in range(n_classes)]
    assert accuracy.empty == [c for c in range(n_classes) if c not in labels.tolist()]
    assert accuracy.overall == pytest.approx(mean([p == y for p, y in zip(*case[:2], strict=True)]))
    assert accuracy.mean_per_class == pytest.approx(mean(defined(expected)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_predictions_come_as_match_gives_them(dtype):
    accuracy = F.class_accuracy(torch.tensor([0, 2, 2], dtype=dtype), torch.tensor([0, 2, 1]), 4)
    assert accuracy.correct.tolist() == [1, 0, 1, 0]
    assert accuracy.value.isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong(right):
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    report = evaluation.accuracy_report(labels if right else (labels + 1) % 3, labels, 3, worst_k=2)
    share = float(right)
    for key in ("overall", "mean_per_class", "harmonic_mean", "geometric_mean"):
        assert report[key] == share
    assert report["worst"] == {"1": share, "2": share, "5": None, "10": None, "20": None}
    assert report["zero_classes"] == (0 if right else 3)
    assert report["base_worst_classes"] == [0, 1, 2]  # all tie
    assert 0 < report["harmonic_mean_floored"] <= 1
    low, high = report["overall_interval"]
    assert low <= share <= high


@pytest.mark.parametrize(
    ("prediction", "labels", "said"),
    [([], [], "0 predictions and 0 labels"), ([0], [3], "3 to 3, outside 0..2"), ([0], [-1], "-1 to -1, outside")],
)
def test_impossible_labels_are_refused(prediction, labels, said):
    with pytest.raises(InputError, match=said):
        F.class_accuracy(torch.tensor(prediction).long(), torch.tensor(labels).long(), 3)


def test_a_label_for_each_prediction():
    with pytest.raises((InputError, TypeCheckError)):  # here the shapes in the signature see it first
        F.class_accuracy(torch.tensor([0, 1]), torch.tensor([0]), 3)


@small
@given(judged())
def test_taken_for_is_the_commonest_wrong_prediction(case):
    prediction, labels, n_classes = case
    other, share = F.taken_for(prediction.int(), labels, n_classes)
    for c in range(n_classes):
        wrong = [int(p) for p, y in zip(prediction, labels, strict=True) if y == c != p]
        votes = [wrong.count(j) for j in range(n_classes)]
        assert int(other[c]) == (votes.index(max(votes)) if wrong else -1)
        assert float(share[c]) == pytest.approx(max(votes) / max(1, labels.tolist().count(c)))


# worst@k


@small
@given(accuracies(), st.integers(1, 14))
def test_worst_at_k_is_the_mean_of_the_lowest(accuracy, k):
    known = sorted(defined(accuracy))
    expected = mean(known[:k]) if k <= len(known) else None
    assert F.worst_at_k(accuracy, k) == pytest.approx(expected)
    assert F.worst_at_k(accuracy.float(), k) == pytest.approx(expected)


@small
@given(accuracies(), st.integers(1, 14))
def test_worst_classes_and_the_true_worst_set(accuracy, k):
    order = sorted((a, c) for c, a in enumerate(accuracy.tolist()) if a == a)
    assert F.worst_classes(accuracy, k).tolist() == [c for _, c in order[:k]]
    limit = order[:k][-1][0] if order else -1.0
    assert F.true_worst(accuracy, k).tolist() == [a <= limit for a in accuracy.tolist()]


def test_ties_make_the_true_worst_set_larger_than_k():
    accuracy = torch.tensor([0.5, 0.0, NAN, 0.5, 0.9, 0.5])
    assert F.true_worst(accuracy, 2).tolist() == [True, True, False, True, False, True]
    assert F.worst_classes(accuracy, 2).tolist() == [1, 0]


def test_equal_shares_of_unequal_counts_tie():
    labels = torch.tensor([0] * 3 + [1] * 60 + [2] * 7)
    prediction = torch.where(
        torch.tensor([i == 0 for i in range(3)] + [i < 20 for i in range(60)] + [True] * 7), labels, (labels + 1) % 3
    )
    accuracy = F.class_accuracy(prediction, labels, 3).value
    assert F.true_worst(accuracy, 1).tolist() == [True, True, False]


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_refused(k):
    accuracy, labels = torch.tensor([0.1, 0.2]), torch.tensor([0, 1])
    for call in (
        lambda: F.worst_at_k(accuracy, k),
        lambda: F.worst_classes(accuracy, k),
        lambda: F.true_worst(accuracy, k),
        lambda: F.detection_scores(accuracy, accuracy, k),
        lambda: F.worst_split_half(labels == 0, labels, 2, [1, k]),
        lambda: evaluation.accuracy_report(labels, labels, 2, k),
    ):
        with pytest.raises(InputError, match=f"1 or more, got {k}"):
            call()


@pytest.mark.parametrize(
    ("n_classes", "k"), [(2, 1), (3, 1), (4, 1), (7, 1), (8, 2), (47, 11), (83, 20), (84, 20), (1000, 20)]
)
def test_default_worst_k(n_classes, k):
    assert F.default_worst_k(n_classes) == k


# the split-half estimate


def test_split_half_of_certain_classes_is_their_accuracy():
    """Classes always right, or always wrong, have no noise: each half gives the same."""
    labels = torch.arange(6).repeat_interleave(torch.tensor([2, 3, 4, 5, 6, 7]))
    halves = F.worst_split_half(labels >= 2, labels, 6, [1, 2, 3, 4, 6, 7])
    assert halves[:5] == pytest.approx([0, 0, 1 / 3, 1 / 2, 4 / 6])
    assert halves[5] is None


def test_split_half_of_two_images_a_class_by_hand():
    """One image of class 0 is right: on each half it is 0 or 1, and the other half says the opposite. Class 1 is 1.

    Where class 0 shows 0 it is chosen and measured as 1; where it shows 1 it ties with class 1, both count half,
    measured as 0 and 1. The mean is (1 + 0.5) / 2.
    """
    correct, labels = torch.tensor([True, False, True, True]), torch.tensor([0, 0, 1, 1])
    one, both = F.worst_split_half(correct, labels, 2, [1, 2])
    assert one == pytest.approx(0.75)  # no coin is tossed
    assert both == pytest.approx(0.75)  # no choice is left


def test_split_half_of_ties_is_the_mean_over_all_ways_to_break_them():
    chosen_on, measured_on = np.array([0.5, 0.0, 0.5, 0.9, 0.5]), np.array([0.1, 0.2, 0.3, 0.4, 0.8])
    found = worst._of_tied_classes(chosen_on, measured_on).cumsum()
    expected = np.zeros(5)
    orders = [order for order in itertools.permutations(range(5)) if (np.diff(chosen_on[list(order)]) >= 0).all()]
    for order in orders:
        expected += measured_on[list(order)].cumsum() / len(orders)
    np.testing.assert_allclose(found, expected)


@small
@given(judged(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_split_halves_and_halves_do_not_hang_on_the_order_of_classes(case, seed, random):
    prediction, labels, n_classes = case
    order = torch.tensor(random.sample(range(n_classes), n_classes))  # old class -> new one
    right, ks = prediction == labels, [1, 2, 3]
    for one, other in zip(
        F.worst_split_half(right, labels, n_classes, ks, seed),
        F.worst_split_half(right, order[labels], n_classes, ks, seed),
        strict=True,
    ):
        assert one == pytest.approx(other)
    assert F.random_half(labels, seed).equal(F.random_half(order[labels], seed))


def test_split_half_repeats_with_its_seed():
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 9, 200))
    correct = torch.from_numpy(random.random(200) < 0.5)
    first, again, other = (F.worst_split_half(correct, labels, 9, [1, 3], seed) for seed in (3, 3, 4))
    assert first == again != other


@small
@given(judged(), st.integers(1, 8))
def test_split_half_is_defined_where_k_classes_can_be_halved(case, k):
    prediction, labels, n_classes = case
    (estimate,) = F.worst_split_half(prediction == labels, labels, n_classes, [k])
    can_be_halved = sum(labels.tolist().count(c) > 1 for c in range(n_classes))
    assert (estimate is None) == (k > can_be_halved)
    assert estimate is None or 0 <= estimate <= 1


@small
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 99))
def test_halves_are_halves_of_every_class(y, seed):
    half = worst._random_halves(np.array(y), np.random.default_rng(seed))
    for c in set(y):
        ones = sum(h for h, own in zip(half.tolist(), y, strict=True) if own == c)
        assert ones in {y.count(c) // 2, (y.count(c) + 1) // 2}


def test_the_odd_image_falls_on_either_half():
    sides = {int(worst._random_halves(np.array([0]), np.random.default_rng(seed))[0]) for seed in range(20)}
    assert sides == {0, 1}


KS = (1, 5, 10)
CLASSES, IMAGES, SETS = 60, 40, 300


@pytest.fixture(scope="module")
def simulated() -> dict[str, np.ndarray]:
    """Errors of three estimates of worst@k, [sets, KS], on data sets whose classes' true accuracies are known."""
    random = np.random.default_rng(0)
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    errors = {"naive": [], "split_half": [], "bootstrap": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worst, "N_SPLITS", 2)
        for seed in range(SETS):
            truth = random.beta(4, 2, CLASSES)
            true_worst = [np.sort(truth)[:k].mean() for k in KS]
            correct = torch.from_numpy(random.random((CLASSES, IMAGES)) < truth[:, None])
            accuracy = F.class_accuracy(
                torch.where(correct.flatten(), labels, (labels + 1) % CLASSES), labels, CLASSES
            ).value
            drawn = np.sort(random.binomial(IMAGES, accuracy.numpy(), (20, CLASSES)) / IMAGES, 1)
            estimates = {
                "naive": [F.worst_at_k(accuracy, k) for k in KS],
                "split_half": F.worst_split_half(correct.flatten(), labels, CLASSES, KS, seed),
                "bootstrap": [drawn[:, :k].mean() for k in KS],  # the k worst, picked again in every resample
            }
            for name, estimate in estimates.items():
                errors[name].append(np.subtract(estimate, true_worst))
    return {name: np.array(rows) for name, rows in errors.items()}


def standard_error(errors: np.ndarray) -> np.ndarray:
    return errors.std(0) / np.sqrt(len(errors))


def test_the_truth_lies_between_naive_and_split_half(simulated):
    low, high = simulated["naive"], simulated["split_half"]
    assert (low.mean(0) < -5 * standard_error(low)).all()
    assert (high.mean(0) > 5 * standard_error(high)).all()


def test_a_bootstrap_that_picks_again_doubles_the_bias(simulated):
    naive, again = simulated["naive"], simulated["bootstrap"]
    further = again - naive
    assert (further.mean(0) < -5 * standard_error(further)).all()
    ratio = again.mean(0) / naive.mean(0)
    assert ((ratio > 1.6) & (ratio < 2.4)).all(), ratio


def test_split_half_stays_high_where_some_classes_have_one_image(monkeypatch):
    """Five classes of one image look like the worst. They cannot be measured, so they must not be chosen either."""
    monkeypatch.setattr(worst, "N_SPLITS", 2)
    random = np.random.default_rng(1)
    truth = np.array([0.5] * 5 + [0.2] * 2 + [0.9] * 13)
    labels = torch.arange(20).repeat_interleave(torch.tensor([1] * 5 + [30] * 15))
    true_worst = np.sort(truth)[:5].mean()
    errors = np.empty((200, 1))
    for row in range(len(errors)):
        correct = torch.from_numpy(random.random(len(labels)) < truth[labels])
        errors[row] = F.worst_split_half(correct, labels, 20, [5], row)[0] - true_worst
    assert errors.mean() > 5 * standard_error(errors)[0]


# means


@small
@given(accuracies())
@example(torch.full((3,), NAN))
def test_harmonic_and_geometric_mean(accuracy):
    known = defined(accuracy)
    if not known:
        harmonic = geometric = None
    elif 0 in known:
        harmonic = geometric = 0
    else:
        harmonic = len(known) / sum(1 / a for a in known)
        geometric = math.prod(known) ** (1 / len(known))
    assert F.harmonic_mean(accuracy) == pytest.approx(harmonic)
    assert F.geometric_mean(accuracy) == pytest.approx(geometric)
    assert F.zero_classes(accuracy) == known.count(0)


@small
@given(judged())
def test_floored_accuracies_are_half_an_image_or_more(case):
    accuracy = F.class_accuracy(*case)
    expected = [max(a, 1 / (2 * n)) if n else NAN for a, n in zip(by_hand(*case), accuracy.count.tolist(), strict=True)]
    np.testing.assert_allclose(F.floored(accuracy).numpy(), expected, rtol=1e-12)
    assert F.geometric_mean(F.floored(accuracy)) > 0


# intervals


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("correct", "count"), [(0, 1), (1, 1), (0, 60), (60, 60), (3, 7), (50, 99), (6000, 100_000)])
def test_wilson_interval_by_its_formula(correct, count, level):
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = correct / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    found = F.wilson_interval(correct, count, level)
    assert found == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


def test_wilson_intervals_of_every_class():
    accuracy = F.class_accuracy(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    intervals = F.wilson_intervals(accuracy)
    assert intervals.shape == (3, 2)
    for c, counts in enumerate([(1, 2), (2, 2)]):
        assert intervals[c].tolist() == pytest.approx(F.wilson_interval(*counts))
    assert intervals[2].isnan().all()


def test_bootstrap_interval_covers_the_mean_of_fixed_classes():
    random = np.random.default_rng(0)
    truth, count = np.array([0.3, 0.5, 0.6, 0.8]), torch.tensor([30, 60, 45, 80])
    covered = []
    for seed in range(500):
        correct = torch.from_numpy(random.binomial(count.numpy(), truth))
        accuracy = F.ClassAccuracy(correct.double() / count, count, correct)
        low, high = F.bootstrap_interval(accuracy, torch.arange(4), draws=1000, seed=seed)
        covered.append(low <= truth.mean() <= high)
    assert 0.92 <= mean(covered) <= 0.98


def test_bootstrap_interval_of_certain_or_missing_classes():
    accuracy = F.class_accuracy(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 1, 1]), 3)
    assert F.bootstrap_interval(accuracy, torch.tensor([0, 1])) == (0.5, 0.5)
    assert F.bootstrap_interval(accuracy, torch.tensor([0, 2])) is None
    assert F.bootstrap_interval(accuracy, torch.tensor([], dtype=torch.long)) is None


# classes that no classifier could tell apart


def test_duplicates_by_name_and_by_text():
    names = ["Crane", "maillot", "CRANE ", "sunglasses", "Maillot", "shades", "dark glasses"]
    head = torch.eye(7)
    head[4] = head[1]  # same name and same text: told once, by name
    head[6] = head[5] = head[3]  # other names, same text
    assert F.duplicate_classes(names, head) == [
        {"classes": [0, 2], "names": ["Crane", "CRANE "], "by": "name"},
        {"classes": [1, 4], "names": ["maillot", "Maillot"], "by": "name"},
        {"classes": [3, 5, 6], "names": ["sunglasses", "shades", "dark glasses"], "by": "text"},
    ]


def test_a_text_group_larger_than_its_name_group_is_told_too():
    found = F.duplicate_classes(["a", "A", "b"], torch.ones(3, 4).half())
    assert [(group["classes"], group["by"]) for group in found] == [([0, 1], "name"), ([0, 1, 2], "text")]


def test_different_classes_are_no_duplicates():
    assert F.duplicate_classes(["ß", "s"], torch.eye(2)) == []


# the report


@small
@given(judged(), st.integers(1, 9))
def test_accuracy_report_by_hand(case, k):
    prediction, labels, n_classes = case
    twins = [{"classes": [0, 1], "names": ["a", "A"], "by": "name"}]
    report = evaluation.accuracy_report(prediction, labels, n_classes, k, twins, seed=1)
    values = by_hand(*case)
    for key, kept in (("worst", values), ("worst_without_duplicates", values[2:])):
        known = sorted(defined(kept))
        for size in F.WORST_KS:
            expected = mean(known[:size]) if size <= len(known) else None
            assert report[key][str(size)] == pytest.approx(expected)
    ks = sorted({*F.WORST_KS, k})
    halves = F.worst_split_half(prediction == labels, labels, n_classes, ks, seed=1)
    assert list(report["worst_split_half"].values()) == halves
    limit = sorted(defined(values))[:k][-1]
    assert report["base_worst_classes"] == sorted(
        (c for c, a in enumerate(values) if a <= limit), key=values.__getitem__
    )
    assert report["mean_per_class"] == pytest.approx(mean(defined(values)))
    assert report["zero_classes"] == values.count(0)
    numbers = [
        v for part in report.values() for v in (part.values() if isinstance(part, dict) else np.atleast_1d(part))
    ]
    assert not any(v is not None and math.isnan(v) for v in numbers)


# how well a score finds the worst


def ranks(values: list[float]) -> list[float]:
    """Mean rank of every value, by counting."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def spearman_by_hand(x: list[float], y: list[float]) -> float | None:
    a, b = ([r - mean(ranks(side)) for r in ranks(side)] for side in (x, y))
    norm = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / norm if norm else None


def detection_by_hand(score: list[float], accuracy: list[float], k: int) -> dict:
    pairs = [(s, a) for s, a in zip(score, accuracy, strict=True) if a == a]
    found = {"spearman": spearman_by_hand(*(list(side) for side in zip(*pairs, strict=True))) if pairs else None}
    if k > len(pairs):
        return found | dict.fromkeys(("precision_at_k", "auroc", "n_true", "chance"))
    limit = sorted(a for _, a in pairs)[k - 1]
    worst = [a <= limit for _, a in pairs]
    scores = [s for s, _ in pairs]
    places = [
        min(1.0, max(0.0, (k - sum(t < s for t in scores)) / scores.count(s))) for s in scores
    ]  # chance of a place
    wins = [
        (b > s) + (b == s) / 2
        for (s, _), is_worst in zip(pairs, worst, strict=True)
        for (b, _), is_other in zip(pairs, worst, strict=True)
        if is_worst and not is_other
    ]
    return found | {
        "precision_at_k": sum(place for place, bad in zip(places, worst, strict=True) if bad) / k,
        "auroc": mean(wins) if wins else None,
        "n_true": sum(worst),
        "chance": mean(worst),
    }


@small
@given(accuracies(), st.integers(1, 14), st.integers(0, 1000))
def test_detection_by_hand(accuracy, k, seed):
    score = torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, len(accuracy)) / 4)
    expected = detection_by_hand(score.tolist(), accuracy.tolist(), k)
    score[accuracy.isnan()] = NAN  # classes without images need no score
    assert F.detection_scores(score, accuracy, k) == pytest.approx(expected)
    assert F.detection_scores(score.float(), accuracy.float(), k) == pytest.approx(expected)


def test_detection_with_ties_among_the_worst():
    accuracy = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.9, NAN])
    found = F.detection_scores(torch.tensor([-0.3, 0.4, -0.2, -0.1, 0.2, 0.0]), accuracy, 2)
    assert found["n_true"] == 3
    assert found["precision_at_k"] == 1  # two of the three worst: k choices, all in the set
    assert found["chance"] == 3 / 5
    assert found["auroc"] == pytest.approx(4 / 6)


def test_detection_of_a_perfect_and_of_a_reversed_score():
    accuracy = torch.linspace(0, 1, 10)
    right, wrong = (F.detection_scores(sign * accuracy, accuracy, 3) for sign in (1, -1))
    assert right == pytest.approx({"spearman": 1, "precision_at_k": 1, "auroc": 1, "n_true": 3, "chance": 0.3})
    assert wrong == pytest.approx({"spearman": -1, "precision_at_k": 0, "auroc": 0, "n_true": 3, "chance": 0.3})


def test_detection_among_equal_accuracies_or_by_equal_scores_is_no_correlation():
    some, equal = torch.tensor([0.1, 0.2, 0.3]), torch.full((3,), 0.5)
    assert F.detection_scores(some, equal, 1)["auroc"] is None  # every class is among the worst
    assert F.detection_scores(some, equal, 1)["spearman"] is None
    assert F.detection_scores(equal, some, 1)["auroc"] == 0.5
    assert F.detection_scores(equal, some, 1)["spearman"] is None


def test_an_undefined_score_is_refused():
    with pytest.raises(InputError, match="fill_undefined"):
        F.detection_scores(torch.tensor([0.1, NAN, 0.2]), torch.tensor([0.1, 0.5, 0.2]), 1)
    for sides in (([0.1, NAN], [0.1, 0.2]), ([0.1, 0.2], [NAN, NAN])):
        with pytest.raises(InputError, match="NaN"):
            F.spearman(*map(torch.tensor, sides))


@small
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_spearman_by_hand(pairs):
    x, y = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    assert F.spearman(x, y) == pytest.approx(spearman_by_hand(x.tolist(), y.tolist()))


def test_a_rank_of_nan_is_refused():
    score = torch.tensor([0.1, NAN, 0.3]).double()
    with pytest.raises(InputError, match="auroc needs defined scores, got NaN"):
        F.auroc(score, torch.tensor([True, False, False]))
    with pytest.raises(InputError, match="needs defined values on both sides, got NaN"):
        F.spearman(score, torch.ones(3).double())
