"""What is done with a run: suspects, replayed answers, every classifier that is compared, and its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import write_embeddings
from synthetic_embeddings import CLASSES, IMAGES, synthetic_arrays

from cmmlib import InputError, Study, baselines, cmm, ensemble, llm, metrics, open_run, repair
from cmmlib.enrich import Enrichment, Record
from cmmlib.repair import Contender, contenders, ensemble_rows, predict
from cmmlib.run import Run
from cmmlib.similarity import match

NEED_POOL = ["uniform", "zpe", "autoclip", "cmm_templates", "cmm_global"]
ENRICHED = ["enriched_replace", "enriched_uniform", "enriched_cmm"]
ANSWER = ("It is round.", "It is grey.", "It has a rim.", "It lies on sand.")


def opened(dataset: str, **parameters: Any) -> Run:
    return open_run(Study.of({"dataset": dataset, **parameters}))


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.fixture
def synthetic(tmp_path) -> Run:
    return opened(write_embeddings(tmp_path / "x.npz"))


def near_texts(run: Run, sizes: dict[int, int]) -> dict[int, torch.Tensor]:
    """Made-up descriptions: so many vectors around the class's text."""
    width = run.base.shape[1]
    vectors = {c: run.base[c] + 0.5 * unit(k, width, seed=c) for c, k in sizes.items()}
    return {c: torch.nn.functional.normalize(v, dim=1) for c, v in vectors.items()}


def by_name(found: list[Contender]) -> dict[str, Contender]:
    assert len({contender.name for contender in found}) == len(found)
    return {contender.name: contender for contender in found}


# ---------------------------------------------------------------- suspects and questions


def test_suspects_are_the_classes_of_lowest_cmm_under_the_base_prompt(synthetic):
    score = cmm.cmm(match(synthetic.images, synthetic.base[None], synthetic.logit_scale))[0].tolist()
    order = sorted(range(CLASSES), key=lambda c: score[c])
    assert repair.suspects(synthetic) == order[:3]  # a quarter of 12
    assert repair.suspects(synthetic, 5) == order[:5]
    assert repair.suspects(synthetic, CLASSES) == order


def test_a_study_may_say_how_many_are_described(tmp_path):
    run = opened(write_embeddings(tmp_path / "x.npz"), n_described=7)
    assert len(repair.suspects(run)) == 7


@pytest.mark.parametrize("question", ["describe", "contrast"])
def test_questions_name_the_rivals_only_in_contrast(tmp_path, question):
    run = opened(write_embeddings(tmp_path / "x.npz"), question=question, domain="made-up vectors")
    asked = repair.questions(run, [5, 1])
    assert list(asked) == [5, 1]
    rivals = cmm.top_rivals(run.images, run.base, run.logit_scale).tolist()
    for c, one in asked.items():
        assert (one.class_name, one.domain, one.style) == (run.classnames[c], "made-up vectors", question)
        assert list(one.rivals) == ([run.classnames[r] for r in rivals[c]] if question == "contrast" else [])
        assert one.class_name not in one.rivals


# ---------------------------------------------------------------- contenders of an embeddings file


def test_heads_without_a_text_tower_are_compared_in_every_way_that_needs_none(synthetic):
    found = by_name(contenders(synthetic, {}))
    assert list(found) == ["base", "best_template", *NEED_POOL]
    assert [name for name, one in found.items() if not one.label_free] == ["best_template"]
    assert {one.requests for one in found.values()} == {0}
    assert [name for name, one in found.items() if one.classifier is None] == ["autoclip"]
    for name, one in found.items():
        assert one.prediction.shape == (IMAGES,)
        if one.classifier is not None:
            np.testing.assert_allclose(one.classifier.norm(dim=1), 1, atol=1e-5, err_msg=name)
            s = synthetic.images.double().numpy() @ one.classifier.double().numpy().T
            best = s[np.arange(IMAGES), one.prediction.numpy()]
            assert (best >= s.max(1) - 1e-6).all(), name
    assert found["base"].classifier.equal(synthetic.base)


