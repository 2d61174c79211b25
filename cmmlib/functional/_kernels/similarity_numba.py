"""What the pass does with a block of similarities besides making them, compiled by numba for the processor.

Between the matrix product and the sums over images lie a dozen small steps. Here an image's similarities are read once,
and stay in the nearest cache until all steps are done; the same steps in torch (`similarity_torch`) go through
a block twenty times. Floats are compared as integers of the same order, since such loops vectorise.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional._kernels.numba_helpers import FAST, ROWS, as_array, compiled, exp2, ordered, widen
from cmmlib.functional._kernels.similarity_torch import NO_KEY, value_and_image

WINDOW = 64  # classes whose highest similarity is found together
GROUP = 16  # images that are added to the sums together, so that these are read and written less often
LEAST = np.int32(-(1 << 31))  # below the order of every float
CHILDREN = 4  # of a node in a heap
FRONT = 64  # keys of a class that are kept ascending; the higher ones are a heap
HIGHEST_KEY = np.iinfo(np.int64).max
TINY = np.float32(1e-30)


class CompiledSteps:
    """The steps of one prompt. See `cmmlib.functional.similarity.Steps`."""

    is_complete = False

    def __init__(self, fields: dict[str, Tensor], m: int, power: float) -> None:
        keys = ("prediction", "rival", "top_similarity", "margin", "spread", "top_probability")
        self.images = tuple(fields[key].numpy() for key in keys)
        keys = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin")
        self.sums = tuple(fields[key].numpy() for key in keys)
        self.m, self.power = m, np.float32(power)
        n_classes = len(self.sums[0])
        self.floor = np.full(n_classes, LEAST)  # order of the least similar of the images below
        # keys of each class's most similar images: the lowest ones ascending, the higher ones in a heap
        self.front, self.heap = np.full((n_classes, min(m, FRONT) + 1), NO_KEY), None
        self.front[:, -1] = HIGHEST_KEY
        rest = m - FRONT
        if rest > 0:
            self.heap = np.full((n_classes, rest + -(rest - 1) % CHILDREN), NO_KEY)
            self.heap[:, rest:] = HIGHEST_KEY

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        arrays = self.images, self.sums, self.floor, self.front, self.heap
        _add_block(as_array(s), offset.numpy(), self.power, start, *arrays)

    def retrieved(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        keys = self.front[:, :-1]
        if self.heap is not None:
            keys = np.hstack([keys, self.heap])[:, : self.m]
        return value_and_image(torch.from_numpy(keys))


@compiled(fastmath=FAST)
@no_type_check  # numba compiles the functions below as they stand
def _add_block(s, offset, power, start, images, sums, floor, front, heap):
    """All steps for the images of a block, a group of images at a time."""
    prediction, rival, top_similarity, margin, spread, top_probability = images
    n, n_classes = s.shape
    bits = np.empty((GROUP, n_classes), np.int32)
    d, q = bits.view(np.float32), np.empty((GROUP, n_classes), np.float32)
    part = np.zeros((len(sums), n_classes), np.float32)
    n_windows = (n_classes + WINDOW - 1) // WINDOW
    peaks, lowest, words = np.empty(n_windows, np.int32), np.empty(n_windows, np.int32), np.zeros(WINDOW // 8, np.int64)
    for k in range(n_windows):
        lowest[k] = floor[k * WINDOW : (k + 1) * WINDOW].min()  # and floors only rise
    for begin in range(0, n, GROUP):
        end = min(begin + GROUP, n)
        for i in range(begin, end):
            row, image = d[i - begin], start + i
            widen(s[i], offset[i], row)
            first, second = _two_highest(bits[i - begin], peaks)
            _enter(bits[i - begin], image, peaks, lowest, words, floor, front, heap)
            top, runner_up = row[first], row[second]
            prediction[image], rival[image], top_similarity[image], margin[image] = first, second, top, top - runner_up
            spread[image] = _subtract(row, top)
            top_probability[image] = np.float32(1) / _exponentials(row, power, q[i - begin])
        group = slice(start + begin, start + end)
        _add(d[: end - begin], q, spread[group], top_probability[group], part)
        if end % ROWS == 0 or end == n:
            for k in range(len(sums)):
                sums[k][:] += part[k]
            part[:] = 0


@compiled()
@no_type_check
def _two_highest(bits, peaks):
    """Classes of the highest and the second highest similarity of an image, ties to the lowest."""
    top = runner_up = LEAST
    k_top = k_runner_up = 0
    for k in range(len(peaks)):
        peaks[k] = peak = _highest(bits[k * WINDOW : (k + 1) * WINDOW])
        if peak > top:
            runner_up, k_runner_up = top, k_top
            top, k_top = peak, k
        elif peak > runner_up:
            runner_up, k_runner_up = peak, k
    first = begin = k_top * WINDOW
    while ordered(bits[first]) != top:
        first += 1
    same_window = max(_highest(bits[begin:first]), _highest(bits[first + 1 : begin + WINDOW]))
    if same_window > runner_up or (same_window == runner_up and k_top < k_runner_up):
        runner_up, k_runner_up = same_window, k_top
    second = k_runner_up * WINDOW
    while second == first or ordered(bits[second]) != runner_up:
        second += 1
    return first, second


@compiled()
@no_type_check
def _highest(bits):
    highest = LEAST
    for j in range(len(bits)):
        highest = max(highest, ordered(bits[j]))
    return highest


@compiled()
@no_type_check
def _enter(bits, image, peaks, lowest, words, floor, front, heap):
    """Put an image among the most similar images of every class where it beats the least similar one."""
    marks = words.view(np.int8)
    for k in range(len(peaks)):
        if peaks[k] <= lowest[k]:
            continue
        begin = k * WINDOW
        own, floors = bits[begin : begin + WINDOW], floor[begin : begin + WINDOW]
        for j in range(len(own)):
            marks[j] = ordered(own[j]) > floors[j]
        for word in range((len(own) + 7) // 8):
            if words[word]:  # one of eight classes
                for j in range(8 * word, min(8 * word + 8, len(own))):
                    if marks[j]:
                        key = (np.int64(ordered(own[j])) << 32) - image
                        floors[j] = (_replace_lowest(front, heap, begin + j, key) + image) >> 32


@compiled()
@no_type_check
def _replace_lowest(front, heap, row, key):
    """Put a key in the place of the lowest of a row, the first of `front`; returns the new lowest.

    A short sorted row is faster than a heap, since all of it moves without a branch; a long one is not.
    """
    if heap is not None and key > heap[row, 0]:  # compiled apart for none
        key = _replace_root(heap, row, key)
    own = front[row]
    for i in range(len(own) - 1):
        own[i] = max(own[i], min(own[i + 1], key))
    return own[0]


@compiled()
@no_type_check
def _replace_root(heap, row, key):
    """Put a key in the place of the lowest of a heap; returns that one."""
    root, i, child = heap[row, 0], 0, 1
    while child < heap.shape[1]:
        lowest, where = heap[row, child], child
        for k in range(child + 1, child + CHILDREN):
            where = k if heap[row, k] < lowest else where
            lowest = min(lowest, heap[row, k])
        if key < lowest:
            break
        heap[row, i] = lowest
        i, child = where, CHILDREN * where + 1
    heap[row, i] = key
    return root


@compiled(fastmath=FAST)
@no_type_check
def _subtract(row, top):
    """Leaves the distance to the highest similarity; returns the standard deviation."""
    total = square = np.float32(0)
    for j in range(len(row)):
        behind = row[j] - top
        total += behind
        square += behind * behind
        row[j] = behind
    mean = total / len(row)
    return np.sqrt(max(square / len(row) - mean * mean, np.float32(0)))


@compiled(fastmath=FAST)
@no_type_check
def _exponentials(behind, power, out):
    """Probabilities over that of the predicted class, and their sum."""
    for j in range(len(behind)):
        out[j] = exp2(behind[j] * power)
    total = np.float32(0)
    for j in range(len(behind)):
        total += out[j]
    return total


@compiled(fastmath=FAST)
@no_type_check
def _add(d, q, spread, top_probability, sums):
    """Sums over images, two at a time. q is over the probability of the predicted class, whose share comes later."""
    for i in range(0, len(d), 2):
        k = min(i + 1, len(d) - 1)
        behind, other_behind, ratio, other_ratio = d[i], d[k], q[i], q[k]
        top, other_top = top_probability[i], top_probability[k] * np.float32(k > i)
        scaled, other_scaled = top / max(spread[i], TINY), other_top / max(spread[k], TINY)
        for j in range(len(behind)):
            own, other = ratio[j] * top, other_ratio[j] * other_top
            weighted, other_weighted = ratio[j] * behind[j], other_ratio[j] * other_behind[j]
            sums[0, j] += own + other
            sums[1, j] += weighted * top + other_weighted * other_top
            sums[2, j] += weighted * scaled + other_weighted * other_scaled
            sums[3, j] += own * (own - top) + other * (other - other_top)
