"""Texts -> embeddings, through the cache: what is known is not encoded again, and equal lengths go together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from cmmlib.models.backbones import Backbone
from cmmlib.models.embed import is_embedding, no_numbers
from cmmlib.storage.cache import cache_folder, digest, is_entry, load_tensors, save_tensors

TEXT_SHARD = 4096  # texts a cache file


def embed_texts(backbone: Backbone, texts: Sequence[str], *, batch_size: int = 64) -> Float[Tensor, "T D"]:
    """Unit-norm embeddings of texts, in their order, through the cache; equal texts are encoded once.

    Returns:
        [T, D], float32.

    Raises:
        InputError: a model that gives no finite embedding of a text.
    """
    folder = cache_folder() / "texts" / digest("text", backbone.digest, backbone.precision)
    unique = {_text_key(text): text for text in texts}
    vectors_by_key = _known_texts(folder, set(unique))
    missing = sorted(set(unique) - vectors_by_key.keys())
    for start in range(0, len(missing), TEXT_SHARD):
        keys = missing[start : start + TEXT_SHARD]
        vectors = encode_texts(backbone, [unique[key] for key in keys], batch_size=batch_size)
        lost = (~is_embedding(vectors)).nonzero()
        if len(lost):
            text = unique[keys[int(lost[0])]]
            raise no_numbers(backbone, f"the text {text[:80]!r}")
        names = torch.tensor([list(bytes.fromhex(key)) for key in keys], dtype=torch.uint8)  # [T, 32]
        save_tensors(folder / f"{digest(keys)}.safetensors", {"key": names, "x": vectors})
        vectors_by_key.update(zip(keys, vectors, strict=True))
    return torch.stack([vectors_by_key[_text_key(text)] for text in texts])


def _text_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _known_texts(folder: Path, wanted: set[str]) -> dict[str, Tensor]:
    vectors_by_key: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shard = load_tensors(path) if is_entry(path, cache_folder()) else None
        if shard is not None:
            keys = (bytes(row).hex() for row in shard["key"].tolist())
            vectors_by_key.update({key: x for key, x in zip(keys, shard["x"], strict=True) if key in wanted})
    return vectors_by_key


def encode_texts(backbone: Backbone, texts: Sequence[str], *, batch_size: int = 64) -> Float[Tensor, "T D"]:
    """Unit-norm embeddings of texts without the cache: texts of equal length go together, without padding.

    Prompts fill about 10 of a CLIP text tower's 77 positions; a causal tower gives the same vectors without the rest.
    `batch_size` is meant for full contexts: shorter texts go in larger batches of the same number of tokens.
    """
    tokens = torch.cat([backbone.tokenizer(list(texts[i : i + 1024])) for i in range(0, len(texts), 1024)])
    lengths = backbone.text_lengths(tokens)
    out: Tensor | None = None
    progress = tqdm(total=len(texts), desc="text embeddings", unit="text", disable=None)
    for rows, length in _length_batches(lengths, batch_size * tokens.shape[1]):
        vectors = backbone.encode_tokens(tokens[rows, :length])
        out = vectors.new_empty(len(texts), vectors.shape[1]) if out is None else out
        out[rows] = vectors
        progress.update(len(rows))
    progress.close()
    assert out is not None
    return out


def _length_batches(lengths: Tensor, token_budget: int) -> Iterator[tuple[Tensor, int]]:
    """Rows of equal length, in batches of at most `token_budget` tokens."""
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        yield from ((part, length) for part in rows.split(max(1, token_budget // length)))
