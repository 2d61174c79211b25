"""Candidate texts -> weights -> one classifier [C, D]: the weighted prompt ensemble, without labels.

A candidate is one text vector for one class: a template filled with the class name, or a description. Its CMM is
measured against the other classes as they are, one class at a time: it is good if the images that speak for its
class are then ahead of their rivals. Classes may have unequal numbers of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmmlib.errors import InputError

TEMPLATE, DESCRIPTION = 0, 1  # groups of candidates
BLOCK_BYTES = 8 << 20  # one [B, C] float32 block: some of them stay in a last-level cache of today's CPUs
MAX_ROWS = 8192  # images in a block, since sums within a block are float32
TEMPERATURE = 0.3  # of the weights, in standard deviations of a class's candidate CMMs
CUT = 1.0  # candidates this many standard deviations below the class's best are left out
ROUNDS = 2  # in the second, rivals have the texts that the first chose for them


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
    def of_templates(cls, heads: Float[Tensor, "P C D"]) -> Candidates:
        """Every prompt of a pool is a candidate for every class, prompt by prompt."""
        p, c, _ = heads.shape
        classes = torch.arange(c, device=heads.device).repeat(p)
        return cls(heads.flatten(0, 1).float(), classes, torch.full_like(classes, TEMPLATE), c)

    def with_descriptions(self, described: Mapping[int, Float[Tensor, "K D"]]) -> Candidates:
        """The same and, for some classes, descriptions."""
        if not described:
            return self
        new = torch.cat([v.float() for v in described.values()]).to(self.vectors)
        index = torch.repeat_interleave(
            torch.tensor(list(described)), torch.tensor([len(v) for v in described.values()])
        ).to(self.classes)
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


@torch.no_grad()
def candidate_cmm(
    images: Float[Tensor, "N D"],
    candidates: Candidates,
    others: Float[Tensor, "C D"],
    logit_scale: float,
    assignment: Literal["soft", "retrieval"] = "soft",
) -> Float[Tensor, "T"]:
    """CMM of every candidate, with the classifier `others` for all classes but its own.

    Args:
        images: unit-norm image embeddings; no labels.
        others: text vectors that the rivals have, unit norm.
        logit_scale: 1 / tau of the soft assignment.
        assignment: which images speak for a candidate: all, by its probability among the others (`soft`), or the N / C
            most similar to it (`retrieval`).

    Returns:
        Mean margin of each candidate, float64. Where every probability underflows to zero, `soft` falls back to
        `retrieval`, as in `cmmlib.cmm`.
    """
    if assignment not in ("soft", "retrieval"):
        raise InputError(f"candidate_cmm: unknown assignment {assignment!r}: use soft or retrieval")
    n, n_classes = len(images), candidates.n_classes
    m = max(1, round(n / n_classes))
    layers = [_Layer(candidates, index, m) for index in _layers(candidates)]
    for block in images.split(min(MAX_ROWS, max(1, BLOCK_BYTES // (4 * n_classes)))):
        x = block.float()
        rival, log_others = _without_each(x @ others.T, logit_scale)  # [B, C] each
        for layer in layers:
            if assignment == "soft":
                layer.add(x, rival, log_others, logit_scale)
            else:
                layer.retrieve(x, rival)
    score = torch.empty(len(candidates.classes), dtype=torch.float64, device=images.device)
    for layer in layers:
        score[layer.index] = layer.best[1].mean(0, dtype=torch.float64) if layer.best else layer.total / layer.mass
    silent = score.isnan()
    if silent.any():
        score[silent] = candidate_cmm(images, candidates.where(silent), others, logit_scale, "retrieval")
    return score


def _layers(candidates: Candidates) -> list[Int[Tensor, "K"]]:
    """Indices of candidates, at most one of each class in a layer: the first of every class, the second, and so on."""
    rows = _rows_by_class(candidates)
    most = max((len(own) for own in rows), default=0)
    return [torch.stack([own[k] for own in rows if k < len(own)]) for k in range(most)]


class _Layer:
    """One candidate for each of some classes, and its sums: a block of them is as large as one of the classifier."""

    def __init__(self, candidates: Candidates, index: Int[Tensor, "K"], m: int) -> None:
        self.index, self.m = index, m
        end = int(index[0]) + len(index)  # those of a template lie side by side: a view, no copy
        own = slice(int(index[0]), end) if index.equal(torch.arange(end - len(index), end).to(index)) else index
        self.vectors, self.classes = candidates.vectors[own], candidates.classes[index]  # in the order of classes
        self.whole = len(index) == candidates.n_classes
        self.mass, self.total = torch.zeros(2, len(index), dtype=torch.float64, device=index.device)
        self.best: list[Tensor] = []  # of retrieval: similarity and margin of the images kept so far, [m, K] each

    def _own(self, of_classes: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        return of_classes if self.whole else of_classes[:, self.classes]

    def add(self, x: Tensor, rival: Tensor, log_others: Tensor, logit_scale: float) -> None:
        """A block's share of the soft sums."""
        similarity = x @ self.vectors.T  # [B, K]
        add = _adder(x.device)
        add(similarity, self._own(rival), self._own(log_others), logit_scale, self.mass, self.total)

    def retrieve(self, x: Tensor, rival: Tensor) -> None:
        """The m most similar images so far."""
        similarity = x @ self.vectors.T
        found = [similarity, similarity - self._own(rival)]
        if self.best:
            found = [torch.cat(pair) for pair in zip(self.best, found, strict=True)]
        index = found[0].topk(min(self.m, len(found[0])), dim=0).indices
        self.best = [part.gather(0, index) for part in found]


