"""Kernels for chapters: forks of one process that has imported what chapters import, so that each starts at once.

A fork begins from the imports alone and shares nothing with another: no name, random state, setting of matplotlib or
working folder. OpenMP's threads do not survive a fork, so the process that is forked never computes; it imports while
the study is still being opened, and ends with the run. Where forks are not safe (macOS) or unknown (Windows), each
chapter's kernel is a new process.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

IMPORTS = (
    *("ipykernel.kernelapp", "cmmlib.report.plots", "cmmlib.report.pages", "cmmlib.report.exercises"),
    *("cmmlib.evaluation.claims", "cmmlib.evaluation.run_comparison"),
    *("cmmlib.functional._kernels.similarity_numba", "cmmlib.functional._kernels.candidates_numba"),
)
WITH_MODEL = (*IMPORTS, "cmmlib.evaluation.model_card")  # open_clip and torchvision: as much again
OWNED = "cmm-of-{}"  # name of a forked kernel, of 15 characters at most: the run's process
SETTINGS = {
    "OMP_WAIT_POLICY": "passive",  # threads that wait sleep: where others use the processor, their loops cost the most
}
# As ipykernel sets it, before matplotlib is imported; the user's own has no say.
DRAWING = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


class Kernel(AsyncKernelManager):
    """A kernel of this interpreter, whatever kernel specs Jupyter would find."""

    own_environment: ClassVar[dict[str, str]] = {}  # set by `with_environment`

    @property
    def kernel_spec(self) -> KernelSpec:
        """Of the running interpreter."""
        return KernelSpec(**get_kernel_dict())

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        options["env"] = {**(options.get("env") or os.environ), **self.own_environment}
        return await super()._async_pre_start_kernel(**options)


def with_environment(kind: type[Kernel], variables: dict[str, str]) -> type[Kernel]:
    """The same kernels, with further environment variables."""
    return type(kind.__name__, (kind,), {"own_environment": variables})


@contextmanager
def forked(imports: Sequence[str]) -> Iterator[type[Kernel]]:
    """The kernels of one run, as a class for nbclient: forks that have these modules, where forks are safe."""
    if sys.platform != "linux":
        yield Kernel
        return
    ours, theirs = Pipe()
    command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *imports]
    with theirs:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**SETTINGS, **os.environ, **DRAWING},
            start_new_session=True,  # Ctrl-C is for the run, which then ends this process
        )
    try:
        yield forked_by(ours)
    finally:
        ours.close()
        server.kill()
        server.wait()


def forked_by(server: Connection) -> type[Kernel]:
    """Kernels that a process forks off itself: one that serves (`serve`) the other end of this connection."""
    return type("ForkedKernel", (_ForkedKernel,), {"server": server})


def end_orphans(folder: Path) -> None:
    """End the kernels that work in a run's folder and whose run was killed; others are left to themselves.

    Forked kernels are known by their name, which holds the number of the run's process, and by their working folder.
    """
    orphans = [process for process in psutil.process_iter() if _is_orphan(process, folder.resolve())]
    for process in orphans:
        with suppress(psutil.Error):
            for one in (*process.children(recursive=True), process):
                one.kill()
    psutil.wait_procs(orphans, timeout=10)


def _is_orphan(process: psutil.Process, folder: Path) -> bool:
    try:
        owner = re.fullmatch(OWNED.format(r"(\d+)"), process.name())
        return bool(owner) and Path(process.cwd()) == folder and not _is_older(int(owner[1]), process)
    except (psutil.Error, OSError):  # another user's, or one that has just ended
        return False


def _is_older(pid: int, process: psutil.Process) -> bool:
    """Whether the process that started another one still runs; a later one may have its number."""
    try:
        return psutil.Process(pid).create_time() <= process.create_time()
    except psutil.NoSuchProcess:
        return False


class _ForkedKernel(Kernel):
    server: Connection

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        self.provisioner = _Fork(parent=self, kernel_spec=self.kernel_spec)
        return await super()._async_pre_start_kernel(**options)


class _Fork(LocalProvisioner):
    parent: _ForkedKernel

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Ask the warm process for a fork in place of starting a command."""
        try:
            where = os.fspath(options.get("cwd") or os.getcwd())
            self.parent.server.send((cmd[3:], options["env"], where, os.getpid()))
            pid = self.parent.server.recv()
        except (EOFError, OSError):
            raise RuntimeError("no kernel: the process that kernels are forked off died") from None
        self.process = _Process(pid)
        self.pid = self.pgid = pid
        return self.connection_info


class _Process(psutil.Process):
    """A process that another one started, with what `subprocess.Popen` has besides."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        try:
            return None if self.is_running() and self.status() != psutil.STATUS_ZOMBIE else 0
        except psutil.NoSuchProcess:
            return 0


# ---------------------------------------------------------------- in the process that is forked


def serve(connection: Connection, imports: Sequence[str] = ()) -> NoReturn:
    """Import, then fork a kernel for each request, until the other end is closed."""
    for name in imports:
        import_module(name)
    gc.freeze()  # no collection in a kernel goes through what was imported
    signal.signal(signal.SIGCHLD, _collect)
    while True:
        try:
            arguments, environment, folder, owner = connection.recv()
        except EOFError:
            os._exit(0)
        pid = os.fork()
        if not pid:
            break
        connection.send(pid)
    connection.close()
    os.setsid()  # a group of its own, to be stopped with its own processes
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(OWNED.format(owner))
    os.environ.clear()
    os.environ.update({**SETTINGS, **environment, **DRAWING})
    os.chdir(folder)
    ends_with = f"--IPKernelApp.parent_handle={os.getppid()}"  # which is read from the environment on import only
    sys.argv[1:] = [*arguments, ends_with]
    import_module("ipykernel.kernelapp").launch_new_instance()
    sys.exit()


def _collect(*_: object) -> None:
    """Let the system forget kernels that have ended; their time counts as this process's, and so as the run's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2:])
