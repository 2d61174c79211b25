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
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from cmmlib.blazon.classes import evaluation_images, load_classes
from cmmlib.blazon.heraldry import blazon
from cmmlib.blazon.language.frequencies import frequencies
from cmmlib.blazon.training import model as mini
from cmmlib.blazon.training.pairs import Recipe, arms_of, batch_digest, batch_indices, going_on, pixels, prepare
from cmmlib.errors import InputError
from cmmlib.functional.accuracy import class_accuracy
from cmmlib.functional.worst import worst_at_k
from cmmlib.storage.cache import save_tensors, whole_file, write_text
from cmmlib.storage.text_files import parse_json, read_json
from cmmlib.texts.templates import BASE_TEMPLATE, fill


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


def _checkpoint(trainer: Trainer, step: int, folder: Path) -> None:
    with whole_file(folder / "checkpoint.pt") as temporary:
        torch.save(trainer.state(step), temporary)


def _resume(trainer: Trainer, folder: Path, log: Path) -> int:
    """First step to take. Log lines past the checkpoint are dropped: those steps are taken again."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        log.unlink(missing_ok=True)
        return 0
    with going_on(folder):
        step = int(trainer.load(torch.load(path, weights_only=True)))
        lines = log.read_text("utf-8").splitlines()[:step]
    write_text(log, "".join(line + "\n" for line in lines))
    return step


def _finish(trainer: Trainer, recipe: Recipe, folder: Path, log: Path) -> Path:
    with going_on(folder):
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
