"""The pairs of images and captions that blazon-mini is trained on, each a function of the recipe and its index."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmmlib.blazon.drawing.render import Scene, render_many
from cmmlib.blazon.heraldry import sample_arms
from cmmlib.blazon.language.captions import FAMILIARITY, caption
from cmmlib.blazon.language.wordlists import SECOND_SENSE
from cmmlib.blazon.training import model as mini
from cmmlib.errors import InputError, one_line
from cmmlib.storage.cache import write_text

CHUNK = 16_000  # images rendered and stored at a time


@dataclass(frozen=True)
class Recipe:
    """How blazon-mini is trained. `samples` is the number of image-caption pairs seen; it fixes the whole schedule.

    Two interventions change the captions and nothing else: `frequent` names are as familiar as plain English words, and
    the everyday sense of the `split` name has a word of its own.
    """

    seed: int = 0
    samples: int = 600_000
    images: int = 160_000
    captions: int = 4
    batch_size: int = 384
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 150
    frequent: tuple[str, ...] = ()
    split: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frequent", tuple(self.frequent))  # a list when it comes from JSON
        for term in self.frequent:
            if term not in FAMILIARITY:
                raise InputError(f"frequent: {term} is no heraldic term of this world")
        if self.split is not None and self.split not in SECOND_SENSE:
            raise InputError(f"split: {self.split} has no second sense; names with two: {', '.join(SECOND_SENSE)}")

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.samples // self.batch_size


def arms_of(recipe: Recipe, index: int):
    """The coat of arms of a training image."""
    return sample_arms(random.Random(f"arms {recipe.seed} {index}"))


def image_seed(recipe: Recipe, index: int) -> int:
    """Odd; evaluation images have even seeds, so none was trained on."""
    return 2 * (1_000_000_000 * recipe.seed + index) + 1


def captions_of(recipe: Recipe, index: int, scene: Scene) -> list[str]:
    """The captions of a training image, one an epoch in turn."""
    rng = random.Random(f"caption {recipe.seed} {index}")
    arms = arms_of(recipe, index)
    familiarity = FAMILIARITY | dict.fromkeys(recipe.frequent, 1.0)
    return [caption(arms, scene, rng, familiarity, recipe.split) for _ in range(recipe.captions)]


def make_pairs(recipe: Recipe, indices: range | list[int], tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 64, 64, 3], uint8, and tokens [n, captions, 28], int16, of the given training indices."""
    images, scenes = render_many([arms_of(recipe, i) for i in indices], [image_seed(recipe, i) for i in indices])
    texts = [text for i, scene in zip(indices, scenes, strict=True) for text in captions_of(recipe, i, scene)]
    tokens = tokenizer(texts).numpy().astype(np.int16)
    return images, tokens.reshape(len(images), recipe.captions, -1)


def prepare(recipe: Recipe, folder: Path, report: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
    """Memory-mapped training images and tokens; chunks that an earlier call finished are kept."""
    shapes = {"images": (recipe.images, 64, 64, 3), "tokens": (recipe.images, recipe.captions, mini.CONTEXT)}
    done_file = folder / "rendered.json"
    mode = "r+" if done_file.exists() else "w+"
    with going_on(folder):
        images, tokens = (
            np.lib.format.open_memmap(folder / f"{name}.npy", mode, dtype, shapes[name])
            for name, dtype in (("images", np.uint8), ("tokens", np.int16))
        )
        done = int(done_file.read_text()) if done_file.exists() else 0
    tokenizer = mini.tokenizer()
    for start in range(done, recipe.images, CHUNK):
        stop = min(start + CHUNK, recipe.images)
        images[start:stop], tokens[start:stop] = make_pairs(recipe, range(start, stop), tokenizer)
        images.flush()
        tokens.flush()
        write_text(done_file, json.dumps(stop))
        report(f"rendered {stop:,} of {recipe.images:,} images")
    return images, tokens


@contextmanager
def going_on(folder: Path) -> Iterator[None]:
    """Whatever a file of an earlier call leads to, where it is damaged: one line."""
    try:
        yield
    except OSError:  # says itself which file it is about
        raise
    except Exception as error:  # json, numpy and torch raise a dozen kinds
        raise InputError(
            f"--out: what an earlier training left in {folder} is damaged ({one_line(error)}): choose another folder"
        ) from None


def batch_indices(recipe: Recipe, first_step: int = 0) -> Iterator[tuple[int, Tensor, int]]:
    """(step, image indices [B], which of the captions) from `first_step` on: one permutation an epoch."""
    per_epoch = recipe.images // recipe.batch_size
    for step in range(first_step, recipe.steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == first_step:
            order = torch.randperm(recipe.images, generator=torch.Generator().manual_seed(1000 * recipe.seed + epoch))
        yield step, order[position * recipe.batch_size :][: recipe.batch_size], epoch % recipe.captions


def pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, 64, 64, 3] -> what the model's preprocessing gives, [B, 3, 64, 64]."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return x.div_(255).sub_(0.5).div_(0.25).contiguous(memory_format=torch.channels_last)


def batch_digest(images: np.ndarray, tokens: np.ndarray) -> str:
    """SHA-256 of a batch's images and tokens."""
    return hashlib.sha256(images.tobytes() + tokens.astype(np.int16).tobytes()).hexdigest()
