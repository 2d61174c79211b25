"""A sweep on two worker processes beside the same studies one after the other: time, and how far results differ.

The studies are both weights of blazon-mini, three seeds and two pools of templates. Both ways begin with an empty
cache; one after the other they are calls of `cmm run`, which use all processors, where a worker of the sweep has its
share: sums of float32 differ in their last digits. The machine must be quiet.

    python benchmarks/sweep.py                              # all chapters
    python benchmarks/sweep.py --only 01,02 --limit 20      # quicker
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

CMM = [sys.executable, "-P", "-c", "from cmmlib.cli import main; main()"]
GRID: dict[str, list[Any]] = {
    "pretrained": [None, "early"],
    "seed": [0, 1, 2],
    "templates": ["blazon-24", "openai-7"],
}


def seconds(commands: list[list[str]], folder: Path) -> float:
    environment = {**os.environ, "CMM_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    for command in commands:
        subprocess.run([*CMM, *command], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def flags(study: dict[str, Any]) -> list[str]:
    return [part for name, value in study.items() if value is not None for part in (f"--{name}", str(value))]


def results(runs: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/results.json")}


def difference(one: Any, other: Any) -> float:
    """Largest difference between numbers of two results; Inf where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(difference, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    only = ["--only", options.only] if options.only else []
    studies = [{**dict(zip(GRID, values, strict=True)), "limit": options.limit} for values in product(*GRID.values())]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        sequential = seconds([["run", *flags(study), *only] for study in studies], Path(one))
        given = [{name: value for name, value in study.items() if value is not None} for study in studies]
        Path(two, "studies.yaml").write_text(json.dumps({"studies": given}))  # which is YAML too
        swept = seconds([["sweep", "studies.yaml", "--workers", "2", *only]], Path(two))
        place = next(Path(two, "sweeps").iterdir())
        alone, swept_results = results(Path(one, "runs")), results(place / "runs")
    print(f"{len(studies)} studies: {sequential:.0f} s one after the other, {swept:.0f} s as a sweep of two workers")
    apart = max(difference(alone[run], swept_results[run]) for run in alone)
    print(f"ratio {swept / sequential:.2f}; numbers of results.json differ by {apart:.1e} at most")


if __name__ == "__main__":
    main()
