"""Folders of images: one folder a class, or images alone that nobody has labelled."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from cmmlib.data.class_names import comparable
from cmmlib.data.image_files import (
    check_utf8,
    images_and_rest,
    is_hidden_folder,
    is_hidden_image,
    is_junk,
    left_out,
    suffixes,
)
from cmmlib.data.images import ImageFolder, no_split
from cmmlib.data.pictures import remarks_on_pictures
from cmmlib.data.reading import reading
from cmmlib.errors import SHOWN, InputError, counted, some
from cmmlib.storage.cache import file_digests
from cmmlib.storage.own_folders import MARK

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}
NO_NAMES = "class names are WordNet ids"
WORDNET_ID = re.compile(r"n\d{8}")


def load_folder(root: Path, split: str | None = None, names: list[str] | None = None) -> ImageFolder:
    """A folder of class folders, or of images alone.

    Class names are the class folders' names, with spaces for underscores. Class folders are in sorted order; where all
    their names are numbers, in the order of the numbers. A folder that has images and no class folder is a set without
    labels; its class names must be given.

    Args:
        split: the folder in `root` that is meant, as in `root/val`.
        names: of the classes, in the order of the class folders, or of images that lie directly in the folder.

    Raises:
        InputError: no such folder, fewer than two class folders, no image, images without folders and names, a name
            that is not UTF-8, or what may not be read.
    """
    with reading(root):
        chosen = _split_folder(root, split, "a folder with one folder of images a class")
        return _sorted(root.name, chosen, names, split)


def _split_folder(root: Path, split: str | None, wanted: str) -> Path:
    if root.is_file():
        raise InputError(f"{root} is a file: give folder:PATH, {wanted}")
    if not root.is_dir():
        raise InputError(f"no folder {root}: give folder:PATH, {wanted}")
    if split and not Path(os.path.normpath(root / split)).is_relative_to(Path(os.path.normpath(root))):
        raise InputError(f"split: {split} leads out of {root.name}: name a folder in it")
    if not split or (root / split).is_dir():
        return root / split if split else root
    raise no_split(f"folder {root.name} has no folder", split, [folder.name for folder in _class_folders(root)])


def _sorted(name: str, root: Path, names: list[str] | None, split: str | None) -> ImageFolder:
    folders = _class_folders(root)
    if not folders:
        return _unsorted(name, root, names, split)
    found = [images_and_rest(folder) for folder in folders]
    if len(folders) < 2 or not any(images for images, _ in found):
        rest = [path for _, rest in found for path in rest]
        raise _no_classes(name, folders, sum(len(images) for images, _ in found), rest)
    paths = [path for images, _ in found for path in images]
    check_utf8([*folders, *paths])
    labels = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(images) for images, _ in found]))
    made = [path for path in sorted(root.iterdir()) if _is_made(path)]
    beside = [path for path in sorted(root.iterdir()) if _is_told(path) and path not in made]
    loose = [path.name for path in beside if not is_junk(path.name) and path.suffix.lower() in suffixes()]
    others = [path for path in beside if path.name not in loose]
    remarks = left_out([*others, *(path for _, rest in found for path in rest)]) + _of_names(folders, names)
    remarks += [f"images outside the class folders are left out: {some(loose)}"] if loose else []
    remarks += _folders_within(root, folders, paths) + remarks_on_pictures(
        [path.name for path in paths], paths.__getitem__
    )
    remarks += _of_made(made)
    spoken = [folder.name.replace("_", " ") for folder in folders]
    return ImageFolder(name, spoken, labels, image_digests(root, paths), root, paths, split=split, remarks=remarks)


def _no_classes(name: str, folders: Sequence[Path], n_images: int, rest: Sequence[Path]) -> InputError:
    held = f"folder {name} holds {counted(len(folders), 'class folder')}, {counted(n_images, 'image')}"
    needed = f"{held}: it needs two or more class folders with images"
    if n_images and len(folders) == 1 and len(_class_folders(folders[0])) > 1:
        needed += f"; if those in {folders[0].name} are the classes, give folder:{folders[0]}"
    return InputError("; ".join([needed, *left_out(rest)]))


def _folders_within(root: Path, folders: Sequence[Path], paths: Sequence[Path]) -> list[str]:
    """A line on folders of images inside class folders, which may be the classes that are meant; if there are any."""
    if _are_splits(folders):  # which is told, with the remedy
        return []
    within = sorted(folder.relative_to(root).as_posix() for folder in {path.parent for path in paths} - {*folders})
    line = f"folders inside class folders, whose images count for the class folder, {len(within)}: {some(within)}"
    return [f"{line} (if these are the classes, lay them side by side in one folder)"] if within else []


def _are_splits(folders: Sequence[Path]) -> bool:
    return {folder.name.lower() for folder in folders} <= SPLITS


def _class_folders(root: Path) -> list[Path]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not is_junk(p.name) and not _is_made(p))
    if all(re.fullmatch(r"\d{1,18}", folder.name, re.ASCII) for folder in folders):
        folders.sort(key=lambda folder: int(folder.name))  # "10" is after "9"
    return folders


def _is_made(folder: Path) -> bool:
    """Whether a folder is part of a book, which somebody had put into this one."""
    return (folder / MARK).is_file()


def _not_made(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Folders in one that cmm made, and of the rest the images at any depth and the files that are left out."""
    made = [path for path in sorted(root.iterdir()) if _is_made(path)]
    images, rest = ([p for p in found if not {p, *p.parents} & {*made}] for found in images_and_rest(root))
    return made, images, rest


