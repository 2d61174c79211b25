"""Name -> images, labels and class names; or embeddings that somebody already has."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cmmlib.blazon.heraldry import Arms, blazon
from cmmlib.cache import cache_folder, cached, digest, file_digests
from cmmlib.embeddings import EmbeddingFile, load_embeddings
from cmmlib.errors import InputError
from cmmlib.prompts import read_lines

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


@dataclass(frozen=True)
class ImageSet(ABC):
    """Images that a model can embed and a page can show.

    Attributes:
        classnames: C names.
        labels: class index of each image, [N].
        digests: SHA-256 of each image.
    """

    name: str
    classnames: list[str]
    labels: Int[Tensor, "N"]
    digests: list[str]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def digest(self) -> str:
        return digest(self.classnames, self.digests, self.labels.tolist())

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The image, RGB.

        Raises:
            InputError: an image that cannot be read, named.
        """


@dataclass(frozen=True)
class ImageFolder(ImageSet):
    """Images on disk, sorted by class folder and file name; `paths` are the N files."""

    root: Path
    paths: list[Path]

    @property
    def image_ids(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.paths]

    def read(self, index: int) -> Image.Image:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                # `convert("RGB")` alone gives the same, but warns about the transparency of some palettes
                return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
            raise InputError(f"cannot read image {path}: {reason}; repair or remove it") from None


@dataclass(frozen=True)
class RenderedShields(ImageSet):
    """The embedded world's evaluation images: `pixels` holds them all, `arms` says what each class shows."""

    arms: list[Arms]
    pixels: UInt8[np.ndarray, "N 64 64 3"]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


Dataset = ImageSet | EmbeddingFile


def load_dataset(name: str, class_names: str | None = None, seed: int = 0) -> Dataset:
    """The data set of that name.

    Args:
        name: `blazon`, the embedded world, or `blazon:LIST_SEED`, another of its class lists; `folder:PATH`, a folder
            of class folders of images; or `embeddings:FILE`.
        class_names: path of a text file with one class name a line, in the data set's class order.
        seed: of the embedded world's images; the others have theirs.

    Raises:
        InputError: an unknown name, and whatever is wrong with the files, in one line.
    """
    kind, _, rest = name.partition(":")
    if kind == "blazon":
        data: Dataset = load_blazon(rest, seed)
    elif kind == "folder" and rest:
        data = load_folder(Path(rest))
    elif kind == "embeddings" and rest:
        data = load_embeddings(Path(rest))
    else:
        raise InputError(f"unknown data set {name!r}: use blazon, folder:PATH or embeddings:FILE")
    if class_names is None:
        return data
    names = [line.strip() for line in read_lines(Path(class_names), "class_names") if line.strip()]
    if len(names) != len(data.classnames):
        file = Path(class_names).name
        raise InputError(f"class_names: {file} has {len(names)} names, data set has {len(data.classnames)} classes")
    return replace(data, classnames=names)


def load_blazon(list_seed: str = "", seed: int = 0) -> RenderedShields:
    """The embedded world's evaluation images, rendered once and kept in the cache.

    Args:
        list_seed: empty for the shipped class list, else the seed of another one.
        seed: of the images.

    Raises:
        InputError: a list seed that is no whole number.
    """
    from cmmlib.blazon import classes  # the renderer is needed here only

    if list_seed and not list_seed.isdecimal():
        raise InputError(f"unknown data set 'blazon:{list_seed}': use blazon, or blazon:7 for another class list")
    arms = classes.draw_classes(int(list_seed)) if list_seed else classes.load_classes()

    def render() -> dict[str, Tensor]:
        pixels, labels = classes.evaluation_images(arms, seed)
        return {"pixels": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}

    stored = cached(cache_folder() / "blazon" / f"{classes.rendering_digest(arms, seed)}.safetensors", render)
    pixels = stored["pixels"].numpy()
    digests = [hashlib.sha256(image).hexdigest() for image in pixels]
    name = f"blazon:{list_seed}" if list_seed else "blazon"
    return RenderedShields(name, [blazon(a) for a in arms], stored["labels"], digests, arms, pixels)


def load_folder(root: Path) -> ImageFolder:
    """A folder of class folders. Class names are the folders' names, with spaces for underscores, in sorted order.

    Raises:
        InputError: no such folder, fewer than two class folders, or no image in any of them.
    """
    if not root.is_dir():
        raise InputError(f"no folder {root}: give folder:PATH, a folder with one folder of images a class")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    files = [sorted(p for p in f.rglob("*") if _is_image_file(p)) for f in folders]
    if len(folders) < 2 or not any(files):
        found = f"{len(folders)} class folders, {sum(map(len, files))} images"
        raise InputError(f"folder {root.name} holds {found}: it needs two or more class folders with images")
    paths = [path for group in files for path in group]
    try:
        digests = file_digests(root, paths)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {(error.strerror or '').lower()}") from None
    labels = torch.repeat_interleave(torch.arange(len(files)), torch.tensor([len(group) for group in files]))
    names = [folder.name.replace("_", " ") for folder in folders]
    return ImageFolder(root.name, names, labels, digests, root, paths)


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
