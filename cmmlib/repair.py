"""What chapters 3 and 4 do with a run: choose suspects, ask about them, and compare every classifier that results.

The choice of suspects, the questions and all classifiers are label-free. Labels enter `ensemble_rows`, which evaluates,
and the one row that is marked as an oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import baselines, cmm, metrics
from cmmlib import ensemble as ens
from cmmlib.enrich import (
    N_RIVALS,
    RECORDED,
    Enrichment,
    Question,
    Transcript,
    ask_about,
    find_domain,
    known_answers,
    own_transcript_path,
    replay,
)
from cmmlib.run import Run
from cmmlib.similarity import match

WORST = (1, 5, 10, 20)
NESTED = ("worst", "worst_split_half", "base_worst")


def suspects(run: Run, n: int | None = None) -> list[int]:
    """The classes of lowest soft CMM under the base prompt, the lowest first: as many as the study describes, or n."""
    matches = match(run.images, run.base[None], run.logit_scale)
    return cmm.rank_classes(cmm.cmm(matches, "soft")[0])[: n or run.n_described].tolist()


def questions(run: Run, classes: list[int]) -> dict[int, Question]:
    """What the study asks about these classes."""
    study = run.study
    domain = study.domain or find_domain(run.classnames)
    if study.question == "describe":
        return ask_about(classes, run.classnames, domain)
    rivals = cmm.top_rivals(run.images, run.base, run.logit_scale, N_RIVALS).tolist()
    return ask_about(classes, run.classnames, domain, "contrast", lambda c: rivals[c])


def enrich(run: Run, classes: list[int] | None = None) -> Enrichment:
    """Descriptions of the suspects or of other classes: recorded ones, or live answers where the study names a model.

    Raises:
        InputError: the study has no text tower, or the model refuses.
    """
    assert run.backbone is not None
    asked = questions(run, suspects(run) if classes is None else classes)
    known, fits = known_answers(run.study.transcript), run.backbone.fits
    if run.study.llm == RECORDED:
        return replay(asked, known, fits)
    found = replay(asked, known, fits, run.study.llm)
    todo = {c: asked[c] for c in (*found.missing, *found.failed)}
    if not todo:
        return found
    from cmmlib import llm

    path = Path(run.study.transcript) if run.study.transcript else own_transcript_path()
    budget = llm.Budget(run.study.max_requests, run.study.max_cost)
    records, failed, _ = llm.ask(todo, llm.Session(run.study.llm, path, run.study.llm_base_url, budget), fits)
    answered = replay(asked, known + Transcript(records.values()), fits, run.study.llm)
    answered.failed.update(failed)
    answered.missing[:] = [c for c in answered.missing if c not in failed]
    return answered


def encode_descriptions(run: Run, enrichment: Enrichment) -> dict[int, Float[Tensor, "K D"]]:
    """Text vectors of every description, by class."""
    groups = enrichment.descriptions
    if not groups:
        return {}
    vectors = run.encode([text for texts in groups.values() for text in texts])
    return dict(zip(groups, vectors.split([len(texts) for texts in groups.values()]), strict=True))


# ---------------------------------------------------------------- every classifier that is compared


@dataclass(frozen=True)
class Contender:
    """A way to classify: its predictions, whether it needed labels, and how many classes' descriptions it uses."""

    name: str
    prediction: Int[Tensor, "N"]
    label_free: bool = True
    requests: int = 0
    classifier: Float[Tensor, "C D"] | None = None


def contenders(run: Run, described: Mapping[int, Tensor]) -> list[Contender]:
    """Every method on the same images. What needs a text tower, or more than one prompt, is left out without it."""
    heads, n = run.heads, len(described)
    candidates = ens.Candidates.of_templates(heads)
    found = [_linear(run, "base", run.base)]
    if run.backbone is not None:
        found.append(_linear(run, "class_name", run.encode(run.classnames)))
    if len(heads) > 1:
        if run.labels is not None:
            found.append(_best_template(run))
        found.append(_linear(run, "uniform", baselines.uniform_mean(heads)))
        weights = baselines.zpe(run.images, heads, run.logit_scale)
        found.append(_linear(run, "zpe", _weighted(heads, weights)))
        found.append(Contender("autoclip", baselines.autoclip(run.images, heads, run.logit_scale)))
    if run.backbone is not None:
        waffle = baselines.waffle_texts(run.classnames, seed=run.study.seed)
        vectors = run.encode([text for texts in waffle for text in texts]).unflatten(0, (len(waffle), run.n_classes))
        found.append(_linear(run, "waffle", baselines.uniform_mean(vectors)))
    if len(heads) > 1:
        found.append(_linear(run, "cmm_templates", weighted_ensemble(run, candidates)))
        score = cmm.cmm(match(run.images, heads, run.logit_scale), "soft")
        found.append(_linear(run, "cmm_global", _weighted(heads, ens.weigh_globally(heads, score))))
    if run.backbone is not None:
        everything = encode_descriptions(run, enrich_all(run))
        if len(everything) == run.n_classes:
            found.append(_linear(run, "describe_all", ens.replace_classes(run.base, everything), run.n_classes))
    if described:
        enriched = candidates.with_descriptions(described)
        found.append(_linear(run, "enriched_replace", ens.replace_classes(run.base, described), n))
        found.append(_linear(run, "enriched_uniform", ens.combine(enriched, ens.uniform(enriched)), n))
        found.append(_linear(run, "enriched_cmm", weighted_ensemble(run, enriched), n))
    return found


