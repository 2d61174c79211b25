"""What every test shares: shapes that are checked, a cache of its own, real embeddings, a tiny untrained CLIP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: a test never waits for a hub
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores, and so do the processes that they start
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `cmm` sets it: threads that wait leave the core to others
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: kernels for GPUs are run step by step

import jaxtyping
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # nbformat would take a second to import it
pytest_plugins = ["finished_runs"]
PACKAGE = Path(__file__).resolve().parents[1] / "cmmlib"
SHAPED = [file for file in sorted(PACKAGE.rglob("*.py")) if "from jaxtyping import" in file.read_text(encoding="utf-8")]
NAMES = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in SHAPED]
jaxtyping.install_import_hook(NAMES, "beartype.beartype")  # shapes in signatures are checked in every call

REAL = Path(os.environ.get("CMM_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "real")
NO_REAL = "" if REAL.is_dir() else f"no real embeddings: {REAL} is missing, set CMM_REAL_DATA"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `&`; what tests start would ignore Ctrl-C as well
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup's doing, likewise
    with suppress(ValueError):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Modules that the processes of pytest-xdist begin with, so that none ends with a dear one while the others are idle.
# The first and the third make books that the fifth looks at.
DEAREST = (
    *("test_default_study", "test_sentences_of_studies", "test_book_pages", "test_sweep", "test_browser"),
    *("test_notebooks", "test_kernels", "test_blazon_study", "test_student_notebooks", "test_heal", "test_cli"),
    *("test_describe", "test_outside", "test_plots", "test_embed", "test_resume", "test_published_files"),
    *("test_blazon", "test_book", "test_llm", "test_clip_benchmark", "test_blazon_render", "test_checkpoints"),
    *("test_gaussians", "test_class_order", "test_claims", "test_run", "test_fuzz"),
)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: DEAREST.index(item.path.stem) if item.path.stem in DEAREST else len(DEAREST))
    for item in items:
        if item.get_closest_marker("real"):
            item.user_properties.append(("real", True))  # travels with the report, also from an xdist worker
            if NO_REAL:
                item.add_marker(pytest.mark.skip(reason=NO_REAL))


def pytest_terminal_summary(terminalreporter):
    def count(*outcomes: str) -> int:
        reports = (r for outcome in outcomes for r in terminalreporter.getreports(outcome))
        return len({r.nodeid for r in reports if "real" in dict(getattr(r, "user_properties", ()))})

    ran, skipped = count("passed", "failed", "error"), count("skipped")
    terminalreporter.write_line(f"real-data tests: {ran} ran, {skipped} skipped ({NO_REAL or REAL})")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """Every test starts with an empty cache folder, which goes with it: thousands of them would fill a disk.

    What stays is small: the configuration of blazon-mini, which a process makes known to open_clip once.
    """
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CMM_CACHE", str(folder))
    yield folder
    for path in folder.glob("*"):
        if path.name != "blazon-mini":
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real embeddings; for tests marked `real`, which are skipped where it is missing."""
    if NO_REAL:
        pytest.skip(NO_REAL)
    return REAL


TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}


def write_clip(folder: Path, *, seed: int = 0, text: dict | None = None, **model_cfg) -> Path:
    """Write a tiny CLIP with random weights as an open_clip `local-dir:` folder."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": {**TEXT, **(text or {})}, **model_cfg}
    architecture = {key: value for key, value in config.items() if key != "custom_text"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP if config.get("custom_text") else CLIP
        model = kind(**architecture)
    folder.mkdir(parents=True)
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def write_openai(file: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Write weights in OpenAI's own format: a TorchScript archive of half-precision modules, with three sizes."""
    root = torch.nn.Module()
    for name, tensor in weights.items():
        *folders, last = name.split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, torch.nn.Module())
            module = module._modules[folder]
        module.register_parameter(last, torch.nn.Parameter(tensor.half(), requires_grad=False))
    for size in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(size, torch.tensor(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the files stay
        torch.jit.script(root).save(file)
    return file


def refusal(call, *args) -> str:
    """The one line that the call is refused with."""
    from cmmlib.errors import InputError  # not before the hook above

    with pytest.raises(InputError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """A `local-dir:` folder with a tiny CLIP of random weights: its embeddings are real, its judgement is not."""
    return write_clip(tmp_path_factory.mktemp("models") / "tiny-clip-untrained")


@pytest.fixture
def architecture(tmp_path, monkeypatch):
    """Give the configuration of a folder a name of its own, as any open_clip architecture has one."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))

    def named(folder: Path, name: str) -> str:
        (tmp_path / f"{name}.json").write_text(
            json.dumps(json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
        )
        open_clip.add_model_config(tmp_path / f"{name}.json")
        return name

    return named


@pytest.fixture
def tiny_architecture(tiny_clip, architecture) -> str:
    """The tiny CLIP's architecture under a name of its own."""
    return architecture(tiny_clip, "tiny-untrained")


def write_images(folder: Path) -> Path:
    """Write four classes of generated images: 10 files of several sizes, number formats and suffixes."""
    rng = np.random.default_rng(0)

    def noise(height: int, width: int, *channels: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, *channels), dtype=np.uint8)

    images = {
        "grey_ramp/a.png": Image.fromarray(np.linspace(0, 255, 40 * 30, dtype=np.uint8).reshape(30, 40)),  # L
        "grey_ramp/b.jpg": Image.fromarray(noise(33, 31)),
        "noise/0.png": Image.fromarray(noise(32, 32, 3)),  # RGB
        "noise/1.jpeg": Image.fromarray(noise(64, 20, 3)),
        "noise/2.bmp": Image.fromarray(noise(9, 50, 3)),
        "palette/a.gif": Image.fromarray(noise(40, 40, 3)).quantize(8),  # P
        "palette/deeper/b.png": Image.fromarray(noise(21, 40, 3)).quantize(16),
        "see_through_glass/a.png": Image.fromarray(noise(40, 50, 4)),  # RGBA
        "see_through_glass/b.webp": Image.fromarray(noise(32, 48, 4)),
        "see_through_glass/c.tif": Image.fromarray(noise(70, 70, 4)).convert("LA"),
    }
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return folder


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """A fresh folder of 10 generated images in 4 classes."""
    return write_images(tmp_path / "generated-images")
