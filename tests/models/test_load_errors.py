"""What keeps weights from being loaded, and is not their fault, is told as what it is."""

import errno
import os
import tempfile

import open_clip
import pytest
import torch
from conftest import refusal
from safetensors import SafetensorError
from safetensors.torch import load_file

from cmmlib.models import state_dicts
from cmmlib.models.backbones import load_backbone

WEIGHTS = "open_clip_model.safetensors"
FULL = "Error while serializing: I/O error: No space left on device (os error 28)"
MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


def failing(error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.fixture
def nested(tiny_clip, tiny_architecture, tmp_path):
    """A checkpoint whose weights are copied before open_clip reads them."""
    torch.save({"model": load_file(tiny_clip / WEIGHTS)}, tmp_path / "w.pt")
    return tiny_architecture, str(tmp_path / "w.pt"), "cpu"


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_memory_that_runs_out_is_no_fault_of_the_weights(error, tiny_clip, monkeypatch):
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    monkeypatch.setattr(open_clip, "create_model_and_transforms", failing(error))
    said = refusal(lambda: backbone.model)
    assert said.startswith(f"device: out of memory on cpu while local-dir:{tiny_clip.name} is loaded: free memory")
    assert "--precision bf16" in said


def test_memory_that_runs_out_while_embedding_has_a_remedy(tiny_clip, monkeypatch):
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    monkeypatch.setattr(backbone.model, "encode_image", failing(MEMORY[0]))
    said = refusal(backbone.encode_images, torch.zeros(1, 3, 32, 32))
    assert said.endswith(
        "cannot embed: out of memory: use a smaller --batch-size, --precision bf16 or another --device"
    )


def test_a_full_disk_for_the_copy_is_told_with_its_folder(nested, monkeypatch):
    monkeypatch.setattr(state_dicts, "save_file", failing(SafetensorError(FULL)))
    said = refusal(lambda: load_backbone(*nested).model)
    where = f"the weights of w.pt are copied to {tempfile.gettempdir()} to be read"
    assert said == f"no space left on device: {where}: free space there, or name another folder as TMPDIR"


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOSPC])
def test_what_the_system_refuses_goes_on_as_that(number, nested, monkeypatch):
    error = OSError(number, os.strerror(number), "/somewhere/w.pt")
    for module, name in ((torch, "load"), (open_clip, "create_model_and_transforms")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, failing(error))
            with pytest.raises(OSError, match="somewhere") as raised:
                _ = load_backbone(*nested).model
        assert raised.value.errno == number


def test_weights_that_may_not_be_read_are_told_as_that(nested, monkeypatch):
    monkeypatch.setattr(
        state_dicts, "_refuse_texts", failing(PermissionError(errno.EACCES, "Permission denied", "w.pt"))
    )
    with pytest.raises(PermissionError):
        _ = load_backbone(*nested).model


@pytest.mark.parametrize("error", [OSError("can't load the configuration of x"), OSError(errno.EINVAL, "seek")])
def test_another_programs_errors_are_still_told_of_the_file(error, nested, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model_and_transforms", failing(error))
    assert "w.pt is no checkpoint of tiny-untrained: " in refusal(lambda: load_backbone(*nested).model)
