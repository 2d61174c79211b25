"""The one hot pass: embeddings -> predictions, margins, rivals and the sums that every CMM assignment needs.

Images stream through in blocks; one block of similarities, [B, C], is alive at a time, never [P, N, C]. What comes
out is small, [P, N] and [P, C], and `cmm` turns it into every form of the Class-wise Matching Margin. No label enters
this module.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from math import e, log2
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import block_rows, most_rows
from cmmlib.functional._kernels.processor import has_triton, warn_of_bf16
from cmmlib.functional._kernels.similarity_torch import TorchSteps, rank_key, value_and_image
from cmmlib.functional._kernels.threads import use_one_thread
from cmmlib.functional.checks import check_embeddings
from cmmlib.functional.equal_texts import copies_by_prompt

BLOCK_BYTES = 1 << 20  # one [B, C] block of similarities: about a second-level cache of today's CPUs
UNMERGED = "merge: make both passes with the same n_images, the number of images of the whole set"
PER_IMAGE = ("prediction", "rival", "top_similarity", "margin", "top_probability", "spread")
PER_CLASS = ("soft_mass", "soft_margin", "soft_scaled_margin", "soft_probability_margin", "retrieval_margin")


@dataclass(frozen=True)
class SimilarityPass:
    """What one pass over the images leaves behind, for P prompts, N images and C classes.

    Similarities and margins are cosines (not multiplied by the logit scale); probabilities are the softmax of
    similarity / tau over classes. Sums are over images: within a block of images in float32, and of blocks in float64.
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
    # Of a part of the images, what `merge` needs: the images most similar to each class, and the size of the whole set.
    best_similarity: Float[Tensor, "P C m"] | None = None
    best_image: Int[Tensor, "P C m"] | None = None
    n_images: int | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return self.soft_mass.shape[1]

    def merge(self, other: SimilarityPass) -> SimilarityPass:
        """The pass over the images of both, those of the other behind these.

        Both were made with the same `n_images`, prompts and classes. It does not matter in which groups parts are
        merged, as long as their order is kept (sums up to the rounding of float64). One pass over all images has other
        blocks, so it can differ by the rounding of float32.

        Raises:
            InputError: a pass that was made without `n_images`, passes that do not belong together, too many images.
        """
        (value, image), (others, places) = self._best(), other._best()
        if self.n_images is None or self.n_images != other.n_images:
            raise InputError(UNMERGED)
        if (n := self.prediction.shape[1] + other.prediction.shape[1]) > self.n_images:
            raise InputError(f"merge: the passes are of {n:,} images, more than their n_images, {self.n_images:,}")
        if self.soft_mass.shape != other.soft_mass.shape:
            shapes = f"{list(self.soft_mass.shape)} and {list(other.soft_mass.shape)}"
            raise InputError(f"merge: the passes are of {shapes} prompts and classes")
        fields = {key: torch.cat([getattr(self, key), getattr(other, key)], 1) for key in PER_IMAGE}
        sums = {key: getattr(self, key) + getattr(other, key) for key in PER_CLASS}
        value, image = torch.cat([value, others], 2), torch.cat([image, places + self.prediction.shape[1]], 2)
        m = min(value.shape[2], _n_retrieved(self.n_images, self.n_classes))
        value, image = value_and_image(rank_key(value, image).topk(m, 2).values)
        merged = SimilarityPass(**fields, **sums, n_retrieved=m, n_images=self.n_images)
        for p, margins in enumerate(merged.retrieval_margin.zero_()):
            _add_retrieved(
                {**{key: x[p] for key, x in fields.items()}, "retrieval_margin": margins}, value[p], image[p]
            )
        return replace(merged, best_similarity=value, best_image=image)

    def _best(self) -> tuple[Float[Tensor, "P C m"], Int[Tensor, "P C m"]]:
        if self.best_similarity is None or self.best_image is None:
            raise InputError(UNMERGED)
        return self.best_similarity, self.best_image


