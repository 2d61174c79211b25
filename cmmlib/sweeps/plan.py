"""Which studies a sweep file names: a list, a grid, or both, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cmmlib.errors import InputError, counted, tell
from cmmlib.storage.cache import digest
from cmmlib.storage.yaml_files import mapping, read_mapping
from cmmlib.study.named_paths import slugify
from cmmlib.study.study import Study

PARTS = ("common", "studies", "grid")
OWN = "out"  # the sweep's own folder receives the runs
MOST = 10_000  # studies of one sweep


def read_sweep(path: Path) -> list[Study]:
    """The studies of a sweep file, each once, in the order of the file.

        common: {limit: 10}                       # parameters of every study
        studies:                                  # one study a line
          - {dataset: cifar100, backbone: ViT-B-32, pretrained: openai}
        grid:                                     # every combination, the last parameter changes first
          dataset: [cifar100, "folder:birds"]
          model:                                  # parameters that change together, under a name of one's own
            - {backbone: ViT-B-32, pretrained: openai}
            - {backbone: ViT-L-14, pretrained: openai}
          seed: [0, 1, 2]

    Raises:
        InputError: no such file, or what it holds is no sweep; a study that could not be run by itself either, with
            its number.
    """
    found = read_mapping(path, "sweep")
    for part in found:
        if part not in PARTS:
            raise InputError(f"sweep: {path.name} has a part {part!r}: its parts are {', '.join(PARTS)}")
    common = mapping(found.get("common") or {}, "sweep: common is")
    listed = found.get("studies") or []
    if not isinstance(listed, list):
        raise InputError("sweep: studies is no list: write one study a line, each after a dash")
    given = [mapping(one, f"sweep: study {n} is") for n, one in enumerate(listed, 1)]
    given += _combinations(mapping(found.get("grid") or {}, "sweep: grid is"))
    if not given:
        raise InputError(f"sweep: {path.name} names no study: give studies, or a grid")
    if len(given) > MOST:
        raise InputError(f"sweep: {path.name} names {len(given):,} studies, and {MOST:,} are the most: make several")
    studies = [_study(n, {**common, **fields}) for n, fields in enumerate(given, 1)]
    each = list({study.model_dump_json(): study for study in studies}.values())
    if same := len(studies) - len(each):
        are = "is the same as another" if same == 1 else "are the same as others"
        tell(f"sweep: {same:,} of {counted(len(studies), 'study', 'studies')} {are}: each is run once")
    return each


def sweep_name(path: Path, studies: list[Study]) -> str:
    """The name of a sweep's folder: of its file, and a digest of its studies."""
    return f"{slugify(path.stem)}-{digest([study.model_dump() for study in studies])[:8]}"


def varied(studies: Sequence[Study]) -> list[str]:
    """The parameters that differ between studies; the data set where none does."""
    found = [name for name in Study.model_fields if len({str(getattr(study, name)) for study in studies}) > 1]
    return found or ["dataset"]


def shown(study: Study, names: Iterable[str]) -> dict[str, Any]:
    """These parameters of a study, as they may be published."""
    public = study.public()
    return {name: public[name] for name in names if name in public}


def _combinations(grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    axes = [list(_axis(name, values)) for name, values in grid.items()]
    _refuse_two_places(dict(zip(grid, axes, strict=True)))
    n = 1
    for axis in axes:
        n *= len(axis)
    if n > MOST:
        raise InputError(f"sweep: the grid has {n:,} combinations, and {MOST:,} are the most: make several sweeps")
    return ({key: v for part in parts for key, v in part.items()} for parts in product(*axes) if axes)


def _refuse_two_places(axes: dict[str, list[dict[str, Any]]]) -> None:
    """A parameter in two parts of a grid: the later part would take the place of the other without a word."""
    first: dict[str, str] = {}
    for name, parts in axes.items():
        for key in {key: None for part in parts for key in part}:
            if key in first:
                places = [f"its group {place}" for place in (first[key], name) if place != key]
                where = places if len(places) == 2 else ["the grid", *places]
                raise InputError(f"sweep: {key} is in {' and in '.join(where)}: leave one out")
            first[key] = name


def _axis(name: str, values: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(values, list) or not values:
        raise InputError(f"sweep: {name} of the grid has no list of values: write it as in {name}: [a, b]")
    for value in values:
        if not isinstance(value, dict) and name not in Study.model_fields:
            raise InputError(f"sweep: {name} is no parameter of a study: give it mappings of parameters, or rename it")
        yield mapping(value, f"sweep: {name} has") if isinstance(value, dict) else {name: value}


def _study(n: int, fields: dict[str, Any]) -> Study:
    if OWN in fields:
        raise InputError(f"sweep: study {n} has {OWN}, and a sweep has a folder of its own: leave it out")
    try:
        return Study.of(fields)
    except InputError as error:
        raise InputError(f"sweep: study {n}: {error}") from None
