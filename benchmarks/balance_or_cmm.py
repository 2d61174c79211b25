"""How much of the weighted ensemble's gain is CMM's, and how much is the balance of templates and descriptions.

For the shipped class list with several seeds of images, and for other lists: the base prompt, the mean of the
templates, and five ways to use the suspects' descriptions that chapter 4 compares. The shipped list has recorded
descriptions; those of other lists are generated (`cmmlib.blazon.language.noisy_descriptions`), as no language model was
asked about them. Lists 1 to 6 are those that the settings of the weights were chosen on (`ensemble_settings.py`, with
other images); 7 and above took no part. A row a study and method, fractions; the file grows study by study. Chapter 4
shows cmmlib/evaluation/balance_or_cmm.csv.

    python benchmarks/balance_or_cmm.py OUT.csv [--seeds 0 1 2 3] [--lists 1 2 3 7 8 9]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.blazon.language.noisy_descriptions import descriptions
from cmmlib.evaluation.methods import balanced_mean, weighted_ensemble
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.zero_shot import predict
from cmmlib.study import enrich
from cmmlib.study.run import Run


def described(run: Run) -> tuple[str, dict[int, Tensor]]:
    """Where the suspects' descriptions are from, and their vectors."""
    if run.study.dataset == "blazon":
        return "recorded", enrich.encode_descriptions(run, enrich.enrich(run))
    arms = run.pictures.arms
    return "generated", {c: run.encode(descriptions(arms[c], run.study.seed)) for c in enrich.suspects(run)}


def classifiers(run: Run, own: dict[int, Tensor]) -> dict[str, Tensor]:
    """Classifiers [C, D], by the names that `cmmlib.evaluation.methods` gives them."""
    templates = Candidates.of_templates(run.text_features)
    enriched = templates.with_descriptions(own)
    first = templates.with_descriptions({c: vectors[:1] for c, vectors in own.items()})
    return {
        "base": run.base_text_features,
        "uniform": F.uniform_mean(run.text_features),
        "enriched_uniform": F.combine_candidates(enriched, F.uniform_weights(enriched)),
        "enriched_balanced": balanced_mean(enriched),
        "enriched_cmm_unbalanced": weighted_ensemble(run, enriched, balanced=False),
        "enriched_cmm_first": weighted_ensemble(run, first),
        "enriched_cmm": weighted_ensemble(run, enriched),
    }


def rows(dataset: str, seed: int, out: str) -> list[dict]:
    run = open_run(Study(dataset=dataset, seed=seed, out=out))
    origin, own = described(run.blind)
    found = []
    for method, classifier in classifiers(run.blind, own).items():
        accuracy = F.class_accuracy(predict(run.image_features, classifier), run.labels, run.n_classes)
        worst = {f"worst_{k}": F.worst_at_k(accuracy.value, k) for k in (10, 20)}
        scores = {"overall": accuracy.overall, **worst, "zero_classes": F.zero_classes(accuracy.value)}
        found.append({"data": dataset, "seed": seed, "descriptions": origin, "method": method, **scores})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3])
    parser.add_argument("--lists", type=int, nargs="*", default=[1, 2, 3, 7, 8, 9])
    given, found = parser.parse_args(), []
    studies = [*(("blazon", seed) for seed in given.seeds), *((f"blazon:{n}", 0) for n in given.lists)]
    with tempfile.TemporaryDirectory() as out:
        for study in studies:
            found += rows(*study, out)
            pd.DataFrame(found).to_csv(given.out, index=False, float_format="%.4f")
            print(f"{study[0]}, seed {study[1]}: done", file=sys.stderr)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
