"""Name -> images, labels and class names; or embeddings that somebody already has."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cmmlib.blazon.heraldry import Arms, blazon
from cmmlib.data.class_names import ONE_NAME_A_CLASS, require_order
from cmmlib.data.embeddings import EmbeddingFile, load_embeddings
from cmmlib.data.folders import load_folder, load_unlabelled_folder
from cmmlib.data.imagenet import load_imagenet
from cmmlib.data.images import ImageFolder, ImageSet, PixelArray, choose_split
from cmmlib.data.labels import in_several_classes, without_images
from cmmlib.data.subsets import Dataset
from cmmlib.data.torchvision import ALIASES, SOURCES, load_torchvision
from cmmlib.data.webdataset import TarImages, load_webdataset
from cmmlib.errors import InputError, counted, some
from cmmlib.storage.cache import cache_folder, cached
from cmmlib.storage.text_files import read_names, whole_number

__all__ = ["Dataset", "EmbeddingFile", "ImageFolder", "ImageSet", "RenderedShields", "load_dataset"]


@dataclass(frozen=True)
class RenderedShields(PixelArray):
    """The embedded world's evaluation images; `arms` says what each class shows."""

    arms: list[Arms]

    def with_classes(self, classes: Sequence[int], labels: Int[Tensor, "N"] | None) -> RenderedShields:
        return replace(super().with_classes(classes, labels), arms=[self.arms[c] for c in classes])


def load_dataset(
    name: str,
    class_names: str | None = None,
    seed: int = 0,
    split: str | None = None,
    root: Path | None = None,
) -> Dataset:
    """The data set of that name.

    Args:
        name: `blazon`, the embedded world, or `blazon:LIST_SEED`, another of its class lists; `folder:PATH`, a folder
            of class folders of images, or of images alone; `wds:PATH` or `wds:OWNER/NAME`, a web data set in
            CLIP_benchmark's layout; `imagenet`; a set of torchvision, as `cifar100`; or `embeddings:FILE`.
        class_names: path of a text file with one class name a line, in the data set's class order.
        seed: of the embedded world's images; the others have theirs.
        split: which of its splits; the one that is usually evaluated where none is named.
        root: folder that holds the sets which are named without a path; the cache has one.

    Raises:
        InputError: an unknown name, and whatever is wrong with the files, in one line.
    """
    names = None if class_names is None else _read_names(Path(class_names))
    data = _load(name, names, seed, split, root or cache_folder() / "data")
    if len(data.classnames) < 2:
        raise InputError(f"{name} has {len(data.classnames)} class: a classifier needs two or more")
    if names is None:
        return replace(data, classnames=[_composed(name) for name in data.classnames])
    if len(names) != len(data.classnames):
        file = Path(str(class_names)).name
        n_names, n_classes = counted(len(names), "name"), counted(len(data.classnames), "class", "classes")
        raise InputError(f"class_names: {file} has {n_names}, data set has {n_classes}: {ONE_NAME_A_CLASS}")
    require_order(names, data.classnames, Path(str(class_names)).name)
    told_apart = {"disambiguated": None} if isinstance(data, ImageSet) else {}  # of the names that were replaced
    return replace(data, classnames=names, **told_apart)


def of_labels(data: Dataset, is_whole: bool = True) -> list[str]:
    """Lines on a data set's labels: classes without an image, images that are in several classes; none without labels.

    Args:
        is_whole: no class was left out, so labels are those that somebody wrote.
    """
    if data.labels is None:
        return []
    are_numbers = is_whole and isinstance(data, EmbeddingFile | TarImages)
    lines = without_images(data.labels, data.classnames, are_numbers)
    if isinstance(data, EmbeddingFile):
        what, marks = "embeddings that are in more than one class, number for number", _row_marks(data.image_features)
        ids = data.image_ids or [f"row {i}" for i in range(len(marks))]
    else:
        what, marks, ids = "images that are in more than one class, byte for byte", data.digests, data.image_ids
    pairs = in_several_classes(data.labels, marks, ids)
    return lines + ([f"{what}, {len(pairs)}: {some(pairs)}"] if pairs else [])


def _row_marks(x: Float[Tensor, "N D"]) -> list[int]:
    """A number for each row, the same for equal rows: 64 bits, so that two others share one in no file there is."""
    return [hash(row.tobytes()) for row in x.numpy()]


def load_images(name: str, split: str | None = None, root: Path | None = None, seed: int = 0) -> ImageSet:
    """The images of a data set that `load_dataset` knows, for whoever wants neither its classes nor its labels.

    A folder may be laid out in any way: all images below it are meant.

    Raises:
        InputError: as `load_dataset`; an embeddings file, which has no images.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        return load_unlabelled_folder(Path(rest), split)
    if kind == "wds" and rest:
        return load_webdataset(rest, split, labelled=False)
    data = _load(name, None, seed, split, root or cache_folder() / "data")
    if not isinstance(data, ImageSet):
        raise InputError(f"{name} holds embeddings and no images")
    return replace(data, remarks=[]) if _is_torchvisions(name) else data  # which are on names and templates


def _load(name: str, names: list[str] | None, seed: int, split: str | None, root: Path) -> Dataset:
    kind, _, rest = name.partition(":")
    if kind in ("blazon", "embeddings"):
        choose_split(kind, split, ())
    if kind == "blazon":
        return load_blazon(rest, seed)
    if kind == "folder" and rest:
        return load_folder(Path(rest), split, names)
    if kind == "wds" and rest:
        return load_webdataset(rest, split, names)
    if kind == "embeddings" and rest:
        return load_embeddings(Path(rest))
    if name.lower() == "imagenet":
        return load_imagenet(root, split)
    if _is_torchvisions(name):
        return load_torchvision(name, root, split, names)
    names_of_sets = ", ".join(["blazon", "imagenet", *SOURCES])
    raise InputError(f"unknown data set {name!r}: use {names_of_sets}, folder:PATH, wds:PATH or embeddings:FILE")


def _is_torchvisions(name: str) -> bool:
    return name.lower() in {*SOURCES, *ALIASES}


def _read_names(path: Path) -> list[str]:
    return [_composed(name) for name in read_names(path, "class_names")]


def _composed(name: str) -> str:
    """A name with each accented letter as one character: file systems and editors write some as two."""
    return unicodedata.normalize("NFC", name)


def load_blazon(list_seed: str = "", seed: int = 0) -> RenderedShields:
    """The embedded world's evaluation images, rendered once and kept in the cache.

    Args:
        list_seed: empty for the shipped class list, else the seed of another one.
        seed: of the images.

    Raises:
        InputError: a list seed that is no whole number.
    """
    from cmmlib.blazon import classes  # the renderer is needed here only

    if list_seed and whole_number(list_seed) is None:
        raise InputError(f"unknown data set 'blazon:{list_seed}': use blazon, or blazon:7 for another class list")
    arms = classes.draw_classes(int(list_seed)) if list_seed else classes.load_classes()

    def render() -> dict[str, Tensor]:
        pixels, labels = classes.evaluation_images(arms, seed)
        return {"pixels": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}

    stored = cached(cache_folder() / "blazon" / f"{classes.rendering_digest(arms, seed)}.safetensors", render)
    pixels = stored["pixels"].numpy()
    digests = [hashlib.sha256(image).hexdigest() for image in pixels]
    name = f"blazon:{list_seed}" if list_seed else "blazon"
    return RenderedShields(name, [blazon(a) for a in arms], stored["labels"], digests, pixels, arms)
