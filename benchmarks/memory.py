"""Peak memory of what must not grow with its input, as a ratio to a named baseline in the same run.

Margins of one class: `functional.margins_of_class` over all images beside `functional.predict`, which streams the
same similarities in the same blocks. Strips: the preprocessing of an image of 1 x 4,000 pixels beside open_clip's
own, which resizes it whole. Each has a process of its own; memory is the highest resident size during the call beyond
that before it, after a small call has loaded the libraries. Linux only.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 5000 --classes 200
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import torch
from PIL import Image
from similarity import SCALE, status, unit

from cmmlib import functional as F
from cmmlib.functional.zero_shot import predict
from cmmlib.models.strips import without_strips

BLOCK = 1024  # images, as in `margins_of_class`
PIXELS = 224
PAIRS = {"margins of a class": ("margins", "predict"), "an image of 1 x 4,000": ("cut", "open_clip")}


def calls(what: str, images: int, classes: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """What is measured, and a small call of the same kind."""
    if what in ("cut", "open_clip"):
        own = open_clip.image_transform(PIXELS, is_train=False)
        preprocess = without_strips(own) if what == "cut" else own
        return partial(preprocess, Image.new("RGB", (1, 4000))), partial(preprocess, Image.new("RGB", (9, 9)))
    x, texts = unit(images, 64), unit(classes, 64)

    def all_of(x: torch.Tensor) -> object:
        if what == "margins":
            return F.margins_of_class(x, texts, SCALE, 0, BLOCK)
        return [predict(block, texts) for block in x.split(BLOCK)]

    return partial(all_of, x), partial(all_of, x[:8])


def measure_here(what: str, images: int, classes: int) -> float:
    """MiB."""
    call, small = calls(what, images, classes)
    small()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def measure(what: str, images: int, classes: int) -> float:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--here", what, "--images", str(images), "--classes", str(classes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.images, options.classes
    if options.here:
        with torch.no_grad():
            print(measure_here(options.here, *size))
        return
    for name, (what, baseline) in PAIRS.items():
        found, beside = measure(what, *size), measure(baseline, *size)
        print(f"{name}: {found:.1f} MiB, {found / beside:.2f} times that of {baseline} ({beside:.1f} MiB)")


if __name__ == "__main__":
    main()
