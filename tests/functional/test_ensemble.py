"""The weighted ensemble: CMM of candidates, weights and classifier against loops in float64, and its invariances."""

from __future__ import annotations

import inspect
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.errors import InputError
from cmmlib.functional import candidates as scoring
from cmmlib.functional import ensemble, fitted_weights, prompt_baselines
from cmmlib.functional.candidates import DESCRIPTION, TEMPLATE, Candidates, candidate_cmm
from cmmlib.functional.ensemble import combine_candidates, weigh_candidates
from cmmlib.functional.similarity import similarity_pass

BF16_CMM = 2e-4  # bound on the error of a candidate's CMM, as its docstring says
WAYS = ("soft", "retrieval")
small = settings(deadline=None, derandomize=True, max_examples=30)


@pytest.fixture(scope="module", params=["compiled", "torch"], autouse=True)
def both_ways(request):
    """Every test is run with both ways to add up a block; the second is for other devices, which are not here."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(scoring, "_is_compiled", lambda device: False)
        yield


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def pool(n_prompts: int, n_classes: int, sizes: dict[int, int], dim: int = 12, seed: int = 1) -> Candidates:
    """Templates for every class and, for some, so many descriptions."""
    described = {c: unit(k, dim, seed=seed + 50 + c) for c, k in sizes.items()}
    return Candidates.of_templates(unit(n_prompts, n_classes, dim, seed=seed)).with_descriptions(described)


def scattered(classes: list[int], n_classes: int, groups: list[int] | None = None, dim: int = 12) -> Candidates:
    """Candidates of these classes in this order, however many each has."""
    group = groups or [TEMPLATE] * len(classes)
    return Candidates(unit(len(classes), dim, seed=7), torch.tensor(classes), torch.tensor(group), n_classes)


# ---------------------------------------------------------------- candidates


def test_every_template_is_a_candidate_of_every_class_prompt_by_prompt():
    heads = unit(2, 3, 4)
    found = Candidates.of_templates(heads)
    assert found.classes.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.groups.tolist() == [TEMPLATE] * 6
    assert found.n_classes == 3
    for t in range(6):
        assert found.vectors[t].equal(heads[t // 3, t % 3])
    assert Candidates.of_templates(heads.half()).vectors.dtype == torch.float32


def test_descriptions_are_added_to_their_classes():
    templates, described = Candidates.of_templates(unit(2, 3, 4)), {2: unit(3, 4, seed=5), 0: unit(1, 4, seed=6)}
    found = templates.with_descriptions(described)
    assert found.classes.tolist() == [0, 1, 2, 0, 1, 2, 2, 2, 2, 0]
    assert found.groups.tolist() == [TEMPLATE] * 6 + [DESCRIPTION] * 4
    assert found.vectors[6:9].equal(described[2])
    assert found.vectors[9:].equal(described[0])
    assert templates.classes.tolist() == [0, 1, 2, 0, 1, 2]
    assert templates.with_descriptions({}).classes.equal(templates.classes)
    assert found.only(TEMPLATE).vectors.equal(templates.vectors)
    assert found.only(DESCRIPTION).classes.tolist() == [2, 2, 2, 0]
    assert found.where(found.classes == 0).groups.tolist() == [TEMPLATE, TEMPLATE, DESCRIPTION]


# ---------------------------------------------------------------- CMM of candidates


def slow_cmm(images, candidates: Candidates, others, scale: float, assignment: str) -> list[float]:
    """One candidate and one image at a time, in float64; NaN where float32 has no probability left."""
    x, t, o = (np.asarray(side, dtype=np.float64) for side in (images, candidates.vectors, others))
    m = max(1, round(len(x) / len(o)))
    scores = []
    for vector, c in zip(t, candidates.classes.tolist(), strict=True):
        own, margin, log_q = [], [], []
        for row in x:
            s = float(row @ vector)
            rest = [float(row @ o[j]) for j in range(len(o)) if j != c]
            top = max(s, *rest)
            own.append(s)
            margin.append(s - max(rest))
            log_q.append(scale * (s - top) - math.log(sum(math.exp(scale * (v - top)) for v in [s, *rest])))
        if assignment == "retrieval":
            chosen = sorted(range(len(x)), key=lambda n: -own[n])[:m]
            scores.append(sum(margin[n] for n in chosen) / m)
            continue
        q = [math.exp(v - max(log_q)) for v in log_q]
        score = sum(w * v for w, v in zip(q, margin, strict=True)) / sum(q)
        scores.append(score if max(log_q) > -80 else math.nan)
    return scores


def assert_equals_loops(images, candidates, others, scale) -> None:
    for assignment in WAYS:
        found = candidate_cmm(images, candidates, others, scale, assignment)
        assert found.dtype == torch.float64
        assert found.shape == candidates.classes.shape
        assert ((found >= -2.00001) & (found <= 2.00001)).all(), assignment
        expected = np.array(slow_cmm(images, candidates, others, scale, assignment))
        known = ~np.isnan(expected)
        np.testing.assert_allclose(found.numpy()[known], expected[known], rtol=1e-4, atol=2e-5, err_msg=assignment)


SHAPES = {  # images, prompts, classes, descriptions of classes
    "one image": (1, 2, 5, {3: 2}),
    "two classes": (9, 3, 2, {1: 4}),
    "one image, two classes, one prompt": (1, 1, 2, {}),
    "fewer images than classes": (4, 2, 9, {0: 1, 8: 5}),
    "unequal numbers": (31, 2, 7, {6: 8, 1: 3, 2: 1}),
    "many classes": (20, 1, 60, {59: 3}),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_cmm_of_candidates_equals_loops(name, scale):
    n, p, c, sizes = SHAPES[name]
    candidates = pool(p, c, sizes)
    assert_equals_loops(unit(n, 12), candidates, unit(c, 12, seed=9), scale)


@small
@given(st.data(), st.integers(1, 20), st.integers(2, 7), st.integers(0, 99), st.sampled_from([1.0, 20.0, 100.0, 1e3]))
def test_cmm_of_candidates_of_any_classes_equals_loops(data, n, n_classes, seed, scale):
    classes = data.draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=12))
    images, others = unit(n, 12, seed=seed), unit(n_classes, 12, seed=seed + 100)
    assert_equals_loops(images, scattered(classes, n_classes), others, scale)


def test_copies_and_float16_images_equal_loops():
    images, others = unit(24, 12).half(), unit(6, 12, seed=9)
    others[[2, 5]] = others[[0, 0]]
    candidates = pool(2, 6, {4: 3})
    assert_equals_loops(images, candidates, others, 20.0)
    assert_equals_loops(images[torch.arange(24) % 3], candidates, others, 20.0)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_blocks_do_not_matter(name, rows):
    n, p, c, sizes = SHAPES[name]
    candidates, images, others = pool(p, c, sizes), unit(n, 12), unit(c, 12, seed=9)
    whole = {way: candidate_cmm(images, candidates, others, 20.0, way) for way in WAYS}
    with mock.patch.object(scoring, "BLOCK_BYTES", 4 * rows * c):
        for way in WAYS:
            found = candidate_cmm(images, candidates, others, 20.0, way)
            torch.testing.assert_close(found, whole[way], rtol=0, atol=1e-6)


def around_one_direction() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and texts around one direction, as CLIP's; text 4 is opposite to it, so no image counts for it."""
    images, head = unit(30, 12), unit(5, 12, seed=1)
    images[:, 0] = images[:, 0].abs() + 2
    head[:, 0] = head[:, 0].abs()
    head[4] = -torch.eye(12)[0]
    return torch.nn.functional.normalize(images, dim=1), torch.nn.functional.normalize(head, dim=1)


