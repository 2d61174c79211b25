"""ImageNet: classes by WordNet id, names as published with CLIP, and its doubled names told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cmmlib.data.folders import NO_NAMES, load_folder
from cmmlib.data.images import ImageFolder, choose_split
from cmmlib.data.reading import reading
from cmmlib.errors import InputError
from cmmlib.storage.text_files import read_lines

SYNSETS = ("LOC_synset_mapping.txt", "words.txt")  # of the data set: a WordNet id and its terms a line
N_CLASSES = 1000


def load_imagenet(root: Path, split: str | None = None) -> ImageFolder:
    """ImageNet's validation or training images from `root/imagenet/val` or `train`: a folder a WordNet id.

    Sorted WordNet ids are the order of the usual class names (open_clip's list, Radford et al. 2021). Two names of that
    list are borne by two classes each; `disambiguated` has them with a second WordNet term, from the data set's own
    `LOC_synset_mapping.txt` or `words.txt`, else from torchvision's list.

    Raises:
        InputError: no such folder, or one that does not hold the thousand class folders.
    """
    split = choose_split("imagenet", split, ("val", "train"))
    folder = root / "imagenet" / str(split)
    with reading(folder):
        is_there = folder.is_dir()
    if not is_there:
        raise InputError(
            f"imagenet: no folder {folder}: image-net.org hands the images out to who signs its terms; "
            "put the class folders (n01440764 to n15075141) there, or name another place with --data-root"
        )
    data = load_folder(folder)
    ids = data.classnames
    if len(ids) != N_CLASSES or not all(re.fullmatch(r"n\d{8}", i) for i in ids):
        raise InputError(
            f"imagenet: {folder} holds {len(ids)} class folders from {ids[0]} to {ids[-1]}: "
            f"{N_CLASSES} named by WordNet ids are expected; other folders are folder:PATH"
        )
    import open_clip  # slow to import: after whatever may be wrong

    names = list(open_clip.IMAGENET_CLASSNAMES)
    told_apart = disambiguate(names, wordnet_terms(root / "imagenet", ids))
    remarks = [line for line in data.remarks if not line.startswith(NO_NAMES)]
    more = {"split": split, "disambiguated": told_apart, "remarks": remarks}
    return replace(data, name="imagenet", classnames=names, **more)


def disambiguate(names: Sequence[str], terms: Sequence[Sequence[str]]) -> list[str]:
    """The names, of which those that several classes bear have a second term: the class's first other one.

    >>> disambiguate(["missile", "cat", "missile"], [["missile"], ["cat"], ["projectile", "missile"]])
    ['missile', 'cat', 'missile, projectile']
    """
    bearers = Counter(name.casefold() for name in names)
    found = []
    for name, synonyms in zip(names, terms, strict=True):
        second = next((term for term in synonyms if term.casefold() != name.casefold()), None)
        found.append(f"{name}, {second}" if second and bearers[name.casefold()] > 1 else name)
    return found


def wordnet_terms(folder: Path, ids: Sequence[str]) -> list[list[str]]:
    """WordNet's terms of every class: from the data set's own file, else torchvision's, which has the first only."""
    for path in (folder / name for name in SYNSETS):
        if path.is_file():
            lines = (re.split(r"\s", line, maxsplit=1) for line in read_lines(path, "imagenet"))
            known = {line[0]: [term.strip() for term in line[1].split(",")] for line in lines if len(line) == 2}
            return [known.get(i, []) for i in ids]
    from torchvision.models import ResNet18_Weights

    return [[term] for term in ResNet18_Weights.IMAGENET1K_V1.meta["categories"]]