def weighted_ensemble(run: Run, candidates: ens.Candidates, **settings: Any) -> Float[Tensor, "C D"]:
    """The project's ensemble of these candidates; the others' classifier is the uniform mean of the templates."""
    others = baselines.uniform_mean(run.heads)
    return ens.cmm_ensemble(run.images, candidates, others, run.logit_scale, **settings)


def enrich_all(run: Run) -> Enrichment:
    """Recorded descriptions of all classes, whatever model wrote them; never asks."""
    assert run.backbone is not None
    everything = questions(run, list(range(run.n_classes)))
    return replay(everything, known_answers(run.study.transcript), run.backbone.fits)


def ensemble_rows(run: Run, found: list[Contender], base_worst: Mapping[int, Int[Tensor, "k"]]) -> list[dict[str, Any]]:
    """What results.json says of every contender, all on the images of the run.

    Args:
        base_worst: k -> the k classes that were worst under the base prompt, to be followed.
    """
    assert run.labels is not None
    rows = []
    for contender in found:
        accuracy = metrics.class_accuracy(contender.prediction, run.labels, run.n_classes)
        halves = metrics.worst_split_half(
            contender.prediction == run.labels, run.labels, run.n_classes, list(WORST), run.study.seed
        )
        rows.append(
            {
                "name": contender.name,
                "label_free": contender.label_free,
                "overall": accuracy.overall,
                "overall_interval": metrics.wilson_interval(int(accuracy.correct.sum()), len(run.labels)),
                "worst": {str(k): metrics.worst_at_k(accuracy.value, k) for k in WORST},
                "worst_split_half": dict(zip(map(str, WORST), halves, strict=True)),
                "base_worst": {str(k): _mean(accuracy.value[index]) for k, index in base_worst.items()},
                "zero_classes": int((accuracy.value == 0).sum()),
                "requests": contender.requests,
            }
        )
    return rows


def flat_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of `ensemble_rows` as a table: `worst_10`, `worst_split_half_10`, `base_worst_10` and so on."""
    flat = []
    for row in rows:
        head = {key: row[key] for key in ("name", "label_free", "overall")}
        low, high = row["overall_interval"]
        counts = {key: row[key] for key in ("zero_classes", "requests")}
        nested = {f"{key}_{k}": v for key in NESTED for k, v in row[key].items()}
        flat.append({**head, "overall_low": low, "overall_high": high, **counts, **nested})
    return pd.DataFrame(flat)


def described_curve(
    run: Run, everything: Mapping[int, Tensor], ranking: list[int], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Overall and worst-10 when the first `counts` of the ranking are described, by each way to use descriptions."""
    candidates, rows = ens.Candidates.of_templates(run.heads), []
    for count in counts:
        part = {c: everything[c] for c in ranking[:count] if c in everything}
        enriched = candidates.with_descriptions(part)
        ways = {
            "CMM weights": weighted_ensemble(run, enriched),
            "uniform": ens.combine(enriched, ens.uniform(enriched)),
            "in place of the name": ens.replace_classes(run.base, part),
        }
        rows += [{"count": int(count), "method": way, **_scores(run, c)} for way, c in ways.items()]
    return rows


