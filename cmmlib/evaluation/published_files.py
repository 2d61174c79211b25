"""Where published accuracies come from: the tables of the package, a folder of the authors' files, or their repository.

A study names one of them by `published`. The authors' files are fetched once, and their checksums compared.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from cmmlib.errors import InputError, counted, one_line
from cmmlib.evaluation import published
from cmmlib.storage.cache import cache_folder
from cmmlib.storage.network import host_responds
from cmmlib.study.study import FETCH

ADDRESS = "https://raw.githubusercontent.com/bethgelab/frequency_determines_performance"
COMMIT = "742beeff3118a5a0750352c1b875c86e5df2458b"  # the last that changed these files
REGISTRY = published.TABLES / "registry.txt"  # a line a file: its path in the repository and its SHA-256
COMPUTED = ("models", "agreement", "frequency", "curves")  # `selection` is of another source


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
    models = published.model_table(accuracies)
    known = dict(zip(shipped["models"]["backbone"], shipped["models"]["parameters"], strict=True))
    sizes = {name: known.get(name) or n_parameters(name) for name in models["backbone"].unique()}
    return {
        "models": models.assign(parameters=[sizes[name] for name in models["backbone"]]).round(4),
        "agreement": published.agreement_table(accuracies).round(4),
        "frequency": published.frequency_table(accuracies, published.read_counts(folder)).round(4),
        "curves": published.curve_table(accuracies).round(4),
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


def n_parameters(backbone: str) -> float | None:
    """Parameters of both towers of an open_clip architecture, in millions; None for one that it does not have."""
    import open_clip  # only for architectures that the package's own table lacks

    with suppress(RuntimeError):
        model = open_clip.create_model(backbone, device="meta")  # no weights, no memory
        return round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
    return None


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
