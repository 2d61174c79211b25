"""A sweep from its file to its table: studies that are done are found done, and those that fail stop no other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cmmlib.errors import counted, tell
from cmmlib.report.chapters import chapters
from cmmlib.storage.locks import locked
from cmmlib.study.run_files import RUNNING
from cmmlib.sweeps import results, scheduling
from cmmlib.sweeps.plan import read_sweep, shown, sweep_name, varied

WRITE_AFTER = 10.0  # seconds between two tables while studies end


def run_sweep(
    file: Path,
    out: Path,
    only: str | None = None,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    cluster: Path | None = None,
) -> tuple[Path, int]:
    """Run every study of a sweep file, and write their table.

    Args:
        out: folder that receives the sweep's own.
        only: chapters to run, for example 01,02,04; all by default.
        workers: processes, of this machine or of the cluster; a scheduler that exists has its own.
        scheduler: address of a Dask scheduler whose workers see the same files.
        cluster: YAML file with `type` (slurm, pbs, lsf) and settings of dask-jobqueue.

    Returns:
        The sweep's folder, and how many studies failed.

    Raises:
        InputError: what is wrong with the files, or no scheduler answers.
        SchedulerLost: it went away; the same call goes on.
    """
    studies = read_sweep(file)
    chapters(only)  # refused before anything is made
    folder, names = out / sweep_name(file, studies), varied(studies)
    with scheduling.connected(workers, scheduler, cluster) as client:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        with locked(folder / RUNNING, lambda who: tell(f"{folder.name} is being run by {who}: waiting for its end")):
            futures = scheduling.submitted(client, studies, (folder / "runs").resolve(), only)
            done, written = {}, time.monotonic()
            for study, outcome in scheduling.outcomes(client, futures):
                done[study] = outcome
                own = ", ".join(f"{name} {value}" for name, value in shown(study, names).items() if value is not None)
                ended = f"{outcome['seconds']} s" if outcome["failed"] is None else outcome["failed"]
                tell(f"{len(done)} of {counted(len(studies), 'study', 'studies')}: {own}: {ended}")
                if time.monotonic() - written > WRITE_AFTER:
                    results.write_results(folder, studies, done)
                    written = time.monotonic()
            _tell_shared([outcome["run"] for outcome in done.values() if outcome["failed"] is None])
            table, failed = results.write_results(folder, studies, done)
            for study, reason in failed.items():
                if done[study]["failed"] is None:  # its run was changed by hand, and nobody was told yet
                    tell(f"sweep: {reason}")
            results.draw(folder, table)
    return folder, len(failed)


def _tell_shared(runs: Sequence[str]) -> None:
    """Studies that name other files of the same contents are one study, and have one run."""
    if shared := len(runs) - len(set(runs)):
        tell(f"sweep: {counted(shared, 'study reads', 'studies read')} the same as another: one run, and one row")
