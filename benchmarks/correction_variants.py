"""Variants of the prototypes of chapter 5: other image parts, several prototypes a class, neighbours, estimated priors.

On the real sets of embeddings (CMM_REAL_DATA: DTD, DTD's test split with two models, 25 pet breeds) and on class lists
of the embedded world other than the shipped one, where the texts are the balanced mean of templates and generated
descriptions. Each correction is fitted on all images, on five a class, and on images of unequally frequent classes.

    python benchmarks/correction_variants.py FOLDER [--lists 1 2 3] [--seed 21] [--quick]

(with --quick only the first real set and list) writes into FOLDER: correction_variants.csv, means over sets;
correction_variants_sets.csv, overall and worst-10 accuracies on each set, fitted on all images.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from ensemble_assignment import balanced
from ensemble_settings import described_world
from torch import Tensor

from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.functional.resampling import dirichlet_frequencies, few_per_class, with_frequencies
from cmmlib.models.backbones import load_backbone
from cmmlib.storage.cache import whole_file

REAL = ("dtd_vitb32", "dtd_test_vitb32", "dtd_test_vitl14", "pets25_vitb32")
ALL, FEW, UNEQUAL = "all images", "5 images a class", "frequencies of Dirichlet(1)"
DRAWS = 1  # of the images of the last two
ROUNDS = 8


class Data(NamedTuple):
    name: str
    image_features: Tensor
    labels: Tensor
    texts: Tensor  # of one prompt, [C, D]
    logit_scale: float


Predict = Callable[[Data, Tensor], Tensor]  # fitted on the data's images, predicts others
Part = Callable[[Tensor, Tensor, Tensor], Tensor]  # images x, their probabilities, images to judge: similarities [M, C]


# ---------------------------------------------------------------- corrections of the library


def fitted(fit: Callable[..., F.Correction], **settings: object) -> Predict:
    def predict(data: Data, images: Tensor) -> Tensor:
        return fit(data.image_features, data.texts, data.logit_scale, **settings).predict(images)

    return predict


def with_estimated_prior(fit: Callable[..., F.Correction], share: float) -> Predict:
    """A first fit without bias says how frequent classes are; the second takes `share` of that, the rest uniform."""

    def predict(data: Data, images: Tensor) -> Tensor:
        form = (data.image_features, data.texts, data.logit_scale)
        estimate = fit(*form, strength=0.0).logits(data.image_features).softmax(1).mean(0)
        prior = share * estimate.double() + (1 - share) / len(data.texts)
        return fit(*form, prior).predict(images)

    return predict


# ---------------------------------------------------------------- other image parts


def cosine(x: Tensor, q: Tensor, images: Tensor) -> Tensor:
    return images @ torch.nn.functional.normalize(q.T @ x, dim=1).T


def several(x: Tensor, q: Tensor, images: Tensor, number: int = 2, sharpness: float = 50.0) -> Tensor:
    """Several prototypes a class, by spherical k-means within it; of a class the soft maximum counts."""
    mean = torch.nn.functional.normalize(q.T @ x, dim=1)
    apart = torch.randn(number, *mean.shape, generator=torch.Generator().manual_seed(0)) / mean.shape[1] ** 0.5
    centres = torch.nn.functional.normalize(mean + 0.2 * apart, dim=2)  # [number, C, D]
    for _ in range(5):
        share = (sharpness * torch.einsum("nd,mcd->mnc", x, centres)).softmax(0) * q
        centres = torch.nn.functional.normalize(torch.einsum("mnc,nd->mcd", share, x), dim=2)
    return (sharpness * torch.einsum("nd,mcd->mnc", images, centres)).logsumexp(0) / sharpness


def neighbours(x: Tensor, q: Tensor, images: Tensor, k: int = 5) -> Tensor:
    """Log of the mean probability of the k nearest fitted images, an image itself left out."""
    nearest = (images @ x.T).topk(min(k + 1, len(x)), 1)
    itself = (nearest.values > 1 - 1e-4).float().masked_fill(torch.arange(nearest.values.shape[1]) > 0, 0)
    weight = nearest.values * (1 - itself)
    mean = torch.einsum("nk,nkc->nc", weight, q[nearest.indices]) / weight.sum(1, keepdim=True)
    return mean.clamp_min(1e-3).log()


def in_rounds(part: Part, text_weight: float = 4.0, image_weight: float = 2.0, bonus: float = 0.0) -> Predict:
    """The rounds of `fit_prototypes` with another image part, and `bonus` times that of the neighbours."""

    def logits(data: Data, q: Tensor, images: Tensor) -> Tensor:
        x = data.image_features
        text = images @ data.texts.T / (x @ data.texts.T).std()
        found = text_weight * text + image_weight * part(x, q, images) / part(x, q, x).std()
        return found + bonus * neighbours(x, q, images) if bonus else found

    def predict(data: Data, images: Tensor) -> Tensor:
        x = data.image_features
        q = F.fit_prior_matching(x, data.texts, data.logit_scale).logits(x).softmax(1)
        for _ in range(ROUNDS - 1):
            own = logits(data, q, x)
            q = (own + F.match_prior(own, 1.0).value.float()).softmax(1)
        bias = F.match_prior(logits(data, q, x), 1.0).value.float()
        return (logits(data, q, images) + bias).argmax(1)

    return predict


def mean_of_both(data: Data, images: Tensor) -> Tensor:
    """Prototypes and Gaussians, their log probabilities added."""
    form = (data.image_features, data.texts, data.logit_scale)
    return sum(fit(*form).logits(images).log_softmax(1) for fit in (F.fit_prototypes, F.fit_gaussians)).argmax(1)


def agreeing_half(data: Data, images: Tensor) -> Tensor:
    """Prototypes or Gaussians, whichever gives two halves of the images, fitted apart, more equal predictions."""
    halves = torch.randperm(len(data.image_features), generator=torch.Generator().manual_seed(0)).chunk(2)
    agreement = {}
    for fit in (F.fit_prototypes, F.fit_gaussians):
        found = [
            fit(data.image_features[half], data.texts, data.logit_scale).predict(data.image_features) for half in halves
        ]
        agreement[fit] = float((found[0] == found[1]).double().mean())
    return fitted(max(agreement, key=agreement.__getitem__))(data, images)


def plain(data: Data, images: Tensor) -> Tensor:
    return F.predict(images, data.texts)


gaussians = partial(fitted, F.fit_gaussians)
VARIANTS: dict[str, Predict] = {
    "plain": plain,
    "prior matching": fitted(F.fit_prior_matching),
    "prototypes (the default)": fitted(F.fit_prototypes),
    "prototypes, 3 : 3": fitted(F.fit_prototypes, text_weight=3.0, image_weight=3.0),
    "two prototypes a class": in_rounds(several),
    "prototypes and 5 neighbours": in_rounds(cosine, bonus=0.25),
    "prototypes, estimated prior": with_estimated_prior(F.fit_prototypes, 1.0),
    "prototypes, half estimated prior": with_estimated_prior(F.fit_prototypes, 0.5),
    "Gaussians, ridge 1": gaussians(ridge=1.0),
    "Gaussians, ridge 2": gaussians(ridge=2.0),
    "Gaussians, ridge 2, 4 : 6": gaussians(ridge=2.0, image_weight=6.0),
    "Gaussians, ridge 5": gaussians(ridge=5.0),
    "Gaussians, ridge 5, 4 : 2": gaussians(ridge=5.0, image_weight=2.0),
    "Gaussians, ridge 5, 4 : 6": gaussians(ridge=5.0, image_weight=6.0),
    "Gaussians, ridge 10": gaussians(ridge=10.0),
    "Gaussians, ridge 5, half strength": gaussians(ridge=5.0, strength=0.5),
    "Gaussians, estimated prior": with_estimated_prior(F.fit_gaussians, 1.0),
    "Gaussians, half estimated prior": with_estimated_prior(F.fit_gaussians, 0.5),
    "mean of prototypes and Gaussians": mean_of_both,
    "the one whose halves agree more": agreeing_half,
}


# ---------------------------------------------------------------- data and tables


def real_sets(names: tuple[str, ...]) -> Iterator[Data]:
    folder = Path(os.environ.get("CMM_REAL_DATA", "/nowhere"))
    for name in names:
        if not (folder / f"{name}.npz").is_file():
            sys.exit(f"CMM_REAL_DATA: {folder} has no {name}.npz")
        data = load_embeddings(folder / f"{name}.npz")
        assert data.labels is not None
        for k, texts in enumerate(data.text_features.float()):
            label = f"{name}, prompt {k + 1}" if len(data.text_features) > 1 else name
            yield Data(label, data.image_features.float(), data.labels, texts, data.logit_scale)


def lists(seeds: list[int], seed: int) -> Iterator[Data]:
    backbone = load_backbone("blazon-mini", None)
    for list_seed in seeds:
        world = described_world(list_seed, seed, backbone)
        yield Data(world.name, world.image_features.float(), world.labels, balanced(world), world.logit_scale)


def references(data: Data) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is fitted on and what is judged."""
    everything = torch.arange(len(data.labels))
    yield ALL, everything, everything
    for draw in range(DRAWS):
        yield FEW, few_per_class(data.labels, 5, draw), everything
        frequencies = dirichlet_frequencies(len(data.texts), 1.0, draw)
        yield UNEQUAL, (drawn := with_frequencies(data.labels, frequencies, draw)), drawn


