"""One notebook in one kernel: which of its cells a run has, what a failing cell comes to, and what is left of it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cmmlib.errors import ChapterError, InputError, one_line, tell
from cmmlib.report.progress import Progress
from cmmlib.study.study import Study

if TYPE_CHECKING:
    from papermill.exceptions import PapermillExecutionError

    from cmmlib.study.run import Run

KERNEL = "python3"
LIMITS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)  # of the system, told as what they are
SETUP = "setup"  # tag of the cells that install this package and say so; no study runs them


def execute(notebook: Any, source_path: Path, run: Run, kernels: type) -> Any:
    """A chapter's notebook, executed in a kernel of its own.

    Raises:
        InputError: it has not one cell of parameters; or what a cell refuses.
        ChapterError: a cell failed; it is named with its error.
        OSError: a full disk.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from cmmlib.report.kernels import with_environment
    from cmmlib.study.open_run import OPENED, opened_as

    notebook.cells = [cell for cell in notebook.cells if applies(cell, run.conditions)]
    _require_parameters_cell(notebook, source_path)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix="cmm-ipython-") as ipython, Progress(source_path.stem, notebook) as progress:
            executed = papermill.execute_notebook(
                notebook,
                None,
                parameters=run.study.changed(),
                kernel_name=KERNEL,
                kernel_manager_class=with_environment(kernels, {OPENED: opened_as(run)}),
                cwd=run.folder,
                shutdown_kernel="immediate",  # it keeps nothing that is not on disk
                progress_bar=False,
                on_cell_execute=progress.start,
                config=Config(KernelManager={"transport_encryption": "auto"}),  # other users listen in vain
                extra_arguments=[
                    "--log-level=50",  # what fails in a cell is reported below, once
                    f"--ipython-dir={ipython}",  # the user's start-up files would set names that a chapter reads
                    "--IPKernelApp.exec_PYTHONSTARTUP=False",
                ],
            )
    except PapermillExecutionError as error:
        raise _told(error, source_path.stem, run.folder) from None
    except RuntimeError as error:  # of nbclient, jupyter_client or `kernels`
        said = one_line(error)
        raise ChapterError(f"{source_path.stem}: its process ended ({said}): it may have run out of memory") from None
    _clean(executed, run.study)
    return executed


def _told(error: PapermillExecutionError, chapter: str, folder: Path) -> Exception:
    """A cell's error as if it had not been in a kernel: bad input, a full disk, or a fault of the chapter."""
    if error.ename == "InputError":
        return InputError(error.evalue)
    refused = re.match(r"\[Errno (\d+)\]", error.evalue)
    if refused and int(refused[1]) in LIMITS:
        return OSError(int(refused[1]), os.strerror(int(refused[1])), str(folder))
    said = " ".join(error.evalue.split()) or "it gave no reason: memory or open files (ulimit -n) may have run out"
    return ChapterError(f"{chapter}, cell {error.cell_index}: {error.ename}: {said}")


def applies(cell: Any, known: dict[str, bool]) -> bool:
    """Whether a cell's tags ask for nothing that the run lacks."""
    tags = cell.metadata.get("tags", [])
    return SETUP not in tags and all(known[tag[3:]] for tag in tags if tag.startswith("if-"))


def _require_parameters_cell(notebook: Any, path: Path) -> None:
    """A chapter takes its parameters from one cell, and papermill puts the study's behind it."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(f"{path.name} has {len(tagged)} cells with the tag parameters: a chapter has one")


def _clean(notebook: Any, study: Study) -> None:
    """Take out what differs from run to run or tells where it ran; hand each figure's alt text to the book."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            chosen = {name: v for name, v in study.public().items() if name in study.changed()}
            cell.source = "\n".join(["# Parameters", *(f"{name} = {v!r}" for name, v in chosen.items())])
            cell.metadata["tags"] = sorted({*tags, "remove-cell"})
        outputs = cell.get("outputs", [])
        for warning in (o for o in outputs if o.get("name") == "stderr"):
            tell(warning["text"].rstrip())  # told to whoever runs it; a reader can do nothing about it
        if outputs:
            cell.outputs = [o for o in outputs if o.get("name") != "stderr"]
        for output in outputs:
            alt = output.get("metadata", {}).get("image/svg+xml", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
