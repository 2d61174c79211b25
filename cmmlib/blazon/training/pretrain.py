"""Pretraining of blazon-mini: render, caption, tokenise, and train with open_clip's own model class and loss.

Everything that a step sees is a function of the seed and the step number: images are rendered from their own seeds, the
order is one permutation an epoch, and the learning rate follows the number of samples, not the clock. So a killed run
goes on where it was, and anyone can rerun the first steps and compare them with the record.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from cmmlib.blazon.classes import evaluation_images, load_classes
from cmmlib.blazon.drawing.render import Scene, render_many
from cmmlib.blazon.heraldry import blazon, sample_arms
from cmmlib.blazon.language.captions import FAMILIARITY, caption
from cmmlib.blazon.language.frequencies import frequencies
from cmmlib.blazon.language.wordlists import SECOND_SENSE
from cmmlib.blazon.training import model as mini
from cmmlib.errors import InputError, one_line
from cmmlib.functional.accuracy import class_accuracy
from cmmlib.functional.worst import worst_at_k
from cmmlib.storage.cache import save_tensors, whole_file, write_text
from cmmlib.storage.text_files import parse_json, read_json
from cmmlib.texts.templates import BASE_TEMPLATE, fill

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


# ---------------------------------------------------------------- data


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
    with _going_on(folder):
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


# ---------------------------------------------------------------- training


class Trainer:
    """Model, optimiser and schedule of a recipe; `step` takes one batch."""

    def __init__(self, recipe: Recipe):
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.model: Any = open_clip.create_model(mini.register())
        self.model.to(memory_format=torch.channels_last)
        self.loss = open_clip.ClipLoss()
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.98))

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to nearly zero."""
        warm = min(1.0, (step + 1) / self.recipe.warmup_steps)
        return self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.recipe.steps)) + 1e-5

    def step(self, number: int, images: np.ndarray, tokens: np.ndarray) -> float:
        """One step on a batch; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        with torch.autocast("cpu", torch.bfloat16):
            x = self.model.encode_image(pixels(images))
            t = self.model.encode_text(torch.from_numpy(tokens.astype(np.int64)))
        x, t = (torch.nn.functional.normalize(v.float(), dim=-1) for v in (x, t))
        loss = self.loss(x, t, self.model.logit_scale.exp())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return float(loss.detach())

    def state(self, step: int) -> dict[str, Any]:
        """Everything that a killed training needs to go on exactly."""
        return {"step": step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> int:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["step"]


def pretrain(
    recipe: Recipe,
    folder: Path,
    report: Callable[[str], None] = print,
    probe: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    checkpoint_seconds: float = 120,
    probe_every: int = 250,
) -> Path:
    """Train blazon-mini and write weights, configuration and record; a killed call goes on from its last checkpoint.

    Args:
        folder: receives images.npy and tokens.npy (the training data), checkpoint.pt, log.jsonl, and at the end
            open_clip_model.safetensors (float16), open_clip_config.json, frequencies.csv and record.json.
        probe: measured every `probe_every` steps and logged.

    Raises:
        InputError: the folder belongs to another recipe, or holds files of these names that no training wrote.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(recipe, folder)
    images, tokens = prepare(recipe, folder, report)
    trainer, log = Trainer(recipe), folder / "log.jsonl"
    first = _resume(trainer, folder, log)
    start, saved = time.perf_counter(), time.perf_counter()
    for step, index, which in batch_indices(recipe, first):
        rows = index.sort().values.numpy()
        batch = images[rows], tokens[rows, which]
        entry: dict[str, Any] = {"step": step}
        if step == 0:
            entry["digest"] = batch_digest(*batch)
        entry["loss"] = round(trainer.step(step, *batch), 5)
        entry["samples_per_second"] = round((step + 1 - first) * recipe.batch_size / (time.perf_counter() - start))
        if probe and (step % probe_every == probe_every - 1 or step == recipe.steps - 1):
            trainer.model.eval()
            entry |= probe(trainer.model)
            trainer.model.train()
            report(f"step {step + 1:,} of {recipe.steps:,}: {entry}")
        with open(log, "a") as file:
            file.write(json.dumps(entry) + "\n")
        if time.perf_counter() - saved > checkpoint_seconds:
            _checkpoint(trainer, step + 1, folder)
            saved = time.perf_counter()
    write_frequencies(recipe, folder)
    return _finish(trainer, recipe, folder, log)


