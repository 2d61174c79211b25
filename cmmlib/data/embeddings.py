"""Embeddings that somebody already has, from one file: .npz without pickles, or .safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.data.array_files import read_arrays
from cmmlib.data.labels import RULE, outside
from cmmlib.errors import InputError, is_seen, some
from cmmlib.functional.checks import LOGIT_SCALES, cancelling_classes, check_embeddings
from cmmlib.storage.cache import digest, file_digests
from cmmlib.storage.text_files import repeated

KEYS = (
    *("image_features", "text_features", "classnames", "labels", "prompts", "logit_scale"),
    *("backbone", "pretrained", "image_ids"),
)


@dataclass(frozen=True)
class EmbeddingFile:
    """Image and text embeddings of one file, unit norm, float32.

    Attributes:
        text_features: one embedding a prompt and class, [P, C, D].
        labels: class index of each image, [N], or None.
        stored_as: number format of the images in the file.
        assumed: what the file does not say and this package assumed.
        remarks: lines for whoever runs a study: what in the file looks wrong.
    """

    name: str
    classnames: list[str]
    image_features: Float[Tensor, "N D"]
    text_features: Float[Tensor, "P C D"]
    labels: Int[Tensor, "N"] | None
    prompts: list[str]
    logit_scale: float
    backbone: str | None
    pretrained: str | None
    image_ids: list[str] | None
    digest: str
    stored_as: str
    assumed: list[str]
    remarks: list[str] = field(default_factory=list)

    def pick(self, rows: Sequence[int]) -> EmbeddingFile:
        """These images alone, in this order; the classes stay."""
        rows = list(rows)
        return replace(
            self,
            image_features=self.image_features[rows],
            labels=None if self.labels is None else self.labels[rows],
            image_ids=self.image_ids and [self.image_ids[i] for i in rows],
            digest=digest(self.digest, "images", rows),
        )

    def with_classes(self, classes: Sequence[int], labels: Int[Tensor, "N"] | None) -> EmbeddingFile:
        """The same images among these classes alone, with labels that count them anew."""
        classes = list(classes)
        return replace(
            self,
            classnames=[self.classnames[c] for c in classes],
            text_features=self.text_features[:, classes],
            labels=labels,
            digest=digest(self.digest, "classes", classes),
        )


@dataclass(frozen=True)
class ImageEmbeddings:
    """The images of an embeddings file alone: unit norm, float32, with what each is called; `remarks` are lines on what
    in the file looks wrong.
    """

    image_features: Float[Tensor, "N D"]
    image_ids: list[str]
    backbone: str | None
    pretrained: str | None
    remarks: list[str]


def load_image_embeddings(path: Path) -> ImageEmbeddings:
    """Images to be classified, from a file that `load_embeddings` could read but for texts and names, which may lack.

    Raises:
        InputError: a missing file or key, another shape, NaN, Inf or zero-length rows.
    """
    raw = read_arrays(path)
    if "image_features" not in raw:
        raise InputError(f"{path.name} lacks image_features: it has {', '.join(sorted(raw)) or 'nothing'}")
    x = _features(raw, "image_features", path)
    if x.ndim != 2 or not x.numel():
        raise InputError(
            f"{path.name}: image_features has shape {list(x.shape)}, expected [N, D] of one or more images"
        )
    check_embeddings(x, f"{path.name}: image_features")
    ids = _image_ids(raw, len(x), path) or [str(i) for i in range(len(x))]
    x = torch.nn.functional.normalize(x.float(), dim=-1)
    backbone, pretrained = (_one_string(raw, key, path) for key in ("backbone", "pretrained"))
    return ImageEmbeddings(x, ids, backbone, pretrained, [*_repeated(raw, path, ["image_ids"]), *_unused(raw)])


def load_embeddings(path: Path) -> EmbeddingFile:
    """Embeddings from .npz (without pickles) or .safetensors (strings as JSON in its metadata).

    Keys: image_features [N, D], text_features [C, D] or [P, C, D], classnames [C]; optional labels [N], prompts [P],
    logit_scale (default 100), backbone, pretrained, image_ids [N]. Rows are scaled to unit norm.

    Raises:
        InputError: a missing file or key, object arrays, shapes that disagree, labels out of range, NaN, Inf or
            zero-length rows.
    """
    raw = read_arrays(path)
    missing = [key for key in ("image_features", "text_features", "classnames") if key not in raw]
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}: it has {', '.join(sorted(raw))}")
    image_features, texts = _features(raw, "image_features", path), _features(raw, "text_features", path)
    text_features = texts[None] if texts.ndim == 2 else texts
    classnames = _strings(raw, "classnames", path)
    prompts = _strings(raw, "prompts", path) if "prompts" in raw else [f"prompt {p}" for p in range(len(text_features))]
    _check_fit(path, image_features, text_features, classnames, prompts)
    empty = next((c for c, name in enumerate(classnames) if not is_seen(name)), None)
    if empty is not None:
        raise InputError(f"{path.name}: class {empty} has an empty name: classnames needs a name for each class")
    check_embeddings(image_features, f"{path.name}: image_features")
    check_embeddings(texts, f"{path.name}: text_features")
    text_features = torch.nn.functional.normalize(text_features.float(), dim=-1)
    if cancelled := cancelling_classes(text_features):
        named = some([classnames[c] for c in cancelled])
        raise InputError(f"{path.name}: the mean of the prompts of class {named} is zero: they cancel, leave one out")
    return EmbeddingFile(
        name=path.stem,
        classnames=classnames,
        image_features=torch.nn.functional.normalize(image_features.float(), dim=-1),
        text_features=text_features,
        labels=_labels(raw, len(image_features), len(classnames), path),
        prompts=prompts,
        logit_scale=_logit_scale(raw, path),
        backbone=_one_string(raw, "backbone", path),
        pretrained=_one_string(raw, "pretrained", path),
        image_ids=_image_ids(raw, len(image_features), path),
        digest=file_digests(path, [path])[0],
        stored_as=str(image_features.dtype).removeprefix("torch."),
        assumed=[] if "logit_scale" in raw else ["logit_scale = 100"],
        remarks=[*_of_logit_scale(raw, path), *_repeated(raw, path), *_unused(raw)],
    )


def _repeated(raw: dict[str, Any], path: Path, keys: Sequence[str] = ("prompts", "image_ids")) -> list[str]:
    """Lines on prompts, and on ids of images, that are there more than once."""
    read = {"prompts": lambda: _strings(raw, "prompts", path), "image_ids": lambda: _image_names(raw, path)}
    twice = {key: repeated(read[key]()) for key in keys if key in raw}
    return [
        f"{key} that are there more than once: {some([*map(repr, texts)])}" for key, texts in twice.items() if texts
    ]


def _unused(raw: dict[str, Any]) -> list[str]:
    """A line on arrays that are not read, where there are any: `label` may be meant for `labels`."""
    others = sorted(raw.keys() - {*KEYS})
    return [f"arrays that are not used: {some(others)}; those that are: {', '.join(KEYS)}"] if others else []


def _features(raw: dict[str, Any], key: str, path: Path) -> Tensor:
    array = _array(raw, key, path)
    is_float = array.is_floating_point() if isinstance(array, Tensor) else np.issubdtype(array.dtype, np.floating)
    if not is_float:
        raise InputError(f"{path.name}: {key} holds {array.dtype}, expected floating-point embeddings")
    return _tensor(array, f"{path.name}: {key}")


def _array(raw: dict[str, Any], key: str, path: Path) -> Any:
    """An array or tensor; a member of an .npz without the ending .npy may be a text, or anything.

    Raises:
        InputError: what is no array.
    """
    if not isinstance(raw[key], np.ndarray | Tensor):
        raise InputError(f"{path.name}: {key} is no array: save the file again with numpy.savez")
    return raw[key]


def _tensor(array: Any, name: str, remedy: str = "save float16, float32 or float64") -> Tensor:
    """The array as torch knows it: numpy files may hold big-endian numbers, or kinds that torch has not."""
    try:
        return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")) if isinstance(array, np.ndarray) else array)
    except TypeError:
        raise InputError(f"{name} holds {array.dtype}, which torch cannot read: {remedy}") from None


def _check_fit(
    path: Path, image_features: Tensor, text_features: Tensor, classnames: Sequence[str], prompts: Sequence[str]
) -> None:
    shapes = f"image_features {list(image_features.shape)}, text_features {list(text_features.shape)}"
    shapes += f", {len(classnames)} classnames"
    if (
        image_features.ndim != 2
        or text_features.ndim != 3
        or image_features.shape[1] != text_features.shape[2]
        or text_features.shape[1] != len(classnames)
    ):
        raise InputError(f"{path.name}: shapes disagree: {shapes}; expected [N, D], [C, D] or [P, C, D], and C names")
    if not image_features.numel() or not text_features.numel() or len(classnames) < 2:
        raise InputError(f"{path.name}: needs one or more images and two or more classes: {shapes}")
    if len(prompts) != len(text_features):
        raise InputError(f"{path.name}: prompts has {len(prompts)} names, text_features {len(text_features)} prompts")


def _labels(raw: dict[str, Any], n_images: int, n_classes: int, path: Path) -> Tensor | None:
    if "labels" not in raw:
        return None
    remedy = "save integers, each the place of a class in classnames, from 0"  # names belong there, and labels count
    stored = _tensor(_array(raw, "labels", path), f"{path.name}: labels", remedy)
    if stored.dtype == torch.bool or stored.is_floating_point() or stored.is_complex() or stored.shape != (n_images,):
        held = f"{str(stored.dtype).removeprefix('torch.')} {list(stored.shape)} for {n_images} images"
        raise InputError(f"{path.name}: labels is {held}: {RULE}")
    labels = stored.long()
    wrong = ((labels < 0) | (labels >= n_classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{path.name}: labels row {row} is {stored[row].item()}, {outside(labels, n_classes)}")
    return labels


def _strings(raw: dict[str, Any], key: str, path: Path) -> list[str]:
    """Texts of a key.

    Raises:
        InputError: what is no text, or bytes that are not UTF-8.
    """
    value = raw[key]
    if isinstance(value, np.ndarray | Tensor) and value.ndim > 1:
        raise InputError(f"{path.name}: {key} has shape {list(value.shape)}, expected one text after the other")
    values = value.reshape(-1).tolist() if isinstance(value, np.ndarray | Tensor) else value
    texts = [values] if isinstance(values, str) else list(values) if isinstance(values, list) else [values]
    for place, text in enumerate(texts):
        if not isinstance(text, str | bytes):
            raise InputError(f"{path.name}: {key} row {place} is {_shown(text)}, which is no text: save strings")
        try:
            texts[place] = (text if isinstance(text, bytes) else text.encode()).decode()
        except UnicodeError:
            raise InputError(f"{path.name}: {key} row {place} is not UTF-8 text: save strings as UTF-8") from None
    return texts


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _image_ids(raw: dict[str, Any], n_images: int, path: Path) -> list[str] | None:
    ids = _image_names(raw, path) if "image_ids" in raw else None
    if ids is not None and len(ids) != n_images:
        raise InputError(f"{path.name}: {len(ids)} image_ids for {n_images} images")
    return ids


def _image_names(raw: dict[str, Any], path: Path) -> list[str]:
    """What the images are called; whole numbers are names too."""
    ids = raw["image_ids"]
    if isinstance(ids, np.ndarray | Tensor) and np.asarray(ids).dtype.kind in "iu":
        return [str(number) for number in ids.reshape(-1).tolist()]
    return _strings(raw, "image_ids", path)


def _one_string(raw: dict[str, Any], key: str, path: Path) -> str | None:
    texts = _strings(raw, key, path) if key in raw else []
    if len(texts) > 1:
        raise InputError(f"{path.name}: {key} holds {len(texts)} texts, {some(texts)}: save the one that was used")
    return texts[0] if texts else None


def _logit_scale(raw: dict[str, Any], path: Path) -> float:
    value = raw.get("logit_scale", 100.0)
    values = value.reshape(-1).tolist() if isinstance(value, np.ndarray | Tensor) else value
    number = values[0] if isinstance(values, list) and len(values) == 1 else values
    low, high = LOGIT_SCALES
    if isinstance(number, bool) or not (isinstance(number, int | float) and low <= number <= high):
        raise InputError(f"{path.name}: logit_scale must be one number from {low:g} to {high:g}, got {_shown(number)}")
    return float(number)


def _of_logit_scale(raw: dict[str, Any], path: Path) -> list[str]:
    """A line where the scale looks like the logarithm that CLIP's weights hold (ln 100 is 4.6, ln 1/0.07 is 2.7), or
    like the temperature, which it is 1 over."""
    scale = _logit_scale(raw, path)
    says = f"{path.name}: logit_scale is {scale:.3g}, which looks like"
    if scale < 1:
        return [f"{says} a temperature: store 1 / temperature"]
    return [f"{says} the logarithm of it: store exp(logit_scale)"] if 2 <= scale <= 5 else []
