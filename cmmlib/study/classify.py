"""A classifier's file applied to new images: what `cmm classify` does. Labels, where there are any, are not read."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.data.embeddings import load_image_embeddings
from cmmlib.data.load import load_images
from cmmlib.errors import InputError
from cmmlib.estimators.classifier import Classifier, Provenance
from cmmlib.functional.zero_shot import top_two
from cmmlib.models import WEIGHT_ENDINGS
from cmmlib.study.open_run import leave_out_broken
from cmmlib.study.run_files import require_table
from cmmlib.study.study import Study

if TYPE_CHECKING:
    from cmmlib.models.backbones import Backbone

BLOCK = 8192  # images at a time
EMBEDDINGS = "embeddings:"
COLUMNS = ("image", "prediction", "class_index", "probability", "runner_up", "runner_up_probability", "suspected")
MOST_NAMES = 3  # of suspected classes in a line


@dataclass(frozen=True)
class NewImages:
    """What is classified: unit-norm embeddings, what each image is called, and what is to be said about them."""

    image_features: Float[Tensor, "N D"]
    image_ids: list[str]
    remarks: list[str]


def new_images(study: Study, classifier: Classifier) -> NewImages:
    """Embeddings of the images that a study names as its data set, from the model that made the classifier.

    Args:
        study: `dataset` names the images; its backbone and weights, where it has any, stand for those of the file.

    Raises:
        InputError: images that cannot be found or read; a model that is unknown, not here, or another one than the
            classifier's, by the width of its embeddings or the digest of its weights.
    """
    if study.dataset.startswith(EMBEDDINGS):
        return _of_file(Path(study.dataset.removeprefix(EMBEDDINGS)), classifier)
    from cmmlib.models.embed import embed_images  # open_clip takes seconds to import; embeddings files do without

    data = load_images(study.dataset, study.split, Path(study.data_root) if study.data_root else None, study.seed)
    backbone, of_weights = _backbone(study, classifier)
    remarks = [*data.remarks, *backbone.checkpoint.remarks, *of_weights]
    x = embed_images(backbone, data, batch_size=study.batch_size, workers=study.workers, max_broken=study.max_broken)
    x, data, broken = leave_out_broken(x, data)
    if broken:
        remarks.append(f"images that cannot be read are left out, {len(broken)} in all: {_first(broken)}")
    return NewImages(x, data.image_ids, remarks)


def _of_file(path: Path, classifier: Classifier) -> NewImages:
    embeddings, made = load_image_embeddings(path), classifier.provenance
    _check_width(embeddings.image_features.shape[1], classifier, f"the embeddings of {path.name} have")
    remarks = [*embeddings.remarks]
    own, weights = embeddings.backbone, embeddings.pretrained
    if own and made.backbone and own != made.backbone:
        remarks.append(f"{path.name} is of backbone {own}, the classifier was fitted with {made.backbone}")
    if weights and made.pretrained and weights != made.pretrained:
        remarks.append(f"{path.name} is of the weights {weights}, the classifier was fitted with {made.pretrained}")
    if not (own and made.backbone):
        silent = [what for what, name in ((path.name, own), ("the classifier", made.backbone)) if not name]
        remarks.append(f"no backbone is named by {' and '.join(silent)}: both are taken to be of one model")
    return NewImages(embeddings.image_features, embeddings.image_ids, remarks)


def _backbone(study: Study, classifier: Classifier) -> tuple[Backbone, list[str]]:
    """The model that made the classifier, and a remark where that cannot be told."""
    from cmmlib.models.backbones import load_backbone

    made = classifier.provenance
    name, pretrained = _names(study, made)
    backbone = load_backbone(name, pretrained, study.device, study.precision)
    width = backbone.checkpoint.configuration.get("embed_dim")
    if isinstance(width, int):
        _check_width(width, classifier, f"backbone {backbone.public_name} has")
    if made.weights is None:
        return backbone, ["the classifier does not say which weights it was fitted with: they are taken to be these"]
    if made.weights != backbone.digest:
        raise InputError(
            f"weights: {' '.join(filter(None, (backbone.public_name, backbone.public_pretrained)))} is not what the "
            f"classifier was fitted with, {_called(made)}: name those with --backbone and --pretrained"
        )
    return backbone, []


def _names(study: Study, made: Provenance) -> tuple[str, str | None]:
    """Backbone and weights to look for: the file's own, if the study names no others."""
    name = study.backbone or made.backbone
    if not name:
        raise InputError("backbone: the classifier does not say which model it was fitted with: give --backbone")
    same = study.backbone in (None, made.backbone)
    pretrained = study.pretrained or (made.pretrained if same else None)
    if study.backbone is None and name.startswith("local-dir:"):
        raise InputError(f"backbone: the classifier was fitted with {name}: give its folder, --backbone local-dir:PATH")
    if not study.pretrained and pretrained and Path(pretrained).suffix in WEIGHT_ENDINGS:
        raise InputError(f"pretrained: the classifier was fitted with {pretrained}: give its place, --pretrained PATH")
    return name, pretrained


