"""Candidate texts and the CMM of each: what the weighted ensemble weighs, without labels.

A candidate is one text vector for one class: a template filled with the class name, or a description. Its CMM is
measured against the other classes as they are, one class at a time: it is good if the images that count for its
class are then ahead of their rivals. Classes may have unequal numbers of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import e, log2
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import as_texts
from cmmlib.functional._blocks import block_rows
from cmmlib.functional._kernels.processor import has_triton, warn_of_bf16
from cmmlib.functional.zero_shot import top_two

TEMPLATE, DESCRIPTION = 0, 1  # groups of candidates
BLOCK_BYTES = 8 << 20  # one [B, C] float32 block: some of them stay in a last-level cache of today's CPUs
HIGHEST_POWER = 126  # of two: a candidate so far ahead of the rival has probability 1


@dataclass(frozen=True)
class Candidates:
    """Text vectors and the class and group of each.

    Attributes:
        vectors: unit norm, [T, D].
        classes: class index of each, [T].
        groups: `TEMPLATE` or `DESCRIPTION`, [T].
    """

    vectors: Float[Tensor, "T D"]
    classes: Int[Tensor, "T"]
    groups: Int[Tensor, "T"]
    n_classes: int

    @classmethod
    def of_templates(cls, text_features: Tensor | np.ndarray) -> Candidates:
        """Every prompt of a pool is a candidate for every class, prompt by prompt.

        Args:
            text_features: unit norm, [P, C, D].

        Raises:
            InputError: another shape, NaN, Inf, rows of another length.
        """
        text_features = as_texts(text_features, "of_templates: text_features", "P C D")
        p, c, _ = text_features.shape
        classes = torch.arange(c, device=text_features.device).repeat(p)
        return cls(text_features.flatten(0, 1).float(), classes, torch.full_like(classes, TEMPLATE), c)

    def with_descriptions(self, described: Mapping[int, Tensor | np.ndarray]) -> Candidates:
        """The same and, for some classes, descriptions.

        Args:
            described: class index -> unit-norm text vectors, [K, D].

        Raises:
            InputError: no such class; as `of_templates`.
        """
        if not described:
            return self
        for c in described:
            if c not in range(self.n_classes):
                raise InputError(f"with_descriptions: no class {c}: classes are 0 to {self.n_classes - 1}")
        texts = [as_texts(v, f"with_descriptions: class {c}", "K D").float() for c, v in described.items()]
        new = torch.cat(texts).to(self.vectors)
        sizes = self.classes.new_tensor([len(v) for v in texts])
        index = self.classes.new_tensor(list(described)).repeat_interleave(sizes)
        return Candidates(
            torch.cat([self.vectors, new]),
            torch.cat([self.classes, index]),
            torch.cat([self.groups, torch.full_like(index, DESCRIPTION)]),
            self.n_classes,
        )

    def only(self, group: int) -> Candidates:
        """The candidates of one group."""
        return self.where(self.groups == group)

    def where(self, kept: Bool[Tensor, "T"]) -> Candidates:
        """The candidates that a mask keeps."""
        return Candidates(self.vectors[kept], self.classes[kept], self.groups[kept], self.n_classes)

    def rows_by_class(self) -> Sequence[Int[Tensor, "K"]]:
        """Places of the candidates of every class, in their order."""
        order = self.classes.argsort(stable=True)
        return order.split(self.classes.bincount(minlength=self.n_classes).tolist())


@torch.no_grad()
def candidate_cmm(
    image_features: Float[Tensor, "N D"],
    candidates: Candidates,
    others: Float[Tensor, "C D"],
    logit_scale: float,
    assignment: Literal["soft", "retrieval"] = "soft",
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Float[Tensor, "T"]:
    """CMM of every candidate, with the classifier `others` for all classes but its own.

    Args:
        image_features: unit-norm image embeddings; no labels.
        others: text vectors that the rivals have, unit norm.
        logit_scale: 1 / tau of the soft assignment.
        assignment: which images count for a candidate: all, by its probability among the others (`soft`), or the N / C
            most similar to it (`retrieval`).
        precision: of the soft assignment's products. "bf16" (texts centred first) is faster where the processor has it,
            slower elsewhere, with a RuntimeWarning. Similarities err by less than 1e-3, and a candidate's CMM by less
            than 2e-4 (measured on CLIP ViT-B/32).

    Returns:
        Mean margin of each candidate, float64. Where every probability underflows to zero, `soft` falls back to
        `retrieval`, as in `cmmlib.functional.cmm`.
    """
    for name, value, choices in (
        ("assignment", assignment, ("soft", "retrieval")),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in choices:
            raise InputError(f"candidate_cmm: unknown {name} {value!r}: use {' or '.join(choices)}")
    m = max(1, round(len(image_features) / candidates.n_classes))
    layers = [_Layer(candidates, index, m) for index in _layers(candidates)]
    rounded = precision == "bf16" and assignment == "soft"
    if rounded:
        warn_of_bf16(image_features.device)
    _add_images(image_features, layers, others, logit_scale, torch.bfloat16 if rounded else torch.float32, assignment)
    score = torch.empty(len(candidates.classes), dtype=torch.float64, device=image_features.device)
    for layer in layers:
        score[layer.index] = layer.mean_margin()
    silent = score.isnan()
    if silent.any():
        score[silent] = candidate_cmm(image_features, candidates.where(silent), others, logit_scale, "retrieval")
    return score


def _add_images(
    image_features: Float[Tensor, "N D"],
    layers: Sequence[_Layer],
    others: Float[Tensor, "C D"],
    logit_scale: float,
    number: torch.dtype,
    assignment: str,
) -> None:
    """Every layer's sums over the images, block by block."""
    # bfloat16 keeps 8 bits: with a centre taken from all texts, which changes no margin, the products are small
    centre = others.float().mean(0) if number == torch.bfloat16 else None
    centred = _centred(others.float(), centre)
    rows = block_rows(4 * len(others), BLOCK_BYTES, image_features.device)
    memory = torch.empty(min(len(image_features), rows) * len(others), dtype=number, device=image_features.device)
    for block in image_features.split(rows):
        x = block.float()
        against = _Others.of(x @ centred.T, logit_scale)
        x = x.to(number)
        for layer in layers:  # centred anew in each block: all centred texts would take the memory of the texts
            similarity = memory[: len(x) * len(layer.classes)].view(len(x), -1)  # [B, K]
            torch.mm(x, _centred(layer.vectors, centre).to(number).T, out=similarity)
            if assignment == "soft":
                layer.add(similarity, against, logit_scale)
            else:
                layer.retrieve(similarity, against)


