"""`cmm verify`: a finished run against reference figures, published ones and this project's own.

reference.csv comes with the package and is made by benchmarks/reference.py, which says how models were chosen, where
each figure is from and what the tolerance is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from cmmlib.errors import InputError, one_line, why
from cmmlib.storage.text_files import content
from cmmlib.study.made_files import require_whole
from cmmlib.study.run_files import RESULTS, read_run
from cmmlib.study.study import LARGEST, Study

REFERENCE = Path(__file__).parent / "reference.csv"
COLUMNS = ("backbone", "pretrained", "dataset", "split", "prompts", "metric", "data", "source", "commit")
NUMBERS = ("value", "tolerance")
METRIC = re.compile(r"accuracy|mean_per_class|zero_classes|worst_[1-9]\d{0,17}")
PROMPTS = ("ensemble", "base")
ENSEMBLE = PROMPTS[0]  # a figure of the mean of several prompts; the others are of the base prompt
GENERAL_POOLS = ("openai-7", "openai-80")


@dataclass(frozen=True)
class Check:
    """A figure of a run beside its reference.

    Attributes:
        metric: `accuracy`, `mean_per_class`, `worst_K`, or `zero_classes`.
        found: what the run measured, a fraction, or a number of classes; None where it did not.
        value, tolerance: the reference figure, and the difference that is no disagreement.
        source: where the reference is from, with its commit.
        causes: what sets the run apart from the reference and may explain a difference.
    """

    metric: str
    found: float | None
    value: float
    tolerance: float
    source: str
    causes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the run measured the figure, within the tolerance."""
        return self.found is not None and abs(self.found - self.value) <= self.tolerance

    @property
    def sentence(self) -> str:
        """The figure, what the run measured, and what may explain a difference, in a line."""
        is_count = self.metric == "zero_classes"
        scale, shown, unit = (1, "{:g}", "classes") if is_count else (100, "{:.2f} %", "points")
        head = f"{self.metric}: reference {shown.format(scale * self.value)}, {self.source}"
        if self.found is None:
            return f"{head}: not measured by this run"
        head += f"; here {shown.format(scale * self.found)}"
        if self.agrees:
            return f"{head}: agrees within {scale * self.tolerance:{'g' if is_count else '.1f'}} {unit}"
        causes = "; ".join(self.causes) or "nothing in the settings: other weights or preprocessing under this name"
        difference = f"{scale * (self.found - self.value):{'+g' if is_count else '+.2f'}} {unit}"
        return f"{head}: differs by {difference}, likely because of {causes}"


def verify(folder: Path, reference: Path = REFERENCE) -> list[Check]:
    """Every reference figure of the run's model and data set beside what the run measured.

    Raises:
        InputError: no finished run, no labels, no figure of this model on this data set, or none that it measured.
    """
    manifest, results = read_run(folder)
    require_whole(folder, (RESULTS,))
    if results.get("accuracy") is None:
        raise InputError(
            f"{folder.name} has no accuracies to verify: its study has no labels, or chapter 01 did not run"
        )
    rows = matching(manifest, load_reference(reference))
    if rows.empty:
        model, data = manifest["model"], manifest["study"]["dataset"]
        name = " ".join(str(part) for part in (model["backbone"], model["pretrained"]) if part) or "this model"
        raise InputError(f"{reference.name} has no figure of {name} on {data}: give a CSV of your own with --reference")
    checks = [_check(row, manifest, results) for row in rows.to_dict("records")]
    if all(check.found is None for check in checks):
        asked = ", ".join(dict.fromkeys(check.metric for check in checks))
        raise InputError(f"{folder.name} measured none of the figures of {reference.name}: {asked}")
    return checks


def load_reference(path: Path) -> pd.DataFrame:
    """Reference figures, with the columns of the shipped reference.csv.

    Raises:
        InputError: a file that is missing, no CSV, without a column, or with a figure that cannot be compared.
    """
    name = path.name or path
    try:
        table = pd.read_csv(BytesIO(content(path)), keep_default_na=False, dtype=str)
    except (OSError, ValueError, KeyError) as error:
        cause = why(error) if isinstance(error, OSError) else one_line(error)
        cause = "it is empty" if isinstance(error, pd.errors.EmptyDataError) else cause
        cause = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else cause
        raise InputError(f"--reference: {name} cannot be read as reference figures: {cause}") from None
    twice = [name for name in table if re.sub(r"\.\d+$", "", name) in {*table} - {name}]  # pandas calls it `value.1`
    if twice:
        raise InputError(f"--reference: {name} has the column {twice[0].rpartition('.')[0]} twice: keep one")
    missing = {*COLUMNS, *NUMBERS} - set(table)
    if missing:
        raise InputError(f"--reference: {name} lacks the columns {', '.join(sorted(missing))}")
    for line, row in enumerate(table.to_dict("records"), 2):  # the first is the head
        wrong = _wrong(row)
        if wrong:
            raise InputError(f"--reference: {name}, line {line}: {wrong}")
    return table.astype(dict.fromkeys(NUMBERS, float))


