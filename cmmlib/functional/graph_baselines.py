"""Published corrections from unlabelled images that join each image with its nearest ones: ZLaP and TransCLIP.

As those of `transductive_baselines`: they take the images to be classified and the texts of one prompt, and return a
prediction for each image; none takes labels. They hold [N, C] scores and the neighbours of every image.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from cmmlib.errors import InputError
from cmmlib.functional._arguments import require_one_or_more
from cmmlib.functional.transductive_baselines import TINY
from cmmlib.functional.zero_shot import similarity_matrix

BLOCK = 1024  # images at a time in the search for nearest images
CLASSES = 128  # at a time in ZLaP: their scores stay in a cache

Nearest = tuple[Int[Tensor, "N _"], Float[Tensor, "N _"]]  # images and their similarities


def zlap(
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "C D"],
    *,
    k: int = 5,
    gamma: float = 5.0,
    alpha: float = 0.3,
    rounds: int = 20,
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
    require_one_or_more(k, "zlap: k")
    n, n_classes = len(image_features), len(text_features)
    near, value = _first(nearest or nearest_images(image_features, k), k)
    text = similarity_matrix(image_features, text_features).topk(min(k, n_classes), 1)
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
    *,
    rounds: int = 10,
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
    q = (logit_scale * similarity_matrix(image_features, text_features)).softmax(1)
    near, value = _first(nearest or nearest_images(image_features, 4), 4)
    graph = _both_ways(near[:, 1:], value[:, 1:] / 6)
    log_q = q.clamp_min(1e-38).log()
    top = q.topk(min(8, len(q)), dim=0)
    kept = torch.zeros_like(q).scatter_(0, top.indices, top.values)
    centre = x.mean(0)
    spread = x - centre  # of numbers that are not near each other float32 takes differences
    mu, sigma, z = _directions(kept, kept.T @ spread, centre), torch.full_like(x[0], 1 / x.shape[1]), q
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


def nearest_images(image_features: Float[Tensor, "N D"], k: int) -> Nearest:
    """Of every image the k most similar ones, itself first, and their similarities; all where there are fewer.

    Raises:
        InputError: k below 1.
    """
    require_one_or_more(k, "nearest_images: k")
    x, k = image_features.float(), min(k, len(image_features))
    nearest = []
    for start in range(0, len(x), BLOCK):
        s = x[start : start + BLOCK] @ x.T
        own = torch.arange(len(s), device=s.device)
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
    edges = torch.stack([torch.arange(n, device=near.device).repeat_interleave(k), near.flatten()])
    index, twice = torch.cat([edges, edges.flip(0)], 1), value.flatten().repeat(2)
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        return torch.sparse_coo_tensor(index, twice, (n, n), device=near.device).coalesce()
