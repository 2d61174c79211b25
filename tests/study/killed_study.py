"""A study killed again and again. Run as a program: python killed_study.py IMAGES MODEL PLACE KILLS

A *life* is a fresh cache and output folder in which a study is started, killed at a random moment (SIGKILL), and
started again until it comes to its end. Lives follow each other until there were so many kills. Each start is a fork of
this process, so that nothing is imported twice; the fork is killed. Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from cmmlib import Study, open_run
from cmmlib import functional as F
from cmmlib.evaluation import evaluation, tables
from cmmlib.functional.similarity import similarity_pass
from cmmlib.models import embed
from cmmlib.storage.cache import cache_folder
from cmmlib.storage.cache_maintenance import drop_damaged, entries
from cmmlib.study.run import Run

SHARD = 16


def analyse(run: Run) -> None:
    """What chapter 1 and the start of chapter 2 record."""
    passed = similarity_pass(run.image_features, run.base_text_features[None], run.logit_scale)
    prediction = passed.prediction[0].long()
    assert run.labels is not None
    accuracy = F.class_accuracy(prediction, run.labels, run.n_classes)
    run.record(accuracy=evaluation.accuracy_report(prediction, run.labels, run.n_classes, run.worst_k))
    taken = F.taken_for(prediction, run.labels, run.n_classes)
    columns = tables.accuracy_columns(run, accuracy, F.wilson_intervals(accuracy), *taken)
    run.record_table("per_class.csv", columns, "class_index")
    score = F.class_matching_margin(passed, "soft")[0]
    columns = columns[["class_index"]].assign(cmm_soft=score.tolist())
    run.record_table("per_class.csv", columns, "class_index")


def start(study: Study, log: Path) -> int:
    """Start the study in a process of its own, which notes every shard that it begins to embed."""
    child = os.fork()
    if child:
        return child
    encode = embed._encode_shard

    def noted(backbone, data, rows, *rest):
        with open(log, "a") as file:
            file.write(f"{rows.start}\n")
        return encode(backbone, data, rows, *rest)

    embed._encode_shard = noted
    analyse(open_run(study))
    os._exit(0)


def ended(child: int, seconds: float | None) -> bool:
    """Wait for the child's end; kill it after so many seconds. Whether it came to its end."""
    deadline = time.monotonic() + (seconds if seconds is not None else 600)
    while time.monotonic() < deadline:
        if (done := os.waitpid(child, os.WNOHANG))[0]:
            assert done[1] == 0, done
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def live(place: Path, images: str, model: str, moments: random.Random | None, longest: float) -> dict:
    """One life; without `moments` an undisturbed one."""
    os.environ["CMM_CACHE"] = str(place / "cache")
    study = Study.of({"dataset": f"folder:{images}", "backbone": f"local-dir:{model}", "out": str(place / "runs")})
    place.mkdir(parents=True)
    kills, begin = 0, time.monotonic()
    while not ended(start(study, place / "log"), None if moments is None else moments.uniform(0, longest)):
        kills += 1
    seconds = time.monotonic() - begin
    (folder,) = (place / "runs").iterdir()
    files = {name: (folder / name).read_text() for name in ("results.json", "per_class.csv")}
    started = (place / "log").read_text().split()
    damaged = drop_damaged(entries(cache_folder()))
    again = len(started) - len(set(started))
    return {"kills": kills, "again": again, "files": files, "damaged": len(damaged), "seconds": seconds}


def main(images: str, model: str, place: Path, kills: int) -> None:
    torch.set_num_threads(1)
    embed.IMAGE_SHARD = SHARD
    similarity_pass(torch.eye(3), torch.eye(3)[None], 1.0)  # compiles here, not in every fork
    live(place / "warm", images, model, None, 0)  # pages of the disk, first calls: the clock below starts after it
    undisturbed = live(place / "undisturbed", images, model, None, 0)
    moments, lives = random.Random(0), []
    while sum(one["kills"] for one in lives) < kills:
        lives.append(live(place / str(len(lives)), images, model, moments, undisturbed["seconds"]))
    print(json.dumps({"undisturbed": undisturbed, "lives": lives}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
