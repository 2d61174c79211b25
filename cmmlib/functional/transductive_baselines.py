"""Published corrections from unlabelled images, and two usual remedies for hubs: what chapter 5 compares with.

Each function cites its source and says where it deviates. All take the images to be classified and the texts of one
prompt, and return a prediction for each image; none takes labels. They hold [N, C] logits (ZLaP and TransCLIP also
neighbours of images).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional.zero_shot import similarities

BLOCK = 1024  # images at a time in the search for nearest images
FITTED = 1 << 24  # images times classes that InMaP is fitted to: of more images, some are drawn
CLASSES = 128  # at a time in ZLaP: their scores stay in a cache
TINY = 1e-12

Nearest = tuple[Int[Tensor, "N _"], Float[Tensor, "N _"]]  # images and their similarities


def mean_centred(image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """Each class's mean similarity over the images subtracted: a usual remedy for hubs (Suzuki et al. 2013)."""
    s = _similarity(image_features, text_features)
    return (s - s.mean(0)).argmax(1)


def z_scored(image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"]) -> Int[Tensor, "N"]:
    """Centred, and divided by each class's standard deviation over the images, so that no class has the longer tail."""
    s = _similarity(image_features, text_features)
    return ((s - s.mean(0)) / s.std(0, correction=0).clamp_min(TINY)).argmax(1)


def label_shift_em(
    image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "C D"], logit_scale: float, rounds: int = 100
) -> Int[Tensor, "N"]:
    """Prior of the images estimated from the predictions themselves (Saerens et al. 2002), from a uniform one.

    pi <- mean_n q[n], q[n, c] proportional to pi_c exp(logit[n, c]). It answers the opposite question to prior
    matching: what it takes for frequent becomes more so. Prediction: argmax of q.
    """
    logits = logit_scale * _similarity(image_features, text_features)
    plain = logits.softmax(1)
    prior = torch.ones(len(text_features), dtype=torch.float64)
    for _ in range(rounds):
        ratio = prior.to(plain)
        prior = prior * (plain.T @ (plain @ ratio).clamp_min(TINY).reciprocal()).double() / len(plain)
    return (logits + prior.clamp_min(1e-300).log().float()).argmax(1)


def otter(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    prior: Float[Tensor, "C"] | None = None,
) -> Int[Tensor, "N"]:
    """OTTER (Shin et al. 2024): optimal transport of images to classes whose sizes are the prior's shares.

    Cost: minus the similarity, which has the same optimal plan as the paper's minus log softmax (they differ by a
    constant an image). An image goes to the class that receives most of it. Solved exactly with POT (Flamary et al.
    2021).

    Raises:
        InputError: POT is not installed.
    """
    try:
        import ot
    except ImportError:
        raise InputError("otter needs POT: pip install 'cmmlib[book]'") from None
    n, n_classes = len(image_features), len(text_features)
    target = np.full(n_classes, 1 / n_classes) if prior is None else prior.double().numpy()
    cost = -_similarity(image_features, text_features).double().numpy()
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
    logits = logit_scale * _similarity(image_features, text_features)
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
    prior = torch.full((n_classes,), 1 / n_classes)
    for _ in range(100):
        moved = mean @ prior
        moved = moved / moved.sum().clamp_min(TINY)
        if float((moved - prior).abs().sum()) < 1e-3:
            break
        prior = moved
    return prior


