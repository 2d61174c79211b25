"""The claims of this book on real CLIP embeddings: writes book/_static/evidence_real.csv, which book/evidence.md shows.

    CMM_REAL_DATA=FOLDER python benchmarks/evidence.py

FOLDER holds embeddings files (`embeddings:` layout) of OpenAI's CLIP: dtd_vitb32.npz, textures, pets25_vitb32.npz, cats
and dogs, and dtd_test_vitb32.npz and dtd_test_vitl14.npz, two models on the same images of textures. They are not part
of this project, as some have no licence file; book/evidence.md has the command that computes the same figures from
images.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import torch

from cmmlib import functional as F
from cmmlib.data.embeddings import EmbeddingFile
from cmmlib.data.load import load_embeddings
from cmmlib.evaluation import claims
from cmmlib.evaluation.published import rank_correlation
from cmmlib.report import pages
from cmmlib.storage.cache import whole_file

FILES = {
    "DTD": "dtd_vitb32.npz",
    "Pets, 25 breeds": "pets25_vitb32.npz",
    "DTD test, ViT-B/32": "dtd_test_vitb32.npz",
    "DTD test, ViT-L/14": "dtd_test_vitl14.npz",
}
OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "evidence_real.csv"


def agreement(*models: EmbeddingFile) -> pd.DataFrame:
    """Do the same classes fail in two models on the same images? Rank correlation of their class accuracies."""
    accuracies = []
    for data in models:
        prediction = F.predict(data.image_features, data.text_features[0])
        accuracies.append(F.class_accuracy(prediction, data.labels, len(data.classnames)).value.numpy())
    value, low, high = rank_correlation(*accuracies)
    row = {"claim": "the same classes fail in both models", "measure": "rank correlation of class accuracies"}
    shown = pages.evidence_table([{**row, "value": value, "low": low, "high": high, "held": claims.verdict(low, high)}])
    shown.insert(0, "data", "DTD test, both")
    return shown


@torch.no_grad()
def main() -> None:
    folder, tables = Path(os.environ.get("CMM_REAL_DATA", "")), []
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        sys.exit(f"CMM_REAL_DATA: {folder} has no {' and no '.join(missing)}")
    for name, file in FILES.items():
        data = load_embeddings(folder / file)
        assert data.labels is not None
        k = F.default_worst_k(len(data.classnames))
        texts = data.text_features[0], data.text_features
        rows = claims.claim_rows(data.image_features, *texts, data.labels, data.logit_scale, k, followed_k=10)
        rows.append(claims.sight(data.image_features, data.text_features[0], data.labels))
        shown = pages.evidence_table(rows)
        shown.insert(0, "data", name)
        tables.append(shown)
    tables.append(agreement(*(load_embeddings(folder / file) for file in [*FILES.values()][-2:])))
    with whole_file(OUT) as temporary:
        pd.concat(tables).to_csv(temporary, index=False)
    print(pd.concat(tables).to_string(index=False))


if __name__ == "__main__":
    main()
