"""The class explorer: every class of a run in one table and one chart, to filter, sort and read."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from cmmlib import functional as F
from cmmlib.blazon.language.plain_english import glosses
from cmmlib.errors import InputError, counted
from cmmlib.estimators.classifier_file import load_classifier
from cmmlib.report.display_names import display_name
from cmmlib.report.widgets.embedded import show_widget
from cmmlib.study import enrich
from cmmlib.study.run import Run

METHODS = (  # classifiers that chapters 4 and 5 leave in a run's folder, the book's own ensemble first
    *("enriched_cmm", "cmm_templates", "uniform", "prior_matching", "prototypes"),
    *("enriched_cmm_prior", "enriched_cmm_prototypes", "enriched_fitted", "enriched_fitted_prior"),
)
PICTURE, PICTURE_BYTES = 160, 600_000  # width and height in pixels, where the image has as many; of all pictures
DATA_BYTES = 750_000  # of all that the explorer carries, as a page view has 1.5 MB: of many classes fewer have pictures
WITHOUT = "The explorer needs JavaScript. All of its numbers are in per_class.csv of the run's folder."


def show_explorer(run: Run) -> None:
    """Show all classes: accuracy, CMM, rival, gains, pictures and a language model's answers, where a run has them.

    The accuracies of the methods are read off the classifiers that chapters 4 and 5 wrote.
    """
    show_widget("explorer", explorer_data(run), WITHOUT)


def explorer_data(run: Run) -> dict[str, Any]:
    """What the explorer shows: columns, methods and one mapping a class; numbers are finite or None."""
    passed = run.blind.similarity_pass()
    prediction = passed.prediction[0].long()
    labelled = run.labels is not None
    methods = _accuracies(run) if labelled else {}
    rivals = F.rivals(run.image_features, run.base_text_features, run.logit_scale)[0]
    rows = _without_labels(run.blind, passed, prediction, run.names(rivals))
    for row, more in zip(rows, _with_labels(run, prediction), strict=True):
        row.update(more)
    for c, row in enumerate(rows):
        row["methods"] = {name: _number(values[c]) for name, values in methods.items()}
        row["pictures"] = []
    _add_answers(run, rows)
    others = rivals if run.labels is None else F.taken_for(prediction, run.labels, run.n_classes)[0]
    pictures = _add_pictures(run, prediction, others.tolist(), rows)
    return {
        "classes": rows,
        "pictures": pictures,
        "columns": _columns(labelled),
        "first": 1 if labelled else 2,  # the column that the table is sorted by
        "methods": [{"key": name, "title": display_name(name)} for name in methods],
        "labels": labelled,
        "n_suspects": run.n_described,
        "remarks": list(_remarks(run, rows, methods)),
        "height": _height(labelled),
    }


def _remarks(run: Run, rows: Sequence[dict[str, Any]], methods: Mapping[str, Any]) -> Iterator[str]:
    """What the explorer could show and does not."""
    if run.labels is not None and not methods:
        yield "There are no gains: chapters 4 and 5 have left no classifier in the run's folder."
    pictured = sum(bool(row["pictures"]) for row in rows)
    with_images = len(rows) if run.labels is None else len(run.labels.unique())
    if run.pictures is not None and pictured < with_images:
        yield f"Pictures are those of {counted(pictured, 'class', 'classes')} of highest suspicion."


def _columns(labelled: bool) -> list[dict[str, str]]:
    columns = {"name": ("class", "its name")}
    if labelled:
        columns |= {"accuracy": ("accuracy", "share of its images that are recognised")}
        columns |= {"gain": ("gain, points", "accuracy with the method above minus accuracy without it")}
    else:
        columns |= {"predicted": ("predicted", "how many images are predicted as it")}
    columns |= {"cmm": ("CMM", "class-wise matching margin, soft assignment, without labels")}
    columns |= {"rank": ("suspicion", "1 is the lowest CMM"), "rival": ("rival", "the class that comes nearest to it")}
    if labelled:
        columns |= {"taken": ("taken for", "what its missed images are predicted as most often")}
    return [{"key": key, "title": title, "help": text} for key, (title, text) in columns.items()]


def _height(labelled: bool) -> dict[str, Any]:
    """What the chart has upwards."""
    if labelled:
        alt = "Accuracy of every class over its CMM; the worst classes are marked. The table has the same numbers."
        return {"key": "accuracy", "title": "accuracy, %", "times": 100, "alt": alt}
    alt = "How often every class is predicted, over its CMM. The table has the same numbers."
    return {"key": "predicted", "title": "images predicted as it", "times": 1, "alt": alt}


def _without_labels(
    run: Run, passed: F.SimilarityPass, prediction: Int[Tensor, "N"], rival: Sequence[str]
) -> list[dict[str, Any]]:
    """Per class what needs no label."""
    cmm = F.class_matching_margin(passed)[0]
    rank = F.rank_classes(cmm).argsort() + 1
    predicted = prediction.bincount(minlength=run.n_classes)
    plain = glosses(run.pictures)
    return [
        {
            "name": name,
            "plain": plain[c] if plain else None,
            "cmm": _number(cmm[c]),
            "rank": int(rank[c]),
            "rival": rival[c],
            "predicted": int(predicted[c]),
        }
        for c, name in enumerate(run.classnames)
    ]


def _with_labels(run: Run, prediction: Int[Tensor, "N"]) -> list[dict[str, Any]]:
    """Per class what labels say; nothing of it without labels."""
    if run.labels is None:
        return [dict.fromkeys(("accuracy", "n", "low", "high", "taken", "taken_share", "worst"))] * run.n_classes
    accuracy = F.class_accuracy(prediction, run.labels, run.n_classes)
    worst = set(F.true_worst(accuracy.value, run.worst_k).nonzero()[:, 0].tolist())
    intervals = F.wilson_intervals(accuracy)
    other, share = F.taken_for(prediction, run.labels, run.n_classes)
    return [
        {
            "accuracy": _number(accuracy.value[c]),
            "n": int(accuracy.count[c]),
            "low": _number(intervals[c, 0]),
            "high": _number(intervals[c, 1]),
            "taken": name,
            "taken_share": _number(share[c]),
            "worst": c in worst,
        }
        for c, name in enumerate(run.names(other))
    ]


def _accuracies(run: Run) -> dict[str, Float[Tensor, "C"]]:
    """Class accuracies of the methods whose classifiers lie in the run's folder."""
    assert run.labels is not None
    found = {}
    for name in METHODS:
        path = run.folder / "classifiers" / f"{name}.safetensors"
        if path.is_file():
            correction = load_classifier(path).correction
            if correction.vectors.shape != run.base_text_features.shape:
                raise InputError(f"{path} is of other classes: remove it and run chapters 4 and 5 again")
            predicted = correction.predict(run.image_features)
            found[name] = F.class_accuracy(predicted, run.labels, run.n_classes).value
    return found