def rows(data: Data) -> Iterator[dict]:
    for reference, fitted_on, judged in references(data):
        part = data._replace(image_features=data.image_features[fitted_on], labels=data.labels[fitted_on])
        for name, predict in VARIANTS.items():
            prediction, labels = predict(part, data.image_features[judged]), data.labels[judged]
            accuracy = F.class_accuracy(prediction, labels, len(data.texts))
            scores = {"overall": 100 * accuracy.overall, "worst 10": 100 * (F.worst_at_k(accuracy.value, 10) or 0.0)}
            yield {"data": data.name, "images": reference, "correction": name, **scores}


def table(found: pd.DataFrame, columns: str) -> pd.DataFrame:
    """A row a correction; overall and worst-10 for every value of a column, means over what else there is."""
    scores = ["overall", "worst 10"]
    each = found.groupby([*dict.fromkeys(["correction", columns, "data"])], sort=False)[scores].mean().reset_index()
    means = each.groupby(["correction", columns], sort=False)[scores].mean().unstack(columns)
    names = list(dict.fromkeys(found[columns]))
    shown = means[[(score, name) for name in names for score in scores if (score, name) != ("worst 10", UNEQUAL)]]
    shown.columns = [f"{score}, {name}" for score, name in shown.columns]
    return shown.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="the first real set and the first list alone")
    given = parser.parse_args()
    names, seeds = (REAL[:1], given.lists[:1]) if given.quick else (REAL, given.lists)
    found = []
    for sets in (real_sets(names), lists(seeds, given.seed)):
        for data in sets:
            found += rows(data)
            print(f"{data.name}: done", file=sys.stderr, flush=True)
    everything = pd.DataFrame(found)
    tables = {"": table(everything, "images"), "_sets": table(everything[everything["images"] == ALL], "data")}
    for suffix, shown in tables.items():
        with whole_file(given.folder / f"correction_variants{suffix}.csv") as temporary:
            shown.to_csv(temporary, index=False, float_format="%.1f")
        print(shown.to_string(index=False, float_format="%.1f"), end="\n\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
