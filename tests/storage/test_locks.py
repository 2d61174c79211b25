"""Locks between processes: one at a time, whoever is killed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import pytest
from filelock import FileLock

from cmmlib.storage.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from cmmlib.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_comes_second_is_told_and_waits(tmp_path):
    told, order, held = [], [], threading.Event()

    def hold() -> None:
        with locked(tmp_path / "lock"):
            held.set()
            while not told:
                held.wait(0.01)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with locked(tmp_path / "lock", told.append):
        order.append("second")
    thread.join()
    assert told == [f"process {os.getpid()} on {platform.node()}"]
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_blocks_nobody(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
        process.wait()
    assert (tmp_path / "lock").read_text().startswith(f"process {process.pid} on ")
    told: list[str] = []
    with locked(tmp_path / "lock", told.append):
        assert told == []
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "ENOTSUP", "EROFS"])
def test_a_file_system_without_locks_is_written_to_without(number, tmp_path, monkeypatch):
    import errno

    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with locked(tmp_path / "lock"):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), locked(tmp_path / "file" / "lock"):  # noqa: PT011
        pass
