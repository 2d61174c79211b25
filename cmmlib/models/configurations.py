"""open_clip's configuration files: read, and every key checked before it becomes an argument of a model or a tokenizer.

A folder's configuration comes from outside. open_clip hands its values on as keyword arguments; here a key that it does
not have, or a value of another type, is named with its file.
"""

from __future__ import annotations

import json
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cmmlib.errors import InputError
from cmmlib.storage.text_files import content, read_json

CONFIG = "open_clip_config.json"
TOKENIZER_KEYS = (
    "clean",
    "language",
    "strip_sep_token",
)  # the others read files, or draw lots
CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Model(BaseModel):
    """What open_clip makes a model of, `model_cfg`; its parts are open_clip's own classes."""

    model_config = CHECKED

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    multimodal_cfg: dict[str, Any] = {}
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: float = 0.0
    init_logit_bias: float = 0.0
    nonscalar_logit_scale: bool = False
    output_dict: bool = False


# Pixels are from 0 to 1: numbers of a scale from 0 to 255 would make every image alike.
Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=2)]


class _Preprocessing(BaseModel):
    """How images are prepared, `preprocess_cfg`."""

    model_config = CHECKED

    size: int | tuple[int, int] = 224
    mode: Literal["RGB"] = "RGB"
    mean: tuple[Mean, Mean, Mean] = (0.0, 0.0, 0.0)
    std: tuple[Deviation, Deviation, Deviation] = (1.0, 1.0, 1.0)
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


SIZES = {
    *("image_size", "patch_size", "width", "layers", "heads", "head_width", "context_length", "vocab_size"),
    *("embed_dim", "mlp_ratio", "attn_pooler_queries", "attn_pooler_heads", "dim_head", "n_queries"),
}
MOST_SIZES = {"layers": 1_000, "vocab_size": 10_000_000}
MOST_SIZE = 100_000  # of every other
PARTS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}


def read_configuration(folder: Path) -> dict[str, Any]:
    """What a folder's configuration file holds.

    Raises:
        InputError: a file that is missing or holds no JSON object.
    """
    found = read_json(folder / CONFIG, subject_of(folder))
    if not _is_plain_utf8(folder / CONFIG):  # JSON may be UTF-16 or begin with a mark; open_clip reads neither
        raise InputError(f"{subject_of(folder)} is not UTF-8, or begins with a byte order mark: save it as plain UTF-8")
    return found


def _is_plain_utf8(file: Path) -> bool:
    try:
        return not content(file).decode("utf-8").startswith("\ufeff")
    except UnicodeDecodeError:
        return False


def model_part(configuration: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`model_cfg`, checked, with nothing that runs code or reads files that the folder's digest does not know.

    Raises:
        InputError: the first key that is missing, unknown, of another type or not let through.
    """
    subject, found = subject_of(folder), _object(configuration, "model_cfg", folder)
    _check(_Model, found, "model_cfg", subject)
    _check_sizes(found, "model_cfg", subject)
    for name, kind in PARTS.items():
        if found.get(name) is not None:
            _check(kind, found[name], f"model_cfg.{name}", subject)
            _check_sizes(found[name], f"model_cfg.{name}", subject)
    for key in found["text_cfg"].get("tokenizer_kwargs") or {}:
        if key not in TOKENIZER_KEYS:  # they reach transformers, where trust_remote_code runs a folder's Python
            known = ", ".join(TOKENIZER_KEYS)
            raise InputError(f"{subject} has {key!r} in tokenizer_kwargs, and only {known} are read: take it out")
    image_tower = found["vision_cfg"].get("timm_model_name")
    if ":" in str(image_tower):
        raise InputError(f"{subject} has an image tower that lies elsewhere, {image_tower!r}: name one of timm's own")
    return found


def _check_sizes(part: dict[str, Any], name: str, subject: str) -> None:
    """Refuse sizes that no tower has: with some of them open_clip makes a model that then takes no image."""
    if "context_length" in part and part["context_length"] is None:  # open_clip's tokenizer takes it as it is
        raise InputError(f"{subject} is no configuration of open_clip: {name}.context_length is null: leave it out")
    for key in sorted(SIZES & part.keys()):
        sizes = part[key] if isinstance(part[key], list | tuple) else [part[key]]
        least, most = 0 if key == "mlp_ratio" else 1, MOST_SIZES.get(key, MOST_SIZE)
        if any(isinstance(size, int | float) and not least <= size <= most for size in sizes):
            said = f"{name}.{key} is {part[key]}, expected {least} to {most:,}"
            raise InputError(f"{subject} is no configuration of open_clip: {said}")


def preprocessing_part(configuration: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`preprocess_cfg`, checked; empty where there is none.

    Raises:
        InputError: the first key that is unknown or has another type.
    """
    if configuration.get("preprocess_cfg") is None:
        return {}
    found = _object(configuration, "preprocess_cfg", folder)
    _check(_Preprocessing, found, "preprocess_cfg", subject_of(folder))
    return found


def wants_quick_gelu(configuration: dict[str, Any], folder: Path) -> bool:
    """Whether the weights were trained with QuickGELU."""
    return bool(_object({"model_cfg": {}, **configuration}, "model_cfg", folder).get("quick_gelu"))


def subject_of(folder: Path) -> str:
    """What begins a line on a folder's configuration."""
    return f"backbone: {CONFIG} in {folder.name}"


def _object(configuration: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    if key not in configuration:
        raise InputError(f"{subject_of(folder)} is no configuration of open_clip: it has no {key}")
    found = configuration[key]
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise InputError(f"{subject_of(folder)} is no configuration of open_clip: {key} is {kind}, expected keys")
    return found


def _check(kind: type, values: dict[str, Any], where: str, subject: str) -> None:
    """Compare keys and types with a class; null stands for a value that is not given, as open_clip takes it."""
    known = signature(kind).parameters
    given = {key: value for key, value in values.items() if value is not None or key not in known}
    try:
        _adapter(kind).validate_json(json.dumps(given))  # of JSON a list is taken for a tuple, in strict mode too
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([where, *map(str, first["loc"][:1])])  # no key where a text holds half a character
        unknown = first["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        told = "is no key of it: take it out" if unknown else f"{first['msg'].lower()}, got {first['input']!r:.40}"
        raise InputError(f"{subject} is no configuration of open_clip: {where}: {told}") from None


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind if issubclass(kind, BaseModel) else dataclass(kind, config=CHECKED))
