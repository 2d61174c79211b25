"""Names -> weights: every kind of name, from this machine without a hub, or refused in one line at once."""

import argparse
import hashlib
import json
import shutil
import sys
import time
import urllib.error
import warnings
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from conftest import TEXT, VISION, refusal, write_clip, write_openai
from finished_runs import cmm
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file

from cmmlib.models import checkpoints, configurations, preprocessing, torchscript
from cmmlib.models.backbones import load_backbone
from cmmlib.models.configurations import CONFIG
from cmmlib.models.embed_texts import encode_texts
from cmmlib.storage.cache import digest, file_digests

WEIGHTS = "open_clip_model.safetensors"
TEXTS = ["a photo of a cat.", "a very small dog", "the cat"]
# OpenAI's own reader guesses heads of 64, so this model has them.
OPENAI_SIZES = {"text": {"width": 64, "heads": 1}, "vision_cfg": {**VISION, "width": 64, "head_width": 64}}
SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 20,
    "hf_tokenizer_name": "somebody/letters",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}
TIMM = {"image_size": 64, "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_proj": "none"}
TIMM_WIDTH = 64
COCA = {
    "custom_text": True,
    "multimodal_cfg": TEXT,
    "text": {"context_length": 76, "embed_cls": True, "output_tokens": True},
    "vision_cfg": {**VISION, "output_tokens": True},
}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}


def refused_model(*args) -> str:
    """The one line that a model is refused with when its weights are read."""
    return refusal(lambda: load_backbone(*args).model)


