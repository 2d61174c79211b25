"""Kernels of a run: of this interpreter, nothing passed on from chapter to chapter, none left over."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from finished_runs import CMM, LITTLE, Said, cmm, forked, small_chapter, write_chapter, write_embeddings

WORLD = """\
import json, os, random, sys, warnings
import matplotlib as mpl, numpy as np, torch
from cmmlib.functional import detection
world = {
    "names": sorted(name for name in dir() if not name.startswith("_")),
    "folder": os.getcwd(),
    "environment": sorted(set(os.environ) - {"JPY_SESSION_NAME"}),
    "modules": [sys.modules["json"].__name__, "left_over" in sys.modules, detection.spearman.__module__],
    "filters": len(warnings.filters),
    "settings": {key: str(value) for key, value in mpl.rcParams.items()},
    "backend": mpl.get_backend(),
    "torch": [str(torch.get_default_dtype()), torch.get_num_threads()],
    "python": sys.executable,
    "parent": os.getppid(),
}
drawn = {"random": random.random(), "numpy": float(np.random.random()), "torch": torch.initial_seed()}
with open(FILE, "w") as stream:
    json.dump([world, drawn, os.getpid()], stream)
"""
DISORDER = """\
import json, os, random, sys, types, warnings
import matplotlib as mpl, numpy as np, torch
from cmmlib.functional import detection
left_over = 1
os.chdir("/")
os.environ["LEFT_OVER"] = "1"
sys.modules["json"] = sys.modules["left_over"] = types.ModuleType("left_over")
detection.spearman = print
warnings.simplefilter("error")
mpl.rcParams["figure.dpi"] = 7
mpl.use("svg")
random.seed(1), np.random.seed(1), torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1 + torch.get_num_threads())
torch.ones(3000, 3000) @ torch.ones(3000, 3000)  # with OpenMP's threads
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> list[object]:
    """Arguments of a run of the chapters in `notebooks`, which is empty. It starts and ends kernels of its own."""
    monkeypatch.setattr("cmmlib.report.kernels.forked", forked)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: tmp_path / "notebooks")
    return ["--dataset", write_embeddings(tmp_path / "data.npz"), "--out", tmp_path / "runs"]


def tell_world(tmp_path: Path, number: int) -> Path:
    """Write a chapter that writes down how it finds the world, and where it does."""
    file = tmp_path / f"world-{number}.json"
    write_chapter(tmp_path / "notebooks" / f"0{number}_world.ipynb", WORLD.replace("FILE", repr(str(file))))
    return file


def run(*arguments: object) -> Said:
    """`cmm run`, after which no process of it is left."""
    before = psutil.Process().children(recursive=True)
    said = cmm("run", *arguments)
    started = [process for process in psutil.Process().children(recursive=True) if process not in before]
    assert not [process for process in started if re.search(r"ipykernel|cmmlib\.kernels", " ".join(process.cmdline()))]
    return said


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_chapter_leaves_nothing_to_the_next(platform, tmp_path, study, monkeypatch):
    if platform == "darwin":
        monkeypatch.setattr("sys.platform", platform)
    elif sys.platform != platform:
        pytest.skip("kernels are forked on Linux only")
    first, third = tell_world(tmp_path, 1), tell_world(tmp_path, 3)
    write_chapter(tmp_path / "notebooks" / "02_disorder.ipynb", DISORDER)
    folder = run(*study).folder
    (world, _, pid), (other, drawn, other_pid) = (json.loads(file.read_text()) for file in (first, third))
    assert world == other
    assert pid != other_pid
    assert world["folder"] == str(folder)
    assert world["python"] == sys.executable
    assert (world["parent"] == os.getpid()) == (platform == "darwin")
    assert drawn["random"] != random.Random(1).random()
    assert drawn["numpy"] != np.random.RandomState(1).random()
    assert drawn["torch"] != 1


@pytest.mark.usefixtures("little_imported")
@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_another_python_in_a_kernel_spec_is_not_run(platform, tmp_path, study, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    file = tell_world(tmp_path, 1)
    assert run(*study).code == 0
    assert json.loads(file.read_text())[0]["python"] == sys.executable


@pytest.mark.usefixtures("little_imported")
def test_folders_with_braces_are_run_in(tmp_path, study):
    file = tell_world(tmp_path, 1)
    folder = run(*study[:-1], tmp_path / "runs {seed} {0} {").folder
    assert json.loads(file.read_text())[0]["folder"] == str(folder)
    assert (folder / "chapters" / "01_world.ipynb").is_file()


@pytest.mark.usefixtures("little_imported")
@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)", "os.kill(os.getppid(), 9)"])
def test_a_kernel_that_dies_is_told_in_one_line(end, tmp_path, study):
    if "getppid" in end and sys.platform != "linux":
        pytest.skip("the parent is the run itself")
    write_chapter(tmp_path / "notebooks" / "01_dying.ipynb", f"import os, time\n{end}\ntime.sleep(60)")
    said = run(*study)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("cmm: 01_dying: its process ended (")
    assert said.err.count("\n") == 1
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("little_imported")
def test_a_chapter_that_fails_ends_its_kernel_and_the_run(tmp_path, study):
    tell_world(tmp_path, 1)
    write_chapter(tmp_path / "notebooks" / "02_failing.ipynb", "x = 1", "x / 0")
    later = tell_world(tmp_path, 3)
    said = run(*study)
    assert said.code == 1
    assert re.fullmatch(r"01_world: [\d.]+ s\ncmm: 02_failing, cell 3: ZeroDivisionError: division by zero\n", said.err)
    assert not later.exists()
    (folder,) = (tmp_path / "runs").iterdir()
    assert list(json.loads((folder / "manifest.json").read_text())["chapters"]) == ["01_world"]


