"""What is read of a finished run's manifest.json and results.json, checked: anyone may have edited them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmmlib.errors import InputError

Version = Literal[1]  # `run_files.SCHEMA_VERSION`
# Paths of what chapters make within a run: see `made_files.PLACES`.
MADE = r"^(results\.json|[^/\x00]+\.csv|(figures|classifiers|chapters)/[^/\x00]+\.(svg|png|safetensors|ipynb))$"
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Data(_Part):
    name: str
    digest: str


class _Model(_Part):
    backbone: str | None
    pretrained: str | None


class _Study(_Part):
    dataset: str
    base_template: str | None = None
    class_names: str | None = None
    split: str | None = None
    precision: str
    storage: str


class _Manifest(_Part):
    schema_version: Version = 1
    id: str
    study: _Study
    data: _Data
    model: _Model
    templates: str | None = None
    conditions: dict[str, bool] = {}
    chapters: dict[str, dict[str, Any]] = {}


class _Chapter(_Part):
    stamp: str = ""
    seconds: float = 0.0


class _File(_Part):
    chapters: list[str]
    sha256: dict[str, str]


class _Written(_Part):
    """What `cmm run` reads of its own manifest. A path is that of a file of chapters, so none leads out of the run."""

    chapters: dict[str, _Chapter]
    files: dict[Annotated[str, Field(pattern=MADE)], _File] = {}


class _Scores(_Part):
    overall: Share | None
    worst: dict[str, Share | None]
    mean_per_class: Share | None = None
    base_worst: dict[str, Share | None] = {}
    base_worst_count: dict[str, int | None] = {}
    base_worst_split_half: dict[str, Share | None] = {}


class _Method(_Scores):
    name: str


class _Results(_Part):
    schema_version: Version = 1
    accuracy: _Scores | None = None
    ensembles: list[_Method] | None = None
    prior_matching: _Scores | None = None
    prototypes: _Scores | None = None


def is_of_a_run(manifest: dict[str, Any]) -> bool:
    """Whether a manifest says what chapters made in the way in which a run writes it."""
    try:
        _Written.model_validate(manifest)
    except ValidationError:
        return False
    return True


SCHEMAS = {"manifest.json": _Manifest, "results.json": _Results}


def check(name: str, content: dict[str, Any], run: str) -> None:
    """Refuse a file whose parts that others read are missing or of another type.

    Raises:
        InputError: names the run, the file and the key.
    """
    try:
        SCHEMAS[name].model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{run}: {where} in {name}: {first['msg'].lower()}; run `cmm run` again") from None
