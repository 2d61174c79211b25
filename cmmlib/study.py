"""A study: what is run. One definition for notebook parameters, command-line flags and sweep files.

Every field is a plain JSON type, because papermill turns anything else into strings without a word.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cmmlib.errors import InputError

PATH_PREFIXES = ("folder:", "embeddings:", "local-dir:")
# Where and how fast a study runs: these fields change no number and stay out of its id.
PLACES = {"out", "device", "batch_size", "workers"}


class Study(BaseModel):
    """What is run: a backbone, a data set, a prompt pool, and what is asked of them.

    Raises:
        InputError: from `Study.of`, one line that names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    dataset: str = Field("", description="folder:PATH (a folder per class) or embeddings:FILE")
    backbone: str | None = Field(None, description="open_clip architecture or local-dir:PATH; none for embeddings:")
    pretrained: str | None = Field(None, description="open_clip tag or path of a checkpoint")
    class_names: str | None = Field(None, description="text file, one class name a line, in class order")
    templates: str = Field("openai-7", description="prompt pool: openai-80, openai-7, or a text file")
    base_template: str = Field("a photo of a {}.", description="results refer to it; {} is the class")
    worst_k: int | None = Field(None, ge=1, description="size of the worst set [default: min(20, classes / 4)]")
    seed: int = Field(0, ge=0, description="seed of splits and draws")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="fp32, bf16 or fp16: number format in the model"
    )
    storage: Literal["float32", "float16"] = Field(
        "float32", description="float32 or float16: image embeddings on disk"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    batch_size: int = Field(64, ge=1, description="images or texts at a time")
    workers: int = Field(0, ge=0, description="processes that decode images")
    out: str = Field("runs", description="folder that receives the run's own folder")

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Study from a mapping; unknown names are left to pydantic, which refuses them."""
        try:
            return cls(**parameters)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(_one_line(first)) from None

    @classmethod
    def from_cell(cls, names: dict[str, Any]) -> Self:
        """Study from a notebook's `globals()`: the variables of its parameters cell."""
        return cls.of({field: names[field] for field in cls.model_fields if field in names})

    @field_validator("dataset")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError("name one, for example DATASET=embeddings:FILE or --dataset folder:PATH")
        return value

    @field_validator("base_template")
    @classmethod
    def _has_slot(cls, value: str) -> str:
        if "{}" not in value:
            raise ValueError(
                f"template {value!r} has no {{}} for the class name: write one, as in 'a photo of a {{}}.'"
            )
        return value

    @field_validator("dataset", "backbone", "pretrained", "class_names", "templates", "out")
    @classmethod
    def _absolute(cls, value: str | None, info) -> str | None:
        """Papermill may run elsewhere, so a path is made absolute where the user gave it."""
        if value is None:
            return None
        prefix = next((p for p in PATH_PREFIXES if value.startswith(p)), "")
        path = value[len(prefix) :]
        is_path = prefix or info.field_name in ("class_names", "out") or _looks_like_a_path(path)
        return prefix + str(Path(path).expanduser().resolve()) if is_path else value

    def public(self) -> dict[str, Any]:
        """The fields as pages and manifests show them: the name of a file, never the folder it lies in."""
        return {key: _file_name_only(value) for key, value in self.model_dump(exclude={"out"}).items()}

    def run_id(self, slug: str, digests: dict[str, Any]) -> str:
        """A readable slug and a hash of what changes the numbers: contents, never paths, device or batch size."""
        fields = self.model_dump(exclude=PLACES | {"dataset", "backbone", "pretrained", "class_names", "templates"})
        text = json.dumps({**fields, **digests}, sort_keys=True)
        return f"{slugify(slug)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @classmethod
    def parameters_cell(cls) -> str:
        """Source of the `parameters` cell that every notebook carries; a test compares them."""
        lines = (f"{key} = {json.dumps(f.default)}  # {f.description}" for key, f in cls.model_fields.items())
        return "\n".join(line.replace(" = null", " = None") for line in lines)


def slugify(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "study"


def _looks_like_a_path(value: str) -> bool:
    return Path(value).suffix in {".pt", ".pth", ".bin", ".safetensors", ".txt"} or value.startswith(
        ("/", "./", "../", "~")
    )


def _file_name_only(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    prefix = next((p for p in PATH_PREFIXES if value.startswith(p)), "")
    is_path = prefix or value.startswith("/")
    return prefix + Path(value[len(prefix) :]).name if is_path else value


def _one_line(error: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {field!r}: the study's parameters are {', '.join(Study.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"{field}: {message[0].lower()}{message[1:]}{got}"
