"""Published accuracies per class of 21 real CLIP models on 19 data sets, and the tables made from them.

The figures come from Udandarao et al., "No Zero-Shot Without Exponential Data" (2024), whose repository has them as
JSON. The package ships tables that `benchmarks/published.py` computes from these files, not the files. They do not say
how many images a class has, so no interval of an accuracy can be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmmlib.errors import InputError
from cmmlib.evaluation.bootstrap import bootstrap, spearman
from cmmlib.storage.text_files import read_json

SOURCE = "https://github.com/bethgelab/frequency_determines_performance"
COMMIT = "11ef009"
PROMPTS = {"class": "class name", "simple": "one template", "ensemble": "template ensemble"}  # as the files call them
COUNTS = {  # how captions were searched for the names
    "lemmatized": "text",
    "integrated_tlemmatized_i0.7": "text and image tag",
}
COUNTED = "laion400m"  # the training data whose captions were counted
COUNT_ENDINGS = tuple(f"_{COUNTED}_{suffix}_search_counts.json" for suffix in COUNTS)
PAPER = 0.641  # overall accuracy on ImageNet in the abstract of Shao et al., with ten classes at 0
KS = (1, 5, 10, 20)
SHARE = 0.05  # of the classes: a worst set that can be compared between data sets of different size
EVERYWHERE = 0.8  # of all models and prompt sets: a class at 0 in so many fails for its name or its labels
TABLES = Path(__file__).parent / "published"
_FILE = re.compile(r"(?P<data>.+)_(?P<prompts>class|simple|ensemble)_results\.json")
_MODEL = re.compile(r"backbone(?P<backbone>.+)_pretrained(?P<pretrained>.+)")


# ---------------------------------------------------------------- reading


def read_published(folder: Path) -> pd.DataFrame:
    """Accuracies per class from a clone of the repository, or from any folder with its files.

    Returns:
        A row a class: `data`, `prompts` (a value of `PROMPTS`), `backbone`, `pretrained`, `overall` (accuracy over all
        images, the same for all classes), `class_name`, `accuracy`. Fractions.

    Raises:
        InputError: there are no such files, or one is not of this kind.
    """
    files = [(path, found) for path in sorted(folder.rglob("*_results.json")) if (found := _FILE.fullmatch(path.name))]
    if not files:
        raise InputError(
            f"{folder} has no file like imagenet_class_results.json: give a clone of {SOURCE} at commit {COMMIT}"
        )
    parts = [_accuracies(path, data=found["data"], prompts=PROMPTS[found["prompts"]]) for path, found in files]
    return pd.concat(parts, ignore_index=True)


def _accuracies(path: Path, **columns: str) -> pd.DataFrame:
    parts = []
    for name, figures in read_json(path, str(path)).items():
        model = _MODEL.fullmatch(name)
        values, full = (figures.get(key) if isinstance(figures, dict) else None for key in ("classwise", "full"))
        if model is None or not isinstance(values, dict) or not values:
            raise InputError(f"{path}: {name} is no model with figures for each class")
        accuracy = np.array([_percent(path, value) for value in values.values()]) / 100
        columns |= model.groupdict()
        figures = {"overall": _percent(path, full) / 100, "class_name": list(values), "accuracy": accuracy}
        parts.append(pd.DataFrame({**columns, **figures}))
    if not parts:
        raise InputError(f"{path} has no model")
    return pd.concat(parts, ignore_index=True)


def _percent(path: Path, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
        return float(value)
    raise InputError(f"{path}: an accuracy is a number from 0 to 100, got {value!r}")


def read_counts(folder: Path) -> pd.DataFrame:
    """How many captions of LAION-400M name a class.

    Returns:
        A row a class: `data`, `search` (a value of `COUNTS`), `class_name`, `count`.

    Raises:
        InputError: there are no such files, or one is not JSON.
    """
    rows = []
    for ending, search in zip(COUNT_ENDINGS, COUNTS.values(), strict=True):
        for path in sorted(folder.rglob(f"*{ending}")):
            data = path.name.removesuffix(ending)
            rows += [(data, search, name, _count(path, n)) for name, n in read_json(path, str(path)).items()]
    if not rows:
        raise InputError(f"{folder} has no file like imagenet_{COUNTED}_lemmatized_search_counts.json")
    return pd.DataFrame(rows, columns=["data", "search", "class_name", "count"])


def _count(path: Path, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InputError(f"{path}: a number of captions is an integer from 0 on, got {value!r}")


# ---------------------------------------------------------------- tables


def model_table(published: pd.DataFrame) -> pd.DataFrame:
    """A row for each data set, prompt set and model.

    Returns:
        `overall` and `mean_per_class`; `worst_K` and `worst_share` (the mean of the lowest twentieth of the classes,
        rounded up); `zero_classes`, and of these `zero_everywhere` (at 0 in four fifths of all models and prompt sets);
        `harmonic_mean` (0 where a class is at 0); `template_worst_10` and `template_worst_20`: the accuracy of the
        classes that were lowest under one template, with all that tie with the last of them. Fractions; None where
        there are fewer classes.
    """
    everywhere, rows = _at_zero_everywhere(published), []
    for (data, backbone, pretrained), model in _parts(published, "data", "backbone", "pretrained"):
        accuracies = {prompts: part for (prompts,), part in _parts(model, "prompts")}
        before = accuracies[PROMPTS["simple"]].set_index("class_name")["accuracy"]
        for prompts, part in accuracies.items():
            row = {"data": data, "prompts": prompts, "backbone": backbone, "pretrained": pretrained}
            row["overall"] = part["overall"].iloc[0]
            accuracy = part.set_index("class_name")["accuracy"]
            rows.append(row | _figures(accuracy, before, everywhere[data]))
    return pd.DataFrame(rows)


def _parts(table: Any, *keys: str) -> list[tuple[tuple[str, ...], Any]]:
    """Parts of a table by the values of some columns, in the order in which these appear."""
    return list(table.groupby(list(keys), sort=False))


def _figures(accuracy: Any, before: Any, everywhere: set[str]) -> dict[str, Any]:
    zero = accuracy.index[accuracy == 0]
    return {
        "classes": len(accuracy),
        "mean_per_class": accuracy.mean(),
        **{f"worst_{k}": _worst(accuracy, k) for k in KS},
        "worst_share": _worst(accuracy, math.ceil(SHARE * len(accuracy))),
        "zero_classes": len(zero),
        "zero_everywhere": sum(name in everywhere for name in zero),
        "harmonic_mean": 0.0 if len(zero) else len(accuracy) / (1 / accuracy).sum(),
        **{f"template_worst_{k}": _followed(before, accuracy, k) for k in (10, 20)},
    }


def _worst(accuracy: Any, k: int) -> float | None:
    return float(np.sort(accuracy)[:k].mean()) if k <= len(accuracy) else None


def _followed(before: Any, after: Any, k: int) -> float | None:
    """The mean after of the classes that were among the k lowest before; None where there are no others to compare."""
    if k >= len(before):
        return None
    chosen = before.index[before <= np.sort(before)[k - 1]]
    return float(after[chosen].mean())


def _at_zero_everywhere(published: pd.DataFrame) -> dict[str, set[str]]:
    """data -> names of classes at 0 in nearly all models and prompt sets."""
    found: dict[str, set[str]] = {}
    for (data, name), part in _parts(published, "data", "class_name"):
        chosen = found.setdefault(data, set())
        if (part["accuracy"] == 0).mean() >= EVERYWHERE:
            chosen.add(name)
    return found


def agreement_table(published: pd.DataFrame) -> pd.DataFrame:
    """Do the same classes fail in every model? A row a data set, with the template ensemble.

    Returns:
        `pairs` of models, `median`, `lowest` and `highest` of Spearman's rank correlations of their class accuracies,
        `zero_in_most`: classes at 0 in more than half of the models, and up to five of their names.
    """
    rows = []
    for (data,), part in _parts(published[published["prompts"] == PROMPTS["ensemble"]], "data"):
        wide = part.pivot_table("accuracy", "class_name", ["backbone", "pretrained"], sort=False)
        pairs = wide.corr("spearman").to_numpy()[np.triu_indices(wide.shape[1], 1)]
        zeros = (wide == 0).mean(axis=1)
        names = zeros[zeros > 0.5].sort_values(ascending=False, kind="stable").index
        spread = {"median": np.median(pairs), "lowest": pairs.min(), "highest": pairs.max()}
        shown = {"zero_in_most": len(names), "names": "; ".join(names[:5])}
        rows.append({"data": data, "classes": len(wide), "models": wide.shape[1], **spread, **shown})
    return pd.DataFrame(rows)


def frequency_table(published: pd.DataFrame, counts: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Does the frequency of a name in the training captions explain its class's accuracy? Template ensemble.

    Only models that were trained on the counted captions, LAION-400M. A row a data set, search and model, with the rank
    correlation and its 95 % bootstrap interval over classes.
    """
    chosen = published[(published["prompts"] == PROMPTS["ensemble"]) & (published["pretrained"] == COUNTED)]
    rows = []
    for (data, search), counted in _parts(counts, "data", "search"):
        for (backbone,), part in _parts(chosen[chosen["data"] == data], "backbone"):
            both = part.assign(key=_key(part)).merge(counted.assign(key=_key(counted)), on="key")
            value, low, high = bootstrap(spearman, both["count"].to_numpy(float), both["accuracy"].to_numpy(), seed)
            row = {"data": data, "search": search, "backbone": backbone, "classes": len(both)}
            rows.append({**row, "spearman": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _key(table: Any) -> Any:
    """Names as both kinds of files can be compared."""
    return table["class_name"].str.replace("_", " ").str.lower()


def curve_table(published: pd.DataFrame, data: str = "imagenet", points: int = 51) -> pd.DataFrame:
    """The sorted class accuracies of each model with class names, as quantiles: `share` of the classes, `accuracy`."""
    at = np.linspace(0, 1, points)
    chosen = published[(published["data"] == data) & (published["prompts"] == PROMPTS["class"])]
    rows = []
    for (backbone, pretrained), part in _parts(chosen, "backbone", "pretrained"):
        model = {"backbone": backbone, "pretrained": pretrained}
        values = np.quantile(part["accuracy"], at, method="lower")
        rows += [{**model, "share": share, "accuracy": value} for share, value in zip(at, values, strict=True)]
    return pd.DataFrame(rows)


def lowest_table(published: pd.DataFrame, model: Mapping[str, Any], k: int = 10) -> pd.DataFrame:
    """The k lowest classes of one model with one prompt set, with all that tie with the last; the lowest first.

    Args:
        model: a row of `model_table`.
    """
    part: Any = of_model(published, model)
    part = part[(part["data"] == model["data"]) & (part["prompts"] == model["prompts"])]
    lowest = part[part["accuracy"] <= np.sort(part["accuracy"])[:k][-1]]
    columns = ["backbone", "pretrained", "class_name", "accuracy"]
    return lowest.sort_values(["accuracy", "class_name"])[columns].reset_index(drop=True)


def of_model(table: Any, model: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that are of one model, a row of `model_table`."""
    return table[(table["backbone"] == model["backbone"]) & (table["pretrained"] == model["pretrained"])]


# ---------------------------------------------------------------- as shipped


def shipped(name: str) -> pd.DataFrame:
    """A table that comes with the package: `models`, `agreement`, `frequency`, `selection`, `curves` or `lowest`."""
    table = pd.read_csv(TABLES / f"{name}.csv")
    return table.fillna({"names": ""}) if "names" in table else table


def nearest_to(models: pd.DataFrame, overall: float = PAPER, data: str = "imagenet") -> dict[str, Any]:
    """The row of `model_table` on a data set whose overall accuracy is nearest to a figure, with class names."""
    chosen: Any = models[(models["data"] == data) & (models["prompts"] == PROMPTS["class"])]
    return min(chosen.to_dict("records"), key=lambda row: abs(row["overall"] - overall))


def prompt_changes(models: pd.DataFrame) -> pd.DataFrame:
    """From one template to the template ensemble, a row a data set: mean changes over the models, and how many rise.

    Returns:
        `data`, `models`, `overall` and `worst` (the worst twentieth of each; mean differences of fractions),
        `overall_up`, `worst_up`, `worst_down`, `worst_zero` (numbers of models; the last, at 0 before and after).
    """
    rows = []
    for (data,), part in _parts(models, "data"):
        overall, worst = (changes(part, column) for column in ("overall", "worst_share"))
        ups = {"overall_up": (overall > 0).sum(), "worst_up": (worst > 0).sum(), "worst_down": (worst < 0).sum()}
        ups["worst_zero"] = stays_at_zero(part, "worst_share").sum()
        rows.append({"data": data, "models": len(overall), "overall": overall.mean(), "worst": worst.mean(), **ups})
    return pd.DataFrame(rows)


def changes(models: Any, column: str) -> np.ndarray:
    """Of each model in a part of `model_table` with one data set: the ensemble's value minus that of one template."""
    before, after = _before_and_after(models, column)
    return (after - before).round(6)


def stays_at_zero(models: Any, column: str) -> np.ndarray:
    """Of each such model, whether the value is 0 under both prompt sets, so that it could not fall."""
    before, after = _before_and_after(models, column)
    return (before == 0) & (after == 0)


def _before_and_after(models: Any, column: str) -> tuple[np.ndarray, np.ndarray]:
    wide = models.pivot(index=["backbone", "pretrained"], columns="prompts", values=column).astype(float)
    return wide[PROMPTS["simple"]].to_numpy(), wide[PROMPTS["ensemble"]].to_numpy()
