"""Sentences of the playground."""

from __future__ import annotations

from typing import Any

from cmmlib import functional as F
from cmmlib.report.formatting import counted, percent
from cmmlib.report.widgets.playground import unpacked
from cmmlib.study.run import Run


def rounding(run: Run, data: dict[str, Any]) -> str:
    """What eight bits a number do to the base prompt's predictions."""
    assert run.labels is not None
    texts = run.base_text_features
    exact, rounded = (
        F.predict(run.image_features, texts),
        F.predict(*(unpacked(data[key]) for key in ("images", "base"))),
    )
    other = counted(int((exact != rounded).sum()), "image", "images")
    accuracies = [F.class_accuracy(prediction, run.labels, run.n_classes) for prediction in (exact, rounded)]
    overall = [percent(accuracy.overall) for accuracy in accuracies]
    zero = [F.zero_classes(accuracy.value) for accuracy in accuracies]
    said = f"the page carries the embeddings in eight bits a number. With the base prompt {other} of {len(exact):,} "
    said += f"get another prediction by that; overall accuracy is {overall[0]} in the chapters and {overall[1]} here"
    if zero[0] != zero[1]:
        said += f", and the number of classes at zero is {zero[0]} in the chapters and {zero[1]} here"
    said += "."
    if data["left_out"]:
        said += (
            f" {counted(data['left_out'], 'description', 'descriptions')} of a language model would make it too large."
        )
    return said
