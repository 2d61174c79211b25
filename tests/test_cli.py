"""The command line: every field a flag, a wrong input one line and exit code 2, a stop that keeps what was embedded."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from conftest import write_images
from finished_runs import CMM, LITTLE, cmm, small_chapter, write_embeddings
from PIL import Image
from safetensors.torch import load_file, save_file
from synthetic_embeddings import CLASSES, IMAGES, synthetic_arrays

from cmmlib import Study, open_run
from cmmlib.models import embed

BROKEN_IMAGE = Path("noise") / "broken.png"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_clip) -> Path:
    """A folder of good and bad inputs, all named by what is wrong with them."""
    root = tmp_path_factory.mktemp("inputs")
    nan = synthetic_arrays()["image_features"]
    nan[7, 3] = np.nan
    write_embeddings(root / "good.npz")
    write_embeddings(root / "objects.npz", classnames=np.array(["a"] * CLASSES, dtype=object))
    write_embeddings(root / "shapes.npz", text_features=np.ones((CLASSES, 3), np.float32))
    write_embeddings(root / "labels.npz", labels=np.full(IMAGES, CLASSES))
    write_embeddings(root / "nan.npz", image_features=nan)
    (root / "text.npz").write_text("no archive")
    write_images(root / "images")
    shutil.copytree(root / "images", root / "broken-images")
    (root / "broken-images" / BROKEN_IMAGE).write_text("no image")
    (root / "empty").mkdir()
    (root / "no-weights").mkdir()
    shutil.copy(tiny_clip / "open_clip_config.json", root / "no-weights")
    (root / "tiny").symlink_to(tiny_clip)
    (root / "pool.txt").write_text("a photo of a {}.\na photo\n")
    (root / "file").write_text("")
    return root


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """The empty folder that a command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left_behind(work: Path, cache: Path) -> list[str]:
    """Files and folders in the work folder and the cache; digests of inputs are no trace of a failure."""
    found = [*work.rglob("*"), *(p for p in cache.rglob("*") if p.is_file() and p.parent.name != "digests")]
    return [str(path) for path in found]


def one_line(said: str) -> str:
    assert said.startswith("cmm: "), said
    assert said.count("\n") == 1, said
    assert said.endswith("\n")
    return said


