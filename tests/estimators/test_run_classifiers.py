"""What a run writes into `classifiers/`: every label-free method that is linear, with what it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from finished_runs import by_name, near_texts

from cmmlib import functional as F
from cmmlib import load_classifier
from cmmlib.evaluation import evaluation
from cmmlib.evaluation.methods import compare_methods, record_classifiers, weighted_ensemble
from cmmlib.functional.candidates import Candidates
from cmmlib.study.enrich import suspects
from cmmlib.study.run import Run

ALWAYS = {"base", "cmm_templates", "cmm_templates_prior", "cmm_templates_prototypes"}
COMPARED = {"uniform", "zpe", "cmm_global"}
CORRECTIONS = {"prior_matching", "prototypes"}


def written(folder: Path) -> set[str]:
    files = list((folder / "classifiers").iterdir())
    assert {path.suffix for path in files} == {".safetensors"}
    return {path.stem for path in files}


def ensemble(run: Run, described: dict[int, torch.Tensor]) -> torch.Tensor:
    return weighted_ensemble(run.blind, Candidates.of_templates(run.text_features).with_descriptions(described))


def test_every_linear_method_is_written_and_predicts_as_it_did(synthetic):
    described = near_texts(synthetic, {3: 4, 5: 2})
    own = ensemble(synthetic, described)
    methods = by_name(compare_methods(synthetic.blind, described, own))
    best = evaluation.best_template(synthetic.blind, synthetic.labels)
    record_classifiers(synthetic.blind, described, own, [*methods.values(), *best])
    assert written(synthetic.folder) == methods.keys() - {"autoclip"}
    for name in written(synthetic.folder):
        found = load_classifier(synthetic.folder / "classifiers" / f"{name}.safetensors")
        assert found.correction.predict(synthetic.image_features).equal(methods[name].prediction), name
        assert (found.kind, found.class_names) == (name, synthetic.classnames)


@pytest.mark.parametrize("sizes", [{}, {3: 4}], ids=["names", "descriptions"])
def test_without_a_comparison_the_ensemble_is_written_with_its_corrections(synthetic, sizes):
    described = near_texts(synthetic, sizes)
    own = ensemble(synthetic, described)
    record_classifiers(synthetic.blind, described, own)
    name = "enriched_cmm" if sizes else "cmm_templates"
    assert written(synthetic.folder) == {"base", name, f"{name}_prior", f"{name}_prototypes"}
    found = load_classifier(synthetic.folder / "classifiers" / f"{name}_prior.safetensors")
    after = F.fit_prior_matching(synthetic.image_features, own, synthetic.logit_scale)
    assert found.correction.predict(synthetic.image_features).equal(after.predict(synthetic.image_features))


def test_provenance_is_what_the_manifest_says(synthetic):
    synthetic.record_classifier("base", synthetic.base_text_features)
    found = load_classifier(synthetic.folder / "classifiers" / "base.safetensors")
    assert found.provenance.model_dump(exclude={"cmmlib"}) == {
        "backbone": "synthetic",
        "pretrained": "none",
        "weights": None,
        "data": "x",
        "run": synthetic.id,
    }
    assert found.suspects == suspects(synthetic.blind)
    assert (
        str(synthetic.folder.parent).encode()
        not in (synthetic.folder / "classifiers" / "base.safetensors").read_bytes()
    )


def test_no_label_reaches_them(synthetic):
    with pytest.raises(TypeError, match="record_classifiers takes no labels"):
        record_classifiers(synthetic, {}, synthetic.base_text_features)
    synthetic.record_classifier("with", synthetic.base_text_features)
    synthetic.blind.record_classifier("without", synthetic.base_text_features)
    with_labels, without = (
        load_classifier(synthetic.folder / "classifiers" / f"{name}.safetensors") for name in ("with", "without")
    )
    assert with_labels.suspects == without.suspects


def test_a_finished_run_has_its_classifiers(labelled):
    rows = json.loads((labelled / "results.json").read_text())["ensembles"]
    linear = {row["name"] for row in rows} - {"autoclip", "best_template"}
    assert written(labelled) == linear | ALWAYS | CORRECTIONS
    assert linear >= COMPARED


def test_a_run_without_labels_has_them_too(unlabelled):
    assert written(unlabelled) == ALWAYS | CORRECTIONS
