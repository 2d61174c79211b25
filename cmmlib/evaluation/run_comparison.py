"""Several runs side by side: how far their worst classes lie below the average, which fail everywhere, what each
method gains. Runs come from their folders, or are computed from tensors as chapter 7 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.errors import InputError
from cmmlib.evaluation import evaluation, methods
from cmmlib.storage.csv_files import read_csv
from cmmlib.study import enrich
from cmmlib.study.made_files import command, require_whole
from cmmlib.study.open_run import open_run
from cmmlib.study.run import Run, other_weights
from cmmlib.study.run_files import PER_CLASS, RESULTS, read_run
from cmmlib.study.study import Study


@dataclass(frozen=True)
class RunSummary:
    """One run of a comparison.

    Attributes:
        name: what sets it apart from the others, for tables and figures.
        run: the run's id.
        facts: the manifest's `data` and `model`.
        classnames: C names.
        suspicion: soft CMM of the base prompt, low = suspect, [C].
        accuracy: of every class under the base prompt, [C], NaN without images; None without labels.
        overall: share of all images recognised; None without labels.
        methods: rows of `compare.ensemble_rows`, of the methods that this run compared.
        completed_by: the command that executes chapter 4, where it has not run to its end; else None.
    """

    name: str
    run: str
    facts: dict[str, Any]
    classnames: list[str]
    suspicion: Float[Tensor, "C"]
    accuracy: Float[Tensor, "C"] | None = None
    overall: float | None = None
    methods: tuple[dict[str, Any], ...] = ()
    completed_by: str | None = None

    @property
    def n_ranked(self) -> int:
        """Number of classes that have a place among the worst: those with images; without labels, all."""
        return len(self.classnames) if self.accuracy is None else int((~self.accuracy.isnan()).sum())

    def worst(self, k: int) -> float | None:
        """worst@k under the base prompt."""
        return None if self.accuracy is None else F.worst_at_k(self.accuracy, k)

    def in_order(self, classnames: Sequence[str]) -> RunSummary:
        """The same run with its classes in this order; itself where it has others, or one name stands for several."""
        if sorted(self.classnames) != sorted(classnames) or len({*classnames}) < len(classnames):
            return self
        index = torch.tensor([self.classnames.index(name) for name in classnames])
        accuracy = None if self.accuracy is None else self.accuracy[index]
        return replace(self, classnames=list(classnames), suspicion=self.suspicion[index], accuracy=accuracy)


# ---------------------------------------------------------------- where sides come from


class ChaptersMissing(InputError):
    """A run whose chapters 1 and 2 did not both run: it has no CMM to compare."""


def of_folder(folder: Path) -> RunSummary:
    """A finished run as its files say it.

    Raises:
        ChaptersMissing: a run whose chapters 1 and 2 did not run.
        InputError: no run, or one whose results were changed by hand.
    """
    manifest, results = read_run(folder)
    require_whole(folder, (RESULTS, PER_CLASS))
    try:
        table = read_csv(folder / PER_CLASS, na_values=[""], dtype={"class_name": str})
        names, suspicion = table["class_name"].fillna("").tolist(), _numbers(table["cmm_soft"])
        accuracy = _numbers(table["accuracy"]) if results.get("accuracy") else None
    except (OSError, ValueError, KeyError):
        raise ChaptersMissing(
            f"{folder.name} lacks per_class.csv with cmm_soft: run its chapters 01 and 02 first"
        ) from None
    facts = {key: manifest[key] for key in ("data", "model")}
    side = RunSummary(_model_name(facts), manifest["id"], facts, names, suspicion)
    if accuracy is None:
        return side
    methods = tuple(results.get("ensembles") or ())
    lacking = None if methods else command(manifest, folder)
    return replace(
        side, accuracy=accuracy, overall=results["accuracy"]["overall"], methods=methods, completed_by=lacking
    )


def _numbers(column: Any) -> Tensor:
    return torch.from_numpy(np.array(column, dtype=np.float64))


def of_run(run: Run, labels: Int[Tensor, "N"] | None = None) -> RunSummary:
    """An opened run, computed here: its base prompt and, with labels, every method of chapter 4."""
    passed = run.similarity_pass()
    facts = {key: run.facts[key] for key in ("data", "model")}
    side = RunSummary(
        _model_name(facts), run.id, facts, run.classnames, F.class_matching_margin(passed, "soft")[0].double()
    )
    if labels is None:
        return side
    accuracy = F.class_accuracy(passed.prediction[0].long(), labels, run.n_classes)
    blind = run.blind
    described = enrich.encode_descriptions(blind, enrich.enrich(blind)) if run.backbone else {}
    compared = methods.compare_methods(blind, described)
    rows = evaluation.ensemble_rows(compared, labels, run.n_classes, compared[0].prediction, run.study.seed)
    return replace(side, accuracy=accuracy.value, overall=accuracy.overall, methods=tuple(rows))


def gather(run: Run, labels: Int[Tensor, "N"] | None = None) -> list[RunSummary]:
    """The run itself, the same study with the other weights that ship, and the runs that `compare_with` names.

    Raises:
        InputError: a run of `compare_with` has other classes, or no accuracies where this one has labels.
    """
    sides = [of_run(run, labels)]
    other = other_study(run.study)
    if other:
        second = open_run(other)
        sides.append(of_run(second, None if labels is None else second.labels))
    sides += [of_folder(folder).in_order(run.classnames) for folder in run.study.other_runs]
    for side in sides:
        if side.classnames != run.classnames:
            raise InputError(f"compare_with: {side.run} has other classes: name runs on this study's data set")
        if labels is not None and side.accuracy is None:
            raise InputError(f"compare_with: {side.run} has no accuracies: run its chapter 01 with labels")
    return with_distinct_names(sides)


def other_study(study: Study) -> Study | None:
    """The same study with the other weights that ship, recorded answers only; None where there are none."""
    tag = other_weights(study)
    changes = {"pretrained": tag, "llm": "recorded", "compare_with": None}
    return study.model_copy(update=changes) if tag else None


def _model_name(facts: dict[str, Any]) -> str:
    model = facts["model"]
    return " ".join(str(part) for part in (model["backbone"], model["pretrained"]) if part) or facts["data"]["name"]


def with_distinct_names(sides: Sequence[RunSummary]) -> list[RunSummary]:
    """The same sides, by names of their own: the run's id follows where a model occurs twice."""
    names = [side.name for side in sides]
    return [s if names.count(s.name) == 1 else replace(s, name=f"{s.name} ({s.run[-8:]})") for s in sides]