def _called(made: Provenance) -> str:
    return " ".join(filter(None, (made.backbone, made.pretrained))) or "weights without a name"


def _check_width(width: int, classifier: Classifier, subject: str) -> None:
    if width != classifier.width:
        raise InputError(
            f"width: {subject} width {width}, the classifier {classifier.width}: "
            f"it was fitted with {_called(classifier.provenance)}"
        )


# ---------------------------------------------------------------- predictions


def predictions(classifier: Classifier, images: NewImages) -> pd.DataFrame:
    """A row an image: prediction and runner-up with their probabilities, and whether CMM suspects the predicted class.

    A class without a name is called by its index.
    """
    blocks = [_top_two(classifier, block) for block in images.image_features.split(BLOCK)]
    first, second, own, other = (torch.cat(parts).tolist() for parts in zip(*blocks, strict=True))
    names, suspected = classifier.class_names or [str(c) for c in range(classifier.n_classes)], set(classifier.suspects)
    columns = (
        [os.fsencode(name).decode("utf-8", "replace") for name in images.image_ids],
        [names[c] for c in first],
        first,
        own,
        [names[c] for c in second],
        other,
        ["yes" if c in suspected else "no" for c in first],
    )
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def _top_two(classifier: Classifier, image_features: Float[Tensor, "B D"]) -> tuple[Tensor, ...]:
    """Classes of the highest and second highest logit, and their probabilities."""
    logits = classifier.correction.logits(image_features)
    first, second, *_ = top_two(logits)
    q = logits.softmax(1)
    return first, second, q.gather(1, first[:, None])[:, 0], q.gather(1, second[:, None])[:, 0]


def warning(classifier: Classifier, table: pd.DataFrame) -> str:
    """How many images went to classes that CMM suspects, and to which of these most, in one line."""
    if not classifier.suspects:
        return "the classifier does not say which classes CMM suspects"
    names = table.loc[table["suspected"] == "yes", "prediction"]
    counts = [f"{name} ({n:,})" for name, n in Counter(names).most_common()]
    where = f": {_first(counts)}" if counts else ""
    return f"{len(names):,} of {len(table):,} images went to classes that CMM suspects{where}"


def _first(words: list[str]) -> str:
    shown = "; ".join(words[:MOST_NAMES])  # names may hold commas
    return shown if len(words) <= MOST_NAMES else f"{shown} and {len(words) - MOST_NAMES} more"


def require_place(out: Path, overwrite: bool) -> None:
    """Refuse, before anything is embedded, a place for the CSV where something lies that the command did not write.

    Raises:
        InputError: a folder or another file; predictions too, unless they may be overwritten: of other images, perhaps.
        OSError: a file cannot be made there.
    """
    require_table(out, ",".join(COLUMNS))
    if out.exists() and not overwrite:
        raise InputError(f"--out: {out} is there already: name another file, or replace it with --overwrite")
