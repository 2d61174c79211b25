"""The cache looked after: listed, verified, cut to a size; never more is removed than can be computed again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from finished_runs import cmm

from cmmlib import InputError
from cmmlib.cache import cached, digest, save_tensors, whole_file
from cmmlib.housekeeping import LEFT_BEHIND, drop_damaged, drop_left_behind, entries, parse_size, prune, summary

DAY = 86_400


@pytest.fixture
def filled(own_cache) -> list[Path]:
    """Four tensor files, used one day after the other, and a transcript older than all of them."""
    names = [f"images/{digest('a')}", f"texts/{digest('model')}/{digest('b')}", f"images/{digest('c')}"]
    names.append(f"blazon/{digest('d')}")
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
    table = summary(entries(own_cache)).set_index("kind")
    assert table["files"].to_dict() == {"blazon": 1, "images": 2, "texts": 1, "transcripts": 1, "total": 5}
    assert table.loc["total", "last used"] == table.loc["blazon", "last used"] == "2001-09-12"
    assert summary([])["files"].tolist() == [0]


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
    assert (done.code, done.out) == (0, "4 entries, 1 damaged\n")
    assert done.err == f"damaged, removed: {filled[1].relative_to(own_cache)}\n"
    assert not filled[1].exists()
    assert drop_damaged(entries(own_cache)) == []


def half_written(path: Path) -> Path:
    """What a kill leaves of a file that was being written."""
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
    return path.rename(temporary)


def make_old(path: Path) -> None:
    os.utime(path, (0, time.time() - LEFT_BEHIND - 60))


def test_what_killed_processes_left_behind_goes_when_it_is_old(filled, own_cache):
    name = f"{digest('x')}.safetensors"
    places = [f"images/{name}", f"texts/{digest('m')}/{name}", f"digests/{digest('x')[:32]}.json"]
    old = [half_written(own_cache / place) for place in (*places, f"webdatasets/{digest('x')}.json")]
    fresh = half_written(own_cache / "images" / name)
    for path in old:
        make_old(path)
    assert sorted(drop_left_behind(own_cache)) == sorted(old)
    assert fresh.exists()
    assert fresh not in [entry.path for entry in entries(own_cache)]


def test_files_of_somebody_else_stay(filled, own_cache):
    """`CMM_CACHE` may name any folder: a project, or one with the weights of other models."""
    places = [
        ".env",
        ".git/HEAD",
        ".git/.hidden",
        "src/.gitignore",
        ".x-12345678.json",
        "images/.a-12345678.safetensors",
    ]
    places += ["model.safetensors", "images/cats.safetensors", "texts/model.safetensors", "hub/model/w.safetensors"]
    places += [
        f"{digest('w')}.safetensors",
        f"data/{digest('w')}.safetensors",
        f"images/deep/{digest('w')}.safetensors",
    ]
    for place in places:
        (own_cache / place).parent.mkdir(parents=True, exist_ok=True)
        (own_cache / place).write_bytes(b"no tensors of this cache")
        make_old(own_cache / place)
    assert cmm("cache", "verify").out == "4 entries, 0 damaged\n"
    assert cmm("cache", "prune", "--size", "0").out.startswith("4 entries removed")
    assert [place for place in places if not (own_cache / place).exists()] == []
    assert not any(path.exists() for path in filled)


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


@pytest.mark.parametrize("text", ["", "many", "-1GB", "1 XB", "1GB 2"])
def test_no_size_is_refused(text, own_cache):
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)
    done = cmm("cache", "prune", f"--size={text}")
    assert (done.code, done.out) == (2, "")
