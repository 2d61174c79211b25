"""CMM and its baselines, against loops over images and classes in float64, and METHOD.md's table on real embeddings."""

from __future__ import annotations

import inspect
import math
import re
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from cmmlib import functional as F
from cmmlib.errors import InputError
from cmmlib.evaluation import evaluation
from cmmlib.functional import cmm, similarity
from cmmlib.functional._kernels import similarity_numba, similarity_torch
from cmmlib.functional.similarity import similarity_pass

SCALE = 20.0
NAN = float("nan")
small = settings(deadline=None, derandomize=True, max_examples=40)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


class Slow:
    """One prompt's similarities, margins and probabilities, [N][C], in plain loops; NaN where nothing is defined."""

    def __init__(self, images, head, scale: float = SCALE) -> None:
        x, t = (np.asarray(side, dtype=np.float64) for side in (images, head))
        self.n, self.c = len(x), len(t)
        self.s = [[float(x[n] @ t[c]) for c in range(self.c)] for n in range(self.n)]
        self.prediction = [row.index(max(row)) for row in self.s]
        self.q = [self._softmax(row, scale) for row in self.s]
        self.margin = [self._margins(row) for row in self.s]
        self.q_margin = [self._margins(row) for row in self.q]
        self.deviation = [float(np.std(row)) for row in self.s]

    def _softmax(self, row, scale):
        e = [math.exp(scale * (v - max(row))) for v in row]
        return [v / sum(e) for v in e]

    def _margins(self, row):
        return [row[c] - max(row[:c] + row[c + 1 :]) for c in range(self.c)]

    def average(self, weight, value) -> list[float]:
        """sum_n weight[n][c] value[n][c] / sum_n weight[n][c] for every c."""
        result = []
        for c in range(self.c):
            mass = sum(weight[n][c] for n in range(self.n))
            total = sum(weight[n][c] * value[n][c] for n in range(self.n))
            result.append(total / mass if mass else NAN)
        return result

    def hard(self, classes) -> list[list[bool]]:
        return [[own == c for c in range(self.c)] for own in classes]

    def retrieved(self) -> list[list[bool]]:
        m = max(1, round(self.n / self.c))
        column = [sorted(range(self.n), key=lambda n: (-self.s[n][c], n))[:m] for c in range(self.c)]
        return [[n in column[c] for c in range(self.c)] for n in range(self.n)]

    def cmm(self, assignment: str) -> list[float]:
        if assignment == "soft_probability":
            return self.average(self.q, self.q_margin)
        weight = {"pseudo": self.hard(self.prediction), "soft": self.q, "retrieval": self.retrieved()}[assignment]
        return self.average(weight, self.margin)

    def rivals(self) -> tuple[list[int], list[float]]:
        rival, share = [], []
        for c in range(self.c):
            votes = self.votes(c)
            rival.append(votes.index(max(votes)))
            share.append(max(votes) / sum(votes))
        return rival, share

    def votes(self, c: int) -> list[float]:
        """Probability of class c, summed by the class that is its rival on the image."""
        votes = [0.0] * self.c
        for n in range(self.n):
            row = [-math.inf if j == c else v for j, v in enumerate(self.s[n])]
            votes[row.index(max(row))] += self.q[n][c]
        return votes


def assert_close(found: torch.Tensor, expected) -> None:
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), np.array(expected, dtype=float), rtol=1e-4, atol=2e-5)


