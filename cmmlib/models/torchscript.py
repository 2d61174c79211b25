"""Weights out of a TorchScript archive, as OpenAI publishes CLIP, without its program.

Such an archive is a program with its weights. `torch.jit.load` would load both, and a TorchScript program may run while
it is loaded and may write files, so it is only fit for archives that one trusts. Without the program what is left is
laid out like any checkpoint of torch, whose own reader takes it with `weights_only`.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # sizes that OpenAI stores as if they were weights


class _Module:
    """What stands for every module of the program: its attributes, no method."""


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by torch's own criterion."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no archive, or a damaged one, for which zipfile raises several kinds
        return False


def read_weights(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of an archive's module, by name, in the archive's own number format.

    Raises:
        Exception: of many kinds, for a file that is damaged or holds more than modules and tensors.
    """
    checkpoint, program = _without_program(path)
    lists = re.findall(r"__(?:parameters|buffers)__ = \[(.*?)\]", program, re.DOTALL)
    declared = set(re.findall(r'"(\w+)"', " ".join(lists))) - NO_WEIGHTS
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint)
    modules = [name for name in unknown if name.startswith("__torch__.")]  # anything else stays refused
    checkpoint.seek(0)
    with torch.serialization.safe_globals([(_Module, name) for name in modules]):
        root = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in _tensors(root, "") if name.rpartition(".")[2] in declared}


def _without_program(path: Path) -> tuple[io.BytesIO, str]:
    """The archive as a checkpoint, and the text of its program, which is read but never run."""
    checkpoint, program = io.BytesIO(), []
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(checkpoint, "w") as kept:
        for name in archive.namelist():
            if name.endswith(".py"):
                program.append(archive.read(name).decode())
            elif name.endswith("/data.pkl") or re.search(r"/(?:data/\d+|version|byteorder)$", name):
                kept.writestr(name, archive.read(name))
    checkpoint.seek(0)
    return checkpoint, "\n".join(program)


def _tensors(module: _Module, prefix: str) -> list[tuple[str, Tensor]]:
    tensors = []
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            tensors.append((prefix + name, value))
        elif isinstance(value, _Module):
            tensors += _tensors(value, f"{prefix}{name}.")
    return tensors