def worst_masks(sides: Sequence[RunSummary], k: int) -> Bool[Tensor, "R C"]:
    """The k worst classes, with those that tie with the k-th, of every run that has accuracies."""
    return torch.stack([F.true_worst(side.accuracy, k) for side in sides if side.accuracy is not None])


def same_classes(sides: Sequence[RunSummary]) -> bool:
    """Whether all runs have the same class names, in the same order."""
    return all(side.classnames == sides[0].classnames for side in sides)


# ---------------------------------------------------------------- what is compared


def overview(sides: Sequence[RunSummary], k: int) -> pd.DataFrame:
    """A row a run: `run`, `overall`, `worst`, their difference `gap`, `zero_classes`."""
    rows = []
    for side in sides:
        if side.accuracy is None:
            continue
        worst = side.worst(k)
        gap = None if worst is None or side.overall is None else side.overall - worst
        zero = F.zero_classes(side.accuracy)
        rows.append({"run": side.name, "overall": side.overall, "worst": worst, "gap": gap, "zero_classes": zero})
    return pd.DataFrame(rows, columns=["run", "overall", "worst", "gap", "zero_classes"])


def agreement(sides: Sequence[RunSummary], k: int) -> pd.DataFrame:
    """A row a pair of runs: rank correlation of class accuracies, and how many of the k worst they share.

    Without labels both are of soft CMM. Only classes with images in both count. Classes that tie with the k-th worst
    are among the worst; `chance` is the number that two sets of as many classes, drawn at random, would share.
    """
    rows = []
    for one, other in combinations(sides, 2):
        scores = [s.suspicion if one.accuracy is None or other.accuracy is None else s.accuracy for s in (one, other)]
        x, y = torch.stack([s for s in scores if s is not None]).double()
        defined = ~(x.isnan() | y.isnan())
        x, y = x[defined], y[defined]
        lowest = [F.true_worst(s, k) for s in (x, y)]
        chance = int(lowest[0].sum()) * int(lowest[1].sum()) / len(x) if len(x) else None
        shared = int((lowest[0] & lowest[1]).sum())
        pair = {"run": one.name, "other": other.name, "spearman": F.spearman(x, y)}
        rows.append({**pair, "shared_worst": shared, "chance": chance})
    return pd.DataFrame(rows, columns=["run", "other", "spearman", "shared_worst", "chance"])


def worst_everywhere(sides: Sequence[RunSummary], k: int) -> list[int]:
    """Classes among the k worst of every run, or tied with the k-th, lowest mean first; without labels of soft CMM."""
    scores = [side.suspicion if any(s.accuracy is None for s in sides) else side.accuracy for side in sides]
    table = torch.stack([s.double() for s in scores if s is not None])  # [runs, C]
    shared, mean = torch.stack([F.true_worst(row, k) for row in table]).all(0), table.mean(0)
    return sorted(shared.nonzero()[:, 0].tolist(), key=lambda c: (float(mean[c]), c))


GAIN_OF = 10  # worst classes whose gains are told, whatever k is
FOLLOWED = ("base_worst", "base_worst_count", "base_worst_split_half")


def gains(sides: Sequence[RunSummary]) -> pd.DataFrame:
    """A row a run and method: `overall`, `worst_10`, what both gain over the base prompt, and of the base prompt's
    worst 10 `base_worst_10`, `base_worst_count_10` and `base_worst_split_half_10`, as in `evaluation.ensemble_rows`.
    """
    rows = []
    for side in (s for s in sides if s.accuracy is not None):
        start = {"overall": side.overall, "worst_10": side.worst(10)}
        base = {"name": "base", "overall": side.overall, "worst": {"10": side.worst(10)}, "base_worst": {}}
        for row in side.methods or [base]:
            values = {"overall": row["overall"], "worst_10": row["worst"]["10"]}
            gained = {f"gain_{key}": _difference(value, start[key]) for key, value in values.items()}
            followed = {f"{key}_10": row.get(key, {}).get("10") for key in FOLLOWED}
            rows.append({"run": side.name, "method": row["name"], **values, **gained, **followed})
    columns = ["run", "method", "overall", "worst_10", "gain_overall", "gain_worst_10"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{key}_10" for key in FOLLOWED)])


def _difference(value: float | None, start: float | None) -> float | None:
    return None if value is None or start is None else value - start


def report(sides: Sequence[RunSummary], k: int) -> dict[str, Any]:
    """The `backbones` section of results.json; the first side is the run itself."""
    return {
        "k": k,
        "runs": [{"id": side.run, **side.facts["model"]} for side in sides],
        "overview": overview(sides, k).to_dict("records"),
        "agreement": agreement(sides, k).to_dict("records"),
        "worst_everywhere": worst_everywhere(sides, k),
        "gains": gains(sides).to_dict("records"),
    }
