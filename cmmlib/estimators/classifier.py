"""A zero-shot classifier that is ready for new images: one vector and one number a class, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.estimators.arrays import Array, as_given, unit_rows
from cmmlib.functional.prior_matching import Correction

BLOCK = 8192  # images at a time


def _own_version() -> str | None:
    try:
        return version("cmmlib")
    except PackageNotFoundError:
        return None


class Provenance(BaseModel):
    """What a classifier was made from, by public names: of a path, only the last part is kept.

    Attributes:
        backbone: open_clip architecture, `local-dir:NAME` or `hf-hub:OWNER/NAME`.
        pretrained: open_clip tag, or the name of a checkpoint's file.
        weights: digest of the weights and what belongs to them, as in a run's manifest.
        data: name of the images that it was fitted on.
        run: id of the run that made it.
        cmmlib: version of this package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | None = None
    pretrained: str | None = None
    weights: str | None = None
    data: str | None = None
    run: str | None = None
    cmmlib: str | None = Field(default_factory=_own_version)

    @field_validator("backbone", "pretrained", "data", "run")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value is None or value.startswith("hf-hub:"):
            return value
        kind, colon, path = value.rpartition(":")
        return kind + colon + Path(path).name


@dataclass(frozen=True)
class Classifier:
    """What an estimator fits, a run writes and a file holds. C classes, width D.

    Attributes:
        kind: the estimator that fitted it, or a run's method.
        correction: logits = x . (text_scale * t_c + prototypes_c) + bias_c; without correction the last two are zero.
        suspects: classes of lowest CMM on the images that it was fitted on, the lowest first.
        class_names: C names, or None.
    """

    kind: str
    correction: Correction
    suspects: list[int]
    class_names: list[str] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def text_features(self) -> Tensor:
        """Unit-norm text embeddings, [C, D]."""
        return self.correction.text_features

    @property
    def bias(self) -> Tensor:
        """Added to the logits, [C]."""
        return self.correction.bias

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return len(self.bias)

    @property
    def width(self) -> int:
        """D, the width of the embeddings."""
        return self.text_features.shape[1]

    def decision_function(self, image_features: Array) -> Array:
        """Logits of images, [N, C], float32.

        Args:
            image_features: [N, D], numpy or torch, of any float dtype and length.

        Raises:
            InputError: another width, or rows that are NaN, Inf or of zero length.
        """
        return as_given(self._logits(image_features), image_features)

    def predict(self, image_features: Array) -> Array:
        """Class of the highest logit for every image, [N], ties to the lowest index."""
        return as_given(self.correction.predict(self._rows(image_features)), image_features)

    def predict_proba(self, image_features: Array) -> Array:
        """Softmax of the logits, [N, C], float32."""
        return as_given(self._logits(image_features).softmax(1), image_features)

    def _logits(self, image_features: Array) -> Tensor:
        return torch.cat([self.correction.logits(block) for block in self._rows(image_features).split(BLOCK)])

    def _rows(self, image_features: Array) -> Tensor:
        x = unit_rows(image_features, "image_features", "N D")
        if x.shape[1] != self.width:
            raise InputError(
                f"image_features have width {x.shape[1]} and the classifier has {self.width}: "
                "embed the images with the model that it was fitted with"
            )
        return x.to(self.bias.device)


def plain(text_features: Tensor, logit_scale: float) -> Correction:
    """No correction: the classifier of these texts, [C, D], unit norm."""
    texts = text_features.float()
    bias = torch.zeros(len(texts), dtype=torch.float64, device=texts.device)
    return Correction(texts, logit_scale, torch.zeros_like(texts), bias, True, 0)
