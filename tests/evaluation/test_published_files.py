"""Where published accuracies come from: the package, a folder, or the authors' repository, of which a server here plays
the part."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pooch
import pytest
from finished_runs import cmm, write_embeddings

from cmmlib import InputError, Study, open_run
from cmmlib.evaluation import published, published_files
from cmmlib.evaluation.published_files import COMMIT, REGISTRY, fetch, tables
from cmmlib.storage.cache import file_digest

NEW = "a new *model* <b>"


def write_all(clone: Path) -> Path:
    """Files as in the authors' repository, of every data set, model and one more, with few classes."""
    shipped, random = published.shipped("models"), np.random.default_rng(0)
    models = shipped[["backbone", "pretrained"]].drop_duplicates()
    for (data, prompts), _ in shipped.groupby(["data", "prompts"]):
        kind = next(key for key, value in published.PROMPTS.items() if value == prompts)
        content = {}
        for backbone, pretrained in [*models.itertuples(index=False, name=None), (NEW, "laion400m")]:
            classes = {f"class {c}": float(random.integers(1, 101)) for c in range(60)}
            content[f"backbone{backbone}_pretrained{pretrained}"] = {
                "full": float(np.mean(list(classes.values()))),
                "classwise": classes,
            }
        file = clone / "zero_shot_evaluations" / f"{data}_{kind}_results.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    for data in shipped["data"].unique():
        for ending in published.COUNT_ENDINGS:
            file = clone / "search_counts" / f"{data}{ending}"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({f"class {c}": int(random.integers(1, 10**6)) for c in range(60)}))
    return clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("published") / "clone")


class Quiet(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def repository(clone, tmp_path, monkeypatch, own_cache) -> Iterator[Path]:
    """The clone behind an address, with its checksums in place of the package's; `Quiet.asked` are the requests."""
    served = tmp_path / "served" / COMMIT
    shutil.copytree(clone, served)
    registry = tmp_path / "registry.txt"
    sums = {path.relative_to(served).as_posix(): file_digest(path) for path in served.rglob("*.json")}
    registry.write_text("".join(f"{name} {value}\n" for name, value in sums.items()))
    Quiet.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(published_files, "ADDRESS", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(published_files, "REGISTRY", registry)
        yield served
        server.shutdown()


def test_without_a_source_the_tables_are_those_of_the_package():
    for name, table in tables(None).items():
        pd.testing.assert_frame_equal(table, published.shipped(name))


@pytest.mark.usefixtures("few_draws")  # of intervals, whose values nothing here looks at
def test_a_folder_gives_the_tables_of_its_files(clone):
    found = tables(str(clone))
    assert set(found) == set(tables(None))
    accuracies = published.read_published(clone)
    expected = published.model_table(accuracies).round(4)
    pd.testing.assert_frame_equal(found["models"].drop(columns=[*published_files.SIZES]), expected)
    known = published.shipped("models").set_index("backbone")["parameters"]["RN50"].iloc[0]
    sizes = found["models"].set_index("backbone")["parameters"]
    assert (sizes["RN50"] == known).all()
    assert sizes[NEW].isna().all()  # open_clip has no such architecture
    for name, table in found.items():
        assert list(table) == list(published.shipped(name)), name


@pytest.mark.parametrize("backbone", ["ViT-B-32", "RN50"])
def test_sizes_are_those_of_the_architecture(backbone):
    known = published.shipped("models").set_index("backbone").loc[backbone].iloc[0]
    found = published_files.size_of(backbone)
    assert found == {size: known[size] for size in published_files.SIZES}


@pytest.mark.usefixtures("few_draws")  # of intervals, whose values nothing here looks at
def test_files_are_fetched_once_and_compared(repository):
    folder = fetch()
    assert len(Quiet.asked) - 1 == len(list(folder.rglob("*.json")))  # and one knock at the door
    assert published.read_published(folder).equals(published.read_published(repository))
    Quiet.asked.clear()
    fetch()
    assert not Quiet.asked
    assert set(tables("fetch")) == set(tables(None))


def test_a_file_that_is_another_is_refused_in_one_line(repository):
    changed = next(repository.rglob("*dtd_class_results.json"))
    changed.write_text(changed.read_text().replace("0", "1"))
    with pytest.raises(InputError, match="could not be fetched from http") as error:
        fetch()
    assert "\n" not in str(error.value)


def test_a_connection_that_fails_half_way_is_one_line(repository, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("reset by peer")  # as those of requests, which name no file

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(InputError, match=r"a file could not be fetched from http.*reset by peer"):
        fetch()


def test_offline_it_is_one_line_at_once(own_cache, monkeypatch):
    monkeypatch.setattr(published_files, "host_responds", lambda address: False)
    with pytest.raises(InputError, match=r"99 files not on this machine, and no host answers .* give --published"):
        fetch()
    assert not list(own_cache.rglob("*.json"))


def test_a_file_that_is_missing_is_named(clone, tmp_path):
    shutil.copytree(clone, tmp_path / "some")
    for path in (tmp_path / "some").rglob("imagenet_*_results.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"lacks 63 of the 1197 published pairs .* first: imagenet, class name, "):
        tables(str(tmp_path / "some"))


def test_a_study_takes_a_folder_and_its_id_tells_the_files(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_embeddings(tmp_path / "x.npz")
    plain = open_run(Study.of({"dataset": data})).id
    ids = {plain, *(open_run(Study.of({"dataset": data, "published": at})).id for at in (str(clone), "fetch"))}
    shutil.copytree(clone, tmp_path / "same")
    assert len(ids) == 3
    assert open_run(Study.of({"dataset": data, "published": "same"})).id in ids
    said = cmm("run", "--dataset", data, "--published", tmp_path / "none", "--dry-run")
    assert (said.code, said.out) == (2, "")
    assert "has no file like imagenet_class_results.json" in said.err
    assert cmm("run", "--dataset", data, "--published", tmp_path / "none").err == said.err


def test_chapter_0_shows_the_folder_s_models(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "x.npz"), "--published", clone, "--only", "00")
    assert said.code == 0, said.err
    chapter = (Path(said.out.strip()) / "chapters" / "00_real_clip.ipynb").read_text()
    assert "22 models on 19 data sets, from the files of clone." in chapter
    assert NEW not in chapter


@pytest.mark.real
def test_the_shipped_checksums_and_tables_are_those_of_the_authors_files(real_data):
    folder = real_data.parent / "published"
    if not folder.is_dir():
        pytest.skip(f"no published accuracies: {folder} is missing")
    sums = {Path(name).name: value for name, value in (line.split() for line in REGISTRY.read_text().splitlines())}
    for path in (path for path in folder.rglob("*.json") if path.name in sums):
        assert file_digest(path) == sums[path.name]
    assert len(sums) == len(list(folder.rglob("*.json")))
    for name, table in tables(str(folder)).items():
        pd.testing.assert_frame_equal(table, published.shipped(name))
