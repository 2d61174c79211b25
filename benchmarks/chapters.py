"""Time and peak memory of every chapter, and of its cells, on a study of a given size; and the data for it.

The data are embeddings with the structure of real ones, made from a seed and stored as an `embeddings:` file in
float16: classes in groups of ten that resemble each other, images around their class in directions of unequal
variance, a text for every prompt and class near the class, and for some classes near another, so that they fail; class
sizes equal. No labels enter the analysis. The file is made once and kept.

Every chapter has a process of its own, which executes the notebook's cells one after the other as a run would (what a
run leaves for the next chapter is left too). Time is processor time of all threads; memory is the highest
resident size of the process. The baseline, measured last, is one set of bare float32 products of all images with the
texts of one prompt. The machine must be quiet: beside other work chapters took up to twice the processor time.

    python benchmarks/chapters.py chapters.csv                                   # 10,000 images, 400 classes
    python benchmarks/chapters.py full.csv --images 50000 --classes 1000 --heads 80
    python benchmarks/chapters.py five.csv --only 05 --cells                     # a row a cell
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from similarity import products, status

CHAPTERS = "01,02,03,04,05,07,09"
SIBLINGS = 10  # classes of a group
MISNAMED = 0.15  # share of classes whose texts lie nearer to a sibling
BLOCK = 2000  # images a block


def unit(x: torch.Tensor) -> torch.Tensor:
    """Every vector scaled to unit norm."""
    return torch.nn.functional.normalize(x, dim=-1)


def write_embeddings(path: Path, images: int, classes: int, heads: int, width: int, seed: int = 0) -> None:
    """An `embeddings:` file of this size; see the head of this module."""
    torch.manual_seed(seed)
    spread = torch.arange(1, width + 1).float().pow(-0.5)  # standard deviation of each direction
    groups = torch.randn(-(-classes // SIBLINGS), width).repeat_interleave(SIBLINGS, 0)[:classes]
    centres = unit((groups + 0.8 * torch.randn(classes, width)) * spread)
    sibling = torch.arange(classes) // SIBLINGS * SIBLINGS + torch.randint(SIBLINGS, (classes,))
    between = (centres + centres[sibling.clamp_max(classes - 1)]) / 2
    named = torch.where(torch.rand(classes, 1) < MISNAMED, between, centres)
    named = named + 0.8 * unit(torch.randn(classes, width) * spread)
    cones, labels = unit(torch.randn(2, width)), torch.arange(images) % classes  # images and texts lie in two cones
    x = torch.empty(images, width, dtype=torch.half)
    for part in torch.arange(images).split(BLOCK):
        noise = unit(torch.randn(len(part), width) * spread)
        x[part] = unit(cones[0] + 1.2 * centres[labels[part]] + noise).half()
    texts = torch.empty(heads, classes, width, dtype=torch.half)
    for own in texts:
        wording = unit(torch.randn(width)) + unit(torch.randn(classes, width) * spread)
        own[:] = unit(cones[1] + 0.2 * named + 0.05 * wording).half()
    arrays = {
        "image_features": x.numpy(),
        "text_features": texts.numpy(),
        "labels": labels.numpy(),
        "classnames": np.array([f"class {c:04d}" for c in range(classes)]),
        "prompts": np.array([f"prompt {p}: {{}}." for p in range(heads)]),
        "logit_scale": np.float32(100),
    }
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, **arrays)
    temporary.rename(path)


# ---------------------------------------------------------------- one chapter, in this process


def code_cells(chapter: str, conditions: dict[str, bool]) -> list[tuple[int, str]]:
    """Place and source of the cells that a run of this kind executes."""
    from cmmlib.report.chapters import chapters, read_notebook
    from cmmlib.report.execution import applies

    (path,) = chapters(chapter)
    cells = enumerate(read_notebook(path).cells)
    return [(i, cell.source) for i, cell in cells if cell.cell_type == "code" and applies(cell, conditions)]


def run_chapter(chapter: str, settings: dict[str, object]) -> list[dict[str, object]]:
    """Execute the chapter's cells; a row a cell."""
    import matplotlib

    matplotlib.use("agg")
    from cmmlib import Study, open_run

    conditions = open_run(Study.of(settings)).conditions
    names: dict[str, object] = {"__name__": "__main__"}
    rows = []
    for place, source in code_cells(chapter, conditions):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        start, wall = time.process_time(), time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, f"{chapter}, cell {place}", "exec"), names)  # a notebook of this repository
        if "dataset" in names and place < 5:
            names |= settings
        spent = {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}
        rows.append({"chapter": chapter, "cell": place, **spent, "peak_mib": status("VmHWM")})
        if spent["cpu_s"] > 1:
            print(f"{chapter}, cell {place}: {spent['cpu_s']:.1f} s", file=sys.stderr, flush=True)
    return rows