@pytest.mark.parametrize("scale", [1.0, 20.0, 80.0, 100.0, 1000.0])
def test_the_text_in_use_has_the_cmm_of_its_class(scale):
    images, head = around_one_direction()
    candidates, passed = Candidates.of_templates(head[None]), similarity_pass(images, head[None], scale)
    for way in WAYS:
        found = candidate_cmm(images, candidates, head, scale, way)
        expected = F.class_matching_margin(passed, way)[0]
        told = (passed.soft_mass[0] > 1e-30) | (passed.soft_mass[0] == 0)  # between them, float32 loses images
        assert told[:4].all()
        np.testing.assert_allclose(found[told], expected[told], atol=2e-5, err_msg=way)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1000.0, 1e6])
def test_no_scale_makes_nan(scale):
    images, head = around_one_direction()
    texts = torch.cat([unit(2, 5, 12, seed=3), head[None], -head[None]])
    candidates = Candidates.of_templates(texts)
    for way in WAYS:
        found = candidate_cmm(images, candidates, head, scale, way)
        assert ((found >= -2) & (found <= 2)).all(), way
        assert weigh_candidates(candidates, found).isfinite().all()
    classifier = F.cmm_ensemble(images, candidates, head, scale)
    assert classifier.isfinite().all()


def test_a_candidate_without_probability_falls_back_to_retrieval():
    images, head = around_one_direction()
    candidates = Candidates.of_templates(torch.stack([head, unit(5, 12, seed=3)]))
    soft, retrieval = (candidate_cmm(images, candidates, head, 1000.0, way) for way in WAYS)
    assert soft[4] == pytest.approx(float(retrieval[4]), abs=1e-6)
    assert soft[4] != pytest.approx(float(candidate_cmm(images, candidates, head, 20.0)[4]), abs=1e-3)
    assert not torch.allclose(soft[:4], retrieval[:4], atol=1e-3)