def case(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, D] and heads [P, C, D]."""
    shapes = {"one image": (1, 1, 5), "two classes": (9, 2, 2), "one image, two classes": (1, 1, 2)}
    shapes |= {"fewer images than classes": (4, 2, 9), "uneven": (31, 3, 7), "many classes": (50, 1, 130)}
    n, p, c = shapes.get(name, (24, 2, 6))
    images, heads = unit(n, 12), unit(p, c, 12, seed=1)
    if name == "duplicate texts":
        heads[:, [2, 5]] = heads[:, [0, 0]]
    if name == "float16":
        images, heads = images.half(), heads.half()
    if name == "duplicate images":
        images = images[torch.arange(n) % 3]
    if name == "class never predicted":
        heads[:, 3] = torch.nn.functional.normalize(-images.sum(0), dim=0)
        images = torch.nn.functional.normalize(images - 2 * heads[0, 3], dim=1)
    return images, heads


CASES = [
    *("one image", "two classes", "one image, two classes", "fewer images than classes", "uneven", "many classes"),
    *("duplicate texts", "duplicate images", "float16", "class never predicted"),
]


def assert_all_forms(images, heads, scale=SCALE) -> None:
    """Every function of `Matches`, under every prompt."""
    passed, slow = similarity_pass(images, heads, scale), [Slow(images, head, scale) for head in heads]
    n, n_classes = len(images), heads.shape[1]
    for assignment in F.ASSIGNMENTS:
        assert_close(F.class_matching_margin(passed, assignment), [one.cmm(assignment) for one in slow])
    count = [[one.prediction.count(c) for c in range(n_classes)] for one in slow]
    assert F.predicted_count(passed).tolist() == count
    confidence = [one.average(one.hard(one.prediction), one.q) for one in slow]
    assert_close(F.mean_top_probability(passed), confidence)
    estimate = np.nan_to_num(np.array(confidence)) * np.array(count) * n_classes / n
    assert_close(F.accuracy_estimate(passed), estimate.clip(0, 1))
    scaled = [
        one.average(one.q, [[v / d for v in row] for row, d in zip(one.margin, one.deviation, strict=True)])
        for one in slow
    ]
    assert_close(F.scale_free_cmm(passed), np.array(scaled) * np.mean([one.deviation for one in slow]))


@pytest.mark.parametrize("name", CASES)
def test_every_form_equals_loops(name):
    assert_all_forms(*case(name))


@small
@given(
    st.integers(1, 25), st.integers(1, 3), st.integers(2, 9), st.integers(0, 99), st.sampled_from([1.0, 20.0, 100.0])
)
def test_any_shape_equals_loops(n, n_prompts, n_classes, seed, scale):
    assert_all_forms(unit(n, 6, seed=seed), unit(n_prompts, n_classes, 6, seed=seed + 100), scale)


@pytest.mark.parametrize("name", CASES)
def test_cmm_by_labels_equals_loops(name):
    images, heads = case(name)
    labels = torch.arange(len(images)) * 7 % heads.shape[1]
    found = F.cmm_by_labels(similarity_pass(images, heads, SCALE), images, heads, labels)
    slow = [Slow(images, head) for head in heads]
    assert_close(found, [one.average(one.hard(labels.tolist()), one.margin) for one in slow])
    assert found.isnan().sum() == len(heads) * (heads.shape[1] - len(set(labels.tolist())))


def test_right_labels_make_the_oracle_the_pseudo_form():
    images, heads = case("uneven")
    passed = similarity_pass(images, heads[:1], SCALE)
    found = F.cmm_by_labels(passed, images, heads[:1], passed.prediction[0].long())
    torch.testing.assert_close(found, F.class_matching_margin(passed, "pseudo"), equal_nan=True)


def test_a_class_that_is_never_predicted():
    images, heads = case("class never predicted")
    passed = similarity_pass(images, heads[:1], SCALE)
    assert F.predicted_count(passed)[0, 3] == 0
    assert F.class_matching_margin(passed, "pseudo")[0, 3].isnan()
    assert F.mean_top_probability(passed)[0, 3].isnan()
    assert F.accuracy_estimate(passed)[0, 3] == 0
    for assignment in ("soft", "soft_probability", "retrieval"):
        assert F.class_matching_margin(passed, assignment)[0, 3] < 0
    assert F.rank_classes(F.class_matching_margin(passed, "pseudo")[0], F.class_matching_margin(passed)[0])[0] == 3


def test_a_scale_free_margin_does_not_see_how_close_the_texts_lie():
    """The second prompt's texts share a large component, which the images lack: every similarity is halved."""
    images, texts = unit(40, 8), unit(5, 8, seed=1)
    images = torch.nn.functional.pad(images, (0, 1))  # nothing along the shared direction
    wide, close = (torch.nn.functional.pad(r * texts, (0, 1), value=math.sqrt(1 - r * r)) for r in (0.8, 0.4))
    passed = similarity_pass(images, torch.stack([wide, close]), 1e-3)  # all but equal weights under both
    plain, scale_free = (F.prompt_scores(form(passed)).tolist() for form in (F.class_matching_margin, F.scale_free_cmm))
    assert plain[0] == pytest.approx(2 * plain[1], rel=1e-2)
    assert scale_free[0] == pytest.approx(scale_free[1], rel=1e-2)