@pytest.fixture
def no_network(monkeypatch):
    """A machine whose user set nothing and whose network answers nothing; every question is noted."""
    asked = []

    def refuse(url, timeout):
        asked.append((url, timeout))
        raise urllib.error.URLError("unreachable")

    def download(*_args, **_kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    return asked


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty local cache of the hub. `hub_cache(repo, folder)` puts files there as the hub's client does."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repo: str, folder: Path) -> Path:
        root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("abc123")
        return shutil.copytree(folder, root / "snapshots" / "abc123")

    return put


# ---------------------------------------------------------------- every kind of tower


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"vision_cfg": RESNET},
        {"vision_cfg": {**TIMM, "timm_pool": "map"}, "custom_text": True, "embed_dim": TIMM_WIDTH},
        {"quick_gelu": True, "custom_text": True},
        COCA,
    ],
    ids=["ViT", "ResNet", "timm", "QuickGELU", "CoCa"],
)
def test_every_kind_of_tower_gives_the_vectors_of_open_clip(tmp_path, config):
    folder = write_clip(tmp_path / "x-untrained", **config)
    backbone = load_backbone(f"local-dir:{folder}", None, "cpu")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = torch.stack([preprocess(Image.new("RGB", (40, 50), colour)) for colour in ("red", "green", "blue")])
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.no_grad():
        images, texts = model.eval().encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    assert torch.allclose(backbone.encode_images(pixels), images, atol=1e-5)
    assert torch.allclose(encode_texts(backbone, TEXTS), texts, atol=1e-5)
    assert backbone.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_the_preprocessing_is_recorded(tiny_clip):
    assert load_backbone(f"local-dir:{tiny_clip}", None, "cpu").preprocessing == {
        "size": (32, 32),
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


# ---------------------------------------------------------------- OpenAI's own format


@pytest.fixture
def openai(tmp_path, architecture):
    """An untrained model in OpenAI's format, and two architectures that fit its shapes: with QuickGELU and without."""
    plain = write_clip(tmp_path / "plain-untrained", **OPENAI_SIZES)
    quick = write_clip(tmp_path / "quick-untrained", quick_gelu=True, **OPENAI_SIZES)
    architecture(plain, "tiny-openai"), architecture(quick, "tiny-openai-quickgelu")
    return write_openai(tmp_path / "openai-untrained.pt", load_file(plain / WEIGHTS))


@pytest.mark.parametrize("name", ["tiny-openai", "tiny-openai-quickgelu"])
def test_openais_own_format_always_gets_quick_gelu_and_the_vectors_of_open_clips_reader(openai, name):
    backbone = load_backbone(name, str(openai), "cpu")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # open_clip's reader uses torch.jit, which is deprecated
        model = open_clip.load_openai_model(str(openai), "fp32", "cpu")
        pixels, tokens = torch.rand(3, 3, 32, 32), open_clip.tokenize(TEXTS)
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    assert any(isinstance(module, open_clip.transformer.QuickGELU) for module in backbone.model.modules())
    assert torch.allclose(backbone.encode_images(pixels), images, atol=1e-6)
    assert torch.allclose(encode_texts(backbone, TEXTS), texts, atol=1e-6)
    assert backbone.preprocessing["mean"] == open_clip.OPENAI_DATASET_MEAN


def test_without_quick_gelu_the_vectors_would_be_others(openai, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file(torchscript.read_weights(openai), weights)
    pixels = torch.rand(3, 3, 32, 32)
    plain, quick = (load_backbone(name, str(weights)) for name in ("tiny-openai", "tiny-openai-quickgelu"))
    assert not torch.allclose(plain.encode_images(pixels), quick.encode_images(pixels), atol=1e-4)


def test_a_file_of_openais_under_another_architecture_is_told_by_its_digest(openai, tiny_architecture, monkeypatch):
    own = hashlib.sha256(openai.read_bytes()).hexdigest()
    tags = {"openai": {"url": f"https://example.org/{own}/tiny.pt"}}
    for name in ("tiny-openai", "tiny-openai-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)
    message = refusal(load_backbone, tiny_architecture, str(openai))
    assert "openai-untrained.pt is OpenAI's tiny-openai, not tiny-untrained" in message
    assert "--backbone tiny-openai-quickgelu" in message
    assert load_backbone("tiny-openai", str(openai)).model is not None


class Trap(torch.nn.Module):
    """A TorchScript module that writes a file while it is loaded."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return (self.weight, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]
        torch.save(state[0], state[1])


def test_a_program_in_an_archive_is_not_run(tmp_path, tiny_architecture):
    archive, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Trap(str(sprung))).save(archive)
        assert "weights.pt is no checkpoint of" in refused_model(tiny_architecture, str(archive))
        assert not sprung.exists()
        torch.jit.load(archive)
    assert sprung.exists()  # a careless reader falls into the trap, so the test can fail


# ---------------------------------------------------------------- weights that do not fit


SHAPES = "(visual.proj is [32, 17], and [32, 16] in the model"


@pytest.mark.parametrize("kind", [".safetensors", ".pt", "archive"])
@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_one_line_that_says_why(tmp_path, tiny_clip, tiny_architecture, kind, damage):
    weights = load_file(tiny_clip / WEIGHTS)
    if damage == "missing":
        del weights["visual.proj"]
    elif damage == "extra":
        weights["transformer.resblocks.2.ln_1.weight"] = torch.ones(32)
    else:
        weights["visual.proj"] = torch.ones(32, 17)
    file = tmp_path / f"weights{'.pt' if kind == 'archive' else kind}"
    if kind == "archive":
        write_openai(file, weights)
    else:
        save_file(weights, file) if kind == ".safetensors" else torch.save(weights, file)
    message = refused_model(tiny_architecture, str(file))
    assert f"{file.name} is no checkpoint of tiny-untrained" in message
    expected = {"missing": "its weights lack", "extra": "its weights have", "shape": SHAPES}
    assert expected[damage] in message


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path, tiny_clip):
    folder = shutil.copytree(tiny_clip, tmp_path / "tiny")
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"visual.proj": torch.ones(32, 17)}, folder / WEIGHTS)
    message = refused_model(f"local-dir:{folder}", None)
    assert f"{WEIGHTS} is no checkpoint of local-dir:tiny: " in message
    assert SHAPES in message
    save_file(weights | {"visual.proj": torch.ones(32, 17), "text_projection": torch.ones(3, 4)}, folder / WEIGHTS)
    assert "in the model; 1 more)" in refused_model(f"local-dir:{folder}", None)
    save_file(weights | {"logit_scale": torch.ones(3)}, folder / WEIGHTS)
    assert "logit_scale is [3], and [] in the model" in refused_model(f"local-dir:{folder}", None)
    save_file(weights | {"visual.class_embedding": torch.ones(3, 2)}, folder / WEIGHTS)
    assert "visual.class_embedding is [3, 2], and [32] in the model" in refused_model(f"local-dir:{folder}", None)
    for name in ("visual.positional_embedding", "positional_embedding"):  # which open_clip itself looks at
        save_file(weights | {name: torch.ones(3)}, folder / WEIGHTS)
        assert f"({name} is [3], and [" in refused_model(f"local-dir:{folder}", None)


@pytest.mark.parametrize("name", ["visual.positional_embedding", "positional_embedding"])
def test_positions_of_another_size_are_not_fitted_to_the_model(tmp_path, tiny_clip, name):
    """open_clip would cut or stretch them without a word."""
    folder = shutil.copytree(tiny_clip, tmp_path / "tiny")
    weights = load_file(folder / WEIGHTS)
    n, width = weights[name].shape
    longer = (n - 1) * 4 + 1  # as of images of twice the side
    save_file(weights | {name: torch.ones(longer, width)}, folder / WEIGHTS)
    said = refused_model(f"local-dir:{folder}", None)
    assert f"({name} is [{longer}, {width}], and [{n}, {width}] in the model): name it with --backbone" in said


def test_an_ending_of_another_format_is_named_with_the_remedy(tmp_path, tiny_clip, tiny_architecture):
    whole = (tiny_clip / WEIGHTS).read_bytes()
    (tmp_path / "a.pt").write_bytes(whole)
    (tmp_path / "A.SAFETENSORS").write_bytes(whole)
    torch.save(load_file(tiny_clip / WEIGHTS), tmp_path / "b.safetensors")
    for name in ("a.pt", "A.SAFETENSORS"):
        said = refused_model(tiny_architecture, str(tmp_path / name))
        assert f"{name} is no checkpoint" in said
        assert "it is a safetensors file: rename it, so that its name ends in .safetensors" in said
    said = refused_model(tiny_architecture, str(tmp_path / "b.safetensors"))
    assert "it is a file of torch.save: rename it, so that its name ends in .pt" in said


def test_a_checkpoint_has_the_preprocessing_of_the_configuration_beside_it(tiny_clip, tiny_architecture, tmp_path):
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    beside = load_backbone(tiny_architecture, str(tiny_clip / WEIGHTS))
    assert beside.preprocess(white)[:, 0, 0].tolist() == [2, 2, 2]  # mean 0.5, standard deviation 0.25
    alone = load_backbone(tiny_architecture, shutil.copy(tiny_clip / WEIGHTS, tmp_path))
    assert alone.preprocess(white)[0, 0, 0] != 2
    assert alone.digest != beside.digest


def test_a_checkpoint_that_wants_quick_gelu_beside_its_configuration_gets_it_or_is_refused(tmp_path, architecture):
    plain, quick = (write_clip(tmp_path / f"{q}-untrained", quick_gelu=q) for q in (False, True))
    architecture(plain, "tiny-plain"), architecture(quick, "tiny-quick")
    assert "with QuickGELU" in refusal(load_backbone, "tiny-plain", str(quick / WEIGHTS))
    assert "trained without QuickGELU" in refusal(load_backbone, "tiny-quick", str(plain / WEIGHTS))
    assert load_backbone("tiny-quick", str(quick / WEIGHTS)).model is not None


@pytest.mark.parametrize("name", ["local-dir:{}", "hf-hub:somebody/tiny"])
def test_weights_beside_a_model_that_brings_its_own_are_refused(name, tiny_clip):
    message = refusal(load_backbone, name.format(tiny_clip), "openai")
    assert "bring their own weights" in message


# ---------------------------------------------------------------- hubs


def test_a_repository_in_the_hubs_local_cache_needs_no_hub(tiny_clip, hub_cache, no_network):
    hub_cache("somebody/tiny", tiny_clip)
    backbone = load_backbone("hf-hub:somebody/tiny", None, "cpu")
    assert torch.equal(backbone.model.visual.proj, load_file(tiny_clip / WEIGHTS)["visual.proj"])
    assert backbone.public_name == "hf-hub:somebody/tiny"
    assert backbone.digest == load_backbone(f"local-dir:{tiny_clip}", None, "cpu").digest
    assert encode_texts(backbone, TEXTS).shape == (3, 16)
    assert no_network == []


def test_a_repository_is_fetched_once(tiny_clip, hub_cache, tmp_path, monkeypatch):
    fetched = []

    def download(repo, file):
        fetched.append(file)
        if file == WEIGHTS:
            raise EntryNotFoundError("only a .bin here")
        return str(snapshot / file)

    (tmp_path / "empty").mkdir()
    snapshot = hub_cache("somebody/tiny", tmp_path / "empty")
    shutil.copy(tiny_clip / CONFIG, snapshot)
    torch.save(load_file(tiny_clip / WEIGHTS), snapshot / checkpoints.WEIGHTS)
    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    monkeypatch.setattr(checkpoints, "_in_cache", lambda *_args: None)
    monkeypatch.setattr(checkpoints, "_require_hub", lambda *_args: None)
    assert load_backbone("hf-hub:somebody/tiny", None, "cpu").model is not None
    assert fetched == [CONFIG, WEIGHTS, checkpoints.WEIGHTS]


def test_what_the_hub_says_is_one_line(hub_cache, monkeypatch):
    def download(repo, file):
        raise OSError("401 Client Error.\n\nAccess to model somebody/gated is restricted.")

    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    monkeypatch.setattr(checkpoints, "_require_hub", lambda *_args: None)
    message = refusal(load_backbone, "hf-hub:somebody/gated", None)
    assert "could not be fetched: 401 Client Error. Access to model somebody/gated is restricted." in message


def test_a_tag_in_the_hubs_local_cache_needs_no_hub(tiny_architecture, tiny_clip, hub_cache, no_network, monkeypatch):
    for tag, repo in (("big", "somebody/tiny/"), ("named", "somebody/tiny/open_clip_model.bin")):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_architecture, {tag: {"hf_hub": repo}})
        if tag == "big":
            snapshot = hub_cache("somebody/tiny", tiny_clip)
        backbone = load_backbone(tiny_architecture, tag, "cpu")
        assert backbone.checkpoint.path == snapshot / WEIGHTS
        assert backbone.model is not None
    assert no_network == []


MISSING = [
    ("ViT-B-32-quickgelu", "openai", "pretrained: weights openai of ViT-B-32-quickgelu are not on this machine"),
    ("hf-hub:timm/ViT-B-16-SigLIP", None, "backbone: hf-hub:timm/ViT-B-16-SigLIP is not on this machine"),
]


@pytest.mark.parametrize(("name", "tag", "said"), MISSING)
def test_weights_that_are_not_here_are_told_so_offline_without_a_try(name, tag, said, hub_cache, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_args, **_kwargs: pytest.fail("the hub was asked"))
    message = refusal(load_backbone, name, tag)
    assert message.startswith(f"{said} and HF_HUB_OFFLINE is set")
    assert "--pretrained" in message


@pytest.mark.parametrize(("name", "tag", "said"), MISSING)
def test_a_hub_that_does_not_answer_is_asked_once_and_briefly(name, tag, said, hub_cache, no_network):
    assert refusal(load_backbone, name, tag).startswith(f"{said} and no hub answers")
    ((_, timeout),) = no_network
    assert timeout <= 3


def test_a_mirror_without_a_front_page_is_a_hub(hub_cache, monkeypatch):
    def answer(url, timeout):
        raise urllib.error.HTTPError(url, 404, "not found", None, None)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setattr(checkpoints, "hf_hub_download", lambda *_args: pytest.fail("as it should be"))
    with pytest.raises(pytest.fail.Exception, match="as it should be"):
        load_backbone("hf-hub:somebody/tiny", None)


def test_a_name_that_no_repository_can_have_is_refused(hub_cache):
    assert "'a/b/c' is no name of a hub's repository" in refusal(load_backbone, "hf-hub:a/b/c", None)
    assert "is no name of a hub's repository" in refusal(load_backbone, "hf-hub:", None)


def test_every_tag_of_open_clip_is_known_and_refused_at_once_where_its_weights_are_not(hub_cache):
    start = time.perf_counter()
    pairs = [(name, tag) for name, tag in open_clip.list_pretrained() if name != "blazon-mini"]
    for name, tag in pairs:
        assert refusal(load_backbone, name, tag).startswith(f"pretrained: weights {tag} of {name} are not")
    assert len(pairs) > 100
    assert time.perf_counter() - start < 5


# ---------------------------------------------------------------- towers that read texts in their own way


@pytest.fixture
def transformers():
    """The package that reads the tokenizers of such towers; a study of CLIP does without."""
    return pytest.importorskip("transformers")


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of a dozen words, padded with 0 and ended with 1, as a SigLIP's is."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = [*special.values(), "a", "photo", "of", "cat", "dog", "the", "small", "very"]
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ended = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    end = {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": word, "special": True, **form} for i, word in enumerate(words[:3])],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": ended, "pair": ended, "special_tokens": end},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def siglip(tmp_path) -> Path:
    """A tiny untrained SigLIP without its tokenizer."""
    sizes = {"embed_dim": TIMM_WIDTH, "vision_cfg": {**TIMM, "timm_pool": "map"}, "init_logit_bias": -10}
    return write_clip(tmp_path / "siglip-untrained", custom_text=True, text=SIGLIP_TEXT, **sizes)


@pytest.mark.parametrize("place", ["beside", "in the hub's cache"])
def test_a_siglip_reads_texts_with_its_own_tokenizer_and_all_its_padding(
    siglip, transformers, hub_cache, tmp_path, no_network, place
):
    if place == "beside":
        write_tokenizer(siglip)
    else:
        hub_cache("somebody/letters", write_tokenizer(tmp_path / "tokenizer"))
    backbone = load_backbone(f"local-dir:{siglip}", None, "cpu")
    tokens = backbone.tokenizer(["A photo of a cat."])
    assert tokens.tolist() == [[3, 4, 5, 3, 6, 1, *[0] * 10]]
    assert backbone.text_lengths(tokens).tolist() == [16]
    texts = ["a cat", "a very small dog"]
    with torch.no_grad():
        expected = backbone.model.encode_text(backbone.tokenizer(texts), normalize=True)
    assert torch.allclose(encode_texts(backbone, texts), expected, atol=1e-6)
    assert no_network == []


def test_a_siglips_bias_changes_neither_prediction_nor_probability(siglip, transformers):
    write_tokenizer(siglip)
    backbone = load_backbone(f"local-dir:{siglip}", None, "cpu")
    images, texts = backbone.encode_images(torch.rand(4, 3, 64, 64)), encode_texts(backbone, ["a cat", "a dog", "the"])
    bias = float(backbone.model.logit_bias)
    assert bias == -10
    logits = backbone.logit_scale * images @ texts.T
    assert torch.allclose((logits + bias).softmax(1), logits.softmax(1), atol=1e-6)
    assert torch.equal((logits + bias).argmax(1), logits.argmax(1))


def test_the_tokenizer_is_part_of_the_digest(siglip, transformers):
    write_tokenizer(siglip)
    first = load_backbone(f"local-dir:{siglip}", None, "cpu").digest
    file = siglip / "tokenizer.json"
    file.write_text(file.read_text().replace('"dog"', '"hound"'))
    assert load_backbone(f"local-dir:{siglip}", None, "cpu").digest != first


@pytest.mark.parametrize("name", checkpoints.MORE_TOKENIZER_FILES)
def test_every_file_of_a_tokenizer_is_part_of_the_digest(siglip, transformers, name):
    write_tokenizer(siglip)
    named = [siglip / file for file in (WEIGHTS, CONFIG, "tokenizer_config.json", "tokenizer.json")]
    without = checkpoints.find_checkpoint(f"local-dir:{siglip}", None).digest
    assert without == digest(file_digests(siglip, named))  # as it was before they counted
    digests = {without}
    for content in ("{}", '{"a": 1}'):
        (siglip / name).write_text(content)
        digests.add(checkpoints.find_checkpoint(f"local-dir:{siglip}", None).digest)
    assert len(digests) == 3


def test_a_repositorys_own_tokenizer_is_fetched_before_the_digest_is_taken(
    siglip, transformers, hub_cache, tmp_path, monkeypatch
):
    """It comes to lie beside the weights: the second opening of a study would have another digest than the first."""
    source = write_tokenizer(tmp_path / "tokenizer")
    snapshot = hub_cache("somebody/siglip", change_config(siglip, "text_cfg", hf_tokenizer_name="somebody/siglip"))

    def download(repo, file):
        if not (source / file).is_file():
            raise EntryNotFoundError(file)
        return shutil.copy(source / file, snapshot / file)

    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    monkeypatch.setattr(checkpoints, "_require_hub", lambda *_args: None)
    first, second = (load_backbone("hf-hub:somebody/siglip", None, "cpu") for _ in range(2))
    assert first.digest == second.digest
    assert first.tokenizer(["A cat"]).tolist()[0][:4] == [3, 6, 1, 0]


def test_a_tokenizer_that_is_damaged_is_refused_before_anything_is_embedded(siglip, transformers):
    write_tokenizer(siglip)
    (siglip / "tokenizer.json").write_text("{")
    message = refusal(load_backbone, f"local-dir:{siglip}", None)
    assert "the tokenizer of local-dir:siglip-untrained cannot be read" in message


def test_a_tokenizer_that_is_not_here_is_told_so_at_once(siglip, hub_cache, no_network, monkeypatch):
    monkeypatch.setattr(checkpoints, "find_spec", lambda _name: None)
    assert "pip install" in refusal(load_backbone, f"local-dir:{siglip}", None)
    monkeypatch.setattr(checkpoints, "find_spec", lambda _name: True)
    message = refusal(load_backbone, f"local-dir:{siglip}", None)
    assert message.startswith("backbone: the tokenizer somebody/letters of local-dir:siglip-untrained is not on this")
    assert "no hub answers" in message


def test_a_text_tower_that_only_a_hub_has_is_told_so_at_once(hub_cache, monkeypatch, tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "tower-untrained")
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": "somebody/reader"}
    (folder / CONFIG).write_text(json.dumps(config))
    monkeypatch.setattr(checkpoints, "find_spec", lambda _name: True)
    message = refusal(load_backbone, f"local-dir:{folder}", None)
    assert message.startswith("backbone: the text tower somebody/reader of local-dir:tower-untrained is not on this")


# ---------------------------------------------------------------- Python code that comes with a model


def change_config(folder: Path, part: str, **values) -> Path:
    """Set keys of `text_cfg` or `vision_cfg` in the configuration of a model's folder."""
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"][part] |= values
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.fixture
def sprung(transformers, tmp_path, monkeypatch) -> Path:
    """The file that a trap writes. Somebody at the terminal says yes to everything."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("builtins.input", lambda *_args: "y")
    return tmp_path / "sprung"


def write_trap(folder: Path, sprung: Path, **config) -> Path:
    """Python code beside a model that writes a file as soon as it is imported, and what tells transformers of it."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"AutoConfig": "trap.Config", "AutoModel": "trap.Model"}
    (folder / "trap.py").write_text(
        f"open({str(sprung)!r}, 'w').close()\n"
        "from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast\n"
        "class Config(PretrainedConfig):\n    model_type = 'trap'\n"
        "class Model(PreTrainedModel):\n    config_class = Config\n"
        "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "trap", "auto_map": kinds, **config}))
    return folder


def write_trapped_tokenizer(folder: Path, sprung: Path, **config) -> Path:
    """A tokenizer that is a program, or that calls itself by another name (`tokenizer_class`)."""
    write_trap(write_tokenizer(folder), sprung)
    own = config or {"auto_map": {"AutoTokenizer": ["trap.Tokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    return folder


@pytest.mark.parametrize("name", ["local-dir:{}", "hf-hub:somebody/siglip"])
def test_a_model_whose_tokenizer_is_to_be_trusted_is_refused_and_runs_nothing(
    siglip, sprung, hub_cache, transformers, name
):
    write_trapped_tokenizer(siglip, sprung)
    change_config(siglip, "text_cfg", tokenizer_kwargs={"clean": "lower", "trust_remote_code": True})
    where = siglip if name.startswith("local") else hub_cache("somebody/siglip", siglip)
    message = refusal(load_backbone, name.format(where), None)
    assert f"{CONFIG} in {where.name} has 'trust_remote_code' in tokenizer_kwargs" in message
    assert not sprung.exists()
    transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=True)
    assert sprung.exists()  # a careless reader falls into the trap, so the test can fail


def test_the_command_says_so_in_one_line_before_a_run(siglip, sprung, image_folder):
    write_trapped_tokenizer(siglip, sprung)
    change_config(siglip, "text_cfg", tokenizer_kwargs={"trust_remote_code": True})
    said = cmm("run", "--dry-run", "--dataset", f"folder:{image_folder}", "--backbone", f"local-dir:{siglip}")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("cmm: backbone: open_clip_config.json in siglip-untrained has 'trust_remote_code'")
    assert said.err.count("\n") == 1
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["AutoTokenizer", "AutoModel", "AutoConfig", None])
def test_a_tokenizer_that_is_a_program_is_refused_and_nobody_is_asked(siglip, sprung, name):
    write_trapped_tokenizer(siglip, sprung, **({"tokenizer_class": name} if name else {}))
    message = refusal(load_backbone, f"local-dir:{siglip}", None)
    assert "the tokenizer of local-dir:siglip-untrained cannot be read" in message
    assert not sprung.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"bpe_path": "/etc/passwd"},
        {"reduction_mask": "syntax"},
        {"additional_special_tokens": ["(a|a)*"]},
        {"cache_dir": "/"},
        {"trust_remote_code": False},
        {"clean": "lower", "": 1},
    ],
)
@pytest.mark.parametrize("kind", ["CLIP's own", "another"])
def test_an_option_of_a_tokenizer_that_is_not_known_is_refused_by_name(clip_or_siglip, kind, options):
    folder = change_config(clip_or_siglip(kind), "text_cfg", tokenizer_kwargs=options)
    message = refusal(load_backbone, f"local-dir:{folder}", None)
    assert f"{CONFIG} in {folder.name} has {list(options)[-1]!r} in tokenizer_kwargs" in message
    assert message.endswith("only clean, language, strip_sep_token are read: take it out")


@pytest.fixture
def clip_or_siglip(siglip, transformers, tiny_clip, tmp_path):
    own = shutil.copytree(tiny_clip, tmp_path / "clip-untrained")
    return {"CLIP's own": own, "another": write_tokenizer(siglip)}.__getitem__


@pytest.mark.parametrize("kind", ["CLIP's own", "another"])
def test_options_that_open_clip_uses_stay(clip_or_siglip, kind):
    folder = change_config(clip_or_siglip(kind), "text_cfg", tokenizer_kwargs={"clean": "canonicalize"})
    canonical = load_backbone(f"local-dir:{folder}", None).tokenizer(["A cat!"])
    folder = change_config(folder, "text_cfg", tokenizer_kwargs={"clean": "whitespace"})
    plain = load_backbone(f"local-dir:{folder}", None).tokenizer(["a cat", "A cat!"])
    assert torch.equal(canonical[0], plain[0])
    assert not torch.equal(canonical[0], plain[1])


@pytest.mark.parametrize("options", [{"clean": "thoroughly"}, {"clean": ["lower"]}, {"clean": None}])
@pytest.mark.parametrize("kind", ["CLIP's own", "another"])
def test_an_option_of_no_meaning_is_refused_before_anything_is_embedded(clip_or_siglip, kind, options):
    folder = change_config(clip_or_siglip(kind), "text_cfg", tokenizer_kwargs=options)
    assert f"the tokenizer of local-dir:{folder.name} cannot be read" in refusal(
        load_backbone, f"local-dir:{folder}", None
    )


ODD = {  # changes of a good configuration, and what is said of them
    "no keys": ({"model_cfg": 3}, "model_cfg is int, expected keys"),
    "a list": ({"model_cfg": [["embed_dim", 16]]}, "model_cfg is list"),
    "nothing": ({"model_cfg": None}, "model_cfg is NoneType"),
    "a part without keys": ({"model_cfg.text_cfg": 3}, "model_cfg.text_cfg: input should be an object, got 3"),
    "a part that is a list": ({"model_cfg.vision_cfg": []}, "model_cfg.vision_cfg: input should be"),
    "no part": ({"model_cfg.vision_cfg": None}, "model_cfg.vision_cfg: field required"),
    "options without keys": ({"model_cfg.text_cfg.tokenizer_kwargs": 3}, "model_cfg.text_cfg.tokenizer_kwargs: input"),
    "an unknown key": ({"model_cfg.cast_dtype": "x"}, "model_cfg.cast_dtype: is no key of it: take it out"),
    "an unknown key of a part": ({"model_cfg.vision_cfg.bpe_path": "x"}, "model_cfg.vision_cfg.bpe_path: is no key"),
    "an unknown key without a value": ({"model_cfg.text_cfg.bpe_path": None}, "model_cfg.text_cfg.bpe_path: is no key"),
    "a text for a number": (
        {"model_cfg.text_cfg.width": "32"},
        "model_cfg.text_cfg.width: input should be a valid int",
    ),
    "half a character": ({"model_cfg.text_cfg.pool_type": "\ud800"}, "model_cfg: invalid json"),
    "a fraction": ({"model_cfg.embed_dim": 1.5}, "model_cfg.embed_dim: input should be a valid integer, got 1.5"),
    "preprocessing without keys": ({"preprocess_cfg": 3}, "preprocess_cfg is int, expected keys"),
    "preprocessing as a list": ({"preprocess_cfg": ["mean"]}, "preprocess_cfg is list"),
    "an unknown step": ({"preprocess_cfg.crop": 1}, "preprocess_cfg.crop: is no key of it"),
    "two colours": ({"preprocess_cfg.mean": [0.5, 0.5]}, "preprocess_cfg.mean: field required"),
    "colours from 0 to 255": (
        {"preprocess_cfg.mean": [123.7, 116.3, 103.5]},
        "preprocess_cfg.mean: input should be less",
    ),
    "a negative size": (
        {"model_cfg.vision_cfg.image_size": -32},
        "model_cfg.vision_cfg.image_size is -32, expected 1 to",
    ),
    "patches of no size": (
        {"model_cfg.vision_cfg.patch_size": 0},
        "model_cfg.vision_cfg.patch_size is 0, expected 1 to",
    ),
    "no head": ({"model_cfg.text_cfg.heads": 0}, "model_cfg.text_cfg.heads is 0, expected 1 to"),
    "fewer than no layers": ({"model_cfg.vision_cfg.layers": -1}, "layers is -1, expected 1 to 1,000"),
    "layers of which one is none": ({"model_cfg.vision_cfg.layers": [1, 1, 0, 1]}, "expected 1 to 1,000"),
    "nothing to embed in": ({"model_cfg.embed_dim": 0}, "model_cfg.embed_dim is 0, expected 1 to"),
    "texts of no length": ({"model_cfg.text_cfg.context_length": None}, "context_length is null: leave it out"),
    "no words": ({"model_cfg.text_cfg.vocab_size": -5}, "vocab_size is -5, expected 1 to 10,000,000"),
    "layers of less than no width": ({"model_cfg.text_cfg.mlp_ratio": -4.0}, "mlp_ratio is -4.0, expected 0 to"),
    "no spread": ({"preprocess_cfg.std": [0.5, 0, 0.5]}, "preprocess_cfg.std: input should be greater than 0, got 0"),
    "an unknown resizing": ({"preprocess_cfg.resize_mode": "no"}, "preprocess_cfg.resize_mode: input should be 'short"),
}


def changed(folder: Path, changes: dict[str, object]) -> Path:
    """The folder with some keys of its configuration set, by their path; a key of the first level may be anything."""
    content = json.loads((folder / CONFIG).read_text())
    for where, value in changes.items():
        *parts, last = where.split(".")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("changes", "said"), ODD.values(), ids=ODD)
def test_a_configuration_of_another_shape_is_refused_by_its_file_and_key(tmp_path, tiny_clip, changes, said):
    folder = changed(shutil.copytree(tiny_clip, tmp_path / "odd-untrained"), changes)
    message = refusal(load_backbone, f"local-dir:{folder}", None)
    assert message.startswith(f"backbone: {CONFIG} in odd-untrained is no configuration of open_clip: ")
    assert said in message


def test_a_model_that_no_weights_fit_is_the_configurations_fault(tmp_path, tiny_clip):
    folder = changed(shutil.copytree(tiny_clip, tmp_path / "odd-untrained"), {"model_cfg.text_cfg.heads": 5})
    message = refused_model(f"local-dir:{folder}", None)
    assert message.startswith(f"backbone: {CONFIG} in odd-untrained describes a model that cannot be made: ")
    wider = changed(shutil.copytree(tiny_clip, tmp_path / "wide-untrained"), {"model_cfg.embed_dim": 24})
    assert f"{WEIGHTS} is no checkpoint of local-dir:wide-untrained" in refused_model(f"local-dir:{wider}", None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_in_another_encoding_is_named(tmp_path, tiny_clip, encoding):
    folder = shutil.copytree(tiny_clip, tmp_path / "odd-untrained")
    (folder / CONFIG).write_text((folder / CONFIG).read_text(), encoding=encoding)
    assert f"{CONFIG} in odd-untrained is not UTF-8, or begins with" in refusal(
        load_backbone, f"local-dir:{folder}", None
    )


@pytest.mark.parametrize("key", ["model_cfg", "preprocess_cfg"])
@pytest.mark.parametrize("value", [3, [], "x", True])
def test_a_configuration_of_another_shape_beside_a_checkpoint_is_refused_too(
    tmp_path, tiny_clip, tiny_architecture, key, value
):
    folder = changed(shutil.copytree(tiny_clip, tmp_path / "odd-untrained"), {key: value})
    message = refusal(load_backbone, tiny_architecture, str(folder / WEIGHTS))
    assert f"{CONFIG} in odd-untrained is no configuration of open_clip: {key} is {type(value).__name__}" in message


def test_open_clips_own_configurations_are_let_through(tmp_path):
    names = open_clip.list_models()
    for name in names:
        config = open_clip.get_model_config(name)
        config["text_cfg"].get("tokenizer_kwargs", {}).pop("bpe_path", None)  # blazon-mini's, if it was registered
        assert configurations.model_part({"model_cfg": config}, tmp_path) == config
        tags = (open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name))
        for tag in tags:
            own = {key: tag[key] for key in preprocessing.KEYS if tag.get(key)}
            known = json.loads(json.dumps({"preprocess_cfg": own}))
            assert configurations.preprocessing_part(known, tmp_path) == known["preprocess_cfg"]
    assert len(names) > 100


def test_what_a_model_raises_is_told_in_one_line(tiny_clip, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory:\nTried to allocate 9 GiB")

    backbone = load_backbone(f"local-dir:{tiny_clip}", None)
    monkeypatch.setattr(backbone.model, "encode_image", fail)
    said = refusal(backbone.encode_images, torch.zeros(1, 3, 32, 32))
    assert said == f"backbone: local-dir:{tiny_clip.name} cannot embed: out of memory: Tried to allocate 9 GiB"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1000.0])
