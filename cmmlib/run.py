"""A study opened: its embeddings and class names at hand, and the folder that its results go to.

`open_run` is the first call of every chapter. It finds data, model and prompts, takes the embeddings from the cache or
computes them, and names the run. After it, everything is read off tensors.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.answers import answers_digest
from cmmlib.blazon.model import EARLY_TAG, TAG
from cmmlib.blazon.model import NAME as BLAZON_MINI
from cmmlib.cache import whole_file, write_text
from cmmlib.datasets import EmbeddingFile, ImageSet, study_data
from cmmlib.enrich import default_n_described
from cmmlib.errors import InputError
from cmmlib.metrics import default_worst_k
from cmmlib.prompts import PromptBank, load_templates
from cmmlib.study import Study

if TYPE_CHECKING:
    from cmmlib.backbones import Backbone

SCHEMA_VERSION = 1
PACKAGES = (
    "torch",
    "open_clip_torch",
    "numpy",
    "pandas",
    "scipy",
    "seaborn",
    "matplotlib",
    "papermill",
    "jupyter-book",
)


@dataclass(frozen=True)
class Run:
    """An opened study.

    Attributes:
        images: unit-norm image embeddings, [N, D].
        labels: class indices, [N], or None. Only evaluations may take them.
        classnames: C names. Everything is keyed by class index, never by name.
        base: the base prompt's text embeddings, [C, D]; head 0 of an embeddings file.
        heads: text embeddings of the prompt pool, [P, C, D].
        prompts: the pool's templates, or the heads' names.
        base_prompt: the base template, or the name of head 0.
        pictures: the data set's images, to look at, where there are images.
        backbone: the model, where there is one: what encodes further texts.
        disambiguated: the names again, of which those that several classes share have a second term; else None.
        facts: what the manifest says of data and model.
    """

    study: Study
    id: str
    folder: Path
    images: Float[Tensor, "N D"]
    labels: Int[Tensor, "N"] | None
    classnames: list[str]
    base: Float[Tensor, "C D"]
    heads: Float[Tensor, "P C D"]
    prompts: list[str]
    base_prompt: str
    logit_scale: float
    pictures: ImageSet | None
    backbone: Backbone | None
    disambiguated: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        return len(self.classnames)

    @property
    def worst_k(self) -> int:
        return self.study.worst_k or default_worst_k(self.n_classes)

    def names(self, classes: Int[Tensor, "n"]) -> list[str]:
        """Names of classes by index; an index below zero, "no class", gives an empty name."""
        return ["" if c < 0 else self.classnames[c] for c in classes.tolist()]

    @property
    def blind(self) -> Run:
        """The same run without its labels: what label-free steps are given."""
        return replace(self, labels=None)

    @property
    def n_described(self) -> int:
        return self.study.n_described or default_n_described(self.n_classes)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "T D"]:
        """Unit-norm embeddings of texts, through the cache.

        Raises:
            InputError: an embeddings study has no text tower.
        """
        from cmmlib.embed import embed_texts

        if self.backbone is None:
            raise InputError("an embeddings: study has no text tower: it weighs the heads that it brought")
        return embed_texts(self.backbone, texts, batch_size=self.study.batch_size)

    @property
    def conditions(self) -> dict[str, bool]:
        """What a chapter's cell asks for with a tag `if-NAME` or `unless-NAME`, and a page with `<!-- if-NAME -->`."""
        return {
            "labels": self.labels is not None,
            "images": self.pictures is not None,
            "tower": self.backbone is not None,
            "blazon": is_blazon(self.study.dataset),
            "pool": len(self.prompts) > 1,
            "disambiguated": self.labels is not None and self.disambiguated not in (None, self.classnames),
            "others": bool(self.study.other_runs) or other_weights(self.study) is not None,
        }

    def record(self, **sections: Any) -> None:
        """Put sections into results.json. NaN becomes null; what other chapters wrote stays."""
        path = self.folder / "results.json"
        known = json.loads(path.read_text()) if path.exists() else {"schema_version": SCHEMA_VERSION}
        write_text(path, json.dumps(_plain({**known, **sections}), indent=1, allow_nan=False) + "\n")

    def record_table(self, name: str, table: pd.DataFrame, key: str) -> None:
        """Put columns into a CSV of the run folder, beside the columns that other chapters wrote."""
        path = self.folder / name
        if path.exists():
            known = pd.read_csv(path, dtype=str, keep_default_na=False).set_index(key)  # text, to go back as it came
            new = table.set_index(key)
            known.index = known.index.astype(new.index.dtype)
            table = known.reindex(new.index).assign(**new).reset_index()
        with whole_file(path) as temporary:
            table.to_csv(temporary, index=False)

    def write_manifest(self, chapters: dict[str, Any]) -> None:
        """What was run, with which versions and from what: manifest.json."""
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "study": self.study.public(),
            **self.facts,
            "conditions": self.conditions,
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "platform": platform.machine() + " " + platform.system(),
            "git_commit": _git_commit(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "chapters": chapters,
        }
        write_text(self.folder / "manifest.json", json.dumps(_plain(manifest), indent=1, allow_nan=False) + "\n")

    def read_manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        return json.loads(path.read_text()) if path.exists() else {}


def open_run(study: Study) -> Run:
    """Find data, model and prompts, embed what the cache lacks, and name the run.

    Raises:
        InputError: whatever is wrong with what the study names, in one line.
    """
    for folder in study.other_runs:
        read_run(folder)  # before anything is computed
    data = study_data(study)
    if study.worst_k and study.worst_k > len(data.classnames):
        raise InputError(f"worst_k: {study.worst_k} is more than the {len(data.classnames)} classes of the data set")
    if study.n_described and study.n_described > len(data.classnames):
        raise InputError(f"n_described: {study.n_described} is more than the {len(data.classnames)} classes")
    if isinstance(data, EmbeddingFile):
        return _open_embeddings(study, data)
    return _open_images(study, data)


