"""Sentences of the playground."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from torch import Tensor

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
    accuracies = [percent(_overall(prediction, run.labels)) for prediction in (exact, rounded)]
    said = f"the page carries the embeddings in eight bits a number. With the base prompt {other} of {len(exact):,} "
    said += (
        f"get another prediction by that; overall accuracy is {accuracies[0]} in the chapters and {accuracies[1]} here."
    )
    if data["left_out"]:
        said += (
            f" {counted(data['left_out'], 'description', 'descriptions')} of a language model would make it too large."
        )
    return said


def _overall(prediction: Int[Tensor, "N"], labels: Int[Tensor, "N"]) -> float:
    return float((prediction == labels).double().mean())
