"""open_clip models: found, loaded with their own weights or refused, and asked for embeddings.

A model without weights is an error here, never a random model: open_clip only logs a warning and goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from cmmlib.blazon import model as blazon_mini
from cmmlib.cache import digest, file_digests
from cmmlib.errors import InputError
from cmmlib.network import answers
from cmmlib.network import gist as _gist

LOCAL_DIR = "local-dir:"
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


def resolve_device(name: str) -> torch.device:
    """`auto` is the first of cuda, mps and cpu that is there.

    Raises:
        InputError: a device that torch does not know or cannot reach.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device {name!r} is not available here: use auto or cpu") from None
    return device


@dataclass(frozen=True)
class Backbone:
    """A dual encoder, loaded when its first embedding is asked for.

    Attributes:
        name: open_clip architecture, or `local-dir:PATH`.
        pretrained: tag or checkpoint path; None for `local-dir:`.
        checkpoint: the file that holds the weights.
        digest: SHA-256 of the weights file, the configuration and the preprocessing.
        preprocessing: mean, std, interpolation and resize mode that a tag's weights were trained with.
    """

    name: str
    pretrained: str | None
    checkpoint: Path
    digest: str
    device: torch.device
    precision: str = "fp32"
    force_quick_gelu: bool = field(default=False, repr=False)
    preprocessing: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        schema = self.name.startswith(LOCAL_DIR)
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                self.name,
                pretrained=None if schema else str(self.checkpoint),
                precision=self.precision,
                device=self.device,
                force_quick_gelu=self.force_quick_gelu,
                require_pretrained=True,
                weights_only=True,
                **self.preprocessing,
            )
        except Exception as error:  # open_clip and torch raise many kinds for a file that is no fitting checkpoint
            raise InputError(f"{self.checkpoint.name} is no checkpoint of {self.public_name}: {_gist(error)}") from None
        return model.eval().requires_grad_(False), preprocess

    @property
    def model(self) -> Any:
        return self._loaded[0]

    @property
    def public_name(self) -> str:
        return LOCAL_DIR + Path(self.name).name if self.name.startswith(LOCAL_DIR) else self.name

    @property
    def public_pretrained(self) -> str | None:
        """The tag, or the checkpoint's file name without its folder."""
        return None if self.pretrained is None else Path(self.pretrained).name

    @property
    def preprocess(self) -> Callable[..., Tensor]:
        """PIL image -> [3, H, W], as the weights' own configuration says."""
        return self._loaded[1]

    @cached_property
    def tokenizer(self) -> Any:
        return open_clip.get_tokenizer(self.name)

    def fits(self, text: str) -> bool:
        """Whether the text tower reads a text to its end, with room to spare: one more word changes its tokens."""
        return not torch.equal(self.tokenizer([text]), self.tokenizer([text + " a"]))

    @property
    def logit_scale(self) -> float:
        """1 / tau, the model's own."""
        return float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def encode_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit-norm image embeddings, float32, on the CPU."""
        dtype = open_clip.get_input_dtype(self.precision)
        features = self.model.encode_image(pixels.to(self.device, dtype))
        return nn.functional.normalize(features.float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tensor) -> Float[Tensor, "B D"]:
        """Unit-norm text embeddings of token rows [B, L], float32, on the CPU.

        L may be shorter than the context where the text tower is causal (`is_causal`): a causal tower reads the
        embedding at the end-of-text token, which never sees what follows it, so cutting padding changes nothing.
        """
        tokens = tokens.to(self.device)
        tower = self.text_tower
        features = _encode_cut(tower, tokens) if self.is_causal else self.model.encode_text(tokens)
        return nn.functional.normalize(features.float(), dim=-1).cpu()

    @property
    def text_tower(self) -> Any:
        return getattr(self.model, "text", self.model)

    @cached_property
    def is_causal(self) -> bool:
        """Whether padding may be cut: a plain causal text transformer that pools at the end-of-text token."""
        tower = self.text_tower
        plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
        return plain and getattr(tower, "attn_mask", None) is not None and _pooling(tower)[0] in ("argmax", "eos")

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """Tokens up to and with the end-of-text token, [B]; the whole context for a tower that is not causal."""
        if not self.is_causal:
            return torch.full((len(tokens),), tokens.shape[1])
        pool, eos = _pooling(self.text_tower)
        return ((tokens == eos).int() if pool == "eos" else tokens).argmax(1) + 1


def _pooling(tower: Any) -> tuple[Any, Any]:
    """How a text tower pools, and its end-of-text token; open_clip's two text classes name them differently."""
    if hasattr(tower, "text_pool_type"):
        return tower.text_pool_type, tower.text_eos_id
    return getattr(tower, "pool_type", None), getattr(tower, "eos_id", None)