def products_seconds(file: Path) -> float:
    """Processor seconds of the bare products of all images with the texts of one prompt."""
    with np.load(file) as arrays:
        images = torch.from_numpy(arrays["image_features"]).float()
        head = torch.from_numpy(arrays["text_features"][:1]).float()
    buffer = torch.empty(min(BLOCK, len(images)), head.shape[1])
    products(images, head, buffer, BLOCK)
    start = time.process_time()
    products(images, head, buffer, BLOCK)
    return time.process_time() - start


def in_process(chapter: str, file: Path, out: Path) -> list[dict[str, object]]:
    """Measure a chapter in a fresh process, against a cache in `out`."""
    settings = {"dataset": f"embeddings:{file}", "out": str(out / "runs")}
    sleep = {"OMP_WAIT_POLICY": "passive"}  # as `cmm run`: waiting threads take no processor time
    environment = os.environ | sleep | {"CMM_CACHE": str(out / "cache")}
    command = [sys.executable, __file__, json.dumps(settings), "--chapter", chapter]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"chapter {chapter} failed")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="CSV file")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--heads", type=int, default=80, help="prompts")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--only", default=CHAPTERS, help="chapters")
    parser.add_argument("--cells", action="store_true", help="a row a cell, not a chapter")
    parser.add_argument("--before", type=Path, help="CSV of this script in an earlier clone, to be set beside")
    parser.add_argument("--keep", type=Path, help="folder for data and results, used again")
    parser.add_argument("--chapter", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chapter:
        print(json.dumps(run_chapter(options.chapter, json.loads(options.out))))
        return
    with contextlib.ExitStack() as stack:
        keep = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keep.mkdir(parents=True, exist_ok=True)
        size = {key: getattr(options, key) for key in ("images", "classes", "heads", "width")}
        file = keep / ("embeddings_" + "x".join(map(str, size.values())) + ".npz")
        if not file.exists():
            write_embeddings(file, **size)
        rows = [row for chapter in options.only.split(",") for row in in_process(chapter, file, keep)]
        base = products_seconds(file)
    table = pd.DataFrame(rows).assign(products=lambda rows: rows.cpu_s / base)
    if not options.cells:
        table = totals(table)
    if options.before:
        parts = {"before": pd.read_csv(options.before, dtype={"chapter": str}), "after": table}
        table = pd.concat([part.set_index("chapter").add_suffix(f", {when}") for when, part in parts.items()], axis=1)
        table = table.reset_index()
    table.round(2).to_csv(options.out, index=False)
    print(table.round(2).to_string(index=False))
    print(f"estimate of `cmm run --dry-run`: {estimate(**size)}")


def totals(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a chapter, and one of all: processor seconds, how often the bare products would fit in, highest memory."""
    named = {"cpu_s": "processor seconds", "products": "times the products of one prompt", "peak_mib": "peak MiB"}
    table = cells.groupby("chapter").agg({"cpu_s": "sum", "products": "sum", "peak_mib": "max"}).rename(columns=named)
    table.loc["all"] = [table[column].agg("max" if column == "peak MiB" else "sum") for column in table]
    return table.round(0).astype(int).reset_index()


def estimate(images: int, classes: int, heads: int, width: int) -> str:
    from cmmlib.report.cost import Cost

    return Cost(images, classes, heads, width).told()


if __name__ == "__main__":
    main()