def _of_made(folders: Sequence[Path]) -> list[str]:
    return [f"folders that cmm made are left out: {some([folder.name for folder in folders])}"] if folders else []


def _is_told(path: Path) -> bool:
    """Whether what lies beside class folders is told: a file that is no junk, and images that only a dot makes none."""
    if path.is_dir():
        return is_hidden_folder(path)
    return not is_junk(path.name) or is_hidden_image(path.name)


def _of_names(folders: Sequence[Path], names: list[str] | None) -> list[str]:
    """Which name the first folders get, those first whose own is another; or that their own say nothing to a model."""
    if names:
        pairs = [(folder.name, name) for folder, name in zip(folders, names, strict=False)]
        pairs.sort(key=lambda pair: comparable(pair[0]) == comparable(pair[1]))
        told = ", ".join(f"{folder} = {name}" for folder, name in pairs[:SHOWN])
        return [f"class folders and names, in order: {told}{', ...' if len(pairs) > SHOWN else ''}"]
    if _are_splits(folders):
        return [f"class folders are called {some([f.name for f in folders])}: if these are splits, give --split NAME"]
    if all(WORDNET_ID.fullmatch(folder.name) for folder in folders):
        return [f"{NO_NAMES} ({folders[0].name}): give --class-names FILE, a name a line in this order"]
    return []


def _unsorted(name: str, root: Path, names: list[str] | None, split: str | None) -> ImageFolder:
    """Images that lie directly in a folder: without labels, among classes that are named."""
    made, images, rest = _not_made(root)
    if not images:
        raise _no_classes(name, [], 0, rest)
    if not names:
        raise InputError(
            f"folder {name} holds {counted(len(images), 'image')} and no class folders: "
            "name the classes with --class-names FILE, or sort the images into a folder a class"
        )
    check_utf8(images)
    remarks = left_out(rest) + _of_made(made)
    remarks += remarks_on_pictures([path.name for path in images], images.__getitem__)
    return ImageFolder(name, names, None, image_digests(root, images), root, images, split=split, remarks=remarks)


def load_unlabelled_folder(root: Path, split: str | None = None) -> ImageFolder:
    """Every image of a folder, at any depth, without classes and labels.

    Raises:
        InputError: no such folder, no image in it, or what may not be read.
    """
    with reading(root):
        folder = _split_folder(root, split, "a folder of images")
        made, paths, rest = _not_made(folder)
    if not paths:
        known = ", ".join(sorted(suffixes()))
        raise InputError("; ".join([f"folder {folder.name} holds no image ({known})", *left_out(rest)]))
    digests = image_digests(folder, paths)
    remarks = left_out(rest) + _of_made(made) + remarks_on_pictures([path.name for path in paths], paths.__getitem__)
    return ImageFolder(root.name, [], None, digests, folder, paths, split=split, remarks=remarks)


def image_digests(root: Path, paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file.

    Raises:
        InputError: a file that cannot be read.
    """
    with reading(root):
        return file_digests(root, paths)
