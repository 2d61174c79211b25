"""What labels say that nobody may have meant: classes without an image, images of two classes, counting from 1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jaxtyping import Int
from torch import Tensor

from cmmlib.errors import some

RULE = "labels must be whole numbers from 0 to C - 1, one for each image"  # C classes
BEGIN_AT_ONE = "labels count from 0: do these begin at 1?"


def seem_to_begin_at_one(labels: Int[Tensor, "N"], n_classes: int) -> bool:
    """Whether the labels that occur are 1 to C - 1, each, or lie in 1 to C with C itself among them.

    >>> import torch
    >>> [seem_to_begin_at_one(torch.tensor(y), 3) for y in ([1, 2, 2], [3, 1], [1, 1], [0, 3])]
    [True, True, False, False]
    """
    found = labels.unique().tolist()
    return found == list(range(1, n_classes)) or (found[0] >= 1 and found[-1] == n_classes)


def outside(labels: Int[Tensor, "N"], n_classes: int) -> str:
    """What ends the line on a label that no class has, and the remedy.

    >>> import torch
    >>> outside(torch.tensor([0, 3]), 3)
    'outside 0..2: labels must be whole numbers from 0 to C - 1, one for each image'
    """
    return f"outside 0..{n_classes - 1}: {BEGIN_AT_ONE if seem_to_begin_at_one(labels, n_classes) else RULE}"


def empty_classes(labels: Int[Tensor, "N"], n_classes: int) -> list[int]:
    """Classes that no image is of; labels are 0 to C - 1."""
    return (labels.bincount(minlength=n_classes) == 0).nonzero()[:, 0].tolist()


def without_images(labels: Int[Tensor, "N"], classnames: Sequence[str], are_numbers: bool) -> list[str]:
    """A line on classes without an image, where there are any.

    Args:
        are_numbers: whether somebody wrote the labels as numbers, and may have begun at 1.
    """
    empty = empty_classes(labels, len(classnames))
    if not empty:
        return []
    names = some([classnames[c] for c in empty])
    line = f"classes without an image, {len(empty)} of {len(classnames)}, which stay classes: {names}"
    return [f"{line}; {BEGIN_AT_ONE}" if are_numbers and seem_to_begin_at_one(labels, len(classnames)) else line]


def in_several_classes(labels: Int[Tensor, "N"], marks: Sequence[Hashable], ids: Sequence[str]) -> list[str]:
    """Which images are in several classes, as links, copies and doubled rows make them: pairs of `ids`.

    Args:
        marks: the same for images of the same content, [N].

    >>> import torch
    >>> in_several_classes(torch.tensor([0, 1, 1]), "xxx", ["a.png", "b.png", "c.png"])
    ['b.png = a.png', 'c.png = a.png']
    """
    first: dict[Hashable, int] = {}
    classes, pairs = labels.tolist(), []
    for i, mark in enumerate(marks):
        other = first.setdefault(mark, i)
        if classes[other] != classes[i]:
            pairs.append(f"{ids[i]} = {ids[other]}")
    return pairs
