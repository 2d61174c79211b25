"""The weights inside a checkpoint as training programs write it: nested, prefixed, with other things beside them.

Only tensors and plain values are read (`weights_only`): a checkpoint that holds Python objects is refused, not run.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cmmlib.errors import InputError, one_line
from cmmlib.models import torchscript

# Where programs put the weights, those that were averaged over training first.
PLACES = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "module")
# What a number of numpy is made of in a pickle, as in an accuracy that was saved beside the weights.
NUMPY_SCALARS: list[Any] = [np.float64(0).__reduce__()[0], np.dtype]
NUMPY_SCALARS += [type(np.dtype(kind)) for kind in ("f8", "f4", "i8")]
DAMAGED = "it is cut off or damaged, or no file of weights: copy or fetch it again"
PREFIXES = ("module.", "_orig_mod.", "model.")  # of data-parallel, compiled and Lightning models


@contextmanager
def readable(weights: Path) -> Iterator[Path]:
    """The file itself where open_clip reads it, else a passing copy of its weights.

    Raises:
        InputError: a checkpoint with Python objects in it, without weights, or damaged.
    """
    _refuse_texts(weights)
    found = _unwrapped(weights)
    if found is None:
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "open_clip_model.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, copy)
        yield copy


def _unwrapped(weights: Path) -> dict[str, Tensor] | None:
    """Weights that open_clip would not find in the file; None where it would."""
    if weights.suffix == ".safetensors":
        _check_safetensors(weights)
        return None
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
    found = state_dict(stored)
    return None if found is stored else found


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


def _check_safetensors(weights: Path) -> None:
    try:
        with safe_open(weights, "pt"):
            pass
    except SafetensorError as error:
        raise InputError(f"{DAMAGED} ({one_line(error)[:80]})") from None


def state_dict(stored: Any) -> dict[str, Tensor]:
    """The weights of a checkpoint: without the levels around them and the prefixes before their names.

    Raises:
        InputError: there are none.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"it holds {type(stored).__name__}, expected a state dict of weights")
    place = next((key for key in PLACES if isinstance(stored.get(key), Mapping)), None)
    if place is not None:
        return state_dict(stored[place])
    tensors = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"it holds no weights: it has {', '.join(map(str, stored))[:80] or 'nothing'}")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return state_dict({name.removeprefix(prefix): value for name, value in tensors.items()})
    return stored if len(tensors) == len(stored) else tensors  # type: ignore[return-value]
