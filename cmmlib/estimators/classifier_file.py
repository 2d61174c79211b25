"""A classifier's file: safetensors with its vectors, and JSON that says what they are. Whole, or not written."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from cmmlib.errors import InputError, is_seen, why
from cmmlib.estimators.classifier import Classifier, Provenance
from cmmlib.functional.checks import LOGIT_SCALES, check_embeddings
from cmmlib.functional.prior_matching import Correction
from cmmlib.storage.cache import save_tensors, unpack_tensors
from cmmlib.storage.text_files import content, keys_twice

FORMAT = 1
KEY = "cmmlib_classifier"  # of the JSON in the file's metadata
REQUIRED = {"text_features", "bias"}
LARGEST = 1e6  # of any number of a tensor
UNIT = 0.01  # how far the length of a text vector may be from 1


class _Header(BaseModel):
    """The JSON: all but the tensors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = FORMAT
    kind: str
    logit_scale: float = Field(gt=0, allow_inf_nan=False)
    class_names: list[str] | None
    suspects: list[int]
    converged: bool
    rounds: int
    provenance: Provenance


def save_classifier(classifier: Classifier, path: str | PathLike[str]) -> None:
    """Write a classifier; an older one of that name is replaced, any other file is left alone.

    Tensors: `text_features` [C, D], `bias` [C] and, where there are any, `prototypes` [C, D]. JSON: the factor of text
    similarities in the logits (`logit_scale`), class names, suspects, provenance.

    Raises:
        InputError: names that are not one a class; numbers that `load_classifier` refuses; a file there that is no
            classifier.
        OSError: a full disk, a folder that cannot be written.
    """
    path, correction = as_path(path), classifier.correction
    header = _Header(
        kind=classifier.kind,
        logit_scale=correction.text_scale,
        class_names=classifier.class_names,
        suspects=classifier.suspects,
        converged=correction.converged,
        rounds=correction.rounds,
        provenance=classifier.provenance,
    )
    tensors = {"text_features": correction.text_features.float(), "bias": correction.bias}
    if correction.prototypes.any():
        tensors["prototypes"] = correction.prototypes
    _check(path.name, header, tensors)
    _check_sizes(path.name, header, tensors)
    if path.exists():
        _refuse_other_file(path)
    save_tensors(path, {key: x.cpu() for key, x in tensors.items()}, {KEY: header.model_dump_json()})


def as_path(path: Any) -> Path:
    """A path from a text or a path.

    Raises:
        InputError: something else.
    """
    try:
        if "\0" not in os.fsdecode(path):
            return Path(path)
        raise InputError(f"{path!r} is no path of a file: leave out the character of number 0")
    except TypeError:
        raise InputError(f"{path!r} is no path of a file: give a text or a pathlib.Path") from None


def _refuse_other_file(path: Path) -> None:
    try:
        _read(path)
    except InputError:
        raise InputError(f"{path.name or path} exists and is no classifier: choose another name or remove it") from None


def load_classifier(path: str | PathLike[str]) -> Classifier:
    """A classifier from its file, ready to `predict`.

    A logit scale outside `LOGIT_SCALES` and a number beyond `LARGEST` are refused. Trained models have a scale of about
    1 to 120, and a fitted bias is at most some multiples of it. Far beyond, float32, in which logits are computed, has
    no digits left for what the images say (near 1e8 its steps are 8 logits), then overflows: every image would get the
    same class, with a probability of 1 or none.

    Raises:
        InputError: no file, another kind of file, parts that disagree, or such numbers; one line that says which.
    """
    path = as_path(path)
    header, tensors = _read(path)
    _check(path.name, header, tensors)
    _check_sizes(path.name, header, tensors)
    texts = tensors["text_features"]
    moved = tensors.get("prototypes", torch.zeros_like(texts))
    correction = Correction(texts, header.logit_scale, moved, tensors["bias"], header.converged, header.rounds)
    return Classifier(header.kind, correction, header.suspects, header.class_names, header.provenance)


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    try:
        whole = content(path)
        tensors, metadata = unpack_tensors(whole)
        if keys_twice(metadata[KEY]) or keys_twice(whole[8 : 8 + int.from_bytes(whole[:8], "little")]):
            raise ValueError("a key is there twice")
        header = _Header.model_validate_json(metadata[KEY])
    except OSError as error:
        raise InputError(f"cannot read classifier {path}: {why(error)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise InputError(f"{path.name}: {where}{first['msg'].lower()}, as this cmmlib reads classifiers") from None
    except (ValueError, KeyError):
        raise InputError(f"{path.name} is no classifier of cmmlib, or a damaged one: save it again") from None
    return header, tensors


def _check(name: str, header: _Header, tensors: dict[str, Tensor]) -> None:
    """Refuse parts that do not belong together, or numbers that are none."""
    shapes = ", ".join(f"{key} {list(x.shape)}" for key, x in sorted(tensors.items()))
    if not REQUIRED <= tensors.keys() <= {*REQUIRED, "prototypes"}:
        raise InputError(f"{name} holds {shapes or 'no tensor'}: expected text_features, bias and perhaps prototypes")
    texts, bias, moved = tensors["text_features"], tensors["bias"], tensors.get("prototypes", tensors["text_features"])
    n_classes = bias.numel()
    fits = texts.ndim == 2 and moved.shape == texts.shape and bias.shape == texts.shape[:1]
    if not fits or n_classes < 2 or not texts.shape[1]:
        raise InputError(f"{name}: shapes disagree: {shapes}; expected [C, D] and [C] of two or more classes")
    if header.class_names is not None and len(header.class_names) != n_classes:
        raise InputError(f"{name}: {len(header.class_names)} class names for {n_classes} classes")
    if header.class_names is not None and not all(map(is_seen, header.class_names)):
        raise InputError(f"{name}: a class name is empty: give every class a name and save it again")
    if not set(header.suspects) <= set(range(n_classes)):
        raise InputError(f"{name}: suspects {header.suspects} are not among the {n_classes} classes")
    if not all(x.is_floating_point() and bool(x.float().isfinite().all()) for x in tensors.values()):
        raise InputError(f"{name}: a number is NaN, Inf, no float or none of float32: fit the classifier again")
    check_embeddings(texts, f"{name}: text_features")
    length = torch.linalg.vector_norm(texts.double(), dim=1)
    off = int((length - 1).abs().argmax())
    if abs(float(length[off]) - 1) > UNIT:
        raise InputError(f"{name}: text_features row {off} has length {float(length[off]):.3g}, expected 1")


def _check_sizes(name: str, header: _Header, tensors: dict[str, Tensor]) -> None:
    """Refuse numbers with which every image would be of one class."""
    if not LOGIT_SCALES[0] <= header.logit_scale <= LOGIT_SCALES[1]:
        raise InputError(
            f"{name}: logit_scale is {header.logit_scale:.3g}, expected {LOGIT_SCALES[0]:g} to {LOGIT_SCALES[1]:g}: "
            "fit the classifier again"
        )
    for key, x in sorted(tensors.items()):
        most = float(x.double().abs().max())
        if most > LARGEST:
            raise InputError(
                f"{name}: {key} holds numbers of size {most:.3g}, expected {LARGEST:g} at most: "
                "fit the classifier again"
            )