def _wrong(row: Mapping[str, str]) -> str | None:
    """What is wrong with a reference figure, if anything."""
    if not METRIC.fullmatch(row["metric"]):
        return f"metric is {row['metric']!r}: use accuracy, mean_per_class, worst_K or zero_classes"
    if row["prompts"] not in PROMPTS:
        return f"prompts is {row['prompts']!r}: use {' or '.join(PROMPTS)}"
    try:
        value, tolerance = float(row["value"]), float(row["tolerance"])
    except ValueError:
        return "value and tolerance must be numbers"
    most = LARGEST if row["metric"] == "zero_classes" else 1
    if not 0 <= value <= most:
        return f"value is {row['value']}: a share is from 0 to 1, a number of classes 0 or more"
    if not 0 <= tolerance <= most:
        return f"tolerance is {row['tolerance']}: it must be 0 or more, and as a share at most 1"
    return None


def matching(manifest: Mapping[str, Any], reference: pd.DataFrame) -> pd.DataFrame:
    """Rows of the run's model and data set, or of the very embeddings that it read."""
    model = manifest["model"]
    backbones = reference["backbone"].where(reference["pretrained"] != "openai", reference["backbone"].map(_plain))
    own, tag = model["backbone"] or "", model["pretrained"] or ""
    same_model = (backbones == (_plain(own) if tag == "openai" else own)) & (reference["pretrained"] == tag)
    same_data = reference["dataset"] == manifest["study"]["dataset"]
    same_file = (reference["data"] != "") & (reference["data"] == manifest["data"]["digest"][:16])
    brought = manifest["study"]["dataset"].startswith("embeddings:")
    return reference.loc[same_file if brought else same_model & same_data]


def _plain(backbone: str) -> str:
    """OpenAI's weights are run with QuickGELU under both names of an architecture."""
    return backbone.removesuffix("-quickgelu")


def _check(row: dict[str, Any], manifest: Mapping[str, Any], results: Mapping[str, Any]) -> Check:
    uniform = next((r for r in results.get("ensembles") or () if r["name"] == "uniform"), None)
    measured = uniform if row["prompts"] == ENSEMBLE and uniform else results["accuracy"]
    metric = "overall" if row["metric"] == "accuracy" else row["metric"]
    name, _, k = metric.rpartition("_")
    own = measured["worst"].get(k) if name == "worst" else measured.get(metric)
    causes = tuple(_causes(row, manifest, uniform is not None))
    source = " ".join(filter(None, (row["source"], row["commit"])))
    return Check(row["metric"], own, row["value"], row["tolerance"], f"{source}, {row['split']}", causes)


def _causes(row: Mapping[str, Any], manifest: Mapping[str, Any], has_mean: bool):
    study, digest = manifest["study"], manifest["data"]["digest"]
    pool = manifest.get("templates")
    if row["prompts"] == ENSEMBLE and not has_mean:
        yield "templates: the reference is of the mean of several, this run's figure of one"
    elif row["prompts"] == ENSEMBLE and pool in GENERAL_POOLS and (row["dataset"], pool) != ("imagenet", "openai-80"):
        yield f"templates: the reference uses those of the data set, this run {pool}"
    if row["prompts"] != ENSEMBLE and study.get("base_template") != _default("base_template"):
        yield "templates: another base template"
    if study.get("class_names"):
        yield f"class names: this run's are from {study['class_names']}"
    if row["data"] and row["data"] != digest[:16]:
        yield "split: the reference is of other images"
    elif study.get("split") not in (None, "", row["split"]):
        yield f"split: the reference is of {row['split']}, this run of {study['split']}"
    if study.get("precision") != _default("precision"):
        yield f"precision: the model ran in {study['precision']}"
    if study.get("storage") != _default("storage"):
        yield f"precision: image embeddings are stored as {study['storage']}"


def _default(field: str) -> Any:
    return Study.model_fields[field].default
