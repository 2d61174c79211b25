"""`cmm describe` from end to end: a folder of images, a tiny CLIP, and a language model on this machine."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import KEY, MODEL, PATIENCE, ChatServer, Reply, chat, failure, good, serving
from conftest import write_images
from finished_runs import cmm
from forked_commands import COMMAND

from cmmlib.study.run_files import read_object

CLASSES = {"grey ramp", "noise", "palette", "see through glass"}


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        yield server


@pytest.fixture
def flags(server, tiny_clip, tmp_path) -> list[str]:
    images = write_images(tmp_path / "images")
    study = ["--dataset", f"folder:{images}", "--backbone", f"local-dir:{tiny_clip}", "--every-class"]
    return [*study, "--llm", MODEL, "--llm-base-url", server.url, "--transcript", str(tmp_path / "t.jsonl")]


def last_line(err: str) -> str:
    assert KEY not in err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_every_class_is_asked_once_and_a_second_call_asks_nothing(flags, server):
    for _ in range(2):
        said = cmm("describe", *flags)
        assert (said.code, said.out.splitlines()) == (0, ["4 of 4 classes described", flags[-1]])
        assert server.requests == Counter(CLASSES)


def test_a_run_asks_before_its_chapters_and_a_second_one_asks_nothing(flags, server, tmp_path):
    study = [flag for flag in flags if flag != "--every-class"]
    runs = []
    for _ in range(2):
        said = cmm("run", *study, "--only", "03,04", "--n-described", "2", "--out", tmp_path / "runs")
        assert (said.code, server.requests.total()) == (0, 2), said.err
        assert set(server.requests) < CLASSES
        runs.append(Path(said.out.strip()))
    assert runs[0] == runs[1]
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [runs[0].name]
    assert "03_enrichment: up to date" in said.err
    assert len(read_object(runs[0] / "results.json")["enrichment"]["classes"]) == 2


def test_a_run_whose_model_gives_no_answer_stops_before_its_chapters(flags, server, tmp_path):
    server.always = failure(400)
    study = [flag for flag in flags if flag != "--every-class"]
    said = cmm("run", *study, "--only", "03,04", "--n-described", "2", "--out", tmp_path / "runs")
    assert (said.code, said.out) == (1, "")
    assert last_line(said.err) == f"cmm: llm: {MODEL} described no class: the provider failed: BadRequestError"
    assert not (tmp_path / "runs").exists()


def test_where_no_class_was_described_the_exit_code_is_1_and_the_reason_is_said(flags, server):
    server.always = Reply(chat('{"descriptions": ["A lion', "length"))
    said = cmm("describe", *flags)
    assert (said.code, said.out.splitlines()[0]) == (1, "0 of 4 classes described")
    assert last_line(said.err) == f"cmm: llm: {MODEL} described no class: unusable twice: cut at 7 tokens"


def test_where_some_classes_were_described_the_others_are_named(flags, server):
    server.script["noise"] = [failure(400)]
    said = cmm("describe", *flags)
    assert (said.code, said.out.splitlines()[0]) == (0, "3 of 4 classes described")
    assert "noise: the provider failed: BadRequestError" in said.err.splitlines()


def test_a_cost_that_cannot_be_kept_is_an_error_of_the_user(flags, server):
    said = cmm("describe", *flags, "--max-cost", "1")
    assert (said.code, said.out) == (2, "")
    assert last_line(said.err).endswith("so --max-cost cannot be kept: give --max-requests")
    assert not server.requests


def test_ctrl_c_keeps_the_answers_under_way_and_a_second_call_asks_only_for_the_rest(flags, server, fork):
    arrived, held = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        arrived.release()
        held.wait(PATIENCE)

    server.script = {name: [good(name, after=hold)] for name in ("palette", "see through glass")}
    server.script["noise"] = [failure(429, Retry_After="60")]
    with fork(COMMAND, "describe", *flags) as process:
        for _ in range(2):
            assert arrived.acquire(timeout=4 * PATIENCE)
        process.send_signal(signal.SIGINT)
        while "stopping: answers under way are waited for" not in process.stderr.readline():
            assert process.poll() is None
        held.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert last_line(err) == "cmm: stopped; what was embedded or answered is kept, run the same command to go on"
    assert len(Path(flags[-1]).read_text().splitlines()) == 3  # one was answered before
    server.script = {}
    asked = server.requests["noise"]
    assert cmm("describe", *flags).code == 0
    assert server.requests == {**Counter(CLASSES), "noise": asked + 1}


@pytest.mark.parametrize("second", [None, signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_as_ctrl_c_does_and_a_second_one_leaves(second, flags, server, fork):
    arrived, held = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        arrived.release()
        held.wait(PATIENCE)

    server.script = {name: [good(name, after=hold)] for name in CLASSES}
    with fork(COMMAND, "describe", *flags) as process:
        for _ in CLASSES:
            assert arrived.acquire(timeout=4 * PATIENCE)
        process.send_signal(signal.SIGTERM)
        while "stopping: answers under way are waited for, 60 s at most; Ctrl-C again" not in process.stderr.readline():
            assert process.poll() is None
        if second is None:
            held.set()
        else:
            time.sleep(0.5)  # it is waiting now
            process.send_signal(second)
        out, err = process.communicate(timeout=PATIENCE / 2)
        left = not held.is_set()
        held.set()
    assert (process.returncode, out, left) == (128 + signal.SIGTERM, "", second is not None)
    assert last_line(err) == "cmm: stopped; what was embedded or answered is kept, run the same command to go on"
    kept = Path(flags[-1]).read_text().splitlines() if Path(flags[-1]).exists() else []
    assert len(kept) == (0 if second else len(CLASSES))
