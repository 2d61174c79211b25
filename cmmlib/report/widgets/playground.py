"""The playground: the weighted ensemble and prior matching in the reader's browser, on the run's own embeddings.

`playground.js` computes what `functional.cmm_ensemble` and `functional.fit_prior_matching` compute, for any number of
described suspects, any temperature, any choice of templates and any strength. The embeddings travel in eight bits a
number; tests compare what comes out with the run's numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib import functional as F
from cmmlib.errors import InputError
from cmmlib.evaluation.evaluation import FOLLOWED
from cmmlib.functional import prior_matching
from cmmlib.functional.candidates import DESCRIPTION, Candidates
from cmmlib.functional.ensemble import CUT, ROUNDS, TEMPERATURE
from cmmlib.report.widgets.embedded import base64_of, show_widget
from cmmlib.study import enrich
from cmmlib.study.run import BROWSER_BYTES, Run

MATCHING = {  # how `match_prior` steps and when it stops
    "tolerance": prior_matching.TOLERANCE,
    "max_rounds": prior_matching.MAX_ROUNDS,
    "longest": prior_matching.LONGEST,
    "damping": prior_matching.DAMPING,
    "noise": prior_matching.NOISE,
    "slow": prior_matching.SLOW,
    "grid": prior_matching.GRID,
}
WITHOUT = "The playground needs JavaScript: it computes in your browser."


def show_playground(data: dict[str, Any]) -> None:
    """Show the playground with what `playground_data` made."""
    show_widget("playground", data, WITHOUT)


def playground_data(run: Run) -> dict[str, Any]:
    """What the playground computes with.

    Raises:
        InputError: a run without labels or with one prompt, or too large: see `browser` of `Run.conditions`.
    """
    if run.labels is None or not run.conditions["browser"]:
        raise InputError("the playground needs labels, several prompts, and no more numbers than a page can carry")
    texts, candidates, left_out = _candidates(run)
    described = candidates.groups == DESCRIPTION
    ks = sorted({k for k in (1, 5, 10, run.worst_k) if k <= run.n_classes})
    return {
        "names": run.classnames,
        "labels": base64_of(run.labels.numpy().astype("uint16")),
        "images": _packed(run.image_features),
        "base": _packed(run.base_text_features),
        "candidates": _packed(candidates.vectors),
        "classes": candidates.classes.tolist(),
        "described": int(described.sum()),  # the last candidates are descriptions
        "left_out": left_out,  # descriptions that the page has no room for
        "prompts": run.prompts,
        "sentences": texts,
        "suspects": enrich.suspects(run.blind, run.n_classes) if len(texts) else [],
        "n_described": run.n_described if len(texts) else 0,
        "scale": float(run.logit_scale),
        "temperature": TEMPERATURE,
        "cut": CUT,
        "rounds": ROUNDS,
        "matching": MATCHING,
        "ks": ks,
        "base_worst": [{"k": k, "classes": classes} for k, classes in _base_worst(run, ks).items()],
    }


def _base_worst(run: Run, ks: Sequence[int]) -> dict[int, list[int]]:
    """k -> the classes that the chapters follow as the base prompt's worst, with all that tie with the k-th."""
    assert run.labels is not None
    prediction = F.predict(run.image_features, run.base_text_features)
    accuracy = F.class_accuracy(prediction, run.labels, run.n_classes).value
    enough = int((~accuracy.isnan()).sum())
    sizes = [k for k in ks if k in {*FOLLOWED, run.worst_k} and k <= enough]
    return {k: F.true_worst(accuracy, k).nonzero()[:, 0].tolist() for k in sizes}


def _candidates(run: Run) -> tuple[list[str], Candidates, int]:
    """Every recorded description where they fit beside the templates, all candidates, and how many do not fit."""
    templates = Candidates.of_templates(run.text_features)
    if run.backbone is None:
        return [], templates, 0
    found = enrich.enrich_all(run.blind)
    candidates = templates.with_descriptions(enrich.encode_descriptions(run.blind, found))
    width = candidates.vectors.shape[1]
    if 4 / 3 * (len(run.image_features) + len(candidates.vectors)) * width >= BROWSER_BYTES:
        return [], templates, len(candidates.vectors) - len(templates.vectors)
    return [text for texts in found.descriptions.values() for text in texts], candidates, 0


def _packed(vectors: Float[Tensor, "R D"]) -> dict[str, Any]:
    """Vectors in eight bits a number: each column has its lowest value and its step, and rows are of length one."""
    low, high = vectors.float().aminmax(dim=0)
    step = ((high - low) / 255).clamp_min(1e-12)
    codes = ((vectors.float() - low) / step).round().to(torch.uint8)
    numbers = {"low": low, "step": step}
    return {
        "codes": base64_of(codes.numpy()),
        **{name: base64_of(values.numpy().astype(np.float32)) for name, values in numbers.items()},
        "rows": len(vectors),
    }


def unpacked(packed: dict[str, Any]) -> Float[Tensor, "R D"]:
    """The vectors as a browser reads them."""

    def read(name: str, kind: str) -> Tensor:
        return torch.from_numpy(np.frombuffer(base64.b64decode(packed[name]), kind).copy())

    codes = read("codes", "u1").view(packed["rows"], -1).float()
    return torch.nn.functional.normalize(codes * read("step", "<f4") + read("low", "<f4"), dim=1)
