"""How the settings of chapter 5 were chosen: a grid over class lists and images that no page reports on.

For each class list of the embedded world other than the shipped one, each evaluation seed, and, with CMM_REAL_DATA,
the real sets of embeddings: prior matching at several strengths, prototypes with several weights and rounds. Each is
fitted on all images and on five a class, and judged on all. The same fits tell which step finds the bias of prior
matching soonest, and when it is right to stop.

    python benchmarks/calibration_settings.py FOLDER [--lists 1 2 3] [--seeds 21 22]

writes into FOLDER: calibration_settings.csv, the best settings; calibration_settings_sets.csv, all of them on each data
set; calibration_steps.csv and calibration_stopping.csv.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor

from cmmlib import functional as F
from cmmlib.data.load import load_blazon, load_embeddings
from cmmlib.functional import prior_matching, prototypes
from cmmlib.functional.prior_matching import SimilarityBlocks
from cmmlib.functional.resampling import few_per_class
from cmmlib.models.backbones import load_backbone
from cmmlib.models.embed import embed_images
from cmmlib.models.embed_texts import embed_texts
from cmmlib.storage.cache import whole_file

BASE = "a photo of a {}."
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = ((4.0, 1.0), (4.0, 2.0), (4.0, 4.0), (3.0, 3.0), (2.0, 1.0), (8.0, 4.0))
ROUNDS = (1, 2, 4, 8, 16)
FEW = 5  # images a class
BEST = 12  # settings of a method that are shown
DAMPINGS = {"plain step, damping 0.5": 0.5, "plain step (Sinkhorn)": 1.0}
NEWTON = "Newton's step, damped where needed"
STEP_CAP = 2000  # rounds
REPEATS = 3  # of a timing, of which the shortest counts
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6)
STRICTEST = 1e-8
SETTLED = (0.0, 1e-3, 1e-2)
PROTOTYPE_CAPS = (8, 32)  # rounds


class Data(NamedTuple):
    name: str
    image_features: Tensor
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
        for head in data.text_features:
            yield Data(name, data.image_features, data.labels, head, data.logit_scale)


def settings_and_fits(images: Tensor, head: Tensor, logit_scale: float) -> Iterator[tuple[dict, F.Correction]]:
    whole = F.fit_prior_matching(images, head, logit_scale)
    for strength in STRENGTHS:
        yield {"method": "prior matching", "strength": strength}, whole.with_strength(strength)
    for (text, image), rounds in itertools.product(WEIGHTS, ROUNDS):
        setting = {"method": "prototypes", "strength": 1.0, "weights": f"{text:g} : {image:g}", "rounds": rounds}
        weights = {"text_weight": text, "image_weight": image}
        yield setting, F.fit_prototypes(images, head, logit_scale, rounds=rounds, **weights)


def references(labels: Tensor) -> dict[str, Tensor]:
    """The images that are fitted on."""
    return {"": torch.arange(len(labels)), f", {FEW} a class": few_per_class(labels, FEW)}


def judged(data: Data, prediction: Tensor) -> dict[str, float]:
    accuracy = F.class_accuracy(prediction, data.labels, len(data.head))
    return {"overall": 100 * accuracy.overall, "worst 10": 100 * (F.worst_at_k(accuracy.value, 10) or 0.0)}


def setting_rows(data: Data) -> list[dict]:
    """Accuracies of every setting on every reference."""
    return [
        {
            "data": data.name,
            "reference": reference,
            **setting,
            **judged(data, found.predict(data.image_features)),
        }
        for reference, kept in references(data.labels).items()
        for setting, found in settings_and_fits(data.image_features[kept], data.head, data.logit_scale)
    ]


def ranked(rows: list[dict]) -> pd.DataFrame:
    """A row a setting, means over the data sets of a name, best first: by the mean of all scores, names alike."""
    keys = ["method", "strength", "weights", "rounds"]
    table = pd.DataFrame(rows).fillna({"weights": "", "rounds": 0}).astype({"rounds": int})
    long = table.melt([*keys, "data", "reference"], ["overall", "worst 10"], "score")
    long["column"] = long["data"] + long["reference"] + ", " + long["score"]
    wide = long.pivot_table("value", keys, "column", aggfunc="mean", sort=False)
    means = {score: wide.filter(regex=f"{score}$").mean(axis=1) for score in ("overall", "worst 10")}
    for place, (name, mean) in enumerate({"mean of all": wide.mean(axis=1), **means}.items()):
        wide.insert(place, name, mean)
    wide = wide.sort_values("mean of all", ascending=False, kind="stable").sort_index(
        level="method", kind="stable", sort_remaining=False
    )
    shown = wide.reset_index()
    shown["rounds"] = shown["rounds"].map(lambda rounds: rounds or "")
    shown["strength"] = shown["strength"].map("{:g}".format)
    return shown


# ---------------------------------------------------------------- steps of prior matching, and when to stop


def plain_fixed_point(blocks: Iterable[Tensor], logit_scale: float, damping: float) -> F.Bias:
    """b <- b - damping log(mean_n q[n] C), centred: without Newton, for a uniform prior."""
    bias, rounds, gap = torch.zeros(1, dtype=torch.float64), 0, torch.full((2,), torch.inf)
    while rounds < STEP_CAP:
        mass = torch.stack([F.apply_bias(block, logit_scale, bias).softmax(1).sum(0).double() for block in blocks]).sum(
            0
        )
        gap, rounds = mass.log() - mass.log().mean(), rounds + 1
        if float(gap.max() - gap.min()) < prior_matching.TOLERANCE:
            break
        bias = bias - damping * gap
    return F.Bias(bias, float(gap.max() - gap.min()) < prior_matching.TOLERANCE, rounds)


def timed(fit: Callable[[], F.Bias]) -> tuple[F.Bias, float]:
    """What a fit found, and the seconds of its shortest run."""
    seconds, found = float("inf"), None
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = fit()
        seconds = min(seconds, time.perf_counter() - start)
    assert found is not None
    return found, seconds


def step_rows(data: Data) -> Iterator[dict]:
    """Rounds and time of each step, and how far its bias is from Newton's."""
    scale = data.logit_scale
    for kept in references(data.labels).values():
        blocks = SimilarityBlocks(data.image_features[kept], data.head)
        newton, unit = timed(lambda blocks=blocks: F.match_prior(blocks, scale, max_rounds=STEP_CAP))
        found = {NEWTON: (newton, unit)}
        for step, damping in DAMPINGS.items():
            found[step] = timed(lambda blocks=blocks, d=damping: plain_fixed_point(blocks, scale, d))
        for step, (bias, seconds) in found.items():
            apart = float((bias.value - newton.value).abs().max())
            row = {"data": data.name, "step": step, "converged": bias.converged, "rounds": bias.rounds}
            yield {**row, "time": seconds / unit, "apart": apart}


