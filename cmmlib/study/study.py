"""A study: what is run. One definition for notebook parameters, command-line flags and sweep files.

Every field is a plain JSON type, because papermill turns anything else into strings without a word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cmmlib.blazon.training.model import NAME as BLAZON_MINI
from cmmlib.errors import InputError
from cmmlib.storage.text_files import listed
from cmmlib.study.field_values import LARGEST as LARGEST
from cmmlib.study.field_values import TEXTS, address_fault, model_fault, text_fault, value_fault
from cmmlib.study.named_paths import (
    FETCH,
    PATH_PREFIXES,
    PATHS,
    WEB,
    file_name_only,
    folder_with_comma,
    is_file_here,
    looks_like_a_path,
    path_fault,
    prefix_of,
    resolved,
    slugify,
)
from cmmlib.texts.templates import BASE_TEMPLATE, flaw

# Where and how fast a study runs: these fields change no number and stay out of its id.
PLACES = {
    *("out", "data_root", "device", "batch_size", "workers", "max_broken"),
    *("llm_base_url", "max_requests", "max_cost"),
}
# The parameters that a notebook shows; the others are set by the same names.
COMMON = ("dataset", "backbone", "pretrained", "limit", "seed")
# Later than the first run ids: at its default such a field stays out of the id.
LATER = {"analysis_precision", "published"}
# Which kinds of data set use a field; every kind uses those that are not named.
NOT_EMBEDDINGS = frozenset({"blazon", "folder", "wds", "named"})
USED_BY = {
    **dict.fromkeys(("backbone", "pretrained", "templates", "base_template", "precision", "storage"), NOT_EMBEDDINGS),
    **dict.fromkeys(("device", "batch_size", "workers", "max_broken", "class_names"), NOT_EMBEDDINGS),
    **dict.fromkeys(("llm", "llm_base_url", "question", "domain", "transcript"), NOT_EMBEDDINGS),
    **dict.fromkeys(("max_requests", "max_cost"), NOT_EMBEDDINGS),
    "split": frozenset({"folder", "wds", "named"}),
    "data_root": frozenset({"named"}),
}
LIVE_ONLY = ("llm_base_url", "max_requests", "max_cost")
KINDS = {
    "blazon": "the embedded world, which is rendered and has one split",
    "embeddings": "embeddings:FILE, which brings its own texts and names and needs no model",
    "folder": "folder:PATH, which lies where its path says",
    "wds": "wds:PATH, which lies where its path says",
    "named": "a data set by its name",
}
# These are told by the contents of what they choose or name.
CONTENTS = {
    *("dataset", "backbone", "pretrained", "class_names", "classes", "split", "limit", "templates", "transcript"),
    *("compare_with", "published"),
}


class Study(BaseModel):
    """What is run: a backbone, a data set, a prompt pool, and what is asked of them.

    Raises:
        InputError: from `Study.of`, one line that names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    dataset: str = Field("blazon", description="blazon, cifar100, folder:PATH, wds:PATH, embeddings:FILE")
    backbone: str | None = Field(BLAZON_MINI, description="open_clip name, local-dir:PATH, hf-hub:NAME")
    pretrained: str | None = Field(None, description="open_clip tag or path of a checkpoint")
    class_names: str | None = Field(None, description="text file, one class name a line, in class order")
    classes: str | None = Field(None, description="text file, a class name or index a line [default: all]")
    split: str | None = Field(None, description="train, val, test ... [default: the usual one]")
    limit: int | None = Field(None, ge=1, description="images a class, drawn by the seed [default: all]")
    templates: str | None = Field(None, description="blazon-24, openai-7, openai-80, a text file [default: fits]")
    base_template: str = Field(BASE_TEMPLATE, description="results refer to it; {} is the class")
    worst_k: int | None = Field(None, ge=1, description="size of the worst set [default: min(20, classes / 4)]")
    n_described: int | None = Field(None, ge=1, description="suspects that get descriptions [default: classes / 4]")
    llm: str = Field("recorded", description="recorded, or litellm's name of a language model")
    llm_base_url: str | None = Field(None, description="server that speaks OpenAI's chat API")
    question: Literal["describe", "contrast"] = Field(
        "describe", description="describe, or contrast: also names the rivals"
    )
    domain: str | None = Field(None, description="what the images are, in the question [default: found]")
    transcript: str | None = Field(None, description="JSON-lines file of answers [default: what is known]")
    max_requests: int | None = Field(None, ge=0, description="budget of live requests")
    max_cost: float | None = Field(None, ge=0, description="budget of live requests in US dollars")
    compare_with: str | None = Field(None, description="finished runs' folders, comma between, for chapter 7")
    published: str | None = Field(
        None,
        description="chapter 0's source: a folder of published accuracies, or fetch [default: the package's tables]",
    )
    seed: int = Field(0, ge=0, description="seed of rendered images, splits and draws")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="fp32, bf16 or fp16: number format in the model"
    )
    analysis_precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="fp32 or bf16: number format of the similarities"
    )
    storage: Literal["float32", "float16"] = Field(
        "float32", description="float32 or float16: image embeddings on disk"
    )
    device: str = Field("auto", description="auto, cpu, cuda, mps, or several: cuda:0,cuda:1")
    batch_size: int = Field(64, ge=1, description="images or texts at a time")
    workers: int = Field(0, ge=0, description="processes that decode images")
    max_broken: int = Field(0, ge=0, description="images that cannot be read and are left out; one more stops")
    data_root: str | None = Field(None, description="folder of data sets that have names [default: in the cache]")
    out: str = Field("runs", description="folder that receives the run's own folder")

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Study from a mapping; unknown names are left to pydantic, which refuses them."""
        if not isinstance(parameters, Mapping) or not all(isinstance(name, str) for name in parameters):
            raise InputError(f"Study.of: {parameters!r:.80} is no mapping of names to values: give a dictionary")
        try:
            study = cls(**parameters)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(_one_line(first)) from None
        study._refuse_what_is_not_used()
        return study

    @property
    def kind(self) -> str:
        """Which kind of data set it names: a key of `KINDS`."""
        prefix = self.dataset.partition(":")[0].lower()
        return prefix if prefix in KINDS else "named"

    def _refuse_what_is_not_used(self) -> None:
        """What a study would ignore, it refuses: a field that was changed and has no say here."""
        changed = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        for name in changed:
            flag = f"{name}: --{name.replace('_', '-')}"
            if self.kind not in USED_BY.get(name, KINDS) and getattr(self, name) is not None:
                raise InputError(f"{flag} has no say over {KINDS[self.kind]}: leave it out")
            if name in LIVE_ONLY and self.llm == type(self).model_fields["llm"].default:
                raise InputError(f"{flag} has no say over recorded answers: name a model with --llm, or leave it out")

    @classmethod
    def from_cell(cls, names: dict[str, Any]) -> Self:
        """Study from a notebook's `globals()`: the variables of its parameters cell."""
        return cls.of({field: names[field] for field in cls.model_fields if field in names})

    @field_validator("*", mode="before")
    @classmethod
    def _can_be(cls, value: Any) -> Any:
        return _unless(value_fault(value), value)

    @field_validator(*TEXTS, mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        return _unless(text_fault(value), value)

    @field_validator("dataset", "backbone", "pretrained", "templates", "published", *PATHS, mode="before")
    @classmethod
    def _names_a_path(cls, value: Any) -> Any:
        return _unless(path_fault(value) if isinstance(value, str) else None, value)

    @field_validator("llm")
    @classmethod
    def _no_key(cls, value: str) -> str:
        return _unless(model_fault(value), value)

    @field_validator("backbone")
    @classmethod
    def _used(cls, value: str | None, info) -> str | None:
        """An embeddings file needs no model: the default one must not seem to have made it."""
        unused = str(info.data.get("dataset")).startswith("embeddings:") and value == BLAZON_MINI
        return None if unused else value

    @field_validator("base_template")
    @classmethod
    def _has_slot(cls, value: str) -> str:
        if fault := flaw(value):
            raise ValueError(f"template {value!r} {fault}: write it as in 'a photo of a {{}}.'")
        return value

    @field_validator("dataset", "backbone", "pretrained", "templates", *PATHS)
    @classmethod
    def _absolute(cls, value: str | None, info) -> str | None:
        """Papermill may run elsewhere, so a path is made absolute where the user gave it."""
        if value is None:
            return None
        prefix = prefix_of(value)
        path = value[len(prefix) :]
        is_path = prefix in PATH_PREFIXES or info.field_name in PATHS or looks_like_a_path(path)
        is_path = is_path or (prefix == WEB and Path(path).is_dir()) or (not prefix and is_file_here(path))
        return prefix + str(resolved(path)) if is_path else value

    @field_validator("published")
    @classmethod
    def _absolute_unless_fetched(cls, value: str | None) -> str | None:
        return value if value in (None, FETCH) else str(resolved(value))

    @field_validator("llm_base_url")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        return _unless(None if value is None else address_fault(value), value)

    @field_validator("compare_with")
    @classmethod
    def _absolute_list(cls, value: str | None) -> str | None:
        if value is None:
            return None
        whole = folder_with_comma(value)
        places = [] if whole else [str(resolved(folder)) for folder in listed(value)]
        whole = whole or next((place for place in places if "," in place), None)
        if whole:
            raise ValueError(f"commas separate folders, and {whole} has one in its path: rename it or its folder")
        return ",".join(places)

    @property
    def other_runs(self) -> list[Path]:
        """Folders of the runs that `compare_with` names."""
        return [Path(folder) for folder in listed(self.compare_with)] if self.compare_with else []

    def public(self) -> dict[str, Any]:
        """The fields as pages and manifests show them: the name of a file, never the folder it lies in."""
        fields = self.model_dump(exclude={"out", "data_root"})
        others = ",".join(folder.name for folder in self.other_runs) or None
        return {**{key: file_name_only(value) for key, value in fields.items()}, "compare_with": others}

    def run_id(self, slug: str, digests: dict[str, Any]) -> str:
        """A readable slug and a hash of what changes the numbers: contents, never paths, device or batch size."""
        unchanged = {name for name in LATER if getattr(self, name) == type(self).model_fields[name].default}
        fields = self.model_dump(exclude=PLACES | CONTENTS | unchanged)
        if self.other_runs:
            fields["compare_with"] = [folder.name for folder in self.other_runs]  # names of runs say what is in them
        text = json.dumps({**fields, **digests}, sort_keys=True)
        return f"{slugify(slug)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def changed(self) -> dict[str, Any]:
        """The fields that a notebook shows, and those that are not at their defaults: what makes this study again."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {name: v for name, v in self.model_dump().items() if name in COMMON or v != defaults[name]}

    @classmethod
    def parameters_cell(cls, values: Mapping[str, Any] | None = None) -> str:
        """Source of the `parameters` cell that every notebook carries; a test compares them.

        It holds the parameters that are changed most; `from_cell` finds any other that a notebook or papermill sets.

        Args:
            values: parameters in place of the defaults; those that are not at their default get a line too.
        """
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        chosen = {name: value for name, value in (values or {}).items() if name in defaults}
        changed = {name: value for name, value in chosen.items() if name not in COMMON and value != defaults[name]}
        shown = {name: chosen.get(name, defaults[name]) for name in COMMON} | changed
        lines = (f"{name} = {_literal(value)}  # {cls.model_fields[name].description}" for name, value in shown.items())
        return "\n".join(lines)


def _unless(fault: str | None, value: Any) -> Any:
    """A field's value, unless there is a fault, which pydantic makes a refusal of the field."""
    if fault:
        raise ValueError(fault)
    return value


def _literal(value: Any) -> str:
    """A parameter as Python writes it, strings in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _one_line(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {field!r}: the study's parameters are {', '.join(Study.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    is_number = error["type"] == "string_type" and isinstance(error["input"], int | float)
    got += ": write it in quotes" if is_number else ""
    return f"{field}: {message[0].lower()}{message[1:]}{got}"
