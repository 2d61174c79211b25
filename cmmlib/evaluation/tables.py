"""The columns of the files that a run leaves: per_class.csv and prompts.csv. The book documents each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.functional.accuracy import ClassAccuracy
from cmmlib.functional.similarity import SimilarityPass
from cmmlib.study.run import Run


def accuracy_columns(
    run: Run,
    accuracy: ClassAccuracy,
    intervals: Float[Tensor, "C 2"],
    other: Int[Tensor, "C"],
    share: Float[Tensor, "C"],
) -> pd.DataFrame:
    """Columns that need labels: images, accuracy with its 95 % Wilson interval, and what the class is taken for."""
    return pd.DataFrame(
        {
            "class_index": range(run.n_classes),
            "class_name": run.classnames,
            "n_images": accuracy.count.tolist(),
            "accuracy": accuracy.value.tolist(),
            "accuracy_low": intervals[:, 0].tolist(),
            "accuracy_high": intervals[:, 1].tolist(),
            "taken_for": run.names(other),
            "taken_for_index": [None if c < 0 else c for c in other.tolist()],
            "share_taken_for": share.tolist(),
        }
    ).astype({"taken_for_index": "Int64"})


def names_table(published: Mapping[str, Any], distinct: Mapping[str, Any]) -> pd.DataFrame:
    """Accuracy under class names as published, without the classes that share a name, and with these told apart.

    Args:
        published: accuracy report of the names as they are (`evaluation.accuracy_report`, given the duplicates).
        told_apart: the report of the same images under names that tell all classes apart.
    """
    rows = {"overall": (published["overall"], None, distinct["overall"])}
    for k, value in published["worst"].items():
        rows[f"worst@{k}"] = (value, published["worst_without_duplicates"][k], distinct["worst"][k])
    columns = ["as published", "without shared names", "disambiguated"]
    return pd.DataFrame(rows, index=columns).T.rename_axis("accuracy").reset_index()


def cmm_columns(
    run: Run,
    scores: dict[str, Float[Tensor, "C"]],
    suspects: Int[Tensor, "C"],
    rival: Int[Tensor, "C"],
    rival_share: Float[Tensor, "C"],
) -> pd.DataFrame:
    """Columns of CMM: `cmm_` and the assignment, the plain scores, the rank of suspicion (1 first), and the rival."""
    named = {(name if name in PLAIN_SCORES else f"cmm_{name}"): score.tolist() for name, score in scores.items()}
    rank = torch.empty_like(suspects)
    rank[suspects] = torch.arange(1, run.n_classes + 1)
    return pd.DataFrame(
        {
            "class_index": range(run.n_classes),
            "class_name": run.classnames,
            **named,
            "suspect_rank": rank.tolist(),
            "rival": run.names(rival),
            "rival_index": rival.tolist(),
            "rival_share": rival_share.tolist(),
        }
    )


PLAIN_SCORES = ("accuracy_estimate", "predicted_count", "mean_top_probability", "nearest_text_distance")


def prompt_table(run: Run, pool: SimilarityPass) -> pd.DataFrame:
    """A row a prompt of the pool: mean CMM, plain and scale-free; with labels, overall and worst-10 accuracy."""
    table = pd.DataFrame(
        {
            "prompt": run.prompts,
            "overall": None,
            "worst_10": None,
            "cmm_mean": F.prompt_scores(F.class_matching_margin(pool, "soft")).tolist(),
            "cmm_mean_scale_free": F.prompt_scores(F.scale_free_cmm(pool)).tolist(),
        }
    )
    if run.labels is not None:
        accuracies = [F.class_accuracy(row.long(), run.labels, run.n_classes) for row in pool.prediction]
        table["overall"] = [accuracy.overall for accuracy in accuracies]
        table["worst_10"] = [F.worst_at_k(accuracy.value, 10) for accuracy in accuracies]
    return table