def similarity_pass(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "*P C D"],
    logit_scale: float,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    block: int | None = None,
    n_images: int | None = None,
) -> SimilarityPass:
    """Similarities of every image with every class under every prompt, in one streamed pass, summed up.

    Args:
        image_features: unit-norm image embeddings, any float dtype; computed in float32.
        text_features: unit-norm text embeddings, [P, C, D], or [C, D] of one prompt; C >= 2.
        logit_scale: 1 / tau, positive (100 for OpenAI's CLIP).
        precision: "bf16" multiplies in bfloat16 (class texts centred first): faster where the processor has it, slower
            elsewhere, with a RuntimeWarning. Everything after the product stays float32. Similarities err by less than
            1e-3 (measured on CLIP ViT-B/32), so predictions can differ where the margin is below twice that.
        block: images at a time; the default keeps a block of similarities at 1 MiB or less.
        n_images: where these images are a part of a set, the number of images of the whole: the result can be merged
            with those of the other parts (`SimilarityPass.merge`), which takes 8 bytes an image and prompt more.

    Raises:
        InputError: shapes that disagree, fewer than two classes, no image, NaN, Inf or zero-length rows.
    """
    text_features = text_features[None] if text_features.ndim == 2 else text_features
    _check_inputs(image_features, text_features, logit_scale, precision, block)
    if precision == "bf16":
        warn_of_bf16(image_features.device)
    (n, _), (n_prompts, n_classes, _) = image_features.shape, text_features.shape
    number = torch.bfloat16 if precision == "bf16" else torch.float32
    block = min(n, block or block_rows(n_classes * number.itemsize, BLOCK_BYTES, image_features.device))
    if n_images is not None and n_images < n:
        raise InputError(f"n_images must be the number of images of the whole set, at least {n}, got {n_images}")
    wanted = _n_retrieved(n_images or n, n_classes)
    out = _empty_pass(n_prompts, n, n_classes, min(n, wanted), image_features.device)
    if n_images is not None:
        out = _with_best_images(out, n_images)
    workers = min(n_prompts, torch.get_num_threads()) if image_features.device.type == "cpu" else 1
    shares = [range(first, n_prompts, workers) for first in range(workers)]
    arguments = (image_features, text_features, logit_scale, number, block, out)
    if workers == 1:
        _pass_of_prompts(shares[0], *arguments)
        return out
    # a thread a prompt: between the products lie many small steps, which threads cannot share
    with ThreadPoolExecutor(workers, initializer=use_one_thread) as pool:
        list(pool.map(partial(_pass_in_thread, torch.is_inference_mode_enabled()), shares, repeat(arguments)))
    return out


def _pass_in_thread(inference: bool, prompts: range, arguments: tuple) -> None:
    """A thread does not inherit inference mode, and without it cannot write to tensors that were made in it."""
    with torch.inference_mode(inference):
        _pass_of_prompts(prompts, *arguments)


@torch.no_grad()
def _pass_of_prompts(
    prompts: range,
    image_features: Tensor,
    text_features: Tensor,
    scale: float,
    number: torch.dtype,
    block: int,
    out: SimilarityPass,
) -> None:
    """The pass for some of the prompts; fills their rows of `out`."""
    fields = {p: {key: getattr(out, key)[p] for key in PER_IMAGE + PER_CLASS} for p in prompts}
    steps = {p: _steps(image_features.device)(fields[p], out.n_retrieved, scale * log2(e)) for p in prompts}
    copies = copies_by_prompt(text_features, prompts)
    shape = block, text_features.shape[1]  # of the only [B, C] memory
    similarities = torch.empty(shape, dtype=number, device=image_features.device)
    # bfloat16 keeps 8 bits: centring the texts makes the products small, and with them their rounding
    means = {p: text_features[p].float().mean(0) * (number == torch.bfloat16) for p in prompts}
    rows = most_rows(image_features.device)
    for begin in range(0, len(image_features), rows):  # prompts take turns, while these images lie near
        x = image_features[begin : begin + rows].float()
        parts, offsets = x.to(number).split(block), torch.stack(list(means.values())) @ x.T
        blocks = [(part, similarities[: len(part)]) for part in parts]
        for p, offset in zip(prompts, offsets, strict=True):
            texts, start = (text_features[p].float() - means[p]).to(number).T, begin
            for (part, s), part_offset in zip(blocks, offset.split(block), strict=True):
                torch.mm(part, texts, out=s)
                if p in copies:
                    s[:, copies[p][0]] = s[:, copies[p][1]]
                steps[p].add(s, part_offset, start)
                start += len(part)
            if start == len(image_features):  # a GPU does this while the next product is sent to it
                _finish(p, fields[p], steps[p], scale, out)


def _finish(p: int, fields: dict[str, Tensor], steps: Steps, scale: float, out: SimilarityPass) -> None:
    """What can only be done after the last block of a prompt."""
    value, image = steps.retrieved()
    if not steps.is_complete:
        _add_predicted(fields, scale)
        _add_retrieved(fields, value, image)
    if out.best_similarity is not None and out.best_image is not None:
        out.best_similarity[p], out.best_image[p] = value, image
    fields["spread"].masked_fill_(fields["spread"] == 0, 1)


