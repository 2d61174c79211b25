"""What the chapters say of many studies, read again and compared with the numbers that they recorded.

A sentence chooses its words by the numbers; here its words are held against results.json, over seeds, class lists, a
study without labels and real embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import read_through, strict_json, write_embeddings

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.data.load import load_dataset
from cmmlib.evaluation import prior_shift
from cmmlib.report.display_names import display_name
from cmmlib.report.formatting import decimal, percent, percent_number

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# Chapter 0 speaks of tables that ship, of every study alike; those who read it for odd studies look for "nan" in it.
CHAPTERS = ("01_phenomenon", "02_cmm", "04_ensemble", "07_backbones", "08_without_labels", "09_trust")
CORRECTIONS = "05_unlabelled"  # takes as long as the others together: read for some studies
Check = Callable[[re.Match[str], dict[str, Any]], bool]


def prompts_better(found: re.Match[str], results: dict[str, Any]) -> bool:
    rows = results["prompts"]
    overall, plain, scale_free = ([row[key] for row in rows] for key in ("overall", "cmm_mean", "cmm_mean_scale_free"))
    ranks = [decimal(spearman(score, overall)) for score in (plain, scale_free)]
    better = "plain" if float(ranks[0]) > float(ranks[1]) else "scale-free"
    return found[1] == better and ranks[0] != ranks[1]


def by_chance(found: re.Match[str], results: dict[str, Any]) -> bool:
    """CMM finds more than chance: more than as many classes at random would in 95 % of draws."""
    soft, k, accuracy = results["cmm"]["soft"], results["worst_k"], results["accuracy"]
    n = results["n_classes"] - len(results["empty_classes"])
    assert accuracy["worst"][str(k)] is not None
    random = np.random.default_rng(0).hypergeometric(soft["n_true"], n - soft["n_true"], k, 20_000)
    hits = soft["precision_at_k"] * k
    low, high = (random < hits).mean() > 0.975, (random > hits).mean() > 0.975
    return found[1] == ("more" if low else "fewer" if high else "no more")


def spearman(x: list[float], y: list[float]) -> float | None:
    return F.spearman(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))


def row(results: dict[str, Any], shown: str) -> dict[str, Any]:
    return next(row for row in results["ensembles"] if display_name(row["name"]) == shown)


def of_base(found: re.Match[str], results: dict[str, Any]) -> bool:
    """*method* ... has X % (D points more than the base prompt) overall."""
    mine, base = row(results, found[1]), row(results, "base")
    change = mine["overall"] - base["overall"]
    return found[2] == percent_number(mine["overall"]) and found[4] == ("more" if change > 0 else "less")


def highest(found: re.Match[str], results: dict[str, Any]) -> bool:
    free = [row for row in results["ensembles"] if row["label_free"]]
    return row(results, found[1])["overall"] == max(row["overall"] for row in free)


def best_tail(found: re.Match[str], results: dict[str, Any]) -> bool:
    rows = [row for row in results["backbones"]["overview"] if row["overall"] is not None]
    best = max(rows, key=lambda row: row["overall"])
    return (best["worst"] == max(row["worst"] for row in rows)) == (found[1] == "has")


def corrected(found: re.Match[str], results: dict[str, Any]) -> bool:
    """*method*: X % overall, Y % in its worst 10."""
    figures = results[found[1].replace(" ", "_")]
    return (found[2], found[3]) == (percent(figures["overall"]), percent(figures["worst"]["10"]))


def promised(found: re.Match[str], results: dict[str, Any]) -> bool:
    """n of m thresholds keep the risk that was asked for; l answer no image."""
    rows = [row for row in results["selective"]["promises"] if row["true_risk"] is not None]
    kept = sum(row["true_risk"] <= row["asked_risk"] for row in rows)
    return (int(found[1]), int(found[2])) == (kept, len(rows))


def left_wrong(found: re.Match[str], results: dict[str, Any]) -> bool:
    """When all images are answered, X % of the answers are wrong; when half of them are, Y %."""
    rows = [row for row in results["selective"]["risk"] if row["confidence"] == "probability"]
    whole, half = (next(row["risk"] for row in rows if row["coverage"] == share) for share in (1.0, 0.5))
    return (found[1], found[2]) == (percent(whole), percent(half))


def followed(found: re.Match[str], results: dict[str, Any]) -> bool:
    """The base prompt's worst k (n classes) go from X % to Y % under prior matching and Z % under prototypes."""
    matched, prototypes = results["prior_matching"], results["prototypes"]
    shown = [percent(figures["base_worst"][found[1]]) for figures in (matched, prototypes)]
    return [found[2], found[3]] == shown