def test_a_logit_scale_that_is_no_positive_number_is_refused(tmp_path, tiny_clip, value):
    folder = shutil.copytree(tiny_clip, tmp_path / "odd-untrained")
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "logit_scale": torch.tensor(value)}, folder / WEIGHTS)
    backbone = load_backbone(f"local-dir:{folder}", None)
    assert "local-dir:odd-untrained has a logit scale of" in refusal(lambda: backbone.logit_scale)


def test_every_option_in_open_clips_own_configurations_is_known():
    used = [
        open_clip.get_model_config(name)["text_cfg"].get("tokenizer_kwargs", {}) for name in open_clip.list_models()
    ]
    used = {key for options in used for key in options} - {"bpe_path"}  # blazon-mini's, if it was registered
    assert used <= set(configurations.TOKENIZER_KEYS)
    assert used


@pytest.mark.parametrize("name", ["hf-hub:somebody/tower", "hf_hub:somebody/tower", "local-dir:/tmp/tower"])
def test_an_image_tower_that_lies_elsewhere_is_refused(siglip, name):
    folder = change_config(siglip, "vision_cfg", timm_model_name=name)
    assert f"an image tower that lies elsewhere, {name!r}" in refusal(load_backbone, f"local-dir:{folder}", None)


# A text tower of transformers' own, tiny; open_clip pools and projects what it gives.
READER = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
READER |= {"intermediate_size": 16, "model_type": "roberta"}


