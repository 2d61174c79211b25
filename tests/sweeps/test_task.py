"""Tasks of a worker: each in a process of its own, forked off one that a thread keeps, whatever ends which of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from finished_runs import small_chapter, write_embeddings

from cmmlib.sweeps import task

WAITING = "import os, time\nfrom pathlib import Path\nPath('{}').write_text(f'{{os.getpid()}}.')\ntime.sleep(600)"
linux = pytest.mark.skipif("sys.platform != 'linux'", reason="studies are forked on Linux only")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests of this module have one server, as tasks of one thread have; it ends with them."""
    yield
    if server := getattr(task._own, "server", None):
        server.close()
        del task._own.server


def serve(folder: Path, lines: str, monkeypatch) -> None:
    """Let servers that begin from here on run these lines first; one that is there ends."""
    if server := getattr(task._own, "server", None):
        server.close()
    (folder / "study_server_of_test.py").write_text(f"{lines}\nfrom cmmlib.sweeps.study_server import main\nmain()\n")
    monkeypatch.setattr(task, "MODULE", "study_server_of_test")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def study(tmp_path) -> dict[str, str]:
    return {"dataset": write_embeddings(tmp_path / "x.npz"), "out": str(tmp_path / "runs")}


def test_a_task_says_where_its_run_is_and_in_how_many_seconds(study, tmp_path):
    done = task.in_process("run", study, "01")
    assert done["failed"] is None
    assert Path(done["run"]).parent == tmp_path / "runs"
    assert (Path(done["run"]) / "results.json").is_file()
    assert done["seconds"] > 0


def test_a_task_says_the_line_that_its_study_ended_with(study):
    assert task.in_process("run", {**study, "worst_k": "500"}, "01")["failed"].startswith("worst_k")
    assert task.in_process("run", {**study, "no": 1}, "01")["run"] is None


@linux
def test_a_thread_has_one_server_and_a_new_one_where_it_ended(study):
    first = task._server()
    assert task._server() is first
    psutil.Process(first.process.pid).kill()
    first.process.wait()
    assert task._server() is not first
    assert task.in_process("embed", study)["failed"] is None


@linux
def test_changed_code_is_not_run_from_memory(study, tmp_path, monkeypatch):
    """Of the package, or of what results depend on: a worker may live for weeks."""
    version = tmp_path / "version"
    version.write_text("1")
    serve(
        tmp_path,
        "import cmmlib.study.run_files as run_files\nfrom pathlib import Path\n"
        f"run_files.versions = lambda: {{'torch': Path({str(version)!r}).read_text()}}",
        monkeypatch,
    )
    assert task.in_process("embed", study)["failed"] is None
    first = task._server()
    assert task.in_process("embed", study)["failed"] is None
    assert task._server() is first
    version.write_text("2")
    assert task.in_process("embed", study)["failed"] is None
    assert task._server() is not first
    assert first.process.returncode == -signal.SIGKILL


@linux
@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'papermill'\")",
            "ModuleNotFoundError: No module named 'papermill'",
        ),
        ("import os\nos.environ['NUMBA_NUM_THREADS'] = 'x'", "NUMBA_NUM_THREADS is 'x': give a number of threads"),
    ],
)
def test_why_studies_cannot_begin_is_told(line, told, study, tmp_path, monkeypatch):
    serve(tmp_path, line, monkeypatch)
    for _ in range(2):  # each has the line, whatever became of the one before
        assert told in task.in_process("run", study, "01")["failed"]


@linux
def test_what_is_killed_is_told_and_leaves_no_process(study, tmp_path, monkeypatch):
    """The system ends the process with the most memory: a study's, or the one that it was forked off."""
    folder, busy = tmp_path / "clone", tmp_path / "busy"
    folder.mkdir()
    small_chapter(folder / "notebooks", WAITING.format(busy))
    serve(
        tmp_path,
        "from pathlib import Path\nimport cmmlib.report.chapters as chapters\n"
        f"chapters.source = lambda name: Path({str(folder)!r}) / name",
        monkeypatch,
    )
    outcomes: list[dict[str, object]] = []

    def run() -> None:
        for _ in range(2):
            outcomes.append(task.in_process("run", study, "01"))
        task._server().close()

    def when_busy() -> tuple[psutil.Process, list[psutil.Process]]:
        while not busy.exists() or not busy.read_text().endswith("."):
            assert thread.is_alive(), outcomes
            time.sleep(0.05)
        (kernel,) = (psutil.Process(int(pid)) for pid in busy.read_text()[:-1].split())
        busy.unlink()
        server = kernel.parent().parent()
        return server, server.children(recursive=True)

    thread = threading.Thread(target=run)
    thread.start()
    server, family = when_busy()
    max(server.children(), key=lambda one: one.pid).kill()  # the study, which is forked after what forks its kernels
    again, others = when_busy()
    assert again == server
    server.kill()
    thread.join(60)
    assert [outcome["failed"] for outcome in outcomes] == 2 * [
        "its process ended (SIGKILL): it may have run out of memory"
    ]
    _, alive = psutil.wait_procs([*family, *others], timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