def zero_shot_probe(per_class: int = 5, seed: int = 999) -> Callable[[torch.nn.Module], dict[str, float]]:
    """A probe that measures zero-shot accuracy on the shipped classes, from their names in the base template.

    Its images come from a seed of their own, so no evaluation looks at them.
    """
    classes = load_classes()
    images, labels = evaluation_images(classes, seed, per_class)
    tokens = mini.tokenizer()([fill(BASE_TEMPLATE, blazon(arms)) for arms in classes])

    @torch.inference_mode()
    def probe(model: Any) -> dict[str, float]:
        x = torch.cat([model.encode_image(pixels(part)) for part in np.array_split(images, max(1, len(images) // 256))])
        prediction = (x @ model.encode_text(tokens, normalize=True).T).argmax(1)
        found = class_accuracy(prediction, torch.from_numpy(labels), len(classes))
        return {"overall": round(found.overall, 4), "worst_10": round(worst_at_k(found.value, 10) or 0.0, 4)}

    return probe


def write_frequencies(recipe: Recipe, folder: Path) -> None:
    """frequencies.csv: how often the names and wordings occurred in the pairs of the whole run."""
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    seen = ((i, which) for _, index, which in batch_indices(recipe) for i in index.tolist())
    arms = cache(lambda index: arms_of(recipe, index))
    table = frequencies(((arms(i), tokens[i, which]) for i, which in seen), mini.tokenizer())
    with whole_file(folder / "frequencies.csv") as temporary:
        table.to_csv(temporary, index=False)


FILES = ("images.npy", "tokens.npy", "rendered.json", "checkpoint.pt", "log.jsonl", "frequencies.csv", "record.json")
FILES += ("open_clip_model.safetensors", "open_clip_config.json")


def _claim(recipe: Recipe, folder: Path) -> None:
    """Write recipe.json, which says whose the other files are. Without it they are somebody else's, and stay."""
    path = folder / "recipe.json"
    taken = [name for name in FILES if os.path.lexists(folder / name)]
    if path.exists():
        if _recipe_of(path) != recipe:
            raise InputError(f"{folder.name} holds a run of another recipe: choose another folder with --out")
    elif taken:
        raise InputError(f"--out: {folder} holds {taken[0]}, which no training wrote there: choose another folder")
    write_text(path, json.dumps(asdict(recipe), indent=1))


def _recipe_of(path: Path) -> Recipe | None:
    """The recipe in a file, or None where it holds something else."""
    try:
        return Recipe(**read_json(path, path.name))
    except (ValueError, TypeError):
        return None


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Whatever a file of an earlier call leads to, where it is damaged: one line."""
    try:
        yield
    except OSError:  # says itself which file it is about
        raise
    except Exception as error:  # json, numpy and torch raise a dozen kinds
        raise InputError(
            f"--out: what an earlier training left in {folder} is damaged ({one_line(error)}): choose another folder"
        ) from None


def _checkpoint(trainer: Trainer, step: int, folder: Path) -> None:
    with whole_file(folder / "checkpoint.pt") as temporary:
        torch.save(trainer.state(step), temporary)


def _resume(trainer: Trainer, folder: Path, log: Path) -> int:
    """First step to take. Log lines past the checkpoint are dropped: those steps are taken again."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        log.unlink(missing_ok=True)
        return 0
    with _going_on(folder):
        step = int(trainer.load(torch.load(path, weights_only=True)))
        lines = log.read_text("utf-8").splitlines()[:step]
    write_text(log, "".join(line + "\n" for line in lines))
    return step


def _finish(trainer: Trainer, recipe: Recipe, folder: Path, log: Path) -> Path:
    with _going_on(folder):
        entries = [parse_json(line) for line in log.read_text("utf-8").splitlines()]
    weights = {k: v.half() if v.is_floating_point() else v for k, v in trainer.model.state_dict().items()}
    path = folder / "open_clip_model.safetensors"
    save_tensors(path, weights)
    config = {"model_cfg": mini.configuration(), "preprocess_cfg": mini.PREPROCESS}
    write_text(folder / "open_clip_config.json", json.dumps(config, indent=1))
    record = {
        "recipe": asdict(recipe),
        "steps": recipe.steps,
        "first_batch": entries[0]["digest"],
        "loss_first_steps": [entry["loss"] for entry in entries[: math.ceil(0.03 * recipe.steps)]],
        "loss_every_20": [entry["loss"] for entry in entries[::20]],
        "probes": [entry for entry in entries if "overall" in entry],
        "logit_scale": float(trainer.model.logit_scale.detach().exp()),
        "weights": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size},
        "versions": {"torch": torch.__version__, "open_clip_torch": open_clip.__version__, "numpy": np.__version__},
        "processor": _processor(),
    }
    write_text(folder / "record.json", json.dumps(record, indent=1))
    return path


def _processor() -> str:
    """Capability that decides rounding: losses of the first steps agree closely within one processor family."""
    return f"{os.uname().machine} {torch.backends.cpu.get_cpu_capability()}"
