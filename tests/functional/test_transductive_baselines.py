"""Published corrections, against loops over images and classes in float64."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
from finished_runs import unit

from cmmlib import InputError
from cmmlib import functional as F
from cmmlib.data.embeddings import load_embeddings
from cmmlib.functional import graph_baselines, transductive_baselines
from cmmlib.functional.graph_baselines import transclip, zlap
from cmmlib.report.findings import unlabelled

SHAPES = [(1, 2), (9, 2), (4, 9), (31, 5), (60, 12)]  # images, classes
SCALE = 20.0
all_shapes = pytest.mark.parametrize(("n", "n_classes"), SHAPES)


def embedded(n: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    images, head = unit(n, 6), unit(n_classes, 6, seed=1)
    return images, head, images.double().numpy(), head.double().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def assert_best(found: torch.Tensor, scores: np.ndarray, slack: float = 1e-4) -> None:
    """The best class; where two are closer than float32 can tell, either."""
    assert found.dtype == torch.int64
    chosen = scores[np.arange(len(scores)), found.numpy()]
    assert (chosen >= scores.max(1) - slack).all()


@all_shapes
def test_centring_and_z_scores_equal_loops(n, n_classes):
    images, head, x, t = embedded(n, n_classes)
    s = np.array([[row @ text for text in t] for row in x])
    assert_best(F.mean_centred(images, head), s - s.mean(0))
    if n > 1:  # of one image every score is zero
        assert_best(F.z_scored(images, head), (s - s.mean(0)) / s.std(0))


@all_shapes
def test_label_shift_em_equals_loops(n, n_classes):
    images, head, x, t = embedded(n, n_classes)
    prior, q = np.full(n_classes, 1 / n_classes), softmax(SCALE * x @ t.T)
    for _ in range(100):
        posterior = q * prior
        posterior /= posterior.sum(1, keepdims=True)
        prior = posterior.mean(0)
    assert_best(F.label_shift_em(images, head, SCALE), q * prior)


@all_shapes
@pytest.mark.parametrize("rounds", [1, 11])
def test_frolic_equals_loops(n, n_classes, rounds):
    images, head, x, t = embedded(n, n_classes)
    logits = SCALE * x @ t.T
    for _ in range(rounds):
        sure = [row for row in logits if np.sort(row)[-1] - np.sort(row)[-2] > 1 / n_classes]
        mean = np.zeros((n_classes, n_classes))
        for k in range(n_classes):
            own = [softmax(row[None])[0] for row in sure if row.argmax() == k]
            mean[:, k] = sum(own) / len(own) if own else 0
        prior = np.full(n_classes, 1 / n_classes)
        for _ in range(100):
            moved = mean @ prior / max((mean @ prior).sum(), 1e-12)
            if np.abs(moved - prior).sum() < 1e-3:
                break
            prior = moved
        logits = logits - np.log(prior + 1e-12)
    assert_best(F.frolic(images, head, SCALE, rounds), logits, 1e-3)


def test_frolic_where_no_image_is_sure_is_the_plain_classifier():
    texts = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0001], [1.0, -0.0001]]), dim=1)
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    assert F.frolic(images, texts, 1.0).equal(F.predict(images, texts))


def test_otter_is_the_best_balanced_assignment():
    pytest.importorskip("ot")
    images, head, x, t = embedded(6, 3)
    found = F.otter(images, head)
    assert found.bincount().tolist() == [2, 2, 2]
    s = x @ t.T
    best = max(
        s[np.arange(6), list(labels)].sum()
        for labels in itertools.product(range(3), repeat=6)
        if np.bincount(labels, minlength=3).tolist() == [2, 2, 2]
    )
    assert s[np.arange(6), found.numpy()].sum() == pytest.approx(best, abs=1e-6)


def test_otter_keeps_to_a_prior():
    pytest.importorskip("ot")
    found = F.otter(unit(40, 6), unit(3, 6, seed=1), torch.tensor([0.5, 0.3, 0.2]))
    assert found.bincount().tolist() == [20, 12, 8]


def test_otter_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ot", None)
    with pytest.raises(InputError, match=r"otter needs POT: pip install 'cmmlib\[book\]'"):
        F.otter(unit(4, 6), unit(2, 6))


@all_shapes
def test_zlap_solves_the_linear_system_of_the_paper(n, n_classes):
    images, head, x, t = embedded(n, n_classes)
    size = n + n_classes
    w = np.zeros((size, size))
    for i, row in enumerate(x):
        others = sorted(range(n), key=lambda j: -(row @ x[j]) - 9 * (j == i))
        for j in others[: min(5, n)]:
            w[n_classes + i, n_classes + j] = max(row @ x[j], 0)
        for c in sorted(range(n_classes), key=lambda c: -(row @ t[c]))[: min(5, n_classes)]:
            w[n_classes + i, c] = max(row @ t[c], 0) ** 5
    w = w + w.T
    np.fill_diagonal(w, 0)
    degree = w.sum(1)
    degree[degree == 0] = 1
    w = w / np.sqrt(degree[:, None] * degree)
    scores = np.linalg.solve(np.eye(size) - 0.3 * w, np.eye(size, n_classes))[n_classes:]
    assert_best(F.zlap(images, head), scores, 1e-6)


@all_shapes
def test_transclip_equals_loops(n, n_classes):
    images, head, x, t = embedded(n, n_classes)
    q = softmax(SCALE * x @ t.T)
    z, w = q.copy(), np.zeros((n, n))
    for i in range(n):
        for j in sorted((j for j in range(n) if j != i), key=lambda j: -(x[i] @ x[j]))[:3]:
            w[i, j] = x[i] @ x[j]
    mu, sigma = np.zeros((n_classes, 6)), np.full(6, 1 / 6)
    for c in range(n_classes):
        for i in np.argsort(-q[:, c])[:8]:
            mu[c] += q[i, c] * x[i]
        mu[c] /= np.linalg.norm(mu[c])
    for r in range(11):
        likelihood = np.array([[-0.5 * ((row - m) ** 2 / sigma).sum() for m in mu] for row in x])
        for _ in range(5):
            z = softmax(np.log(q) + (likelihood + 50 / 6 * (w.T @ z + w @ z)) / 50)
        if r == 10:
            break
        mu = np.stack([z[:, c] @ x for c in range(n_classes)])
        mu /= np.linalg.norm(mu, axis=1, keepdims=True)
        sigma = sum(z[:, c] @ (x - mu[c]) ** 2 for c in range(n_classes)) / n
    assert_best(F.transclip(images, head, SCALE), z, 1e-3)


@all_shapes
def test_inmap_equals_loops(n, n_classes):
    images, head, x, t = embedded(n, n_classes)
    p = softmax(SCALE * x @ t.T)
    for _ in range(20):
        p = p / p.sum(0) / n_classes
        p = p / p.sum(1, keepdims=True)
    for row in p:
        if row.max() > 0.6:
            row[:] = np.arange(n_classes) == row.argmax()
    v, step, before = t.copy(), 10.0, np.inf
    for _ in range(20):
        gradient = softmax(x @ v.T * SCALE / 4).T @ x - p.T @ x
        step = step / 2 if np.linalg.norm(gradient) > before else step
        before = np.linalg.norm(gradient)
        v = v - step * SCALE / 4 / n * gradient
        v /= np.linalg.norm(v, axis=1, keepdims=True)
    assert_best(F.inmap(images, head, SCALE, rounds=20), x @ v.T, 1e-2)


def test_no_function_takes_labels():
    public = [
        f
        for module in (transductive_baselines, graph_baselines)
        for f in vars(module).values()
        if inspect.isfunction(f) and f.__module__ == module.__name__
    ]
    assert len(public) > 7
    assert not [f.__name__ for f in public if "labels" in inspect.signature(f).parameters]


# Overall and worst 10, percent, of their authors' own programs on the same embeddings, compared on 2026-11-25.
AUTHORS = {
    "dtd_vitb32": {transclip: (52.73, 15.00), zlap: (44.72, 6.50)},
    "pets25_vitb32": {transclip: (91.46, 81.40), zlap: (88.36, 74.75)},
    "dtd_test_vitl14": {transclip: (59.68, 15.00), zlap: (58.09, 11.00)},
}


@pytest.mark.real
@pytest.mark.parametrize("name", AUTHORS)
def test_real_embeddings_have_the_figures_of_the_authors_programs(name, real_data):
    data = load_embeddings(real_data / f"{name}.npz")
    for method, figures in AUTHORS[name].items():
        more = {"logit_scale": 100.0} if method is transclip else {}
        prediction = method(data.image_features, data.text_features[0], **more)
        found = F.class_accuracy(prediction, data.labels, len(data.classnames))
        worst = F.worst_at_k(found.value, 10)
        assert (round(100 * found.overall, 2), round(100 * worst, 2)) == figures, method.__name__


def test_inmap_of_a_large_set_is_fitted_to_some_images_and_judges_all(monkeypatch):
    images, texts = unit(60, 6), unit(5, 6, seed=1)
    whole = transductive_baselines.inmap(images, texts, 20.0)
    monkeypatch.setattr(transductive_baselines, "FITTED", 60 * 5)
    assert transductive_baselines.inmap(images, texts, 20.0).equal(whole)
    monkeypatch.setattr(transductive_baselines, "FITTED", 20 * 5)
    seen, sinkhorn = [], transductive_baselines._sinkhorn
    monkeypatch.setattr(transductive_baselines, "_sinkhorn", lambda q: seen.append(len(q)) or sinkhorn(q))
    assert len(transductive_baselines.inmap(images, texts, 20.0)) == 60
    assert seen == [20]
    assert "20 images of 60" in unlabelled.fitted_on_part(60, 5)
    assert unlabelled.fitted_on_part(20, 5) == ""


def test_zlap_spreads_classes_in_parts(monkeypatch):
    images, texts = unit(60, 6), unit(12, 6, seed=1)
    whole = graph_baselines.zlap(images, texts)
    monkeypatch.setattr(graph_baselines, "CLASSES", 5)
    assert graph_baselines.zlap(images, texts).equal(whole)


def test_nearest_images_that_were_found_already_serve_both():
    images, texts = unit(60, 6), unit(12, 6, seed=1)
    nearest = F.nearest_images(images, 7)
    assert nearest[0][:, 0].tolist() == list(range(60))
    assert F.zlap(images, texts, nearest=nearest).equal(F.zlap(images, texts))
    assert F.transclip(images, texts, 20.0, nearest=nearest).equal(F.transclip(images, texts, 20.0))
    with pytest.raises(InputError, match="nearest: 3 images each, and 5 are needed"):
        F.zlap(images, texts, nearest=F.nearest_images(images, 3))
    few = images[:2]
    assert F.zlap(few, texts, nearest=F.nearest_images(few, 7)).equal(F.zlap(few, texts))
