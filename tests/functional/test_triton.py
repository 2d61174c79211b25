"""The kernels for NVIDIA's GPUs, run by Triton's interpreter on the processor: what plain torch gives, they give."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import torch

import cmmlib.functional as F
from cmmlib.functional import candidates, similarity
from cmmlib.functional._kernels.similarity_torch import TorchSteps

pytest.importorskip("triton", reason="torch brings triton on Linux alone")
SCALE, IMAGES, CLASSES = 30.0, 150, 40


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.fixture(scope="module")
def steps() -> Any:
    """The module of the pass's kernels; `conftest` has told triton to interpret them."""
    return import_module("cmmlib.functional._kernels.similarity_triton")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the interpreter runs in one thread alone


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and texts of two prompts, with two equal classes and groups of equal images."""
    x, t = unit(IMAGES, 8), unit(2, CLASSES, 8, seed=1)
    t[:, 5] = t[:, 9]
    x[100:140], x[93] = x[7], x[8]
    return x, t


@pytest.mark.parametrize(
    ("precision", "block", "sizes"),
    [
        ("fp32", None, {"GROUP": 16}),  # images of the nearest groups
        ("fp32", 90, {"GROUP": 8, "ROWS": 8, "NEAREST": 2, "CHUNKS": 1, "FEW_CLASSES": 16}),  # in two blocks
        ("fp32", 90, {"GROUP": 16, "WIDEST": 16}),  # groups would be nearly all images
        ("bf16", 101, {"GROUP": 16}),
    ],
)
def test_the_pass_is_that_of_plain_torch(precision, block, sizes, steps, data, monkeypatch):
    for name, size in {"CHUNK": 64, "ROWS": 16, **sizes}.items():
        monkeypatch.setattr(steps, name, size)
    passes = []
    for kind in (TorchSteps, steps.TritonSteps):
        monkeypatch.setattr(similarity, "_steps", lambda device, kind=kind: kind)
        passes.append(F.similarity_pass(*data, SCALE, precision=precision, block=block, n_images=IMAGES))
    expected, found = passes
    for key in ("prediction", "rival", "top_similarity", "margin"):
        assert torch.equal(getattr(found, key), getattr(expected, key)), key
    for key in ("top_probability", "spread", *similarity.PER_CLASS):
        torch.testing.assert_close(getattr(found, key), getattr(expected, key), rtol=1e-5, atol=1e-5)
    for key in ("best_similarity", "best_image"):
        assert torch.equal(getattr(found, key).sort().values, getattr(expected, key).sort().values), key


@pytest.mark.parametrize("n", [1, 5, 64, 200])
def test_the_highest_keys_are_found_bit_by_bit(n, steps):
    keys = torch.randint(-(1 << 62), 1 << 62, (7, n), generator=torch.Generator().manual_seed(n))
    keys[0, :3], keys[1] = -(1 << 63), torch.arange(n) - n // 2
    keys[2, -1] = (1 << 63) - 1
    kind = steps.TritonSteps({"soft_mass": torch.zeros(7)}, 3, 1.0)
    for k in {1, min(3, n), n}:
        assert torch.equal(kind.highest(keys, k).sort().values, keys.topk(k, 1).values.sort().values)


def test_images_of_few_classes_are_looked_at_all(steps, data, monkeypatch):
    found = []
    for kind in (TorchSteps, steps.TritonSteps):
        monkeypatch.setattr(similarity, "_steps", lambda device, kind=kind: kind)
        passed = F.similarity_pass(data[0], data[1][:, :3], SCALE, n_images=IMAGES)
        found.append(passed.best_image.sort().values)
    assert torch.equal(*found)


def test_cmm_of_candidates_is_that_of_plain_torch(data, monkeypatch):
    x, t = data
    pool = F.Candidates.of_templates(t).with_descriptions({3: t[:, 1], 39: t[:, 2]})
    monkeypatch.setattr(candidates, "_is_compiled", lambda device: False)
    expected = F.candidate_cmm(x, pool, t[0], SCALE)
    monkeypatch.setattr(candidates, "has_triton", lambda device: True)
    torch.testing.assert_close(F.candidate_cmm(x, pool, t[0], SCALE), expected, rtol=1e-5, atol=1e-6)


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from cmmlib.functional._kernels import candidates_triton, similarity_triton

S, F, D, I, L, N, P = "similarities", "*fp32", "*fp64", "*i32", "*i64", "i32", "fp32"
pass_tile = {"CHUNK": 512, "ROWS": 16, "CLASSES": 128}
KERNELS = [
    (similarity_triton._look_at_images, [S, F, I, I, F, F, F, F, D, D, D, P, N, N], {"TILE": 1024}),
    (similarity_triton._sum_over_images, [S, F, F, F, F, F, L, P, N, N, N, N], {**pass_tile, "GROUP": 32}),
    (similarity_triton._look_at_groups, [S, F, L, L, N, N, N, N], {"GROUP": 32, "NEAREST": 32}),
    (similarity_triton._add_retrieved, [L, F, L, I, F, F, D, N], {"TILE": 64}),
    (similarity_triton._highest, [L, L, N, N], {"TILE": 2048}),
    (similarity_triton._add_chunks, [F, D, D, D, D, N, N], {"CHUNKS": 32, "CLASSES": 32}),
    (candidates_triton._sum_over_images, [S, F, F, F, P, P, N, N, N, N], pass_tile),
]
for kernel, types, sizes in KERNELS:
    for similarities in (F, "*bf16"):
        kinds = [similarities if kind == S else kind for kind in types] + ["constexpr"] * len(sizes)
        source = ASTSource(kernel, dict(zip(kernel.arg_names, kinds, strict=True)), sizes)
        print(kernel.__name__, len(compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]) > 0)
"""


def test_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    """The interpreter runs what Triton's compiler may refuse."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    ran = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert ran.stdout.split().count("True") == 14, ran.stderr[-2000:]