@pytest.fixture
def read_by(tmp_path, hub_cache, sprung, tiny_clip):
    """A model whose text tower is `somebody/reader` of the hub's cache, with Python code beside it."""

    def made(**config) -> str:
        folder = write_tokenizer(shutil.copytree(tiny_clip, tmp_path / "read-untrained"))
        change_config(folder, "text_cfg", hf_model_name="somebody/reader", hf_tokenizer_name="somebody/reader")
        hub_cache("somebody/reader", write_trap(tmp_path / "reader", sprung, **config))
        return f"local-dir:{folder}"

    return made


def test_a_text_tower_that_is_a_program_is_refused_at_once(read_by, sprung):
    message = refusal(load_backbone, read_by(), None)
    assert message.startswith("backbone: the text tower somebody/reader of local-dir:read-untrained is of the kind")
    assert "'trap', which open_clip cannot use: it has roberta" in message
    assert not sprung.exists()


def test_a_text_tower_of_a_known_kind_is_loaded_without_the_code_beside_it(read_by, sprung):
    model = read_by(**READER)
    weights = open_clip.create_model(model, load_weights=False, pretrained_text=False).state_dict()
    save_file(weights, Path(model.removeprefix("local-dir:")) / WEIGHTS)
    backbone = load_backbone(model, None, "cpu")
    name = "text.transformer.embeddings.word_embeddings.weight"
    assert torch.equal(backbone.model.state_dict()[name], weights[name])
    assert encode_texts(backbone, ["a cat", "a dog"]).shape == (2, 16)
    assert not sprung.exists()