class Steps(Protocol):
    """What is done with the blocks of one prompt.

    Made from the fields of `SimilarityPass`, which it fills; from m, the number of images to retrieve for each class;
    and from the factor of a similarity before it is the power of two: `exp2` takes a third of the time of `exp`.

    Attributes:
        is_complete: whether `add` adds the share of the predicted classes too, and `retrieved` the sum of its margins.
    """

    is_complete: bool

    def add(self, s: Float[Tensor, "B C"], offset: Float[Tensor, "B"], start: int) -> None:
        """Fill in the block's images, and add their share to the sums.

        The sums take the margin of every class to be its distance to the highest; the predicted classes have another,
        and their share comes on top.

        Args:
            s: similarities less an offset, float32 or bfloat16.
            offset: one of every image.
            start: place of the block's first image.
        """
        ...

    def retrieved(self) -> tuple[Float[Tensor, "C m"], Int[Tensor, "C m"]]:
        """Similarities and places of the m images most similar to each class, of equals the first, in any order."""
        ...


def _steps(device: torch.device) -> Callable[[dict[str, Tensor], int, float], Steps]:
    if has_triton(device):
        from cmmlib.functional._kernels.similarity_triton import TritonSteps

        return TritonSteps
    if device.type != "cpu":
        return TorchSteps
    from cmmlib.functional._kernels.similarity_numba import CompiledSteps  # numba takes a moment to import

    return CompiledSteps


def _add_predicted(fields: dict[str, Tensor], scale: float) -> None:
    """The share of the predicted classes in the sums: their margin is ahead of the second, not behind the first."""
    q, margin = fields["top_probability"].double(), fields["margin"].double()
    shares = {
        "soft_margin": q * margin,
        "soft_scaled_margin": q * margin / fields["spread"].clamp_min(1e-30),
        "soft_probability_margin": q * q * (1 - torch.exp(-scale * margin)),
    }
    for key, share in shares.items():
        fields[key].index_add_(0, fields["prediction"], share)


def _add_retrieved(fields: dict[str, Tensor], value: Float[Tensor, "C m"], image: Int[Tensor, "C m"]) -> None:
    margin = value - fields["top_similarity"][image]
    predicted = fields["prediction"][image] == torch.arange(len(value), device=value.device)[:, None]
    fields["retrieval_margin"] += torch.where(predicted, fields["margin"][image], margin).sum(1, dtype=torch.float64)


def _check_inputs(
    image_features: Tensor, text_features: Tensor, logit_scale: float, precision: str, block: int | None
) -> None:
    shapes = f"image_features {list(image_features.shape)} and text_features {list(text_features.shape)}"
    if image_features.ndim != 2 or text_features.ndim != 3 or image_features.shape[1] != text_features.shape[2]:
        raise InputError(f"{shapes} do not fit: expected [N, D] and [C, D] or [P, C, D]")
    if not image_features.shape[0] or not text_features.shape[0] or text_features.shape[1] < 2:
        raise InputError(f"need at least one image, one prompt and two classes, got {shapes}")
    if not logit_scale > 0 or logit_scale == float("inf"):
        raise InputError(f"logit_scale must be positive and finite, got {logit_scale}")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision must be fp32 or bf16, got {precision!r}")
    if block is not None and block < 1:
        raise InputError(f"block must be at least 1 image, got {block}")
    check_embeddings(image_features, "image_features")
    check_embeddings(text_features, "text_features")


def _empty_pass(n_prompts: int, n: int, n_classes: int, m: int, device: torch.device) -> SimilarityPass:
    kinds = {key: torch.int32 if key in ("prediction", "rival") else torch.float32 for key in PER_IMAGE}
    fields: dict[str, Any] = {
        key: torch.empty(n_prompts, n, dtype=dtype, device=device) for key, dtype in kinds.items()
    }
    sums: dict[str, Any] = {
        key: torch.zeros(n_prompts, n_classes, dtype=torch.float64, device=device) for key in PER_CLASS
    }
    return SimilarityPass(**fields, **sums, n_retrieved=m)


def _n_retrieved(n_images: int, n_classes: int) -> int:
    return max(1, round(n_images / n_classes))


def _with_best_images(out: SimilarityPass, n_images: int) -> SimilarityPass:
    shape, device = (*out.soft_mass.shape, out.n_retrieved), out.margin.device
    value, image = (torch.empty(shape, dtype=dtype, device=device) for dtype in (torch.float32, torch.int32))
    return replace(out, best_similarity=value, best_image=image, n_images=n_images)
