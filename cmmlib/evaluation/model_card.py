"""What a trained blazon-mini can do: the measurements of the model card, each over several evaluation seeds.

They say whether the world is of the right kind: names fail, plain words for the same things do not, and a linear
classifier on the image embeddings knows nearly every class. So the failures are failures of language, not of sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from cmmlib import functional as F
from cmmlib.blazon.classes import load_classes
from cmmlib.blazon.heraldry import blazon
from cmmlib.blazon.language.clean_descriptions import descriptions
from cmmlib.blazon.training.model import NAME
from cmmlib.data.load import load_blazon
from cmmlib.functional.ensemble import replace_classes
from cmmlib.functional.linear_probe import linear_probe_accuracy
from cmmlib.functional.similarity import similarity_pass
from cmmlib.models.backbones import load_backbone
from cmmlib.models.embed import embed_images
from cmmlib.models.embed_texts import embed_texts
from cmmlib.texts.templates import BASE_TEMPLATE, fill

WORST_K = 20
PROBE_SEED = 900  # renders the linear probe's training images


def measure(weights: Path, seeds: Sequence[int] = (1, 2, 3)) -> dict[str, Any]:
    """The world's conditions, with these weights.

    Args:
        weights: safetensors of a blazon-mini.
        seeds: of the evaluation images. The book's default study uses seed 0.

    Returns:
        `logit_scale`, `linear_probe` (accuracy of a logistic regression fitted on other rendered images, on the first
        seed's), and `by_seed`, a dictionary for each seed: `overall`, `worst_10`, `worst_20`, `below_30` (classes
        under 30 %), `hardly_predicted` (classes predicted for fewer than a tenth of N / C images), `auroc` and
        `spearman` (soft CMM against accuracy, worst 20), `described_overall`, `described_worst_10` (clean plain
        descriptions in place of every name).
    """
    backbone = load_backbone(NAME, str(weights))
    arms = load_classes()
    names = [fill(BASE_TEMPLATE, blazon(a)) for a in arms]
    base = embed_texts(backbone, names)
    texts = [[f"a photo of {text}." for text in descriptions(a)] for a in arms]
    vectors = embed_texts(backbone, [text for group in texts for text in group]).split([len(group) for group in texts])
    described = replace_classes(base, dict(enumerate(vectors)))
    images = {seed: load_blazon(seed=seed) for seed in seeds}
    embedded = {seed: embed_images(backbone, data) for seed, data in images.items()}
    rows = []
    for seed, data in images.items():
        assert data.labels is not None
        row = {"seed": seed, **zero_shot(embedded[seed], base, data.labels, backbone.logit_scale)}
        plain = zero_shot(embedded[seed], described, data.labels, backbone.logit_scale)
        rows.append({**row, "described_overall": plain["overall"], "described_worst_10": plain["worst_10"]})
    fitted = load_blazon(seed=PROBE_SEED)
    first = images[seeds[0]]
    assert fitted.labels is not None
    assert first.labels is not None
    probe = linear_probe_accuracy(embed_images(backbone, fitted), fitted.labels, embedded[seeds[0]], first.labels)
    return {"logit_scale": backbone.logit_scale, "linear_probe": probe, "by_seed": rows}


def zero_shot(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "C D"], labels: Int[Tensor, "N"], logit_scale: float
) -> dict[str, Any]:
    """Accuracies and detection of one classifier, as `measure` names them."""
    passed = similarity_pass(images, texts[None], logit_scale)
    prediction, n_classes = passed.prediction[0].long(), len(texts)
    accuracy = F.class_accuracy(prediction, labels, n_classes)
    detection = F.detection_scores(F.class_matching_margin(passed, "soft")[0], accuracy.value, WORST_K)
    share = prediction.bincount(minlength=n_classes)
    return {
        "overall": accuracy.overall,
        "worst_10": F.worst_at_k(accuracy.value, 10),
        "worst_20": F.worst_at_k(accuracy.value, 20),
        "below_30": int((accuracy.value < 0.3).sum()),
        "hardly_predicted": int((share < 0.1 * len(images) / n_classes).sum()),
        "auroc": detection["auroc"],
        "spearman": detection["spearman"],
    }