def test_a_folder_that_has_the_text_towers_name_runs_nothing(read_by, sprung, tmp_path, monkeypatch):
    model = read_by(**READER)
    write_trap(tmp_path / "work" / "somebody" / "reader", sprung)
    monkeypatch.chdir(tmp_path / "work")  # transformers prefers a folder to the hub
    message = refused_model(model, None)
    assert f"{CONFIG} in read-untrained describes a model that cannot be made: it needs Python code" in message
    assert "trust" not in message
    assert not sprung.exists()


# ---------------------------------------------------------------- checkpoints as training programs write them


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


NESTED = {
    "training": lambda w: {"epoch": 3, "state_dict": prefixed("module.", w), "optimizer": {"state": {}}},
    "numpy number beside": lambda w: {"accuracy": np.float64(0.3), "state_dict": w},
    "model": lambda w: {"model": w},
    "model_state_dict": lambda w: {"model_state_dict": w, "epoch": torch.tensor(1)},
    "settings of an average": lambda w: {"state_dict": w, "ema": {"decay": 0.999, "shadow_params": [*w.values()]}},
    "averaged": lambda w: {"state_dict": {k: v * 0 for k, v in w.items()}, "state_dict_ema": w},
    "Lightning": lambda w: {"state_dict": prefixed("model.", w), "loops": {}},
    "Lightning with a loss": lambda w: {"state_dict": {**prefixed("model.", w), "loss.weight": torch.ones(2)}},
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "all at once": lambda w: {"model": {"state_dict": prefixed("module._orig_mod.", w)}},
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("folder", [True, False], ids=["local-dir", "file"])
def test_a_nested_checkpoint_is_the_model_itself(kind, folder, tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / "open_clip_model.safetensors")
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "open_clip_pytorch_model.bin"
    torch.save(NESTED[kind](weights), file)
    if folder:
        shutil.copy(tiny_clip / "open_clip_config.json", tmp_path / "m")
    name, pretrained = (f"local-dir:{tmp_path / 'm'}", None) if folder else (tiny_architecture, str(file))
    own, nested = (load_backbone(*what, "cpu") for what in ((f"local-dir:{tiny_clip}", None), (name, pretrained)))
    tokens = own.tokenizer(["a cat"])
    assert torch.equal(nested.encode_tokens(tokens), own.encode_tokens(tokens))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_a_prefix_is_cut_from_names_in_safetensors_too(prefix, tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / WEIGHTS)
    save_file(prefixed(prefix, weights), tmp_path / "w.safetensors")
    read = load_backbone(tiny_architecture, str(tmp_path / "w.safetensors"), "cpu").model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {"args": argparse.Namespace(rate=1), "state_dict": w}, "it holds Python objects beside its weights"),
        (lambda w: prefixed("vision_model.", w), "other names than open_clip's, as \"vision_model."),
        (lambda w: {"epoch": 1, "model": {}}, "it holds no weights"),
        (lambda w: [w], "it holds list"),
    ],
)
def test_a_checkpoint_without_the_model_s_weights_is_named(change, said, tiny_clip, tiny_architecture, tmp_path):
    torch.save(change(load_file(tiny_clip / "open_clip_model.safetensors")), tmp_path / "w.pt")
    message = refused_model(tiny_architecture, str(tmp_path / "w.pt"))
    assert said in message
    assert "\x1b" not in message
    assert "weights_only" not in message


