"""A study opened: its embeddings and class names at hand, and the folder that its results go to.

`cmmlib.open_run` is the first call of every chapter. After it, everything is read off tensors.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.blazon.training.model import EARLY_TAG, TAG
from cmmlib.blazon.training.model import NAME as BLAZON_MINI
from cmmlib.data.load import ImageSet
from cmmlib.errors import InputError
from cmmlib.estimators.classifier import Classifier, Provenance, plain
from cmmlib.estimators.classifier_file import save_classifier
from cmmlib.estimators.suspects import find_suspects
from cmmlib.functional.prior_matching import Correction
from cmmlib.functional.similarity import SimilarityPass, similarity_pass
from cmmlib.functional.worst import default_worst_k
from cmmlib.study.run_files import (
    MANIFEST,
    RESULTS,
    SCHEMA_VERSION,
    git_commit,
    merge_columns,
    merge_sections,
    versions,
    write_manifest,
)
from cmmlib.study.study import Study
from cmmlib.texts.questions import default_n_described

if TYPE_CHECKING:
    from cmmlib.models.backbones import Backbone

BROWSER_BYTES = 2_000_000  # of a page's embeddings, which travel in base64
BROWSER_PRODUCTS = 6_000_000_000  # multiplications before a page's first result


@dataclass(frozen=True)
class Run:
    """An opened study.

    Attributes:
        image_features: unit-norm image embeddings, [N, D].
        labels: class indices, [N], or None. Only evaluations may take them.
        classnames: C names. Everything is keyed by class index, never by name.
        base_text_features: the base prompt's text embeddings, [C, D]; the first prompt's of an embeddings file.
        text_features: text embeddings of the prompt pool, [P, C, D].
        prompts: the pool's templates, or an embeddings file's prompts.
        base_prompt: the base template, or an embeddings file's first prompt.
        pictures: the data set's images, to look at, where there are images.
        backbone: the model, where there is one: what encodes further texts.
        disambiguated: the names again, of which those that several classes share have a second term; else None.
        facts: what the manifest says of data and model.
    """

    study: Study
    id: str
    folder: Path
    image_features: Float[Tensor, "N D"]
    labels: Int[Tensor, "N"] | None
    classnames: list[str]
    base_text_features: Float[Tensor, "C D"]
    text_features: Float[Tensor, "P C D"]
    prompts: list[str]
    base_prompt: str
    logit_scale: float
    pictures: ImageSet | None
    backbone: Backbone | None
    disambiguated: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return len(self.classnames)

    @property
    def worst_k(self) -> int:
        """Size of the worst set: the study's, or a quarter of the classes, 20 at most."""
        return self.study.worst_k or default_worst_k(self.n_classes)

    def names(self, classes: Int[Tensor, "n"]) -> list[str]:
        """Names of classes by index; an index below zero, "no class", gives an empty name."""
        return ["" if c < 0 else self.classnames[c] for c in classes.tolist()]

    @cached_property
    def blind(self) -> Run:
        """The same run without its labels, and its pictures without theirs: what label-free steps are given."""
        pictures = None if self.pictures is None else replace(self.pictures, labels=None)
        return replace(self, labels=None, pictures=pictures)

    @property
    def n_described(self) -> int:
        """How many suspects are described: the study's number, or a quarter of the classes."""
        return self.study.n_described or default_n_described(self.n_classes)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "T D"]:
        """Unit-norm embeddings of texts, through the cache.

        Raises:
            InputError: an embeddings study has no text tower.
        """
        from cmmlib.models.embed_texts import embed_texts

        if self.backbone is None:
            raise InputError("an embeddings: study has no text tower: it weighs the prompts that it brought")
        return embed_texts(self.backbone, texts, batch_size=self.study.batch_size)

    @property
    def tolerance(self) -> float:
        """How far a similarity may be from the exact one at `analysis_precision`."""
        return 1e-4 if self.study.analysis_precision == "fp32" else 2e-2

    def similarity_pass(self, text_features: Float[Tensor, "*P C D"] | None = None) -> SimilarityPass:
        """The pass over all images with the base prompt's texts, or with others; at `analysis_precision`."""
        texts = self.base_text_features if text_features is None else text_features
        return similarity_pass(self.image_features, texts, self.logit_scale, precision=self.study.analysis_precision)

    @cached_property
    def pool_pass(self) -> SimilarityPass:
        """The pass over all images with every prompt of the pool: made once, without labels."""
        return self.similarity_pass(self.text_features) if self.labels is None else self.blind.pool_pass

    @property
    def conditions(self) -> dict[str, bool]:
        """What a chapter's cell asks for with a tag `if-NAME`, and a page with `<!-- if-NAME -->`."""
        (n_images, width), n_prompts = self.image_features.shape, len(self.prompts)
        browser = fits_browser(n_images, width, n_prompts, self.n_classes)
        return {
            "labels": self.labels is not None,
            "images": self.pictures is not None,
            "tower": self.backbone is not None,
            "blazon": is_blazon(self.study.dataset),
            "pool": len(self.prompts) > 1,
            "disambiguated": self.labels is not None and self.disambiguated not in (None, self.classnames),
            "others": bool(self.study.other_runs) or other_weights(self.study) is not None,
            "browser": self.labels is not None and browser,
        }

    def record(self, **sections: Any) -> None:
        """Put sections into results.json. NaN becomes null; what other chapters wrote stays."""
        merge_sections(self.folder / RESULTS, sections)

    def record_table(self, name: str, table: pd.DataFrame, key: str) -> None:
        """Put columns into a CSV of the run folder, beside the columns that other chapters wrote."""
        merge_columns(self.folder / name, table, key)

    def record_classifier(self, method: str, fitted: Float[Tensor, "C D"] | Correction) -> None:
        """Put a classifier into the run folder, ready for new images: `classifiers/<method>.safetensors`.

        Its suspects are measured on the run's images; no label enters.
        """
        correction = plain(fitted, self.logit_scale) if isinstance(fitted, Tensor) else fitted
        model, data = self.facts.get("model", {}), self.facts.get("data", {})
        made = {
            "backbone": model.get("backbone"),
            "pretrained": model.get("pretrained"),
            "weights": model.get("digest"),
        }
        provenance = Provenance(**made, data=data.get("name"), run=self.id)
        suspects = find_suspects(correction, self.image_features, self.n_described)
        classifier = Classifier(method, correction, suspects, self.classnames, provenance)
        save_classifier(classifier, self.folder / "classifiers" / f"{method}.safetensors")

    def write_manifest(self, chapters: dict[str, Any], files: dict[str, Any] | None = None) -> None:
        """What was run, with which versions and from what: manifest.json.

        Args:
            chapters: each one's stamp and seconds.
            files: what chapters made (`made_files.Made`).
        """
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "study": self.study.public(),
            **self.facts,
            "conditions": self.conditions,
            "versions": {"python": platform.python_version(), **versions()},
            "platform": platform.machine() + " " + platform.system(),
            "git_commit": git_commit(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "chapters": chapters,
            "files": files or {},
        }
        write_manifest(self.folder / MANIFEST, manifest)


