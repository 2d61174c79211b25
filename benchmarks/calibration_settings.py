"""How the settings of chapter 5 were chosen: a grid over class lists and images that no page reports on.

For each class list of the embedded world other than the shipped one, each evaluation seed, and, with CMM_REAL_DATA,
the real sets of embeddings: prior matching at several strengths, prototypes with several weights and rounds. Each is
fitted on all images and on five a class, and judged on all.

    python benchmarks/calibration_settings.py OUT.csv [--lists 1 2 3] [--seeds 21 22]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from cmmlib import calibrate, metrics
from cmmlib.backbones import load_backbone
from cmmlib.datasets import load_blazon, load_embeddings
from cmmlib.embed import embed_images, embed_texts
from cmmlib.resampling import few_a_class

BASE = "a photo of a {}."
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = ((4.0, 1.0), (4.0, 2.0), (4.0, 4.0), (3.0, 3.0), (2.0, 1.0), (8.0, 4.0))
ROUNDS = (1, 2, 4, 8, 16)
FEW = 5  # images a class


class Data(NamedTuple):
    name: str
    images: Tensor
    labels: Tensor
    head: Tensor
    logit_scale: float


def embedded_world(lists: list[int], seeds: list[int]) -> Iterator[Data]:
    backbone = load_backbone("blazon-mini", None)
    for list_seed, seed in itertools.product(lists, seeds):
        data = load_blazon(str(list_seed), seed)
        head = embed_texts(backbone, [BASE.format(name) for name in data.classnames])
        yield Data("world", embed_images(backbone, data), data.labels, head, backbone.logit_scale)


def real_sets(folder: Path) -> Iterator[Data]:
    for path in sorted(folder.glob("*_vitb32.npz")):
        data = load_embeddings(path)
        name = path.stem.partition("_")[0].rstrip("0123456789")
        for head in data.heads:
            yield Data(name, data.images, data.labels, head, data.logit_scale)


def fits(images: Tensor, head: Tensor, tau: float) -> Iterator[tuple[dict, calibrate.Correction]]:
    whole = calibrate.prior_matching(images, head, tau)
    for strength in STRENGTHS:
        yield {"method": "prior matching", "strength": strength}, whole.at(strength)
    for (text, image), rounds in itertools.product(WEIGHTS, ROUNDS):
        setting = {"method": "prototypes", "strength": 1.0, "weights": f"{text:g} : {image:g}", "rounds": rounds}
        weights = {"text_weight": text, "image_weight": image}
        yield setting, calibrate.prototypes(images, head, tau, rounds=rounds, **weights)


def scores(data: Data) -> list[dict]:
    rows = []
    for reference, kept in {"all": torch.arange(len(data.labels)), "few": few_a_class(data.labels, FEW)}.items():
        for setting, found in fits(data.images[kept], data.head, 1 / data.logit_scale):
            prediction = found.predict(data.images, data.head)
            accuracy = metrics.class_accuracy(prediction, data.labels, len(data.head))
            worst = metrics.worst_at_k(accuracy.value, 10)
            settled = bool(found.converged)
            rows.append({"data": data.name, "reference": reference, **setting, "settled": settled})
            rows[-1] |= {"overall": 100 * accuracy.overall, "worst 10": 100 * (worst or 0.0)}
    return rows


def ranked(rows: list[dict]) -> pd.DataFrame:
    """A row a setting, means over the data sets of a name, best first: by the mean of all scores, names alike."""
    keys = ["method", "strength", "weights", "rounds"]
    table = pd.DataFrame(rows).fillna({"weights": "", "rounds": 0})
    table["reference"] = table["reference"].map({"all": "", "few": f", {FEW} a class"})
    table["rounds"] = table["rounds"].astype(int)
    long = table.melt([*keys, "data", "reference"], ["overall", "worst 10"], "score")
    long["column"] = long["data"] + long["reference"] + ", " + long["score"]
    wide = long.pivot_table("value", keys, "column", aggfunc="mean", sort=False)
    wide.insert(0, "mean of all", wide.mean(axis=1))
    wide = wide.sort_values("mean of all", ascending=False, kind="stable").sort_index(
        level="method", kind="stable", sort_remaining=False
    )
    shown = wide.reset_index()
    shown["rounds"] = shown["rounds"].map(lambda rounds: rounds or "")
    shown["strength"] = shown["strength"].map("{:g}".format)
    return shown.groupby("method").head(12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22])
    given = parser.parse_args()
    real, rows = Path(os.environ.get("CMM_REAL_DATA", "/nowhere")), []
    for data in itertools.chain(real_sets(real), embedded_world(given.lists, given.seeds)):
        rows += scores(data)
        print(f"{data.name}: done", file=sys.stderr, flush=True)
    table = ranked(rows)
    table.to_csv(given.out, index=False, float_format="%.1f")
    print(table.to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
