"""A small embeddings file that no model made: `python tests/synthetic_embeddings.py OUT.npz`.

It stands in for real embeddings where there are none, so names, prompts and classes all say "synthetic". Like
CLIP's, the images share a direction that the texts lack, and cosines are small. Classes 1, 3 and 5 lie close to the
class before them and their texts miss them in part, so some classes are confused and a few are bad.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

CLASSES, IMAGES, PROMPTS, WIDTH = 12, 600, 2, 64
MISS = {1: 0.55, 3: 0.5, 5: 0.4}  # class -> share of its text that is noise


def synthetic_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays in the `embeddings:` layout: 600 images, 12 classes, 2 prompts, width 64."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.normal(size=(CLASSES, WIDTH)))  # [C, D]
    texts = centres.copy()
    for near, miss in MISS.items():
        centres[near] = _unit(centres[near - 1] + centres[near])
        texts[near] = _unit((1 - miss) * centres[near] + miss * _unit(rng.normal(size=WIDTH)))
    labels = np.arange(IMAGES) % CLASSES
    shared = _unit(rng.normal(size=WIDTH))
    images = _unit(2.5 * shared + centres[labels] + 0.15 * rng.normal(size=(IMAGES, WIDTH)))  # [N, D]
    blur = np.array([0.09, 0.06])[:, None, None]  # the first prompt is the worse one
    heads = _unit(texts + blur * rng.normal(size=(PROMPTS, CLASSES, WIDTH)))  # [P, C, D]
    return {
        "image_features": images.astype(np.float16),
        "labels": labels.astype(np.int64),
        "text_features": heads.astype(np.float32),
        "classnames": np.array([f"synthetic class {c:02d}" for c in range(CLASSES)]),
        "prompts": np.array([f"synthetic prompt {p}" for p in range(PROMPTS)]),
        "logit_scale": np.float32(50),
        "backbone": np.array("synthetic"),
        "pretrained": np.array("none"),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/synthetic_embeddings.py OUT.npz")
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    np.savez(sys.argv[1], **synthetic_arrays())
