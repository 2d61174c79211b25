"""What the chapters of a study will take, in processor time and in memory, told from its sizes before it begins.

Time is a number of units: the products of the images with the texts of one prompt, and a softmax of them. The unit is
measured on this machine, on a part of its size; how many of them the chapters need, and the memory, were measured on
labelled embeddings (`benchmarks/chapters.py`, `book/speed.md`). A study without labels needs less.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from cmmlib.evaluation.prior_shift import PRICE_SIMILARITIES

SAMPLE = 1 << 21  # similarities of the sample that the unit is measured on
TRIES = 4
SECONDS = 25.0  # of any study: imports, figures
PRICE = 60.0  # seconds of chapter 5's many fits, whose data grow to a size and no further
UNITS, UNITS_PER_PROMPT = 480.0, 4.4
GIB = 1 << 30
MEMORY = 0.95 * GIB  # of any study: libraries
MATRICES = 8  # float32 matrices of images times classes
COPIES = 5  # of the embeddings of images and texts, in float32
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    """The sizes of a study: N images, C classes, P prompts, embeddings of D numbers."""

    images: int
    classes: int
    prompts: int
    width: int

    @classmethod
    def of(cls, image_features: Float[Tensor, "N D"], text_features: Float[Tensor, "P C D"]) -> Cost:
        """Of embeddings that are there."""
        prompts, classes, width = text_features.shape
        return cls(len(image_features), classes, prompts, width)

    def seconds(self) -> float:
        """Processor time of all chapters on this machine, without embedding the images."""
        fits = PRICE * min(1.0, self.images * self.classes / PRICE_SIMILARITIES)
        return SECONDS + fits + self._unit() * (UNITS + UNITS_PER_PROMPT * self.prompts)

    def memory(self) -> float:
        """Bytes that the chapter with most of them takes."""
        vectors = self.images * self.width + self.prompts * self.classes * self.width
        return MEMORY + 4 * (MATRICES * self.images * self.classes + COPIES * vectors)

    def _unit(self) -> float:
        """Processor seconds of the products and a softmax of all images, from those of some."""
        rows = max(1, min(self.images, SAMPLE // self.classes))
        generator = torch.Generator().manual_seed(0)
        images, texts = (torch.randn(n, self.width, generator=generator) for n in (rows, self.classes))
        spent = []
        for _ in range(TRIES):
            begun = time.process_time()
            (images @ texts.T).double().softmax(1)
            spent.append(time.process_time() - begun)
        return min(spent) * self.images / rows  # the first is slower, and so is one that something else disturbs

    def told(self) -> str:
        """Both, in a line."""
        minutes = self.seconds() / 60
        time_needed = f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"
        return f"the chapters take about {time_needed} of processor time and {self.memory() / GIB:.1f} GiB of memory"

    def warning(self) -> str | None:
        """A line where the memory that is free is less than what is needed."""
        free = free_memory()
        if self.memory() <= free:
            return None
        return (
            f"{self.told()}, and {free / GIB:.1f} GiB are free: the system may end them; take fewer images (--limit), "
            "or free memory"
        )


def free_memory() -> int:
    """Bytes that a process can have: what the machine has left, or the limit of a container where that is less."""
    return min([psutil.virtual_memory().available, *_left_in_container()])


def _left_in_container() -> list[int]:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return [int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text())]
        except (OSError, ValueError):  # no container, or "max": no limit
            continue
    return []