def test_one_prompt_alone_leaves_nothing_to_weigh(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", text_features=synthetic_arrays()["text_features"][0], prompts=None)
    run = opened(data)
    assert list(by_name(contenders(run, {}))) == ["base"]
    found = by_name(contenders(run, near_texts(run, {1: 4})))
    assert list(found) == ["base", *ENRICHED]
    assert [one.requests for one in found.values()] == [0, 1, 1, 1]


def test_without_labels_there_is_no_best_template(tmp_path):
    run = opened(write_embeddings(tmp_path / "x.npz", labels=None))
    assert list(by_name(contenders(run, {}))) == ["base", *NEED_POOL]


def test_descriptions_add_three_ways_that_cost_as_many_requests(synthetic):
    described = near_texts(synthetic, {1: 4, 3: 2, 10: 6})
    found = by_name(contenders(synthetic, described))
    assert list(found) == ["base", "best_template", *NEED_POOL, *ENRICHED]
    assert {name: one.requests for name, one in found.items() if one.requests} == dict.fromkeys(ENRICHED, 3)
    others = [c for c in range(CLASSES) if c not in described]
    replaced, flat, weighted = (found[name].classifier for name in ENRICHED)
    assert replaced[others].equal(synthetic.base[others])
    uniform = baselines.uniform_mean(synthetic.heads)
    torch.testing.assert_close(flat[others], uniform[others])
    mean = torch.cat([synthetic.heads[:, 3], described[3]]).mean(0)
    torch.testing.assert_close(flat[3], torch.nn.functional.normalize(mean, dim=0))
    assert not torch.allclose(weighted[3], found["cmm_templates"].classifier[3], atol=1e-3)


def test_candidates_are_measured_against_the_uniform_mean_of_the_templates(synthetic):
    candidates = ensemble.Candidates.of_templates(synthetic.heads).with_descriptions(near_texts(synthetic, {3: 6}))
    uniform = baselines.uniform_mean(synthetic.heads)
    found = repair.weighted_ensemble(synthetic, candidates, temperature=2.0, cut=None, rounds=1)
    score = ensemble.candidate_cmm(synthetic.images, candidates, uniform, synthetic.logit_scale)
    weights = ensemble.weigh(candidates, score, temperature=2.0, cut=None)
    torch.testing.assert_close(found, ensemble.combine(candidates, weights), rtol=0, atol=1e-7)
    score = ensemble.candidate_cmm(synthetic.images, candidates, synthetic.base, synthetic.logit_scale)
    other = ensemble.combine(candidates, ensemble.weigh(candidates, score, temperature=2.0, cut=None))
    assert not torch.allclose(found, other, atol=1e-4)


def test_weights_of_whole_templates_make_one_classifier(synthetic):
    found = by_name(contenders(synthetic, {}))
    heads = synthetic.heads.double().numpy()
    zpe = baselines.zpe(synthetic.images, synthetic.heads, synthetic.logit_scale)
    score = cmm.cmm(match(synthetic.images, synthetic.heads, synthetic.logit_scale))
    for name, weights in (("zpe", zpe), ("cmm_global", ensemble.weigh_globally(synthetic.heads, score))):
        expected = sum(float(w) * head for w, head in zip(weights, heads, strict=True))
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found[name].classifier, expected, atol=1e-5, err_msg=name)


def test_the_best_template_is_the_one_of_highest_accuracy(synthetic):
    found = by_name(contenders(synthetic, {}))["best_template"]
    labels = synthetic.labels.numpy()
    s = [synthetic.images.double().numpy() @ head.double().numpy().T for head in synthetic.heads]
    accuracy = [(one.argmax(1) == labels).mean() for one in s]
    assert accuracy[0] != accuracy[1]
    assert found.classifier.equal(synthetic.heads[int(np.argmax(accuracy))])
    assert (found.prediction.numpy() == labels).mean() == pytest.approx(max(accuracy), abs=2e-3)