def test_an_unknown_assignment_is_refused():
    with pytest.raises((InputError, TypeCheckError)):  # here the type in the signature sees it first
        F.class_matching_margin(similarity_pass(unit(3, 4), unit(1, 2, 4), SCALE), "labels")


# probabilities that underflow


def far_apart() -> tuple[torch.Tensor, torch.Tensor]:
    """Images around one direction; text 4 is opposite to it, so at a large scale its every probability is zero."""
    images, heads = unit(30, 6), unit(1, 5, 6, seed=1)
    images[:, 0] = images[:, 0].abs() + 2
    heads[:, :, 0] = heads[:, :, 0].abs()
    heads[:, 4] = -torch.eye(6)[0]
    return torch.nn.functional.normalize(images, dim=1), heads


@pytest.mark.parametrize("scale", [1e-3, 50.0, 80.0, 88.0, 92.0, 100.0, 1e3, 1e6])
def test_underflow_never_makes_nan(scale):
    images, heads = far_apart()
    passed = similarity_pass(images, heads, scale)
    lowest = {"soft": -2, "soft_probability": -1, "retrieval": -2}
    for name, low in lowest.items():
        assert (
            (F.class_matching_margin(passed, name) >= low) & (F.class_matching_margin(passed, name) <= -low)
        ).all(), name
    assert F.scale_free_cmm(passed).isfinite().all()
    rival, share = F.rivals(images, heads[0], scale)
    assert (rival != torch.arange(5)).all()
    assert ((share >= 0) & (share <= 1)).all()
    margin, weight = F.margins_of_class(images, heads[0], scale, 4)
    assert margin.isfinite().all()
    assert weight.isfinite().all()


def test_a_class_without_probability_ranks_worst_in_every_form():
    images, heads = far_apart()
    passed = similarity_pass(images, heads, 1e3)
    assert passed.soft_mass[0, 4] == 0
    soft = F.class_matching_margin(passed)[0]
    assert soft[4] == F.class_matching_margin(passed, "retrieval")[0, 4]
    assert F.class_matching_margin(passed, "soft_probability")[0, 4] == -1
    for score in (soft, F.class_matching_margin(passed, "soft_probability")[0], F.scale_free_cmm(passed)[0]):
        assert score[4] == score.min()
    rival, share = F.rivals(images, heads[0], 1e3)
    assert share[4] == 0
    similarity_of_texts = heads[0, :4] @ heads[0, 4]
    assert rival[4] == similarity_of_texts.argmax()


# ranks


some = st.sampled_from([NAN, -0.5, 0.0, 0.1, 0.1000001])


@small
@given(st.lists(st.tuples(some, st.integers(-3, 3)), min_size=1, max_size=9))
def test_undefined_classes_rank_first_in_the_order_of_the_fallback(pairs):
    score, fallback = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    undefined = sorted((b, c) for c, (a, b) in enumerate(pairs) if math.isnan(a))
    known = sorted((a, c) for c, (a, _) in enumerate(pairs) if not math.isnan(a))
    assert F.rank_classes(score, fallback).tolist() == [c for _, c in undefined + known]
    filled = F.fill_undefined(score, fallback)
    assert all(filled[c] == a for a, c in known)
    assert not filled.isnan().any()
    assert not (undefined and known) or filled[undefined[-1][1]] < filled[known[0][1]]
    for (low, c), (high, d) in pairwise(undefined):
        assert (filled[c] < filled[d]) == (low < high)


def test_filled_makes_a_new_tensor():
    score = torch.tensor([0.1, 0.2], dtype=torch.float64)
    F.fill_undefined(score, score)[0] = 9
    assert score[0] == 0.1


