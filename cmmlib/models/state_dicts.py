"""The weights inside a checkpoint as training programs write it: nested, prefixed, with other things beside them.

Only tensors and plain values are read (`weights_only`): a checkpoint that holds Python objects is refused, not run.
"""

from __future__ import annotations

import errno
import os
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


class NoCopy(InputError):
    """Weights could not be copied, and nothing is wrong with them."""


@contextmanager
def readable(weights: Path) -> Iterator[Path]:
    """The file itself where open_clip reads it, else a passing copy of its weights.

    Raises:
        InputError: a checkpoint with Python objects in it, without weights, or damaged.
        NoCopy: a full disk.
        OSError, MemoryError: what keeps the file from being read and is not its own fault.
    """
    found = _unwrapped(weights)
    if found is None:
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "open_clip_model.safetensors"
        try:
            save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, copy)
        except SafetensorError as error:  # of what the system says; safetensors has no error for that
            number = re.search(r"os error (\d+)", str(error))
            why = os.strerror(int(number[1])) if number else one_line(error)
            raise NoCopy(
                f"{why.lower()}: the weights of {weights.name} are copied to {tempfile.gettempdir()} to be read: "
                "free space there, or name another folder as TMPDIR"
            ) from None
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


def is_of_machine(error: Exception) -> bool:
    """Whether the system refused something, or memory ran out, whatever the file holds."""
    odd = (None, errno.EINVAL)  # of other programs' own errors, and of a place before a damaged file's begin
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in odd)


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
        _tell_other_prefixes(weights, names)
        return state_dict(load_file(weights)) if any(name.startswith(PREFIXES) for name in names) else None
    if torchscript.is_archive(weights):
        return torchscript.read_weights(weights)
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the parts of a pickle that it does not run
            stored = torch.load(weights, "cpu", weights_only=True, mmap=zipfile.is_zipfile(weights) or None)
    except Exception as error:
        if is_of_machine(error):
            raise
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
    """Lines on a file with several sets of weights, in any level or told apart by prefixes: which of them is read."""
    if not isinstance(stored, Mapping):
        return
    sets = [key for key, value in stored.items() if isinstance(value, Mapping) and _has_tensors(value)]
    used = _place(stored)
    _tell_sets(weights, "those beside them" if used is None else used, [str(key) for key in sets if key != used])
    if used is None:
        _tell_other_prefixes(weights, [str(name) for name, value in stored.items() if isinstance(value, Tensor)])
    else:
        _tell_what_is_left_out(weights, stored[used])


def _tell_other_prefixes(weights: Path, names: list[str]) -> None:
    """A line on sets of weights that only prefixes tell apart, as `model.` and `model_ema.`: each has its own scale."""
    used = _read_prefix(names)
    if used:  # else nothing is left out
        scales = (name for name in names if name.rpartition(".")[2] == ALWAYS)
        others = {name.removesuffix(ALWAYS) for name in scales} - {used}
        _tell_sets(
            weights, f"{used}*", [f"{prefix}*" if prefix else "those without a prefix" for prefix in sorted(others)]
        )


def _tell_sets(weights: Path, used: str, others: list[str]) -> None:
    if others:
        tell(f"{weights.name} holds several sets of weights: {used} are read, and {', '.join(others)} are not")


def _read_prefix(names: list[str]) -> str:
    """All that is cut from the names of the weights that are read; empty where they are read as they are."""
    prefix = _prefix(names)
    return prefix and prefix + _read_prefix([name.removeprefix(prefix) for name in names if name.startswith(prefix)])


def _prefix(names: Iterable[str]) -> str:
    """What a program put before the names: before all, or before a whole model's beside those of a loss or a copy."""
    names = list(names)
    for prefix in PREFIXES:
        inside = [name for name in names if name.startswith(prefix)]
        if inside and (len(inside) == len(names) or prefix + ALWAYS in inside):
            return prefix
    return ""


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
    if prefix := _prefix(tensors):  # what lies beside is of the training, as a loss
        return state_dict({name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)})
    return stored if len(tensors) == len(stored) else tensors  # type: ignore[return-value]
