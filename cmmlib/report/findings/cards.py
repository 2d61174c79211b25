"""Sentences and tables of the two cards: of the embedded data set, and of the model that was trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from cmmlib.blazon import anatomy, card
from cmmlib.blazon.drawing.render import draw
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, terms_of
from cmmlib.blazon.language import captions
from cmmlib.blazon.language.plain_english import COLOURS, FIGURES, glosses, plain_english
from cmmlib.blazon.training.model import CONTEXT, MERGES, configuration
from cmmlib.report.display_names import display_name
from cmmlib.report.findings.anatomy import lowest
from cmmlib.report.formatting import counted, decimal, interval, join_names, name, percent, points, points_interval
from cmmlib.study.run import Run

SHOWN_FIRST = ("or", "argent", "gules", "azure", "vert", "purpure", "sable")  # the colours that a reader meets most
FEW_IMAGES = 24

# ---------------------------------------------------------------- the data card


def six_shields(run: Run, n: int = 6) -> list[tuple[np.ndarray, str, str]]:
    """Classes that show together as many colours and kinds of shields as they can, for `plots.shields`.

    Returns:
        (an evaluation image, the class name, its plain English) for each, one at least.
    """
    arms, first = _arms(run), _first_images(run)
    there = sorted(first)
    chosen, seen = [], set()
    while there and len(chosen) < n:
        best = max(there, key=lambda c: len(_worth_seeing(arms[c]) - seen))
        seen |= _worth_seeing(arms[best])
        chosen.append(best)
        there.remove(best)
    return [(first[c], run.classnames[c], plain_english(arms[c])) for c in chosen]


def _arms(run: Run) -> list[Arms]:
    return run.pictures.arms  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]


def _first_images(run: Run) -> dict[int, np.ndarray]:
    """Class -> its first image, of the classes that have one."""
    assert run.pictures is not None
    assert run.labels is not None
    first = dict(reversed([(c, i) for i, c in enumerate(run.labels.tolist())]))
    return {c: np.asarray(run.pictures.read(i)) for c, i in first.items()}


def _worth_seeing(arms: Arms) -> set[str]:
    """What one shield of six teaches: its first colours, its kind, whether it has three figures."""
    kind = CHARGES[arms.charge].kind if arms.charge else "division"
    return (terms_of(arms) & {*SHOWN_FIRST, arms.division, arms.charge}) | {kind, f"{arms.count} of them"}


def some_images(run: Run, n: int = FEW_IMAGES) -> tuple[list[np.ndarray], list[str]]:
    """One image of each of some classes, and its caption: the class name and its plain English."""
    first, arms = _first_images(run), _arms(run)
    some = sorted(first)[:: max(1, len(first) // n)][:n]
    return [first[c] for c in some], [f"{run.classnames[c]}: {plain_english(arms[c])}" for c in some]


def data_facts(run: Run) -> pd.DataFrame:
    """What the data set of this run is, a row a fact."""
    assert run.labels is not None
    sizes = run.labels.bincount(minlength=run.n_classes)
    low, high = int(sizes.min()), int(sizes.max())
    per_class = f"{low}" if low == high else f"{low} to {high}"
    rows = {
        "classes": f"{run.n_classes:,}",
        "evaluation images": f"{len(run.labels):,}, {per_class} of each class, 64 by 64 pixels",
        "seed": f"{run.study.seed}; another seed draws other images of the same classes",
        "class list": "one fixed file; blazon:7 as a data set is another list, drawn with seed 7",
        "labels": "exact: the picture was painted from its class",
        "people, places, personal data": "none",
    }
    return _facts(rows)


def _facts(rows: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"what": rows.keys(), "value": rows.values()})


def kinds_of_classes(run: Run) -> str:
    """How many classes show a small figure, a band that spans the shield, or a divided field alone."""
    kinds = [CHARGES[arms.charge].kind if arms.charge else "division" for arms in _arms(run)]
    n = {kind: kinds.count(kind) for kind in ("small", "ordinary", "division")}
    return (
        f"of {counted(len(kinds), 'class', 'classes')} {n['small']} show small figures, {n['ordinary']} a band or "
        f"similar that spans the shield, and {n['division']} a divided or patterned field."
    )


def drawn_charges() -> tuple[list[np.ndarray], list[str]]:
    """Every charge, drawn in red on silver, and its caption."""
    drawn = [draw(Arms("argent", charge=term, tincture="gules")) for term in CHARGES]
    return drawn, [f"{term}: {FIGURES[term]}" for term in CHARGES]


def drawn_fields() -> tuple[list[np.ndarray], list[str]]:
    """Every division, in blue and gold, then every tincture, and their captions."""
    drawn = [draw(Arms("azure", term, "or")) for term in DIVISIONS] + [draw(Arms(term)) for term in TINCTURES]
    words = [f"{term}: {division.plain[0]}" for term, division in DIVISIONS.items()]
    return drawn, words + [f"{term}: {COLOURS[term]}" for term in TINCTURES]


def vocabulary() -> str:
    """How many charges, divisions and tinctures there are."""
    return (
        f"{counted(len(CHARGES), 'charge')}, {len(DIVISIONS)} divisions and patterns, and "
        f"{counted(len(TINCTURES), 'tincture')}."
    )


def caption_sources() -> pd.DataFrame:
    """Kinds of captions and their shares."""
    rows = [(source, percent(share, 0)) for source, share in captions.SOURCES.items()]
    return pd.DataFrame(rows, columns=["source", "share of captions"])


def captions_of(examples: Sequence[tuple[np.ndarray, Sequence[str]]], n: int = 2) -> pd.DataFrame:
    """The first captions of some training images, numbered as their picture is."""
    rows = [(number, text) for number, (_, texts) in enumerate(examples, 1) for text in texts[:n]]
    return pd.DataFrame(rows, columns=["image", "caption"])


def _charges_read(frequencies: pd.DataFrame) -> pd.DataFrame:
    """Rows of the charges' names, the least read first, with the readings of `plain` words beside them."""
    charges = frequencies.query("kind == 'charge'")
    words, rows = charges.query("not is_name"), charges.query("is_name").sort_values(["shown", "term"])
    plain = [int(words.loc[words["term"] == term, "shown"].to_numpy(int).sum()) for term in rows["term"]]
    return rows.assign(plain=plain).set_index("term")