def test_a_fallback_that_is_undefined_too_is_refused():
    score, fallback = torch.tensor([0.1, NAN, 0.3]), torch.tensor([NAN, NAN, 0.1])
    for function in (F.fill_undefined, F.rank_classes):
        with pytest.raises(InputError, match="neither a score nor a fallback"):
            function(score, fallback)
    fallback[1] = 0.0  # where it is not needed it may be undefined
    assert F.rank_classes(score, fallback).tolist() == [1, 0, 2]


def test_the_cmm_of_a_prompt_is_the_mean_over_all_classes():
    scores = torch.tensor([[0.1, -0.3, 0.5], [0.0, 0.0, 0.3]])
    assert F.prompt_scores(scores).tolist() == pytest.approx([0.1, 0.1])
    scores[1, 0] = NAN
    with pytest.raises(InputError, match="always defined"):
        F.prompt_scores(scores)


# texts, rivals, one class's margins


@pytest.mark.parametrize("name", CASES)
def test_rivals_equal_loops(name):
    images, heads = case(name)
    rival, share = F.rivals(images, heads[0], SCALE, block=7)
    slow = Slow(images, heads[0])
    expected, expected_share = slow.rivals()
    np.testing.assert_allclose(share, expected_share, rtol=1e-4)
    assert rival.tolist() == expected
    assert (rival != torch.arange(len(rival))).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_top_rivals_equal_loops(name, n):
    """Rivals of equal votes may come in any order: the votes of the chosen are compared."""
    images, heads = case(name)
    slow = Slow(images, heads[0])
    found = F.top_rivals(images, heads[0], SCALE, n, block=7)
    assert [chosen[0] for chosen in found] == F.rivals(images, heads[0], SCALE)[0].tolist()
    for c, chosen in enumerate(found):
        votes = slow.votes(c)
        assert c not in chosen
        assert len(set(chosen)) == len(chosen) == max(1, min(n, sum(v > 1e-30 for v in votes)))
        expected = sorted((v for j, v in enumerate(votes) if j != c), reverse=True)[: len(chosen)]
        np.testing.assert_allclose([votes[j] for j in chosen], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n_classes", "block"), [(6, 7), (130, 64), (300, 1024)])
def test_a_tie_between_copies_goes_to_the_lowest_index(n_classes, block):
    """A product in blocks may give equal texts different last bits; the votes must not be split by them."""
    images, head = unit(200, 48), unit(n_classes, 48, seed=1)
    head[-1] = head[0]
    rival, _ = F.rivals(images, head, SCALE, block=block)
    assert {c for c in range(n_classes) if rival[c] == n_classes - 1} <= {0}  # all others see the original first
    margin, _ = F.margins_of_class(images, head, SCALE, n_classes - 1, block=block)
    same, _ = F.margins_of_class(images, head, SCALE, 0, block=block)
    assert torch.equal(margin, same)
    assert (margin <= 0).all()


@pytest.mark.parametrize("name", CASES)
def test_margins_of_a_class_equal_loops_and_average_to_its_cmm(name):
    images, heads = case(name)
    slow, soft = Slow(images, heads[0]), F.class_matching_margin(similarity_pass(images, heads, SCALE))[0]
    for c in range(min(6, slow.c)):
        margin, weight = F.margins_of_class(images, heads[0], SCALE, c, block=5)
        np.testing.assert_allclose(margin, [row[c] for row in slow.margin], atol=1e-6)
        np.testing.assert_allclose(weight, [row[c] for row in slow.q], rtol=1e-4, atol=1e-7)
        assert float((margin * weight).sum() / weight.sum()) == pytest.approx(float(soft[c]), abs=1e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is told on Linux only")
def test_margins_of_a_class_keep_no_block():
    images, head = unit(40_000, 8), unit(2000, 8, seed=1)
    F.margins_of_class(images[:9], head, SCALE, 0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    F.margins_of_class(images, head, SCALE, 0)
    assert resident("VmHWM") - before < 40_000 * 2000 * 4 / 2**10 / 2  # of all blocks; four are needed at once


def resident(field: str) -> int:
    """KiB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


@pytest.mark.parametrize("name", CASES)
def test_nearest_text_distance_equals_loops(name):
    head = case(name)[1][0]
    t = np.asarray(head, dtype=np.float64)
    expected = [1 - max(float(t[c] @ t[j]) for j in range(len(t)) if j != c) for c in range(len(t))]
    found = F.nearest_text_distance(head)
    np.testing.assert_allclose(found, expected, atol=1e-3 if head.dtype == torch.float16 else 1e-6)
    assert (found >= 0).all()


def test_the_distance_between_copies_is_zero():
    head = unit(40, 64).repeat(2, 1)
    found = F.nearest_text_distance(head)
    assert (found >= 0).all()
    assert (found < 1e-6).all()


# no label on a label-free path


LABEL_FREE = (similarity, similarity_numba, similarity_torch, cmm)


def test_only_the_oracle_takes_labels():
    functions = {
        name: function
        for module in LABEL_FREE
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }
    for module in LABEL_FREE:
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__:
                functions |= {f"{kind.__name__}.{n}": f for n, f in inspect.getmembers(kind, inspect.isfunction)}
    names = {"similarity_pass", "class_matching_margin", "scale_free_cmm", "rivals", "SimilarityPass.__init__"}
    assert names <= set(functions)
    words = ("label", "target", "truth", "true", "accuracy", "correct", "answer")
    takes = {
        name
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters
        if parameter in {"y", "gt"} or any(word in parameter for word in words)
    }
    assert takes == {"cmm_by_labels"}


def test_label_free_modules_do_not_import_evaluation():
    for module in LABEL_FREE:
        assert "metrics" not in vars(module)
        assert "cmmlib.functional.accuracy" not in inspect.getsource(module)


# real embeddings: METHOD.md's numbers


@pytest.fixture(scope="module")
def real(real_data):
    """For each set: matches of all prompts, images, heads, labels, and the first prompt's class accuracies."""
    found = {}
    for name in ("dtd", "pets25"):
        with np.load(real_data / f"{name}_vitb32.npz", allow_pickle=False) as file:
            images, heads, labels = (torch.from_numpy(file[k]) for k in ("image_features", "text_features", "labels"))
        heads = heads.reshape(-1, *heads.shape[-2:])
        passed = similarity_pass(images, heads, 100.0)
        accuracy = [F.class_accuracy(row, labels, heads.shape[1]) for row in passed.prediction]
        found[name] = passed, images, heads, labels, accuracy
    return found


def label_free_scores(passed, head) -> dict[str, torch.Tensor]:
    soft = F.class_matching_margin(passed)[0]
    scores = {name: F.fill_undefined(F.class_matching_margin(passed, name)[0], soft) for name in F.ASSIGNMENTS}
    scores["accuracy_estimate"] = F.accuracy_estimate(passed)[0]
    scores["predicted_count"] = F.predicted_count(passed)[0].double()
    scores["nearest_text_distance"] = F.nearest_text_distance(head)
    return scores


ORDER = ("pseudo", "soft", "soft_probability", "accuracy_estimate", "predicted_count", "retrieval")
TABLE = {  # Spearman, precision at k, AUROC
    ("dtd", 10, 11): ".93/.90/.98 .95/.80/.98 .95/.90/.99 .95/1.00/1.00 .87/.90/.99 .91/.80/.96",
    ("pets25", 6, 6): ".90/.83/.97 .90/.83/.98 .84/.83/.97 .83/.83/.97 .52/.83/.85 .90/.83/.97",
}


@pytest.mark.real
@pytest.mark.parametrize(("name", "k", "n_true"), TABLE)
def test_the_detection_table(real, name, k, n_true):
    passed, _, heads, _, accuracy = real[name]
    scores = label_free_scores(passed, heads[0])
    for score, row in zip(ORDER, TABLE[name, k, n_true].split(), strict=True):
        found = F.detection_scores(scores[score], accuracy[0].value, k)
        told = "/".join(f"{found[key]:.2f}" for key in ("spearman", "precision_at_k", "auroc"))
        assert told.replace("0.", ".") == row, score
        assert found["n_true"] == n_true
        assert found["chance"] == pytest.approx(n_true / heads.shape[1])
    text = F.detection_scores(scores["nearest_text_distance"], accuracy[0].value, k)["spearman"]
    assert 0.22 <= round(text, 2) <= 0.70


@pytest.mark.real
def test_dtd_accuracies(real):
    passed, _, _, labels, (accuracy,) = real["dtd"]
    assert accuracy.overall == pytest.approx(0.44787, abs=5e-6)
    assert F.worst_at_k(accuracy.value, 5) == pytest.approx(0.01667, abs=5e-6)
    assert F.worst_at_k(accuracy.value, 10) == pytest.approx(0.06500, abs=5e-6)
    report = evaluation.accuracy_report(passed.prediction[0].long(), labels, 47, 10)
    for k in F.WORST_KS:
        assert report["worst"][str(k)] < report["worst_split_half"][str(k)]
    assert report["harmonic_mean"] == report["geometric_mean"] == 0 < report["harmonic_mean_floored"]
    assert report["zero_classes"] == int((accuracy.correct == 0).sum()) > 0


@pytest.mark.real
def test_the_better_of_two_pets_prompts_has_the_higher_mean_cmm(real):
    passed, _, _, _, accuracy = real["pets25"]
    assert [a.overall for a in accuracy] == pytest.approx([0.87515, 0.92066], abs=5e-6)
    for form in (F.class_matching_margin, F.scale_free_cmm):
        worse, better = F.prompt_scores(form(passed)).tolist()
        assert worse < better


@pytest.mark.real
@pytest.mark.parametrize("name", ["dtd", "pets25"])
def test_the_accuracy_estimate_is_off_by_what_method_says(real, name):
    passed, _, _, _, accuracy = real[name]
    error = F.accuracy_estimate(passed)[0] - accuracy[0].value
    assert 0.07 <= round(float(error.abs().mean()), 2) <= 0.14
    assert error.mean() < 0


@pytest.mark.real
@pytest.mark.parametrize("name", ["dtd", "pets25"])
def test_cmm_on_real_embeddings_equals_a_direct_computation(real, name):
    passed, images, heads, labels, _ = real[name]
    s = (images.double() @ heads[0].double().T).numpy()
    q = np.exp(100 * (s - s.max(1, keepdims=True)))
    q /= q.sum(1, keepdims=True)
    others = np.stack([np.delete(s, c, 1).max(1) for c in range(s.shape[1])], 1)
    expected = (q * (s - others)).sum(0) / q.sum(0)
    np.testing.assert_allclose(F.class_matching_margin(passed)[0], expected, atol=2e-6)
    oracle = [(s - others)[labels == c, c].mean() for c in range(s.shape[1])]
    np.testing.assert_allclose(F.cmm_by_labels(passed, images, heads, labels)[0], oracle, atol=2e-6)
    votes = [np.bincount(np.where(np.arange(s.shape[1]) == c, -2, s).argmax(1), q[:, c]) for c in range(s.shape[1])]
    rival, share = F.rivals(images, heads[0], 100.0)
    assert rival.tolist() == [int(v.argmax()) for v in votes]
    np.testing.assert_allclose(share, [v.max() / v.sum() for v in votes], rtol=1e-4)


def test_class_mean_margin_equals_loops():
    images, texts = unit(40, 8, seed=1).abs(), unit(2, 5, 8, seed=2).abs()
    texts[:, 4] = -(8**-0.5)  # far from all: never predicted
    passed = F.similarity_pass(images, texts, 20.0)
    found = F.class_mean_margin(passed, images, texts)
    assert found[:, 4].isnan().all()
    for p, c in product(range(2), range(4)):
        own = images[passed.prediction[p] == c]
        mean = (own @ texts[p].T).double().mean(0) if len(own) else torch.full((5,), NAN).double()
        others = [float(mean[j]) for j in range(5) if j != c]
        assert float(found[p, c]) == pytest.approx(float(mean[c]) - max(others), abs=1e-6, nan_ok=True)


def test_a_prompt_that_says_the_same_of_all_classes_moves_no_other_prompts_scale():
    """As a template that is cut before the class name: its similarities have no spread."""
    images, heads = unit(40, 8), unit(3, 6, 8, seed=1)
    flat = heads[:1, :1].expand(1, 6, 8)
    alone = F.scale_free_cmm(similarity_pass(images, heads, SCALE))
    beside = F.scale_free_cmm(similarity_pass(images, torch.cat([heads, flat]), SCALE))
    assert_close(beside[:3], alone.numpy())
