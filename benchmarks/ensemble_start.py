"""Where the rounds of the weighted ensemble may start: at the mean texts, or at the scores that a pass has measured.

For class lists of the embedded world other than the shipped one: every template is a candidate, no description. Each
row is a start and a number of rounds, and its sets of products, those of all images, classes and templates; the pass's
own set is counted for none, since CMM needs it anyway. With CMM_REAL_DATA, the real pets embeddings and their two heads
are weighed as well.

    python benchmarks/ensemble_start.py OUT.csv [--lists 1 2 3 4 5 6] [--seeds 21]
"""

from __future__ import annotations

import itertools

import pandas as pd
import torch
from ensemble_settings import PETS, arguments, embedded
from torch import Tensor

from cmmlib import functional as F
from cmmlib.data.load import load_embeddings
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.prompt_baselines import uniform_mean
from cmmlib.functional.similarity import similarity_pass
from cmmlib.functional.zero_shot import predict
from cmmlib.models.backbones import Backbone, load_backbone

KEPT = ["start", "rounds", "precision", "sets of products"]


def rows(images: Tensor, labels: Tensor, heads: Tensor, logit_scale: float, worst_k: int) -> list[dict]:
    candidates, mean = Candidates.of_templates(heads), uniform_mean(heads)
    known = F.class_matching_margin(similarity_pass(images, heads, logit_scale)).flatten()
    found = []
    ways = (("mean texts", None, (0, 1, 2, 3)), ("scores of a pass", known, (1, 2, 3)))
    for (start, scores, counts), precision in itertools.product(ways, ("fp32", "bf16")):
        for rounds in counts:
            products = rounds - (scores is not None)
            if precision == "bf16" and not products:
                continue
            form = {"scores": scores, "rounds": rounds, "precision": precision}
            classifier = F.cmm_ensemble(images, candidates, mean, logit_scale, **form) if rounds else mean
            accuracy = F.class_accuracy(predict(images, classifier), labels, candidates.n_classes)
            worst = F.worst_at_k(accuracy.value, worst_k)
            values = dict(zip(KEPT, (start, rounds, precision, products), strict=True))
            found.append({**values, "overall": 100 * accuracy.overall, "worst": 100 * worst})
    return found


def embedded_world(list_seed: int, seed: int, backbone: Backbone) -> list[dict]:
    data, images, heads = embedded(list_seed, seed, backbone)
    assert data.labels is not None
    return rows(images, data.labels, heads[1:], backbone.logit_scale, len(data.classnames) // 4)


def main() -> None:
    given = arguments(__doc__)
    backbone = load_backbone("blazon-mini", None)
    worlds = itertools.product(given.lists, given.seeds)
    table = pd.DataFrame([row for world in worlds for row in embedded_world(*world, backbone)])
    mean = table.groupby(KEPT, sort=False).mean().rename(columns={"worst": "worst quarter"})
    if PETS.is_file():
        data = load_embeddings(PETS)
        assert data.labels is not None
        pets = pd.DataFrame(rows(data.image_features, data.labels, data.text_features, data.logit_scale, 6)).set_index(
            KEPT
        )
        mean["pets"] = pets["overall"]
    mean.reset_index().to_csv(given.out, index=False, float_format="%.1f")
    print(mean.to_string(float_format="%.2f"))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
