"""What the pass does with a block of similarities besides making them, in torch: for devices other than the processor.

`cmmlib.functional._kernels.similarity_numba` has the same steps, compiled.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional.zero_shot import top_two

LOW_BITS, NO_KEY = (1 << 32) - 1, -(1 << 63)  # NO_KEY lies below any key of an image
NEGATIVE_ZERO = -(1 << 31)  # its bits, as those of an int32


class TorchSteps:
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`."""

    is_complete = False

    def __init__(self, fields: dict[str, Tensor], m: int, power: float) -> None:
        self.fields, self.m, self.power = fields, m, power
        n_classes, device = len(fields["soft_mass"]), fields["soft_mass"].device
        self.best = torch.empty((n_classes, 0), dtype=torch.int64, device=device)  # keys of the most similar images

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        d = s + offset[:, None]
        fields, image = self.fields, torch.arange(start, start + len(d), device=d.device)
        self.keep(rank_key(d.T, image))
        first, second, top, runner_up = top_two(d)
        d.sub_(top[:, None])
        square = torch.linalg.vector_norm(d, dim=1).square_().div_(d.shape[1])
        spread = square.sub_(d.mean(1).square_()).clamp_min_(0).sqrt_()
        q = (d * self.power).exp2_()
        q_top = q.sum(1).reciprocal_()
        per_image = {"prediction": first, "rival": second, "top_similarity": top, "margin": top - runner_up}
        for key, value in (per_image | {"top_probability": q_top, "spread": spread}).items():
            fields[key][start : start + len(d)] = value
        mass, with_top = torch.stack([q_top, q_top.square()]) @ q
        margin, scaled = torch.stack([q_top, q_top / spread.clamp_min(1e-30)]) @ d.mul_(q)
        fields["soft_mass"] += mass
        fields["soft_margin"] += margin
        fields["soft_scaled_margin"] += scaled
        fields["soft_probability_margin"] += q_top.square() @ q.square_() - with_top

    def keep(self, keys: Int[Tensor, "C K"]) -> None:
        """Of these and of those kept so far, each class's m highest keys."""
        keys = torch.cat([self.best, keys], 1) if self.best.shape[1] else keys
        self.best = self.highest(keys, min(self.m, keys.shape[1]))

    def highest(self, keys: Int[Tensor, "C K"], k: int) -> Int[Tensor, "C k"]:
        """Each class's k highest keys, in any order."""
        return keys.topk(k, 1, sorted=False).values

    def retrieved(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        return value_and_image(self.best)


def rank_key(value: Float[Tensor, "*C B"], image: Int[Tensor, "*D B"]) -> Int[Tensor, "*C B"]:
    """An integer that orders by value, then by lowest image. It has no ties, which `topk` would break at random."""
    return _ordered(value.view(torch.int32).long()).bitwise_left_shift_(32).sub_(image)


def value_and_image(key: Int[Tensor, "*C m"]) -> tuple[Float[Tensor, "*C m"], Int[Tensor, "*C m"]]:
    """What a key was made from."""
    image = -key & LOW_BITS
    return _ordered((key + image) >> 32).int().view(torch.float32), image


def _ordered(bits: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The order of the floats that have these bits, and the other way round; both zeros give 0."""
    return torch.where(bits < 0, NEGATIVE_ZERO - bits, bits)