def ablation(run: Run, described: Mapping[int, Tensor]) -> list[dict[str, Any]]:
    """The ensemble with one part changed at a time, in words a table can show."""
    candidates = ens.Candidates.of_templates(run.heads)
    enriched = candidates.with_descriptions(described)
    most = max([len(v) for v in described.values()], default=0)
    uniform = baselines.uniform_mean(run.heads)
    versions = {
        "as it is": weighted_ensemble(run, enriched),
        "templates only": weighted_ensemble(run, candidates),
        "descriptions only, in the described classes": _descriptions_only(run, described, uniform),
        "uniform weights, groups balanced": ens.combine(enriched, ens.uniform(enriched, balanced=True)),
        "uniform weights": ens.combine(enriched, ens.uniform(enriched)),
        "CMM weights, groups not balanced": weighted_ensemble(run, enriched, balanced=False),
        "nothing cut": weighted_ensemble(run, enriched, cut=None),
        "retrieval assignment": weighted_ensemble(run, enriched, assignment="retrieval"),
    }
    for k in range(1, most):
        fewer = {c: vectors[:k] for c, vectors in described.items()}
        name = f"{k} description{'s' if k > 1 else ''} a class"
        versions[name] = weighted_ensemble(run, candidates.with_descriptions(fewer))
    return [{"version": name, **_scores(run, c, followed=True)} for name, c in versions.items()]


def _descriptions_only(run: Run, described: Mapping[int, Tensor], others: Tensor) -> Tensor:
    """CMM weights among the descriptions of described classes, the uniform mean of templates elsewhere."""
    if not described:
        return others
    alone = ens.Candidates.of_templates(others[None]).with_descriptions(described)
    replaced = torch.isin(alone.classes, torch.tensor(list(described))) & (alone.groups == ens.TEMPLATE)
    kept = ens.Candidates(alone.vectors[~replaced], alone.classes[~replaced], alone.groups[~replaced], run.n_classes)
    return ens.cmm_ensemble(run.images, kept, others, run.logit_scale)


def _scores(run: Run, classifier: Tensor, followed: bool = False) -> dict[str, Any]:
    assert run.labels is not None
    accuracy = metrics.class_accuracy(predict(run.images, classifier), run.labels, run.n_classes)
    scores = {"overall": accuracy.overall, "worst_10": metrics.worst_at_k(accuracy.value, 10)}
    if followed:
        base = metrics.class_accuracy(predict(run.images, run.base), run.labels, run.n_classes)
        scores["base_worst_10"] = _mean(accuracy.value[metrics.worst_classes(base.value, 10)])
    return scores


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _linear(run: Run, name: str, classifier: Float[Tensor, "C D"], requests: int = 0) -> Contender:
    return Contender(name, predict(run.images, classifier), True, requests, classifier)


def predict(images: Float[Tensor, "N D"], classifier: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """The class of highest similarity for every image, ties to the lowest index."""
    return torch.cat([similarity.argmax(1) for similarity in cmm._similarities(images, classifier, 8192)])


def _best_template(run: Run) -> Contender:
    """The template with the highest overall accuracy: known only from the labels."""
    assert run.labels is not None
    predictions = [predict(run.images, head) for head in run.heads]
    right = torch.stack([(prediction == run.labels).double().mean() for prediction in predictions])
    best = int(right.argmax())
    return Contender("best_template", predictions[best], label_free=False, classifier=run.heads[best])


def _weighted(heads: Float[Tensor, "P C D"], weights: Float[Tensor, "P"]) -> Float[Tensor, "C D"]:
    return torch.nn.functional.normalize(torch.einsum("p,pcd->cd", weights.float(), heads.float()), dim=-1)


def replaced_alone(
    run: Run, described: Mapping[int, Tensor], rivals: Mapping[int, int]
) -> dict[int, tuple[float, float, float, float]]:
    """What each class's descriptions do when that class alone is replaced in the base classifier.

    Returns:
        For each class with images: its accuracy before and after, and its rival's before and after (NaN for a rival
        without images).
    """
    assert run.labels is not None
    similarity = torch.cat(list(cmm._similarities(run.images, run.base, 8192)))
    before = similarity.argmax(1)
    new = ens.replace_classes(run.base, described)
    changes = {}
    for c in described:
        changed = similarity.clone()
        changed[:, c] = run.images.float() @ new[c]
        after = changed.argmax(1)
        own, rival = run.labels == c, run.labels == rivals[c]
        if own.any():
            shares = [_share(p, rows, k) for k, rows in ((c, own), (rivals[c], rival)) for p in (before, after)]
            changes[c] = (shares[0], shares[1], shares[2], shares[3])
    return changes


def _share(prediction: Tensor, rows: Tensor, c: int) -> float:
    return float((prediction[rows] == c).double().mean())
