"""Peak memory of what must not grow with its input, as a ratio to a named baseline in the same run.

Margins of one class: `functional.margins_of_class` over all images beside `functional.predict`, which streams the
same similarities in the same blocks. Strips: the preprocessing of an image of 1 x 4,000 pixels beside open_clip's
own, which resizes it whole. Images in a file: `similarity_pass` over parts of a float16 file, merged, beside one pass
over all of its images in memory. Each has a process of its own; memory is the highest resident size during the call
beyond that before it, after a small call has loaded the libraries. Linux only.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 5000 --classes 200
    python benchmarks/memory.py --only "images in a file" --images 1280000 --classes 1000 --width 512
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import IO

import numpy as np
import open_clip
import torch
from PIL import Image
from similarity import SCALE, status, unit

from cmmlib import functional as F
from cmmlib.functional.zero_shot import predict
from cmmlib.models.strips import without_strips

BLOCK = 1024  # images, as in `margins_of_class`
PIXELS = 224
PART = 65_536  # images of a file at a time
PAIRS = {
    "margins of a class": ("margins", "predict"),
    "an image of 1 x 4,000": ("cut", "open_clip"),
    "images in a file": ("parts", "whole"),
}


def calls(what: str, images: int, classes: int, width: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """What is measured, and a small call of the same kind."""
    if what in ("parts", "whole"):
        file, texts = random_file(images, width), unit(classes, width)
        function = in_parts if what == "parts" else as_a_whole
        return partial(function, file, texts, images), partial(function, file, texts, 8)
    if what in ("cut", "open_clip"):
        own = open_clip.image_transform(PIXELS, is_train=False)
        preprocess = without_strips(own) if what == "cut" else own
        return partial(preprocess, Image.new("RGB", (1, 4000))), partial(preprocess, Image.new("RGB", (9, 9)))
    x, texts = unit(images, width), unit(classes, width)

    def all_of(x: torch.Tensor) -> object:
        if what == "margins":
            return F.margins_of_class(x, texts, SCALE, 0, block=BLOCK)
        return [predict(block, texts) for block in x.split(BLOCK)]

    return partial(all_of, x), partial(all_of, x[:8])


def random_file(images: int, width: int) -> IO[bytes]:
    """Embeddings in float16, one after the other; the file goes when the process ends."""
    file = tempfile.NamedTemporaryFile(suffix=".float16")  # noqa: SIM115
    for start in range(0, images, PART):
        file.write(unit(min(PART, images - start), width).half().numpy().tobytes())
    file.flush()
    return file


def read(file: IO[bytes], start: int, n: int, width: int) -> torch.Tensor:
    x = np.fromfile(file.name, np.float16, n * width, offset=2 * start * width)
    return torch.from_numpy(x.reshape(-1, width))


def in_parts(file: IO[bytes], texts: torch.Tensor, images: int) -> F.SimilarityPass:
    parts = (read(file, start, min(PART, images - start), texts.shape[1]) for start in range(0, images, PART))
    return reduce(lambda a, b: a.merge(b), (F.similarity_pass(x, texts, SCALE, n_images=images) for x in parts))


def as_a_whole(file: IO[bytes], texts: torch.Tensor, images: int) -> F.SimilarityPass:
    return F.similarity_pass(read(file, 0, images, texts.shape[1]), texts, SCALE)


def measure_here(what: str, *size: int) -> float:
    """MiB."""
    call, small = calls(what, *size)
    small()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def measure(what: str, images: int, classes: int, width: int) -> float:
    """The same in a fresh process."""
    flags = [f"--images={images}", f"--classes={classes}", f"--width={width}"]
    command = [sys.executable, __file__, "--here", what, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--only", choices=PAIRS, help="one pair [default: all]")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.images, options.classes, options.width
    if options.here:
        with torch.no_grad():
            print(measure_here(options.here, *size))
        return
    for name, (what, baseline) in PAIRS.items():
        if options.only not in (None, name):
            continue
        found, beside = measure(what, *size), measure(baseline, *size)
        print(f"{name}: {found:.1f} MiB, {found / beside:.2f} times that of {baseline} ({beside:.1f} MiB)")


if __name__ == "__main__":
    main()
