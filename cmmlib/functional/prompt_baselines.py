"""Published ways to combine prompts, on the same embeddings: what the weighted ensemble is compared with.

Each function cites its source and says where it deviates. None of them takes labels.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.functional.zero_shot import first_with_equal_texts, predict, similarities

BLOCK = 256  # images at a time, since AutoCLIP holds [B, P, C]


def uniform_mean(text_features: Float[Tensor, "P C D"]) -> Float[Tensor, "C D"]:
    """Mean of the unit vectors of all templates, unit norm (Radford et al. 2021, "prompt ensembling")."""
    return torch.nn.functional.normalize(text_features.float().mean(0), dim=-1)


def zpe(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "P C D"], logit_scale: float
) -> Float[Tensor, "P"]:
    """Weights of zero-shot prompt ensembling (Allingham et al. 2023, "A simple zero-shot prompt weighting technique").

    A template's score is the mean over images of the highest logit, after each class's mean logit is subtracted;
    weights are the softmax of the scores. Deviation: the paper subtracts the mean of the class's expected logits over
    the test images and over pre-training images; the latter are not at hand, so the test images stand for both.
    """
    scores = []
    for classifier in text_features:
        similarity = torch.cat(list(similarities(image_features, classifier)))
        scores.append((similarity - similarity.mean(0)).amax(1).mean())
    return (logit_scale * torch.stack(scores)).softmax(0)


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
    target = entropy * torch.log(torch.tensor(float(len(text_features))))
    predictions = []
    for block in image_features.split(BLOCK):
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
    low, high = torch.zeros(len(gradient), 1), torch.full((len(gradient), 1), 1e4)
    for _ in range(40):
        middle = (low + high) / 2
        weights = (middle * centred / scale).softmax(1)
        flat = torch.special.entr(weights).sum(1, keepdim=True) > target
        low, high = torch.where(flat, middle, low), torch.where(flat, high, middle)
    return ((low + high) / 2 * centred / scale).softmax(1)


def waffle_texts(classnames: Sequence[str], n: int = 8, seed: int = 0) -> list[list[str]]:
    """Texts of WaffleCLIP (Roth et al. 2023): the class name with random words, n lists of C texts.

    "a photo of a {name}, which has {word} {word}." The same words go to every class. Deviation: words only, where the
    paper mixes words and random characters; they are drawn from the whole words of CLIP's tokenizer.
    """
    rng = random.Random(f"waffle {seed}")
    pairs = [rng.sample(_words(), 2) for _ in range(n)]
    return [[f"a photo of a {name}, which has {a} {b}." for name in classnames] for a, b in pairs]


@cache
def _words() -> list[str]:
    """Words of four to eight letters that CLIP's tokenizer knows whole, most frequent first."""
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe()) as file:
        merges = file.read().decode("utf-8").split("\n")[1:]
    whole = (merge.replace(" ", "") for merge in merges if merge.endswith("</w>"))
    words = (word.removesuffix("</w>") for word in whole)
    return [word for word in words if 4 <= len(word) <= 8 and word.isascii() and word.isalpha()][:5000]