def _add_answers(run: Run, rows: list[dict[str, Any]]) -> None:
    """What a language model said of the suspects, as far as it is recorded; nobody is asked."""
    for row in rows:
        row.update(who=None, answers=[])
    if run.backbone is None:
        return
    found = enrich.enrich_all(run.blind)
    for c in set(enrich.suspects(run.blind)) & set(found.descriptions):
        rows[c].update(who=found.records[c].model, answers=found.descriptions[c])


def _add_pictures(
    run: Run, prediction: Int[Tensor, "N"], others: Sequence[int], rows: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """All pictures; each row has the places of its own, the first suspects first, as far as there is room.

    A picture that several classes show is carried once.
    """
    if run.pictures is None:
        return []
    left = min(PICTURE_BYTES, DATA_BYTES - len(json.dumps(rows, ensure_ascii=False).encode()))
    pictures, places = [], {}
    for c in sorted(range(len(rows)), key=lambda c: rows[c]["rank"]):
        chosen = list(_chosen_images(run, prediction, c, others[c]))
        new = {key: _webp(run.pictures.read(key[0])) for key in chosen if key not in places}
        left -= sum(len(source) for source in new.values())
        if left < 0:
            break
        for (image, of), source in new.items():
            places[image, of] = len(pictures)
            pictures.append(
                {"source": source, "name": run.classnames[of], "text": _said_of(run, prediction, image, of)}
            )
        rows[c]["pictures"] = [places[key] for key in chosen]
    return pictures


def _chosen_images(run: Run, prediction: Int[Tensor, "N"], c: int, other: int) -> Iterator[tuple[int, int]]:
    """Images, each with the class that it stands for: one that is missed, one of the class that it is taken for, and
    one that is recognised; without labels the most similar to its text, and to its rival's.

    Args:
        other: the class that it is taken for, or its rival; below zero where there is none.
    """
    if run.labels is None:
        for of in (c, other):
            if of >= 0:
                yield int((run.image_features.float() @ run.base_text_features[of].float()).argmax()), of
        return
    own, seen = run.labels == c, run.labels == other
    yield from ((image, c) for image in _first(own & (prediction == other)))
    yield from ((image, other) for image in _first(seen & (prediction == other), seen))
    yield from ((image, c) for image in _first(own & (prediction == c)))


def _first(*masks: Bool[Tensor, "N"]) -> list[int]:
    """The first image of the first mask that has one."""
    for mask in masks:
        if bool(mask.any()):
            return [int(mask.nonzero()[0, 0])]
    return []


def _said_of(run: Run, prediction: Int[Tensor, "N"], image: int, of: int) -> str:
    predicted = int(prediction[image])
    if run.labels is None:
        return f"the image nearest to this text; predicted: {run.classnames[predicted]}"
    return "recognised" if predicted == of else f"predicted: {run.classnames[predicted]}"


def _webp(image: Image.Image) -> str:
    """The middle square of an image, not enlarged, as an address that holds it."""
    side = min(PICTURE, *image.size)
    data = io.BytesIO()
    ImageOps.fit(image.convert("RGB"), (side, side)).save(data, "WEBP", quality=60, method=6)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def _number(value: Tensor) -> float | None:
    """Six digits after the point are enough to look at; NaN is no number."""
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
