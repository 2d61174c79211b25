"""A study whose classes stand in another order has the same numbers, where classes tie too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finished_runs import opened, read_through, strict_json, write_embeddings
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib.evaluation import prior_shift, run_comparison

CHAPTERS = ("01_phenomenon", "02_cmm", "04_ensemble", "05_unlabelled")
IMAGES = 132  # 11 a class: accuracies tie often, and a class has an odd image
BY_CLASS = {"base_worst_classes", "classes"}  # lists of class indices, which follow the order of the list
ROOT = Path(__file__).parents[2]


def in_two_orders() -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Arrays of one study, of the same with its classes in another order, and the old class of every new one."""
    arrays, order = synthetic_arrays(), np.random.default_rng(5).permutation(CLASSES)
    arrays |= {key: arrays[key][:IMAGES] for key in ("image_features", "labels")}
    moved = {
        "labels": np.argsort(order)[arrays["labels"]],
        "text_features": arrays["text_features"][:, order],
        "classnames": arrays["classnames"][order],
    }
    return arrays, {**arrays, **moved}, order


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path, list[int]]:
    """Run folders of one study and of the same with its classes in another order; old class of every new one."""
    *arrays, order = in_two_orders()
    folders = []
    for name, own in zip(("one", "other"), arrays, strict=True):
        folder = tmp_path_factory.mktemp(name)
        data = write_embeddings(folder / "x.npz", **own)
        run = opened(data, out=str(folder), worst_k=3)
        for chapter in CHAPTERS:
            read_through(run, ROOT / "notebooks" / f"{chapter}.ipynb", figures=False)
        folders.append(run.folder)
    return folders[0], folders[1], order.tolist()


def same(one: Any, other: Any, order: list[int], where: str = "") -> None:
    """Equal up to rounding; class indices are those of the other order."""
    key = where.rpartition(".")[2]
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            same(one[name], other[name], order, f"{where}.{name}")
    elif key in BY_CLASS:
        assert sorted(one) == sorted(order[c] for c in other), where
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, order, f"{where}.{i}")
    elif isinstance(one, float) and isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-4, abs_tol=2e-5), (where, one, other)
    else:
        assert one == other, where


def test_the_study_has_ties(both):
    accuracy = pd.read_csv(both[0] / "per_class.csv")["accuracy"].sort_values().to_numpy()
    assert accuracy[9] == accuracy[10]
    results = strict_json(both[0] / "results.json")
    assert len(results["accuracy"]["base_worst_classes"]) > 3 or accuracy[2] < accuracy[3]
    assert {row["base_worst_count"]["10"] for row in results["ensembles"]} == {(accuracy <= accuracy[9]).sum()}


def test_results_do_not_hang_on_the_order_of_classes(both):
    one, other, order = both
    results = [strict_json(folder / "results.json") for folder in (one, other)]
    for section in results:
        section.pop("study", None)  # names the run
    assert {"accuracy", "cmm", "ensembles", "ensemble_steps", "evidence", "prior_matching"} <= results[0].keys()
    same(*results, order)


@pytest.mark.parametrize(
    ("name", "key"), [("per_class.csv", "class_name"), ("prompts.csv", None), ("ensembles.csv", None)]
)
def test_tables_do_not_hang_on_the_order_of_classes(both, name, key):
    tables = [pd.read_csv(folder / name) for folder in both[:2]]
    if key:
        tables = [table.sort_values(key, ignore_index=True) for table in tables]
    left_out = [c for c in tables[0] if "index" in c or c == "taken_for"]  # of wrong classes that tie, the first
    one, other = (table.drop(columns=left_out) for table in tables)
    pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=2e-5)


def test_draws_with_given_frequencies_do_not_hang_on_the_order_of_classes(tmp_path):
    *arrays, _ = in_two_orders()
    runs = [opened(write_embeddings(tmp_path / f"{i}.npz", **own)) for i, own in enumerate(arrays)]
    one, other = (prior_shift.draws(run.blind, run.labels, seed=0, n_draws=2) for run in runs)
    pd.testing.assert_frame_equal(one, other, atol=1e-9)


def test_comparisons_of_runs_do_not_hang_on_the_order_of_classes(tmp_path):
    *arrays, order = in_two_orders()
    reports = []
    for i, own in enumerate(arrays):
        heads = [{**own, "text_features": own["text_features"][head], "prompts": None} for head in (0, 1)]
        runs = [opened(write_embeddings(tmp_path / f"{i}{n}.npz", **one)) for n, one in enumerate(heads)]
        sides = run_comparison.with_distinct_names([run_comparison.of_run(run, run.labels) for run in runs])
        reports.append({"k": 3, **run_comparison.agreement(sides, 3)[["spearman", "shared_worst", "chance"]].iloc[0]})
        reports[-1]["classes"] = run_comparison.worst_everywhere(sides, 3)
    same(*reports, order.tolist())
