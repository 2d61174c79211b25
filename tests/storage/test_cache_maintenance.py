"""The cache looked after: listed, verified, cut to a size; never more is removed than can be computed again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from finished_runs import cmm

from cmmlib import InputError
from cmmlib.storage.cache import cached, save_tensors
from cmmlib.storage.cache_maintenance import (
    LEFT_BEHIND,
    drop_damaged,
    drop_left_behind,
    entries,
    parse_size,
    prune,
    summary,
)

DAY = 86_400


@pytest.fixture
def filled(own_cache) -> list[Path]:
    """Four tensor files, used one day after the other, and a transcript older than all of them."""
    names = ["images/a", "texts/model/b", "images/c", "blazon/d"]
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
    assert done.err == "damaged, removed: texts/model/b.safetensors\n"
    assert not filled[1].exists()
    assert drop_damaged(entries(own_cache)) == []


def test_what_killed_processes_left_behind_goes_when_it_is_old(filled, own_cache):
    old, fresh = own_cache / "images" / ".a-1.safetensors", own_cache / "images" / ".b-2.safetensors"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - LEFT_BEHIND - 60))
    assert drop_left_behind(own_cache) == [old]
    assert fresh.exists()
    assert fresh not in [entry.path for entry in entries(own_cache)]


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
