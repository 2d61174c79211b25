"""bfloat16 is native where the processor's own description says so, and is said to be slow elsewhere."""

from __future__ import annotations

import platform
import warnings

import pytest
import torch
from finished_runs import cmm, unit, write_embeddings

from cmmlib.functional import similarity_pass
from cmmlib.functional._kernels import processor
from cmmlib.functional.candidates import Candidates, candidate_cmm
from cmmlib.study import open_run as opening
from cmmlib.study import remarks


@pytest.fixture
def forget():
    """What was found of this processor is asked again in the test, and after it."""
    for found in (processor.has_native_bf16, processor._flags):
        found.cache_clear()
    yield
    for found in (processor.has_native_bf16, processor._flags):
        found.cache_clear()


@pytest.mark.parametrize(
    ("tile", "avx", "machine", "flags", "expected"),
    [
        (True, False, "x86_64", "", True),
        (False, True, "x86_64", "", True),
        (False, False, "x86_64", "avx512f avx512_vnni", False),  # where torch computes it step by step
        (False, False, "aarch64", "fp asimd bf16 i8mm", True),
        (False, False, "aarch64", "fp asimd", False),
    ],
)
def test_native_is_what_the_processor_says(tile, avx, machine, flags, expected, forget, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tile, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "_lines", lambda key: [flags] if key in ("flags", "Features") else [])
    assert processor.has_native_bf16() is expected


def test_a_torch_that_cannot_say_means_no(forget, monkeypatch):
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert processor.has_native_bf16() is False


def test_the_processor_is_named_with_its_instructions_and_threads(forget, monkeypatch):
    assert processor.processor().endswith(f"{torch.get_num_threads()} threads")
    monkeypatch.setattr(
        processor, "_lines", lambda key: {"model name": ["A"], "flags": ["x avx512_bf16 y"]}.get(key, [])
    )
    processor._flags.cache_clear()
    assert processor.processor().startswith("A (")
    assert "avx512_bf16)" in processor.processor()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_would_be_slow_is_told(native, monkeypatch):
    monkeypatch.setattr(processor, "has_native_bf16", lambda: native)
    images, heads = unit(20, 8), unit(3, 8, seed=1)
    candidates = Candidates.of_templates(heads[None])
    for call in (
        lambda: similarity_pass(images, heads, 20.0, precision="bf16"),
        lambda: candidate_cmm(images, candidates, heads, 20.0, precision="bf16"),
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        said = [str(warning.message) for warning in told]
        assert said == ([] if native else [processor.NO_BF16])


def test_a_study_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "has_native_bf16", lambda: False)
    flags = ["--dataset", write_embeddings(tmp_path / "x.npz"), "--analysis-precision", "bf16"]
    for more in ([], ["--dry-run"]):
        said = cmm("run", *flags, *more)
        assert (said.code, said.out) == (2, "")
        assert said.err == f"cmm: analysis_precision: {processor.NO_BF16}: leave it out\n"
    assert not (tmp_path / "runs").exists()


def test_a_model_in_slow_bfloat16_is_told(tmp_path, tiny_clip, image_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", f"folder:{image_folder}", "--backbone", f"local-dir:{tiny_clip}", "--precision", "bf16"]
    for native in (True, False):
        monkeypatch.setattr(remarks, "has_native_bf16", lambda native=native: native)
        said = cmm("run", *flags, "--device", "cpu", "--dry-run")
        assert said.code == 0
        assert (f"precision: {processor.NO_BF16}" in said.out) is not native
