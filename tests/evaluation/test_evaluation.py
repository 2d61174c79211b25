"""What classifiers are worth: rows, curves and ablations against direct computations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from finished_runs import by_name, near_texts, opened, write_embeddings
from synthetic_embeddings import CLASSES, IMAGES, synthetic_arrays

from cmmlib import functional as F
from cmmlib.evaluation import ablation, evaluation, methods
from cmmlib.evaluation.evaluation import best_template, ensemble_rows
from cmmlib.evaluation.methods import MethodResult, compare_methods
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.zero_shot import predict
from cmmlib.study.run import Run


def test_the_best_template_is_the_one_of_highest_accuracy(synthetic):
    (found,) = best_template(synthetic.blind, synthetic.labels)
    labels = synthetic.labels.numpy()
    s = [synthetic.image_features.double().numpy() @ head.double().numpy().T for head in synthetic.text_features]
    accuracy = [(one.argmax(1) == labels).mean() for one in s]
    assert accuracy[0] != accuracy[1]
    assert not found.label_free
    assert found.classifier.equal(synthetic.text_features[int(np.argmax(accuracy))])
    assert (found.prediction.numpy() == labels).mean() == pytest.approx(max(accuracy), abs=2e-3)


def test_one_prompt_has_no_best_template(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", text_features=synthetic_arrays()["text_features"][0], prompts=None)
    run = opened(data)
    assert best_template(run.blind, run.labels) == []


# ---------------------------------------------------------------- rows


FIELDS = [
    *("name", "label_free", "overall", "overall_interval", "mean_per_class", "worst", "worst_split_half", "base_worst"),
    *("base_worst_count", "base_worst_split_half", "zero_classes", "requests"),
]


@pytest.fixture
def judged(tmp_path) -> tuple[Run, list[MethodResult]]:
    """Contenders of chosen accuracies; class 11 has no image."""
    labels = np.where(synthetic_arrays()["labels"] == 11, 10, synthetic_arrays()["labels"])
    run = opened(write_embeddings(tmp_path / "x.npz", labels=labels))
    random = np.random.default_rng(0)
    found = []
    for i, share in enumerate((0.9, 0.5)):
        hit = random.random(IMAGES) < share * (labels + 1) / CLASSES
        prediction = np.where(hit & (labels != 4), labels, (labels + 1) % CLASSES)
        found.append(MethodResult(f"way {i}", torch.from_numpy(prediction), label_free=i == 0, requests=7 * i))
    return run, found


def test_rows_equal_a_direct_computation(judged):
    run, found = judged
    labels = run.labels.numpy()
    base = predict(run.image_features, run.base_text_features)
    before = F.class_accuracy(base, run.labels, CLASSES).value[:11].numpy()
    lowest = before <= np.sort(before)[9]
    rows = ensemble_rows(found, run.labels, CLASSES, base)
    assert [list(row) for row in rows] == [FIELDS] * 2
    for row, contender in zip(rows, found, strict=True):
        hit = contender.prediction.numpy() == labels
        accuracy = np.array([hit[labels == c].mean() for c in range(11)])
        assert (row["name"], row["label_free"]) == (contender.name, contender.label_free)
        assert row["requests"] == contender.requests
        assert row["overall"] == pytest.approx(hit.mean())
        assert row["worst"] == {
            **{str(k): pytest.approx(np.sort(accuracy)[:k].mean()) for k in (1, 5, 10)},
            "20": None,
        }
        assert row["base_worst"] == {"10": pytest.approx(accuracy[lowest].mean()), "20": None}
        assert row["base_worst_count"] == {"10": lowest.sum(), "20": 0}
        half = F.random_half(run.labels).numpy()
        directions = []
        for chosen, judged in ((half, ~half), (~half, half)):
            start = np.array([(base.numpy() == labels)[chosen & (labels == c)].mean() for c in range(11)])
            then = np.array([hit[judged & (labels == c)].mean() for c in range(11)])
            directions.append(then[start <= np.sort(start)[9]].mean())
        assert row["base_worst_split_half"] == {"10": pytest.approx(np.mean(directions)), "20": None}
        assert row["mean_per_class"] == pytest.approx(accuracy.mean())
        assert row["zero_classes"] == (accuracy == 0).sum() >= 1
        p, n, z = hit.mean(), len(hit), 1.959964
        middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        wilson = [(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
        assert list(row["overall_interval"]) == pytest.approx(wilson, abs=1e-6)
        halves = F.worst_split_half(torch.from_numpy(hit), run.labels, CLASSES, [1, 5, 10, 20], run.study.seed)
        assert list(row["worst_split_half"].values()) == halves
        assert list(row["worst_split_half"]) == ["1", "5", "10", "20"]
        assert halves[1] >= row["worst"]["5"]
        json.dumps(row, allow_nan=False)


def test_flat_rows_have_a_column_for_every_k(judged):
    run, found = judged
    rows = ensemble_rows(found, run.labels, CLASSES, predict(run.image_features, run.base_text_features))
    table = evaluation.flat_rows(rows)
    many = [f"{name}_{k}" for name in ("worst", "worst_split_half") for k in (1, 5, 10, 20)]
    many += [f"base_worst{what}_{k}" for what in ("", "_count", "_split_half") for k in (10, 20)]
    plain = ["name", "label_free", "overall", "overall_low", "overall_high"]
    plain += ["mean_per_class", "zero_classes", "requests"]
    assert list(table.columns) == [*plain, *many]
    assert table["name"].tolist() == ["way 0", "way 1"]
    for row, line in zip(rows, table.to_dict("records"), strict=True):
        assert (line["overall_low"], line["overall_high"]) == row["overall_interval"]
        assert line["worst_5"] == row["worst"]["5"]
        assert line["base_worst_10"] == row["base_worst"]["10"]


# ---------------------------------------------------------------- what descriptions change


def test_one_class_replaced_alone_equals_a_whole_new_classifier(synthetic):
    described = near_texts(synthetic, {1: 4, 3: 1, 5: 3, 10: 6})
    rivals = {1: 0, 3: 2, 5: 4, 10: 1}
    found = evaluation.replaced_alone(synthetic.blind, synthetic.labels, described, rivals)
    assert list(found) == [1, 3, 5, 10]
    images, base, labels = (
        synthetic.image_features.double().numpy(),
        synthetic.base_text_features.double().numpy(),
        synthetic.labels.numpy(),
    )
    before = (images @ base.T).argmax(1)
    for c, numbers in found.items():
        classifier = base.copy()
        mean = described[c].double().numpy().mean(0)
        classifier[c] = mean / np.linalg.norm(mean)
        after = (images @ classifier.T).argmax(1)
        assert (before != after).any()
        expected = [(p[labels == k] == k).mean() for k in (c, rivals[c]) for p in (before, after)]
        assert numbers == pytest.approx(expected, abs=1e-9)


def test_a_class_without_images_is_left_out_and_such_a_rival_has_no_accuracy(judged):
    run, _ = judged
    found = evaluation.replaced_alone(run.blind, run.labels, near_texts(run, {11: 2, 3: 2}), {11: 3, 3: 11})
    assert list(found) == [3]
    own_before, own_after, *rival = found[3]
    assert 0 <= own_before <= 1
    assert 0 <= own_after <= 1
    assert np.isnan(rival).all()


def direct_scores(run: Run, classifier: torch.Tensor) -> tuple[float, float]:
    """Overall and worst-10."""
    labels = run.labels.numpy()
    hit = (run.image_features.double().numpy() @ classifier.double().numpy().T).argmax(1) == labels
    return hit.mean(), np.sort([hit[labels == c].mean() for c in range(CLASSES)])[:10].mean()


def test_the_curve_describes_the_first_of_the_ranking(synthetic):
    everything, ranking = near_texts(synthetic, dict.fromkeys(range(1, CLASSES), 3)), [5, 0, 1, *range(6, 12)]
    rows = ablation.described_curve(synthetic.blind, synthetic.labels, everything, ranking, [0, 3])
    assert [(row["count"], row["method"]) for row in rows] == [
        (count, method)
        for count in (0, 3)
        for method in ("CMM weights", "equal weights, balanced", "in place of the name")
    ]
    part = {5: everything[5], 1: everything[1]}  # class 0 has no description
    candidates = Candidates.of_templates(synthetic.text_features).with_descriptions(part)
    expected = [
        methods.weighted_ensemble(synthetic.blind, candidates),
        methods.balanced_mean(candidates),
        F.replace_classes(synthetic.base_text_features, part),
    ]
    for row, classifier in zip(rows[3:], expected, strict=True):
        assert (row["overall"], row["worst_10"]) == pytest.approx(direct_scores(synthetic, classifier), abs=2e-3)
    assert (rows[2]["overall"], rows[2]["worst_10"]) == pytest.approx(
        direct_scores(synthetic, synthetic.base_text_features), abs=2e-3
    )


def test_the_ablation_changes_one_part_at_a_time(synthetic):
    described = near_texts(synthetic, {1: 3, 3: 2})
    rows = ablation.ablation(synthetic.blind, synthetic.labels, described)
    assert [row["version"] for row in rows] == [
        *("as it is", "templates only", "descriptions only, in the described classes"),
        *("uniform weights, groups balanced", "uniform weights", "CMM weights, groups not balanced"),
        *("nothing cut", "retrieval assignment", "1 description a class", "2 descriptions a class"),
    ]
    found = by_name(compare_methods(synthetic.blind, described))
    scores = {row["version"]: row for row in rows}
    same = {"as it is": "enriched_cmm", "templates only": "cmm_templates", "uniform weights": "enriched_uniform"}
    labels = synthetic.labels
    base = F.class_accuracy(found["base"].prediction, labels, CLASSES).value
    worst = base <= base.sort().values[9]
    for version, name in same.items():
        accuracy = F.class_accuracy(found[name].prediction, labels, CLASSES)
        row = scores[version]
        assert row["overall"] == accuracy.overall
        assert row["worst_10"] == F.worst_at_k(accuracy.value, 10)
        assert row["base_worst_10"] == pytest.approx(float(accuracy.value[worst].mean()))


def test_descriptions_alone_leave_other_classes_with_the_uniform_mean(synthetic):
    uniform, described = F.uniform_mean(synthetic.text_features), near_texts(synthetic, {1: 1, 3: 5})
    found = ablation.descriptions_only(synthetic.blind, described, uniform)
    others = [c for c in range(CLASSES) if c not in described]
    torch.testing.assert_close(found[others], uniform[others])
    torch.testing.assert_close(found[1], described[1][0])
    vectors, weights = described[3].double(), torch.linalg.lstsq(described[3].double().T, found[3].double()[:, None])
    assert (weights.solution > -1e-5).all()  # a weighted sum of the class's descriptions and nothing else
    torch.testing.assert_close(vectors.T @ weights.solution[:, 0], found[3].double(), rtol=0, atol=1e-5)
    assert ablation.descriptions_only(synthetic.blind, {}, uniform).equal(uniform)


# ---------------------------------------------------------------- real embeddings


@pytest.mark.real
def test_weighing_two_pets_prompts_by_class_costs_little_of_the_better_one(real_data):
    run = opened(f"embeddings:{real_data / 'pets25_vitb32.npz'}")
    found = [*compare_methods(run.blind, {}), *best_template(run.blind, run.labels)]
    rows = {row["name"]: row for row in ensemble_rows(found, run.labels, run.n_classes, found[0].prediction)}
    heads = [float((predict(run.image_features, head) == run.labels).double().mean()) for head in run.text_features]
    assert rows["best_template"]["overall"] == pytest.approx(max(heads)) == pytest.approx(0.92066, abs=5e-6)
    assert rows["cmm_templates"]["overall"] >= max(heads) - 0.005
    assert rows["cmm_templates"]["overall"] >= rows["uniform"]["overall"]


def test_a_gain_is_more_than_five_points():
    before = np.array([0.5, 0.5, 0.55, 0.5, np.nan])
    after = np.array([0.55, 0.5501, 0.5, 0.4499, 0.5])
    up, down = evaluation.gains_and_losses(before, after)
    assert up.tolist() == [False, True, False, False, False]
    assert down.tolist() == [False, False, False, True, False]


def test_the_largest_loss_comes_first_and_ties_do_not_hang_on_the_order_of_classes():
    before, after = np.array([0.5, 0.9, 0.4, 0.8, np.nan, 0.9]), np.array([0.2, 0.6, 0.5, 0.2, 0.0, 0.6])
    assert evaluation.most_lost(before, after, list("abcdef")) == [3, 0, 1, 5]
    assert evaluation.most_lost(before, after, list("afcdeb")) == [3, 0, 5, 1]
