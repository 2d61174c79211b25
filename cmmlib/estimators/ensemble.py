"""The weighted prompt ensemble as an estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.estimators.arrays import Array, unit_rows
from cmmlib.estimators.base import ZeroShotEstimator, as_scale
from cmmlib.estimators.classifier import plain
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.ensemble import CUT, ROUNDS, TEMPERATURE, cmm_ensemble
from cmmlib.functional.prompt_baselines import uniform_mean


class CMMEnsemble(ZeroShotEstimator):
    """Prompts and descriptions of every class, weighted by their CMM on unlabelled images: one vector a class.

    Args:
        logit_scale: 1 / tau of the model, 100 for OpenAI's CLIP.
        temperature: of the weights, in standard deviations of a class's candidate CMMs.
        cut: candidates this many standard deviations below the class's best are left out; None keeps all.
        balanced: whether prompts and descriptions of a class have equal mass before CMM is applied.
        rounds: in each after the first, rivals have the texts that the one before chose for them.
        assignment: which images count for a candidate, as in `cmmlib.functional.candidate_cmm`.
        precision: of the products, fp32 or bf16.
        n_suspects: how many classes `suspects` names; a quarter by default.

    >>> import torch
    >>> images, texts = torch.randn(50, 8), torch.randn(3, 4, 8)  # [N, D], [P, C, D]
    >>> ensemble = CMMEnsemble(logit_scale=20).fit(images, texts, {2: torch.randn(5, 8)})
    >>> ensemble.text_features.shape, ensemble.predict(images).shape, len(ensemble.suspects)
    (torch.Size([4, 8]), torch.Size([50]), 1)
    """

    def __init__(
        self,
        logit_scale: float = 100.0,
        *,
        temperature: float = TEMPERATURE,
        cut: float | None = CUT,
        balanced: bool = True,
        rounds: int = ROUNDS,
        assignment: Literal["soft", "retrieval"] = "soft",
        precision: Literal["fp32", "bf16"] = "fp32",
        n_suspects: int | None = None,
    ) -> None:
        self.logit_scale = logit_scale
        self.temperature = temperature
        self.cut = cut
        self.balanced = balanced
        self.rounds = rounds
        self.assignment: Literal["soft", "retrieval"] = assignment
        self.precision: Literal["fp32", "bf16"] = precision
        self.n_suspects = n_suspects

    def fit(self, image_features: Array, text_features: Array, descriptions: Mapping[int, Array] | None = None) -> Self:
        """Weigh the candidates on images without labels.

        Args:
            image_features: [N, D], numpy or torch, of any float dtype and length.
            text_features: [C, D], or [P, C, D]: every prompt is a candidate for every class.
            descriptions: class index -> [K, D], further candidates of some classes.

        Raises:
            InputError: shapes that disagree, an unknown class, NaN, Inf or zero-length rows, a parameter out of range.
        """
        x, texts = self._inputs(image_features, text_features)
        scale = as_scale(self.logit_scale)
        candidates = Candidates.of_templates(texts).with_descriptions(_described(descriptions, texts))
        vectors = cmm_ensemble(
            x,
            candidates,
            uniform_mean(texts),
            scale,
            assignment=self.assignment,
            temperature=self.temperature,
            cut=self.cut,
            balanced=self.balanced,
            rounds=self.rounds,
            precision=self.precision,
        )
        return self._keep(plain(vectors, scale), x, image_features)


def _described(descriptions: Mapping[int, Array] | None, texts: Tensor) -> dict[int, Tensor]:
    """Descriptions of unit norm on the texts' device, for classes that are there."""
    descriptions = {} if descriptions is None else descriptions
    if not isinstance(descriptions, Mapping):
        kind = type(descriptions).__name__
        raise InputError(f"descriptions is {kind}: give a dictionary, class index -> [K, D]")
    _, n_classes, width = texts.shape
    described = {}
    for c, rows in descriptions.items():
        if c not in range(n_classes):
            raise InputError(f"descriptions: no class {c!r}: keys are class indices, 0 to {n_classes - 1}")
        described[int(c)] = unit_rows(rows, f"descriptions[{c}]", "K D").to(texts.device)
        if described[int(c)].shape[1] != width:
            raise InputError(f"descriptions[{c}] has width {rows.shape[1]} and text_features {width}")
    return described