def is_blazon(dataset: str) -> bool:
    """Whether a data set is of the embedded world."""
    return dataset.partition(":")[0] == "blazon"


def other_weights(study: Study) -> str | None:
    """Tag of the embedded world's other weights, to compare a study of its model with; None for any other study."""
    if not is_blazon(study.dataset) or study.backbone != BLAZON_MINI:
        return None
    return {TAG: EARLY_TAG, EARLY_TAG: TAG}.get(study.pretrained or TAG)


Step = TypeVar("Step", bound=Callable[..., Any])


def label_free(step: Step) -> Step:
    """Refuse a run that has labels, so that nothing behind the call can see them."""

    @wraps(step)
    def blind(run: Run, *args: Any, **kwargs: Any) -> Any:
        if run.labels is not None:
            raise TypeError(f"{step.__name__} takes no labels: pass run.blind")
        return step(run, *args, **kwargs)

    return cast(Step, blind)


def fits_browser(n_images: int, width: int, n_prompts: int, n_classes: int) -> bool:
    """Whether a page can carry the embeddings in eight bits a number, and weigh several prompts in some seconds."""
    n_texts = n_prompts * n_classes
    small = 4 / 3 * (n_images + n_texts) * width < BROWSER_BYTES and n_images * n_texts * width < BROWSER_PRODUCTS
    return n_prompts > 1 and small
