"""The weights inside a checkpoint as training programs write it: nested, prefixed, with other things beside them.

Only tensors and plain values are read (`weights_only`): a checkpoint that holds Python objects is refused, not run.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.factory import load_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmmlib.errors import InputError, one_line, tell
from cmmlib.models import torchscript

# Where programs put the weights, those that were averaged over training first.
AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema")
PLACES = (*AVERAGED, "state_dict", "model_state_dict", "model", "module")
# What a number of numpy is made of in a pickle, as in an accuracy that was saved beside the weights.
NUMPY_SCALARS: list[Any] = [np.float64(0).__reduce__()[0], np.dtype]
NUMPY_SCALARS += [type(np.dtype(kind)) for kind in ("f8", "f4", "i8")]
QUANTISED = ("int8", "uint8", "bool", "i8", "u8", "f8", "float8", "qint", "quint")  # number formats
COMPLEX = ("complex", "c64")
DAMAGED = "it is cut off or damaged, or no file of weights: copy or fetch it again"
PREFIXES = ("module.", "_orig_mod.", "model.")  # of data-parallel, compiled and Lightning models
ALWAYS = "logit_scale"  # a weight that every model of open_clip has


@contextmanager
def readable(weights: Path) -> Iterator[Path]:
    """The file itself where open_clip reads it, else a passing copy of its weights.

    Raises:
        InputError: a checkpoint with Python objects in it, without weights, or damaged.
    """
    found = _unwrapped(weights)
    if found is None:
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "open_clip_model.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, copy)
        yield copy


@contextmanager
def positions_as_stored() -> Iterator[None]:
    """Weights whose positions are for images or texts of another size are refused while a block loads them.

    open_clip would fit them to the model without a word, and the model would be one that nobody trained.
    """
    factory = import_module("open_clip.factory")
    kept = {name: getattr(factory, name) for name in ("resize_pos_embed", "resize_text_pos_embed")}
    try:
        for name in kept:
            setattr(factory, name, _refuse_other_positions)
        yield
    finally:
        for name, resize in kept.items():
            setattr(factory, name, resize)


def _refuse_other_positions(weights: Mapping[str, Tensor], model: torch.nn.Module, *_: Any, **__: Any) -> None:
    wanted = model.state_dict()
    for name in sorted(key for key in weights.keys() & wanted.keys() if "pos" in key):
        if weights[name].shape != wanted[name].shape:
            shapes = f"{name} is {[*weights[name].shape]}, and {[*wanted[name].shape]} in the model"
            raise InputError(f"its weights have the shapes of another architecture ({shapes}): name it with --backbone")


def check(weights: Path) -> None:
    """Refuse a file that `readable` refuses, at little cost.

    Raises:
        InputError: as `readable`.
    """
    if not torchscript.is_archive(weights):
        _unwrapped(weights)


def _unwrapped(weights: Path) -> dict[str, Tensor] | None:
    """Weights that open_clip would not find in the file; None where it would."""
    _refuse_texts(weights)
    _refuse_other_ending(weights)
    if weights.suffix == ".safetensors":
        names = _check_safetensors(weights)
        return state_dict(load_file(weights)) if any(name.startswith(PREFIXES) for name in names) else None
    if torchscript.is_archive(weights):
        return torchscript.read_weights(weights)
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the parts of a pickle that it does not run
            stored = torch.load(weights, "cpu", weights_only=True, mmap=zipfile.is_zipfile(weights) or None)
    except Exception as error:
        if "Unsupported global" in str(error) or "not an allowed global" in str(error):
            raise InputError(
                "it holds Python objects beside its weights, which are not run: "
                "save the weights alone, torch.save(model.state_dict(), FILE)"
            ) from None
        raise InputError(f"{DAMAGED} ({one_line(error)[:80]})") from None
    _tell_what_is_left_out(weights, stored)
    found = state_dict(stored)
    for name, tensor in found.items():
        if kind := "meta" if tensor.is_meta else "" if tensor.layout is torch.strided else "sparse":
            raise InputError(f"{name} is a {kind} tensor: save the weights as plain ones, on the processor")
    _require_floats((name, str(tensor.dtype), tensor.ndim) for name, tensor in found.items())
    return None if found is stored else found


def _tell_what_is_left_out(weights: Path, stored: Any) -> None:
    """A line on a file with several sets of weights: which of them is read."""
    if not isinstance(stored, Mapping):
        return
    sets = [key for key, value in stored.items() if isinstance(value, Mapping) and _has_tensors(value)]
    used = _place(stored)
    others = [str(key) for key in sets if key != used]
    if others:
        read = "those beside them" if used is None else used
        tell(f"{weights.name} holds several sets of weights: {read} are read, and {', '.join(others)} are not")


def _has_tensors(stored: Mapping) -> bool:
    """Whether there are tensors, directly or where programs put them."""
    within = (stored[key] for key in PLACES if isinstance(stored.get(key), Mapping))
    return any(isinstance(value, Tensor) for value in stored.values()) or any(map(_has_tensors, within))


def _place(stored: Mapping) -> str | None:
    """Under which name a checkpoint has its weights; None where they are not nested.

    What holds none, as the settings of an average (`ema`), stands back behind what does.
    """
    places = [key for key in PLACES if isinstance(stored.get(key), Mapping)]
    return next((key for key in places if _has_tensors(stored[key])), next(iter(places), None))


def _require_floats(matrices: Iterable[tuple[str, str, int]]) -> None:
    """Refuse quantised weights, whose scales a plain load would not apply, and complex ones, of which it would take the
    real part: names, number formats, dimensions."""
    for name, number, n_dimensions in matrices:
        if number.lower().removeprefix("torch.").startswith(COMPLEX):
            raise InputError(f"{name} holds {number}: complex weights are not read, save them in float16 or float32")
        if n_dimensions > 1 and number.lower().removeprefix("torch.").startswith(QUANTISED):
            raise InputError(f"{name} holds {number}: quantised weights are not read, save them in float16 or float32")


def _refuse_texts(weights: Path) -> None:
    """Files that stand in the place of weights, and are text."""
    with weights.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise InputError("it is empty: copy or fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise InputError("it is a pointer of Git LFS and not the weights: fetch them with git lfs pull")
    if any(byte not in b"\t\n\r" and not 32 <= byte < 127 for byte in head):
        return
    if head.lstrip().startswith(b"{"):
        what = "the index of weights in several files" if weights.name.endswith(".index.json") else "JSON"
        raise InputError(f"it is {what} and not the weights: save all weights in one file, and name that")
    raise InputError("it is a text and not weights: name the file of the weights")


def _refuse_other_ending(weights: Path) -> None:
    """Files whose ending is not that of their format, by which they are read."""
    with weights.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{" and weights.suffix != ".safetensors":  # after the length of its header
        raise InputError("it is a safetensors file: rename it, so that its name ends in .safetensors")
    if head.startswith(b"PK") and weights.suffix == ".safetensors":
        raise InputError("it is a file of torch.save: rename it, so that its name ends in .pt")


def _check_safetensors(weights: Path) -> list[str]:
    """Names of the tensors."""
    try:
        with safe_open(weights, "pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
            _require_floats((name, part.get_dtype(), len(part.get_shape())) for name, part in parts.items())
    except SafetensorError as error:
        raise InputError(f"{DAMAGED} ({one_line(error)[:80]})") from None
    return list(parts)


def state_dict(stored: Any) -> dict[str, Tensor]:
    """The weights of a checkpoint: without the levels around them and the prefixes before their names.

    Raises:
        InputError: there are none.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"it holds {type(stored).__name__}, expected a state dict of weights")
    place = _place(stored)
    if place is not None:
        return state_dict(stored[place])
    tensors = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"it holds no weights: it has {', '.join(map(str, stored))[:80] or 'nothing'}")
    if 0 < sum(name.startswith(PREFIXES[0]) for name in tensors) < len(tensors):  # open_clip would cut all names
        raise InputError(f"some of its weights' names begin with {PREFIXES[0]} and others do not: save one set alone")
    for prefix in PREFIXES:
        inside = [name for name in tensors if name.startswith(prefix)]
        if len(inside) == len(tensors) or prefix + ALWAYS in inside:  # what lies beside is of the training, as a loss
            return state_dict({name.removeprefix(prefix): tensors[name] for name in inside})
    return stored if len(tensors) == len(stored) else tensors  # type: ignore[return-value]


