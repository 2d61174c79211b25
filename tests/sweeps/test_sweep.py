"""Sweeps on a real scheduler with two worker processes: the bytes of one process, whatever dies on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from finished_runs import CMM, cmm, write_embeddings
from synthetic_embeddings import synthetic_arrays

pytest.importorskip("distributed", reason="the extra sweep is not installed")
CHAPTERS = "01,02"
PATIENCE = 180.0  # seconds


def processes(of: int) -> list[psutil.Process]:
    """The studies' own processes below one, what they are forked off included."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        try:
            if "cmmlib.sweeps.study_server" in child.cmdline():
                found.append(child)
        except psutil.Error:  # ended meanwhile
            continue
    return found


def wait_for(condition, what: str):
    """What a condition gives as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def write_data(folder: Path) -> None:
    write_embeddings(folder / "one.npz")
    arrays = synthetic_arrays()
    write_embeddings(folder / "two.npz", **{key: arrays[key][::-1] for key in ("image_features", "labels")})


def write_sweep(folder: Path, **parts: object) -> Path:
    file = folder / "studies.yaml"
    file.write_text(yaml.safe_dump(parts))
    return file


@contextmanager
def start(folder: Path, *arguments: object, only: str = "01") -> Iterator[subprocess.Popen[str]]:
    command = [CMM, "sweep", "studies.yaml", "--only", only, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as sweep:
        try:
            yield sweep
        finally:
            sweep.kill()


def contents(run: Path) -> dict[str, object]:
    """What a run's files say, less what differs from one day to the next."""
    results = json.loads((run / "results.json").read_text())
    tables = {path.name: path.read_text() for path in run.glob("*.csv")}
    figures = {path.name: path.read_bytes() for path in (run / "figures").glob("*.svg")}
    return {"results": results, **tables, **figures}


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep of two good studies and two bad ones, one of whose two workers was killed while it ran a study."""
    folder = tmp_path_factory.mktemp("swept")
    write_data(folder)
    (folder / "broken.npz").write_bytes(b"no archive")
    write_sweep(
        folder,
        grid={"dataset": [f"embeddings:{name}.npz" for name in ("one", "broken", "two")]},
        studies=[{"dataset": "embeddings:one.npz", "worst_k": 500}],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMM_CACHE", str(folder / "cache"))
        with start(folder, only=CHAPTERS) as sweep:
            runs = folder / "sweeps"
            wait_for(lambda: any(runs.glob("*/runs/one-*/manifest.json")), "no run began")
            worker = next(worker for worker in psutil.Process(sweep.pid).children() if processes(worker.pid))
            studies = processes(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
            _, alive = psutil.wait_procs(studies, timeout=PATIENCE)
            assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], "studies outlived their worker"
            out, err = sweep.communicate(timeout=PATIENCE)
    return folder, subprocess.CompletedProcess([], sweep.returncode, out, err)


def test_a_sweep_says_what_it_did_and_where_it_is(swept):
    folder, done = swept
    assert done.returncode == 1  # two studies failed
    assert len(done.stderr.splitlines()) == 4, done.stderr
    assert "4 of 4 studies: dataset embeddings:" in done.stderr
    place = folder / done.stdout.strip()
    assert place.parent == folder / "sweeps"
    runs = {path.name for path in (place / "runs").iterdir()}
    entries = json.loads((place / "sweep.json").read_text())["studies"]
    assert {entry["run"] for entry in entries if entry["run"]} == {f"runs/{name}" for name in runs}
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_every_failure_has_the_line_that_the_study_would_have_ended_with(swept):
    folder, done = swept
    with open(folder / done.stdout.strip() / "failures.csv", newline="") as file:
        failures = list(csv.DictReader(file))
    told = {(row["dataset"], row["worst_k"]): row["failed"] for row in failures}
    assert set(told) == {("embeddings:one.npz", "500"), ("embeddings:broken.npz", "")}
    assert told["embeddings:one.npz", "500"].startswith("worst_k")
    assert "broken.npz" in told["embeddings:broken.npz", ""]


def test_a_sweep_whose_worker_was_killed_gives_the_bytes_of_one_process(swept, tmp_path, monkeypatch):
    folder, done = swept
    monkeypatch.chdir(folder)
    swept_runs = {path.name: path for path in (folder / done.stdout.strip() / "runs").iterdir()}
    assert len(swept_runs) == 2
    for name in ("one", "two"):
        assert cmm("run", "--dataset", f"embeddings:{name}.npz", "--only", CHAPTERS, "--out", tmp_path).code == 0
    for run in tmp_path.iterdir():
        assert contents(run) == contents(swept_runs[run.name])


def test_the_table_has_a_row_for_every_run_and_method(swept):
    folder, done = swept
    place = folder / done.stdout.strip()
    with open(place / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["worst_k"], row["method"]) for row in rows] == [
        (f"embeddings:{name}.npz", "", "base") for name in ("one", "two")
    ]
    for row in rows:
        results = json.loads((place / "runs" / row["run"] / "results.json").read_text())
        assert np.isclose(float(row["overall"]), results["accuracy"]["overall"])
        assert float(row["gain_overall"]) == 0


def test_a_scheduler_that_is_lost_is_one_line_and_the_sweep_goes_on_later(tmp_path, monkeypatch):
    write_data(tmp_path)
    write_sweep(tmp_path, studies=[{"dataset": "embeddings:one.npz"}])
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "scheduler.json"
    python = [sys.executable, "-m", "distributed.cli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    serve = [*python[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    work = [*python[:2], "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-dashboard"]
    with (
        subprocess.Popen([*serve, "--scheduler-file", str(file)], **quiet) as scheduler,  # type: ignore[call-overload]
        subprocess.Popen([*work, "--nthreads", "1", "--host", "127.0.0.1"], **quiet) as worker,  # type: ignore[call-overload]
    ):
        try:
            wait_for(lambda: file.exists() and file.read_text().endswith("}"), "no scheduler")
            address = json.loads(file.read_text())["address"]
            with start(tmp_path, "--scheduler", address) as sweep:
                wait_for(lambda: processes(worker.pid), "no study began")
                scheduler.kill()
                out, err = sweep.communicate(timeout=PATIENCE)
        finally:
            for process in (scheduler, worker):
                process.kill()
    assert (sweep.returncode, out) == (1, "")
    assert err == "cmm: sweep: the scheduler is gone; what is done is kept, run the same command to go on\n"
    with start(tmp_path, "--workers", 1) as again:
        out, err = again.communicate(timeout=PATIENCE)
    assert (again.returncode, err.count("\n")) == (0, 1), err
    assert len(list((tmp_path / out.strip() / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scheduler", "tcp://127.0.0.1:1"), "--scheduler: nothing answers at tcp://127.0.0.1:1"),
        (("--scheduler", "nowhere"), "--scheduler: nothing answers at nowhere"),
        (("--cluster", "none.yaml"), "--cluster: cannot read none.yaml"),
        (("--cluster", "kind.yaml"), "--cluster: kind.yaml has type 'moab': there are slurm, pbs, lsf"),
        (("--cluster", "key.yaml"), "--cluster: key.yaml has 'python': what can be set is cores"),
        (("--cluster", "slurm.yaml"), "--cluster: sbatch is not on this machine: run the sweep where jobs are sent"),
        (("--only", "99"), "--only: no chapter '99'"),
        (("--scheduler", ""), "--scheduler: the address is empty: write one, or leave the flag out"),
        (("--scheduler", " "), "--scheduler: the address is empty"),
        (("--cluster", "key.yaml", "--scheduler", "tcp://a:1"), "name two clusters: leave one out"),
        (("--scheduler", "inproc://x"), "--scheduler: nothing answers at inproc://x"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line_and_nothing_is_made(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmmlib.sweeps.scheduling.CONNECT", "1s")
    write_sweep(tmp_path, studies=[{}])
    Path("kind.yaml").write_text("type: moab")
    Path("key.yaml").write_text("{type: slurm, python: evil}")
    Path("slurm.yaml").write_text("{type: slurm, cores: 1, memory: 1GB}")
    done = cmm("sweep", "studies.yaml", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert said in done.err
    assert not Path("sweeps").exists()


# What a queue does with a job's script: run it, here at once and on this machine.
SBATCH = """#!/bin/sh
echo "Submitted batch job 7"
cp "$1" job.sh  # the caller removes its own
setsid sh job.sh >job.log 2>&1 </dev/null &
"""


def write_commands(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


REFUSING = """#!/bin/sh
echo "sbatch: error: invalid partition specified: gpux" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "sbatch did not take the job: sbatch: error: invalid partition specified: gpux; correct slurm.yaml"),
        ({"interface": "ib77"}, "interface: this machine has no network 'ib77': it has lo"),
        ({"cores": -1, "processes": 0}, "cores: input should be greater than or equal to 1, got -1"),
        ({"cores": 1, "processes": 4}, "processes: more than cores: each process needs one"),
        ({"cores": 1.5}, "cores: input should be a valid integer, got 1.5"),
        ({"cores": None}, "cores: input should be a valid integer, got None"),
        ({"memory": 4}, "memory: input should be a valid string, got 4"),
        ({"memory": "much"}, "memory: 'much' is no size: write one as in 16GB"),
        ({"job_extra_directives": "--gres=gpu:1"}, "job_extra_directives is no list: write it as in job_extra_dir"),
        ({"job_script_prologue": "module load cuda"}, "job_script_prologue is no list"),
        ({"project": ["a"]}, "project: input should be a valid string, got ['a']"),
    ],
)
def test_a_cluster_that_cannot_be_is_one_line(settings, said, tmp_path, monkeypatch):
    write_sweep(tmp_path, studies=[{}])
    commands = write_commands(tmp_path / "bin", sbatch=REFUSING, scancel="#!/bin/sh\n")
    cluster = {"type": "slurm", "cores": 1, "memory": "1GB", "interface": "lo", **settings}
    (tmp_path / "slurm.yaml").write_text(json.dumps(cluster))
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    with start(tmp_path, "--cluster", "slurm.yaml", "--workers", 1) as sweep:
        out, err = sweep.communicate(timeout=PATIENCE)
    assert (sweep.returncode, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert not (tmp_path / "sweeps").exists()


def test_another_server_in_the_place_of_a_scheduler_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmmlib.sweeps.scheduling.CONNECT", "1s")
    write_sweep(tmp_path, studies=[{}])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, ended = server.getsockname()[1], threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while not ended.wait(0.1):
                    connection.send(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        done = cmm("sweep", "studies.yaml", "--scheduler", f"tcp://127.0.0.1:{port}")
        ended.set()
        thread.join()
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert f"--scheduler: nothing answers at tcp://127.0.0.1:{port}" in done.err


def test_a_sweep_runs_as_jobs_of_a_queue(tmp_path, monkeypatch):
    write_data(tmp_path)
    write_sweep(tmp_path, studies=[{"dataset": "embeddings:two.npz"}])
    commands = write_commands(tmp_path / "bin", sbatch=SBATCH, scancel="#!/bin/sh\n")
    (tmp_path / "slurm.yaml").write_text("{type: slurm, cores: 1, processes: 1, memory: 2GB, interface: lo}")
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "cache"))
    with start(tmp_path, "--cluster", "slurm.yaml", "--workers", 1) as sweep:
        out, err = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, err + (tmp_path / "job.log").read_text()
    assert err.count("\n") == 1
    assert [run.name.split("-")[0] for run in (tmp_path / out.strip() / "runs").iterdir()] == ["two"]
    assert not [path.name for path in tmp_path.iterdir() if path.suffix == ".pem"]


def test_another_dask_at_the_usual_port_is_no_warning():
    from cmmlib.sweeps import scheduling

    with socket.socket() as taken, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with suppress(OSError):  # it is taken already
            taken.bind(("", 8787))
            taken.listen()
        with scheduling.connected(1):
            pass
    assert [str(one.message) for one in warned if "Port" in str(one.message)] == []