def test_labels_reach_the_best_template_alone(synthetic, tmp_path):
    labels = synthetic.labels.numpy()
    wrong = (labels + 1 + np.arange(IMAGES) // CLASSES % 5) % CLASSES
    other = opened(write_embeddings(tmp_path / "y.npz", labels=wrong))
    described = near_texts(synthetic, {1: 4, 3: 2})
    one, two = (by_name(contenders(run, described)) for run in (synthetic, other))
    assert list(one) == list(two)
    for name, contender in one.items():
        if name == "best_template":
            continue
        assert contender.label_free
        assert contender.prediction.equal(two[name].prediction), name
        assert contender.classifier is None or contender.classifier.equal(two[name].classifier), name
    assert repair.suspects(synthetic) == repair.suspects(other)
    assert repair.questions(synthetic, [1, 2]) == repair.questions(other, [1, 2])


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (200, 6), (9000, 3)])
def test_a_prediction_is_the_class_of_highest_similarity(n, n_classes):
    images, classifier = unit(n, 12), unit(n_classes, 12, seed=1)
    s = images.double().numpy() @ classifier.double().numpy().T
    found = predict(images, classifier).numpy()
    assert (s[np.arange(n), found] >= s.max(1) - 1e-6).all()


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (200, 3), (500, 65)])
def test_a_tie_goes_to_the_lowest_index(n, n_classes):
    """A product in blocks may give equal texts different last bits; predictions must not be split by them."""
    images, classifier = unit(n, 48), unit(n_classes, 48, seed=1)
    found = predict(images, torch.cat([classifier, classifier]))
    assert found.max() < n_classes
    assert found.equal(predict(images, classifier))
    assert predict(images.half(), torch.cat([classifier[:1]] * 3)).eq(0).all()


def test_the_base_row_predicts_as_chapter_1_does(tmp_path):
    texts = synthetic_arrays()["text_features"]
    texts[:, 11] = texts[:, 0]
    run = opened(write_embeddings(tmp_path / "x.npz", text_features=texts))
    matches = match(run.images, run.base[None], run.logit_scale)
    assert by_name(contenders(run, {}))["base"].prediction.equal(matches.prediction[0].long())


# ---------------------------------------------------------------- rows


FIELDS = [
    *("name", "label_free", "overall", "overall_interval", "worst", "worst_split_half", "base_worst"),
    *("zero_classes", "requests"),
]


@pytest.fixture
def judged(tmp_path) -> tuple[Run, list[Contender]]:
    """Contenders of chosen accuracies; class 11 has no image."""
    labels = np.where(synthetic_arrays()["labels"] == 11, 10, synthetic_arrays()["labels"])
    run = opened(write_embeddings(tmp_path / "x.npz", labels=labels))
    random = np.random.default_rng(0)
    found = []
    for i, share in enumerate((0.9, 0.5)):
        hit = random.random(IMAGES) < share * (labels + 1) / CLASSES
        prediction = np.where(hit & (labels != 4), labels, (labels + 1) % CLASSES)
        found.append(Contender(f"way {i}", torch.from_numpy(prediction), label_free=i == 0, requests=7 * i))
    return run, found


