"""Text towers of open_clip: how they pool, and their forward pass for texts that are cut behind their end."""

from __future__ import annotations

from typing import Any

from open_clip.transformer import text_global_pool
from torch import Tensor, nn


def pooling(tower: Any) -> tuple[Any, Any]:
    """How a text tower pools, and its end-of-text token; open_clip's two text classes name them differently."""
    if hasattr(tower, "text_pool_type"):
        return tower.text_pool_type, tower.text_eos_id
    return getattr(tower, "pool_type", None), getattr(tower, "eos_id", None)


def encode_cut(tower: Any, tokens: Tensor) -> Tensor:
    """open_clip's text forward for token rows shorter than the context: mask and positions are cut to their length."""
    length, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # [B, L, width]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    pool, eos = pooling(tower)
    x = text_global_pool(x, tokens, pool, eos_token_id=eos)
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection
