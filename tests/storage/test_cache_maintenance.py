"""The cache looked after: listed, verified, cut to a size; never more is removed than can be computed again.

What somebody else put into the cache folder stays: models, data sets, links, whatever its name.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from pathlib import Path

import pooch
import pytest
import torch
from conftest import write_images
from data_sets import web_data_set
from finished_runs import cmm
from safetensors.torch import save_file

from cmmlib import InputError
from cmmlib.blazon.training import model as blazon_mini
from cmmlib.data.load import load_dataset
from cmmlib.evaluation import published_files
from cmmlib.models import embed
from cmmlib.models.backbones import load_backbone
from cmmlib.models.embed_texts import embed_texts
from cmmlib.storage.cache import KINDS, cached, digest, is_unfinished, save_tensors, whole_file, write_memo
from cmmlib.storage.cache_maintenance import (
    LEFT_BEHIND,
    OTHER,
    drop_damaged,
    drop_left_behind,
    entries,
    others,
    parse_size,
    prune,
)
from cmmlib.storage.cache_maintenance import summary as table_of
from cmmlib.texts import transcripts

DAY = 86_400
A, B, C, D = (digest(letter) for letter in "abcd")


@pytest.fixture
def filled(own_cache) -> list[Path]:
    """Four tensor files, used one day after the other, and a transcript older than all of them."""
    names = [f"images/{A}", f"texts/{D}/{B}", f"images/{C}", f"blazon/{D}"]
    paths = [own_cache / f"{name}.safetensors" for name in names]
    for day, path in enumerate(paths):
        save_tensors(path, {"x": torch.zeros(1000)})
        os.utime(path, (1e9 + DAY * day, 1e9))
    answers = own_cache / "transcripts" / "answers.jsonl"
    answers.parent.mkdir()
    answers.write_text("{}\n" * 100)
    os.utime(answers, (9e8, 9e8))
    return paths


def test_entries_are_all_files_the_longest_unused_first(filled, own_cache):
    found = entries(own_cache)
    assert [entry.path.name for entry in found] == ["answers.jsonl", *(path.name for path in filled)]
    assert [entry.kind for entry in found] == ["transcripts", "images", "texts", "images", "blazon"]
    assert [entry.is_tensors for entry in found] == [False, True, True, True, True]


def test_the_summary_adds_up(filled, own_cache):
    table = table_of(entries(own_cache)).set_index("kind")
    assert table["files"].to_dict() == {"blazon": 1, "images": 2, "texts": 1, "transcripts": 1, "total": 5}
    assert table.loc["total", "last used"] == table.loc["blazon", "last used"] == "2001-09-12"
    assert table_of([])["files"].tolist() == [0]


def test_reading_an_entry_makes_it_the_last_to_go(filled, own_cache):
    written = filled[0].stat().st_mtime
    assert cached(filled[0], dict) is not None
    assert entries(own_cache)[-1].path == filled[0]
    assert filled[0].stat().st_mtime == written


def test_a_check_is_no_use(filled, own_cache):
    before = entries(own_cache)
    assert drop_damaged(before) == []
    assert entries(own_cache) == before


def test_pruning_removes_the_longest_unused_and_no_more_than_it_must(filled, own_cache):
    found = entries(own_cache)
    total = sum(entry.size for entry in found)
    removed = prune(found, total - found[1].size - 1)
    assert [entry.path for entry in removed] == filled[:2]
    assert [path.exists() for path in filled] == [False, False, True, True]
    assert prune(entries(own_cache), 10**9) == []


def test_answers_that_cost_money_are_never_removed(filled, own_cache):
    assert len(prune(entries(own_cache), 0)) == 4
    assert [entry.path.name for entry in entries(own_cache)] == ["answers.jsonl"]


def test_a_damaged_entry_is_found_removed_and_named(filled, own_cache):
    content = bytearray(filled[1].read_bytes())
    content[-1] ^= 1
    filled[1].write_bytes(content)
    done = cmm("cache", "verify")
    assert (done.code, done.out) == (1, "4 entries, 1 damaged\n")
    assert done.err == f"damaged, removed: texts/{D}/{B}.safetensors\n"
    assert not filled[1].exists()
    assert drop_damaged(entries(own_cache)) == []


def test_a_cache_that_may_only_be_read_is_checked_too(filled, own_cache, monkeypatch):
    filled[1].write_bytes(b"damaged")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    done = cmm("cache", "verify")
    assert (done.code, done.out) == (1, "4 entries, 1 damaged\n")
    assert done.err == f"damaged, could not be removed: texts/{D}/{B}.safetensors\n"


@pytest.mark.parametrize("damage", [b"", b"cut", "merges"])
def test_the_small_model_s_tokenizer_is_made_again_where_it_is_damaged(damage, own_cache):
    blazon_mini.register.cache_clear()
    tokens = blazon_mini.tokenizer()(["a lion rampant"])
    merges, config = sorted((own_cache / blazon_mini.NAME).iterdir(), reverse=True)
    content = merges.read_bytes()
    lines = gzip.decompress(content).decode().split("\n")
    merges.write_bytes(
        gzip.compress("\n".join([lines[0], *lines[:0:-1]]).encode()) if damage == "merges" else content[:99]
    )
    if isinstance(damage, bytes):
        merges.write_bytes(damage)
    config.write_text("{}")
    blazon_mini.register.cache_clear()
    with pytest.warns(UserWarning, match="is damaged: written again") as told:
        assert blazon_mini.tokenizer()(["a lion rampant"]).equal(tokens)
    assert len(told) == 1  # the configuration holds the cache's place, and is another where a cache was moved
    assert str(merges) in config.read_text()
    assert merges.read_bytes() == content


def test_a_cache_that_may_only_be_read_is_enough_for_the_small_model(own_cache, monkeypatch):
    blazon_mini.register.cache_clear()
    blazon_mini.register()
    monkeypatch.setattr(blazon_mini, "whole_file", None)
    blazon_mini.register.cache_clear()
    blazon_mini.register()


@pytest.mark.parametrize("damage", ["", "[]", "null", '{"sha256": "0", "content": {}}', "\0\xff"])
@pytest.mark.parametrize("name", [f"digests/{A[:32]}.json", f"webdatasets/{B}.json"])
def test_a_damaged_memo_is_found_removed_and_named(own_cache, name, damage):
    whole, damaged = own_cache / f"digests/{C[:32]}.json", own_cache / name
    for path in (whole, damaged):
        write_memo(path, {"file": [1, 2, 3, "digest"]})
    assert cmm("cache", "verify").out == "2 entries, 0 damaged\n"
    damaged.write_text(damage)
    done = cmm("cache", "verify")
    assert (done.code, done.out) == (1, "2 entries, 1 damaged\n")
    assert done.err == f"damaged, removed: {name}\n"
    assert (damaged.exists(), whole.exists()) == (False, True)


def test_what_killed_processes_left_behind_goes_when_it_is_old(filled, own_cache):
    old, fresh = (own_cache / "images" / f".{A[:40]}-{ending}.safetensors" for ending in ("_k3j2h1z", "00000000"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    age(old)
    assert drop_left_behind(own_cache) == [old]
    assert fresh.exists()
    assert fresh not in [entry.path for entry in [*entries(own_cache), *others(own_cache)]]


def age(path: Path) -> Path:
    """Make a file so old that no process can still be writing it."""
    long_ago = time.time() - LEFT_BEHIND - 60
    os.utime(path, (long_ago, long_ago))
    return path


def test_the_commands_list_and_prune(filled, own_cache):
    listed = cmm("cache", "list")
    assert listed.out.splitlines()[0] == str(own_cache)
    assert listed.out.splitlines()[-1].split()[:2] == ["total", "5"]
    done = cmm("cache", "prune", "--size", "10 kB")
    assert done.out == "2 entries removed, 0.0 MB; 0 files that killed processes left behind\n"
    assert sum(entry.size for entry in entries(own_cache)) <= 10_000


def test_an_empty_cache_is_no_error(own_cache):
    own_cache.rmdir()
    assert cmm("cache", "list").code == cmm("cache", "verify").code == cmm("cache", "prune", "--size", "0").code == 0


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2T", 2e12)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1GB", "1 XB", "1GB 2", "20"])
def test_no_size_is_refused(text, own_cache):
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)
    done = cmm("cache", "prune", f"--size={text}")
    assert (done.code, done.out) == (2, "")


# ---------------------------------------------------------------- what is not the cache's own


@pytest.fixture
def published_here(own_cache, tmp_path, monkeypatch) -> None:
    """An authors' repository with a file of every published name, without a server."""

    def download(self, url: str, output_file: str, pooch: object) -> None:
        assert is_unfinished(Path(output_file), own_cache)  # what a killed process would leave
        Path(output_file).write_text("{}")

    registry = tmp_path / "registry.txt"
    published = published_files.REGISTRY.read_text(encoding="utf-8").splitlines()
    registry.write_text("".join(f"{line.split()[0]} {hashlib.sha256(b'{}').hexdigest()}\n" for line in published))
    monkeypatch.setattr(published_files, "REGISTRY", registry)
    monkeypatch.setattr(published_files, "host_responds", lambda address: True)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)


@pytest.mark.usefixtures("published_here")
def test_everything_that_is_written_into_the_cache_is_known(own_cache, tiny_clip, tmp_path):
    with torch.inference_mode():
        backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
        embed.embed_images(backbone, load_dataset(f"folder:{write_images(tmp_path / 'images')}"))
        embed_texts(backbone, ["a cat", "a dog"])
    load_dataset(f"wds:{web_data_set(tmp_path / 'wds')}")
    load_dataset("blazon")
    blazon_mini.register.__wrapped__()
    transcripts.append(
        transcripts.own_transcript_path(), transcripts.Record("cat", "photographs", "describe", (), ("a cat",))
    )
    published_files.fetch()
    assert {entry.kind for entry in entries(own_cache)} == set(KINDS)
    assert others(own_cache) == []
    for entry in entries(own_cache):
        with whole_file(entry.path) as temporary:
            others_way = ("transcripts", "published")  # which only grow, and which pooch writes
            assert is_unfinished(temporary, own_cache) or entry.kind in others_way
            temporary.write_bytes(entry.path.read_bytes())


def write(path: Path) -> Path:
    """Somebody's tensors, which the cache's own reader would take for damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.zeros(1000)}, path)
    return age(path)


FOREIGN = [
    "mymodels/open_clip_model.safetensors",
    f"mymodels/{A}.safetensors",
    f"data/images/{A}.safetensors",
    f"data/.download-abcd/images/.{A[:40]}-aaaaaaaa.safetensors",
    "images/model.safetensors",
    f"images/{A[:-1]}.safetensors",
    f"images/{A.upper()}.safetensors",
    f"images/{A}.safetensors.bak",
    f"images/deeper/{A}.safetensors",
    f"images/{D}.safetensors/{A}.safetensors",  # in a folder that has an entry's name
    f"texts/{A}.safetensors",
    f"texts/mine/{A}.safetensors",
    f"texts/{D}/mine.safetensors",
    f"{A}.safetensors",
    ".bashrc",
    ".ssh/.config",
    "images/.DS_Store",
    "images/.nfs0000000012345678.safetensors",
    "images/.mine-aaaaaaaa.safetensors",
    f"mymodels/.{A[:40]}-aaaaaaaa.safetensors",
    f".{A[:40]}-aaaaaaaa.safetensors",
    "transcripts/.answers.jsonl-aaaaaaaa.jsonl",
    "published/mine.json",
    "published/search_counts/deeper/x.json",
    "published/search_counts/model.safetensors",
    "published/tmpaaaaaaaa",
    "search_counts/tmpaaaaaaaa",
]


def looked_after() -> None:
    """Every command, as hard as it goes."""
    for command in (["list"], ["verify"], ["prune", "--size", "0"]):
        said = cmm("cache", *command)
        assert said.code == 0, said.err


def test_what_somebody_else_put_there_stays(filled, own_cache):
    foreign = [write(own_cache / name) for name in FOREIGN]

    def state() -> list[tuple[int, ...]]:
        return [(one.st_ino, one.st_size, one.st_atime_ns, one.st_mtime_ns) for one in map(Path.stat, foreign)]

    before = state()
    for command in (["verify"], ["prune", "--size", "0"]):
        assert cmm("cache", *command).out.startswith("4 entries")
    assert state() == before  # not even read
    assert not any(path.exists() for path in filled)


def test_what_is_somebody_elses_does_not_count(filled, own_cache):
    size = sum(entry.size for entry in entries(own_cache))
    write(own_cache / "data" / "huge.safetensors")
    assert prune(entries(own_cache), size) == []
    listed = table_of(entries(own_cache), others(own_cache)).set_index("kind")
    assert listed.loc["total", "files"] == 5
    assert listed.loc[OTHER, "files"] == 1
    assert OTHER in cmm("cache", "list").out.splitlines()[-1]


@pytest.mark.parametrize("damaged", [False, True])
def test_links_are_neither_followed_nor_removed(own_cache, tmp_path, damaged):
    outside = tmp_path / "outside"
    for path in (outside / f"{A}.safetensors", outside / D / f"{B}.safetensors"):
        write(path) if damaged else save_tensors(path, {"x": torch.zeros(3)})
    unfinished = write(outside / f".{A[:40]}-aaaaaaaa.safetensors")
    (own_cache / "images").symlink_to(outside)
    (own_cache / "texts").mkdir()
    (own_cache / "texts" / D).symlink_to(outside / D)
    (own_cache / "blazon").mkdir()
    (own_cache / "blazon" / f"{A}.safetensors").symlink_to(outside / f"{A}.safetensors")
    (own_cache / "blazon" / f"{B}.safetensors").symlink_to(tmp_path / "nowhere")
    (own_cache / "blazon" / f"{C}.safetensors").symlink_to(outside)
    (own_cache / "blazon" / unfinished.name).symlink_to(unfinished)
    before = sorted([*own_cache.rglob("*"), *outside.rglob("*")])
    assert entries(own_cache) == others(own_cache) == []
    looked_after()
    assert sorted([*own_cache.rglob("*"), *outside.rglob("*")]) == before


def test_a_cache_that_is_reached_by_a_link_is_looked_after(filled, own_cache, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(own_cache)
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "link"))
    assert cmm("cache", "prune", "--size", "0").out.startswith("4 entries removed")


def test_folders_and_pipes_with_an_entrys_name_are_no_entries(own_cache):
    (own_cache / "images" / f"{A}.safetensors").mkdir(parents=True)
    (own_cache / "images" / f".{A[:40]}-aaaaaaaa.safetensors").mkdir()
    os.mkfifo(own_cache / "images" / f"{B}.safetensors")
    looked_after()
    assert len(list(own_cache.rglob("*"))) == 4


def test_texts_are_embedded_beside_what_somebody_else_put_there(own_cache, tiny_clip):
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    first = embed_texts(backbone, ["a cat"])
    ((folder,),) = [list((own_cache / "texts").iterdir())]
    foreign = write(folder / "mine.safetensors")
    assert torch.equal(embed_texts(backbone, ["a cat"]), first)
    assert foreign.exists()


@pytest.mark.parametrize("command", [["list"], ["verify"], ["prune", "--size", "0"]])
def test_a_cache_that_is_no_folder_is_one_line(command, tmp_path, monkeypatch):
    (tmp_path / "good.npz").write_text("mine")
    for place in (tmp_path / "good.npz", "/dev/null"):
        monkeypatch.setenv("CMM_CACHE", str(place))
        said = cmm("cache", *command)
        line = f"cmm: the cache {place} is no folder: name another with CMM_CACHE\n"
        assert (said.code, said.out, said.err) == (2, "", line)
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "none"))
    assert cmm("cache", *command).code == 0
    assert (tmp_path / "good.npz").read_text() == "mine"


def test_a_cache_that_cannot_be_read_is_not_called_empty(own_cache, monkeypatch):
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("cmmlib.storage.cache_maintenance.os.scandir", refuse)
    said = cmm("cache", "list")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"cmm: the cache {own_cache} cannot be read: permission denied\n"