def in_a_process(fork, tmp_path: Path, *cells: str) -> Any:
    """`cmm run` of one chapter with these cells, in a process of its own."""
    chapters = tmp_path / "notebooks"
    if not chapters.exists():
        small_chapter(chapters, *cells)
    program = "import sys\nfrom pathlib import Path\nimport cmmlib.report.chapters\nimport cmmlib.report.kernels\n"
    program += f"cmmlib.report.kernels.IMPORTS = {LITTLE}\n"
    program += f"cmmlib.report.chapters.source = lambda name: Path({str(chapters)!r})\n"
    program += "from cmmlib.cli import main\nmain()"
    data = write_embeddings(tmp_path / "data.npz")
    return fork(program, "run", "--dataset", data, "--out", tmp_path / "runs")


def started(busy: Path, process: Any) -> list[psutil.Process]:
    """The processes whose numbers a chapter wrote down, once it has."""
    while not (busy.exists() and busy.read_text().endswith(".")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return [psutil.Process(int(pid)) for pid in busy.read_text()[:-1].split()]


def says_who(busy: Path) -> str:
    """Code that writes down the numbers of the kernel and of its parent."""
    return (
        "import os, time\nfrom pathlib import Path\n"
        f"Path({str(busy)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}.')"
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process(how, tmp_path, fork):
    busy = tmp_path / "busy"
    with in_a_process(fork, tmp_path, says_who(busy) + "\ntime.sleep(600)") as process:
        kernel = started(busy, process)
        process.send_signal(how)
        process.communicate()
    _, alive = psutil.wait_procs(kernel, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_the_kernel_that_a_killed_run_left_is_ended_by_the_next(tmp_path, fork):
    busy = tmp_path / "busy"
    cell = f"{says_who(busy)}\nwhile not Path({str(tmp_path / 'go')!r}).exists():\n    time.sleep(0.1)"
    with in_a_process(fork, tmp_path, cell) as process:
        kernel, server = started(busy, process)
        kernel.suspend()  # one that does not notice that it is alone
        process.kill()
    psutil.wait_procs([server], timeout=60)
    assert kernel.is_running()
    (tmp_path / "go").touch()
    with in_a_process(fork, tmp_path) as process:
        assert process.communicate()[1].startswith("01_phenomenon: ")
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("little_imported")
def test_a_run_that_is_started_in_its_own_folder_keeps_its_kernels(tmp_path, study, monkeypatch):
    tell_world(tmp_path, 1)
    folder = run(*study).folder
    later = tell_world(tmp_path, 2)
    monkeypatch.chdir(folder)
    said = run(*study)
    assert (said.code, said.folder) == (0, folder), said.err
    assert json.loads(later.read_text())[0]["folder"] == str(folder)


def test_a_study_that_is_started_twice_is_executed_once(tmp_path, fork):
    busy = tmp_path / "busy"
    log, go = tmp_path / "log", tmp_path / "go"
    cell = f"{says_who(busy)}\nwith open({str(log)!r}, 'a') as file:\n    file.write('x')\n"
    cell += f"while not Path({str(go)!r}).exists():\n    time.sleep(0.1)"
    with in_a_process(fork, tmp_path, cell) as one:
        started(busy, one)
        with in_a_process(fork, tmp_path) as other:
            line = other.stderr.readline()
            go.touch()
            _, said = other.communicate()
        one.communicate()
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(rf"{folder.name} is being executed by process {one.pid} on \S+: waiting for its end\n", line)
    assert (one.returncode, other.returncode, said) == (0, 0, "01_phenomenon: up to date\n")
    assert log.read_text() == "x"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


# ---------------------------------------------------------------- what the user's own set-up may not change


def test_start_up_files_of_the_user_have_no_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    for place in (startup / "01.py", tmp_path / "python_startup.py"):
        place.write_text(f"worst_k = 1\nout = {str(tmp_path / 'hijacked')!r}\n")
    (startup / "02.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "python_startup.py"))
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "x.npz"), "--only", "01")
    assert said.code == 0, said.err
    assert (Path(said.out.strip()) / "results.json").is_file()
    assert not (tmp_path / "hijacked").exists()


def test_a_relative_cache_is_one_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMM_CACHE", "mine")
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "x.npz"), "--only", "01")
    assert said.code == 0, said.err
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("mine")] == ["mine"]


def test_closed_streams_do_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [str(CMM), "run", "--dataset", write_embeddings(tmp_path / "x.npz"), "--only", "01"]
    done = subprocess.run(["sh", "-c", f"exec {shlex.join(command)} <&- >&- 2>&-"], check=False)
    assert done.returncode == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "results.json").is_file()
