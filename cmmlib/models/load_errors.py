"""Why a model could not be made of weights, or cannot embed: what torch, open_clip and the system say, in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_state_dict

from cmmlib.errors import InputError, one_line
from cmmlib.models.state_dicts import NoCopy, is_of_machine, readable

# What torch says, wherever this process is just then, when a process that decodes images has ended.
WORKER_ENDED = re.compile(r"DataLoader worker \(pid.*(?:exited unexpectedly|killed by signal)")
_NO_MEMORY = re.compile(r"(?:CUDA|HIP|XPU|MPS backend).{0,9}out of memory|ALLOC_FAILED|allocate memory")  # of torch
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


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of a device."""
    if isinstance(error, InputError):  # which may quote anything
        return False
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


def raise_if_not_of_weights(error: Exception, device: torch.device, model: str) -> None:
    """Let go on what the system refuses, and say so where memory runs out: nothing is wrong with the weights."""
    if _is_out_of_memory(error):
        raise InputError(
            f"device: out of memory on {device} while {model} is loaded: free memory there, take another --device or a "
            "smaller model, or halve its weights with --precision bf16"
        ) from None
    if isinstance(error, NoCopy) or is_of_machine(error):
        raise error


def reason(error: Exception, weights: Path | None = None, model: torch.nn.Module | None = None) -> str:
    """Why a model could not be made of weights, without torch's advice and colours.

    Args:
        weights, model: the file and the model that was to get it, to look for a tensor that does not fit.
    """
    text = str(error)
    if _is_out_of_memory(error):
        return "out of memory: use a smaller --batch-size, --precision bf16 or another --device"
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
