"""Sentences and tables of the model card: of the small CLIP that was trained on the embedded world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cmmlib.blazon import anatomy, card
from cmmlib.blazon.language.plain_english import glosses
from cmmlib.blazon.training.model import CONTEXT, MERGES, configuration
from cmmlib.report.display_names import display_name
from cmmlib.report.findings.anatomy import lowest
from cmmlib.report.findings.data_card import fact_table
from cmmlib.report.formatting import counted, decimal, interval, join_names, name, percent, points, points_interval
from cmmlib.report.titles import titled
from cmmlib.study.run import Run


@titled("The model")
def model_facts(record: Mapping[str, Any], n_parameters: int) -> pd.DataFrame:
    """What the model is, a row a fact.

    Args:
        record: `card.load_record`.
    """
    config, weights = configuration(), record["weights"]
    vision, text = config["vision_cfg"], config["text_cfg"]
    rows = {
        "image tower": f"ModifiedResNet, width {vision['width']}, {vision['image_size']} pixels",
        "text tower": (
            f"causal transformer, width {text['width']}, {text['layers']} layers, context {CONTEXT}, CLIP's tokenizer "
            f"cut to its first {MERGES:,} merges"
        ),
        "embedding": f"{config['embed_dim']} numbers",
        "parameters": f"{n_parameters / 1e6:.1f} million, {weights['bytes'] / 1e6:.1f} MB in float16",
        "logit scale": f"{record['logit_scale']:.1f}, learnt",
        "weights": f"SHA-256 {weights['sha256'][:16]}…",
    }
    return fact_table(rows)


@titled("Versions of the weights")
def versions(record: Mapping[str, Any]) -> pd.DataFrame:
    """With what the weights were trained."""
    told = {**record["versions"], "processor": record["processor"]}
    return pd.DataFrame(told.items(), columns=["what", "version"])


def how_trained(record: Mapping[str, Any]) -> str:
    """Pairs, pictures, steps, seed and time of the training."""
    recipe, probe = record["recipe"], record["probes"][-1]
    minutes = recipe["samples"] / probe["samples_per_second"] / 60
    return (
        f"{recipe['samples']:,} pairs of picture and caption were seen: {recipe['images']:,} rendered pictures with "
        f"{recipe['captions']} captions each, in {record['steps']:,} steps of {recipe['batch_size']}, from training "
        f"seed {recipe['seed']}. It took {minutes:.0f} minutes, rendering left out. At the last probe "
        f"{percent(probe['overall'])} were right overall and {percent(probe['worst_10'])} in the worst 10 classes."
    )


PER_CENT = ("overall", "worst_10", "described_overall", "linear_probe")


@titled("The same training with other seeds")
def training_seeds(spread: pd.DataFrame) -> pd.DataFrame:
    """`card.spread`, a column a training seed."""
    forms = dict.fromkeys(PER_CENT, percent) | {"gain": points}
    shown = spread.set_index("training_seed")
    rows = {
        display_name(measure) + (" (points)" if measure == "gain" else ""): shown[measure].map(
            forms.get(measure, decimal)
        )
        for measure in map(str, shown.columns)
    }
    table = pd.DataFrame(rows).T.rename(columns="seed {}".format)
    return table.rename_axis("measure").rename_axis(columns=None).reset_index()


def how_stable(spread: pd.DataFrame, quality: Sequence[Mapping[str, Any]], seed: int) -> str:
    """Range of overall accuracy over the training seeds, of the gain of descriptions, what was measured on, the rule.

    Args:
        quality: `card.load_quality`.
        seed: the study's.
    """
    seeds = sorted({row["seed"] for run in quality for row in run["by_seed"]})
    own = "this study's seed is one of them" if seed in seeds else "this study's seed is none of them"
    gains, overall = (spread[column].to_numpy(float) for column in ("gain", "overall"))
    return (
        f"{counted(len(spread), 'training seed')}, each measured on images of evaluation seeds "
        f"{join_names(list(map(str, seeds)))} ({own}). Overall accuracy by names is "
        f"{interval((overall.min(), overall.max()))} over the training seeds; clean descriptions "
        f"change it by {points_interval((gains.min(), gains.max()))} points. Which one ships: {card.SHIPPING_RULE}."
    )


def of_seed(spread: pd.DataFrame, seed: int) -> dict[str, float]:
    """The row of one training seed, its means over the evaluation seeds."""
    row = spread.set_index("training_seed").loc[seed]
    return {str(measure): float(value) for measure, value in row.items()}


def sight_or_language(shipped: Mapping[str, float]) -> str:
    """What a linear probe, names and plain descriptions get right; how much of the failure can be sight.

    Args:
        shipped: `of_seed` of the seed that ships.
    """
    probe, by_name, described = (shipped[key] for key in ("linear_probe", "overall", "described_overall"))
    told = (
        f"a linear probe on the shipped model's embeddings is right on {percent(probe)} of the images, the names on "
        f"{percent(by_name)}, clean plain descriptions in their place on {percent(described)}. "
    )
    if probe <= by_name:
        return f"{told}So this does not show that language fails rather than sight."
    share = (1 - probe) / (1 - by_name)
    mostly = "so most of what fails is language" if share < 0.5 else "so sight may be most of it"
    return f"{told}The probe's errors number {percent(share)} of those by name, {mostly}."


@titled("The weights that come with the package")
def tags(table: pd.DataFrame) -> pd.DataFrame:
    """`card.tags`: what the weights of each tag saw and can do."""
    spelled = {column: table[column].map(percent) for column in PER_CENT}
    return pd.DataFrame({"tag": table["tag"], "samples": table["samples"].map("{:,}".format), **spelled})


def of_tags(table: pd.DataFrame) -> str:
    """What the other weights do less or more well than the default ones."""
    first, told = table.iloc[0], []
    for _, row in table.iloc[1:].iterrows():
        change = points(row["overall"] - first["overall"])
        share = percent(row["samples"] / first["samples"], 0)
        told.append(
            f"*{row['tag']}* saw {share} of the samples of *{first['tag']}*; its overall accuracy differs by {change} "
            "points"
        )
    return "; ".join(told) + "." if told else ""


@titled("The worst names")
def worst_names(run: Run, names: pd.DataFrame, accuracy: Float[Tensor, "C"]) -> pd.DataFrame:
    """The classes of lowest accuracy with plain English, and how often their weakest name was read.

    Args:
        names: `card.weakest_names` of the run's classes.
    """
    worst, plain = lowest(accuracy, run.classnames), glosses(run.pictures) or run.classnames
    rows = names.iloc[worst]
    return pd.DataFrame(
        {
            "class": [f"{run.classnames[c]}: {plain[c]}" for c in worst],
            "weakest name": rows["name"].tolist(),
            "read": [f"{n:,}" for n in rows["read"]],
            "read elsewhere": [f"{n:,}" for n in rows["elsewhere"]],
            "accuracy": [percent(float(accuracy[c])) for c in worst],
        }
    )


def rare_and_right(run: Run, names: pd.DataFrame, accuracy: Float[Tensor, "C"]) -> str:
    """How the classes of each kind of weakest name do, and rare names that are right all the same."""
    right, kinds = accuracy.numpy(), anatomy.kinds_of(names).to_numpy()
    said = {
        "rare": f"fewer than {anatomy.FEW} times",
        "ambiguous": "mostly under other pictures",
        "known": f"{anatomy.FEW} times or more, and mostly in its own sense",
    }
    told = [
        f"{counted(int((kinds == kind).sum()), 'class', 'classes')} whose weakest name was read {words}: "
        f"{percent(float(np.nanmean(right[kinds == kind])))} right"
        for kind, words in said.items()
        if (kinds == kind).any()
    ]
    rare = np.flatnonzero((kinds == "rare") & (right >= anatomy.FAILING))
    if not len(rare):
        return "; ".join(told) + "."
    best = max(rare.tolist(), key=lambda c: (right[c], run.classnames[c]))
    so_many = f"{counted(len(rare), 'class', 'classes')} of a rare name {'is' if len(rare) == 1 else 'are'} right"
    example = f"{name(run.classnames[best])} at {percent(float(right[best]))}"
    return f"{'; '.join(told)}. {so_many} at least half of the time, as {example}."


def section(record: Mapping[str, Any], shipped: Mapping[str, float], table: pd.DataFrame) -> dict[str, Any]:
    """The `model_card` section of results.json: the shipped weights, whatever the study; fractions."""
    return {
        "logit_scale": record["logit_scale"],
        "probe": shipped["linear_probe"],
        "by_name": shipped["overall"],
        "described": shipped["described_overall"],
        "tags": [dict(row) for _, row in table[["tag", "samples", *PER_CENT]].iterrows()],
    }
