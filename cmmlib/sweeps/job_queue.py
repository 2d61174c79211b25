"""A Dask cluster of jobs of a queue (SLURM, PBS, LSF), as a file describes it, through dask-jobqueue."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cmmlib.errors import InputError, one_line
from cmmlib.storage.yaml_files import read_mapping

KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
PROGRAMS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}  # that send a job
# Keys of the cluster's own, in the folder where the command runs, which the jobs see.
SECURE: dict[str, Any] = {"security": True, "protocol": "tls://", "shared_temp_directory": "."}
MISSING = "sweep: dask is missing: pip install 'cmmlib[sweep]'"
SUBMITTED_WITHIN = 120.0  # seconds, of the first job: a queue's program answers at once, and a job may wait for days
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class JobSettings(BaseModel):
    """What a cluster file may set, as dask-jobqueue names it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cores: Positive
    memory: Text
    processes: Positive | None = None
    queue: Text | None = None
    project: Text | None = None
    account: Text | None = None
    walltime: Text | None = None
    interface: Text | None = None
    local_directory: Text | None = None
    job_extra_directives: list[Text] | None = None
    job_script_prologue: list[Text] | None = None
    log_directory: Text | None = None
    worker_extra_args: list[Text] | None = None
    death_timeout: Positive | None = None

    @field_validator("processes")
    @classmethod
    def _has_cores(cls, value: int | None, info) -> int | None:
        if value and value > info.data.get("cores", value):
            raise ValueError("more than cores: each process needs one")
        return value

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        from dask.utils import parse_bytes

        try:
            parse_bytes(value)
        except ValueError:
            raise ValueError(f"{value!r} is no size: write one as in 16GB") from None
        return value

    @field_validator("interface")
    @classmethod
    def _is_here(cls, value: str | None) -> str | None:
        known = [name for _, name in socket.if_nameindex()]
        if value is not None and value not in known:
            raise ValueError(f"this machine has no network {value!r}: it has {', '.join(known)}")
        return value


def job_queue(file: Path, workers: int) -> Any:
    """A cluster whose first job is submitted, with so many workers to come.

    Raises:
        InputError: a file with other settings, a queue that is not here or refuses the job, no dask-jobqueue.
    """
    found = read_mapping(file, "--cluster")
    kind = str(found.pop("type", ""))
    if kind not in KINDS:
        raise InputError(f"--cluster: {file.name} has type {kind!r}: there are {', '.join(KINDS)}")
    for key in found:
        if key not in JobSettings.model_fields:
            settings = ", ".join(JobSettings.model_fields)
            raise InputError(f"--cluster: {file.name} has {key!r}: what can be set is {settings}")
    if shutil.which(PROGRAMS[kind]) is None:
        raise InputError(f"--cluster: {PROGRAMS[kind]} is not on this machine: run the sweep where jobs are sent from")
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError(MISSING) from None
    try:
        settings = JobSettings(**found).model_dump(exclude_none=True)
        outcomes: list[Exception | None] = []
        make = getattr(dask_jobqueue, KINDS[kind])
        cluster = make(**SECURE, **settings, job_cls=_noting(make.job_cls, outcomes))
    except ValidationError as error:
        raise InputError(f"--cluster: {file.name}: {_first_fault(error)}") from None
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"--cluster: {file.name}: {one_line(error)}") from None
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)  # what goes wrong is told in a line
    cluster.scale(workers)
    end = time.monotonic() + SUBMITTED_WITHIN
    while not outcomes and time.monotonic() < end:
        time.sleep(0.02)
    refused = outcomes[0] if outcomes else TimeoutError(f"no answer within {SUBMITTED_WITHIN:.0f} s")
    if refused is not None:
        cluster.close()
        raise InputError(f"--cluster: {PROGRAMS[kind]} did not take the job: {_said(refused)}; correct {file.name}")
    return cluster


def _noting(job: type, outcomes: list[Exception | None]) -> type:
    """A kind of job that notes whether it could be submitted: None, or the error, which dask would only log."""

    from distributed.core import Status

    class Noted(job):
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                self.status = Status.failed  # its cluster asks when it closes
                outcomes.append(error)
                raise
            outcomes.append(None)

    return Noted


def _said(error: Exception) -> str:
    """What the queue's program wrote, without the command around it, which dask-jobqueue adds."""
    _, _, said = str(error).partition("stderr:\n")
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[0].strip() if lines else one_line(error)


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    field, message = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{field} is missing: what a job asks for, as in cores: 8 and memory: 32GB"
    if first["type"] == "list_type":
        return f'{field} is no list: write it as in {field}: ["..."]'
    wanted = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{field}: {message[0].lower()}{message[1:]}{wanted}"
