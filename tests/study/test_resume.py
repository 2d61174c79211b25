"""Killed and started again: the same results to the last bit, and no embedding computed twice beyond one shard."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from finished_runs import cmm, write_embeddings, write_many
from forked_commands import COMMAND

from cmmlib import Study, open_run
from cmmlib.models import embed

SCRIPT = Path(__file__).with_name("killed_study.py")


@pytest.fixture(scope="module")
def story(tmp_path_factory, tiny_clip, fork) -> dict:
    """What killed_study.py came to, with 20 kills."""
    place = tmp_path_factory.mktemp("killed")
    images = write_many(place / "images").removeprefix("folder:")
    with fork(SCRIPT.read_text(), images, tiny_clip, place / "lives", "20") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


def test_twenty_kills_change_no_bit_of_the_results(story):
    assert sum(life["kills"] for life in story["lives"]) >= 20
    assert story["undisturbed"]["kills"] == 0
    assert all(life["files"] == story["undisturbed"]["files"] for life in story["lives"])
    assert json.loads(story["undisturbed"]["files"]["results.json"])["accuracy"]["overall"] > 0


def test_a_kill_costs_one_shard_at_most_and_leaves_nothing_broken(story):
    assert story["undisturbed"]["again"] == 0
    assert all(life["again"] <= life["kills"] for life in story["lives"])
    assert sum(life["again"] for life in story["lives"]) > 0  # some kills did hit a shard
    assert not any(life["damaged"] for life in story["lives"])


def test_a_whole_run_that_is_killed_ends_as_the_undisturbed_one(changed, tmp_path, fork):
    data = write_embeddings(tmp_path / "synthetic.npz")
    flags = ["--dataset", data, "--worst-k", "5", "--seed", "1", "--only", "01", "--out", tmp_path / "runs"]
    with fork(COMMAND, "run", *flags) as run:
        while run.poll() is None and not list(tmp_path.glob("runs/*/figures/*.svg")):  # the chapter is half way through
            time.sleep(0.01)
        assert run.poll() is None
        os.killpg(run.pid, signal.SIGKILL)
    assert not list(tmp_path.glob("runs/*/chapters/0*.ipynb"))
    folder = cmm("run", *flags).folder
    for name in ("results.json", "per_class.csv"):
        assert (folder / name).read_bytes() == (changed / name).read_bytes()


def test_studies_of_the_same_images_share_their_embeddings(tmp_path, tiny_clip, monkeypatch):
    many = write_many(tmp_path / "many")
    computed = []
    encode = embed._encode_shard
    monkeypatch.setattr(embed, "_encode_shard", lambda *args: computed.append(args[2]) or encode(*args))
    for changes in ({}, {"base_template": "a drawing of a {}."}, {"seed": 3, "worst_k": 2}, {"templates": "openai-80"}):
        open_run(Study.of({"dataset": many, "backbone": f"local-dir:{tiny_clip}", "out": str(tmp_path), **changes}))
        assert len(computed) == 1
