"""What the estimators share: scikit-learn's way of parameters, and the classifier that `fit` leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Self

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.estimators.arrays import Array, as_given, unit_rows
from cmmlib.estimators.classifier import Classifier, Provenance
from cmmlib.estimators.classifier_file import save_classifier
from cmmlib.estimators.suspects import find_suspects
from cmmlib.functional._arguments import is_number, refuse_masked, require_type, type_hints
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.prompt_baselines import uniform_mean


class ZeroShotEstimator(BaseEstimator):
    """An estimator that is fitted on images without labels and on the class texts, which it keeps.

    Before `fit`, everything below raises scikit-learn's NotFittedError.
    """

    logit_scale: Any
    n_suspects: int | None

    @property
    def classifier(self) -> Classifier:
        """What was fitted."""
        check_is_fitted(self)
        return self._classifier

    @property
    def text_features(self) -> Array:
        """Unit-norm text embeddings, [C, D], of the classifier; of the kind that it was fitted with."""
        return as_given(self.classifier.text_features, self._given)

    @property
    def bias(self) -> Array:
        """Added to the logits, [C], float64; zero where nothing was corrected."""
        return as_given(self.classifier.bias, self._given)

    @property
    def suspects(self) -> list[int]:
        """The classes of lowest CMM on the images of `fit`, the lowest first: those that it most likely gets wrong."""
        return self.classifier.suspects

    def decision_function(self, image_features: Array) -> Array:
        """Logits of any images, [N, C], as `Classifier.decision_function`."""
        return self.classifier.decision_function(image_features)

    def predict(self, image_features: Array) -> Array:
        """Class indices of any images, [N]."""
        return self.classifier.predict(image_features)

    def predict_proba(self, image_features: Array) -> Array:
        """Class probabilities of any images, [N, C]."""
        return self.classifier.predict_proba(image_features)

    def save(
        self, path: str | PathLike[str], class_names: Sequence[str] | None = None, **provenance: str | None
    ) -> None:
        """Write the classifier to a file, for `cmmlib.load_classifier` and `cmm classify`.

        Args:
            class_names: a name a class, in the order of the texts.
            provenance: `backbone`, `pretrained`, `data` and other fields of `Provenance`. With the first two,
                `cmm classify` finds the model that embeds new images.

        Raises:
            InputError: as `save_classifier`, and for an unknown field of provenance.
        """
        unknown = sorted(provenance.keys() - Provenance.model_fields)
        if unknown:
            raise InputError(f"save: unknown {', '.join(unknown)}: provenance is {', '.join(Provenance.model_fields)}")
        names = None if class_names is None else _as_names(class_names)
        save_classifier(replace(self.classifier, class_names=names, provenance=Provenance(**provenance)), path)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_classifier")

    def _inputs(self, image_features: Array, text_features: Array) -> tuple[Tensor, Tensor]:
        """Unit-norm images, [N, D], and texts, [P, C, D], on one device; refuses what no estimator can be fitted on."""
        for name, hint in type_hints(type(self).__init__).items():
            if name != "logit_scale":  # which `as_scale` looks at
                require_type(getattr(self, name, None), hint, name)
        x = unit_rows(image_features, "image_features", "N D")
        texts = unit_rows(text_features, "text_features", "C D", "P C D").to(x.device)
        texts = texts[None] if texts.ndim == 2 else texts
        shapes = f"image_features {list(x.shape)} and text_features {list(text_features.shape)}"
        if x.shape[1] != texts.shape[2]:
            raise InputError(f"{shapes} differ in width: embed both with one model")
        if not len(x) or not len(texts) or texts.shape[1] < 2:
            raise InputError(f"need at least one image, one prompt and two classes, got {shapes}")
        return x, texts

    def _keep(self, correction: Correction, x: Tensor, given: Array) -> Self:
        """Remember what was fitted, and whether numpy or torch came in."""
        self._given = as_given(torch.empty(0), given)  # not a view: it would hold all images
        self._classifier = Classifier(type(self).__name__, correction, find_suspects(correction, x, self.n_suspects))
        return self


def _as_names(class_names: Any) -> list[str]:
    """Class names in their order; of a set or a mapping it is not that of the classes."""
    if isinstance(class_names, (str, bytes)):
        raise InputError(f"save: class_names is one text, {class_names!r}: give a list with a name for each class")
    if not isinstance(class_names, Sequence) and not hasattr(class_names, "tolist"):
        kind = type(class_names).__name__
        raise InputError(f"save: class_names is a {kind}: give a list with a name for each class, in their order")
    return [_as_text(name) for name in class_names]


def _as_text(name: Any) -> str:
    """A class name; bytes, as numpy keeps texts, are UTF-8.

    Raises:
        InputError: one that is no text, or no UTF-8.
    """
    if not isinstance(name, (str, bytes)):
        raise InputError(f"save: class name {name!r} is of {type(name).__name__}: give texts")
    try:
        text = name.decode() if isinstance(name, bytes) else str(name)
        text.encode()
    except UnicodeError:
        raise InputError(f"save: class name {name!r} is not UTF-8: give it in letters") from None
    return text


def as_scale(logit_scale: Any) -> float:
    """A number, or a model's own as a tensor of one.

    Raises:
        InputError: not one positive, finite number.
    """
    try:
        scale = float(logit_scale.detach() if isinstance(logit_scale, Tensor) else logit_scale)
        scale = scale if is_number(logit_scale) else 0.0
    except (TypeError, ValueError, RuntimeError, OverflowError):
        scale = 0.0
    if not 0 < scale < float("inf"):
        raise InputError(f"logit_scale must be one positive, finite number, got {logit_scale!r}")
    return scale


def one_prompt(texts: Tensor) -> Tensor:
    """[P, C, D] -> [C, D]: the one prompt, or the uniform mean of several."""
    return texts[0] if len(texts) == 1 else uniform_mean(texts)


def as_prior(prior: Any, n_classes: int) -> Tensor | None:
    """Class frequencies as a tensor, [C].

    Raises:
        InputError: not one positive, finite number a class.
    """
    if prior is None:
        return None
    refuse_masked(prior, "prior")
    try:
        found = torch.as_tensor(prior)
        found = found.double().cpu() if found.dtype != torch.bool else torch.empty(0)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.shape != (n_classes,) or not bool((found > 0).all() and found.isfinite().all()):
        raise InputError(f"prior: {n_classes} positive frequencies are needed, one a class")
    return found
