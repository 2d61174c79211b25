"""Folders of images: one folder a class, or images alone that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cmmlib.data.images import ImageFolder
from cmmlib.errors import InputError
from cmmlib.storage.cache import file_digests

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def load_folder(root: Path, split: str | None = None, names: list[str] | None = None) -> ImageFolder:
    """A folder of class folders, or of images alone.

    Class names are the class folders' names, with spaces for underscores, in sorted order. A folder that has images
    and no class folder is a set without labels; its class names must be given.

    Args:
        split: the folder in `root` that is meant, as in `root/val`.
        names: of the classes of images that lie directly in the folder.

    Raises:
        InputError: no such folder, fewer than two class folders, no image, or images without folders and names.
    """
    if not root.is_dir():
        raise InputError(f"no folder {root}: give folder:PATH, a folder with one folder of images a class")
    name, root = root.name, root / split if split else root
    if not root.is_dir():
        raise InputError(f"split: folder {name} has no folder {split!r}")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    alone = [] if folders else _images_in(root)
    if alone and names:
        return ImageFolder(name, names, None, image_digests(root, alone), root, alone, split=split)
    files = [_images_in(folder) for folder in folders]
    if alone:
        raise InputError(
            f"folder {name} holds {len(alone)} images and no class folders: "
            "name the classes with --class-names FILE, or sort the images into a folder a class"
        )
    if len(folders) < 2 or not any(files):
        contents = f"{len(folders)} class folders, {sum(map(len, files))} images"
        raise InputError(f"folder {name} holds {contents}: it needs two or more class folders with images")
    paths = [path for group in files for path in group]
    labels = torch.repeat_interleave(torch.arange(len(files)), torch.tensor([len(group) for group in files]))
    spoken = [folder.name.replace("_", " ") for folder in folders]
    return ImageFolder(name, spoken, labels, image_digests(root, paths), root, paths, split=split)


def load_unlabelled_folder(root: Path, split: str | None = None) -> ImageFolder:
    """Every image of a folder, at any depth, without classes and labels.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = root / split if split else root
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give folder:PATH, a folder of images")
    paths = _images_in(folder)
    if not paths:
        raise InputError(f"folder {folder.name} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return ImageFolder(root.name, [], None, image_digests(folder, paths), folder, paths, split=split)


def image_digests(root: Path, paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file.

    Raises:
        InputError: a file that cannot be read.
    """
    try:
        return file_digests(root, paths)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {(error.strerror or '').lower()}") from None


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_image_file(path))


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
