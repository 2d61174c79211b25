"""What chapter 5 does with a run, and what it judges: blind steps, both orders, cross-fitting, the price."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from finished_runs import by_name, near_texts
from synthetic_embeddings import CLASSES, IMAGES

from cmmlib import functional as F
from cmmlib.evaluation import corrections, methods, prior_shift
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.zero_shot import predict
from cmmlib.report.findings import price

STEPS = [
    "fit_corrections",
    "cross_fitted",
    "hub_and_under_predicted",
    "compare_corrections",
    "compare_orders",
    "corrected_ensemble",
]
NEIGHBOURS = ["mean_centred", "z_scored", "label_shift_em", "frolic", "zlap", "transclip", "inmap", "otter"]


@pytest.mark.parametrize("name", STEPS)
def test_no_step_takes_a_run_with_labels(synthetic, name):
    with pytest.raises(TypeError, match=f"{name} takes no labels: pass run.blind"):
        getattr(corrections, name)(synthetic)


def test_every_step_that_takes_a_run_is_guarded():
    public = [f for f in vars(corrections).values() if inspect.isfunction(f) and f.__module__ == corrections.__name__]
    taking = [f for f in public if "run" in inspect.signature(f).parameters]
    assert sorted(f.__name__ for f in taking) == sorted(STEPS)
    assert not [f for f in public if "labels" in inspect.signature(f).parameters]


def test_contenders_are_the_base_its_neighbours_and_the_corrections(synthetic):
    pytest.importorskip("ot")
    found = by_name(corrections.compare_corrections(synthetic.blind, corrections.fit_corrections(synthetic.blind)))
    assert list(found) == ["base", *NEIGHBOURS, "prior_matching", "prototypes", "gaussians"]
    assert found["base"].prediction.equal(predict(synthetic.image_features, synthetic.base_text_features))
    assert all(one.prediction.shape == (IMAGES,) and one.label_free for one in found.values())


def test_cross_fitted_predictions_come_from_the_other_half(synthetic):
    found, converged = corrections.cross_fitted(synthetic.blind, "prior_matching")
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(synthetic.study.seed))
    first, second = order[: IMAGES // 2], order[IMAGES // 2 :]
    for fitted_on, judged in ((first, second), (second, first)):
        matched = F.fit_prior_matching(
            synthetic.image_features[fitted_on], synthetic.base_text_features, synthetic.logit_scale
        )
        assert found[judged].equal(matched.predict(synthetic.image_features[judged]))
    assert converged


def test_the_hub_gives_most_images_to_the_starved(synthetic):
    matched = corrections.fit_corrections(synthetic.blind)["prior_matching"]
    hub, starved, rows = corrections.hub_and_under_predicted(synthetic.blind, matched)
    before = predict(synthetic.image_features, synthetic.base_text_features).numpy()
    after = matched.predict(synthetic.image_features).numpy()
    moves = np.zeros((CLASSES, CLASSES), int)
    np.add.at(moves, (before, after), 1)
    np.fill_diagonal(moves, 0)
    assert moves[hub, starved] == moves.max() > 0
    either = [i for i in range(IMAGES) if {before[i], after[i]} & {hub, starved}]
    assert rows.tolist() == either


def test_a_correction_of_nothing_leaves_the_ensemble_as_it_is(synthetic):
    candidates = Candidates.of_templates(synthetic.text_features).with_descriptions(near_texts(synthetic, {3: 4}))
    nothing = F.fit_prior_matching(
        synthetic.image_features, synthetic.base_text_features, synthetic.logit_scale
    ).with_strength(0.0)
    found = corrections.corrected_ensemble(synthetic.blind, candidates, nothing)
    plain = methods.weighted_ensemble(synthetic.blind, candidates)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def test_both_orders_are_what_they_say(synthetic):
    described = near_texts(synthetic, {3: 4})
    candidates = Candidates.of_templates(synthetic.text_features).with_descriptions(described)
    classifier = methods.weighted_ensemble(synthetic.blind, candidates)
    fitted = corrections.fit_corrections(synthetic.blind)
    found = by_name(corrections.compare_orders(synthetic.blind, described, fitted))
    assert len(found) == 7
    scale = synthetic.logit_scale
    after = F.fit_prior_matching(synthetic.image_features, classifier, scale).predict(synthetic.image_features)
    assert found["ensemble, then prior_matching"].prediction.equal(after)
    first = F.fit_prototypes(synthetic.image_features, synthetic.base_text_features, scale)
    weighed = corrections.corrected_ensemble(synthetic.blind, candidates, first)
    assert found["prototypes, then ensemble"].prediction.equal(
        first.with_texts(weighed).predict(synthetic.image_features)
    )


# ---------------------------------------------------------------- with labels


def test_the_report_has_both_ways(synthetic):
    labels = synthetic.labels
    found = corrections.fit_corrections(synthetic.blind)["prototypes"]
    section = prior_shift.report(synthetic.blind, labels, "prototypes", found)
    inside = section["inductive"]
    assert set(section) == {*prior_shift.REPORTED, "strength", "converged", "inductive"}
    assert set(inside) == {*prior_shift.REPORTED, "strength", "converged"}
    hit = (found.predict(synthetic.image_features) == labels).numpy()
    accuracy = np.array([hit[labels.numpy() == c].mean() for c in range(CLASSES)])
    assert section["overall"] == pytest.approx(hit.mean())
    assert section["worst"]["5"] == pytest.approx(np.sort(accuracy)[:5].mean())
    base = F.class_accuracy(predict(synthetic.image_features, synthetic.base_text_features), labels, CLASSES).value
    lowest = (base <= base.sort().values[9]).numpy()
    assert section["base_worst"] == {"10": pytest.approx(accuracy[lowest].mean()), "20": None}
    assert section["base_worst_count"] == {"10": lowest.sum(), "20": 0}
    elsewhere, _ = corrections.cross_fitted(synthetic.blind, "prototypes")
    assert inside["overall"] == pytest.approx(float((elsewhere == labels).double().mean()))


def test_draws_measure_the_change_on_the_drawn_images(synthetic):
    table = prior_shift.draws(synthetic.blind, synthetic.labels, seed=0, n_draws=2)
    assert len(table) == len(prior_shift.KINDS) * 2 * 3
    kept = F.with_frequencies(synthetic.labels, torch.full((CLASSES,), 1 / CLASSES).double(), 1)
    x, y = synthetic.image_features[kept], synthetic.labels[kept]
    matched = F.fit_prior_matching(x, synthetic.base_text_features, synthetic.logit_scale)
    right = [float((p == y).double().mean()) for p in (predict(x, synthetic.base_text_features), matched.predict(x))]
    row = table[(table["kind"] == "balanced") & (table["draw"] == 1) & (table["method"] == "prior matching")]
    assert float(row["change"].iloc[0]) == pytest.approx(right[1] - right[0])


def test_sizes_judge_on_images_outside_the_reference(synthetic):
    assert prior_shift.reference_counts(synthetic.labels) == [1, 2, 5, 10, 20, 30]
    assert prior_shift.reference_counts(torch.arange(3)) == [1]
    rows = prior_shift.sizes(synthetic.blind, synthetic.labels, [5], seed=0)
    reference = F.few_per_class(synthetic.labels, 5, 0)
    others = np.setdiff1d(np.arange(IMAGES), reference.numpy())
    matched = F.fit_prior_matching(
        synthetic.image_features[reference], synthetic.base_text_features, synthetic.logit_scale
    )
    hit = matched.predict(synthetic.image_features[others]) == synthetic.labels[others]
    assert rows[0]["overall"] == pytest.approx(float(hit.double().mean()))
    assert [row["method"] for row in rows] == ["prior matching", "prototypes"]


def test_strength_zero_is_the_plain_classifier(synthetic):
    rows = prior_shift.strengths(synthetic.blind, synthetic.labels, [0.0, 1.0])
    plain = F.class_accuracy(predict(synthetic.image_features, synthetic.base_text_features), synthetic.labels, CLASSES)
    assert rows[0]["overall"] == plain.overall
    assert rows[2]["overall"] > plain.overall


def test_the_price_of_a_large_study_is_measured_on_some_of_its_classes(synthetic, monkeypatch):
    n, n_classes = len(synthetic.labels), synthetic.n_classes
    whole, labels = prior_shift.part_of_classes(synthetic, synthetic.labels)
    assert whole is synthetic
    assert labels is synthetic.labels
    monkeypatch.setattr(prior_shift, "PRICE_SIMILARITIES", n * n_classes // 3)
    part, own = prior_shift.part_of_classes(synthetic, synthetic.labels)
    assert (part.labels, part.pictures, part.disambiguated) == (None, None, None)
    assert 2 <= part.n_classes < n_classes
    assert len(own) * part.n_classes <= n * n_classes // 3
    classes = torch.tensor([synthetic.classnames.index(name) for name in part.classnames])
    kept = torch.isin(synthetic.labels, classes)  # all images of these classes, and no other
    assert part.image_features.equal(synthetic.image_features[kept])
    assert classes[own].equal(synthetic.labels[kept])
    assert part.base_text_features.equal(synthetic.base_text_features[classes])
    assert prior_shift.part_of_classes(synthetic, synthetic.labels)[0].classnames == part.classnames
    assert part.study.llm == "recorded"  # its suspects are others: nothing is asked for them
    assert price.measured_on(part, synthetic) != price.measured_on(synthetic, synthetic) == ""


def test_plain_scores_are_those_of_the_base_prompt(synthetic):
    plain = F.predict(synthetic.image_features, synthetic.base_text_features)
    accuracy = F.class_accuracy(plain, synthetic.labels, synthetic.n_classes)
    scores = prior_shift.plain_scores(synthetic.blind, synthetic.labels)
    assert scores["overall"] == accuracy.overall
    assert scores["worst_10"] == F.worst_at_k(accuracy.value, 10)


def test_which_classes_the_price_is_measured_on_does_not_hang_on_their_order(synthetic, monkeypatch):
    monkeypatch.setattr(prior_shift, "PRICE_SIMILARITIES", len(synthetic.labels) * synthetic.n_classes // 3)
    order = torch.randperm(
        synthetic.n_classes, generator=torch.Generator().manual_seed(1)
    )  # old class of every new one
    other = dataclasses.replace(
        synthetic,
        labels=order.argsort()[synthetic.labels],
        classnames=synthetic.names(order),
        base_text_features=synthetic.base_text_features[order],
        text_features=synthetic.text_features[:, order],
    )
    parts = [prior_shift.part_of_classes(run, run.labels) for run in (synthetic, other)]
    assert set(parts[0][0].classnames) == set(parts[1][0].classnames)
    assert parts[0][0].image_features.equal(parts[1][0].image_features)
    names = [[part.classnames[c] for c in labels.tolist()] for part, labels in parts]
    assert names[0] == names[1]
