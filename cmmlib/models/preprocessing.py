"""How images are prepared for weights that lie in a file or a folder: what is said beside them, or else what is usual.

open_clip takes CLIP's own mean, deviation and resizing wherever nothing is said, for SigLIP's weights too. Here what
nobody says is what all published weights of the architecture share; where they share none, a line says what is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.transform import PreprocessCfg

from cmmlib.errors import InputError, some
from cmmlib.models import WEIGHT_ENDINGS
from cmmlib.models.configurations import CONFIG, preprocessing_part, read_configuration, subject_of, wants_quick_gelu

KEYS = ("mean", "std", "interpolation", "resize_mode")
USUAL = {key: asdict(PreprocessCfg())[key] for key in KEYS}  # open_clip's, where nothing is said
DEFAULT_SIZE = 224  # pixels; of a model whose configuration names none
Found = tuple[dict[str, Any], tuple[str, ...]]  # preprocessing, empty where it is the usual one; remarks


def of_file(name: str, path: Path, configuration: dict[str, Any]) -> Found:
    """Preprocessing of an architecture's checkpoint: as the configuration beside it says, else as its tags have it.

    Args:
        name, configuration: the architecture, and what open_clip makes of it.

    Raises:
        InputError: the configuration beside the file is damaged, or is that of a model with another activation or
            image size, which leave no trace in the weights' shapes.
    """
    own, remarks = _beside(name, path, configuration) if (path.parent / CONFIG).is_file() else ({}, ())
    if any(own.get(key) is not None for key in KEYS):
        said = {key: own[key] for key in KEYS if key in own}
        is_alone = _find_checkpoint_in_dir(path.parent) == str(path)  # its embeddings were always keyed by what is said
        return said if is_alone or _is_unusual(said) else {}, remarks
    shared = _shared([name])
    return shared or {}, (remarks if shared is not None else (*remarks, _assumed(path.name, [name])))


def of_folder(folder: Path, own: dict[str, Any], configuration: dict[str, Any]) -> Found:
    """Preprocessing of a folder's model where its configuration says none; empty where it does.

    Args:
        own, configuration: `preprocess_cfg` and `model_cfg`.
    """
    if any(own.get(key) is not None for key in KEYS):
        return {}, _unused(folder, own, configuration, ("size",))
    names = [name for name in open_clip.list_models() if open_clip.get_model_config(name) == configuration]
    shared, remarks = _shared(names), _unused(folder, own, configuration, ("size",))
    return shared or {}, (remarks if shared is not None else (*remarks, _assumed(folder.name, names)))


def of_archive(path: Path) -> tuple[str, ...]:
    """A line where a configuration lies beside a file in OpenAI's own format, which never needs one."""
    if not (path.parent / CONFIG).is_file():
        return ()
    return (f"{CONFIG} beside {path.name} is not read: OpenAI's own format has QuickGELU and CLIP's preprocessing",)


def other_weights(weights: Path) -> list[str]:
    """Names of other files of weights in the same folder."""
    return sorted(path.name for path in weights.parent.iterdir() if path.suffix in WEIGHT_ENDINGS and path != weights)


# ---------------------------------------------------------------- the configuration beside a file


def _beside(name: str, path: Path, configuration: dict[str, Any]) -> Found:
    """`preprocess_cfg` of the configuration beside a checkpoint, once the two agree."""
    folder = path.parent
    read = read_configuration(folder)
    _require_same_activation(name, path, read, configuration)
    own = preprocessing_part(read, folder)
    _require_same_size(name, path, read, configuration)
    remarks = _unused(folder, own, configuration, ("size", "fill_color"))
    if _find_checkpoint_in_dir(folder) != str(path) and (others := other_weights(path)):
        remarks += (f"{CONFIG} beside {path.name} is read as its own; other weights lie there too: {some(others)}",)
    return own, remarks


