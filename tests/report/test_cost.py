"""What a study is said to take, before it begins."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest
import torch
from finished_runs import cmm, write_chapter, write_embeddings

from cmmlib.report import cost
from cmmlib.report.cost import GIB, Cost, free_memory

SIZES = Cost(images=2000, classes=100, prompts=8, width=64)


def test_every_size_costs_memory_and_time(monkeypatch):
    monkeypatch.setattr(Cost, "_unit", lambda self: 1e-9 * self.images * self.classes * self.width)
    for name in ("images", "classes", "prompts", "width"):
        larger = replace(SIZES, **{name: 10 * getattr(SIZES, name)})
        assert larger.memory() > SIZES.memory()
        assert larger.seconds() > SIZES.seconds()


def test_the_unit_of_a_part_stands_for_the_whole(monkeypatch):
    monkeypatch.setattr(cost, "SAMPLE", 10 * SIZES.classes)
    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0])  # four tries, the shortest of 1
    monkeypatch.setattr(cost.time, "process_time", lambda: next(clock))
    assert SIZES._unit() == SIZES.images / 10


def test_sizes_of_embeddings():
    assert Cost.of(torch.zeros(2000, 64), torch.zeros(8, 100, 64)) == SIZES


def test_memory_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(cost, "free_memory", lambda: 1 << 50)
    assert SIZES.warning() is None
    monkeypatch.setattr(cost, "free_memory", lambda: 100 << 20)
    assert f"take about a minute of processor time and {SIZES.memory() / GIB:.1f} GiB" in SIZES.warning()
    assert "and 0.1 GiB are free" in SIZES.warning()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "3000\n", "memory.current": "1000\n"}, 2000),
        ({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "2999"}, 1),
        ({"memory.max": "max\n", "memory.current": "1000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_limit_counts(files, left, tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cost, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 5 * GIB}))
    assert free_memory() == (5 * GIB if left is None else left)


def test_a_dry_run_and_a_run_say_it(tmp_path, monkeypatch):
    data = write_embeddings(tmp_path / "x.npz")
    assert "\nthe chapters take about a minute of processor time and " in cmm("run", "--dataset", data, "--dry-run").out
    assert "processor time" not in cmm("run", "--dataset", data, "--dry-run", "--only", "01").out
    (tmp_path / "notebooks").mkdir()
    write_chapter(tmp_path / "notebooks" / "01_quick.ipynb", "x = 1")
    write_chapter(tmp_path / "notebooks" / "02_quick.ipynb", "x = 1")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: tmp_path / name)
    monkeypatch.setattr(cost, "free_memory", lambda: 0)
    for flags, is_told in ([], True), (["--only", "01"], False):  # one chapter may need less
        said = cmm("run", "--dataset", data, *flags, "--out", tmp_path / "runs")
        assert (said.code, "0.0 GiB are free" in said.err) == (0, is_told), said.err