def _adder(device: torch.device) -> Callable[..., None]:
    if device.type != "cpu":
        return _add_soft_sums
    from cmmlib.ensemble_cpu import add_soft_sums  # numba takes a moment to import

    return add_soft_sums


def _add_soft_sums(
    similarity: Tensor, rival: Tensor, log_others: Tensor, logit_scale: float, mass: Tensor, total: Tensor
) -> None:
    """`cmmlib.ensemble_cpu.add_soft_sums` for other devices."""
    q = (similarity * logit_scale - log_others).sigmoid_()
    mass += q.sum(0)
    total += q.mul_(similarity - rival).sum(0)


def _without_each(similarity: Float[Tensor, "B C"], logit_scale: float) -> tuple[Tensor, Tensor]:
    """For each class, over the *other* classes: the highest similarity, and the log of the sum of exponentials."""
    top = similarity.topk(2, dim=1)
    rival = top.values[:, :1].repeat(1, similarity.shape[1])
    rival.scatter_(1, top.indices[:, :1], top.values[:, 1:])
    logits = logit_scale * similarity.double()
    peak = logits.amax(1, keepdim=True)
    exponentials = (logits - peak).exp()
    log_rest = (exponentials.sum(1, keepdim=True) - exponentials).log() + peak
    winner = top.indices[:, :1]  # where the winner is nearly all, the difference above has lost its digits
    log_rest.scatter_(1, winner, logits.scatter(1, winner, -torch.inf).logsumexp(1, keepdim=True))
    return rival, log_rest.float()


