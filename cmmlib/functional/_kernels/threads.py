"""How many threads a product takes, for the calling thread alone."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import torch


def use_one_thread() -> None:
    """Torch's products in the calling thread run on it alone; the other threads of the process keep theirs.

    `torch.set_num_threads` would change them too. OpenMP and MKL keep such a setting for each thread; torch has no call
    for it, so its library is asked. Where that has no such functions, products take as many threads as before.
    """
    torch.get_num_threads()  # torch's own settings for this thread are made at its first call
    library = next((Path(torch.__file__).parent / "lib").glob("*torch_cpu.*"), None)
    for function in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local"):
        with suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(str(library)), function)(1)