NO_WEIGHTS = {
    "an empty file": (b"", "it is empty"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "git lfs pull"),
    "an index of shards": (b'{"metadata": {}, "weight_map": {"a": "1.safetensors"}}', "save all weights in one file"),
    "a text": (b"<!doctype html>\nnot found\n", "it is a text"),
    "noise": (bytes(range(256)) * 40, "it is cut off or damaged"),
}


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(("content", "said"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_what_stands_in_the_place_of_weights_is_named(content, said, name, tiny_architecture, tmp_path, recwarn):
    (tmp_path / name).write_bytes(content)
    message = refused_model(tiny_architecture, str(tmp_path / name))
    assert said in message
    assert "\n" not in message
    assert not recwarn.list


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_weights_that_were_cut_off_are_told(share, name, tiny_clip, tiny_architecture, tmp_path):
    whole = tmp_path / "whole"
    weights = load_file(tiny_clip / "open_clip_model.safetensors")
    torch.save(weights, whole) if name == "w.pt" else save_file(weights, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert "it is cut off or damaged" in refused_model(tiny_architecture, str(tmp_path / name))


def test_a_folder_is_no_file_of_weights(tiny_architecture, tmp_path):
    assert f"{tmp_path} is a folder" in refused_model(tiny_architecture, str(tmp_path))


def test_a_header_whose_length_reads_like_json_is_no_text(tiny_clip, tiny_architecture, tmp_path):
    """Its first bytes, 0x20 0x7b, are a space and a brace."""
    whole = (tiny_clip / "open_clip_model.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, tensors = whole[8 : 8 + size], whole[8 + size :]
    longer = 0x7B20
    assert len(header) <= longer
    (tmp_path / "w.safetensors").write_bytes(longer.to_bytes(8, "little") + header.ljust(longer) + tensors)
    own, other = (
        load_backbone(*what, "cpu")
        for what in ((f"local-dir:{tiny_clip}", None), (tiny_architecture, str(tmp_path / "w.safetensors")))
    )
    tokens = own.tokenizer(["a cat"])
    assert torch.equal(other.encode_tokens(tokens), own.encode_tokens(tokens))


# ---------------------------------------------------------------- what of a file, or a folder, is read


@pytest.mark.parametrize(
    ("places", "used"),
    [
        (("model", "model_ema"), "model_ema"),
        (("ema_state_dict", "state_dict"), "ema_state_dict"),
        (("state_dict", "teacher"), "state_dict"),
    ],
)
def test_of_several_sets_of_weights_the_line_says_which_is_read(
    places, used, tiny_clip, tiny_architecture, tmp_path, capsys
):
    right = load_file(tiny_clip / WEIGHTS)
    wrong = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    stored = {place: right if place == used else wrong for place in places}
    torch.save({**stored, "epoch": 1, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, tmp_path / "w.pt")
    read = load_backbone(tiny_architecture, str(tmp_path / "w.pt")).model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in right.items())
    (other,) = set(places) - {used}
    said = f"w.pt holds several sets of weights: {used} are read, and {other} are not\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("kind", [".safetensors", ".pt", "nested"])
@pytest.mark.parametrize(
    ("prefixes", "used", "told"),
    [
        (("model.", "model_ema.", "teacher."), "model.", "model_ema.*, teacher.*"),
        (("module.model.", "module.model_ema."), "module.model.", "module.model_ema.*"),
        (("", "model."), "model.", "those without a prefix"),
        (("student.text.", "_orig_mod."), "_orig_mod.", "student.text.*"),
    ],
)
def test_sets_of_weights_that_prefixes_tell_apart_are_told(
    kind, prefixes, used, told, tiny_clip, tiny_architecture, tmp_path, capsys
):
    right = load_file(tiny_clip / WEIGHTS)
    stored = {}
    for prefix in prefixes:
        stored |= prefixed(prefix, right if prefix == used else {name: x * 0 for name, x in right.items()})
    file = tmp_path / f"w{'.pt' if kind == 'nested' else kind}"
    nested = {"model": {"state_dict": stored}, "epoch": 1}
    save_file(stored, file) if kind == ".safetensors" else torch.save(nested if kind == "nested" else stored, file)
    read = load_backbone(tiny_architecture, str(file)).model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in right.items())
    said = f"{file.name} holds several sets of weights: {used}* are read, and {told} are not\n"
    assert capsys.readouterr().err == said


def test_sets_of_weights_within_a_level_are_told(tiny_clip, tiny_architecture, tmp_path, capsys):
    weights = load_file(tiny_clip / WEIGHTS)
    torch.save({"model": {"state_dict": weights, "state_dict_ema": weights}, "epoch": 1}, tmp_path / "w.pt")
    _ = load_backbone(tiny_architecture, str(tmp_path / "w.pt")).model
    said = "w.pt holds several sets of weights: state_dict_ema are read, and state_dict are not\n"
    assert capsys.readouterr().err == said


def test_a_loss_beside_the_weights_is_no_second_set(tiny_clip, tiny_architecture, tmp_path, capsys):
    weights = prefixed("model.", load_file(tiny_clip / WEIGHTS))
    save_file({**weights, "loss.weight": torch.ones(2), "loss.scale": torch.ones(1)}, tmp_path / "w.safetensors")
    _ = load_backbone(tiny_architecture, str(tmp_path / "w.safetensors")).model
    assert capsys.readouterr().err == ""


def test_a_bias_that_the_configuration_lacks_is_told_with_the_remedy(tiny_clip, tiny_architecture, tmp_path):
    torch.save({**load_file(tiny_clip / WEIGHTS), "logit_bias": torch.tensor(-10.0)}, tmp_path / "w.pt")
    message = refused_model(tiny_architecture, str(tmp_path / "w.pt"))
    assert "have a logit_bias, as SigLIP's, and the model has none: set init_logit_bias" in message


def test_one_set_of_weights_needs_no_line(tiny_clip, tiny_architecture, tmp_path, capsys):
    torch.save({"state_dict": load_file(tiny_clip / WEIGHTS), "epoch": 1, "arguments": {"lr": 1}}, tmp_path / "w.pt")
    _ = load_backbone(tiny_architecture, str(tmp_path / "w.pt")).model
    assert capsys.readouterr().err == ""


def test_other_weights_in_the_folder_are_named(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "two-untrained")
    assert load_backbone(f"local-dir:{folder}", None).checkpoint.remarks == ()
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"other")
    (folder / "README.md").write_text("a text")
    (remark,) = load_backbone(f"local-dir:{folder}", None).checkpoint.remarks
    assert remark == f"weights of {WEIGHTS} are read, others beside it are not: open_clip_pytorch_model.bin"


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("number", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_not_taken_for_floats(number, name, tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / WEIGHTS)
    weights["visual.proj"] = (10 * weights["visual.proj"]).to(number)
    file = tmp_path / name
    torch.save(weights, file) if name == "w.pt" else save_file(weights, file)
    said = refused_model(tiny_architecture, str(file))
    assert "visual.proj holds" in said
    assert "quantised weights are not read" in said


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_complex_weights_are_not_halved(name, tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / WEIGHTS)
    weights["visual.proj"] = weights["visual.proj"].to(torch.complex64)
    file = tmp_path / name
    torch.save(weights, file) if name == "w.pt" else save_file(weights, file)
    assert "visual.proj holds" in (said := refused_model(tiny_architecture, str(file)))
    assert "complex weights are not read" in said


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_weights_without_plain_numbers_are_refused(kind, tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / WEIGHTS)
    tensor = weights["visual.proj"]
    weights["visual.proj"] = tensor.to_sparse() if kind == "sparse" else tensor.to("meta")
    torch.save(weights, tmp_path / "w.pt")
    said = refused_model(tiny_architecture, str(tmp_path / "w.pt"))
    assert f"visual.proj is a {kind} tensor" in said, said


def test_half_precision_and_counters_are_no_quantised_weights(tiny_clip, tiny_architecture, tmp_path):
    weights = {name: tensor.half() for name, tensor in load_file(tiny_clip / WEIGHTS).items()}
    torch.save({"state_dict": weights, "steps": torch.ones(1, dtype=torch.uint8)}, tmp_path / "w.pt")
    assert load_backbone(tiny_architecture, str(tmp_path / "w.pt")).model.visual.proj.dtype == torch.float32


def test_names_with_and_without_a_prefix_are_not_cut(tiny_clip, tiny_architecture, tmp_path):
    weights = load_file(tiny_clip / WEIGHTS)
    torch.save({**prefixed("module.", weights), **weights}, tmp_path / "w.pt")
    message = refused_model(tiny_architecture, str(tmp_path / "w.pt"))
    assert "names begin with module. and others do not" in message


def test_a_model_of_few_words_needs_a_tokenizer_of_its_own(tmp_path):
    folder = write_clip(tmp_path / "few-untrained", text={"vocab_size": 4014})
    said = refusal(load_backbone, f"local-dir:{folder}", None)
    assert "has vocab_size 4,014 and no tokenizer of its own, and CLIP's has 49,408 words" in said


@pytest.mark.parametrize("content", [b"", b"import os\n", b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 99])
def test_a_dry_run_refuses_what_are_no_weights(content, tiny_architecture, tmp_path):
    backbone = load_backbone(tiny_architecture, str(write(tmp_path / "w.pt", content)))
    said = refusal(backbone.check_weights)
    assert said == refused_model(tiny_architecture, str(tmp_path / "w.pt"))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
