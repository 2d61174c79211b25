"""Makes cmmlib/evaluation/reference.csv, the figures that `cmm verify` compares runs with. No value is typed here.

    python benchmarks/reference.py REFERENCE REAL PUBLISHED

REFERENCE is a folder with clip_benchmark.csv (LAION-AI/CLIP_benchmark, benchmark/benchmark.csv, the zero-shot
classification rows), open_clip.csv (mlfoundations/open_clip, docs/openclip_results.csv) and
cifar100_vitb32_per_class.csv (Weichen6603/clip-zero-shot-eval); REAL is a folder with the real embeddings of the tests;
PUBLISHED a clone of the repository with accuracies per class that `cmmlib.evaluation.published` names.

Models: those of the architectures that CLIP_benchmark measured or OpenAI released, with tags that open_clip's registry
knows, and at least as good on ImageNet as the weakest of OpenAI's.
Metric: open_clip's table does not say which of its columns are means over classes. CLIP_benchmark's table has both
metrics; a column is a mean over classes where, over the models in both tables, it is more than twice as close to that.
Tolerance: where the two tables have the same model, data set and metric, 95 % of the differences are below it.
Worst classes: PUBLISHED names only the training data of a model. Its weights are those of open_clip that were
trained on it and are nearest in accuracy on ImageNet. A data set is taken where at least three quarters of the models
have the accuracy that open_clip's table says, within 0.2 points, and of it these models: others are of other prompts,
names or images. How many agree is printed. The tolerance of a mean of worst classes has one image of each class added,
that of the number of classes at 0 is the number of classes with one image.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.blazon.training.model import weights
from cmmlib.evaluation import published, reference
from cmmlib.functional.zero_shot import predict

COLUMNS = ["backbone", "pretrained", "dataset", "split", "prompts", "metric", "value", "tolerance", "data"]
COLUMNS += ["source", "commit"]
OURS = reference.REFERENCE
SAME = 0.002  # between overall accuracies: the same images, prompts and weights
MOST = 0.75  # of the models, for a data set to be the same
EMBEDDED = 0.001  # the embedded world is rendered and embedded anew: only float rounding differs
DATASETS = {  # a study's name: its name in CLIP_benchmark's table and in open_clip's
    "imagenet": ("imagenet1k", "ImageNet 1k"),
    "caltech101": ("vtab/caltech101", "Caltech-101"),
    "cifar10": ("vtab/cifar10", "CIFAR-10"),
    "cifar100": ("vtab/cifar100", "CIFAR-100"),
    "country211": ("country211", "Country211"),
    "dtd": ("vtab/dtd", "Describable Textures"),
    "eurosat": ("vtab/eurosat", "EuroSAT"),
    "aircraft": ("fgvc_aircraft", "FGVC Aircraft"),
    "food101": (None, "Food-101"),
    "gtsrb": ("gtsrb", "GTSRB"),
    "flowers102": ("vtab/flowers", "Oxford Flowers-102"),
    "pets": ("vtab/pets", "Oxford-IIIT Pet"),
    "cars": ("cars", "Stanford Cars"),
    "sun397": ("sun397", "SUN397"),
}
CLASSWISE = {name: name for name in DATASETS} | {
    "aircraft": "fgvcaircraft",
    "pets": "oxfordpets",
    "cars": "stanfordcars",
}
MODEL = ["backbone", "pretrained", "dataset"]


def clip_benchmark(folder: Path) -> pd.DataFrame:
    names = {theirs: ours for ours, (theirs, _) in DATASETS.items()}
    table = pd.read_csv(folder / "clip_benchmark.csv").rename(columns={"model": "backbone"})
    table["dataset"] = table["dataset"].map(names)
    table = table.dropna().rename(columns={"acc1": "accuracy", "mean_per_class_recall": "mean_per_class"})
    table = table.melt(MODEL, ["accuracy", "mean_per_class"], "metric", "value")
    return table.assign(source="LAION-AI/CLIP_benchmark benchmark/benchmark.csv", commit="48de38c")


def open_clip_results(folder: Path, other: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Rows of open_clip's table, each with its metric, and the tolerance: see the module's text."""
    names = {theirs: ours for ours, (_, theirs) in DATASETS.items()}
    table = pd.read_csv(folder / "open_clip.csv").rename(columns={"name": "backbone"})
    table = table.melt(["backbone", "pretrained"], list(names), "dataset", "value")
    table["dataset"] = table["dataset"].map(names)
    both = table.merge(other, on=MODEL, suffixes=("", "_other"))
    both["difference"] = (both["value"] - both["value_other"]).abs()
    median = both.pivot_table("difference", "dataset", "metric", "median")
    over_classes = set(median.index[2 * median["mean_per_class"] < median["accuracy"]])
    metric = {name: "mean_per_class" if name in over_classes else "accuracy" for name in DATASETS}
    agreed = both[both["metric"] == both["dataset"].map(metric)]
    tolerance = math.ceil(1000 * agreed["difference"].quantile(0.95)) / 1000
    table["metric"] = table["dataset"].map(metric)
    source = {"source": "mlfoundations/open_clip docs/openclip_results.csv", "commit": "89fb801"}
    return table.assign(**source), tolerance


