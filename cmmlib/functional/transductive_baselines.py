"""Published corrections from unlabelled images, and two usual remedies for hubs: what chapter 5 compares with.

Each function cites its source and says where it deviates. All take the images to be classified and the texts of one
prompt, and return a prediction for each image; none takes labels. They hold [N, C] logits. Those that join images with
their nearest ones are in `graph_baselines`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional.prior_matching import class_shares
from cmmlib.functional.zero_shot import similarity_matrix

FITTED = 1 << 24  # images times classes that InMaP is fitted to: of more images, some are drawn
TINY = 1e-12


def mean_centred(image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """Each class's mean similarity over the images subtracted: a usual remedy for hubs (Suzuki et al. 2013)."""
    s = similarity_matrix(image_features, text_features)
    return (s - s.mean(0)).argmax(1)


def z_scored(image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """Centred, and divided by each class's standard deviation over the images, so that no class has the longer tail."""
    s = similarity_matrix(image_features, text_features)
    return ((s - s.mean(0)) / s.std(0, correction=0).clamp_min(TINY)).argmax(1)


def label_shift_em(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, rounds: int = 100
) -> Int[Tensor, "N"]:
    """Prior of the images estimated from the predictions themselves (Saerens et al. 2002), from a uniform one.

    pi <- mean_n q[n], q[n, c] proportional to pi_c exp(logit[n, c]). It answers the opposite question to prior
    matching: what it takes for frequent becomes more so. Prediction: argmax of q.
    """
    logits = logit_scale * similarity_matrix(image_features, text_features)
    plain = logits.softmax(1)
    prior = torch.ones(len(text_features), dtype=torch.float64, device=logits.device)
    for _ in range(rounds):
        ratio = prior.to(plain)
        prior = prior * (plain.T @ (plain @ ratio).clamp_min(TINY).reciprocal()).double() / len(plain)
    return (logits + prior.clamp_min(1e-300).log().float()).argmax(1)


def otter(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    prior: Float[Tensor, "C"] | Int[Tensor, "C"] | None = None,
) -> Int[Tensor, "N"]:
    """OTTER (Shin et al. 2024): optimal transport of images to classes whose sizes are the prior's shares.

    Cost: minus the similarity, which has the same optimal plan as the paper's minus log softmax (they differ by a
    constant an image). An image goes to the class that receives most of it. Solved exactly with POT (Flamary et al.
    2021).

    Raises:
        InputError: POT is not installed; a prior that is not one positive number a class.
    """
    try:
        import ot
    except ImportError:
        raise InputError("otter needs POT: pip install 'cmmlib[book]'") from None
    n, n_classes = len(image_features), len(text_features)
    target = np.full(n_classes, 1 / n_classes) if prior is None else class_shares(prior, n_classes).numpy()
    cost = -similarity_matrix(image_features, text_features).double().numpy()
    plan = ot.emd(np.full(n, 1 / n), target / target.sum(), cost, numItermax=10_000_000)
    return torch.from_numpy(np.asarray(plan).argmax(1))


def frolic(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, rounds: int = 11
) -> Int[Tensor, "N"]:
    """The bias correction of Frolic (Zhu et al. 2024, arXiv 2410.19294): the pre-training prior from predictions alone.

    Column k of P is the mean probability of every class over the images predicted as k. The prior beta solves
    P beta = beta: power iteration from a uniform one, until it moves by less than 0.001. Its logarithm is subtracted
    from the logits, 11 times, each time with P of those images whose two highest logits are more than 1 / C apart: as
    the authors' code does (zhuhsingyuu/Frolic, d276403). Unlike prior matching it does not ask for any class
    frequencies. Deviations: the logits are those of one prompt, without the paper's Gaussians around several prompts;
    and without InMaP, which that code adds to both, so that the row shows the bias correction and nothing else.
    """
    logits = logit_scale * similarity_matrix(image_features, text_features)
    for _ in range(rounds):
        top = logits.topk(2, 1).values
        logits = logits - (_believed_prior(logits[top[:, 0] - top[:, 1] > 1 / logits.shape[1]]) + TINY).log()
    return logits.argmax(1)


def _believed_prior(logits: Float[Tensor, "M C"]) -> Float[Tensor, "C"]:
    """Power iteration on the mean probabilities of the images of each predicted class."""
    n_classes = logits.shape[1]
    predicted, mean = logits.argmax(1), logits.new_zeros(n_classes, n_classes)
    mean.index_add_(0, predicted, logits.softmax(1))
    mean = mean.T / predicted.bincount(minlength=n_classes).clamp_min(1)  # a column a predicted class
    prior = logits.new_full((n_classes,), 1 / n_classes)
    for _ in range(100):
        moved = mean @ prior
        moved = moved / moved.sum().clamp_min(TINY)
        if float((moved - prior).abs().sum()) < 1e-3:
            break
        prior = moved
    return prior


def inmap(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    rounds: int = 200,
    alpha: float = 0.6,
) -> Int[Tensor, "N"]:
    """InMaP (Qian et al. 2023): class vectors fitted to the images, towards pseudo labels that Sinkhorn balanced.

    Pseudo labels: 20 rounds of Sinkhorn on softmax(logits); those above `alpha` become hard. The vectors start at the
    texts and follow the gradient of the cross-entropy at a temperature four times the model's, step 10, halved whenever
    the gradient grows, unit norm after each step. Deviation: 200 steps in place of 2,000, which change the results of
    CLIP ViT-B/32 on DTD and pets by less than a point; temperatures relative to the model's own (the paper: 0.01
    and 0.04, for CLIP); and the vectors of a large set (`FITTED`) are fitted to a part of its images, drawn at random.
    """
    vectors, tau = text_features.float(), 4 / logit_scale
    x = _drawn(image_features, inmap_images(len(image_features), len(vectors))).float()
    labels = _hardened(_sinkhorn((logit_scale * similarity_matrix(x, text_features)).softmax(1)), alpha)
    target, step, before = labels.T @ x, 10.0, float("inf")
    for _ in range(rounds):
        gradient = ((x @ vectors.T) / tau).softmax(1).T @ x - target
        size = float(gradient.norm())
        step, before = step / 2 if size > before else step, size
        vectors = torch.nn.functional.normalize(vectors - step / (len(x) * tau) * gradient, dim=1)
    return similarity_matrix(image_features, vectors).argmax(1)


def inmap_images(n_images: int, n_classes: int) -> int:
    """How many of the images InMaP's class vectors are fitted to: all, or `FITTED` over the number of classes."""
    return min(n_images, max(1, FITTED // n_classes))


def _drawn(image_features: Float[Tensor, "N D"], n: int) -> Float[Tensor, "n D"]:
    """n of the images at random, in their order."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(image_features), generator=random, device="cpu")[:n]
    return image_features[drawn.sort().values.to(image_features.device)]


def _sinkhorn(q: Float[Tensor, "N C"], rounds: int = 20) -> Float[Tensor, "N C"]:
    """Columns scaled to equal mass, then rows to one, in turn."""
    for _ in range(rounds):
        q = q / q.sum(0).clamp_min(1e-38) / q.shape[1]
        q = q / q.sum(1, keepdim=True).clamp_min(1e-38)
    return q


def _hardened(q: Float[Tensor, "N C"], alpha: float) -> Float[Tensor, "N C"]:
    top, index = q.max(1, keepdim=True)
    return torch.where(top > alpha, torch.zeros_like(q).scatter_(1, index, 1.0), q)
