"""A backbone's name -> its weights file and what belongs to it: configuration, preprocessing, tokenizer.

Nothing is loaded here. What is on this machine is used as it is, and no hub is asked about it; a hub is asked for what
is missing, after a short look whether one answers, so a machine without a network is told so at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants as hub_constants
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.hf_configs import arch_dict
from open_clip.pretrained import _get_safe_alternatives

from cmmlib.blazon.training import model as blazon_mini
from cmmlib.errors import InputError, one_line, some
from cmmlib.models import preprocessing, torchscript
from cmmlib.models.configurations import CONFIG, model_part, preprocessing_part, read_configuration
from cmmlib.storage.cache import digest, file_digests
from cmmlib.storage.network import host_responds
from cmmlib.storage.text_files import read_json

LOCAL_DIR, HUB = "local-dir:", "hf-hub:"
WEIGHTS = "open_clip_pytorch_model.bin"  # of a hub's repository that names no file; open_clip prefers safetensors to it
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model", "vocab.txt")  # one is always there
MORE_TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("sentencepiece.bpe.model", "tokenizer.model"),
)


@dataclass(frozen=True)
class Checkpoint:
    """A weights file, and what makes a model of it.

    Attributes:
        path: the weights.
        opened: what open_clip is asked for: an architecture, or `local-dir:FOLDER`.
        digest: SHA-256 of weights, configuration, preprocessing and, where the model has one of its own, tokenizer.
        configuration: open_clip's model configuration.
        quick_gelu: whether the weights want QuickGELU, whatever the configuration says.
        preprocessing: mean, std, interpolation and resize mode that the weights were trained with, where the
            configuration does not say them itself.
        tokenizer: folder or hub name of a Hugging Face tokenizer; None for CLIP's own.
        remarks: lines for whoever runs a study: what lies there and is not read.
    """

    path: Path
    opened: str
    digest: str
    configuration: dict[str, Any] = field(repr=False, compare=False)
    quick_gelu: bool = field(default=False, repr=False)
    preprocessing: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    tokenizer: str | None = field(default=None, repr=False, compare=False)
    remarks: tuple[str, ...] = field(default=(), repr=False, compare=False)


def find_checkpoint(name: str, pretrained: str | None) -> Checkpoint:
    """Weights and what belongs to them; `name` and `pretrained` as in `cmmlib.models.backbones.load_backbone`.

    Raises:
        InputError: an unknown name or tag, no weights, weights that are not here and cannot be fetched, weights that
            belong to another configuration.
    """
    if not name.startswith((LOCAL_DIR, HUB)):
        return _of_architecture(name, pretrained)
    if pretrained:
        raise InputError(f"pretrained: {name.partition(':')[0]}: models bring their own weights: leave it out")
    if name.startswith(HUB):
        return _of_repository(name.removeprefix(HUB))
    folder = Path(name.removeprefix(LOCAL_DIR))
    return _of_folder(folder, LOCAL_DIR + folder.name)


# ---------------------------------------------------------------- a folder with a configuration and weights


def _of_folder(folder: Path, name: str) -> Checkpoint:
    if not (folder / CONFIG).is_file():
        raise InputError(f"backbone: {folder} has no {CONFIG}: local-dir:PATH wants it beside the weights")
    weights = _find_checkpoint_in_dir(folder)
    if not weights:
        raise InputError(
            f"backbone: {folder} has no weights beside its configuration: put open_clip_model.safetensors there"
        )
    read = read_configuration(folder)
    configuration = model_part(read, folder)
    shared, remarks = preprocessing.of_folder(folder, preprocessing_part(read, folder), configuration)
    tokenizer = _tokenizer(configuration, name, folder)
    files = [Path(weights), folder / CONFIG]
    if tokenizer == str(folder):
        own = (folder / file for file in (*TOKENIZER_FILES, *MORE_TOKENIZER_FILES))
        files += [file for file in own if file.is_file()]
    content = digest(file_digests(folder, files), *([shared] if shared else []))
    more = {"preprocessing": _arguments(shared), "tokenizer": tokenizer}
    remarks = (*_other_weights(Path(weights)), *remarks)
    return Checkpoint(Path(weights), f"{LOCAL_DIR}{folder}", content, configuration, **more, remarks=remarks)


def _arguments(said: dict[str, Any]) -> dict[str, Any]:
    """Preprocessing as arguments of open_clip."""
    return {f"image_{key}": said[key] for key in preprocessing.KEYS if key in said}


def _other_weights(weights: Path) -> tuple[str, ...]:
    """A line where other files of weights lie beside the one that is read."""
    others = preprocessing.other_weights(weights)
    return (f"weights of {weights.name} are read, others beside it are not: {some(others)}",) if others else ()


def _tokenizer(configuration: dict[str, Any], name: str, folder: Path | None = None) -> str | None:
    """Folder or hub name of the tokenizer that a configuration asks for; None for CLIP's own.

    Looked for before anything is embedded: texts come after the images, hours later.
    """
    text = configuration.get("text_cfg", {})
    tokenizer, tower = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    if not (tokenizer or tower):
        return None
    if find_spec("transformers") is None:
        raise InputError(f"backbone: {name} reads texts with the package transformers: pip install 'cmmlib[siglip]'")
    if tower:
        _require_known(f"backbone: the text tower {tower} of {name} is", tower)
    if folder is not None and any((folder / file).is_file() for file in TOKENIZER_FILES):
        return str(folder)
    here = _in_cache(tokenizer, TOKENIZER_FILES) if tokenizer else None
    if tokenizer and not here:
        _require_hub(f"backbone: the tokenizer {tokenizer} of {name} is")
    return str(here.parent) if here else tokenizer


def _require_known(subject: str, tower: str) -> None:
    """Refuse a text tower whose kind open_clip does not know; transformers would look for Python code beside it."""
    file = _from_hub(tower, "config.json", subject)
    kind = read_json(file, f"backbone: {file.name} of {tower}").get("model_type")
    if kind not in list(arch_dict):
        raise InputError(f"{subject} of the kind {kind!r}, which open_clip cannot use: it has {', '.join(arch_dict)}")


# ---------------------------------------------------------------- an architecture, and a tag or a file


def _of_architecture(name: str, pretrained: str | None) -> Checkpoint:
    if name == blazon_mini.NAME:
        blazon_mini.register()
    configuration = open_clip.get_model_config(name) if ":" not in name else None
    if configuration is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 3, 0.5)
        hint = f": did you mean {', '.join(near)}?" if near else ": open_clip.list_models() lists them"
        raise InputError(f"backbone: open_clip has no model {name!r}{hint}")
    path, (tag, remarks) = _weights(name, pretrained, configuration)
    tokenizer = _tokenizer(configuration, name)
    if name == blazon_mini.NAME:  # the registered configuration names our file
        configuration, tag, remarks = blazon_mini.configuration(), blazon_mini.PREPROCESS, ()
    said = _arguments(tag)  # a tag's weights are handed to open_clip as a file, so their own goes with them
    quick_gelu = bool(tag.get("quick_gelu"))
    content = digest(file_digests(path.parent, [path]), configuration, quick_gelu, said)
    return Checkpoint(path, name, content, configuration, quick_gelu, said, tokenizer, remarks)


def _weights(name: str, pretrained: str | None, configuration: dict[str, Any]) -> tuple[Path, preprocessing.Found]:
    """The weights file of an architecture, what is known about it (preprocessing, QuickGELU), and remarks."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        hint = f"a tag ({', '.join(tags[:4])}) or " if tags else ""
        raise InputError(f"pretrained: {name} without weights is a random model: give {hint}the path of a checkpoint")
    if pretrained in tags:
        tag: dict[str, Any] = open_clip.get_pretrained_cfg(name, pretrained)
        return _fetch(name, pretrained, tag), (tag, ())
    path = Path(pretrained)
    if path.is_file() and torchscript.is_archive(path):
        return path, (_openai(name, path), preprocessing.of_archive(path))
    if path.is_file():
        return path, preprocessing.of_file(name, path, configuration)
    hint = f"tags of {name}: {', '.join(tags)}" if tags else f"{name} has no tags, so give the path of a checkpoint"
    if path.is_dir():
        raise InputError(f"pretrained: {pretrained} is a folder: name the file in it, or use --backbone local-dir:PATH")
    raise InputError(f"pretrained: no tag or file {pretrained!r}: {hint}")


