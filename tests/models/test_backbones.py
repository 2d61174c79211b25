"""open_clip models: loaded with their own weights or refused in one line."""

import json
import math
import os
import pickle
import shutil
from contextlib import suppress

import open_clip
import pytest
import torch
from conftest import refusal, write_clip
from PIL import Image
from safetensors.torch import load_file, save_file

from cmmlib.blazon.classes import evaluation_images, load_classes
from cmmlib.blazon.heraldry import blazon
from cmmlib.functional.zero_shot import predict
from cmmlib.models.backbones import load_backbone, resolve_device, resolve_devices
from cmmlib.models.configurations import CONFIG
from cmmlib.models.embed_texts import encode_texts


def refused_model(*args) -> str:
    """The one line that a model is refused with when its weights are read."""
    return refusal(lambda: load_backbone(*args).model)


@pytest.fixture
def clip_copy(tiny_clip, tmp_path):
    """A copy of the tiny model's folder that a test may damage."""
    return shutil.copytree(tiny_clip, tmp_path / "copy-untrained")


def test_a_local_folder_loads_with_its_own_weights(tiny_clip):
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    stored = load_file(tiny_clip / "open_clip_model.safetensors")
    loaded = backbone.model.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[key], loaded[key]) for key in stored)
    assert not backbone.model.training
    assert backbone.public_name == "local-dir:tiny-clip-untrained"


def test_nothing_is_loaded_before_it_is_needed(tiny_clip, monkeypatch):
    def create(*_args, **_kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    assert len(backbone.digest) == 64
    assert backbone.tokenizer(["a cat"]).shape == (1, 77)


def test_the_preprocessing_is_the_folders_own(tiny_clip):
    pixels = load_backbone(f"local-dir:{tiny_clip}", None, "cpu").preprocess(Image.new("RGB", (50, 40), (255, 0, 0)))
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0, 0].tolist() == [2, -2, -2]  # mean 0.5, standard deviation 0.25


def test_embeddings_have_unit_norm_and_are_those_of_open_clip(tiny_clip):
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    pixels = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = model.eval().encode_image(pixels, normalize=True)
    found = backbone.encode_images(pixels)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-6)


def test_the_logit_scale_is_the_models(clip_copy):
    assert load_backbone(f"local-dir:{clip_copy}", None, "cpu").logit_scale == pytest.approx(1 / 0.07)
    file = clip_copy / "open_clip_model.safetensors"
    save_file({**load_file(file), "logit_scale": torch.tensor(math.log(20.0))}, file)
    assert load_backbone(f"local-dir:{clip_copy}", None, "cpu").logit_scale == pytest.approx(20)


def test_the_digest_follows_weights_and_configuration_not_the_place(tiny_clip, clip_copy):
    def digest() -> str:
        return load_backbone(f"local-dir:{clip_copy}", None, "cpu").digest

    first = digest()
    assert first == load_backbone(f"local-dir:{tiny_clip}", None, "cpu").digest
    file = clip_copy / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["visual.proj"][0, 0] += 1e-3
    save_file(weights, file)
    second = digest()
    config = clip_copy / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.25", "0.5"))
    assert len({first, second, digest()}) == 3


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_architecture_takes_the_path_of_a_checkpoint(tiny_architecture, tiny_clip, tmp_path, suffix):
    checkpoint = tmp_path / f"weights{suffix}"
    weights = load_file(tiny_clip / "open_clip_model.safetensors")
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, checkpoint)
    else:
        save_file(weights, checkpoint)
    backbone = load_backbone(tiny_architecture, str(checkpoint), "cpu")
    assert torch.equal(backbone.model.visual.proj, weights["visual.proj"])
    assert backbone.public_name == tiny_architecture


@pytest.fixture
def tag(tiny_architecture, tiny_clip, monkeypatch):
    """A tag `big` of the tiny architecture, as open_clip lists tags: with preprocessing and QuickGELU of its own."""

    def set_up(**config):
        checkpoint = str(tiny_clip / "open_clip_model.safetensors")
        monkeypatch.setitem(
            open_clip.pretrained._PRETRAINED, tiny_architecture, {"big": {"file": checkpoint, **config}}
        )
        return load_backbone(tiny_architecture, "big", "cpu")

    return set_up