GOOD = ["--dataset", "embeddings:{}/good.npz"]
IMAGES_OF = ["--backbone", "local-dir:{}/tiny", "--dataset"]
REFUSED = {
    "empty data set": (["--dataset", ""], "dataset: the text '' is empty: write one, or leave it out"),
    "unknown data set": (["--dataset", "imagenot"], "unknown data set 'imagenot'"),
    "unknown backbone": (["--dataset", "folder:{}/images", "--backbone", "ViT-B-99"], "no model 'ViT-B-99'"),
    "no backbone": (["--dataset", "folder:{}/images"], "backbone: name a model"),
    "another class list": (["--dataset", "blazon:x"], "unknown data set 'blazon:x'"),
    "unknown flag": ([*GOOD, "--sneed", "1"], "--sneed"),
    "flag without its value": (["--dataset"], "--dataset"),
    "a word too many": ([*GOOD, "fast"], "fast"),
    "unknown chapter": ([*GOOD, "--only", "99"], "no chapter '99': there are 00_real_clip, 01_phenomenon"),
    "no chapter": ([*GOOD, "--only", ","], "--only: ',' has an empty place: write names with a comma between two"),
    "a comma too many": ([*GOOD, "--only", "01,"], "--only: '01,' has an empty place"),
    "a variable that is not set": ([*GOOD, "--only", ""], "--only: '' has an empty place"),
    "runs of no name": ([*GOOD, "--compare-with", ","], "compare_with: ',' has an empty place"),
    "card of another kind": ([*GOOD, "--only", "90"], "--only: 90_data_card belongs to another kind of study"),
    "template without a slot": ([*GOOD, "--base-template", "a photo"], "'a photo' has no {}"),
    "pool without a slot": ([*IMAGES_OF, "folder:{}/images", "--templates", "{}/pool.txt"], "line 2 of pool.txt"),
    "unknown pool": ([*IMAGES_OF, "folder:{}/images", "--templates", "openai-8"], "unknown pool 'openai-8'"),
    "missing file": (["--dataset", "embeddings:{}/none.npz"], "none.npz"),
    "missing folder": (["--dataset", "folder:{}/none"], "none"),
    "missing web data set": (["--dataset", "wds:{}/none"], "no folder"),
    "data set of the hub, offline": (["--dataset", "wds:owner/name"], "HF_HUB_OFFLINE is set"),
    "data set that nobody hands out": (["--dataset", "cars"], "cars: no whole copy in"),
    "ImageNet that is not here": (["--dataset", "imagenet", "--data-root", "{}"], "imagenet: no folder"),
    "unknown split": (["--dataset", "cifar100", "--split", "dev"], "cifar100 has no split 'dev': it has test, train"),
    "split of what has none": ([*GOOD, "--split", "test"], "split: --split has no say over embeddings:FILE"),
    "unknown class": ([*GOOD, "--classes", "{}/pool.txt"], "no class 'a photo of a {}.' (pool.txt)"),
    "no image a class": ([*GOOD, "--limit", "0"], "limit"),
    "no npz": (["--dataset", "embeddings:{}/text.npz"], "text.npz"),
    "object arrays": (["--dataset", "embeddings:{}/objects.npz"], "object arrays"),
    "shapes that disagree": (["--dataset", "embeddings:{}/shapes.npz"], "shapes disagree"),
    "labels out of range": (["--dataset", "embeddings:{}/labels.npz"], f"labels row 0 is {CLASSES}"),
    "NaN": (["--dataset", "embeddings:{}/nan.npz"], "row 7 has NaN"),
    "empty folder": ([*IMAGES_OF, "folder:{}/empty"], "folder empty holds 0 class folders"),
    "unreadable image": ([*IMAGES_OF, "folder:{}/broken-images"], f"broken-images/{BROKEN_IMAGE}"),
    "model without weights": (["--dataset", "folder:{}/images", "--backbone", "local-dir:{}/no-weights"], "no weights"),
    "tag without weights": (["--dataset", "folder:{}/images", "--backbone", "ViT-B-32"], "random model"),
    "k of 0": ([*GOOD, "--worst-k", "0"], "worst_k"),
    "described over the classes": ([*GOOD, "--n-described", "13"], "n_described: 13 is more than the 12 classes"),
    "unknown style": ([*GOOD, "--question", "praise"], "question"),
    "k over the classes": ([*GOOD, "--worst-k", "13"], "worst_k: 13 is more than the 12 classes"),
    "k no number": ([*GOOD, "--worst-k", "five"], "--worst-k"),
    "unknown precision": ([*GOOD, "--precision", "fp8"], "precision"),
    "out is a file": ([*GOOD, "--out", "{}/file"], "not a directory"),
}


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_input_is_one_line_exit_code_2_and_leaves_nothing(arguments, expected, inputs, work, own_cache):
    filled = [a if a == "a photo" else a.replace("{}", str(inputs)) for a in arguments]
    said = cmm("run", *filled)
    assert (said.code, said.out) == (2, "")
    assert expected in one_line(said.err)
    assert left_behind(work, own_cache) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frobnicate"], "frobnicate"),
        (["book"], "no run in runs/"),
        (["book", "nowhere"], "nowhere is no finished run"),
        (["book", "."], "is no finished run"),
    ],
    ids=str,
)
def test_a_wrong_command_or_run_is_one_line_too(arguments, expected, work, own_cache):
    said = cmm(*arguments)
    assert (said.code, said.out) == (2, "")
    assert expected in one_line(said.err)
    assert left_behind(work, own_cache) == []


