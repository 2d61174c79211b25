"""What the functions that compute where their tensors lie cost on a GPU, and whether they find what the processor does.

The pass and the candidates' CMM are compared with the matrix products that they cannot do without, on the same GPU in
the same run: a share of 0.6 means that the whole takes 1 / 0.6 times as long as its products. The corrections and
baselines are compared with the same call on the machine's processor. Embeddings are those of `benchmarks/chapters.py`,
with the structure of real ones. Agreement is the share of equal predictions, or for a score the largest difference.

    python benchmarks/gpu.py --csv book/_static/gpu.csv
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from chapters import write_embeddings
from similarity import SCALE
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cmmlib.functional as F

Call = Callable[[Tensor, Tensor], Tensor]


def embeddings(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npz"
        write_embeddings(path, options.images, options.classes, options.heads, options.width)
        with np.load(path, allow_pickle=False) as arrays:
            images, texts = (torch.from_numpy(arrays[key]).float() for key in ("image_features", "text_features"))
    return torch.nn.functional.normalize(images, dim=-1), torch.nn.functional.normalize(texts, dim=-1)


def products(x: Tensor, t: Tensor) -> Tensor:
    """The bare products of every prompt, each into the same memory."""
    out = torch.empty(len(x), t.shape[1], dtype=x.dtype, device=x.device)
    for texts in t:
        torch.mm(x, texts.T, out=out)
    return out


def seconds(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Median over rounds, after one that is not counted; what a GPU still has to do is waited for."""

    def once() -> float:
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    return median(once() for _ in range(rounds))


AGAINST_PRODUCTS: dict[str, Call] = {
    "similarity_pass": lambda x, t: F.class_matching_margin(F.similarity_pass(x, t, SCALE)),
    "candidate_cmm": lambda x, t: F.candidate_cmm(x, F.Candidates.of_templates(t), F.uniform_mean(t), SCALE),
}
AGAINST_PROCESSOR: dict[str, Call] = {
    "fit_prior_matching": lambda x, t: F.fit_prior_matching(x, t[0], SCALE).predict(x),
    "fit_prototypes": lambda x, t: F.fit_prototypes(x, t[0], SCALE).predict(x),
    "fit_gaussians": lambda x, t: F.fit_gaussians(x, t[0], SCALE).predict(x),
    "mean_centred": lambda x, t: F.mean_centred(x, t[0]),
    "label_shift_em": lambda x, t: F.label_shift_em(x, t[0], SCALE),
    "frolic": lambda x, t: F.frolic(x, t[0], SCALE),
    "inmap": lambda x, t: F.inmap(x, t[0], SCALE, rounds=50),
    "transclip": lambda x, t: F.transclip(x, t[0], SCALE),
    "autoclip": lambda x, t: F.autoclip(x, t[:4], SCALE),
}


def rows(options: argparse.Namespace) -> pd.DataFrame:
    gpu, (images, texts) = torch.device("cuda"), embeddings(options)
    x, t = images.to(gpu), texts.to(gpu)
    found = []
    base = seconds(lambda: products(x, t), options.rounds, gpu)
    for name, call in AGAINST_PRODUCTS.items():
        taken = seconds(lambda call=call: call(x, t), options.rounds, gpu)
        off = float((call(x, t).cpu() - call(images, texts)).abs().max())
        times = {"gpu_ms": 1e3 * taken, "products_ms": 1e3 * base, "share": base / taken}
        found.append({"what": name, **times, "largest_difference": off})
    for name, call in AGAINST_PROCESSOR.items():
        taken = seconds(lambda call=call: call(x, t), options.rounds, gpu)
        start = time.perf_counter()
        expected = call(images, texts)
        there = time.perf_counter() - start
        equal = float((call(x, t).cpu() == expected).double().mean())
        times = {"gpu_ms": 1e3 * taken, "processor_ms": 1e3 * there, "times": there / taken}
        found.append({"what": name, **times, "equal": equal})
    print(f"{torch.cuda.get_device_name(gpu)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    return pd.DataFrame(found)


def rounded(value: float | str) -> float | str:
    """Three digits, and all of those before the point."""
    return value if isinstance(value, str) or value != value else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 50_000), ("classes", 1000), ("heads", 80), ("width", 512), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU here that torch can use")
    table = rows(options)
    print(table.map(rounded).to_string(index=False))
    if options.csv:
        table.map(rounded).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
