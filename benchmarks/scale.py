"""What the whole label-free analysis costs beside its bare matrix products, and how time and memory grow.

The analysis: one pass over all images and prompts, CMM in every assignment and refinement, prompt scores, the weighted
ensemble of all templates, its predictions; then the metrics, which take the labels. The bare products are float32, one
a prompt, of all images and classes: the size of one pass. The ensemble's first round has the pass's CMM for scores;
each further one makes as many products again. `--precision bf16` is that of the analysis, not of the bare products.

Embeddings are synthetic, unit vectors around class centres. Every size has a process of its own, in which products and
analysis take turns; medians are reported. Time is processor time of all threads (one, unless --threads says more), so
that other work on the machine changes it little. Memory is the highest resident size during the analysis beyond that
with the inputs loaded.

    python benchmarks/scale.py growth book/_static/scale.csv     # one size at a time doubled; draws scale.png beside it
    # 50,000 images, 1,000 classes, 80 prompts; and the same with fewer prompts
    python benchmarks/scale.py full book/_static/scale_full.csv --precision fp32 bf16 --runs 1
    python benchmarks/scale.py full full.csv --prompts 8
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from similarity import products, status, unit
from torch import Tensor

from cmmlib import functional as F
from cmmlib.functional import ensemble as ens
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.similarity import similarity_pass
from cmmlib.functional.zero_shot import predict

SCALE = 100.0
BLOCK = 2000  # images a block of the bare products
SIZES = ("images", "classes", "prompts", "width")
BASE = {"images": 16_000, "classes": 200, "prompts": 8, "width": 256}
FULL = {"images": 50_000, "classes": 1000, "prompts": 80}
KEPT = {
    "products_s": "products (s)",
    "analysis_s": "analysis (s)",
    "pass_ratio": "pass ratio",
    "ensemble_ratio": "round ratio",
    "analysis_ratio": "analysis ratio",
    "inputs_mib": "inputs (MiB)",
    "peak_mib": "peak (MiB)",
    "load": "load",
}
STAGES = ("pass", "scores", "ensemble", "metrics")


def inputs(size: dict[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Images [N, D], heads [P, C, D] and labels [N] of classes that overlap a little."""
    torch.manual_seed(0)
    n, c, p, d = (size[key] for key in SIZES)
    centres, labels = unit(c, d), torch.arange(n) % c
    heads = torch.nn.functional.normalize(centres + 0.5 * unit(p, c, d), dim=-1)
    images = torch.nn.functional.normalize(centres[labels] + 2.5 * unit(n, d), dim=-1)
    return images, heads, labels


def stages(images: Tensor, heads: Tensor, labels: Tensor, precision: str) -> dict[str, Callable[[], object]]:
    """The steps of the analysis, in order; each keeps what the next one needs."""
    kept: dict = {}

    def one_pass() -> None:
        kept["passed"] = similarity_pass(images, heads, SCALE, precision=precision)

    def scores() -> None:
        passed = kept["passed"]
        forms = [F.class_matching_margin(passed, form) for form in F.ASSIGNMENTS]
        for score in (forms[1], F.scale_free_cmm(passed)):
            F.prompt_scores(score), F.rank_classes(score[0])
        F.accuracy_estimate(passed), F.predicted_count(passed), F.mean_top_probability(passed)

    def ensemble() -> None:
        candidates, others = Candidates.of_templates(heads), F.uniform_mean(heads)
        first = F.class_matching_margin(kept["passed"]).flatten()
        classifier = F.cmm_ensemble(images, candidates, others, SCALE, scores=first, precision=precision)
        kept["prediction"] = predict(images, classifier)

    def evaluation() -> None:
        accuracy = F.class_accuracy(kept["prediction"], labels, heads.shape[1])
        F.worst_at_k(accuracy.value, 10)

    return dict(zip(STAGES, (one_pass, scores, ensemble, evaluation), strict=True))


def seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def measure_here(size: dict[str, int], runs: int, precision: str) -> dict[str, float]:
    images, heads, labels = inputs(size)
    buffer = torch.empty(min(BLOCK, len(images)), size["classes"])
    steps = stages(images, heads, labels, precision)
    for step in stages(images[:64], heads[:1], labels[:64], precision).values():
        step()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, rounds = status("VmRSS"), []
    for _ in range(runs):
        row = {f"{name}_s": seconds(step) for name, step in steps.items()}
        rounds.append(row | {"products_s": seconds(lambda: products(images, heads, buffer, BLOCK))})
    for row in rounds:
        row["analysis_s"] = sum(row[f"{name}_s"] for name in STAGES)
        row["pass_ratio"] = row["pass_s"] / row["products_s"]
        row["ensemble_ratio"] = row["ensemble_s"] / ((ens.ROUNDS - 1) * row["products_s"])
        row["analysis_ratio"] = row["analysis_s"] / row["products_s"]
    held = (images.nbytes + heads.nbytes) / 2**20
    return {key: median(r[key] for r in rounds) for key in rounds[0]} | {
        "inputs_mib": held,
        "peak_mib": status("VmHWM") - before,
    }


def measure(size: dict[str, int], runs: int, threads: int, precision: str) -> dict[str, float]:
    command = [sys.executable, __file__, "here", json.dumps(size), "--runs", str(runs), "--precision", precision]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = {**size, "precision": precision, **json.loads(done.stdout), "threads": threads, "load": os.getloadavg()[0]}
    print(", ".join(f"{key} {value}" for key, value in found.items()), file=sys.stderr, flush=True)
    return found


def growth(doublings: int) -> list[tuple[str, dict[str, int]]]:
    """The base size, and each of its four sizes doubled one to `doublings` times."""
    grown = [(key, {**BASE, key: BASE[key] * 2**i}) for key in SIZES for i in range(1, doublings + 1)]
    return [("base", BASE), *grown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("growth", "full", "here"))
    parser.add_argument("out", help="CSV file")
    parser.add_argument("--runs", type=int, default=3, help="rounds of products and analysis in a process")
    parser.add_argument("--prompts", type=int, default=FULL["prompts"], help="of the full size")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 768], help="of the full size")
    parser.add_argument("--doublings", type=int, default=2, help="of each size in the growth")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"], help="of the analysis")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.what == "here":
        with torch.no_grad():
            print(json.dumps(measure_here(json.loads(options.out), options.runs, *options.precision)))
        return
    full = [("width", {**FULL, "prompts": options.prompts, "width": width}) for width in options.widths]
    sizes = growth(options.doublings) if options.what == "growth" else full
    table = pd.DataFrame(
        [
            {"varied": varied, **measure(size, options.runs, options.threads, precision)}
            for varied, size in sizes
            for precision in options.precision
        ]
    )
    table = (
        table[["varied", *SIZES, *(["precision"] if len(options.precision) > 1 else []), *KEPT]]
        .round(2)
        .rename(columns=KEPT)
    )
    table.to_csv(options.out, index=False)
    if options.what == "growth":
        from cmmlib.report.plots import scaling

        scaling(table).savefig(Path(options.out).with_suffix(".png"), dpi=160)


if __name__ == "__main__":
    main()