def per_class(folder: Path) -> pd.DataFrame:
    accuracy = pd.read_csv(folder / "cifar100_vitb32_per_class.csv")["accuracy"].sort_values()
    values = {"accuracy": accuracy.mean(), "worst_10": accuracy[:10].mean()}  # 100 images a class
    rows = pd.DataFrame(values.items(), columns=["metric", "value"])
    rows[MODEL] = ["ViT-B-32", "openai", "cifar100"]
    return rows.assign(source="Weichen6603/clip-zero-shot-eval", commit="run of 2025-06-19")


def worst_classes(folder: Path, other: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Overall figures and those of the worst classes, with the tolerance of each; prints what is left out."""
    names = {theirs: ours for ours, theirs in CLASSWISE.items()}
    table = published.read_published(folder)
    table = table[(table["prompts"] == "template ensemble") & table["data"].isin(names)]
    table = table.assign(dataset=table["data"].map(names))
    tags = registered_tags(table, other[other["dataset"] == "imagenet"])
    known = other.set_index([*MODEL, "metric"])["value"]
    rows = []
    for dataset, classes in table.groupby("dataset"):
        one = 1 / np.median([images(values) for _, values in classes.groupby("class_name")])
        models = [
            ({"backbone": backbone, "pretrained": tags[backbone, trained_on], "dataset": dataset}, part)
            for (backbone, trained_on), part in classes.groupby(["backbone", "pretrained"])
            if (backbone, trained_on) in tags
        ]
        off = [abs(found - theirs) for model, part in models for found, theirs in overall(model, part, known)]
        agrees = [difference <= SAME for difference in off]
        print(f"{dataset}: {sum(agrees)} of {len(off)} models agree, largest difference {max(off, default=0):.4f}")
        if off and sum(agrees) >= MOST * len(off):
            kept = [pair for pair, same in zip(models, agrees, strict=True) if same]
            rows += [row for model, part in kept for row in tail(model, part, tolerance, one)]
    source = published.SOURCE.removeprefix("https://github.com/")
    return pd.DataFrame(rows).assign(source=f"{source} (accuracies per class)", commit=published.COMMIT)


def overall(model: dict[str, str], part: pd.DataFrame, known: pd.Series) -> list[tuple[float, float]]:
    """The overall figure of a model, as its accuracies per class and as open_clip's table say it; once."""
    found = {"accuracy": part["overall"].iloc[0], "mean_per_class": part["accuracy"].mean()}
    theirs = {metric: known.get((*model.values(), metric)) for metric in found}
    return [(found[metric], value) for metric, value in theirs.items() if value is not None]


def tail(model: dict[str, str], part: pd.DataFrame, tolerance: float, one: float) -> list[dict[str, object]]:
    """Rows of a model: accuracy, worst classes and classes at 0. `one` is the share of an image in its class."""
    accuracy = np.sort(part["accuracy"])
    figures = {"accuracy": (part["overall"].iloc[0], tolerance)}
    figures |= {f"worst_{k}": (accuracy[:k].mean(), tolerance + one) for k in (5, 10, 20) if k <= len(accuracy)}
    figures["zero_classes"] = ((accuracy == 0).sum(), max(1, ((accuracy > 0) & (accuracy < 1.5 * one)).sum()))
    return [
        {**model, "metric": metric, "value": value, "tolerance": round(float(allowed), 4)}
        for metric, (value, allowed) in figures.items()
    ]


def registered_tags(table: pd.DataFrame, imagenet: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(architecture, training data) -> the weights trained on it that are nearest in accuracy on ImageNet."""
    overall = table[table["dataset"] == "imagenet"].groupby(["backbone", "pretrained"])["overall"].first()
    registered, tags = set(open_clip.list_pretrained()), {}
    for (backbone, trained_on), value in overall.items():
        rows = imagenet[(imagenet["backbone"] == backbone) & imagenet["pretrained"].str.startswith(trained_on)]
        near = (rows.set_index("pretrained")["value"] - value).abs().sort_values()
        near = near[[(backbone, tag) in registered for tag in near.index]]
        if len(near) and near.iloc[0] <= SAME:
            tags[backbone, trained_on] = near.index[0]
    return tags


def images(values: pd.DataFrame) -> int:
    """How many images a class has: the smallest number of which all its accuracies are whole parts."""
    accuracy = values["accuracy"].to_numpy()
    counts = np.arange(1, 10_001)[:, None] * accuracy[accuracy > 0]
    return int((np.abs(counts - counts.round()) < 1e-6).all(1).argmax()) + 1


def well_known(table: pd.DataFrame) -> pd.Series:
    """Mask of the models that are kept."""
    imagenet = table[(table["dataset"] == "imagenet") & (table["metric"] == "accuracy")]
    floor = imagenet.loc[imagenet["pretrained"] == "openai", "value"].min()
    benchmarked = table["source"].str.startswith("LAION") | (table["pretrained"] == "openai")
    architectures = set(table.loc[benchmarked, "backbone"].map(plain))
    good = imagenet[(imagenet["value"] >= floor) & imagenet["backbone"].map(plain).isin(architectures)]
    kept = set(zip(good["backbone"], good["pretrained"], strict=True)) & set(open_clip.list_pretrained())
    return pd.Series([pair in kept for pair in zip(table["backbone"], table["pretrained"], strict=True)], table.index)


def plain(backbone: str) -> str:
    return backbone.removesuffix("-quickgelu")


def computed(study: Study, dataset: str, split: str, prompts: str, tolerance: float, commit: str = "") -> pd.DataFrame:
    """What this package measures on the run's base prompt."""
    run = open_run(study)
    assert run.labels is not None
    found = F.class_accuracy(predict(run.image_features, run.base_text_features), run.labels, run.n_classes)
    values: dict[str, float | None] = {"accuracy": found.overall, "mean_per_class": found.mean_per_class}
    values |= {f"worst_{k}": F.worst_at_k(found.value, k) for k in (5, 10, 20)}
    rows = pd.DataFrame(values.items(), columns=["metric", "value"])
    model = run.facts["model"]
    rows["backbone"] = model["backbone"] or "ViT-B-32-quickgelu"
    rows["pretrained"] = model["pretrained"] or "openai"
    what = {"dataset": dataset, "split": split, "prompts": prompts, "tolerance": tolerance}
    digest = run.facts["data"]["digest"][:16]
    return rows.assign(**what, data=digest, source="benchmarks/reference.py", commit=commit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("published", type=Path)
    given = parser.parse_args()
    first = clip_benchmark(given.reference)
    second, tolerance = open_clip_results(given.reference, first)
    tables = pd.concat([first, second])
    others = pd.concat([tables[well_known(tables)], per_class(given.reference)]).assign(tolerance=tolerance)
    others = pd.concat([others, worst_classes(given.published, second, tolerance)])
    others = others.assign(split="test", prompts="ensemble")
    ours = []
    for file, dataset, prompts in (("dtd_vitb32", "dtd", "ensemble"), ("pets25_vitb32", "pets, 25 breeds", "base")):
        study = Study.of({"dataset": f"embeddings:{given.real / file}.npz"})
        split = "CoOp's test and val" if dataset == "dtd" else "test"
        ours.append(computed(study, dataset, split, prompts, tolerance, "bunnieslala/IMAS 34a935a"))
    for tag in weights():
        study = Study.of({"pretrained": tag})
        ours.append(computed(study, "blazon", "seed 0", "base", EMBEDDED))
    table = pd.concat([*ours, others])[COLUMNS].sort_values(MODEL, kind="stable")
    table.round({"value": 5}).to_csv(OURS, index=False, lineterminator="\n")
    print(f"{len(table)} figures of {len(table[MODEL[:2]].drop_duplicates())} models; tolerance {tolerance}")


if __name__ == "__main__":
    main()