def zlap(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    k: int = 5,
    gamma: float = 5.0,
    alpha: float = 0.3,
    rounds: int = 20,
    *,
    nearest: Nearest | None = None,
) -> Int[Tensor, "N"]:
    """ZLaP (Stojnić et al. 2024): labels propagate from texts along a graph of nearest images and texts.

    Each image is joined with its k nearest images (itself counts, as in the authors' code) and its k nearest texts;
    edges weigh the similarity, to the power gamma for texts, none below 0; the graph is made symmetric and normalised
    by degrees. Scores solve (1 - alpha W) F = Y. Deviation: by the series sum_r (alpha W)^r Y, whose rest after
    20 terms is of the order of alpha^20, in place of conjugate gradients. Transductive form, texts as the classifier.

    Args:
        nearest: `nearest_images` of k images or more, where they were found already.
    """
    n, n_classes = len(image_features), len(text_features)
    near, value = _first(nearest or nearest_images(image_features, k), k)
    text = _similarity(image_features, text_features).topk(min(k, n_classes), 1)
    column = np.concatenate([near.numpy() + n_classes, text.indices.numpy()], 1)
    weight = np.concatenate([value.clamp_min(0).numpy(), text.values.clamp_min(0).pow(gamma).numpy()], 1)
    row = np.repeat(np.arange(n) + n_classes, column.shape[1])
    size = n + n_classes
    graph = sparse.csr_array((weight.ravel().astype(np.float64), (row, column.ravel())), shape=(size, size))
    walk = alpha * _normalised(graph + graph.T)
    best, winner = np.full(n, -np.inf), np.zeros(n, dtype=np.int64)
    for start in range(0, n_classes, CLASSES):  # classes spread independently
        seeds = scores = np.eye(size, min(CLASSES, n_classes - start), -start)
        for _ in range(rounds):
            scores = seeds + walk @ scores
        of_images = scores[n_classes:]
        higher = of_images.max(1) > best
        best, winner = np.where(higher, of_images.max(1), best), np.where(higher, start + of_images.argmax(1), winner)
    return torch.from_numpy(winner)


def _normalised(graph: sparse.csr_array) -> sparse.csr_array:
    """D^-1/2 (W - diagonal) D^-1/2."""
    bare = graph - sparse.diags_array(graph.diagonal())
    degree = np.asarray(bare.sum(1)).ravel()
    root = sparse.diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    return sparse.csr_array(root @ bare @ root)


def transclip(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    logit_scale: float,
    rounds: int = 10,
    *,
    nearest: Nearest | None = None,
) -> Int[Tensor, "N"]:
    """TransCLIP (Zanella et al. 2024), zero-shot: Gaussians of the images, a Laplacian, and the text's predictions.

    z[n] is proportional to q[n] exp(log N(x_n; mu, sigma) / 50 + sum of its neighbours' z / 6), five times a round;
    then mu_c is the direction of the mean of x weighted by z, sigma one diagonal for all classes. 3 nearest images,
    mu begins at the 8 images of highest probability, sigma at 1 / D: the authors' values. Deviation: the temperature is
    the model's own where the paper has 0.01, which is CLIP's.

    Args:
        nearest: `nearest_images` of four or more, the image itself among them, where they were found already.
    """
    x = image_features.float()
    q = (logit_scale * _similarity(image_features, text_features)).softmax(1)
    near, value = _first(nearest or nearest_images(image_features, 4), 4)
    graph = _both_ways(near[:, 1:], value[:, 1:] / 6)
    log_q = q.clamp_min(1e-38).log()
    top = q.topk(min(8, len(q)), dim=0)
    kept = torch.zeros_like(q).scatter_(0, top.indices, top.values)
    centre = x.mean(0)
    spread = x - centre  # of numbers that are not near each other float32 takes differences
    mu, sigma, z = _directions(kept, kept.T @ spread, centre), torch.full((x.shape[1],), 1 / x.shape[1]), q
    for r in range(rounds + 1):
        alone = log_q + _log_gaussian(x, mu, sigma) / 50
        for _ in range(5):
            z = (graph @ z).add_(alone).softmax(1)
        if r < rounds:
            total = z.T @ spread  # [C, D]
            mu = _directions(z, total, centre)
            sigma = _shared_variance(spread, (mu - centre).double(), z, total)
    return z.argmax(1)


def _directions(
    weight: Float[Tensor, "N C"], total: Float[Tensor, "C D"], centre: Float[Tensor, "D"]
) -> Float[Tensor, "C D"]:
    """Directions of the classes' weighted means; `total` is weight^T (x - centre)."""
    mass = weight.sum(0)[:, None]
    mean = torch.where(mass > 0, total / mass.clamp_min(1e-38) + centre, 0.0)
    return torch.nn.functional.normalize(mean, dim=1)


