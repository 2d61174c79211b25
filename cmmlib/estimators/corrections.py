"""Prior matching and prototypes as estimators: what unlabelled images correct, fitted once and applied anywhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Self

from sklearn.exceptions import ConvergenceWarning

from cmmlib.estimators.arrays import Array
from cmmlib.estimators.base import ZeroShotEstimator, as_prior, as_scale, one_prompt
from cmmlib.functional.prior_matching import Correction, fit_prior_matching
from cmmlib.functional.prototypes import IMAGE_WEIGHT, PROTOTYPE_ROUNDS, TEXT_WEIGHT, fit_prototypes


class _CorrectionEstimator(ZeroShotEstimator):
    @property
    def converged(self) -> bool:
        """Whether `fit` ended because it had settled; where it did not, it warned with a ConvergenceWarning."""
        return self.classifier.correction.converged

    @property
    def n_iter_(self) -> int:
        """Number of rounds of `fit`."""
        return self.classifier.correction.rounds

    def _converging(self, correction: Correction) -> Correction:
        if not correction.converged:
            told = f"{type(self).__name__} has not settled after {correction.rounds} rounds; its result can be used"
            warnings.warn(told, ConvergenceWarning, stacklevel=3)
        return correction


class PriorMatching(_CorrectionEstimator):
    """A bias a class, such that each class's mean probability on unlabelled images is its prior.

    The images must follow the prior: nothing in them can tell a rare class from one that is never recognised. Where
    balance is unknown, half strength does least harm (chapter 5).

    Args:
        logit_scale: 1 / tau of the model, 100 for OpenAI's CLIP.
        prior: class frequencies, [C]; uniform by default.
        strength: in [0, 1], multiplies the bias.
        n_suspects: how many classes `suspects` names; a quarter by default.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images, texts = rng.normal(size=(90, 8)), rng.normal(size=(3, 8))  # [N, D], [C, D]
    >>> matched = PriorMatching(logit_scale=10).fit(images, texts)
    >>> np.allclose(matched.predict_proba(images).mean(0), 1 / 3, atol=1e-3)
    True
    """

    def __init__(
        self,
        logit_scale: float = 100.0,
        *,
        prior: Array | Sequence[float] | None = None,
        strength: float = 1.0,
        n_suspects: int | None = None,
    ) -> None:
        self.logit_scale = logit_scale
        self.prior = prior
        self.strength = strength
        self.n_suspects = n_suspects

    def fit(self, image_features: Array, text_features: Array) -> Self:
        """Find the bias on images without labels.

        Args:
            image_features: [N, D], numpy or torch, of any float dtype and length.
            text_features: [C, D], a prompt's or an ensemble's; of [P, C, D], the uniform mean.

        Raises:
            InputError: shapes that disagree, NaN, Inf or zero-length rows, a parameter out of range.
        """
        x, texts = self._inputs(image_features, text_features)
        prior = as_prior(self.prior, texts.shape[1])
        correction = fit_prior_matching(x, one_prompt(texts), as_scale(self.logit_scale), prior, self.strength)
        return self._keep(self._converging(correction), x, image_features)


class Prototypes(_CorrectionEstimator):
    """What unlabelled images say a class looks like, beside its text, and prior matching in every round.

    Its assumptions are those of `PriorMatching`, and that a class is mostly right to begin with.

    Args:
        logit_scale: 1 / tau of the model, for the first probabilities.
        prior: class frequencies, [C]; uniform by default.
        strength: in [0, 1], of the bias in every round.
        text_weight: of text similarities, in their standard deviations.
        image_weight: of prototype similarities, likewise.
        rounds: at most.
        n_suspects: how many classes `suspects` names; a quarter by default.

    >>> import torch
    >>> images, texts = torch.randn(90, 8), torch.randn(3, 8)
    >>> Prototypes(logit_scale=10).fit(images, texts).predict(images).shape
    torch.Size([90])
    """

    def __init__(
        self,
        logit_scale: float = 100.0,
        *,
        prior: Array | Sequence[float] | None = None,
        strength: float = 1.0,
        text_weight: float = TEXT_WEIGHT,
        image_weight: float = IMAGE_WEIGHT,
        rounds: int = PROTOTYPE_ROUNDS,
        n_suspects: int | None = None,
    ) -> None:
        self.logit_scale = logit_scale
        self.prior = prior
        self.strength = strength
        self.text_weight = text_weight
        self.image_weight = image_weight
        self.rounds = rounds
        self.n_suspects = n_suspects

    def fit(self, image_features: Array, text_features: Array) -> Self:
        """Find prototypes and bias on images without labels; arguments and errors as in `PriorMatching.fit`."""
        x, texts = self._inputs(image_features, text_features)
        found = fit_prototypes(
            x,
            one_prompt(texts),
            as_scale(self.logit_scale),
            as_prior(self.prior, texts.shape[1]),
            self.strength,
            text_weight=self.text_weight,
            image_weight=self.image_weight,
            rounds=self.rounds,
        )
        return self._keep(self._converging(found), x, image_features)
