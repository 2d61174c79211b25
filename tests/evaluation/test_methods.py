"""What is done with a run: suspects, replayed answers, every classifier that is compared, and its rows."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import by_name, near_texts, opened, unit, write_embeddings
from synthetic_embeddings import CLASSES, IMAGES, synthetic_arrays

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.evaluation import methods
from cmmlib.evaluation.methods import compare_methods
from cmmlib.functional.candidates import Candidates, candidate_cmm
from cmmlib.functional.similarity import similarity_pass
from cmmlib.study import enrich
from cmmlib.study.run import Run
from cmmlib.texts import llm
from cmmlib.texts.enrichment import Enrichment
from cmmlib.texts.transcripts import Record
from cmmlib.texts.waffle import waffle_texts

NEED_POOL = ["uniform", "zpe", "autoclip", "carprt", "cmm_templates", "cmm_global"]
CORRECTED = ["enriched_cmm_prior", "enriched_cmm_prototypes"]
ENRICHED = [
    *("enriched_replace", "enriched_uniform", "enriched_balanced", "enriched_carprt"),
    *("enriched_cmm_unbalanced", "enriched_cmm_first"),
    *("enriched_cmm", *CORRECTED, "enriched_fitted", "enriched_fitted_prior"),
]
ANSWER = ("It is round.", "It is grey.", "It has a rim.", "It lies on sand.")


# ---------------------------------------------------------------- suspects and questions


def test_suspects_are_the_classes_of_lowest_cmm_under_the_base_prompt(synthetic):
    score = F.class_matching_margin(
        similarity_pass(synthetic.image_features, synthetic.base_text_features[None], synthetic.logit_scale)
    )[0].tolist()
    order = sorted(range(CLASSES), key=lambda c: score[c])
    assert enrich.suspects(synthetic.blind) == order[:3]  # a quarter of 12
    assert enrich.suspects(synthetic.blind, 5) == order[:5]
    assert enrich.suspects(synthetic.blind, CLASSES) == order


def test_a_study_may_say_how_many_are_described(tmp_path):
    run = opened(write_embeddings(tmp_path / "x.npz"), n_described=7)
    assert len(enrich.suspects(run.blind)) == 7


@pytest.mark.parametrize("question", ["describe", "contrast"])
def test_questions_name_the_rivals_only_in_contrast(tmp_path, question):
    run = opened(write_embeddings(tmp_path / "x.npz"))
    asked = {"question": question, "domain": "made-up vectors"}
    run = replace(run, study=run.study.model_copy(update=asked))
    asked = enrich.questions(run.blind, [5, 1])
    assert list(asked) == [5, 1]
    rivals = F.top_rivals(run.image_features, run.base_text_features, run.logit_scale)
    for c, one in asked.items():
        assert (one.class_name, one.domain, one.style) == (run.classnames[c], "made-up vectors", question)
        assert list(one.rivals) == ([run.classnames[r] for r in rivals[c]] if question == "contrast" else [])
        assert one.class_name not in one.rivals


# ---------------------------------------------------------------- contenders of an embeddings file


def test_heads_without_a_text_tower_are_compared_in_every_way_that_needs_none(synthetic):
    found = by_name(compare_methods(synthetic.blind, {}))
    assert list(found) == ["base", *NEED_POOL]
    assert all(one.label_free for one in found.values())
    assert {one.requests for one in found.values()} == {0}
    assert [name for name, one in found.items() if one.classifier is None] == ["autoclip"]
    for name, one in found.items():
        assert one.prediction.shape == (IMAGES,)
        if one.classifier is not None:
            np.testing.assert_allclose(one.classifier.norm(dim=1), 1, atol=1e-5, err_msg=name)
            s = synthetic.image_features.double().numpy() @ one.classifier.double().numpy().T
            best = s[np.arange(IMAGES), one.prediction.numpy()]
            assert (best >= s.max(1) - 1e-6).all(), name
    assert found["base"].classifier.equal(synthetic.base_text_features)


def test_one_prompt_alone_leaves_nothing_to_weigh(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", text_features=synthetic_arrays()["text_features"][0], prompts=None)
    run = opened(data)
    assert list(by_name(compare_methods(run.blind, {}))) == ["base"]
    found = by_name(compare_methods(run.blind, near_texts(run, {1: 4})))
    assert list(found) == ["base", *ENRICHED]
    assert [one.requests for one in found.values()] == [0] + [1] * len(ENRICHED)


def test_descriptions_add_ways_that_cost_as_many_requests(synthetic):
    described = near_texts(synthetic, {1: 4, 3: 2, 10: 6})
    found = by_name(compare_methods(synthetic.blind, described))
    assert list(found) == ["base", *NEED_POOL, *ENRICHED]
    assert {name: one.requests for name, one in found.items() if one.requests} == dict.fromkeys(ENRICHED, 3)
    others = [c for c in range(CLASSES) if c not in described]
    replaced, flat, balanced, _, _, first, weighted = (found[name].classifier for name in ENRICHED[:7])
    assert replaced[others].equal(synthetic.base_text_features[others])
    uniform = F.uniform_mean(synthetic.text_features)
    torch.testing.assert_close(flat[others], uniform[others])
    mean = torch.cat([synthetic.text_features[:, 3], described[3]]).mean(0)
    torch.testing.assert_close(flat[3], torch.nn.functional.normalize(mean, dim=0))
    assert not torch.allclose(weighted[3], found["cmm_templates"].classifier[3], atol=1e-3)
    halves = synthetic.text_features[:, 3].mean(0) + described[3].mean(0)  # half for the templates, half for the others
    torch.testing.assert_close(balanced[3], torch.nn.functional.normalize(halves, dim=0))
    one = {c: vectors[:1] for c, vectors in described.items()}
    alone = by_name(compare_methods(synthetic.blind, one))["enriched_cmm"].classifier
    torch.testing.assert_close(first, alone)


def test_fitted_weights_are_those_of_transclip_s_images_or_of_prototypes_with_their_prior(synthetic):
    described = near_texts(synthetic, {1: 4, 3: 2, 10: 6})
    found = by_name(compare_methods(synthetic.blind, described))
    candidates = Candidates.of_templates(synthetic.text_features).with_descriptions(described)
    x, scale = synthetic.image_features, synthetic.logit_scale
    assigned = lambda texts: torch.eye(CLASSES)[F.transclip(x, texts, scale)]  # noqa: E731
    torch.testing.assert_close(found["enriched_fitted"].classifier, F.fitted_ensemble(x, candidates, scale, assigned))
    matched = F.fit_prior_matching(x, F.fitted_ensemble(x, candidates, scale), scale)
    assert found["enriched_fitted_prior"].prediction.equal(matched.predict(x))
    assert found["enriched_fitted_prior"].correction.bias.equal(matched.bias)


def test_candidates_are_measured_against_the_uniform_mean_of_the_templates(synthetic):
    candidates = Candidates.of_templates(synthetic.text_features).with_descriptions(near_texts(synthetic, {3: 6}))
    uniform = F.uniform_mean(synthetic.text_features)
    found = methods.weighted_ensemble(synthetic.blind, candidates, temperature=2.0, cut=None, rounds=1)
    score = candidate_cmm(synthetic.image_features, candidates, uniform, synthetic.logit_scale)
    weights = F.weigh_candidates(candidates, score, temperature=2.0, cut=None)
    torch.testing.assert_close(found, F.combine_candidates(candidates, weights), rtol=0, atol=1e-7)
    score = candidate_cmm(synthetic.image_features, candidates, synthetic.base_text_features, synthetic.logit_scale)
    other = F.combine_candidates(candidates, F.weigh_candidates(candidates, score, temperature=2.0, cut=None))
    assert not torch.allclose(found, other, atol=1e-4)


def test_weights_of_whole_templates_make_one_classifier(synthetic):
    found = by_name(compare_methods(synthetic.blind, {}))
    heads = synthetic.text_features.double().numpy()
    zpe = F.zpe(synthetic.image_features, synthetic.text_features, synthetic.logit_scale)
    score = F.class_matching_margin(
        similarity_pass(synthetic.image_features, synthetic.text_features, synthetic.logit_scale)
    )
    for name, weights in (("zpe", zpe), ("cmm_global", F.weigh_prompts(synthetic.text_features, score))):
        expected = sum(float(w) * head for w, head in zip(weights, heads, strict=True))
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found[name].classifier, expected, atol=1e-5, err_msg=name)


def test_the_base_row_predicts_as_chapter_1_does(tmp_path):
    texts = synthetic_arrays()["text_features"]
    texts[:, 11] = texts[:, 0]
    run = opened(write_embeddings(tmp_path / "x.npz", text_features=texts))
    passed = similarity_pass(run.image_features, run.base_text_features[None], run.logit_scale)
    assert by_name(compare_methods(run.blind, {}))["base"].prediction.equal(passed.prediction[0].long())


# ---------------------------------------------------------------- labels


STEPS = {
    enrich: ["suspects", "questions", "enrich", "ask", "enrich_all", "encode_descriptions"],
    methods: ["compare_methods", "record_classifiers", "weighted_ensemble"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in STEPS for name in STEPS[module]])
def test_no_step_takes_a_run_with_labels(synthetic, module, name):
    with pytest.raises(TypeError, match=f"{name} takes no labels: pass run.blind"):
        getattr(module, name)(synthetic)


@pytest.mark.parametrize("module", STEPS)
def test_every_step_that_takes_a_run_is_guarded(module):
    public = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    taking = [f for f in public if "run" in inspect.signature(f).parameters and not f.__name__.startswith("_")]
    assert sorted(f.__name__ for f in taking) == sorted(STEPS[module])
    assert not [f for f in public if "labels" in inspect.signature(f).parameters]


def test_a_blind_run_differs_in_its_labels_alone(synthetic):
    blind = synthetic.blind
    assert blind.labels is None
    assert synthetic.labels is not None
    assert blind.image_features is synthetic.image_features
    assert blind.id == synthetic.id


def test_an_ensemble_that_is_there_is_not_computed_again(synthetic, monkeypatch):
    described, ready = near_texts(synthetic, {1: 4}), unit(CLASSES, synthetic.base_text_features.shape[1])
    found = by_name(compare_methods(synthetic.blind, described, ready))
    assert found["enriched_cmm"].classifier.equal(ready)
    assert not found["cmm_templates"].classifier.equal(ready)
    assert by_name(compare_methods(synthetic.blind, {}, ready))["cmm_templates"].classifier.equal(ready)


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
    found = enrich.enrich(run.blind, [3, 1, 0])
    assert isinstance(found, Enrichment)
    assert found.asked == [3, 1, 0]
    assert found.descriptions == {1: list(ANSWER), 0: list(ANSWER)}
    assert found.missing == [3]
    assert found.failed == {}
    assert enrich.enrich(run.blind).asked == enrich.suspects(run.blind)
    assert enrich.enrich_all(run.blind).missing == [2, 3]


def test_descriptions_are_encoded_class_by_class(towered, monkeypatch):
    run = towered(2)
    enrichment = Enrichment([1, 3], {}, {3: list(ANSWER[:3]), 1: list(ANSWER[1:3])})
    found = enrich.encode_descriptions(run.blind, enrichment)
    assert {c: v.shape for c, v in found.items()} == {
        3: (3, run.base_text_features.shape[1]),
        1: (2, run.base_text_features.shape[1]),
    }
    torch.testing.assert_close(found[1], run.encode(ANSWER[1:3]))
    torch.testing.assert_close(found[3], run.encode(ANSWER[:3]))
    monkeypatch.setattr(Run, "encode", lambda *_: pytest.fail("nothing to encode"))
    assert enrich.encode_descriptions(run.blind, Enrichment([1], {})) == {}


WITH_TOWER = [
    "base",
    "class_name",
    "uniform",
    "zpe",
    "autoclip",
    "carprt",
    "waffle",
    "cmm_templates",
    "cmm_global",
]


def test_a_text_tower_adds_the_rows_that_need_one(towered):
    run = towered(2)
    assert list(by_name(compare_methods(run.blind, {}))) == WITH_TOWER
    found = by_name(compare_methods(run.blind, enrich.encode_descriptions(run.blind, enrich.enrich(run.blind, [0, 1]))))
    assert list(found) == [*WITH_TOWER, *ENRICHED]
    assert [found[name].requests for name in ENRICHED] == [2] * len(ENRICHED)
    torch.testing.assert_close(found["class_name"].classifier, run.encode(run.classnames))
    words = waffle_texts(run.classnames, seed=run.study.seed)
    vectors = torch.stack([run.encode(texts) for texts in words])
    torch.testing.assert_close(found["waffle"].classifier, F.uniform_mean(vectors), rtol=0, atol=1e-5)


def test_one_template_with_a_text_tower_leaves_the_pool_out(towered, tmp_path):
    (tmp_path / "one.txt").write_text("a drawing of a {}.\n")
    run = towered(1, templates=str(tmp_path / "one.txt"))
    assert list(by_name(compare_methods(run.blind, {}))) == ["base", "class_name", "waffle"]


def test_all_are_described_only_where_every_class_has_an_answer(towered):
    run = towered(4)
    found = by_name(compare_methods(run.blind, {}))
    assert list(found) == [*WITH_TOWER, "describe_all"]
    assert found["describe_all"].requests == 4
    mean = torch.nn.functional.normalize(run.encode(ANSWER).mean(0), dim=0)
    torch.testing.assert_close(found["describe_all"].classifier, mean.expand(4, -1), rtol=0, atol=1e-6)
    assert found["describe_all"].prediction.eq(0).all()  # all alike: the lowest index
    assert "describe_all" not in by_name(compare_methods(towered(3).blind, {}))


def test_a_model_is_asked_again_where_its_recorded_answer_is_unusable(towered, monkeypatch):
    run = towered(1, {"model": "this/model", "answer": ("One.", "one")}, llm="this/model")
    good = Record(run.classnames[0], "toys", "describe", (), ANSWER, model="this/model")
    monkeypatch.setattr(llm, "ask", lambda questions, *_: (dict.fromkeys(questions, good), {}, llm.Spent()))
    found = enrich.enrich(run.blind, [0])
    assert found.descriptions == {0: list(ANSWER)}
    assert found.failed == {}


@pytest.mark.parametrize("answered_by", ["this/model", "another/model"])
def test_a_named_model_is_asked_only_for_what_it_has_not_answered(towered, monkeypatch, answered_by):
    run = towered(2, {"model": answered_by}, llm="this/model", max_requests=9)
    asked: list[list[int]] = []

    def ask(questions, session, fits_context):
        asked.append(list(questions))
        assert (session.model, session.budget.max_requests) == ("this/model", 9)
        assert session.transcript == Path(run.study.transcript)
        names = {c: q.class_name for c, q in questions.items()}
        given = {
            c: Record(n, "toys", "describe", (), ANSWER[1:], model="this/model") for c, n in names.items() if c != 3
        }
        return given, {3: "no JSON"} if 3 in questions else {}, llm.Spent()

    monkeypatch.setattr(llm, "ask", ask)
    found = enrich.enrich(run.blind, [0, 2, 3])
    has_first = answered_by == "this/model"
    assert asked == [[2, 3] if has_first else [0, 2, 3]]
    assert found.descriptions == {0: list(ANSWER if has_first else ANSWER[1:]), 2: list(ANSWER[1:])}
    assert found.failed == {3: "no JSON"}
    if has_first:
        assert list(enrich.enrich(run.blind, [1, 0]).descriptions) == [1, 0]
        assert len(asked) == 1  # nothing was left to ask


def test_an_embeddings_study_has_no_tower_to_encode_with(synthetic):
    with pytest.raises(InputError, match="no text tower"):
        enrich.encode_descriptions(synthetic.blind, Enrichment([0], {}, {0: list(ANSWER)}))
