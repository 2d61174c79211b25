"""open_clip models: found, loaded with their own weights or refused, and asked for embeddings.

A model without weights is an error here, never a random model: open_clip only logs a warning and goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor, nn

from cmmlib.blazon.training import model as blazon_mini
from cmmlib.errors import InputError, one_line
from cmmlib.functional.checks import LOGIT_SCALES
from cmmlib.models.checkpoints import LOCAL_DIR, Checkpoint, find_checkpoint
from cmmlib.models.configurations import CONFIG, subject_of
from cmmlib.models.foreign_code import no_foreign_code
from cmmlib.models.load_errors import WORKER_ENDED, raise_if_not_of_weights, reason
from cmmlib.models.state_dicts import check, positions_as_stored, readable
from cmmlib.models.strips import without_strips
from cmmlib.models.text_towers import encode_cut, pooling
from cmmlib.storage.text_files import listed


def resolve_device(name: str) -> torch.device:
    """`auto` is the first of cuda, mps and cpu that is there.

    Raises:
        InputError: a device that torch does not know or cannot reach.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).sum().item()  # "meta" makes tensors without numbers
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device {name!r} is not available here: use auto or cpu") from None
    return device


def resolve_devices(names: str) -> tuple[torch.device, ...]:
    """One device, or several separated by commas, as in `cuda:0,cuda:1`.

    Raises:
        InputError: one of them is not there, or a comma has nothing beside it.
    """
    return tuple(resolve_device(name) for name in listed(names, "device: "))


@dataclass(frozen=True)
class Backbone:
    """A dual encoder, loaded when its first embedding is asked for.

    Attributes:
        name: open_clip architecture, `local-dir:PATH` or `hf-hub:OWNER/NAME`.
        pretrained: tag or checkpoint path; None for the last two.
        checkpoint: the weights and what belongs to them.
        devices: where it runs; images are shared out over several, everything else is on the first.
    """

    name: str
    pretrained: str | None
    checkpoint: Checkpoint
    devices: tuple[torch.device, ...]
    precision: str = "fp32"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        file, opened = self.checkpoint.path, self.checkpoint.opened
        try:
            with (
                no_foreign_code(),
                positions_as_stored(),
                readable(file) as weights,
                _opened(opened, file, weights) as (asked, own),
            ):
                model, _, preprocess = open_clip.create_model_and_transforms(
                    asked,
                    pretrained=own,
                    precision=self.precision,
                    device=self.device,
                    force_quick_gelu=self.checkpoint.quick_gelu,
                    require_pretrained=True,
                    weights_only=True,
                    **self.checkpoint.preprocessing,
                )
        except Exception as error:  # open_clip and torch raise many kinds for a file that is no fitting checkpoint
            raise_if_not_of_weights(error, self.device, self.public_name)
            told = reason(error, file, self._made())
            raise InputError(f"{file.name} is no checkpoint of {self.public_name}: {told}") from None
        return model.eval().requires_grad_(False), without_strips(preprocess)

    def _made(self) -> Any:
        """A folder's model without weights, None of no folder; says so where the configuration is at fault."""
        opened = self.checkpoint.opened
        if not opened.startswith(LOCAL_DIR):
            return None
        try:
            with no_foreign_code():
                return open_clip.create_model(opened, load_weights=False, pretrained_text=False)
        except Exception as error:  # torch and open_clip raise many kinds
            raise_if_not_of_weights(error, self.device, self.public_name)
            subject = subject_of(Path(opened.removeprefix(LOCAL_DIR)))
            raise InputError(f"{subject} describes a model that cannot be made: {reason(error)}") from None

    def check_weights(self) -> None:
        """Refuse a file that holds no weights which could be loaded, without loading them.

        Raises:
            InputError: it does not.
        """
        try:
            check(self.checkpoint.path)
        except InputError as error:
            raise InputError(f"{self.checkpoint.path.name} is no checkpoint of {self.public_name}: {error}") from None

    @property
    def model(self) -> Any:
        """The open_clip model, loaded at the first call."""
        return self._loaded[0]

    @property
    def device(self) -> torch.device:
        """The first device: where texts are encoded."""
        return self.devices[0]

    @property
    def digest(self) -> str:
        """SHA-256 of weights, configuration and preprocessing."""
        return self.checkpoint.digest

    @property
    def public_name(self) -> str:
        """The name without the folder of a `local-dir:`."""
        return LOCAL_DIR + Path(self.name).name if self.name.startswith(LOCAL_DIR) else self.name

    @property
    def public_pretrained(self) -> str | None:
        """The tag, or the checkpoint's file name without its folder."""
        return None if self.pretrained is None else Path(self.pretrained).name

    @property
    def preprocess(self) -> Callable[..., Tensor]:
        """PIL image -> [3, H, W], as the weights' own configuration says."""
        return self._loaded[1]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How images are prepared: size, mean, std, interpolation, resize mode."""
        known = open_clip.get_model_preprocess_cfg(self.model)
        return {key: known.get(key) for key in ("size", "mean", "std", "interpolation", "resize_mode")}

    @cached_property
    def tokenizer(self) -> Any:
        """Texts -> token rows [T, L], as the weights' own configuration says."""
        text, own = self.checkpoint.configuration.get("text_cfg", {}), self.checkpoint.tokenizer
        try:
            if own is None:
                return open_clip.get_tokenizer(self.checkpoint.opened)
            with no_foreign_code():  # as open_clip does, but from the files that were found: it would ask the hub
                return HFTokenizer(
                    own,
                    context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
                    tokenizer_mode=text.get("tokenizer_mode"),
                    trust_remote_code=False,
                    **(text.get("tokenizer_kwargs") or {}),
                )
        except Exception as error:  # transformers raises many kinds
            raise InputError(
                f"backbone: the tokenizer of {self.public_name} cannot be read: {one_line(error)}"
            ) from None

    def fits_context(self, text: str) -> bool:
        """Whether the text tower reads a text to its end, with room to spare: one more word changes its tokens."""
        return not torch.equal(self.tokenizer([text]), self.tokenizer([text + " a"]))

    @property
    def logit_scale(self) -> float:
        """1 / tau, the model's own. SigLIP's bias shifts all logits alike and changes neither argmax nor softmax."""
        scale = float(self.model.logit_scale.exp())
        if not LOGIT_SCALES[0] <= scale <= LOGIT_SCALES[1]:
            raise InputError(f"backbone: {self.public_name} has a logit scale of {scale}: use other weights")
        return scale

    @torch.inference_mode()
    def encode_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit-norm image embeddings, float32, on the CPU."""
        dtype = open_clip.get_input_dtype(self.precision)
        with self._embedding():
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
        with self._embedding():
            features = encode_cut(tower, tokens) if self.is_causal else self.model.encode_text(tokens)
        return nn.functional.normalize(features.float(), dim=-1).cpu()

    @contextmanager
    def _embedding(self) -> Iterator[None]:
        """What the model itself raises, told in one line: it lacks the tokenizer's words, or memory for the batch."""
        try:
            yield
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if WORKER_ENDED.search(str(error)):
                raise
            raise InputError(f"backbone: {self.public_name} cannot embed: {reason(error)}") from None

    @property
    def text_tower(self) -> Any:
        """The text encoder, which some models keep in a module of its own."""
        return getattr(self.model, "text", self.model)

    @cached_property
    def is_causal(self) -> bool:
        """Whether padding may be cut: a plain causal text transformer that pools at the end-of-text token."""
        tower = self.text_tower
        plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
        return plain and getattr(tower, "attn_mask", None) is not None and pooling(tower)[0] in ("argmax", "eos")

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """Tokens up to and with the end-of-text token, [B]; the whole context for a tower that is not causal."""
        if not self.is_causal:
            return torch.full((len(tokens),), tokens.shape[1])
        pool, eos = pooling(self.text_tower)
        return ((tokens == eos).int() if pool == "eos" else tokens).argmax(1) + 1


