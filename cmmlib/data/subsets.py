"""Parts of a data set: the classes of a list, and a few images a class, drawn by the seed."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cmmlib.data.embeddings import EmbeddingFile
from cmmlib.data.images import ImageSet
from cmmlib.errors import InputError
from cmmlib.storage.text_files import read_lines, whole_number

Dataset = ImageSet | EmbeddingFile


def only_classes(data: Dataset, classes: Sequence[int]) -> Dataset:
    """These classes alone, counted anew in this order, with their images; without labels, with all images.

    Raises:
        InputError: no image is of these classes.
    """
    if data.labels is None:
        return data.with_classes(classes, None)
    place = torch.full((len(data.classnames),), -1)
    place[list(classes)] = torch.arange(len(classes))
    labels = place[data.labels]  # [N], -1 for the others
    rows = (labels >= 0).nonzero()[:, 0].tolist()
    if not rows:
        raise InputError(f"classes: {data.name} has no image of these {len(classes)} classes")
    return data.pick(rows).with_classes(classes, labels[rows])


def read_classes(path: Path, classnames: Sequence[str]) -> list[int]:
    """Class indices of a text file that has a class a line: its name (case ignored) or its index, from 0.

    Returns:
        In the data set's order, each once. A name wins over an index.

    Raises:
        InputError: a line that is no class or several, or fewer than two classes.
    """
    chosen = {_index(line.strip(), classnames, path) for line in read_lines(path, "classes") if line.strip()}
    if len(chosen) < 2:
        raise InputError(f"classes: {path.name} names {len(chosen)} of the classes: two or more are needed")
    return sorted(chosen)


def _index(word: str, classnames: Sequence[str], path: Path) -> int:
    named = [c for c, name in enumerate(classnames) if _folded(name) == _folded(word)]
    if len(named) == 1:
        return named[0]
    if named:
        raise InputError(f"classes: {word!r} in {path.name} is the name of classes {named}: give an index")
    number = whole_number(word)
    if number is not None and number < len(classnames):
        return number
    near = difflib.get_close_matches(word, classnames, 1)
    hint = f", did you mean {near[0]!r}?" if near else f": write a class name, or an index below {len(classnames)}"
    raise InputError(f"classes: no class {word!r} ({path.name}){hint}")


def _folded(name: str) -> str:
    """A name as it is compared: letters with accents may be written in one character or in two."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def draw(data: Dataset, limit: int, seed: int) -> Dataset:
    """At most `limit` images of every class, drawn by the seed; without labels, `limit` times C images of all."""
    n_classes, n_images = len(data.classnames), len(data.image_features if isinstance(data, EmbeddingFile) else data)
    order = np.random.default_rng(seed).permutation(n_images)
    if data.labels is None:
        drawn = order[: limit * n_classes]
    else:
        labels = data.labels.numpy()[order]
        drawn = np.concatenate([order[labels == c][:limit] for c in range(n_classes)])
    return data if len(drawn) == n_images else data.pick(np.sort(drawn).tolist())