def _openai(name: str, path: Path) -> dict[str, Any]:
    """What goes with OpenAI's own format: QuickGELU, whatever architecture is named. Nobody else publishes CLIP so.

    open_clip's download addresses hold the files' SHA-256, so a file that is told apart from the named model by no
    shape of its weights, or under another name, is still known.
    """
    (own,) = file_digests(path.parent, [path])
    models = open_clip.list_pretrained_models_by_tag("openai")
    models = [model for model in models if own in open_clip.get_pretrained_url(model, "openai").split("/")]
    if models and name not in models:
        raise InputError(f"pretrained: {path.name} is OpenAI's {models[0]}, not {name}: use --backbone {models[-1]}")
    return {"quick_gelu": True}


# ---------------------------------------------------------------- the hub


def _fetch(name: str, tag: str, config: dict[str, Any]) -> Path:
    """Weights of a tag, from the hub's local cache or from the hub."""
    repo, _, file = config.get("hf_hub", "").rpartition("/")
    if not repo:
        return Path(open_clip.download_pretrained(config))
    return _from_hub(repo, file or WEIGHTS, f"pretrained: weights {tag} of {name} are")


def _of_repository(repo: str) -> Checkpoint:
    found = _of_folder(_hub_folder(repo), HUB + repo)
    if found.tokenizer != repo:
        return found
    _fetch_tokenizer(repo)  # before the digest is taken, which would be another one once it lies beside the weights
    return _of_folder(_hub_folder(repo), HUB + repo)