def test_a_tag_brings_its_own_preprocessing(tag):
    white = Image.new("RGB", (64, 32), (255, 255, 255))
    inception = tag(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="squash")
    assert inception.preprocess(white)[:, 0, 0].tolist() == [1, 1, 1]
    stripe = Image.new("RGB", (64, 32))
    stripe.paste((255, 255, 255), (0, 0, 8, 32))  # outside the central crop
    assert inception.preprocess(stripe).max() == 1  # squashed, so the stripe is in
    shortest = tag(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="shortest")
    assert shortest.preprocess(stripe).max() == -1
    assert inception.digest != shortest.digest


def test_a_tag_that_wants_quick_gelu_gets_it(tag):
    pixels = torch.rand(2, 3, 32, 32)
    quick, plain = tag(quick_gelu=True), tag()
    assert any(isinstance(module, open_clip.transformer.QuickGELU) for module in quick.model.modules())
    assert not any(isinstance(module, open_clip.transformer.QuickGELU) for module in plain.model.modules())
    assert not torch.equal(quick.encode_images(pixels), plain.encode_images(pixels))
    assert quick.digest != plain.digest


def test_a_folder_without_weights_or_configuration_is_refused(clip_copy, tmp_path):
    (clip_copy / "open_clip_model.safetensors").unlink()
    assert "no weights" in refusal(load_backbone, f"local-dir:{clip_copy}", None)
    (clip_copy / "open_clip_config.json").unlink()
    assert "no open_clip_config.json" in refusal(load_backbone, f"local-dir:{clip_copy}", None)
    assert "no open_clip_config.json" in refusal(load_backbone, f"local-dir:{tmp_path / 'absent'}", None)


def test_a_model_without_weights_is_refused(tiny_architecture):
    assert "is a random model" in refusal(load_backbone, "ViT-B-32", None)
    assert "openai" in refusal(load_backbone, "ViT-B-32", None)
    message = refusal(load_backbone, tiny_architecture, "laion")
    assert "no tag or file 'laion'" in message
    assert "give the path of a checkpoint" in message
    assert "name a model" in refusal(load_backbone, None, None)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("ViT-B/32", "ViT-B-32"), ("VitB32", "ViT-B-32"), ("ViT-L-14-quickgel", "ViT-L-14-quickgelu")],
)
def test_an_unknown_model_brings_a_suggestion(name, suggestion):
    message = refusal(load_backbone, name, "openai")
    assert f"no model {name!r}" in message
    assert suggestion in message


def test_an_unknown_tag_lists_the_known_ones():
    message = refusal(load_backbone, "ViT-B-32", "openia")
    assert "no tag or file 'openia'" in message
    assert "openai, laion400m_e31" in message


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, tiny_architecture):
    other = write_clip(tmp_path / "other-untrained", text={"width": 16, "layers": 1}) / "open_clip_model.safetensors"
    message = refused_model(tiny_architecture, str(other), "cpu")
    assert "open_clip_model.safetensors is no checkpoint of tiny-untrained" in message
    save_file({"something": torch.ones(1)}, tmp_path / "else.safetensors")
    assert "else.safetensors is no checkpoint" in refused_model(tiny_architecture, str(tmp_path / "else.safetensors"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, tiny_architecture, suffix, content):
    (tmp_path / f"weights{suffix}").write_bytes(content)
    assert f"weights{suffix} is no checkpoint" in refused_model(tiny_architecture, str(tmp_path / f"weights{suffix}"))


def test_a_configuration_that_is_damaged_is_refused(clip_copy):
    (clip_copy / CONFIG).write_text("{")
    assert f"{CONFIG} in copy-untrained cannot be read" in refused_model(f"local-dir:{clip_copy}", None)
    (clip_copy / CONFIG).write_text("{}")
    assert f"{CONFIG} in copy-untrained is no configuration" in refused_model(f"local-dir:{clip_copy}", None)
    (clip_copy / CONFIG).write_text('{"model_cfg": {"embed_dim": 16}}')
    assert "model_cfg.vision_cfg: field required" in refused_model(f"local-dir:{clip_copy}", None)


class Trap:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, tiny_architecture, clip_copy, writer):
    checkpoint, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    if writer == "torch":
        torch.save({"state_dict": {"x": Trap(sprung)}}, checkpoint)
    else:
        checkpoint.write_bytes(pickle.dumps(Trap(sprung)))
    assert "is no checkpoint" in refused_model(tiny_architecture, str(checkpoint), "cpu")
    (clip_copy / "open_clip_model.safetensors").unlink()
    shutil.copy(checkpoint, clip_copy / "open_clip_pytorch_model.bin")
    assert "is no checkpoint" in refused_model(f"local-dir:{clip_copy}", None)
    assert not sprung.exists()
    with suppress(Exception):
        torch.load(checkpoint, weights_only=False)
    assert sprung.exists()  # a careless reader falls into the trap, so the test can fail


