"""Images a second of cmmlib's embedding against the evaluation loops of open_clip and CLIP_benchmark.

The model is a ViT-B-32 with random weights: it is good for time and for equality, its embeddings mean nothing. All
sides get the same weights, the same folder of JPEG pictures (rendered shields of 320 pixels), batch, threads and no
worker process. Each run is a process of its own and is timed after a first batch: decoding, preprocessing, model and
classification, and for cmmlib also what is written to its cache. Time is processor time, which other work on the
machine changes little; with one thread, the default, it is what a clock shows on an idle machine. The sides take turns;
the median over rounds counts.

    python benchmarks/images.py                                            # cmmlib and open_clip
    python benchmarks/images.py --clip-benchmark ENVIRONMENT/bin/python    # an environment with clip-benchmark in it
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import pandas as pd

ARCHITECTURE = "ViT-B-32"
CLASSES = 20


# ---------------------------------------------------------------- one side, in a process of its own


def of_cmmlib(options: argparse.Namespace) -> dict:
    from cmmlib.data.folders import load_folder
    from cmmlib.functional.zero_shot import predict
    from cmmlib.models.backbones import Backbone, load_backbone
    from cmmlib.models.embed import embed_images

    backbone, data = load_backbone(ARCHITECTURE, str(options.folder / "weights.safetensors"), "cpu"), options.folder
    embed_images(backbone, load_folder(data / "first"), batch_size=options.batch)
    in_model, original = [], Backbone.encode_images

    def timed(self: Backbone, pixels: torch.Tensor) -> torch.Tensor:
        start = time.process_time()
        features = original(self, pixels)
        in_model.append(time.process_time() - start)
        return features

    Backbone.encode_images = timed  # type: ignore[method-assign]
    start = time.process_time()
    features = embed_images(backbone, load_folder(data / "images"), batch_size=options.batch)
    prediction = predict(features, classifier(features.shape[1]).T)
    seconds = time.process_time() - start
    return {"seconds": seconds, "share_in_model": sum(in_model) / seconds, "prediction": prediction.tolist()}


def of_open_clip(options: argparse.Namespace) -> dict:
    from open_clip_train import zero_shot

    # its count of right answers calls float() on an array of one, which numpy has given up; the loop is its own
    zero_shot.accuracy = lambda output, target, topk: [float((output.argmax(1) == target).sum())] * len(topk)
    arguments = SimpleNamespace(device="cpu", precision="fp32", batch_size=options.batch)
    return time_loop(options, lambda model, head, loader: zero_shot.run(model, head, loader, arguments))


def of_clip_benchmark(options: argparse.Namespace) -> dict:
    # no dependency of this project: it is in an environment of its own
    theirs = importlib.import_module("clip_benchmark.metrics.zeroshot_classification")
    return time_loop(options, lambda model, head, loader: theirs.run_classification(model, head, loader, "cpu", False))


def time_loop(options: argparse.Namespace, loop) -> dict:
    """A loop over a DataLoader of torchvision's ImageFolder, as both projects have it."""
    import open_clip
    from torchvision.datasets import ImageFolder

    weights = str(options.folder / "weights.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms(ARCHITECTURE, pretrained=weights)
    model.eval()
    head = classifier(model.text_projection.shape[1])

    def loader(name: str):
        return torch.utils.data.DataLoader(ImageFolder(str(options.folder / name), preprocess), options.batch)

    loop(model, head, loader("first"))
    start = time.process_time()
    loop(model, head, loader("images"))
    return {"seconds": time.process_time() - start}


def classifier(width: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(width, CLASSES), dim=0)  # [D, C]


SIDES = {"cmmlib": of_cmmlib, "open_clip": of_open_clip, "CLIP_benchmark": of_clip_benchmark}


# ---------------------------------------------------------------- all sides, in turns


def write_inputs(folder: Path, images: int, batch: int) -> None:
    """Random weights, and folders of pictures: `first` to warm up with, `images` to time."""
    import open_clip
    from PIL import Image
    from safetensors.torch import save_file

    from cmmlib.blazon.classes import evaluation_images, load_classes

    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors")
    pixels, labels = evaluation_images(load_classes()[:CLASSES], 0)
    for name, count in (("first", batch), ("images", images)):
        for i in range(count):
            n = i * len(pixels) // count
            path = folder / name / f"class-{labels[n]:02d}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[n]).resize((320, 320), Image.Resampling.BICUBIC).save(path, quality=90)


def measure(options: argparse.Namespace, side: str, python: str) -> dict:
    command = [python, __file__, "--side", side, "--folder", str(options.folder), "--batch", str(options.batch)]
    command += ["--threads", str(options.threads)]
    with tempfile.TemporaryDirectory() as cache:  # embeddings that are known are not embedded again
        environment = {**os.environ, "CMM_CACHE": cache, "OMP_NUM_THREADS": str(options.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip-benchmark", help="python of an environment with clip-benchmark")
    parser.add_argument("--json", type=Path, help="write every round here")
    parser.add_argument("--csv", type=Path, help="write the table here, as the book has it")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps(SIDES[options.side](options)))
        return
    pythons = {"cmmlib": sys.executable, "open_clip": sys.executable, "CLIP_benchmark": options.clip_benchmark}
    pythons = {side: python for side, python in pythons.items() if python}
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        write_inputs(options.folder, options.images, options.batch)
        rounds = [{s: measure(options, s, python) for s, python in pythons.items()} for _ in range(options.rounds)]
    found = table(options.images, rounds)
    print(found.to_string(index=False))
    print(f"{options.images} images, batch {options.batch}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n")
    if options.csv:
        found.to_csv(options.csv, index=False)


def table(images: int, rounds: list[dict[str, dict]]) -> pd.DataFrame:
    """A row a side: medians over rounds; ratios are taken within a round."""
    import pandas as pd  # CLIP_benchmark's environment need not have it

    rows = []
    for side in rounds[0]:
        ratios = [r[side]["seconds"] / r["cmmlib"]["seconds"] for r in rounds]
        speed = median(images / r[side]["seconds"] for r in rounds)
        share = median(r[side].get("share_in_model", float("nan")) for r in rounds)
        rows.append((side, speed, median(ratios), min(ratios), max(ratios), 100 * share))
    heads = ("program", "images a second", "cmmlib is faster by", "lowest", "highest", "of its time in the model (%)")
    return pd.DataFrame(rows, columns=heads).round(2)


if __name__ == "__main__":
    main()