def _shared_variance(
    x: Float[Tensor, "N D"], mu: Float[Tensor, "C D"], z: Float[Tensor, "N C"], total: Float[Tensor, "C D"]
) -> Float[Tensor, "D"]:
    """Mean over images of sum_c z (x - mu_c)^2, multiplied out; `total` is z^T x."""
    cross = (total.double() * mu).sum(0) / len(x)
    share = z.mean(0, dtype=torch.float64)
    return (x.square().mean(0, dtype=torch.float64) - 2 * cross + share @ mu.square()).clamp_min(TINY).float()


def _log_gaussian(x: Float[Tensor, "N D"], mu: Float[Tensor, "C D"], sigma: Float[Tensor, "D"]) -> Float[Tensor, "N C"]:
    """-1/2 sum_d (x - mu)^2 / sigma, without the constant."""
    precision = 1 / sigma
    return x @ (mu * precision).T - (x.square() @ precision)[:, None] / 2 - mu.square() @ precision / 2


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
    labels = _hardened(_sinkhorn((logit_scale * _similarity(x, text_features)).softmax(1)), alpha)
    target, step, before = labels.T @ x, 10.0, float("inf")
    for _ in range(rounds):
        gradient = ((x @ vectors.T) / tau).softmax(1).T @ x - target
        size = float(gradient.norm())
        step, before = step / 2 if size > before else step, size
        vectors = torch.nn.functional.normalize(vectors - step / (len(x) * tau) * gradient, dim=1)
    return _similarity(image_features, vectors).argmax(1)


def inmap_images(n_images: int, n_classes: int) -> int:
    """How many of the images InMaP's class vectors are fitted to: all, or `FITTED` over the number of classes."""
    return min(n_images, max(1, FITTED // n_classes))


def _drawn(image_features: Float[Tensor, "N D"], n: int) -> Float[Tensor, "n D"]:
    """n of the images at random, in their order."""
    drawn = torch.randperm(len(image_features), generator=torch.Generator().manual_seed(0))[:n]
    return image_features[drawn.sort().values]


def _sinkhorn(q: Float[Tensor, "N C"], rounds: int = 20) -> Float[Tensor, "N C"]:
    """Columns scaled to equal mass, then rows to one, in turn."""
    for _ in range(rounds):
        q = q / q.sum(0).clamp_min(1e-38) / q.shape[1]
        q = q / q.sum(1, keepdim=True).clamp_min(1e-38)
    return q


def _hardened(q: Float[Tensor, "N C"], alpha: float) -> Float[Tensor, "N C"]:
    top, index = q.max(1, keepdim=True)
    return torch.where(top > alpha, torch.zeros_like(q).scatter_(1, index, 1.0), q)


def _similarity(image_features: Tensor, text_features: Tensor) -> Float[Tensor, "N C"]:
    return torch.cat(list(similarities(image_features, text_features)))


def nearest_images(image_features: Float[Tensor, "N D"], k: int) -> Nearest:
    """Of every image the k most similar ones, itself first, and their similarities; all where there are fewer."""
    x, k = image_features.float(), min(k, len(image_features))
    nearest = []
    for start in range(0, len(x), BLOCK):
        s = x[start : start + BLOCK] @ x.T
        own = torch.arange(len(s))
        s[own, own + start] = torch.inf  # rounding, or a copy, must not come before the image itself
        nearest.append(s.topk(k, 1))
    value = torch.cat([f.values for f in nearest])
    return torch.cat([f.indices for f in nearest]), value.where(value.isfinite(), 1.0)


def _first(nearest: Nearest, k: int) -> Nearest:
    """The first k of each, or all where there are no more images."""
    index, value = nearest
    if index.shape[1] < min(k, len(index)):
        raise InputError(f"nearest: {index.shape[1]} images each, and {k} are needed")
    return index[:, :k], value[:, :k]


def _both_ways(near: Int[Tensor, "N k"], value: Float[Tensor, "N k"]) -> Tensor:
    """The graph of nearest images and the same with its edges turned, added: a sparse matrix, [N, N]."""
    n, k = near.shape
    edges = torch.stack([torch.arange(n).repeat_interleave(k), near.flatten()])
    index, twice = torch.cat([edges, edges.flip(0)], 1), value.flatten().repeat(2)
    return torch.sparse_coo_tensor(index, twice, (n, n), check_invariants=False).coalesce()