def _centred(vectors: Float[Tensor, "K D"], centre: Float[Tensor, "D"] | None) -> Float[Tensor, "K D"]:
    return vectors if centre is None else vectors - centre


def _layers(candidates: Candidates) -> list[Int[Tensor, "K"]]:
    """Indices of candidates, at most one of each class in a layer: the first of every class, the second, and so on.

    They are made on the processor, and lie there: a GPU would be waited for at every layer.
    """
    classes = candidates.classes.cpu()
    order, sizes = classes.argsort(stable=True), classes.bincount(minlength=candidates.n_classes)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    layer = torch.arange(len(order), device=classes.device) - starts  # of the candidates in the order of classes
    return [order[layer == k] for k in range(int(sizes.max()))]


class _Layer:
    """One candidate for each of some classes, and its sums: a block of them is as large as one of the classifier."""

    def __init__(self, candidates: Candidates, index: Int[Tensor, "K"], m: int) -> None:
        self.m, start, n, device = m, int(index[0]), len(index), candidates.classes.device
        in_line = index.equal(torch.arange(start, start + n, device=index.device))
        self.index = slice(start, start + n) if in_line else index.to(device)  # a template's: views, no copies
        self.vectors, self.classes = candidates.vectors[self.index], candidates.classes[self.index]  # by class
        self.whole = n == candidates.n_classes
        self.place = torch.full((candidates.n_classes,), -1, device=device)  # of a class's candidate, -1 if none
        self.place[self.classes] = torch.arange(n, device=device)
        self.mass, self.total = torch.zeros(2, n, dtype=torch.float64, device=device)
        self.best: list[Tensor] = []  # of retrieval: similarity and margin of the images kept so far, [m, K] each

    def _own(self, of_classes: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        return of_classes if self.whole else of_classes[:, self.classes]

    def add(self, similarity: Float[Tensor, "B K"], others: _Others, logit_scale: float) -> None:
        """A block's share of the soft sums."""
        _add_soft_sums(similarity, others.top, self._own(others.rest), logit_scale * log2(e), self.mass, self.total)
        known = self.place[others.winner]
        place = known.clamp_min(0)
        margin = similarity.gather(1, place[:, None])[:, 0] - others.second
        q = (logit_scale * margin - others.log_rest_of_winner).sigmoid() * (known >= 0)
        self.mass.index_add_(0, place, q.double())
        self.total.index_add_(0, place, (q * margin).double())

    def mean_margin(self) -> Float[Tensor, "K"]:
        """CMM of the layer's candidates, float64; NaN where every probability underflowed."""
        return self.best[1].mean(0, dtype=torch.float64) if self.best else self.total / self.mass

    def retrieve(self, similarity: Float[Tensor, "B K"], others: _Others) -> None:
        """The m most similar images so far."""
        best = [similarity, similarity - self._own(others.rival)]
        if self.best:
            best = [torch.cat(pair) for pair in zip(self.best, best, strict=True)]
        index = best[0].topk(min(self.m, len(best[0])), dim=0).indices
        self.best = [part.gather(0, index) for part in best]


def _add_soft_sums(
    similarity: Float[Tensor, "B K"],
    top: Float[Tensor, "B"],
    rest: Float[Tensor, "B K"],
    power: float,
    mass: Float[Tensor, "K"],
    total: Float[Tensor, "K"],
) -> None:
    """Add to `mass` the probabilities of K candidates, and to `total` these times the candidates' margins; float64.

    Args:
        similarity: float32 or bfloat16.
        top: the highest similarity of another class, the rival.
        rest: sum over the other classes of their exponentials, over that of the highest; Inf to leave a candidate out.
        power: what a similarity is multiplied with before it is the power of two.
    """
    if _is_compiled(similarity.device):
        from cmmlib.functional._kernels import candidates_numba  # numba takes a moment to import

        candidates_numba.add_soft_sums(similarity, top, rest, power, HIGHEST_POWER, mass, total)
        return
    if has_triton(similarity.device):
        from cmmlib.functional._kernels import candidates_triton

        candidates_triton.add_soft_sums(similarity, top, rest, power, HIGHEST_POWER, mass, total)
        return
    margin = similarity - top[:, None]
    own = (margin * power).clamp_max(HIGHEST_POWER).exp2()
    own.masked_fill_(own < torch.finfo(own.dtype).tiny, 0)  # not all devices have smaller numbers
    q = own / (own + rest)
    mass += q.sum(0)
    total += q.mul_(margin).sum(0)


def _is_compiled(device: torch.device) -> bool:
    return device.type == "cpu"


@dataclass(frozen=True)
class _Others:
    """What candidates meet in the classifier of the others, on every image: for each class, the *other* classes.

    That is the same for all classes but one, the image's winner.
    """

    winner: Int[Tensor, "B"]  # class of the highest similarity
    top: Float[Tensor, "B"]
    second: Float[Tensor, "B"]  # the highest similarity of another class
    rest: Float[Tensor, "B C"]  # sum of exp(scale * (similarity - top)) over the other classes; Inf for the winner
    log_rest_of_winner: Float[Tensor, "B"]  # log of the sum of exp(scale * (similarity - second)) over the others

    @classmethod
    def of(cls, similarity: Float[Tensor, "B C"], logit_scale: float) -> _Others:
        winner, _, top, second = top_two(similarity)
        exponentials = (logit_scale * (similarity - top[:, None])).exp_()
        rest = exponentials.sum(1, keepdim=True) - exponentials  # at least the winner's, 1
        rest.scatter_(1, winner[:, None], torch.inf)
        behind = (logit_scale * (similarity - second[:, None])).scatter_(1, winner[:, None], -torch.inf)
        return cls(winner, top, second, rest, behind.logsumexp(1))

    @cached_property
    def rival(self) -> Float[Tensor, "B C"]:
        """For each class, the highest similarity of another."""
        rival = self.top[:, None].repeat(1, self.rest.shape[1])
        return rival.scatter_(1, self.winner[:, None], self.second[:, None])
