"""Time of a whole study from an empty cache: forked kernels against a new kernel for every chapter.

    python benchmarks/study_time.py                                       # both ways, one pair: about 7 minutes
    python benchmarks/study_time.py --only 01,02 --pairs 3                # a part of it
    python benchmarks/study_time.py --before ../earlier --json times.json # and an earlier clone of this repository

Nothing is cached, numba's compiled loops neither; the ways take turns. Processor seconds are those of all processes,
and the better measure where others use the machine. Every way must leave the same results.json and tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cmmlib.storage.cache import digest

ROOT = Path(__file__).resolve().parents[1]
SLEEP = {"OMP_WAIT_POLICY": "passive"}
FORKED = "from cmmlib.cli import main; main()"
NEW = """
import sys
from contextlib import nullcontext
from cmmlib import cli
from cmmlib.report import kernels
kernels.forked = lambda imports: nullcontext(kernels.Kernel)
sys.exit(cli._exit_code(sys.argv[1:]))  # main() would let waiting threads sleep
"""
WAYS = {
    "new kernels": (NEW, {}),
    "new kernels, waiting threads sleep": (NEW, SLEEP),
    "forked kernels": (FORKED, SLEEP),
}


def one_run(program: str, settings: dict[str, str], sources: Path, study: Sequence[str]) -> dict:
    """Run the study in a fresh place; wall and processor seconds, and a digest of the numbers that it left."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        caches = {"CMM_CACHE": str(place / "cache"), "NUMBA_CACHE_DIR": str(place / "compiled")}
        environment = os.environ | caches | settings | {"PYTHONPATH": str(sources)}
        command = [sys.executable, "-c", program, "run", *study, "--out", str(place / "runs")]
        start, before = time.perf_counter(), processor_seconds()
        subprocess.run(command, check=True, env=environment, cwd=place, stdout=subprocess.DEVNULL)
        spent = {"wall_s": time.perf_counter() - start, "cpu_s": processor_seconds() - before}
        (run,) = (place / "runs").iterdir()
        files = sorted([run / "results.json", *run.glob("*.csv")])
        return {**spent, "files": digest(*((file.name, file.read_text("utf-8")) for file in files))}


def processor_seconds() -> float:
    """Of all processes that this one has waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(ways: dict[str, tuple[str, dict[str, str], Path]], study: Sequence[str], pairs: int) -> list[dict]:
    runs = []
    for pair in range(1, pairs + 1):
        for way, (program, settings, sources) in ways.items():
            runs.append({"pair": pair, "way": way, **one_run(program, settings, sources, study)})
            print("{pair} {way}: {wall_s:.0f} s, {cpu_s:.0f} processor s".format(**runs[-1]), file=sys.stderr)
    return runs


def table(runs: list[dict]) -> str:
    """A row a way: medians, and their ratios to the first way."""
    ways = list(dict.fromkeys(run["way"] for run in runs))
    of_way = {way: [run for run in runs if run["way"] == way] for way in ways}
    median = {w: [statistics.median(r[key] for r in of_way[w]) for key in ("wall_s", "cpu_s")] for w in ways}
    first = median[ways[0]]
    lines = [f"{'':36}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}"]
    for way, (wall, cpu) in median.items():
        lines.append(f"{way:36}{wall:8.0f}{wall / first[0]:7.2f}{cpu:8.0f}{cpu / first[1]:7.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--only", default="", help="chapters [default: all]")
    parser.add_argument("--before", type=Path, help="a clone of an earlier version, run as it was, first")
    parser.add_argument("--parts", action="store_true", help="also new kernels whose waiting threads sleep")
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    ways = {way: (*how, ROOT) for way, how in WAYS.items() if options.parts or "," not in way}
    if options.before:
        ways = {"before": (FORKED, {}, options.before.resolve()), **ways}
    runs = measure(ways, ["--only", options.only] if options.only else [], options.pairs)
    same = len({run["files"] for run in runs}) == 1
    print(table(runs))
    print(f"results.json and tables: {'the same' if same else 'NOT the same'} in all {len(runs)} runs")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
        result = {"runs": runs, "same_files": same, "torch": torch.__version__, "machine": machine}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
