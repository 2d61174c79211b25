"""How much `functional.similarity_pass` costs beyond the matrix products it cannot do without, and its peak memory.

Time: random unit vectors; in every round the bare float32 products (one product a prompt into a preallocated buffer, of
all images at once and in blocks; in bfloat16 too) and `match` run one after the other in the same process. A ratio is
to the faster of the two float32 products of the same round; the median over rounds is reported, with the smallest and
the largest.
Memory: one fresh process a configuration; the highest resident size during `match` beyond that before it, after a
tiny warm-up call has loaded the libraries. Outputs ([P, N] and [P, C]) are part of it and told separately.

    python benchmarks/similarity.py --json similarity.json
    python benchmarks/similarity.py --csv book/_static/similarity.csv    # this processor's rows of the table, anew
    python benchmarks/similarity.py --images 2000 --classes 200 --prompts 4 --pairs 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cmmlib.functional._kernels.processor import NO_BF16, has_native_bf16, processor
from cmmlib.functional.similarity import SimilarityPass, similarity_pass

SCALE = 100.0
BLOCK = 2000  # images a block of the blocked baseline
TOLD = {  # rows of the table of processors
    "match fp32": "the pass, float32",
    "bare bf16 products": "bare products, bfloat16",
    "match bf16": "the pass, bfloat16",
}


def unit(*shape: int) -> Tensor:
    x = torch.randn(shape)
    return x.div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True))


def inputs(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return unit(args.images, args.width), unit(args.prompts, args.classes, args.width)


def products(images: Tensor, heads: Tensor, buffer: Tensor, block: int) -> None:
    for head in heads:
        for start in range(0, len(images), block):
            x = images[start : start + block]
            torch.mm(x, head.T, out=buffer[: len(x)])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def no_bf16() -> str:
    """Why bfloat16 is not measured; empty where it is."""
    return "" if has_native_bf16() else NO_BF16


def measure_time(args: argparse.Namespace) -> dict:
    images, heads = inputs(args)
    buffer = torch.empty(args.images, args.classes)
    calls = {
        "products, all images at once": lambda: products(images, heads, buffer, args.images),
        "products, blocked": lambda: products(images, heads, buffer, min(BLOCK, args.images)),
        "match fp32": lambda: similarity_pass(images, heads, SCALE),
    }
    if not no_bf16():
        low = images.bfloat16(), heads.bfloat16(), buffer.bfloat16()
        calls["bare bf16 products"] = lambda: products(*low, min(BLOCK, args.images))
        calls["match bf16"] = lambda: similarity_pass(images, heads, SCALE, precision="bf16")
    for call in calls.values():
        call()
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(args.pairs)]
    base = [min(value for name, value in r.items() if name.startswith("products")) for r in rounds]
    rows = {}
    for name in calls:
        ratio = [r[name] / b for r, b in zip(rounds, base, strict=True)]
        ms = 1e3 * median(r[name] for r in rounds) / args.prompts
        rows[name] = {"ms_per_prompt": ms, "ratio": median(ratio), "lowest": min(ratio), "highest": max(ratio)}
    return rows


def status(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def output_size(passed: SimilarityPass) -> float:
    return sum(x.numel() * x.element_size() for x in vars(passed).values() if isinstance(x, Tensor)) / 2**20


def measure_memory_here(args: argparse.Namespace) -> dict:
    images, heads = inputs(args)
    similarity_pass(images[:64], heads[:1], SCALE, precision=args.precision)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    passed = similarity_pass(images, heads, SCALE, precision=args.precision)
    return {"peak_mib": status("VmHWM") - before, "outputs_mib": output_size(passed)}


def measure_memory(args: argparse.Namespace) -> dict:
    rows = {}
    for precision in ("fp32",) if no_bf16() else ("fp32", "bf16"):
        for what, n, p in (("as timed", 1, 1), ("twice the prompts", 1, 2), ("twice the images", 2, 1)):
            size = {
                "images": n * args.images,
                "prompts": p * args.prompts,
                "classes": args.classes,
                "width": args.width,
            }
            flags = [f"--{key}={size[key]}" for key in ("images", "classes", "prompts", "width")]
            command = [sys.executable, __file__, "--memory-here", f"--precision={precision}", *flags]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[f"{precision}, {what}"] = json.loads(done.stdout)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in (("images", 20_000), ("classes", 1000), ("prompts", 40), ("width", 512), ("pairs", 7)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--csv", type=Path, help="table of processors whose rows of this one are written anew")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--memory-here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.memory_here:
        print(json.dumps(measure_memory_here(args)))
        return
    sizes = {key: getattr(args, key) for key in ("images", "classes", "prompts", "width", "pairs")}
    machine = {"processor": processor(), "torch": torch.__version__}
    result = {"sizes": sizes, **machine, "no_bf16": no_bf16(), "time": measure_time(args), "memory": {}}
    print(", ".join(f"{value} {key}" for key, value in sizes.items()), machine)
    print(f"{'':30} ms/prompt   ratio  lowest highest")
    for name, row in result["time"].items():
        print(f"{name:30} {row['ms_per_prompt']:9.1f} {row['ratio']:7.3f} {row['lowest']:7.3f} {row['highest']:7.3f}")
    if no_bf16():
        print("match bf16 skipped:", no_bf16())
    if not args.no_memory and Path("/proc/self/clear_refs").exists():
        result["memory"] = measure_memory(args)
        print(f"{'MiB beyond the inputs':30}      peak  of which outputs")
        for name, row in result["memory"].items():
            print(f"{name:30} {row['peak_mib']:9.1f} {row['outputs_mib']:9.1f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.csv:
        write_rows(args.csv, result)


def write_rows(path: Path, result: dict[str, Any]) -> None:
    """Put this processor's rows into the table, in place of those that it had."""
    named = {told: result["time"][name] for name, told in TOLD.items() if name in result["time"]}
    machine = {key: result[key] for key in ("processor", "torch")}
    rows = [
        {**machine, "measured": told} | {key: row[key] for key in ("ratio", "lowest", "highest")}
        for told, row in named.items()
    ]
    others = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["processor"])
    table = pd.concat([others[others["processor"] != result["processor"]], pd.DataFrame(rows)])
    table.round(2).to_csv(path, index=False)


if __name__ == "__main__":
    main()