def names_read(frequencies: pd.DataFrame) -> pd.DataFrame:
    """How often each charge was pictured, and its name and plain words for it were read.

    Args:
        frequencies: `card.load_frequencies`.
    """
    rows = _charges_read(frequencies)
    columns = {
        "pictures": "pictures",
        "shown": "name read",
        "not_shown": "name read elsewhere",
        "plain": "plain words read",
    }
    spelled = {head: rows[column].map("{:,}".format) for column, head in columns.items()}
    return pd.DataFrame({"name": rows.index, "in plain English": [FIGURES[term] for term in rows.index], **spelled})


def least_and_most_read(frequencies: pd.DataFrame) -> str:
    """The charges whose names were read least and most; and names read more often under other pictures."""
    rows = _charges_read(frequencies)
    read, elsewhere, pictures = (rows[column].to_numpy(int) for column in ("shown", "not_shown", "pictures"))
    least, most = str(rows.index[0]), str(rows.index[-1])
    other = int((elsewhere > read).sum())
    return (
        f"the least read name, {name(least)}, stood {_times(int(read[0]))} under a picture that shows "
        f"it, of {pictures[0]:,} such pictures; the most read, {name(most)}, "
        f"{_times(int(read[-1]))}. {counted(other, 'name')} of {len(rows)} stood more often under other pictures."
    )


def _times(n: int) -> str:
    return counted(n, "time")


# ---------------------------------------------------------------- the model card


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
    return _facts(rows)


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


TAGS = ("overall", "worst_10", "described_overall", "linear_probe")


def tags(table: pd.DataFrame) -> pd.DataFrame:
    """`card.tags`: what the weights of each tag saw and can do."""
    spelled = {column: table[column].map(percent) for column in TAGS}
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
        "tags": [dict(row) for _, row in table[["tag", "samples", *TAGS]].iterrows()],
    }