def test_the_winner_is_far_ahead_of_the_second():
    """exp(-1000 * 0.8) is zero even in float64; the candidate lies between the two and has every probability."""
    images, others = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.19**0.5], [0.1, 0.99**0.5]])
    vectors = torch.tensor([[0.15, (1 - 0.15**2) ** 0.5]])
    candidates = Candidates(vectors, torch.tensor([0]), torch.tensor([TEMPLATE]), 2)
    assert float(candidate_cmm(images, candidates, others, 1000.0)[0]) == pytest.approx(0.05, abs=1e-6)


def test_an_unknown_assignment_is_refused():
    with pytest.raises((InputError, TypeCheckError)):  # here the type in the signature sees it first
        candidate_cmm(unit(3, 12), pool(1, 2, {}), unit(2, 12), 20.0, "labels")


# ---------------------------------------------------------------- weights


def slow_weights(candidates, scores, temperature=0.3, cut=1.0, balanced=True) -> list[float]:
    classes, groups, scores = candidates.classes.tolist(), candidates.groups.tolist(), list(map(float, scores))
    weights = [0.0] * len(scores)
    for c in set(classes):
        own = [t for t in range(len(scores)) if classes[t] == c]
        mean = sum(scores[t] for t in own) / len(own)
        deviation = max(math.sqrt(sum((scores[t] - mean) ** 2 for t in own) / len(own)), 1e-12)
        best = max(scores[t] for t in own)
        for t in own:
            if cut is not None and scores[t] < best - cut * deviation:
                continue
            g = 1 / sum(groups[u] == groups[t] for u in own) if balanced else 1.0
            weights[t] = g * math.exp((scores[t] - best) / (temperature * deviation))
        total = sum(weights[t] for t in own)
        for t in own:
            weights[t] /= total
    return weights


def sums(candidates, weights) -> torch.Tensor:
    return torch.zeros(candidates.n_classes, dtype=torch.float64).index_add_(0, candidates.classes, weights)


def random_scores(candidates, seed=0) -> torch.Tensor:
    return 0.02 * torch.randn(len(candidates.classes), generator=torch.Generator().manual_seed(seed)).double() - 0.03


@st.composite
def mixed(draw) -> Candidates:
    """Unequal numbers of candidates in any order, at least one for each class."""
    n_classes = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, n_classes - 1), max_size=15))
    classes = draw(st.permutations([*range(n_classes), *extra]))
    groups = draw(st.lists(st.sampled_from([TEMPLATE, DESCRIPTION]), min_size=len(classes), max_size=len(classes)))
    return scattered(list(classes), n_classes, groups)