def steps(rows: list[dict]) -> pd.DataFrame:
    """A row a step and data set: fits that converged, rounds, time over that of Newton's step, largest difference."""
    groups = pd.DataFrame(rows).groupby(["data", "step"], sort=False)
    columns = {
        "converged": groups["converged"].agg(lambda yes: f"{yes.sum()} of {len(yes)}"),
        "rounds": groups["rounds"].median().map("{:g}".format),
        "most rounds": groups["rounds"].max(),
        "time": groups["time"].median().map("{:.1f}".format),
        "bias apart": groups["apart"].max().map("{:.1g}".format),
    }
    return pd.DataFrame(columns).reset_index()


def stops(images: Tensor, data: Data) -> Iterator[tuple[dict, F.Correction]]:
    """Fits that end at several tolerances, for each method the strictest first."""
    scale = data.logit_scale
    for tolerance in (STRICTEST, *TOLERANCES):
        with patch.object(prior_matching, "TOLERANCE", tolerance):
            found = F.fit_prior_matching(images, data.head, scale)
        yield {"stops at": f"gap {tolerance:g}", "at most": prior_matching.MAX_ROUNDS}, found
    for cap, settled in itertools.product(sorted(PROTOTYPE_CAPS, reverse=True), SETTLED):
        with patch.object(prototypes, "SETTLED", settled):
            found = F.fit_prototypes(images, data.head, scale, rounds=cap)
        yield {"stops at": f"{100 * settled:g} % change", "at most": cap}, found


def stopping_rows(data: Data) -> Iterator[dict]:
    for kept in references(data.labels).values():
        strictest: dict[str, Tensor] = {}
        for rule, found in stops(data.image_features[kept], data):
            prediction = found.predict(data.image_features)
            first = strictest.setdefault(rule["stops at"].split()[0] == "gap", prediction)
            differ = 100 * float((prediction != first).double().mean())
            counts = {"settled": found.converged, "rounds": found.rounds, "differ (%)": differ}
            yield {"data": data.name, **rule, **counts, **judged(data, prediction)}


def stopping(rows: list[dict]) -> pd.DataFrame:
    """A row a rule; accuracies are means in which the names of data sets count alike, as in `ranked`."""
    keys, scores = ["stops at", "at most"], ["differ (%)", "overall", "worst 10"]
    table = pd.DataFrame(rows)
    groups = table.groupby(keys, sort=False)
    shown = groups["settled"].agg(lambda yes: f"{yes.sum()} of {len(yes)}").to_frame()
    shown["rounds"] = groups["rounds"].median().map("{:g}".format)
    means = table.groupby([*keys, "data"], sort=False)[scores].mean().groupby(keys, sort=False).mean()
    means["differ (%)"] = means["differ (%)"].map("{:.3f}".format)
    return shown.join(means).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22])
    given = parser.parse_args()
    real = Path(os.environ.get("CMM_REAL_DATA", "/nowhere"))
    settings, step, stop = [], [], []
    for data in itertools.chain(real_sets(real), embedded_world(given.lists, given.seeds)):
        settings += setting_rows(data)
        step += step_rows(data)
        stop += stopping_rows(data)
        print(f"{data.name}: done", file=sys.stderr, flush=True)
    table = ranked(settings)
    best = table.groupby("method").head(BEST)
    tables = {
        "calibration_settings": best[["method", "strength", "weights", "rounds", "mean of all", "overall", "worst 10"]],
        "calibration_settings_sets": table.drop(columns=["overall", "worst 10"]),
        "calibration_steps": steps(step),
        "calibration_stopping": stopping(stop),
    }
    for name, shown in tables.items():
        with whole_file(given.folder / f"{name}.csv") as temporary:
            shown.to_csv(temporary, index=False, float_format="%.1f")
        print(shown.to_string(index=False, float_format="%.1f"), end="\n\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
