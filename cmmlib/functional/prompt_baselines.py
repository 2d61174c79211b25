"""Published ways to combine prompts, on the same embeddings: what the weighted ensemble is compared with.

Each function cites its source and says where it deviates. None of them takes labels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._blocks import BLOCK_ROWS, block_rows
from cmmlib.functional.candidates import Candidates
from cmmlib.functional.checks import cancelling_classes
from cmmlib.functional.equal_texts import first_with_equal_texts
from cmmlib.functional.similarity import SimilarityPass, similarity_pass
from cmmlib.functional.zero_shot import predict, top_two

BLOCK = 256  # images at a time, since AutoCLIP holds [B, P, C]
CARPRT_TEMPERATURE = 1.0  # of the weights, in logits: the default of the authors' code
CANDIDATE_BYTES = 64 << 20  # one [B, T] float32 block


def uniform_mean(text_features: Float[Tensor, "P C D"]) -> Float[Tensor, "C D"]:
    """Mean of the unit vectors of all templates, unit norm (Radford et al. 2021, "prompt ensembling").

    Raises:
        InputError: the prompts of a class cancel each other: their mean has no direction.
    """
    if cancelled := cancelling_classes(text_features):
        raise InputError(f"the mean of the prompts of class {cancelled[0]} is zero: they cancel, leave one out")
    return torch.nn.functional.normalize(text_features.float().mean(0), dim=-1)


def zpe(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "P C D"], logit_scale: float
) -> Float[Tensor, "P"]:
    """Weights of zero-shot prompt ensembling (Allingham et al. 2023, "A simple zero-shot prompt weighting technique").

    A template's score is the mean over images of the highest logit, after each class's mean logit is subtracted;
    weights are the softmax of the scores. Deviation: the paper subtracts the mean of the class's expected logits over
    the test images and over pre-training images; the latter are not at hand, so the test images stand for both.
    """
    centre = image_features.mean(0, dtype=torch.float64).float()  # less it, every class's mean logit is 0
    totals = torch.zeros(len(text_features), dtype=torch.float64, device=image_features.device)
    for block in image_features.split(BLOCK_ROWS):
        centred = block.float() - centre
        for prompt, classifier in enumerate(text_features):
            totals[prompt] += (centred @ classifier.float().T).amax(1).sum(dtype=torch.float64)
    return (logit_scale * totals / len(image_features)).softmax(0).float()


def autoclip(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "P C D"],
    logit_scale: float,
    entropy: float = 0.85,
) -> Int[Tensor, "N"]:
    """Predictions of AutoCLIP (Metzen et al. 2023), which weighs the templates anew for every image.

    The weights are a softmax of step times the gradient of the log-sum-exp of the image's class logits; the step is
    found by bisection so that their entropy is `entropy` times that of uniform weights, as the paper does. There is no
    single classifier, so predictions come out. Deviation: the gradient is taken at uniform weights with the model's own
    temperature.
    """
    if len(text_features) == 1:
        return predict(image_features, text_features[0])
    first = first_with_equal_texts(text_features)
    target = entropy * torch.log(image_features.new_tensor(len(text_features), dtype=torch.float32))
    predictions = []
    row_bytes, on_gpu = 4 * text_features.shape[0] * text_features.shape[1], image_features.device.type != "cpu"
    rows = block_rows(row_bytes, 0, image_features.device) if on_gpu else BLOCK
    for block in image_features.split(rows):
        similarity = torch.einsum("nd,pcd->npc", block.float(), text_features.float())
        mean = (logit_scale * similarity.mean(1)).softmax(-1)  # [B, C]
        gradient = torch.einsum("npc,nc->np", similarity, mean)
        weights = _with_entropy(gradient, target)
        predictions.append(torch.einsum("np,npc->nc", weights, similarity).argmax(1))
    return first[torch.cat(predictions)]


def _with_entropy(gradient: Float[Tensor, "B P"], target: Tensor) -> Float[Tensor, "B P"]:
    """Softmax weights of each row, as sharp as makes their entropy the target."""
    centred = gradient - gradient.amax(1, keepdim=True)
    scale = centred.abs().amax(1, keepdim=True).clamp_min(1e-12)
    low, high = torch.zeros_like(scale), torch.full_like(scale, 1e4)
    for _ in range(40):
        middle = (low + high) / 2
        weights = (middle * centred / scale).softmax(1)
        flat = torch.special.entr(weights).sum(1, keepdim=True) > target
        low, high = torch.where(flat, middle, low), torch.where(flat, high, middle)
    return ((low + high) / 2 * centred / scale).softmax(1)


def carprt(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "P C D"],
    logit_scale: float,
    temperature: float = CARPRT_TEMPERATURE,
    *,
    passed: SimilarityPass | None = None,
) -> Float[Tensor, "P C"]:
    """Weights of CARPRT (ICLR 2026; code: tmlr-group/CARPRT, 17d5709): for every class its own weights of the prompts.

    The score of prompt p for class c is the mean of the highest logit over the images whose highest logit under p is
    that of c, 0 if there are none; the weights of a class are the softmax of its scores over prompts. The classifier of
    a class is the weighted sum of its texts. The authors take the logits of CLIP, 100 times the cosine, and divide them
    by 1, the default of their code. Deviation: none in the weights. Where the sum is scaled to unit norm, as
    `combine_candidates` and chapter 4 do, that is one: the authors leave it as long as it is.

    Args:
        temperature: of the softmax, in logits, positive.
        passed: the pass over these images and texts, where it was made already.

    Returns:
        Weights in [0, 1], float32; each column sums to 1.

    Raises:
        InputError: a temperature that is not positive.
    """
    _check_temperature(temperature)
    passed = passed or similarity_pass(image_features, text_features, logit_scale)
    scores = torch.stack(
        [
            _mean_by_class(logit_scale * top, winner, passed.n_classes)
            for top, winner in zip(passed.top_similarity, passed.prediction, strict=True)
        ]
    )
    return (scores / temperature).softmax(0).float()


def _mean_by_class(value: Float[Tensor, "N"], winner: Int[Tensor, "N"], n_classes: int) -> Float[Tensor, "C"]:
    """Mean over the images that each class wins, 0 for a class that wins none; float64."""
    total = value.new_zeros(n_classes, dtype=torch.float64).index_add_(0, winner.long(), value.double())
    return total / winner.long().bincount(minlength=n_classes).clamp_min(1)


def carprt_of_candidates(
    image_features: Float[Tensor, "N D"],
    candidates: Candidates,
    others: Float[Tensor, "C D"],
    logit_scale: float,
    temperature: float = CARPRT_TEMPERATURE,
) -> Float[Tensor, "T"]:
    """Weights of CARPRT, for classes with unequal numbers of texts: templates, and some classes' descriptions.

    Score and weights as in `carprt`. Deviation: a description belongs to no prompt that all classes share, so every
    candidate is judged in the classifier `others`, in place of its own class's text: its score is the mean of its logit
    over the images on which it is ahead of every other class there.

    Returns:
        Weights in [0, 1], float64, which sum to 1 in every class.

    Raises:
        InputError: a temperature that is not positive.
    """
    _check_temperature(temperature)
    total, count = torch.zeros(2, len(candidates.classes), dtype=torch.float64, device=image_features.device)
    for x in image_features.split(block_rows(4 * len(candidates.classes), CANDIDATE_BYTES, image_features.device)):
        winner, _, top, second = top_two(x.float() @ others.float().T)
        similarity = x.float() @ candidates.vectors.float().T  # [B, T]
        rival = torch.where(winner[:, None] == candidates.classes, second[:, None], top[:, None])
        wins = similarity > rival
        total += logit_scale * torch.where(wins, similarity, 0.0).sum(0, dtype=torch.float64)
        count += wins.sum(0)
    weights, scores = torch.zeros_like(total), total / count.clamp_min(1)
    for rows in candidates.rows_by_class():
        weights[rows] = (scores[rows] / temperature).softmax(0)
    return weights


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise InputError(f"carprt: temperature must be positive, got {temperature}")
