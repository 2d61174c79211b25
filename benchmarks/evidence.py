"""The claims of this book on real CLIP embeddings: writes book/_static/evidence_real.csv, which book/evidence.md shows.

    CMM_REAL_DATA=FOLDER python benchmarks/evidence.py

FOLDER holds embeddings files (`embeddings:` layout) of OpenAI's CLIP ViT-B/32: dtd_vitb32.npz, textures, and
pets25_vitb32.npz, cats and dogs. They have no licence file and are not part of this project; book/evidence.md has the
command that computes the same figures from images.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import torch

from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.evaluation import claims
from cmmlib.report import pages
from cmmlib.storage.cache import whole_file

FILES = {"DTD": "dtd_vitb32.npz", "Pets, 25 breeds": "pets25_vitb32.npz"}
OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "evidence_real.csv"


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
    with whole_file(OUT) as temporary:
        pd.concat(tables).to_csv(temporary, index=False)
    print(pd.concat(tables).to_string(index=False))


if __name__ == "__main__":
    main()