def _require_same_activation(name: str, path: Path, read: dict[str, Any], configuration: dict[str, Any]) -> None:
    """Activations leave no trace in the weights' shapes, so QuickGELU is compared."""
    wanted = wants_quick_gelu(read, path.parent)
    if "model_cfg" not in read or wanted == bool(configuration.get("quick_gelu")):
        return
    other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    wants = "with" if wanted else "without"
    raise InputError(
        f"pretrained: {path.name} was trained {wants} QuickGELU, as the {CONFIG} beside it says, and {name} is the "
        f"opposite: {_remedy(path, other)}"
    )


def _require_same_size(name: str, path: Path, read: dict[str, Any], configuration: dict[str, Any]) -> None:
    """Convolutions leave no trace of the image size in the weights' shapes, so it is compared."""
    vision = read.get("model_cfg", {}).get("vision_cfg")
    own = vision.get("image_size") if isinstance(vision, dict) else None
    size = _image_size(configuration)
    if own is None or _pair(own) == _pair(size):
        return
    raise InputError(
        f"pretrained: {path.name} was trained on images of {_pixels(own)}, as the {CONFIG} beside it says, and {name} "
        f"takes {_pixels(size)}: {_remedy(path)}"
    )


def _remedy(path: Path, other: str | None = None) -> str:
    """How weights and configuration come together; `other` is the architecture that would agree, where there is one."""
    if other in open_clip.list_models():
        first = f"use --backbone {other}"
    elif _find_checkpoint_in_dir(path.parent) == str(path):
        return "use --backbone local-dir:FOLDER"
    else:
        first = "name the architecture that it fits"
    return f"{first}, or move it away from that configuration if this is not its own"


def _unused(folder: Path, own: dict[str, Any], configuration: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """Lines on keys of `preprocess_cfg` that change nothing: open_clip takes the size that the model says."""
    lines, size = [], _image_size(configuration)
    if "size" in keys and own.get("size") is not None and _pair(own["size"]) != _pair(size):
        told = f"preprocess_cfg.size of {_pixels(own['size'])}, and its model takes {_pixels(size)}, which are used"
        lines.append(f"{subject_of(folder)} has {told}")
    if "fill_color" in keys and own.get("fill_color"):
        lines.append(f"{subject_of(folder)} has preprocess_cfg.fill_color, which only local-dir:FOLDER uses")
    return tuple(lines)


def _image_size(configuration: dict[str, Any]) -> Any:
    size = configuration.get("vision_cfg", {}).get("image_size")
    return DEFAULT_SIZE if size is None else size


def _pair(size: Any) -> tuple[Any, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


def _pixels(size: Any) -> str:
    return " x ".join(map(str, _pair(size))) + " pixels"


# ---------------------------------------------------------------- where nothing is said


def _shared(names: Iterable[str]) -> dict[str, Any] | None:
    """What all tags of the architectures have in common, empty where it is the usual; None where there is no such."""
    tags = (open_clip.get_pretrained_cfg(name, tag) for name in names for tag in _tags(name))
    found = [{key: tag[key] if tag.get(key) is not None else USUAL[key] for key in KEYS} for tag in tags]
    if len({json.dumps(one) for one in found}) != 1:
        return None
    return found[0] if _is_unusual(found[0]) else {}


def _tags(name: str) -> list[str]:
    return open_clip.list_pretrained_tags_by_model(name)


def _is_unusual(said: dict[str, Any]) -> bool:
    return any(json.dumps(value) != json.dumps(USUAL[key]) for key, value in said.items() if value is not None)


def _assumed(what: str, names: list[str]) -> str:
    """What is taken where neither the weights nor the architecture's tags say it, and how to say it."""
    mean, std = (", ".join(f"{x:.3f}" for x in USUAL[key]) for key in ("mean", "std"))
    taken = f"mean {mean}, std {std}, {USUAL['interpolation']}, resize mode {USUAL['resize_mode']}"
    known = any(_tags(name) for name in names)
    why = "published weights of its architecture differ" if known else "its architecture has no published weights"
    return (
        f"nothing says the preprocessing of {what}, and {why}: CLIP's is assumed ({taken}); "
        f"another goes into preprocess_cfg of {CONFIG} beside the weights"
    )
