"""What ships beside the weights: the record of their training, what was measured, and how often names were read."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.blazon.drawing.render import render
from cmmlib.blazon.heraldry import Arms, terms_of
from cmmlib.blazon.training.model import SHIPPED, TAG, folder_of, weights
from cmmlib.blazon.training.pairs import Recipe, arms_of, captions_of, image_seed

SHIPPING_RULE = (
    "of the training seeds that meet every condition of this world on every evaluation seed, the one of median overall "
    "accuracy, and of two the lower"
)


def load_record(tag: str = TAG) -> dict[str, Any]:
    """The training record of a tag's weights: recipe, losses, probes, versions, digests."""
    return json.loads((folder_of(tag) / "record.json").read_text("utf-8"))


def load_quality(tag: str = TAG) -> list[dict[str, Any]]:
    """What was measured on every training seed, with its `training_seed`: see `quality.measure`."""
    return json.loads((folder_of(tag) / "quality.json").read_text("utf-8"))


def load_frequencies() -> pd.DataFrame:
    """How often names and plain wordings were read in the shipped training run: see `frequencies.frequencies`."""
    return pd.read_csv(SHIPPED / "frequencies.csv", keep_default_na=False)


def shipped_recipe() -> Recipe:
    """The recipe of the shipped weights."""
    return Recipe(**load_record()["recipe"])


def training_examples(n: int, seed: int = 0) -> list[tuple[np.ndarray, list[str]]]:
    """Some training images of the shipped run, uint8 [64, 64, 3], rendered again, each with its captions."""
    recipe = shipped_recipe()
    examples = []
    for index in random.Random(seed).sample(range(recipe.images), n):
        image, scene = render(arms_of(recipe, index), image_seed(recipe, index))
        examples.append((image, captions_of(recipe, index, scene)))
    return examples


def weakest_names(classes: Sequence[Arms]) -> pd.DataFrame:
    """For each class, the weakest name in its blazon: read seldom, or seldom in its own sense.

    Weakness is the number of captions with the name under a picture that shows the thing, times the share of such
    captions among all with the name.

    Returns:
        A row a class: `name`, `read` (captions with it whose picture shows the thing) and `elsewhere` (captions with
        it whose picture does not: another sense, or a wrong caption).
    """
    table = load_frequencies()
    names = table.query("is_name").set_index("term")
    strength = names["shown"] ** 2 / (names["shown"] + names["not_shown"]).clip(lower=1)
    rows = []
    for arms in classes:
        said = terms_of(arms)
        if said & set(names.query("kind == 'roundel'").index):  # the special name says charge and colour
            said -= {"roundel", str(arms.tincture)} - {arms.field}
        weakest = min(sorted(said), key=lambda term: strength[term])
        rows.append((weakest, int(names.loc[weakest, "shown"]), int(names.loc[weakest, "not_shown"])))
    return pd.DataFrame(rows, columns=["name", "read", "elsewhere"])


def spread(quality: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row a training seed: means over its evaluation seeds, and the gain of clean descriptions, in points of 1."""
    rows = []
    for run in quality:
        mean = pd.DataFrame(run["by_seed"]).drop(columns="seed").mean()
        gain = mean["described_overall"] - mean["overall"]
        columns = ["overall", "worst_10", "below_30", "hardly_predicted", "auroc", "described_overall"]
        rows.append(
            {
                "training_seed": run["training_seed"],
                **{str(name): value for name, value in mean.items() if name in columns},
                "gain": gain,
                "linear_probe": run["linear_probe"],
            }
        )
    return pd.DataFrame(rows)


def tags() -> pd.DataFrame:
    """A row a tag of the weights that are here: `tag`, `samples` seen in training, and the columns of `spread`."""
    rows = []
    for tag in weights():
        recipe = load_record(tag)["recipe"]
        measured = spread(load_quality(tag)).set_index("training_seed").loc[recipe["seed"]]
        rows.append({"tag": tag, "samples": recipe["samples"], **measured})
    return pd.DataFrame(rows)
