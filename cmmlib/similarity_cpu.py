"""What the pass does with a block of similarities besides making them, compiled by numba for the processor.

Between the matrix product and the sums over images lie a dozen small steps. Here they go through a block three times,
where the same steps in torch (`cmmlib.similarity_torch`) go through it twenty times.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.compiled import FAST, ROWS, compiled

WINDOW = 32  # classes that are looked at one by one only where some of them matter


class CompiledSteps:
    """The steps of one prompt. See `cmmlib.similarity.Steps`."""

    def __init__(self, fields: dict[str, Tensor], m: int, power: float) -> None:
        self.fields = {key: value.numpy() for key, value in fields.items()}
        self.power = np.float32(power)
        n_classes = len(self.fields["soft_mass"])
        self.floor = np.full(n_classes, -np.inf, np.float32)  # the least similar of the images below
        self.value, self.image = np.full((n_classes, m), -np.inf, np.float32), np.zeros((n_classes, m), np.int64)

    def add(self, d: Float[Tensor, "B C"], q: Float[Tensor, "B C"], start: int) -> None:
        own = {key: value[start : start + len(d)] for key, value in self.fields.items()}
        ranks = [own[key] for key in ("prediction", "rival", "top_similarity", "margin", "spread")]
        _rank(d.numpy(), self.power, start, *ranks, self.floor, self.value, self.image)
        torch.exp2(d, out=q)
        sums = [
            self.fields[key] for key in ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")
        ]
        _add(d.numpy(), q.numpy(), own["spread"], own["top_probability"], self.power, *sums)

    def retrieved(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        return torch.from_numpy(self.value), torch.from_numpy(self.image)


@compiled(fastmath=FAST)
@no_type_check  # numba compiles the function as it stands
def _rank(d, power, start, prediction, rival, top_similarity, margin, spread, floor, value, image):
    """The two highest similarities of every image, and its place among the most similar images of every class.

    Leaves d as the distance to the highest, times the power. An image enters a class's heap when it beats the least
    similar image there.
    """
    n, n_classes = d.shape
    for i in range(n):
        row, first, second = d[i], 0, 0
        top = runner_up = np.float32(-np.inf)
        for begin in range(0, n_classes, WINDOW):
            own, floors = row[begin : begin + WINDOW], floor[begin : begin + WINDOW]
            higher = entering = 0
            for j in range(len(own)):
                higher += own[j] > runner_up
                entering += own[j] > floors[j]
            if higher:
                for j in range(len(own)):
                    if own[j] > top:
                        runner_up, second = top, first
                        top, first = own[j], begin + j
                    elif own[j] > runner_up:
                        runner_up, second = own[j], begin + j
            if entering:
                for j in range(len(own)):
                    if own[j] > floors[j]:
                        floors[j] = _replace_root(value[begin + j], image[begin + j], own[j], start + i)
        total = square = np.float32(0)
        for j in range(len(row)):
            behind = row[j] - top
            total += behind
            square += behind * behind
            row[j] = behind * power
        mean = total / n_classes
        spread[i] = np.sqrt(max(square / n_classes - mean * mean, np.float32(0)))
        prediction[i], rival[i], top_similarity[i], margin[i] = first, second, top, top - runner_up


@compiled()
@no_type_check  # numba compiles the function as it stands
def _replace_root(value, image, new_value, new_image):
    """Put an image in the place of a heap's root, of equals the last; returns the value of the new root."""
    m, i = len(value), 0
    while 2 * i + 1 < m:
        child = 2 * i + 1
        other = child + 1
        if other < m and (value[other], -image[other]) < (value[child], -image[child]):
            child = other
        if (new_value, -new_image) < (value[child], -image[child]):
            break
        value[i], image[i] = value[child], image[child]
        i = child
    value[i], image[i] = new_value, new_image
    return value[0]


@compiled(fastmath=FAST)
@no_type_check  # numba compiles the function as it stands
def _add(d, q, spread, top_probability, power, mass, margin, scaled, probability):
    """Sums over images. q is the probability over that of the predicted class, whose own share comes later."""
    sums = np.empty((4, d.shape[1]), np.float32)
    for begin in range(0, len(d), ROWS):
        sums[:] = 0
        for i in range(begin, min(begin + ROWS, len(d))):
            behind, ratio, total = d[i], q[i], np.float32(0)
            for j in range(len(ratio)):
                total += ratio[j]
            q_top = np.float32(1) / total
            q_margin = q_top / power
            q_scaled = q_margin / max(spread[i], np.float32(1e-30))
            for j in range(len(ratio)):
                own, weighted = ratio[j] * q_top, ratio[j] * behind[j]
                sums[0, j] += own
                sums[1, j] += weighted * q_margin
                sums[2, j] += weighted * q_scaled
                sums[3, j] += own * (own - q_top)
            top_probability[i] = q_top
        mass += sums[0]
        margin += sums[1]
        scaled += sums[2]
        probability += sums[3]