RULES: list[tuple[str, Check]] = [
    (r"is right on ([\d.]+ %) of the images \(", lambda m, r: m[1] == percent(r["accuracy"]["overall"])),
    (
        r"and on ([\d.]+ %|n/a) in its worst (\d+)\.",
        lambda m, r: m[1] == percent(r["accuracy"]["worst"][m[2]]) and int(m[2]) == r["worst_k"],
    ),
    (r"(\d+) class(?:es)? without one recognised image;", lambda m, r: int(m[1]) == r["accuracy"]["zero_classes"]),
    (
        r"the bracket of worst@(\d+) is ([\d.]+) to ([\d.]+) %",
        lambda m, r: (
            (m[2], m[3]) == tuple(percent_number(r["accuracy"][key][m[1]]) for key in ("worst", "worst_split_half"))
        ),
    ),
    (
        r"rank correlation of CMM and accuracy is (-?[\d.]+)\. ",
        lambda m, r: m[1] == decimal(r["cmm"]["soft"]["spearman"]),
    ),
    (r"CMM finds (more|fewer|no more) than chance", by_chance),
    (r"the (plain|scale-free) form ranks them better", prompts_better),
    (r"\*([\w ]+)\*, with[^(]* has ([\d.]+) % \(([\d.]+) points (more|less) than the base prompt\) overall", of_base),
    (r"Of the methods without labels, the highest overall accuracy is that of \*([\w ]+)\*", highest),
    (r"So the best average (has|does not have) the best tail", best_tail),
    (r"(prior matching|prototypes): ([\d.]+ %) overall, ([\d.]+ %) in its worst 10", corrected),
    (
        r"base prompt's worst (\d+)(?: \([^)]*\))? go from [\d.]+ % to ([\d.]+ %) under prior matching "
        r"and ([\d.]+ %) under prototypes",
        followed,
    ),
    (r"(\d+) of (\d+) thresholds that answer keep the risk that was asked for", promised),
    (r"images are answered, ([\d.]+ %) of the answers are wrong; when half of them are, ([\d.]+ %)\.", left_wrong),
]


# What is said of every study with labels and more than a few classes, and of those with a pool of prompts; the other
# rules are of what may happen.
ALWAYS = {pattern for pattern, _ in RULES[:5]}
OF_A_POOL = {RULES[8][0]}
OF_CORRECTIONS = {pattern for pattern, _ in RULES[10:12]}


def sentences(run, chapters: Sequence[str]) -> list[str]:
    """What chapters say; figures are not drawn, and frequencies twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_shift, "draws", partial(prior_shift.draws, n_draws=2))
        return [
            text for chapter in chapters for text in read_through(run, NOTEBOOKS / f"{chapter}.ipynb", figures=False)
        ]


def checked(run, chapters: Sequence[str] = CHAPTERS) -> set[str]:
    """Compare every sentence that a rule knows with the results; returns the patterns that were met."""
    said, met = sentences(run, chapters), set()
    results = strict_json(run.folder / "results.json")
    for text in said:
        assert not re.search(r"\b(nan|None|inf)\b", text), text
        for pattern, holds in RULES:
            for found in re.finditer(pattern, text):
                assert holds(found, results), text
                met.add(pattern)
    return met


@pytest.mark.usefixtures("shared_cache", "three_a_class")
@pytest.mark.parametrize(
    "parameters",
    [
        *({"seed": seed} for seed in range(4)),
        *({"dataset": f"blazon:{number}"} for number in (1, 2, 3)),
    ],
    ids=str,
)
def test_sentences_agree_with_the_numbers_of_a_miniature_world(parameters, tmp_path):
    """The shipped list and another with all of their classes, the other studies with every third."""
    fields = {**parameters, "limit": 3, "out": str(tmp_path)}
    if parameters not in ({"seed": 0}, {"dataset": "blazon:1"}):
        names = load_dataset(parameters.get("dataset", "blazon")).classnames[::3]
        (tmp_path / "third.txt").write_text("\n".join(names))
        fields["classes"] = str(tmp_path / "third.txt")
    assert checked(open_run(Study.of(fields))) >= ALWAYS | OF_A_POOL | {RULES[-1][0]}


@pytest.mark.usefixtures("shared_cache", "three_a_class")
@pytest.mark.parametrize("dataset", ["blazon", "blazon:1"])
def test_sentences_of_the_corrections_agree_with_their_numbers(dataset, tmp_path):
    run = open_run(Study.of({"dataset": dataset, "limit": 3, "out": str(tmp_path)}))
    assert RULES[11][0] in checked(run, [CORRECTIONS])  # of a worst 10 at zero the others say nothing


def test_sentences_of_a_study_without_labels_speak_of_no_accuracy(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", labels=None)
    run = open_run(Study.of({"dataset": data, "out": str(tmp_path)}))
    assert checked(run, [*CHAPTERS, CORRECTIONS]) == set()


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "expected"),
    [("pets25_vitb32.npz", ALWAYS | OF_A_POOL | OF_CORRECTIONS), ("dtd_test_vitb32.npz", ALWAYS | OF_CORRECTIONS)],
)
def test_sentences_agree_with_the_numbers_of_real_embeddings(file, expected, real_data, tmp_path):
    run = open_run(Study.of({"dataset": f"embeddings:{real_data / file}", "out": str(tmp_path)}))
    assert checked(run, [*CHAPTERS, CORRECTIONS]) >= expected