@pytest.mark.parametrize("name", ["tpu9", "cuda:77", "", "cpu:zero"])
def test_a_device_that_is_not_there_is_refused(name):
    assert f"device {name!r} is not available" in refusal(resolve_device, name)


def test_several_devices_are_named_with_commas():
    assert resolve_devices("cpu, cpu") == (torch.device("cpu"),) * 2
    assert "device 'cuda:77' is not available" in refusal(resolve_devices, "cpu,cuda:77")
    for odd in ("cpu,", ",cpu", "cpu,,cpu", ",", ""):
        assert refusal(resolve_devices, odd).startswith(f"device: {odd!r} has an empty place")


def test_auto_finds_a_device_that_works():
    assert torch.ones(1, device=resolve_device("auto")).item() == 1
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "causal"), [({}, True), ({"no_causal_mask": True}, False), ({"pool_type": "last"}, False)]
)
@pytest.mark.parametrize("custom_text", [False, True])
def test_padding_is_cut_only_for_towers_that_never_see_it(tmp_path, text, causal, custom_text):
    folder = write_clip(tmp_path / "x-untrained", text=text, custom_text=custom_text)
    backbone = load_backbone(f"local-dir:{folder}", None, "cpu")
    assert backbone.is_causal is causal
    lengths = backbone.text_lengths(backbone.tokenizer(["a cat", "a very small cat", ""]))
    assert lengths.tolist() == ([4, 6, 2] if causal else [77] * 3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_stay_close(tiny_clip, precision):
    pixels = torch.rand(2, 3, 32, 32)
    full = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    half = load_backbone(f"local-dir:{tiny_clip}", None, "cpu", precision)
    assert half.model.visual.conv1.weight.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    tokens = full.tokenizer(["a photo of a cat.", "a cat"])
    lengths = full.text_lengths(tokens)
    pairs = [
        (full.encode_images(pixels), half.encode_images(pixels)),
        (full.encode_tokens(tokens[:, : lengths.max()]), half.encode_tokens(tokens[:, : lengths.max()])),
    ]
    for exact, rounded in pairs:
        assert rounded.dtype == torch.float32
        assert (exact * rounded).sum(1).min() > 0.999
        assert not torch.equal(exact, rounded)


def test_bf16_changes_two_predictions_in_a_hundred_at_most():
    """On a trained model: rendered shields, five of each class, 2 % as the book says."""
    arms = load_classes()
    pixels, _ = evaluation_images(arms, 0, per_class=5)
    predictions = []
    for precision in ("fp32", "bf16"):
        backbone = load_backbone("blazon-mini", None, "cpu", precision)
        images = torch.stack([backbone.preprocess(Image.fromarray(image)) for image in pixels])
        texts = encode_texts(backbone, [f"a photo of a {blazon(a)}." for a in arms])
        predictions.append(predict(torch.cat([backbone.encode_images(part) for part in images.split(100)]), texts))
    changed = (predictions[0] != predictions[1]).float().mean()
    assert 0 < changed <= 0.02


def test_the_tiny_model_says_that_it_is_untrained(tiny_clip):
    assert "untrained" in tiny_clip.name
    assert json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"] == 16
