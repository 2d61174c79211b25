"""A sweep's studies as tasks of Dask's scheduler, here or on a cluster.

Images that several studies read are embedded once, before them; where a worker has the resource GPU, it embeds those of
every study. A worker that dies is replaced, and its task repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmmlib.errors import ChapterError, InputError, one_line
from cmmlib.storage.cache import digest
from cmmlib.sweeps import task
from cmmlib.sweeps.job_queue import MISSING, job_queue

if TYPE_CHECKING:
    from distributed import Client

    from cmmlib.study.study import Study

CONNECT = "20s"  # to a scheduler, before it is given up
GPU = "GPU"
# What decides the embeddings of the images.
IMAGES = (
    *("dataset", "split", "backbone", "pretrained", "classes", "limit", "precision", "storage", "data_root"),
    *("max_broken", "class_names"),
)
LOST = "sweep: the scheduler is gone; what is done is kept, run the same command to go on"


@contextmanager
def connected(workers: int, scheduler: str | None = None, cluster: Path | None = None) -> Iterator[Client]:
    """A client of the cluster that is named, or of one on this machine with so many worker processes.

    Raises:
        InputError: dask is not installed, no scheduler answers, or a cluster file with other settings.
    """
    try:
        from dask import config
        from distributed import Client
    except ImportError:
        raise InputError(MISSING) from None
    if scheduler is not None and not scheduler.strip():  # a shell's variable that nobody set
        raise InputError("--scheduler: the address is empty: write one, or leave the flag out")
    if scheduler and cluster:
        raise InputError("sweep: --scheduler and --cluster name two clusters: leave one out")
    quiet = {"distributed.comm.timeouts.connect": CONNECT, "distributed.admin.system-monitor.gil.enabled": False}
    warnings.filterwarnings("ignore", r"Port \d+ is already in use", UserWarning)  # another Dask's: a free one is taken
    with config.set(quiet):
        for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told in a line
        if scheduler:
            try:
                asyncio.run(_answers(scheduler))
                client = Client(scheduler, timeout=CONNECT)
            except (OSError, ValueError, TypeError, MemoryError) as error:  # what another server sends may be any size
                raise InputError(
                    f"--scheduler: nothing answers at {scheduler}: {one_line(error)}; start one with dask scheduler"
                ) from None
            with client:
                yield client
            return
        try:
            own = job_queue(cluster, workers) if cluster else _local(workers)
        except ImportError:  # of cryptography
            raise InputError(MISSING) from None
        with own, Client(own) as client:
            yield client


def _local(workers: int) -> Any:
    from distributed import LocalCluster

    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=None,  # studies have processes of their own
        dashboard_address=None,  # type: ignore[arg-type]  # none, which distributed takes too
        security=True,  # keys of this cluster's own: whoever reaches a scheduler can have anything run
        silence_logs=logging.CRITICAL,
        env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
    )


async def _answers(scheduler: str) -> None:
    """Whether a Dask scheduler is there: another server that sends something now and then would be waited for."""
    from dask.utils import parse_timedelta
    from distributed.comm.core import connect

    comm = await asyncio.wait_for(connect(scheduler), parse_timedelta(CONNECT) + 1)
    await comm.close()


def submitted(client: Client, studies: Sequence[Study], out: Path, only: str | None = None) -> dict[Any, Study]:
    """Every study's task: future -> study."""
    gpu = any(GPU in worker.get("resources", {}) for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    images = [digest(_images(study)) for study in studies]
    readers = Counter(images)
    embedded: dict[str, Any] = {}
    futures = {}
    for study, of in zip(studies, images, strict=True):
        fields = {**study.model_dump(exclude_unset=True), "out": str(out)}
        if study.kind != "embeddings" and of not in embedded and (gpu or readers[of] > 1):
            where = {"resources": {GPU: 1} if gpu else None, "pure": False}
            embedded[of] = client.submit(task.in_process, "embed", fields, **where)
        after = [embedded[of]] if of in embedded else []
        futures[client.submit(task.in_process, "run", fields, only, *after, pure=False)] = study
    return futures


def _images(study: Study) -> dict[str, Any]:
    """What decides a study's image embeddings; the seed where it draws or renders images."""
    fields = {name: getattr(study, name) for name in IMAGES}
    return fields | {"seed": study.seed if study.kind == "blazon" or study.limit else None}


def outcomes(client: Client, futures: dict[Any, Study]) -> Iterator[tuple[Study, dict[str, Any]]]:
    """Studies with their outcomes (`task.in_process`), as they end.

    Raises:
        SchedulerLost: the scheduler is gone.
    """
    from distributed import KilledWorker, as_completed

    for future in as_completed(futures):
        if future.status == "cancelled" or client.status != "running":
            raise SchedulerLost(LOST)
        error = future.exception()
        if error is None:
            yield futures[future], future.result()
        else:
            died = isinstance(error, KilledWorker)  # and so did each that tried it again
            told = f"{'its worker died, more than once' if died else 'its worker could not run it'}: {one_line(error)}"
            yield futures[future], {"run": None, "failed": told, "seconds": None}


class SchedulerLost(ChapterError):
    """The scheduler of a sweep went away. Exit code 1."""
