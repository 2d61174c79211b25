"""What the processor can do: whether it multiplies in bfloat16 itself, and its name for tables of speed."""

from __future__ import annotations

import platform
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

NO_BF16 = "this processor has no native bfloat16: bf16 is slower here than fp32"


@cache
def has_native_bf16() -> bool:
    """Whether the processor has instructions for products in bfloat16: AMX, AVX512_BF16, or Arm's bf16.

    Elsewhere torch computes them step by step, several times slower than in float32, and says so nowhere.
    """
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(ask() for ask in known if ask) or (platform.machine() in ("aarch64", "arm64") and "bf16" in _flags())


def warn_of_bf16(device: torch.device) -> None:
    """Warn where products in bfloat16 would run on this processor and be slower than in float32."""
    if device.type == "cpu" and not has_native_bf16():
        warnings.warn(NO_BF16, RuntimeWarning, stacklevel=3)


def has_triton(device: torch.device) -> bool:
    """Whether tensors lie on a GPU for which Triton, which comes with torch, compiles kernels."""
    return device.type == "cuda" and find_spec("triton") is not None


def processor() -> str:
    """Name, instruction set and threads: what a figure of speed is about."""
    name = next(iter(_lines("model name")), platform.processor() or platform.machine())
    extras = [kind for kind in ("amx_bf16", "avx512_bf16", "bf16") if kind in _flags()]
    instructions = " ".join([torch.backends.cpu.get_cpu_capability(), *extras])
    return f"{name} ({instructions}), {torch.get_num_threads()} threads"


@cache
def _flags() -> frozenset[str]:
    return frozenset(" ".join([*_lines("flags"), *_lines("Features")]).split())


def _lines(key: str) -> list[str]:
    """Values of a key in Linux's description of the processor; none on other systems."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in described)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