@small
@given(mixed(), st.integers(0, 99), st.sampled_from([0.05, 0.3, 2.0]), st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]))
def test_weights_equal_loops_and_sum_to_one_in_every_class(candidates, seed, temperature, cut):
    scores = random_scores(candidates, seed)
    for balanced in (True, False):
        found = weigh_candidates(candidates, scores, temperature=temperature, cut=cut, balanced=balanced)
        expected = slow_weights(candidates, scores, temperature, cut, balanced)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(sums(candidates, found), 1, rtol=1e-12)


def test_groups_have_equal_mass_at_equal_cmm():
    candidates = pool(24, 3, {1: 5})
    weights = weigh_candidates(candidates, torch.full((77,), -0.1))
    for group in (TEMPLATE, DESCRIPTION):
        assert float(weights[(candidates.classes == 1) & (candidates.groups == group)].sum()) == pytest.approx(0.5)
    torch.testing.assert_close(weights[candidates.classes == 0], torch.full((24,), 1 / 24).double())
    drowned = weigh_candidates(candidates, torch.full((77,), -0.1), balanced=False)
    assert float(drowned[candidates.groups == DESCRIPTION].sum()) == pytest.approx(5 / 29)


@pytest.mark.parametrize("cut", [0.0, 0.5, 1.0, 1.7])
def test_the_cut_drops_exactly_those_too_far_below_the_best(cut):
    candidates = pool(9, 4, {2: 5})
    scores = random_scores(candidates)
    dropped = weigh_candidates(candidates, scores, cut=cut) == 0
    for c in range(4):
        own = candidates.classes == c
        far = scores[own] < scores[own].max() - cut * scores[own].numpy().std()
        assert dropped[own].tolist() == far.tolist()
        assert far.any()
        assert not far.all()
    assert (weigh_candidates(candidates, scores, cut=None) > 0).all()


def test_the_temperature_goes_from_the_best_to_all_alike():
    candidates = pool(4, 3, {2: 2, 0: 3})
    scores = random_scores(candidates)
    cold, hot = (weigh_candidates(candidates, scores, temperature=t, cut=None) for t in (1e-4, 1e9))
    for c in range(3):
        own = (candidates.classes == c).nonzero()[:, 0]
        assert cold[own].argmax() == scores[own].argmax()
        assert float(cold[own].max()) == pytest.approx(1)
    torch.testing.assert_close(hot, F.uniform_weights(candidates, balanced=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"temperature": -1.0}, {"temperature": math.nan}, {"cut": -0.1}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match="weigh: temperature must be positive and cut 0 or more, got"):
        weigh_candidates(pool(2, 3, {}), torch.zeros(6), **bad)


