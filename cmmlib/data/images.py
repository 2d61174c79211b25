"""Sets of images: what a model can embed and a page can show, wherever the images lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from cmmlib.data.image_files import decode
from cmmlib.errors import InputError, some
from cmmlib.storage.cache import digest

Images = TypeVar("Images", bound="ImageSet")
MOST_SPLITS = 6  # that a line names all


@dataclass(frozen=True)
class ImageSet(ABC):
    """Images that a model can embed and a page can show.

    Attributes:
        classnames: C names.
        labels: class index of each image, [N]; None where nobody knows.
        digests: SHA-256 of each image.
        split: the split that the images are, where the set has splits.
        templates: the set's own prompt templates, where it brings them.
        disambiguated: C names again, of which those that several classes share have a second term; None without such.
        remarks: lines for whoever runs a study: what was found and is not used, what was taken for what.
    """

    name: str
    classnames: list[str]
    labels: Int[Tensor, "N"] | None
    digests: list[str]
    split: str | None = field(default=None, kw_only=True)
    templates: list[str] | None = field(default=None, kw_only=True)
    disambiguated: list[str] | None = field(default=None, kw_only=True)
    remarks: list[str] = field(default_factory=list, kw_only=True)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def digest(self) -> str:
        """SHA-256 of class names, images and labels: what the set is, wherever it lies."""
        labels = None if self.labels is None else self.labels.tolist()
        return digest(self.classnames, self.digests, labels)

    @property
    def image_ids(self) -> list[str]:
        """What each image is called within the set: nothing tells where the set lies."""
        return [str(i) for i in range(len(self))]

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The image, RGB.

        Raises:
            InputError: an image that cannot be read, named.
        """

    def pick(self: Images, rows: Sequence[int]) -> Images:
        """These images alone, in this order; the classes stay."""
        labels = None if self.labels is None else self.labels[list(rows)]
        return replace(self, labels=labels, digests=[self.digests[i] for i in rows])

    def with_classes(self: Images, classes: Sequence[int], labels: Int[Tensor, "N"] | None) -> Images:
        """The same images among these classes alone, with labels that count them anew."""
        other = self.disambiguated and [self.disambiguated[c] for c in classes]
        return replace(self, classnames=[self.classnames[c] for c in classes], disambiguated=other, labels=labels)


@dataclass(frozen=True)
class ImageFolder(ImageSet):
    """Images on disk, class by class; `paths` are the N files, all below `root`."""

    root: Path
    paths: list[Path]

    @property
    def image_ids(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.paths]

    def read(self, index: int) -> Image.Image:
        return decode(self.paths[index], str(self.paths[index]))

    def pick(self, rows: Sequence[int]) -> ImageFolder:
        return replace(super().pick(rows), paths=[self.paths[i] for i in rows])


@dataclass(frozen=True)
class PixelArray(ImageSet):
    """Images of one size in memory."""

    pixels: UInt8[np.ndarray, "N H W 3"]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def pick(self, rows: Sequence[int]) -> PixelArray:
        return replace(super().pick(rows), pixels=self.pixels[list(rows)])


def choose_split(name: str, asked: str | None, splits: Sequence[str]) -> str | None:
    """The split asked for, or the first known one, which is the one that is usually evaluated.

    Raises:
        InputError: a split that the data set does not have.
    """
    if asked is None:
        return splits[0] if splits else None
    if asked not in splits:
        raise no_split(f"{name} has no split", asked, splits)
    return asked


def no_split(what: str, asked: str, there: Sequence[str]) -> InputError:
    """The refusal of a split that is not there: what there is, and which of it differs in large letters only."""
    listed = ", ".join(there) if len(there) <= MOST_SPLITS else some(list(there))
    remedy = f"it has {listed}" if there else "it has none, so leave it out"
    near = next((split for split in there if split.casefold() == asked.casefold()), None)
    return InputError(f"split: {what} {asked!r}: {remedy}" + (f"; did you mean {near!r}?" if near else ""))
