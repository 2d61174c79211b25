"""The one hot pass: embeddings -> predictions, margins, rivals and the sums that every CMM assignment needs.

Images stream through in blocks; one block of similarities, [B, C], is alive at a time, never [P, N, C]. What comes
out is small, [P, N] and [P, C], and `cmmlib.cmm` turns it into every form of the Class-wise Matching Margin. No label
enters this module.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.checks import check_embeddings
from cmmlib.errors import InputError

BLOCK_BYTES = 8 << 20  # one [B, C] float32 block: two such buffers stay in a last-level cache of today's CPUs
MAX_ROWS = 8192  # images in a block, since sums within a block are float32
WINDOW = 64  # classes in a window of the search for the two best: whole vector registers reduce fastest
GROUP_ROWS = 16  # images in a group of the search for each class's most similar images
LOW_BITS = (1 << 32) - 1
PER_IMAGE = ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
PER_CLASS = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin", "retrieval_margin")
Product = Callable[[Tensor, Tensor], None]  # of x [B, D], writes logits [B, C]


@dataclass(frozen=True)
class Matches:
    """What one pass over the images leaves behind, for P prompts, N images and C classes.

    Similarities and margins are cosines (not multiplied by the logit scale); probabilities are the softmax of
    similarity / tau over classes. Sums run over images: a block's in float32, over blocks in float64.
    """

    prediction: Int[Tensor, "P N"]  # class of the highest similarity, ties to the lowest index
    rival: Int[Tensor, "P N"]  # class of the second highest similarity, ties to the lowest index
    top_similarity: Float[Tensor, "P N"]
    margin: Float[Tensor, "P N"]  # highest minus second highest similarity, >= 0
    top_probability: Float[Tensor, "P N"]
    spread: Float[Tensor, "P N"]  # standard deviation of the image's similarities over classes; 1 where it is 0
    soft_mass: Float[Tensor, "P C"]  # sum of q
    soft_margin: Float[Tensor, "P C"]  # sum of q * margin
    soft_scaled_margin: Float[Tensor, "P C"]  # sum of q * margin / spread
    soft_probability_margin: Float[Tensor, "P C"]  # sum of q * (margin between probabilities)
    retrieval_margin: Float[Tensor, "P C"]  # sum of the margin over the m images most similar to the class
    n_retrieved: int  # m = max(1, round(N / C))

    @property
    def n_classes(self) -> int:
        return self.soft_mass.shape[1]


def match(
    images: Float[Tensor, "N D"],
    heads: Float[Tensor, "P C D"],
    logit_scale: float,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    block: int | None = None,
) -> Matches:
    """Match every image with every class under every prompt, in one streamed pass.

    Args:
        images: unit-norm image embeddings, any float dtype; computed in float32.
        heads: unit-norm text embeddings, one head [C, D] a prompt, C >= 2.
        logit_scale: 1 / tau, positive (100 for OpenAI's CLIP).
        precision: "bf16" multiplies in bfloat16 (class texts centred first) and is faster where the processor has it;
            everything after the product stays float32. Similarities err by less than 1e-3 (measured on CLIP ViT-B/32),
            so predictions can differ where the margin is below twice that.
        block: images at a time; the default keeps a block of similarities at 8 MiB or less.

    Raises:
        InputError: shapes that disagree, fewer than two classes, no image, NaN, Inf or zero-length rows.
    """
    _check_inputs(images, heads, logit_scale, precision, block)
    (n, _), (n_prompts, n_classes, _) = images.shape, heads.shape
    block = min(n, block or max(GROUP_ROWS, min(MAX_ROWS, BLOCK_BYTES // (4 * n_classes))))
    m = min(n, max(1, round(n / n_classes)))
    out = _empty_matches(n_prompts, n, n_classes, m, images.device)
    workers = min(n_prompts, torch.get_num_threads()) if images.device.type == "cpu" else 1
    shares = [range(first, n_prompts, workers) for first in range(workers)]
    arguments = (images, heads, logit_scale, precision, block, out)
    if workers == 1:
        _match_prompts(shares[0], *arguments)
        return out
    threads = torch.get_num_threads()
    try:  # a thread a prompt: between the products lie many small steps, which threads cannot share
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(partial(_match_in_thread, torch.is_inference_mode_enabled()), shares, repeat(arguments)))
    finally:
        torch.set_num_threads(threads)
    return out


def _match_in_thread(inference: bool, prompts: range, arguments: tuple) -> None:
    """A thread does not inherit inference mode, and without it cannot write to tensors that were made in it."""
    with torch.inference_mode(inference):
        _match_prompts(prompts, *arguments)


@torch.no_grad()
def _match_prompts(
    prompts: range, images: Tensor, heads: Tensor, scale: float, precision: str, block: int, out: Matches
) -> None:
    """The pass for some of the prompts; fills their rows of `out`."""
    n_classes = heads.shape[1]
    rows = -(-block // GROUP_ROWS) * GROUP_ROWS  # `_Retrieved` reads whole groups
    buffers = torch.empty(2, rows, n_classes, device=images.device)  # the only [B, C] memory
    for p in prompts:
        product = _product(heads[p].float(), scale, precision)
        fields = {key: getattr(out, key)[p] for key in PER_IMAGE + PER_CLASS}
        retrieved = _Retrieved(out.n_retrieved, n_classes, images.device)
        for start in range(0, len(images), block):
            _add_block(fields, retrieved, buffers, product, images[start : start + block].float(), start)
        _finish(fields, retrieved, scale)


def _check_inputs(images: Tensor, heads: Tensor, logit_scale: float, precision: str, block: int | None) -> None:
    shapes = f"images {list(images.shape)} and heads {list(heads.shape)}"
    if images.ndim != 2 or heads.ndim != 3 or images.shape[1] != heads.shape[2]:
        raise InputError(f"{shapes} do not fit: expected [N, D] and [P, C, D]")
    if not images.shape[0] or not heads.shape[0] or heads.shape[1] < 2:
        raise InputError(f"need at least one image, one prompt and two classes, got {shapes}")
    if not logit_scale > 0 or logit_scale == float("inf"):
        raise InputError(f"logit_scale must be positive and finite, got {logit_scale}")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision must be fp32 or bf16, got {precision!r}")
    if block is not None and block < 1:
        raise InputError(f"block must be at least 1 image, got {block}")
    check_embeddings(images, "image_features")
    check_embeddings(heads, "text_features")


def _empty_matches(n_prompts: int, n: int, n_classes: int, m: int, device: torch.device) -> Matches:
    kinds = {key: torch.int32 if key in ("prediction", "rival") else torch.float32 for key in PER_IMAGE}
    fields = {key: torch.empty(n_prompts, n, dtype=dtype, device=device) for key, dtype in kinds.items()}
    sums = {key: torch.zeros(n_prompts, n_classes, dtype=torch.float64, device=device) for key in PER_CLASS}
    return Matches(**fields, **sums, n_retrieved=m)


def _product(head: Float[Tensor, "C D"], scale: float, precision: str) -> Product:
    """A function that writes scale * x @ head.T into its second argument."""
    copies, originals = _copied_classes(head)
    mean = head.mean(0) * scale
    # bfloat16 keeps 8 bits: centring the texts makes the products small, and with them their rounding
    centred = (head * scale - mean).bfloat16() if precision == "bf16" else None

    def product(x: Tensor, logits: Tensor) -> None:
        if centred is not None:
            logits.copy_(torch.mm(x.bfloat16(), centred.T)).add_((x @ mean)[:, None])
        else:
            torch.addmm(logits, x, head.T, beta=0, alpha=scale, out=logits)
        if copies:
            logits[:, copies] = logits[:, originals]

    return product


def _copied_classes(head: Tensor) -> tuple[list[int], list[int]]:
    """Copies and their originals among the texts: a blocked product may give equal texts different last bits."""
    first: dict[bytes, int] = {}
    originals = [first.setdefault(row.tobytes(), c) for c, row in enumerate(head.cpu().numpy())]
    copies = [c for c, original in enumerate(originals) if c != original]
    return copies, [originals[c] for c in copies]


def _add_block(
    fields: dict[str, Tensor], retrieved: _Retrieved, buffers: Tensor, product: Product, x: Tensor, start: int
) -> None:
    """One block of images: their own fields, and their share of the sums. In units of logits until `_finish`."""
    b = len(x)
    d, q = buffers[:, :b]  # [B, C] each
    product(x, d)
    retrieved.update(buffers[0], b, start)
    first, second, top, runner_up = top_two(d)
    d.sub_(top[:, None])
    spread, margin = _spread(d), top - runner_up
    torch.softmax(d, 1, out=q)
    q_top, q_second = (q.gather(1, c[:, None])[:, 0] for c in (first, second))
    d.scatter_(1, first[:, None], margin[:, None]).mul_(q)  # q times the margin of every class
    fields["soft_mass"] += q.sum(0)
    fields["soft_margin"] += d.sum(0)
    fields["soft_scaled_margin"] += d.T @ spread.clamp_min(1e-30).reciprocal()
    # q times the margin of probabilities is q^2 - q q_top, for the predicted class q_top^2 - q_top q_second
    fields["soft_probability_margin"] -= q.T @ q_top
    q.square_().scatter_(1, first[:, None], (q_top * (2 * q_top - q_second))[:, None])
    fields["soft_probability_margin"] += q.sum(0)
    for key, value in zip(PER_IMAGE, (first, second, top, margin, q_top, spread), strict=True):
        fields[key][start : start + b] = value


def _spread(d: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """Standard deviation over classes, exactly zero where all classes are alike."""
    square = torch.linalg.vector_norm(d, dim=1).square_().div_(d.shape[1])
    return square.sub_(d.mean(1).square_()).clamp_min_(0).sqrt_()


def _finish(fields: dict, retrieved: _Retrieved, scale: float) -> None:
    value, image = retrieved.best()  # [C, m]
    margin = value - fields["top_similarity"][image]
    predicted = fields["prediction"][image] == torch.arange(len(value), device=value.device)[:, None]
    fields["retrieval_margin"] += torch.where(predicted, fields["margin"][image], margin).sum(1, dtype=torch.float64)
    for key in ("top_similarity", "margin", "spread", "soft_margin", "retrieval_margin"):
        fields[key].div_(scale)
    fields["spread"].masked_fill_(fields["spread"] == 0, 1)


class _Retrieved:
    """Running m most similar images of every class, exact, with few similarities touched.

    The m most similar images lie in the m groups of images with the highest maxima, so only groups are ranked as
    blocks stream by, and the similarities of those m groups are kept. The images in them are ranked once, at the end.
    """

    def __init__(self, m: int, n_classes: int, device: torch.device) -> None:
        self.rows = GROUP_ROWS if n_classes >= 8 * GROUP_ROWS else 1  # with few classes m groups are most of them
        self.key = torch.full((n_classes, m), -(1 << 63), device=device)  # of the group; at first none: below any key
        self.values = torch.full((n_classes, m, self.rows), -torch.inf, device=device)

    def update(self, logits: Float[Tensor, "rows C"], b: int, start: int) -> None:
        whole = -(-b // self.rows) * self.rows
        if whole > b:
            logits[b:whole] = -torch.inf
        groups = logits[:whole].unflatten(0, (-1, self.rows))  # [G, rows, C]
        first = torch.arange(start, start + whole, self.rows, device=logits.device)
        key = torch.cat([self.key, _rank_key(groups.amax(1).T, first)], 1)  # [C, m + G]
        m = self.key.shape[1]
        column = key.topk(m, 1, sorted=False).indices
        stays = torch.zeros_like(key, dtype=torch.bool).scatter_(1, column, True)[:, :m]
        klass, newcomer = (column >= m).nonzero().unbind(1)
        slot = (~stays).nonzero()[:, 1]  # also ordered by class: as many free slots as newcomers
        column = column[klass, newcomer]
        self.key[klass, slot] = key[klass, column]
        self.values[klass, slot] = groups[column - m, :, klass]

    def best(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        """Similarities and images, ranked a few classes at a time: the groups hold 16 m images a class."""
        parts = [self._best(*part) for part in zip(self.key.split(128), self.values.split(128), strict=True)]
        value, image = zip(*parts, strict=True)
        return torch.cat(value), torch.cat(image)

    def _best(self, key: Int[Tensor, "K m"], values: Float[Tensor, "K m rows"]) -> tuple[Tensor, Tensor]:
        image = (-key & LOW_BITS)[:, :, None] + torch.arange(self.rows, device=key.device)
        value, image = values.flatten(1), image.flatten(1)  # [K, m * rows]
        column = _rank_key(value, image).topk(key.shape[1], 1, sorted=False).indices
        return value.gather(1, column), image.gather(1, column)


def _rank_key(value: Float[Tensor, "C K"], image: Int[Tensor, "... K"]) -> Int[Tensor, "C K"]:
    """An integer that orders by value, then by lowest image. It has no ties, which `topk` would break at random."""
    bits = (value + 0.0).view(torch.int32).long()  # + 0.0: no negative zero
    bits ^= (bits >> 63).bitwise_and_(0x7FFFFFFF)  # the order of negative floats is that of their bits, reversed
    return bits.bitwise_left_shift_(32).sub_(image)


def top_two(
    s: Float[Tensor, "B C"],
) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Classes of the highest and second highest similarity, then these two values; ties to the lowest index.

    Two searches over all classes cost a tenth of the matrix product, maxima of windows of classes a seventh of that.
    Only the best window is searched, with the winner and without: `s` is changed in between and put back.
    """
    s = s.contiguous()
    maxima = _window_maxima(s) if s.shape[1] >= 2 * WINDOW else None
    top, first, window = _search(s, maxima)
    s.scatter_(1, first, -torch.inf)
    if maxima is not None and window is not None:
        maxima.scatter_(1, window, _windows(s, window).amax(1, keepdim=True))
    runner_up, second, _ = _search(s, maxima)
    s.scatter_(1, first, top)  # as it was
    return first[:, 0], second[:, 0], top[:, 0], runner_up[:, 0]


def _window_maxima(s: Float[Tensor, "B C"]) -> Float[Tensor, "B W"]:
    whole = (s.shape[1] - 1) // WINDOW  # then a window of 1 to 64 classes
    maxima = s[:, : whole * WINDOW].unflatten(1, (whole, WINDOW)).amax(2)
    return torch.cat([maxima, s[:, whole * WINDOW :].amax(1, keepdim=True)], 1)


def _windows(s: Float[Tensor, "B C"], window: Int[Tensor, "B 1"]) -> Float[Tensor, "B 64"]:
    """One window of classes from each row. The last ends with the last class, so it may reach into the one before:
    harmless, since that one is preferred where their maxima are equal."""
    b, n_classes = s.shape
    begin = (window[:, 0] * WINDOW).clamp_max_(n_classes - WINDOW)
    return s.view(-1).unfold(0, WINDOW, 1).index_select(0, begin + n_classes * torch.arange(b, device=s.device))


def _search(s: Tensor, maxima: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Highest value and its lowest index, [B, 1] each, and the window it is in."""
    if maxima is None:
        value, index = s.max(1, keepdim=True)
        return value, index, None
    window = maxima.argmax(1, keepdim=True)
    value, offset = _windows(s, window).max(1, keepdim=True)
    return value, offset + (window * WINDOW).clamp_max_(s.shape[1] - WINDOW), window