@pytest.mark.parametrize("arguments", [["run", "--dataset", "embeddings:none.npz"], ["run", "--sneed"]], ids=str)
def test_the_real_command_refuses_so(arguments, work):
    done = subprocess.run([CMM, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    one_line(done.stderr)


def test_run_has_a_flag_for_every_field_of_a_study():
    shown = cmm("run", "--help").out
    words = " ".join(shown.split())
    for name, field in Study.model_fields.items():
        assert re.search(rf"--{name.replace('_', '-')}\b", shown), name
        assert field.description.split(",")[0].split(":")[0] in words, name


def test_flags_arrive_in_the_study(inputs, work, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cmmlib.report.chapters.run_study", lambda study, only: seen.append((study, only)) or Path("there")
    )
    given = {
        "dataset": "dtd",
        "backbone": "ViT-B-32",
        "pretrained": "openai",
        "class_names": "/names.txt",
        "classes": "/few.txt",
        "split": "val",
        "limit": 6,
        "templates": "openai-80",
        "base_template": "the {}",
        "worst_k": 4,
        "n_described": 3,
        "llm": "openai/x",
        "llm_base_url": "http://localhost:1",
        "question": "contrast",
        "domain": "drawings",
        "transcript": "/answers.jsonl",
        "max_requests": 5,
        "max_cost": 0.5,
        "compare_with": "/runs/other-12345678",
        "published": "fetch",
        "seed": 7,
        "precision": "bf16",
        "analysis_precision": "bf16",
        "storage": "float16",
        "device": "cpu",
        "batch_size": 9,
        "workers": 2,
        "max_broken": 1,
        "data_root": "/data",
        "out": "/elsewhere",
    }
    assert given.keys() == Study.model_fields.keys()
    flags = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
    said = cmm("run", *flags, "--only", "01")
    assert (said.code, said.out) == (0, "there\n")
    assert seen == [(Study.of(given), "01")]


def test_without_arguments_it_prints_its_help():
    said = cmm()
    assert said.code == 0
    assert said.out == cmm("--help").out
    assert all(f"  {name} " in said.out for name in ("run", "book"))


def test_a_dry_run_says_what_is_missing_and_writes_no_run(inputs, work, own_cache):
    said = cmm("run", "--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{inputs}/tiny", "--dry-run")
    assert said.code == 0
    assert "10 images, 4 classes" in said.out
    assert "10 image embeddings to compute" in said.out
    assert "01_phenomenon, 02_cmm" in said.out
    assert left_behind(work, own_cache) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "file.txt"], "not a directory"),
        (["--out", "file.txt/sub"], "not a directory"),
        (["--out", "a" * 300], "file name too long"),
        (["--transcript", "folder"], "is a directory"),
        (["--transcript", "file.txt"], "line 1 of file.txt is no record of an answer"),
        (["--llm", "gpt"], "'gpt' names no provider"),
        (["--device", "meta"], "device 'meta' is not available here"),
        (["--only", "06"], "--only: 06_anatomy belongs to another kind of study: this one has 00_real_clip, 01_"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(flags, said, inputs, work):
    (work / "file.txt").write_text("text\n")
    (work / "folder").mkdir()
    flags = ["--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{inputs}/tiny", *flags]
    refused = cmm("run", *flags, "--dry-run")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused
    assert said in refused.err
    assert sorted(path.name for path in work.iterdir()) == ["file.txt", "folder"]


@pytest.mark.parametrize("name", ["_", "__", "\u200b", "\ufeff_"])
def test_a_class_folder_without_a_name_is_refused(name, inputs, work):
    shutil.copytree(inputs / "images", "images")
    (work / "images" / name).mkdir()
    shutil.copy(next((inputs / "images").rglob("*.png")), work / "images" / name)
    refused = cmm("run", "--dataset", "folder:images", "--backbone", f"local-dir:{inputs}/tiny", "--dry-run")
    assert (refused.code, refused.out) == (2, "")
    assert "has an empty name: rename its folder" in refused.err


def test_a_dry_run_names_weights_that_are_not_read_and_refuses_what_are_none(inputs, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "two-untrained")
    flags = ["--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{folder}", "--dry-run"]
    (folder / "open_clip_pytorch_model.bin").write_text("other")
    assert "others beside it are not: open_clip_pytorch_model.bin\n" in cmm("run", *flags).out
    (folder / "open_clip_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    said = cmm("run", *flags)
    assert (said.code, "pointer of Git LFS" in said.err) == (2, True)


def test_a_dry_run_refuses_weights_of_another_architecture(inputs, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "other-untrained")
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file(
        {**weights, "visual.proj": weights["visual.proj"][:, :-1].clone()}, folder / "open_clip_model.safetensors"
    )
    said = cmm("run", "--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{folder}", "--dry-run")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "shapes of another architecture (visual.proj is" in said.err


@pytest.mark.parametrize(("scale", "told"), [(-5.0, True), (0.07, True), (2.66, False), (4.6, False)])
def test_a_scale_unlike_a_trained_models_is_told(scale, told, inputs, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "other-untrained")
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file({**weights, "logit_scale": torch.tensor(scale)}, folder / "open_clip_model.safetensors")
    flags = ["--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{folder}"]
    assert ("trained ones about 10 to 120: are" in cmm("run", *flags, "--dry-run").out) == told
    run = open_run(Study(dataset=f"folder:{inputs}/images", backbone=f"local-dir:{folder}"))
    assert any("trained ones about 10 to 120" in line for line in run.facts["data"]["remarks"]) == told


def test_of_several_sets_of_weights_a_dry_run_says_once_which_it_reads(inputs, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "two-untrained")
    weights = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": weights, "ema_state_dict": weights}, folder / "open_clip_pytorch_model.bin")
    flags = ["--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{folder}", "--dry-run"]
    assert cmm("run", *flags).err.count("several sets of weights") == 1


def test_one_is_counted_as_one(tiny_clip, tmp_path):
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    assert "holds 2 class folders, 0 images: " in cmm("run", "--dataset", f"folder:{root}", "--dry-run").err
    Image.new("RGB", (8, 8)).save(root / "cat" / "a.png")
    said = cmm("run", "--dataset", f"folder:{root}", "--backbone", f"local-dir:{tiny_clip}", "--dry-run").out
    assert ": 1 image, 2 classes, labels" in said
    assert ": 1 image embedding to compute" in said
    assert "folder cat holds 1 image and" in cmm("run", "--dataset", f"folder:{root}/cat", "--dry-run").err


# ---------------------------------------------------------------- a full disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.usefixtures("little_imported")
@pytest.mark.parametrize("where", [(Path, "write_bytes"), (nbformat, "write")], ids=["cache", "chapters"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(where, inputs, work, own_cache, monkeypatch):
    chapters = small_chapter(work / "notebooks", "1")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    monkeypatch.setattr(*where, full)
    said = cmm("run", "--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{inputs}/tiny")
    assert (said.code, said.out) == (2, "")
    assert "no space left on device" in one_line(said.err.splitlines(keepends=True)[-1])  # behind remarks on the data
    halves = [path for root in (work, own_cache) for path in root.rglob(".*") if path.is_file()]
    assert halves == []
    assert list((work / "runs").rglob("*.ipynb")) == []


@pytest.mark.usefixtures("little_imported")
@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("ENOSPC", "no space left"),
        ("EFBIG", "allow larger files (ulimit -f)"),
        ("EMFILE", "more open files (ulimit -n)"),
    ],
)
def test_a_disk_that_fills_up_in_a_chapter_is_told_alike(number, said, inputs, work, own_cache, monkeypatch):
    cell = f"import errno\nraise OSError(errno.{number}, 'Some words of the system', '/figures/a.svg')"
    chapters = small_chapter(work / "notebooks", cell)
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    ended = cmm("run", "--dataset", f"embeddings:{inputs}/good.npz")
    assert (ended.code, ended.out) == (2, "")
    assert said in one_line(ended.err)
    assert not [path for path in (work / "runs").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("little_imported")
def test_an_error_without_words_has_some(inputs, work, own_cache, monkeypatch):
    chapters = small_chapter(work / "notebooks", "raise ValueError")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", f"embeddings:{inputs}/good.npz")
    assert said.err.endswith("ValueError: it gave no reason: memory or open files (ulimit -n) may have run out\n")


# ---------------------------------------------------------------- stopped and killed

SLOW = """
import sys, time
from pathlib import Path
from cmmlib.models import embed
embed.IMAGE_SHARD = 2
ready = Path(sys.argv[1])
encode, done = embed._encode_shard, []
def slow(*arguments):
    if len(done) == 3:
        ready.touch()
        time.sleep(600)
    done.append(1)
    return encode(*arguments)
embed._encode_shard = slow
sys.argv = ["cmm", *sys.argv[2:]]
from cmmlib.cli import main
main()
"""


def wait_for(file: Path, process: Any) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_its_shards_and_goes_on(how, inputs, work, own_cache, fork, monkeypatch):
    flags = ["--dataset", f"folder:{inputs}/images", "--backbone", f"local-dir:{inputs}/tiny"]
    ready = work / "ready"
    with fork(SLOW, ready, "run", *flags) as process:
        wait_for(ready, process)
        process.send_signal(how)
        out, err = process.communicate()
    if how != signal.SIGKILL:
        assert (process.returncode, out) == (128 + how, "")
        assert "run the same command to go on" in one_line(err)
    else:
        assert process.returncode == -signal.SIGKILL
    assert len(list((own_cache / "images").glob("[!.]*.safetensors"))) == 3
    assert not (work / "runs").exists()

    monkeypatch.setattr(embed, "IMAGE_SHARD", 2)
    encode, encoded = embed._encode_shard, []
    monkeypatch.setattr(
        embed, "_encode_shard", lambda b, data, rows, *more: encoded.append(rows) or encode(b, data, rows, *more)
    )
    study = Study.of({"dataset": flags[1], "backbone": flags[3]})
    run = open_run(study)
    assert [len(rows) for rows in encoded] == [2, 2]
    assert len(run.image_features) == 10


def test_a_signal_that_is_ignored_stays_ignored():
    program = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom cmmlib import cli, process\n"
        "handlers = lambda _: [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]\n"
        "cli._exit_code = lambda _: handlers(_) != [signal.SIG_IGN, process.ended]\n"
        "cli.main()"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_in_a_chapter_leaves_no_half_chapter_and_no_kernel(how, inputs, work, fork):
    busy = work / "busy"
    cell = (
        f"import os, time\nfrom pathlib import Path\nPath({str(busy)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    chapters = small_chapter(work / "notebooks", cell)
    program = (
        "import sys\nfrom pathlib import Path\nimport cmmlib.report.chapters\nimport cmmlib.report.kernels\n"
        f"cmmlib.report.kernels.IMPORTS = {LITTLE}\n"
        f"cmmlib.report.chapters.source = lambda name: Path({str(chapters)!r})\n"
        "from cmmlib.cli import main\nmain()"
    )
    with fork(program, "run", "--dataset", f"embeddings:{inputs}/good.npz") as process:
        wait_for(busy, process)
        while not busy.read_text():
            time.sleep(0.05)
        process.send_signal(how)
        out, err = process.communicate()
    assert (process.returncode, out) == (128 + how, "")
    one_line(err)
    assert not [path for path in (work / "runs").rglob("*") if path.is_file()]
    assert not is_alive(int(busy.read_text()))


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that is only waiting to be collected does not."""
    status = Path(f"/proc/{pid}/status")
    if Path("/proc/self/status").exists():
        return status.exists() and "State:\tZ" not in status.read_text()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("little_imported")
def test_a_run_says_its_folder_on_stdout_and_its_progress_on_stderr(inputs, work, monkeypatch):
    chapters = small_chapter(work / "notebooks", "print('in the chapter')")
    monkeypatch.setattr("cmmlib.report.chapters.source", lambda name: chapters)
    said = cmm("run", "--dataset", f"embeddings:{inputs}/good.npz")
    assert said.code == 0
    assert len(said.out.splitlines()) == 1
    assert json.loads((said.folder / "manifest.json").read_text())["id"] == said.folder.name
    assert said.err.startswith("01_phenomenon: ")
    again = cmm("run", "--dataset", f"embeddings:{inputs}/good.npz")
    assert again.out == said.out
    assert again.err == "01_phenomenon: up to date\n"


def test_a_path_is_printed_in_its_own_bytes():
    program = "import os; from cmmlib import process; process.begin(); process.show_path(os.fsdecode(b'nu\\xff/runs'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"nu\xff/runs\n"


@pytest.mark.parametrize("name", ["NUMBA_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("threads", ["-3", "0", "many", "", "\u0663"])
def test_a_number_of_threads_that_is_none_is_one_line(threads, name, monkeypatch):
    monkeypatch.setenv(name, threads)
    said = cmm("cache", "list")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert name in said.err


def test_numbers_of_threads_for_nested_levels_are_numbers(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2, 1")
    assert cmm("cache", "list").code == 0


@pytest.mark.parametrize("command", ["run", "describe"])
def test_every_flag_has_its_help(command):
    said = cmm(command, "--help").out
    flags = re.findall(r"^  (--[\w-]+)(.*)$", said, re.M)
    assert len(flags) > 20
    for flag, rest in flags:
        assert re.search(r"  [A-Za-z0-9].{8,}", rest) or flag == "--help", f"{flag}{rest}"