def _fetch_tokenizer(repo: str) -> None:
    for file in (*TOKENIZER_FILES, *MORE_TOKENIZER_FILES, "config.json"):
        try:
            hf_hub_download(repo, file)
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's client raises a dozen kinds
            raise InputError(
                f"backbone: the tokenizer of {HUB}{repo} could not be fetched: {one_line(error)}"
            ) from None


def _hub_folder(repo: str) -> Path:
    """The folder of the hub's local cache that holds a repository's configuration and weights, fetched if need be."""
    subject = f"backbone: {HUB}{repo} is"
    config = _from_hub(repo, CONFIG, subject)
    weights = _from_hub(repo, WEIGHTS, subject)
    # of two revisions the newer is whole: its configuration comes with the weights
    return weights.parent if (weights.parent / CONFIG).is_file() else config.parent


def _from_hub(repo: str, file: str, subject: str) -> Path:
    """A file of a repository, the safetensors variant preferred, as open_clip does.

    Args:
        subject: begins the line that says why it cannot be had.
    """
    files = [*_get_safe_alternatives(file), file]
    cached = _in_cache(repo, files)
    if cached:
        return cached
    _require_hub(subject)
    for candidate in files:
        try:
            return Path(hf_hub_download(repo, candidate))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's client raises a dozen kinds
            raise InputError(f"{subject} not on this machine and could not be fetched: {one_line(error)}") from None
    raise InputError(f"{subject} not on this machine, and {repo} has no {' or '.join(files)}")


def _in_cache(repo: str, files: list[str] | tuple[str, ...]) -> Path | None:
    def look() -> Iterator[Path]:
        for file in files:
            found = try_to_load_from_cache(repo, file)
            if isinstance(found, str):
                yield Path(found)

    try:
        return next(look(), None)
    except ValueError as error:
        raise InputError(f"backbone: {repo!r} is no name of a hub's repository: {one_line(error)}") from None


def _require_hub(subject: str) -> None:
    remedy = "give a checkpoint's path with --pretrained, or embeddings with --dataset embeddings:FILE"
    if hub_constants.HF_HUB_OFFLINE:
        raise InputError(f"{subject} not on this machine and HF_HUB_OFFLINE is set: {remedy}")
    if not host_responds(hub_constants.ENDPOINT):
        raise InputError(f"{subject} not on this machine and no hub answers at {hub_constants.ENDPOINT}: {remedy}")