@small
@given(mixed(), st.integers(0, 99), st.sampled_from([1e-3, 0.5, 7.0, 1e3]), st.sampled_from([-5.0, 0.3, 40.0]))
def test_weights_do_not_see_the_zero_or_the_unit_of_cmm(candidates, seed, factor, constant):
    scores = random_scores(candidates, seed)
    weights = weigh_candidates(candidates, scores)
    torch.testing.assert_close(weigh_candidates(candidates, scores * factor), weights, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(weigh_candidates(candidates, scores + constant), weights, rtol=1e-6, atol=1e-9)


@small
@given(mixed())
def test_uniform_weights_are_equal_in_a_class_or_in_its_groups(candidates):
    classes, groups = candidates.classes.tolist(), candidates.groups.tolist()
    plain, balanced = F.uniform_weights(candidates), F.uniform_weights(candidates, balanced=True)
    for t, (c, g) in enumerate(zip(classes, groups, strict=True)):
        own = [h for d, h in zip(classes, groups, strict=True) if d == c]
        assert float(plain[t]) == pytest.approx(1 / len(own))
        assert float(balanced[t]) == pytest.approx(1 / len(set(own)) / own.count(g))


@pytest.mark.parametrize(("n_prompts", "n_classes"), [(1, 2), (2, 5), (7, 3)])
def test_global_weights_equal_loops(n_prompts, n_classes):
    heads, scores = unit(n_prompts, n_classes, 4), 0.1 * unit(n_prompts, n_classes, seed=3).double()
    mean = [sum(row) / n_classes for row in scores.tolist()]
    deviation = max(float(np.std(mean)), 1e-12)
    raw = [math.exp((m - max(mean)) / (0.5 * deviation)) for m in mean]
    found = F.weigh_prompts(heads, scores, temperature=0.5)
    np.testing.assert_allclose(found, [r / sum(raw) for r in raw], rtol=1e-9)
    assert F.weigh_prompts(heads, torch.full_like(scores, 0.2)).tolist() == pytest.approx([1 / n_prompts] * len(raw))


# ---------------------------------------------------------------- one classifier


@small
@given(mixed(), st.integers(0, 99))
def test_the_classifier_equals_loops_and_has_unit_norm(candidates, seed):
    weights = weigh_candidates(candidates, random_scores(candidates, seed))
    classifier = combine_candidates(candidates, weights)
    expected = np.zeros((candidates.n_classes, 12))
    for vector, c, w in zip(candidates.vectors.double().numpy(), candidates.classes.tolist(), weights, strict=True):
        expected[c] += float(w) * vector
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    assert classifier.dtype == torch.float32
    np.testing.assert_allclose(classifier, expected, atol=1e-6)
    np.testing.assert_allclose(classifier.norm(dim=1), 1, atol=1e-6)


@small
@given(st.permutations(range(14)))
def test_the_order_of_candidates_does_not_matter(order):
    candidates, images, others = pool(2, 4, {3: 4, 1: 2}), unit(15, 12), unit(4, 12, seed=9)
    index = torch.tensor(order)
    shuffled = Candidates(candidates.vectors[index], candidates.classes[index], candidates.groups[index], 4)
    scores = candidate_cmm(images, candidates, others, 20.0)
    torch.testing.assert_close(candidate_cmm(images, shuffled, others, 20.0), scores[index], rtol=0, atol=1e-6)
    weights = weigh_candidates(candidates, scores)
    torch.testing.assert_close(weigh_candidates(shuffled, scores[index]), weights[index])
    torch.testing.assert_close(combine_candidates(shuffled, weights[index]), combine_candidates(candidates, weights))


def test_a_class_without_weight_is_refused():
    candidates = pool(2, 3, {1: 2})
    weights = weigh_candidates(candidates, torch.zeros(8))
    with pytest.raises(InputError, match=r"^combine: class 2 has no candidate of positive weight$"):
        combine_candidates(candidates, weights * (candidates.classes != 2))
    with pytest.raises(InputError, match="class 0 has no candidate"):
        F.cmm_ensemble(unit(5, 12), candidates.only(DESCRIPTION), unit(3, 12, seed=9), 20.0)


@pytest.mark.parametrize("settings_", [{}, {"assignment": "retrieval", "temperature": 1.0, "cut": None}], ids=str)
def test_the_ensemble_is_its_three_steps(settings_):
    candidates, images, others = pool(3, 4, {1: 5}), unit(20, 12), unit(4, 12, seed=9)
    scores = slow_cmm(images, candidates, others, 20.0, settings_.get("assignment", "soft"))
    weighing = {k: v for k, v in settings_.items() if k != "assignment"}
    expected = combine_candidates(candidates, torch.tensor(slow_weights(candidates, scores, **weighing)))
    found = F.cmm_ensemble(images, candidates, others, 20.0, rounds=1, **settings_)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    again = F.cmm_ensemble(images, candidates, found, 20.0, rounds=1, **settings_)
    both = F.cmm_ensemble(images, candidates, others, 20.0, rounds=2, **settings_)
    torch.testing.assert_close(both, again, rtol=0, atol=1e-6)  # a further round begins where the last one ended


def test_scores_take_the_place_of_the_first_round():
    candidates, images, others = pool(3, 4, {1: 5}), unit(20, 12), unit(4, 12, seed=9)
    first = candidate_cmm(images, candidates, others, 20.0)
    with mock.patch.object(ensemble, "candidate_cmm", side_effect=candidate_cmm) as measured:
        found = F.cmm_ensemble(images, candidates, others, 20.0, scores=first)
    assert measured.call_count == ensemble.ROUNDS - 1
    assert found.equal(F.cmm_ensemble(images, candidates, others, 20.0))
    reversed_ = F.cmm_ensemble(images, candidates, others, 20.0, rounds=1, scores=-first)
    assert reversed_.equal(combine_candidates(candidates, weigh_candidates(candidates, -first)))


def test_the_scores_of_a_pass_are_in_the_order_of_the_templates():
    images, heads = unit(20, 12), unit(3, 4, 12, seed=1)
    known, candidates = (
        F.class_matching_margin(similarity_pass(images, heads, 20.0)).flatten(),
        Candidates.of_templates(heads),
    )
    for p, head in enumerate(heads):
        found = candidate_cmm(images, candidates, head, 20.0)[4 * p : 4 * p + 4]
        np.testing.assert_allclose(found, known[4 * p : 4 * p + 4], atol=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_bf16_products_change_a_candidates_cmm_little(name):
    n, p, c, sizes = SHAPES[name]
    candidates, images, others = pool(p, c, sizes), unit(n, 12), unit(c, 12, seed=9)
    found = {
        way: [candidate_cmm(images, candidates, others, 20.0, way, precision=f) for f in ("fp32", "bf16")]
        for way in WAYS
    }
    assert 0 < (found["soft"][0] - found["soft"][1]).abs().max() < 0.02
    assert found["retrieval"][0].equal(found["retrieval"][1])  # always float32: it ranks images


@pytest.mark.real
@pytest.mark.parametrize("name", ["dtd_vitb32", "pets25_vitb32"])
def test_bf16_on_real_embeddings_stays_within_its_bound(real_data, name):
    data = load_embeddings(real_data / f"{name}.npz")
    candidates, others = Candidates.of_templates(data.text_features), F.uniform_mean(data.text_features)
    given_ = data.image_features, candidates, others, data.logit_scale
    exact, rounded = (candidate_cmm(*given_, precision=precision) for precision in ("fp32", "bf16"))
    assert 0 < (exact - rounded).abs().max() < BF16_CMM


def test_replaced_classes_get_their_mean_description_and_others_stay():
    base, described = unit(5, 12), {3: unit(4, 12, seed=1), 0: unit(1, 12, seed=2)}
    before = base.clone()
    found = F.replace_classes(base, described)
    assert base.equal(before)
    assert found[[1, 2, 4]].equal(base[[1, 2, 4]])
    mean = described[3].double().numpy().mean(0)
    np.testing.assert_allclose(found[3], mean / np.sqrt((mean**2).sum()), atol=1e-6)
    np.testing.assert_allclose(found[0], described[0][0], atol=1e-6)
    assert F.replace_classes(base, {}).equal(base)


# ---------------------------------------------------------------- no label on a label-free path


def test_nothing_here_takes_labels():
    words = ("label", "target_class", "truth", "true", "accuracy", "correct", "answer")
    seen = set()
    for module in (scoring, ensemble, fitted_weights, prompt_baselines):
        members = [
            f for _, f in inspect.getmembers(module, callable) if getattr(f, "__module__", "") == module.__name__
        ]
        members += [
            f for kind in members if inspect.isclass(kind) for _, f in inspect.getmembers(kind, inspect.isroutine)
        ]
        for function in members:
            if getattr(function, "__module__", None) != module.__name__:
                continue
            seen.add(function.__name__)
            for parameter in inspect.signature(function).parameters:
                assert parameter not in {"y", "gt"}, function.__name__
                assert not any(word in parameter for word in words), function.__name__
        assert "cmmlib.functional.accuracy" not in inspect.getsource(module)
    assert {
        "candidate_cmm",
        "weigh_candidates",
        "combine_candidates",
        "cmm_ensemble",
        "with_descriptions",
        "zpe",
        "autoclip",
        "carprt",
        "fit_candidate_weights",
    } <= seen
