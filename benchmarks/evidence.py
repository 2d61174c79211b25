"""The claims of this book on real CLIP embeddings: writes evidence_real.csv and evidence_by_set.csv to book/_static.

book/evidence.md shows the second, which has the data sets side by side, and links the first.

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
from cmmlib.evaluation.bootstrap import bootstrap, spearman
from cmmlib.report import pages
from cmmlib.storage.cache import whole_file

FILES = {
    "DTD": "dtd_vitb32.npz",
    "Pets, 25 breeds": "pets25_vitb32.npz",
    "DTD test, ViT-B/32": "dtd_test_vitb32.npz",
    "DTD test, ViT-L/14": "dtd_test_vitl14.npz",
}
STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"
OUT, BY_SET = STATIC / "evidence_real.csv", STATIC / "evidence_by_set.csv"
QUARTER = {"DTD": 11, "Pets, 25 breeds": 6}  # classes, of 47 and 25
BOTH = "DTD test, both"


def agreement(*models: EmbeddingFile) -> pd.DataFrame:
    """Do the same classes fail in two models on the same images? Rank correlation of their class accuracies."""
    accuracies = []
    for data in models:
        prediction = F.predict(data.image_features, data.text_features[0])
        accuracies.append(F.class_accuracy(prediction, data.labels, len(data.classnames)).value.numpy())
    value, low, high = bootstrap(spearman, *accuracies)
    row = {"claim": "the same classes fail in both models", "measure": "rank correlation of class accuracies"}
    shown = pages.evidence_table([{**row, "value": value, "low": low, "high": high, "held": claims.verdict(low, high)}])
    shown.insert(0, "data", BOTH)
    return shown


def by_set(table: pd.DataFrame) -> pd.DataFrame:
    """A row a measure, a column a data set: the value with its interval, and the verdict unless the claim held."""
    cells = table["value"] + " (" + table["95 % interval"].str.replace(" ", "\u00a0") + ")"  # an interval in one line
    cells = cells.where(table["did it hold?"] == "held", cells + ", " + table["did it hold?"])
    quarters = "worst (?:" + "|".join(map(str, QUARTER.values())) + r")\b"
    measures = table["measure"].str.replace(quarters, "worst quarter", regex=True)
    measures = measures.where(table["data"] != BOTH, measures + ", with ViT-B/32")
    data = table["data"].replace(BOTH, [*FILES][-1])
    rows = pd.DataFrame({"claim": table["claim"], "measure": measures, "data": data, "shown": cells})
    beside = rows.pivot(index=["claim", "measure"], columns="data", values="shown")
    order = rows[["claim", "measure"]].drop_duplicates()
    return beside.loc[list(order.itertuples(index=False, name=None)), list(FILES)].fillna("").reset_index()


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
    with whole_file(BY_SET) as temporary:
        by_set(pd.concat(tables)).to_csv(temporary, index=False)
    print(pd.concat(tables).to_string(index=False))


if __name__ == "__main__":
    main()
