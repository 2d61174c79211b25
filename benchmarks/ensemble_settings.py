"""How the settings of the weighted ensemble were chosen: a grid over class lists and images that no page reports on.

For each class list of the embedded world other than the shipped one, each evaluation seed, and each setting: describe
the quarter of lowest CMM with generated wordy sentences, weigh, classify. The chosen setting is that of highest mean of
overall and worst-10. With CMM_REAL_DATA, the two heads of the real pets embeddings are weighed as well.

    python benchmarks/ensemble_settings.py OUT.csv [--lists 1 2 3 4 5 6] [--seeds 21]
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from cmmlib import functional as F
from cmmlib.blazon.language.noisy_descriptions import descriptions
from cmmlib.data.load import RenderedShields, load_blazon, load_embeddings
from cmmlib.functional.candidates import Candidates, candidate_cmm
from cmmlib.functional.prompt_baselines import uniform_mean
from cmmlib.functional.similarity import similarity_pass
from cmmlib.functional.zero_shot import predict
from cmmlib.models.backbones import Backbone, load_backbone
from cmmlib.models.embed import embed_images
from cmmlib.models.embed_texts import embed_texts
from cmmlib.texts.questions import default_n_described
from cmmlib.texts.templates import BLAZON_TEMPLATES, PromptBank

BASE = "a photo of a {}."
PETS = Path(os.environ.get("CMM_REAL_DATA", "")) / "pets25_vitb32.npz"
GRID = {
    "assignment": ("soft", "retrieval"),
    "balanced": (True, False),
    "temperature": (0.1, 0.3, 0.6, 1.0),
    "cut": (0.5, 1.0, None),
    "rounds": (1, 2, 3),
}


def settings():
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def scores(images, labels, candidates, others, logit_scale) -> list[dict]:
    first = {way: candidate_cmm(images, candidates, others, logit_scale, way) for way in GRID["assignment"]}
    rows = []
    for setting in settings():
        form = {name: setting[name] for name in ("temperature", "cut", "balanced")}
        way = setting["assignment"]
        if setting["rounds"] == 1:
            score = first[way]
        else:  # the rivals have the texts of the row before, which is a round less
            score = candidate_cmm(images, candidates, classifier, logit_scale, way)
        classifier = F.combine_candidates(candidates, F.weigh_candidates(candidates, score, **form))
        accuracy = F.class_accuracy(predict(images, classifier), labels, candidates.n_classes)
        rows.append({**setting, "overall": accuracy.overall, "worst_10": F.worst_at_k(accuracy.value, 10)})
    return rows


class World(NamedTuple):
    """Embeddings of a class list whose suspects are described; the rivals of the first round are `others`, [C, D]."""

    name: str
    image_features: Tensor
    labels: Tensor
    candidates: Candidates
    others: Tensor
    suspects: list[int]
    logit_scale: float


def embedded(list_seed: int, seed: int, backbone: Backbone) -> tuple[RenderedShields, Tensor, Tensor]:
    """One class list, its images of one seed [N, D], and the base prompt and the templates filled with it [P, C, D]."""
    data = load_blazon(str(list_seed), seed)
    images = embed_images(backbone, data)
    templates = [BASE, *BLAZON_TEMPLATES]
    texts = PromptBank.of_templates(templates, data.classnames).texts
    heads = embed_texts(backbone, texts).unflatten(0, (len(templates), len(data.classnames)))
    return data, images, heads


def described_world(list_seed: int, seed: int, backbone) -> World:
    """One class list on the images of one seed, its quarter of lowest CMM described by generated sentences."""
    data, images, heads = embedded(list_seed, seed, backbone)
    base, pool = heads[0], heads[1:]
    soft = F.class_matching_margin(similarity_pass(images, base[None], backbone.logit_scale), "soft")[0]
    suspects = F.rank_classes(soft)[: default_n_described(len(base))].tolist()
    described = {c: embed_texts(backbone, descriptions(data.arms[c], seed)) for c in suspects}
    candidates = Candidates.of_templates(pool).with_descriptions(described)
    name, others = f"blazon:{list_seed}", uniform_mean(pool)
    return World(name, images, data.labels, candidates, others, suspects, backbone.logit_scale)


def embedded_world(list_seed: int, seed: int, backbone) -> list[dict]:
    world = described_world(list_seed, seed, backbone)
    rows = scores(world.image_features, world.labels, world.candidates, world.others, world.logit_scale)
    return [{"data": world.name, "seed": seed, **row} for row in rows]


def real_heads(path: Path) -> list[dict]:
    data = load_embeddings(path)
    candidates = Candidates.of_templates(data.text_features)
    assert data.labels is not None
    rows = scores(data.image_features, data.labels, candidates, uniform_mean(data.text_features), data.logit_scale)
    return [{"data": path.stem, "seed": None, **row} for row in rows]


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21])
    return parser.parse_args()


def main() -> None:
    given = arguments(__doc__)
    backbone, rows = load_backbone("blazon-mini", None), []
    for list_seed, seed in itertools.product(given.lists, given.seeds):
        rows += embedded_world(list_seed, seed, backbone)
        print(f"blazon:{list_seed}, images of seed {seed}: done", file=sys.stderr)
    if PETS.is_file():
        rows += real_heads(PETS)
    table = pd.DataFrame(rows)
    table["cut"] = table["cut"].map(lambda cut: "none" if pd.isna(cut) else f"{cut:g}")
    world = table[table["data"].str.startswith("blazon")]
    mean = 100 * world.groupby(list(GRID), sort=False)[["overall", "worst_10"]].mean()
    if PETS.is_file():
        mean["pets"] = 100 * table[table["data"] == PETS.stem].set_index(list(GRID))["overall"]
    order = (mean["overall"] + mean["worst_10"]).sort_values(ascending=False, kind="stable").index
    ranked = mean.loc[order].reset_index().assign(rank=range(1, len(mean) + 1))
    shown = pd.concat([ranked.head(15), ranked.tail(5)])
    shown["balanced"] = shown["balanced"].map({True: "yes", False: "no"})
    shown = shown[["rank", *shown.columns.drop("rank")]].rename(columns={"worst_10": "worst 10"})
    shown.to_csv(given.out, index=False, float_format="%.1f")
    print(shown.to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