def _encode_cut(tower: Any, tokens: Tensor) -> Tensor:
    """open_clip's text forward for token rows shorter than the context: mask and positions are cut to their length."""
    length, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # [B, L, width]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    pool, eos = _pooling(tower)
    x = text_global_pool(x, tokens, pool, eos_token_id=eos)
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def load_backbone(name: str | None, pretrained: str | None, device: str = "auto", precision: str = "fp32") -> Backbone:
    """Find a model and its weights; nothing is loaded yet.

    Args:
        name: an open_clip architecture (`ViT-B-32-quickgelu`), `blazon-mini`, the embedded world's own model, or
            `local-dir:PATH` (open_clip_config.json and weights).
        pretrained: an open_clip tag (`openai`, `laion2b_s34b_b79k`) or the path of a checkpoint; None is good only for
            `blazon-mini`, which then has its shipped weights, and `local-dir:`.
        device: auto, cpu, cuda, mps.
        precision: fp32, bf16 or fp16.

    Raises:
        InputError: an unknown name or tag, no weights, weights that are not here and cannot be fetched.
    """
    if not name:
        raise InputError("backbone: name a model for these images, as in --backbone ViT-B-32-quickgelu")
    where = resolve_device(device)
    if name.startswith(LOCAL_DIR):
        checkpoint, config = _local_dir(Path(name.removeprefix(LOCAL_DIR)))
        weights = file_digests(checkpoint.parent, [checkpoint, config])
        return Backbone(name, None, checkpoint, digest(weights), where, precision)
    if name == blazon_mini.NAME:
        blazon_mini.register()
        pretrained = pretrained or blazon_mini.TAG
    config = None if ":" in name else open_clip.get_model_config(name)  # open_clip would fetch hf-hub: names
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 3, 0.5)
        hint = f": did you mean {', '.join(near)}?" if near else ": open_clip.list_models() lists them"
        raise InputError(f"backbone: open_clip has no model {name!r}{hint}")
    checkpoint, tag = _checkpoint(name, pretrained)
    if name == blazon_mini.NAME:
        config, tag = blazon_mini.configuration(), blazon_mini.PREPROCESS  # the registered one names a file of ours
    # a tag's weights are handed to open_clip as a file, so their own preprocessing goes with them
    preprocessing = {f"image_{key}": tag[key] for key in _PREPROCESSING if key in tag}
    quick_gelu = bool(tag.get("quick_gelu"))
    weights = digest(file_digests(checkpoint.parent, [checkpoint]), config, quick_gelu, preprocessing)
    return Backbone(name, pretrained, checkpoint, weights, where, precision, quick_gelu, preprocessing)


def _local_dir(folder: Path) -> tuple[Path, Path]:
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise InputError(f"backbone: {folder} has no open_clip_config.json: local-dir:PATH wants it beside the weights")
    checkpoint = _find_checkpoint_in_dir(folder)
    if not checkpoint:
        raise InputError(
            f"backbone: {folder} has no weights beside its configuration: put open_clip_model.safetensors there"
        )
    return Path(checkpoint), config


def _checkpoint(name: str, pretrained: str | None) -> tuple[Path, dict[str, Any]]:
    """The weights file of an architecture, and what open_clip notes about its tag: preprocessing, QuickGELU."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        known = f"a tag ({', '.join(tags[:4])}) or " if tags else ""
        raise InputError(f"pretrained: {name} without weights is a random model: give {known}the path of a checkpoint")
    if pretrained in tags:
        config: dict[str, Any] = open_clip.get_pretrained_cfg(name, pretrained)
        return _fetch(name, pretrained, config), config
    if Path(pretrained).is_file():
        return Path(pretrained), {}
    known = f"tags of {name}: {', '.join(tags)}" if tags else f"{name} has no tags, so give the path of a checkpoint"
    raise InputError(f"pretrained: no tag or file {Path(pretrained).name!r}: {known}")


def _fetch(name: str, tag: str, config: dict[str, Any]) -> Path:
    """Weights of a tag, from open_clip's local cache or from the hub; fails at once where the hub is out of reach."""
    repo, _, file = config.get("hf_hub", "").rpartition("/")
    if repo and not any(isinstance(try_to_load_from_cache(repo, f), str) for f in (file, *_WEIGHT_FILES) if f):
        _require_hub(name, tag)
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # the hub's client raises a dozen kinds
        raise InputError(f"pretrained: weights {tag} of {name} could not be fetched: {_gist(error)}") from None


_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def _require_hub(name: str, tag: str) -> None:
    remedy = "give a checkpoint's path with --pretrained, or embeddings with --dataset embeddings:FILE"
    if hub_constants.HF_HUB_OFFLINE:
        raise InputError(
            f"pretrained: weights {tag} of {name} are not on this machine and HF_HUB_OFFLINE is set: {remedy}"
        )
    if not answers(hub_constants.ENDPOINT):
        raise InputError(f"pretrained: weights {tag} of {name} are not on this machine and no hub answers: {remedy}")
