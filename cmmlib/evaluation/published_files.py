"""Where published accuracies come from: the tables of the package, a folder of the authors' files, or their repository.

A study names one of them by `published`. The authors' files are fetched once, and their checksums compared.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cmmlib.errors import InputError, counted, one_line
from cmmlib.evaluation import published
from cmmlib.storage.cache import cache_folder
from cmmlib.storage.network import host_responds
from cmmlib.study.study import FETCH

ADDRESS = "https://raw.githubusercontent.com/bethgelab/frequency_determines_performance"
COMMIT = "742beeff3118a5a0750352c1b875c86e5df2458b"  # the last that changed these files
REGISTRY = published.TABLES / "registry.txt"  # a line a file: its path in the repository and its SHA-256
COMPUTED = ("models", "agreement", "frequency", "curves", "lowest")  # `selection` is of another source
SIZES = ("parameters", "multiply_adds")  # what `size_of` adds to `models`


def tables(source: str | None) -> dict[str, pd.DataFrame]:
    """The tables of the chapter on real CLIP, by their names (`published.shipped`).

    Args:
        source: a folder with the authors' files, `fetch` for their repository, None for the tables of the package.

    Raises:
        InputError: no such files, some that are missing or of another kind, or no network.
    """
    shipped = {name: published.shipped(name) for name in (*COMPUTED, "selection")}
    if source is None:
        return shipped
    folder = fetch() if source == FETCH else Path(source)
    accuracies = published.read_published(folder)
    _require_all(accuracies, shipped["models"], folder)
    models = with_sizes(published.model_table(accuracies), shipped["models"]).round(4)
    return {
        "models": models,
        "agreement": published.agreement_table(accuracies).round(4),
        "frequency": published.frequency_table(accuracies, published.read_counts(folder)).round(4),
        "curves": published.curve_table(accuracies).round(4),
        "lowest": published.lowest_table(accuracies, published.nearest_to(models)).round(4),
        "selection": shipped["selection"],
    }


def _require_all(accuracies: pd.DataFrame, shipped: pd.DataFrame, folder: Path) -> None:
    """The chapter looks at every data set and names models, so none may be missing; more models are welcome."""
    key = ["data", "prompts", "backbone", "pretrained"]
    there = set(accuracies[key].drop_duplicates().itertuples(index=False, name=None))
    wanted = [row for row in shipped[key].itertuples(index=False, name=None) if row not in there]
    if wanted:
        raise InputError(
            f"published: {folder} lacks {len(wanted)} of the {len(shipped)} published pairs of model and data set, "
            f"the first: {', '.join(wanted[0])}"
        )


def with_sizes(models: pd.DataFrame, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """`model_table` with what `size_of` says of each architecture, which is taken from a table that has it already."""
    sizes = {} if known is None else known.drop_duplicates("backbone").set_index("backbone")[list(SIZES)].T.to_dict()
    sizes |= {name: size_of(name) for name in models["backbone"].unique() if name not in sizes}
    return models.assign(**{column: [sizes[name][column] for name in models["backbone"]] for column in SIZES})


def size_of(backbone: str) -> dict[str, float | None]:
    """How large an open_clip architecture is; None for one that it does not have.

    Returns:
        `parameters` of both towers, in millions; `multiply_adds` of the image tower for one image, in billions.
    """
    import open_clip  # only for architectures that the package's own table lacks
    from torch.utils.flop_counter import FlopCounterMode

    with suppress(RuntimeError):
        model: Any = open_clip.create_model(backbone, device="meta")  # no weights, no memory
        width = model.visual.image_size
        height, width = (width, width) if isinstance(width, int) else width
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.encode_image(torch.empty(1, 3, height, width, device="meta"))
        parameters = sum(p.numel() for p in model.parameters())
        return dict(zip(SIZES, (round(parameters / 1e6, 1), round(counter.get_total_flops() / 2e9, 1)), strict=True))
    return dict.fromkeys(SIZES)


def fetch() -> Path:
    """The authors' files in the cache, each compared with its checksum; those that are missing there are fetched.

    Raises:
        InputError: no network, or a file that is not the one that is meant.
    """
    import pooch

    folder = cache_folder() / "published"
    registry = dict(line.split() for line in REGISTRY.read_text(encoding="utf-8").splitlines())
    files = pooch.create(folder, f"{ADDRESS}/{COMMIT}/", registry=registry)
    pooch.get_logger().setLevel("WARNING")
    missing = [name for name in registry if not (folder / name).is_file()]
    if missing and not host_responds(ADDRESS):
        raise InputError(
            f"published: {counted(len(missing), 'file')} not on this machine, and no host answers at {ADDRESS}: "
            "give --published FOLDER, a clone of the repository, or leave it out"
        )
    try:
        for name in registry:
            files.fetch(name)
    except Exception as error:  # pooch raises ValueError for another checksum, requests a dozen kinds
        if isinstance(error, OSError) and error.filename is not None:  # of the disk; requests' own name no file
            raise
        raise InputError(f"published: a file could not be fetched from {ADDRESS}: {one_line(error)}") from None
    return folder