def weigh(
    candidates: Candidates,
    cmm: Float[Tensor, "T"],
    *,
    temperature: float = TEMPERATURE,
    cut: float | None = CUT,
    balanced: bool = True,
) -> Float[Tensor, "T"]:
    """Weights of the candidates, which sum to one in every class.

    w is proportional to g exp(CMM / tau_w). tau_w is `temperature` standard deviations of the class's candidate
    CMMs; candidates more than `cut` standard deviations below the class's best get nothing; g gives each group of the
    class equal mass before that (`balanced`), so that 24 templates do not drown 5 descriptions.

    Raises:
        InputError: a temperature that is not positive, or a negative cut.
    """
    if not temperature > 0 or (cut is not None and cut < 0):
        raise InputError(f"weigh: temperature must be positive and cut 0 or more, got {temperature} and {cut}")
    weights = torch.zeros(len(cmm), dtype=torch.float64, device=cmm.device)
    for rows in _rows_by_class(candidates):
        if not len(rows):
            continue  # `combine` refuses such a class
        score = cmm[rows].double()
        deviation = score.std(correction=0).clamp_min(1e-12)
        log_weight = (score - score.max()) / (temperature * deviation)
        if balanced:
            group = candidates.groups[rows]
            log_weight = log_weight - group.bincount().to(score)[group].log()
        if cut is not None:
            log_weight = log_weight.masked_fill(score < score.max() - cut * deviation, -torch.inf)
        weights[rows] = log_weight.softmax(0)
    return weights


def weigh_globally(
    heads: Float[Tensor, "P C D"], cmm: Float[Tensor, "P C"], *, temperature: float = TEMPERATURE
) -> Float[Tensor, "P"]:
    """One weight a template for all classes, from its mean CMM over classes; tau_w as in `weigh`."""
    score = cmm.double().mean(1)
    return ((score - score.max()) / (temperature * score.std(correction=0).clamp_min(1e-12))).softmax(0)


def combine(candidates: Candidates, weights: Float[Tensor, "T"]) -> Float[Tensor, "C D"]:
    """The classifier: for each class the weighted sum of its candidates, unit norm.

    Raises:
        InputError: a class without a candidate of positive weight.
    """
    vectors = candidates.vectors
    summed = torch.zeros(candidates.n_classes, vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for part in torch.arange(len(vectors), device=vectors.device).split(MAX_ROWS):  # doubles of all would be large
        summed.index_add_(0, candidates.classes[part], weights[part].to(summed)[:, None] * vectors[part].double())
    empty = (summed.norm(dim=1) == 0).nonzero()
    if len(empty):
        raise InputError(f"combine: class {int(empty[0])} has no candidate of positive weight")
    return torch.nn.functional.normalize(summed, dim=1).float()


def cmm_ensemble(
    images: Float[Tensor, "N D"],
    candidates: Candidates,
    others: Float[Tensor, "C D"],
    logit_scale: float,
    *,
    assignment: Literal["soft", "retrieval"] = "soft",
    temperature: float = TEMPERATURE,
    cut: float | None = CUT,
    balanced: bool = True,
    rounds: int = ROUNDS,
) -> Float[Tensor, "C D"]:
    """The weighted ensemble of all candidates, in one call.

    The first round measures candidates against `others`, each further round against the classifier of the round
    before: a description that pulls in the images of other classes looks good only as long as those have bad texts.

    Raises:
        InputError: no round; and whatever `weigh` and `combine` refuse.
    """
    if rounds < 1:
        raise InputError(f"cmm_ensemble: rounds must be 1 or more, got {rounds}")
    for _ in range(rounds):
        score = candidate_cmm(images, candidates, others, logit_scale, assignment)
        others = combine(candidates, weigh(candidates, score, temperature=temperature, cut=cut, balanced=balanced))
    return others


def uniform(candidates: Candidates, *, balanced: bool = False) -> Float[Tensor, "T"]:
    """Equal weights within each class, or within each group of a class (`balanced`)."""
    return weigh(candidates, torch.zeros(len(candidates.classes)), cut=None, balanced=balanced)


def replace_classes(base: Float[Tensor, "C D"], described: Mapping[int, Float[Tensor, "K D"]]) -> Float[Tensor, "C D"]:
    """The base classifier, with the mean description in place of each described class."""
    classifier = base.clone()
    for c, vectors in described.items():
        classifier[c] = torch.nn.functional.normalize(vectors.float().mean(0), dim=0)
    return classifier


def _rows_by_class(candidates: Candidates) -> Sequence[Tensor]:
    order = candidates.classes.argsort(stable=True)
    return order.split(candidates.classes.bincount(minlength=candidates.n_classes).tolist())