_SIZES = re.compile(r"size mismatch for (\S+): [^[]*(\[[^]]*\])[^[]*(\[[^]]*\])")  # of torch: there, in the model

_NO_NUMBER = re.compile(r"shape '\[\]' is invalid for input of size (\d+)")  # of a scale, which open_clip reshapes


def _mismatch(text: str) -> str:
    """The first tensor of torch's or open_clip's complaint with both of its shapes, and how many more there are."""
    found = _SIZES.findall(text) or [("logit_scale", f"[{n}]", "[]") for n in _NO_NUMBER.findall(text)]
    if not found:
        return one_line(RuntimeError(text))[:80]
    (name, there, wanted), more = found[0], len(found) - 1
    return f"{name} is {there}, and {wanted} in the model" + (f"; {more} more" if more else "")


def _other_shape(weights: Path, model: torch.nn.Module) -> str | None:
    """A tensor of a file that has another shape in the model, with both; None where each fits, or the file is unread.

    Those of other dimensions come first, and positions last, which open_clip fits to the model's size.
    """
    try:
        with readable(weights) as file:
            stored: Any = load_state_dict(str(file), weights_only=True)
    except Exception:  # of whatever is wrong besides
        return None
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    other = [(name, x.shape) for name, x in stored.items() if name in wanted and x.shape != wanted[name]]
    other.sort(key=lambda one: (len(one[1]) == len(wanted[one[0]]), "pos" in one[0]))
    return next((f"{name} is {[*shape]}, and {[*wanted[name]]} in the model" for name, shape in other), None)


def reason(error: Exception, weights: Path | None = None, model: torch.nn.Module | None = None) -> str:
    """Why a model could not be made of weights, without torch's advice and colours.

    Args:
        weights, model: the file and the model that was to get it, to look for a tensor that does not fit.
    """
    text = str(error)
    if "trust_remote_code" in text:
        return "it needs Python code that it brings, and that is not run: use another model"
    if "'NoneType' object has no attribute 'ndim'" in text:  # of open_clip
        return (
            "its weights have a logit_bias, as SigLIP's, and the model has none: set init_logit_bias in its model_cfg"
        )
    names = re.search(r"Unexpected key\(s\) in state_dict: (\S+?)[,.]* ", text + " ")
    if names and "Missing key(s)" in text:
        return f"its weights have other names than open_clip's, as {names[1]}: convert it"
    missing = re.search(r"Missing key\(s\) in state_dict: (\S+?)[,.]* ", text + " ")
    for what, found in (("have", names), ("lack", missing)):
        if found:
            return f"its weights {what} {found[1]}, as those of another architecture: name that with --backbone"
    if (
        "size mismatch" in text or "width changed" in text or _NO_NUMBER.search(text)
    ):  # torch, and open_clip of positions
        return f"its weights have the shapes of another architecture ({_mismatch(text)}): name that with --backbone"
    if weights and model and not isinstance(error, InputError) and (other := _other_shape(weights, model)):
        return f"its weights have the shapes of another architecture ({other}): name that with --backbone"
    return one_line(error)