def test_rows_equal_a_direct_computation(judged):
    run, found = judged
    labels = run.labels.numpy()
    followed = {10: torch.tensor([4, 0, 2]), 20: torch.tensor([], dtype=torch.long)}
    rows = ensemble_rows(run, found, followed)
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
        assert row["base_worst"] == {"10": pytest.approx(accuracy[[4, 0, 2]].mean()), "20": None}
        assert row["zero_classes"] == (accuracy == 0).sum() >= 1
        p, n, z = hit.mean(), len(hit), 1.959964
        middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        wilson = [(middle + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
        assert list(row["overall_interval"]) == pytest.approx(wilson, abs=1e-6)
        halves = metrics.worst_split_half(torch.from_numpy(hit), run.labels, CLASSES, [1, 5, 10, 20], run.study.seed)
        assert list(row["worst_split_half"].values()) == halves
        assert list(row["worst_split_half"]) == ["1", "5", "10", "20"]
        assert halves[1] >= row["worst"]["5"]
        json.dumps(row, allow_nan=False)


def test_flat_rows_have_a_column_for_every_k(judged):
    run, found = judged
    rows = ensemble_rows(run, found, {10: torch.tensor([4, 0]), 20: torch.tensor([4])})
    table = repair.flat_rows(rows)
    many = [f"{name}_{k}" for name in ("worst", "worst_split_half") for k in (1, 5, 10, 20)]
    many += ["base_worst_10", "base_worst_20"]
    plain = ["name", "label_free", "overall", "overall_low", "overall_high", "zero_classes", "requests"]
    assert list(table.columns) == [*plain, *many]
    assert table["name"].tolist() == ["way 0", "way 1"]
    for row, line in zip(rows, table.to_dict("records"), strict=True):
        assert (line["overall_low"], line["overall_high"]) == row["overall_interval"]
        assert line["worst_5"] == row["worst"]["5"]
        assert line["base_worst_20"] == row["base_worst"]["20"]


# ---------------------------------------------------------------- what descriptions change


def test_one_class_replaced_alone_equals_a_whole_new_classifier(synthetic):
    described = near_texts(synthetic, {1: 4, 3: 1, 5: 3, 10: 6})
    rivals = {1: 0, 3: 2, 5: 4, 10: 1}
    found = repair.replaced_alone(synthetic, described, rivals)
    assert list(found) == [1, 3, 5, 10]
    images, base, labels = synthetic.images.double().numpy(), synthetic.base.double().numpy(), synthetic.labels.numpy()
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
    found = repair.replaced_alone(run, near_texts(run, {11: 2, 3: 2}), {11: 3, 3: 11})
    assert list(found) == [3]
    own_before, own_after, *rival = found[3]
    assert 0 <= own_before <= 1
    assert 0 <= own_after <= 1
    assert np.isnan(rival).all()


def direct_scores(run: Run, classifier: torch.Tensor) -> tuple[float, float]:
    """Overall and worst-10."""
    labels = run.labels.numpy()
    hit = (run.images.double().numpy() @ classifier.double().numpy().T).argmax(1) == labels
    return hit.mean(), np.sort([hit[labels == c].mean() for c in range(CLASSES)])[:10].mean()


def test_the_curve_describes_the_first_of_the_ranking(synthetic):
    everything, ranking = near_texts(synthetic, dict.fromkeys(range(1, CLASSES), 3)), [5, 0, 1, *range(6, 12)]
    rows = repair.described_curve(synthetic, everything, ranking, [0, 3])
    assert [(row["count"], row["method"]) for row in rows] == [
        (count, method) for count in (0, 3) for method in ("CMM weights", "uniform", "in place of the name")
    ]
    part = {5: everything[5], 1: everything[1]}  # class 0 has no description
    candidates = ensemble.Candidates.of_templates(synthetic.heads).with_descriptions(part)
    expected = [
        repair.weighted_ensemble(synthetic, candidates),
        ensemble.combine(candidates, ensemble.uniform(candidates)),
        ensemble.replace_classes(synthetic.base, part),
    ]
    for row, classifier in zip(rows[3:], expected, strict=True):
        assert (row["overall"], row["worst_10"]) == pytest.approx(direct_scores(synthetic, classifier), abs=2e-3)
    assert (rows[2]["overall"], rows[2]["worst_10"]) == pytest.approx(
        direct_scores(synthetic, synthetic.base), abs=2e-3
    )


def test_the_ablation_changes_one_part_at_a_time(synthetic):
    described = near_texts(synthetic, {1: 3, 3: 2})
    rows = repair.ablation(synthetic, described)
    assert [row["version"] for row in rows] == [
        *("as it is", "templates only", "descriptions only, in the described classes"),
        *("uniform weights, groups balanced", "uniform weights", "CMM weights, groups not balanced"),
        *("nothing cut", "retrieval assignment", "1 description a class", "2 descriptions a class"),
    ]
    found = by_name(contenders(synthetic, described))
    scores = {row["version"]: row for row in rows}
    same = {"as it is": "enriched_cmm", "templates only": "cmm_templates", "uniform weights": "enriched_uniform"}
    labels = synthetic.labels
    base = metrics.class_accuracy(found["base"].prediction, labels, CLASSES).value
    worst = base.argsort(stable=True)[:10]
    for version, name in same.items():
        accuracy = metrics.class_accuracy(found[name].prediction, labels, CLASSES)
        row = scores[version]
        assert row["overall"] == accuracy.overall
        assert row["worst_10"] == metrics.worst_at_k(accuracy.value, 10)
        assert row["base_worst_10"] == pytest.approx(float(accuracy.value[worst].mean()))


def test_descriptions_alone_leave_other_classes_with_the_uniform_mean(synthetic):
    uniform, described = baselines.uniform_mean(synthetic.heads), near_texts(synthetic, {1: 1, 3: 5})
    found = repair._descriptions_only(synthetic, described, uniform)
    others = [c for c in range(CLASSES) if c not in described]
    torch.testing.assert_close(found[others], uniform[others])
    torch.testing.assert_close(found[1], described[1][0])
    vectors, weights = described[3].double(), torch.linalg.lstsq(described[3].double().T, found[3].double()[:, None])
    assert (weights.solution > -1e-5).all()  # a weighted sum of the class's descriptions and nothing else
    torch.testing.assert_close(vectors.T @ weights.solution[:, 0], found[3].double(), rtol=0, atol=1e-5)
    assert repair._descriptions_only(synthetic, {}, uniform).equal(uniform)


# ---------------------------------------------------------------- a text tower, and answers in a transcript


def write_transcript(path: Path, names: list[str], **known: Any) -> str:
    records = [
        Record(**{"class_name": n, "domain": "toys", "style": "describe", "rivals": (), "answer": ANSWER, **known})
        for n in names
    ]
    path.write_text("".join(record.line() + "\n" for record in records))
    return str(path)


@pytest.fixture
def towered(tmp_path, tiny_clip, image_folder):
    """Opens a run of the folder of images with a transcript that answers for the first `n` classes."""

    def open_with(n: int, known: dict[str, Any] | None = None, **parameters: Any) -> Run:
        names = opened(f"folder:{image_folder}", backbone=f"local-dir:{tiny_clip}").classnames
        transcript = write_transcript(tmp_path / "answers.jsonl", names[:n], **(known or {}))
        shared = {"backbone": f"local-dir:{tiny_clip}", "domain": "toys", "transcript": transcript}
        return opened(f"folder:{image_folder}", **shared, **parameters)

    return open_with


def test_recorded_answers_are_replayed_and_missing_classes_are_listed(towered):
    run = towered(2)
    found = repair.enrich(run, [3, 1, 0])
    assert isinstance(found, Enrichment)
    assert found.asked == [3, 1, 0]
    assert found.descriptions == {1: list(ANSWER), 0: list(ANSWER)}
    assert found.missing == [3]
    assert found.failed == {}
    assert repair.enrich(run).asked == repair.suspects(run)
    assert repair.enrich_all(run).missing == [2, 3]


def test_descriptions_are_encoded_class_by_class(towered, monkeypatch):
    run = towered(2)
    enrichment = Enrichment([1, 3], {}, {3: list(ANSWER[:3]), 1: list(ANSWER[1:3])})
    found = repair.encode_descriptions(run, enrichment)
    assert {c: v.shape for c, v in found.items()} == {3: (3, run.base.shape[1]), 1: (2, run.base.shape[1])}
    torch.testing.assert_close(found[1], run.encode(ANSWER[1:3]))
    torch.testing.assert_close(found[3], run.encode(ANSWER[:3]))
    monkeypatch.setattr(Run, "encode", lambda *_: pytest.fail("nothing to encode"))
    assert repair.encode_descriptions(run, Enrichment([1], {})) == {}


WITH_TOWER = [
    "base",
    "class_name",
    "best_template",
    "uniform",
    "zpe",
    "autoclip",
    "waffle",
    "cmm_templates",
    "cmm_global",
]


def test_a_text_tower_adds_the_rows_that_need_one(towered):
    run = towered(2)
    assert list(by_name(contenders(run, {}))) == WITH_TOWER
    found = by_name(contenders(run, repair.encode_descriptions(run, repair.enrich(run, [0, 1]))))
    assert list(found) == [*WITH_TOWER, *ENRICHED]
    assert [found[name].requests for name in ENRICHED] == [2, 2, 2]
    assert [name for name, one in found.items() if not one.label_free] == ["best_template"]
    torch.testing.assert_close(found["class_name"].classifier, run.encode(run.classnames))
    words = baselines.waffle_texts(run.classnames, seed=run.study.seed)
    vectors = torch.stack([run.encode(texts) for texts in words])
    torch.testing.assert_close(found["waffle"].classifier, baselines.uniform_mean(vectors), rtol=0, atol=1e-5)
    rows = ensemble_rows(run, list(found.values()), {10: torch.tensor([0])})
    assert [row["name"] for row in rows] == list(found)


def test_one_template_with_a_text_tower_leaves_the_pool_out(towered, tmp_path):
    (tmp_path / "one.txt").write_text("a drawing of a {}.\n")
    run = towered(1, templates=str(tmp_path / "one.txt"))
    assert list(by_name(contenders(run, {}))) == ["base", "class_name", "waffle"]


def test_all_are_described_only_where_every_class_has_an_answer(towered):
    run = towered(4)
    found = by_name(contenders(run, {}))
    assert list(found) == [*WITH_TOWER, "describe_all"]
    assert found["describe_all"].requests == 4
    mean = torch.nn.functional.normalize(run.encode(ANSWER).mean(0), dim=0)
    torch.testing.assert_close(found["describe_all"].classifier, mean.expand(4, -1), rtol=0, atol=1e-6)
    assert found["describe_all"].prediction.eq(0).all()  # all alike: the lowest index
    assert "describe_all" not in by_name(contenders(towered(3), {}))


def test_a_model_is_asked_again_where_its_recorded_answer_is_unusable(towered, monkeypatch):
    run = towered(1, {"model": "this/model", "answer": ("One.", "one")}, llm="this/model")
    good = Record(run.classnames[0], "toys", "describe", (), ANSWER, model="this/model")
    monkeypatch.setattr(llm, "ask", lambda questions, *_: (dict.fromkeys(questions, good), {}, llm.Spent()))
    found = repair.enrich(run, [0])
    assert found.descriptions == {0: list(ANSWER)}
    assert found.failed == {}


@pytest.mark.parametrize("answered_by", ["this/model", "another/model"])
def test_a_named_model_is_asked_only_for_what_it_has_not_answered(towered, monkeypatch, answered_by):
    run = towered(2, {"model": answered_by}, llm="this/model", max_requests=9)
    asked: list[list[int]] = []

    def ask(questions, session, fits):
        asked.append(list(questions))
        assert (session.model, session.budget.max_requests) == ("this/model", 9)
        assert session.transcript == Path(run.study.transcript)
        names = {c: q.class_name for c, q in questions.items()}
        given = {
            c: Record(n, "toys", "describe", (), ANSWER[1:], model="this/model") for c, n in names.items() if c != 3
        }
        return given, {3: "no JSON"} if 3 in questions else {}, llm.Spent()

    monkeypatch.setattr(llm, "ask", ask)
    found = repair.enrich(run, [0, 2, 3])
    has_first = answered_by == "this/model"
    assert asked == [[2, 3] if has_first else [0, 2, 3]]
    assert found.descriptions == {0: list(ANSWER if has_first else ANSWER[1:]), 2: list(ANSWER[1:])}
    assert found.failed == {3: "no JSON"}
    if has_first:
        assert list(repair.enrich(run, [1, 0]).descriptions) == [1, 0]
        assert len(asked) == 1  # nothing was left to ask


def test_an_embeddings_study_has_no_tower_to_encode_with(synthetic):
    with pytest.raises(InputError, match="no text tower"):
        repair.encode_descriptions(synthetic, Enrichment([0], {}, {0: list(ANSWER)}))


# ---------------------------------------------------------------- real embeddings


@pytest.mark.real
def test_weighing_two_pets_prompts_by_class_costs_little_of_the_better_one(real_data):
    run = opened(f"embeddings:{real_data / 'pets25_vitb32.npz'}")
    rows = {row["name"]: row for row in ensemble_rows(run, contenders(run, {}), {})}
    heads = [float((predict(run.images, head) == run.labels).double().mean()) for head in run.heads]
    assert rows["best_template"]["overall"] == pytest.approx(max(heads)) == pytest.approx(0.92066, abs=5e-6)
    assert rows["cmm_templates"]["overall"] >= max(heads) - 0.005
    assert rows["cmm_templates"]["overall"] >= rows["uniform"]["overall"]
