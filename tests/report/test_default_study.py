"""The default study, the embedded world: its numbers at full size, its chapters and its book with fewer images.

Where the gate has made the whole study and its book a moment ago, its chapters and its book are these.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest
from finished_runs import Page, headline_numbers, strict_json

from cmmlib import Study, open_run
from cmmlib.blazon import card
from cmmlib.evaluation.reference import verify


def test_the_default_study_shows_the_phenomenon(default_numbers):
    results = json.loads((default_numbers / "results.json").read_text())
    manifest = json.loads((default_numbers / "manifest.json").read_text())
    assert (results["n_classes"], results["n_images"]) == (120, 4800)
    assert 0.55 < results["accuracy"]["overall"] < 0.82
    assert results["accuracy"]["worst"]["10"] <= 0.05
    assert results["cmm"]["soft"]["auroc"] >= 0.93
    assert len(results["prompts"]) == 24
    known = dict.fromkeys(("labels", "images", "pool", "blazon", "tower", "others", "browser"), True)
    assert manifest["conditions"] == known | {"disambiguated": False}
    assert manifest["model"]["pretrained"] == "shipped"
    assert manifest["templates"] == "blazon-24"


def test_the_default_study_repairs_part_of_it(default_numbers):
    results = json.loads((default_numbers / "results.json").read_text())
    rows = {row["name"]: row for row in results["ensembles"]}
    names = "base class_name best_template uniform zpe autoclip waffle cmm_templates describe_all enriched_replace "
    names += "enriched_uniform enriched_cmm enriched_cmm_prior enriched_cmm_prototypes"
    assert set(names.split()) <= set(rows)
    assert [name for name, row in rows.items() if not row["label_free"]] == ["best_template"]
    base, ours = rows["base"], rows["enriched_cmm"]
    assert base["overall"] == results["accuracy"]["overall"]
    assert ours["requests"] <= 30
    assert ours["overall"] >= base["overall"] + 0.06
    assert ours["base_worst"]["10"] >= base["base_worst"]["10"] + 0.40
    for other in (rows["enriched_replace"], rows["enriched_uniform"]):
        assert ours["overall"] > other["overall"]
        assert ours["worst"]["10"] > other["worst"]["10"]
    keys = {"overall", "worst", "worst_split_half", "base_worst", "zero_classes", "strength", "converged", "inductive"}
    for name in ("prior_matching", "prototypes"):
        section = results[name]
        assert keys <= set(section)
        assert keys - {"strength", "inductive"} <= set(section["inductive"])
        assert section["strength"] == 1
        assert section["overall"] > base["overall"]
    assert rows["enriched_cmm_prior"]["worst"]["10"] > ours["worst"]["10"]


@pytest.mark.usefixtures("shared_cache")
def test_the_chapters_record_these_numbers(default_run, default_numbers, tmp_path):
    """The two tests above look at the whole study without its chapters; here the chapters ran."""
    results, manifest = (strict_json(default_run / f"{name}.json") for name in ("results", "manifest"))
    folder = default_numbers
    if manifest["study"]["limit"]:
        run = open_run(Study.of({"limit": manifest["study"]["limit"], "out": str(tmp_path)}))
        run.record(**headline_numbers(run))
        folder = run.folder
    assert folder.name == default_run.name
    numbers = strict_json(folder / "results.json")
    for name, section in numbers.items():
        known = leaves(results[name])
        for path, value in leaves(section).items():
            assert value == pytest.approx(known[path], abs=1e-4), (name, path)


def leaves(tree: object) -> dict[str, object]:
    """Every value in nested lists and dictionaries, by its path."""
    if not isinstance(tree, dict | list):
        return {"": tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {f"{key}/{path}": leaf for key, part in items for path, leaf in leaves(part).items()}


def test_the_cards_stand_in_the_book_of_the_embedded_world_only(default_run, default_book, labelled_book):
    html = default_book / "html"
    data, model, why = (
        Page(html / f"{name}.html").text
        for name in ("chapters/90_data_card", "chapters/91_model_card", "miniature_world")
    )
    record = card.load_record()
    assert f"{record['recipe']['samples']:,}" in model
    assert record["weights"]["sha256"][:16] in model
    assert all(f"seed {run['training_seed']}" in model for run in card.load_quality())
    results = json.loads((default_run / "results.json").read_text())
    assert f"{results['n_images']:,}" in data
    assert f"{100 * results['accuracy']['overall']:.1f} %" in why
    for name in ("chapters/90_data_card", "chapters/91_model_card", "miniature_world"):
        assert not (labelled_book / "html" / f"{name}.html").exists()


def test_every_table_of_the_chapters_has_a_title(default_run):
    shown = 0
    for path in sorted((default_run / "chapters").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", []):
                html = "".join(output.get("data", {}).get("text/html", ""))
                if "cmm-table" in html:
                    assert re.match(r'<p class="cmm-caption cmm-title"><b>Table\.</b> [A-Z][^<]+</p><table', html), (
                        html[:200]
                    )
                    shown += 1
    assert shown > 40


def test_pictures_stand_in_the_chapters(default_run):
    figures = {path.stem for path in (default_run / "figures").glob("*.svg")}
    assert {"worst_gallery", "one_margin", "retrieved_images", "data_card_images", "data_card_charges"} <= figures


def test_the_default_study_agrees_with_the_figures_that_ship(default_numbers):
    checks = verify(default_numbers)
    assert {check.metric for check in checks} == {"accuracy", "mean_per_class", "worst_5", "worst_10", "worst_20"}
    assert all(check.agrees for check in checks), [check.sentence for check in checks]


def test_other_pictures_are_named_as_the_cause(default_numbers, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(default_numbers, other, ignore=shutil.ignore_patterns("chapters", "figures"))
    what, results = (json.loads((other / f"{name}.json").read_text()) for name in ("manifest", "results"))
    what["data"]["digest"] = "0" * 64
    del what["files"], what["sha256"]  # as of an earlier version: its results have no checksums
    results["accuracy"]["overall"] += 0.1
    (other / "manifest.json").write_text(json.dumps(what))
    (other / "results.json").write_text(json.dumps(results))
    (check,) = (check for check in verify(other) if check.metric == "accuracy")
    assert check.causes == ("split: the reference is of other images",)