def _open_embeddings(study: Study, data: EmbeddingFile) -> Run:
    facts = {
        "data": _data_facts(data.name, data.digest, len(data.images), data.stored_as),
        "model": {"backbone": data.backbone, "pretrained": data.pretrained, "logit_scale": data.logit_scale},
        "assumed": data.assumed,
    }
    run_id = study.run_id(data.name, {"data": data.digest, "classnames": data.classnames})
    return Run(
        study=study,
        id=run_id,
        folder=Path(study.out) / run_id,
        images=data.images,
        labels=data.labels,
        classnames=data.classnames,
        base=data.heads[0],
        heads=data.heads,
        prompts=data.prompts,
        base_prompt=data.prompts[0],
        logit_scale=data.logit_scale,
        pictures=None,
        backbone=None,
        facts=facts,
    )


def is_blazon(dataset: str) -> bool:
    """Whether a data set is of the embedded world."""
    return dataset.partition(":")[0] == "blazon"


def template_pool(study: Study, data: ImageSet) -> tuple[str, list[str]]:
    """Name and templates of the pool that the study names, or of the one that fits its data set: its own, if any."""
    if study.templates is None and data.templates:
        return f"{data.name}-{len(data.templates)}", data.templates
    name = study.templates or ("blazon-24" if is_blazon(study.dataset) else "openai-7")
    return Path(name).name, load_templates(name)


def other_weights(study: Study) -> str | None:
    """Tag of the embedded world's other weights, to compare a study of its model with; None for any other study."""
    if not is_blazon(study.dataset) or study.backbone != BLAZON_MINI:
        return None
    return {TAG: EARLY_TAG, EARLY_TAG: TAG}.get(study.pretrained or TAG)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """manifest.json and results.json of a finished run.

    Raises:
        InputError: the folder is no run, or its files cannot be read.
    """
    read = []
    for name in ("manifest.json", "results.json"):
        try:
            read.append(dict(json.loads((folder / name).read_text("utf-8"))))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{folder} is no finished run: it lacks a readable {name}; run `cmm run` first") from None
    return read[0], read[1]


def _open_images(study: Study, data: ImageSet) -> Run:
    from cmmlib.backbones import load_backbone  # open_clip takes seconds to import; embeddings files do without
    from cmmlib.embed import embed_images

    if not is_blazon(study.dataset) and "backbone" not in study.model_fields_set:  # the default knows shields only
        raise InputError("backbone: name a model for these images, as in --backbone ViT-B-32-quickgelu")
    backbone = load_backbone(study.backbone, study.pretrained, study.device, study.precision)
    pool, templates = template_pool(study, data)
    images = embed_images(
        backbone,
        data,
        batch_size=study.batch_size,
        workers=study.workers,
        storage=study.storage,
        max_broken=study.max_broken,
    )
    images, data, broken = _leave_out_broken(images, data)
    heads = _heads(backbone, data.classnames, [*templates, study.base_template], study.batch_size)
    scale = backbone.logit_scale
    digests = {"data": data.digest, "weights": backbone.digest, "templates": templates, "classnames": data.classnames}
    digests["answers"] = answers_digest(study.transcript)
    run_id = study.run_id(f"{Path(backbone.public_name.split(':')[-1]).name} {data.name}", digests)
    facts = {
        "data": _data_facts(data.name, data.digest, len(images), study.storage, data.split, broken),
        "model": {
            "backbone": backbone.public_name,
            "pretrained": backbone.public_pretrained,
            "digest": backbone.digest,
            "logit_scale": scale,
            "preprocessing": backbone.preprocessing,
        },
        "templates": pool,
        "assumed": [],
    }
    return Run(
        study=study,
        id=run_id,
        folder=Path(study.out) / run_id,
        images=images,
        labels=data.labels,
        classnames=data.classnames,
        base=heads[-1],
        heads=heads[:-1],
        prompts=templates,
        base_prompt=study.base_template,
        logit_scale=scale,
        pictures=data,
        backbone=backbone,
        disambiguated=data.disambiguated,
        facts=facts,
    )


def _data_facts(
    name: str, digest: str, n_images: int, stored_as: str, split: str | None = None, broken: Sequence[str] = ()
) -> dict[str, Any]:
    """What the manifest says of the data; broken images by their paths within the set."""
    facts = {"name": name, "split": split, "n_images": n_images, "broken": list(broken)}
    return {**facts, "digest": digest, "stored_as": stored_as}


def _leave_out_broken(images: Float[Tensor, "N D"], data: ImageSet) -> tuple[Tensor, ImageSet, list[str]]:
    """Embeddings and data without the images that could not be read, and what these are called."""
    is_broken = images.isnan().any(1)
    if not is_broken.any():
        return images, data, []
    ids = data.image_ids
    broken = [ids[i] for i in is_broken.nonzero()[:, 0].tolist()]
    return images[~is_broken], data.pick((~is_broken).nonzero()[:, 0].tolist()), broken


def _heads(backbone: Backbone, classnames: list[str], templates: list[str], batch_size: int) -> Float[Tensor, "P C D"]:
    from cmmlib.embed import embed_texts

    bank = PromptBank.of_templates(templates, classnames)
    return embed_texts(backbone, bank.texts, batch_size=batch_size).unflatten(0, (len(templates), len(classnames)))


def _plain(value: Any) -> Any:
    """JSON's own types; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _git_commit() -> str | None:
    """Commit of the clone that this package runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
