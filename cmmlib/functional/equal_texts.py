"""Classes that have the same texts: no classifier can tell them apart, and their ties go to the first of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def first_with_equal_texts(text_features: Float[Tensor, "*P C D"]) -> Int[Tensor, "C"]:
    """For every class, the first class that has the same texts under every prompt: mostly the class itself.

    No classifier can tell such classes apart. A blocked product may give equal texts different last bits, which would
    break their ties at random, so copies are given what the first of them has.

    >>> first_with_equal_texts(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).tolist()
    [0, 1, 0]
    """
    rows = text_features if text_features.ndim == 2 else text_features.transpose(0, 1).flatten(1)
    classes = torch.arange(len(rows), device=rows.device)
    if len(rows[:, 0].unique()) == len(rows):  # quicker than to sort whole rows
        return classes
    index = torch.unique(rows, dim=0, return_inverse=True)[1]
    return torch.full_like(classes, len(rows)).scatter_reduce(0, index, classes, "amin")[index]


def copies_of_texts(text_features: Float[Tensor, "C D"]) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
    """Classes that have another's texts, and the first class that has them."""
    first = first_with_equal_texts(text_features)
    copies = (first != torch.arange(len(first), device=first.device)).nonzero()[:, 0]
    return copies, first[copies]


def copies_by_prompt(text_features: Float[Tensor, "P C D"], prompts: range) -> dict[int, tuple[Tensor, Tensor]]:
    """Of the prompts that have any: classes with another's texts, and the first class that has them."""
    maybe = list(prompts)
    if text_features.device.type != "cpu":  # a GPU is waited for once, and not at every prompt
        sums = torch.stack([_sums_of_bits(text_features[p]) for p in prompts])
        alike = (sums.sort(1).values.diff(dim=1) == 0).any(1).tolist()
        maybe = [p for p, known in zip(prompts, alike, strict=True) if known]
    found = {p: copies_of_texts(text_features[p]) for p in maybe}
    return {p: copies for p, copies in found.items() if len(copies[0])}


def _sums_of_bits(rows: Float[Tensor, "C D"]) -> Int[Tensor, "C"]:
    """A number for each row, the same for equal rows: of whole numbers, whose sum does not hang on any order."""
    bits = (rows.float() + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0
    return (bits * (2 * torch.arange(rows.shape[1], device=rows.device) + 3) ** 2).sum(1)
