"""blazon-mini: the configuration of a small CLIP, and its entry in open_clip's own registry.

A ModifiedResNet over 64 pixels, a causal text transformer over 28 tokens, CLIP's own byte-pair tokenizer cut to its
first merges. After `register()`, `open_clip.create_model_and_transforms("blazon-mini", pretrained="shipped")` and
`open_clip.get_tokenizer("blazon-mini")` work like those of any other model. The tag `early` is a second backbone, to
compare with: the same recipe with half as many samples.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import warnings
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cmmlib.storage.cache import cache_folder, whole_file

NAME, TAG = "blazon-mini", "shipped"
SHIPPED = Path(__file__).parents[1] / "shipped"  # weights, configuration and record of the training run that ships
EARLY_TAG = "early"
WEIGHTS = SHIPPED / "open_clip_model.safetensors"
EARLY = SHIPPED / EARLY_TAG
IMAGE_SIZE = 64
CONTEXT = 28
MERGES = 3500  # of CLIP's 48,894
VOCABULARY = 2 * 256 + MERGES + 2
PREPROCESS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bicubic", "resize_mode": "shortest"}


def configuration(bpe_path: str | None = None) -> dict[str, Any]:
    """open_clip's model configuration; `bpe_path` is the tokenizer's file of merges."""
    text: dict[str, Any] = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 128, "heads": 4, "layers": 3}
    if bpe_path is not None:
        text["tokenizer_kwargs"] = {"bpe_path": bpe_path}
    vision = {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}


def folder_of(tag: str) -> Path:
    """Folder of the files that come with a tag's weights."""
    return {TAG: SHIPPED, EARLY_TAG: EARLY}[tag]


def weights() -> dict[str, Path]:
    """Tag -> weights file of every training that ships."""
    return {tag: folder_of(tag) / WEIGHTS.name for tag in (TAG, EARLY_TAG)}


@cache
def register() -> str:
    """Make blazon-mini and the weights that ship known to open_clip and return the model's name.

    The configuration and the tokenizer's merges are written to the cache folder. open_clip has no public way to add a
    tag, so its registry of tags gets entries.
    """
    from open_clip.pretrained import _PRETRAINED

    folder = cache_folder() / NAME
    merges = folder / f"merges-{MERGES}.txt.gz"
    _keep(merges, _merges())
    _add_configuration(folder / f"{NAME}.json", json.dumps(configuration(str(merges))).encode())
    _PRETRAINED[NAME] = {tag: {"file": str(file), **PREPROCESS} for tag, file in weights().items()}
    return NAME


def _add_configuration(path: Path, content: bytes) -> None:
    """Make it known to open_clip, which reads a file: of the cache, or where that may only be read a passing one."""
    import open_clip

    try:
        _keep(path, content)
        open_clip.add_model_config(path)
    except OSError:
        with tempfile.TemporaryDirectory() as folder:
            passing = Path(folder) / path.name
            passing.write_bytes(content)
            open_clip.add_model_config(passing)


def tokenizer():
    """The tokenizer of blazon-mini: callable on texts, gives int64 [T, 28]."""
    import open_clip

    return open_clip.get_tokenizer(register())


def _keep(path: Path, content: bytes) -> None:
    """Write a file of the cache, unless it holds this already: a cache that may only be read is enough then."""
    with suppress(OSError, EOFError, zlib.error):  # what is missing or damaged is written
        there = path.read_bytes()
        if (gzip.decompress(there) if path.suffix == ".gz" else there) == content:
            return
    if path.exists() and path.suffix == ".gz":  # the configuration names its place: a cache may have been moved
        warnings.warn(f"cache entry {path.name} is damaged: written again", stacklevel=2)
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _merges() -> bytes:
    """The first merges of CLIP's byte-pair encoding, in the format that open_clip's tokenizer reads."""
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")[: MERGES + 1]  # the first line is a heading
    return "\n".join(lines).encode()
