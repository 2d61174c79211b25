"""A study -> a run: find data, model and prompts, and take the embeddings from the cache or compute them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from cmmlib.data.embeddings import EmbeddingFile
from cmmlib.data.images import ImageSet
from cmmlib.data.load import load_dataset, of_labels
from cmmlib.data.subsets import Dataset, draw, only_classes, read_classes
from cmmlib.errors import InputError, is_seen
from cmmlib.functional._kernels.processor import NO_BF16, has_native_bf16
from cmmlib.storage.cache import digest, file_digests
from cmmlib.study.remarks import emptied_classes, guessed_domain, odd_names, odd_scale, odd_texts
from cmmlib.study.run import Run, is_blazon
from cmmlib.study.run_files import require_different_runs
from cmmlib.study.study import FETCH, Study
from cmmlib.texts.templates import PromptBank, load_templates
from cmmlib.texts.transcripts import answers_digest

if TYPE_CHECKING:
    from cmmlib.models.backbones import Backbone


def open_run(study: Study) -> Run:
    """Find data, model and prompts, embed what the cache lacks, and name the run.

    Raises:
        InputError: whatever is wrong with what the study names, in one line.
    """
    require_different_runs(study.other_runs)  # before anything is computed
    check_out(study)
    check_precision(study)
    published_digests(study)
    data = study_data(study)
    run = _open_embeddings(study, data) if isinstance(data, EmbeddingFile) else _open_images(study, data)
    _require_unchanged(run)
    return run


OPENED = "CMM_OPENED"  # environment variable of a chapter's kernel: the run that it belongs to


def opened_as(run: Run) -> str:
    """What `OPENED` says of a run: its study and its id."""
    return f"{digest(run.study.public())} {run.id}"


def _require_unchanged(run: Run) -> None:
    """A chapter reads what its run read.

    Raises:
        InputError: the same study has another id now, so what it reads has changed.
    """
    study, _, run_id = os.environ.get(OPENED, "").partition(" ")
    if study == digest(run.study.public()) and run_id != run.id:
        raise InputError(f"what the study reads changed while it ran ({run_id} is {run.id} now): run it again")


def check_out(study: Study) -> None:
    """A run is not written into the folder of images that it reads: the next would take its figures for images.

    Raises:
        InputError: `out` lies in that folder.
    """
    kind, _, where = study.dataset.partition(":")
    images = Path(where, study.split or "")
    if kind == "folder" and Path(study.out).is_relative_to(images):
        raise InputError(f"out: {study.out} lies in the folder of the images, {images}: give --out elsewhere")


def check_precision(study: Study) -> None:
    """Products in bfloat16 are refused where they would only cost time.

    Raises:
        InputError: the processor has no native bfloat16, and the analysis is asked to use it.
    """
    if study.analysis_precision == "bf16" and not has_native_bf16():
        raise InputError(f"analysis_precision: {NO_BF16}: leave it out")


def published_digests(study: Study) -> dict[str, Any]:
    """What a study's published accuracies are, for its id: digests of the files, or `fetch`, which is one commit.

    Raises:
        InputError: a folder without such files.
    """
    if study.published in (None, FETCH):
        return {"published": FETCH} if study.published else {}
    folder = Path(study.published)
    files = sorted(folder.rglob("*_results.json")) + sorted(folder.rglob("*_search_counts.json"))
    if not files:
        raise InputError(
            f"published: {folder} has no file like imagenet_class_results.json: "
            "give a clone of the repository that chapter 0 names, or fetch"
        )
    return {"published": file_digests(folder, files)}


def _open_embeddings(study: Study, data: EmbeddingFile) -> Run:
    remarks = [*data.remarks, *odd_names(data.classnames)]
    facts = {
        "data": _data_facts(data.name, data.digest, len(data.image_features), data.stored_as, remarks=remarks),
        "model": {"backbone": data.backbone, "pretrained": data.pretrained, "logit_scale": data.logit_scale},
        "assumed": data.assumed,
    }
    run_id = _embeddings_id(study, data)
    return Run(
        study=study,
        id=run_id,
        folder=Path(study.out) / run_id,
        image_features=data.image_features,
        labels=data.labels,
        classnames=data.classnames,
        base_text_features=data.text_features[0],
        text_features=data.text_features,
        prompts=data.prompts,
        base_prompt=data.prompts[0],
        logit_scale=data.logit_scale,
        pictures=None,
        backbone=None,
        facts=facts,
    )


def study_id(study: Study, broken: Sequence[str] = ()) -> str:
    """The id of a study's run, without embedding anything.

    Args:
        broken: what the images that cannot be read are called, as `broken` of a manifest's data.

    Raises:
        InputError: as `open_run`.
    """
    data = study_data(study)
    if isinstance(data, EmbeddingFile):
        return _embeddings_id(study, data)
    left_out = {*broken}
    readable = [i for i, name in enumerate(data.image_ids) if name not in left_out] if broken else []
    templates = template_pool(study, data)[1]
    return _images_id(study, study_backbone(study), data.pick(readable) if broken else data, templates)


def _embeddings_id(study: Study, data: EmbeddingFile) -> str:
    digests = {"data": data.digest, "classnames": data.classnames, **published_digests(study)}
    return study.run_id(data.name, digests)


def _images_id(study: Study, backbone: Backbone, data: ImageSet, templates: list[str]) -> str:
    digests = {"data": data.digest, "weights": backbone.digest, "templates": templates, "classnames": data.classnames}
    digests |= {"answers": answers_digest(data.classnames, study.transcript), **published_digests(study)}
    return study.run_id(f"{Path(backbone.public_name.split(':')[-1]).name} {data.name}", digests)


def template_pool(study: Study, data: ImageSet) -> tuple[str, list[str]]:
    """Name and templates of the pool that the study names, or of the one that fits its data set: its own, if any."""
    if study.templates is None and data.templates:
        return f"{data.name}-{len(data.templates)}", data.templates
    name = study.templates or ("blazon-24" if is_blazon(study.dataset) else "openai-7")
    return Path(name).name, load_templates(name)


def _open_images(study: Study, data: ImageSet) -> Run:
    backbone = study_backbone(study)
    pool, templates = template_pool(study, data)
    image_features, readable, broken = _image_features(study, backbone, data)
    emptied, data = emptied_classes(data, readable), readable
    text_features = _text_features(backbone, data.classnames, [*templates, study.base_template], study.batch_size)
    run_id = _images_id(study, backbone, data, templates)
    remarks = [*data.remarks, *emptied, *odd_names(data.classnames)]
    remarks += odd_texts(backbone, study, templates, data.classnames) + odd_scale(backbone.logit_scale)
    data_facts = _data_facts(data.name, data.digest, len(image_features), study.storage, data.split, broken, remarks)
    return Run(
        study=study,
        id=run_id,
        folder=Path(study.out) / run_id,
        image_features=image_features,
        labels=data.labels,
        classnames=data.classnames,
        base_text_features=text_features[-1],
        text_features=text_features[:-1],
        prompts=templates,
        base_prompt=study.base_template,
        logit_scale=backbone.logit_scale,
        pictures=data,
        backbone=backbone,
        disambiguated=data.disambiguated,
        facts={"data": data_facts, "model": _model_facts(backbone), "templates": pool, "assumed": []},
    )


def study_backbone(study: Study) -> Backbone:
    """The model of a study of images.

    Raises:
        InputError: no model is named for images that the default one does not know; as `load_backbone`.
    """
    from cmmlib.models.backbones import load_backbone  # open_clip takes seconds to import; embeddings files do without

    if not is_blazon(study.dataset) and "backbone" not in study.model_fields_set:  # the default knows shields only
        raise InputError("backbone: name a model for these images, as in --backbone ViT-B-32-quickgelu")
    return load_backbone(study.backbone, study.pretrained, study.device, study.precision)


def _image_features(study: Study, backbone: Backbone, data: ImageSet) -> tuple[Tensor, ImageSet, list[str]]:
    """Embeddings, and the data, without images that cannot be read; and what these are called."""
    from cmmlib.models.embed import embed_images

    settings = {"batch_size": study.batch_size, "workers": study.workers}
    x = embed_images(backbone, data, storage=study.storage, max_broken=study.max_broken, **settings)
    return leave_out_broken(x, data)


def _model_facts(backbone: Backbone) -> dict[str, Any]:
    """What the manifest says of the model."""
    return {
        "backbone": backbone.public_name,
        "pretrained": backbone.public_pretrained,
        "digest": backbone.digest,
        "logit_scale": backbone.logit_scale,
        "preprocessing": backbone.preprocessing,
    }


def _data_facts(
    name: str,
    digest: str,
    n_images: int,
    stored_as: str,
    split: str | None = None,
    broken: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """What the manifest says of the data; broken images by their paths within the set."""
    facts = {"name": name, "split": split, "n_images": n_images, "broken": list(broken), "remarks": list(remarks)}
    return {**facts, "digest": digest, "stored_as": stored_as}


def leave_out_broken(images: Float[Tensor, "N D"], data: ImageSet) -> tuple[Tensor, ImageSet, list[str]]:
    """Embeddings and data without the images that could not be read, and what these are called."""
    is_broken = images.isnan().any(1)
    if not is_broken.any():
        return images, data, []
    ids = data.image_ids
    broken = [ids[i] for i in is_broken.nonzero()[:, 0].tolist()]
    return images[~is_broken], data.pick((~is_broken).nonzero()[:, 0].tolist()), broken


def _text_features(
    backbone: Backbone, classnames: list[str], templates: list[str], batch_size: int
) -> Float[Tensor, "P C D"]:
    from cmmlib.models.embed_texts import embed_texts

    bank = PromptBank.of_templates(templates, classnames)
    return embed_texts(backbone, bank.texts, batch_size=batch_size).unflatten(0, (len(templates), len(classnames)))


def study_data(study: Study) -> Dataset:
    """The data of a study: its data set, its classes of them, and as many images as it asks for; with lines on these.

    Raises:
        InputError: as `load_dataset`; a list of classes that does not fit, or a k above the number of classes.
    """
    root = Path(study.data_root) if study.data_root else None
    data = _with_row_ids(load_dataset(study.dataset, study.class_names, study.seed, study.split, root))
    if study.classes is not None:
        data = only_classes(data, read_classes(Path(study.classes), data.classnames))
    n_classes = len(data.classnames)
    blank = next((c for c, name in enumerate(data.classnames) if not is_seen(name)), None)
    if blank is not None:
        raise InputError(f"class {blank} of {n_classes} has an empty name: rename its folder, or give --class-names")
    if study.worst_k and study.worst_k > n_classes:
        raise InputError(f"worst_k: {study.worst_k} is more than the {n_classes} classes of the data set")
    if study.n_described and study.n_described > n_classes:
        raise InputError(f"n_described: {study.n_described} is more than the {n_classes} classes")
    data = draw(data, study.limit, study.seed) if study.limit else data
    remarks = [*data.remarks, *of_labels(data, is_whole=study.classes is None)]
    if isinstance(data, ImageSet):
        remarks += guessed_domain(study, data.name, data.classnames)
    return replace(data, remarks=remarks)


def _with_row_ids(data: Dataset) -> Dataset:
    """Labelled embeddings without names are called by their rows in the file, also where some are left out."""
    if not isinstance(data, EmbeddingFile) or data.labels is None or data.image_ids:
        return data
    return replace(data, image_ids=[f"row {i}" for i in range(len(data.labels))])