@contextmanager
def _opened(opened: str, file: Path, weights: Path) -> Iterator[tuple[str, str | None]]:
    """What open_clip is asked for, and with which weights: a folder's own, or unwrapped ones in a passing folder."""
    if not opened.startswith(LOCAL_DIR):
        yield opened, str(weights)
        return
    if weights != file:
        shutil.copyfile(Path(opened.removeprefix(LOCAL_DIR)) / CONFIG, weights.parent / CONFIG)
        opened = f"{LOCAL_DIR}{weights.parent}"
    yield opened, None


def _require_words(backbone: Backbone) -> None:
    """Refuse a model with fewer words than CLIP's tokenizer, which reads its texts where it has none of its own."""
    own, text = backbone.tokenizer.vocab_size, backbone.checkpoint.configuration["text_cfg"]
    if text.get("vocab_size", own) < own:
        raise InputError(
            f"backbone: {backbone.public_name} has vocab_size {text['vocab_size']:,} and no tokenizer of its own, and "
            f"CLIP's has {own:,} words: name its tokenizer as text_cfg.hf_tokenizer_name"
        )


def load_backbone(name: str | None, pretrained: str | None, device: str = "auto", precision: str = "fp32") -> Backbone:
    """Find a model and its weights; nothing is loaded yet but a tokenizer that is not just CLIP's own.

    Args:
        name: an open_clip architecture (`ViT-B-32-quickgelu`), `blazon-mini`, the embedded world's own model,
            `local-dir:PATH` (open_clip_config.json and weights), or `hf-hub:OWNER/NAME` (the same on a hub).
        pretrained: an open_clip tag (`openai`, `laion2b_s34b_b79k`) or the path of a checkpoint: .safetensors, a state
            dict of torch, or OpenAI's own TorchScript archive, which always gets QuickGELU. None is good only for
            `blazon-mini`, which then has its shipped weights, `local-dir:` and `hf-hub:`.
        device: auto, cpu, cuda, mps, or several separated by commas (`cuda:0,cuda:1`).
        precision: fp32, bf16 or fp16.

    Raises:
        InputError: an unknown name or tag, no weights, weights or a tokenizer that are not here and cannot be fetched,
            weights that belong to another configuration, a configuration that would run Python code of its own.
    """
    if not name:
        raise InputError("backbone: name a model for these images, as in --backbone ViT-B-32-quickgelu")
    devices = resolve_devices(device)
    if name == blazon_mini.NAME:
        pretrained = pretrained or blazon_mini.TAG
    checkpoint = find_checkpoint(name, pretrained)
    backbone = Backbone(name, pretrained, checkpoint, devices, precision)
    if checkpoint.opened.startswith(LOCAL_DIR) and checkpoint.tokenizer is None:
        _require_words(backbone)
    if checkpoint.tokenizer or "tokenizer_kwargs" in checkpoint.configuration.get("text_cfg", {}):
        _ = backbone.tokenizer  # what is wrong with it is said now, not after the images
    return backbone
