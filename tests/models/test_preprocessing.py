"""How images are prepared for weights given by a path: said beside them, shared by the architecture's tags, or told."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import refusal, write_clip, write_openai
from safetensors.torch import load_file

from cmmlib.models import preprocessing
from cmmlib.models.backbones import load_backbone
from cmmlib.models.configurations import CONFIG
from cmmlib.storage.cache import digest, file_digests

WEIGHTS = "open_clip_model.safetensors"
SIGLIPS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
LATER = "2.safetensors"  # not the file that open_clip prefers in a folder
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}


@pytest.fixture
def alone(tiny_clip, tmp_path) -> Path:
    """Weights with nothing beside them."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copy(tiny_clip / WEIGHTS, tmp_path / "alone" / "w.safetensors"))


@pytest.fixture
def with_tags(tiny_architecture, monkeypatch):
    """Give the tiny architecture tags, each with a preprocessing of its own."""

    def register(**tags: dict) -> str:
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_architecture, tags)
        return tiny_architecture

    return register


def configured(folder: Path, **parts) -> Path:
    """Change parts of a folder's configuration; None takes one out."""
    config = {**json.loads((folder / CONFIG).read_text()), **parts}
    (folder / CONFIG).write_text(json.dumps({key: part for key, part in config.items() if part is not None}))
    return folder


def resize_mode_and_mean(backbone) -> tuple[str, list[float]]:
    return backbone.preprocessing["resize_mode"], list(backbone.preprocessing["mean"])


# ---------------------------------------------------------------- nothing is said beside the weights


def test_a_file_gets_the_preprocessing_that_all_tags_of_its_architecture_share(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"0")
    told = {}
    for name in open_clip.list_models():
        tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
        kinds = {json.dumps([tag[key] for key in preprocessing.KEYS]) for tag in tags}
        found, remarks = preprocessing.of_file(name, tmp_path / "w.pt", open_clip.get_model_config(name))
        if len(kinds) == 1:
            assert json.dumps([{**preprocessing.USUAL, **found}[key] for key in preprocessing.KEYS]) in kinds
            assert remarks == ()
        else:
            assert found == {}
            (told[name],) = remarks
    assert preprocessing.of_file("ViT-B-16-SigLIP", tmp_path / "w.pt", {})[0] == SIGLIPS
    assert preprocessing.of_file("ViT-B-32", tmp_path / "w.pt", {})[0] == {}
    assert "published weights of its architecture differ" in told["ViT-L-14"]
    assert "its architecture has no published weights" in told["ViT-S-16"]


def test_a_file_and_a_tag_of_the_same_weights_share_their_embeddings(with_tags, alone):
    name = with_tags(own={**SIGLIPS, "url": "https://example.org/tiny.pt"})
    backbone = load_backbone(name, str(alone), "cpu")
    assert resize_mode_and_mean(backbone) == ("squash", [0.5, 0.5, 0.5])
    said = {f"image_{key}": value for key, value in SIGLIPS.items()}
    configuration = open_clip.get_model_config(name)
    assert backbone.digest == digest(file_digests(alone.parent, [alone]), configuration, False, said)


def test_what_was_right_keeps_its_key(with_tags, alone):
    own = digest(file_digests(alone.parent, [alone]), open_clip.get_model_config("tiny-untrained"), False, {})
    for tags in ({}, {"own": preprocessing.USUAL}, {"own": SIGLIPS, "other": preprocessing.USUAL}):
        assert load_backbone(with_tags(**tags), str(alone)).digest == own


def test_a_preprocessing_that_nothing_says_is_told_with_what_is_assumed(with_tags, alone):
    (remark,) = load_backbone(with_tags(own=SIGLIPS, other=preprocessing.USUAL), str(alone)).checkpoint.remarks
    assert remark == (
        "nothing says the preprocessing of w.safetensors, and published weights of its architecture differ: CLIP's is "
        "assumed (mean 0.481, 0.458, 0.408, std 0.269, 0.261, 0.276, bicubic, resize mode shortest); another goes into "
        "preprocess_cfg of open_clip_config.json beside the weights"
    )
    (alone.parent / CONFIG).write_text(json.dumps({"preprocess_cfg": {"mean": [0.5] * 3}}))
    backbone = load_backbone("tiny-untrained", str(alone))
    assert backbone.checkpoint.remarks == ()
    assert resize_mode_and_mean(backbone) == ("shortest", [0.5, 0.5, 0.5])


@pytest.mark.parametrize("part", [None, {}, {"size": 32}])
def test_a_folder_that_says_none_gets_its_architectures_or_a_line(with_tags, tiny_clip, tmp_path, part):
    folder = configured(shutil.copytree(tiny_clip, tmp_path / "silent-untrained"), preprocess_cfg=part)
    plain = load_backbone(f"local-dir:{folder}", None, "cpu")
    assert "nothing says the preprocessing of silent-untrained" in plain.checkpoint.remarks[0]
    assert resize_mode_and_mean(plain)[0] == "shortest"
    assert plain.digest == digest(file_digests(folder, [folder / WEIGHTS, folder / CONFIG]))
    with_tags(own=SIGLIPS)
    known = load_backbone(f"local-dir:{folder}", None, "cpu")
    assert known.checkpoint.remarks == ()
    assert resize_mode_and_mean(known) == ("squash", [0.5, 0.5, 0.5])
    assert known.digest != plain.digest


def test_a_folder_that_says_its_own_is_left_as_it_is(with_tags, tiny_clip):
    with_tags(own=SIGLIPS)
    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    assert backbone.checkpoint.preprocessing == {}
    assert backbone.digest == digest(file_digests(tiny_clip, [tiny_clip / WEIGHTS, tiny_clip / CONFIG]))
    assert backbone.preprocessing["std"] == [0.25] * 3


# ---------------------------------------------------------------- the configuration beside a file


@pytest.mark.parametrize("name", ["epoch_5.pt", LATER, "epoch_5.bin"])
@pytest.mark.parametrize("n_weights", [1, 2])
def test_the_configuration_beside_any_kind_of_file_is_read(tiny_clip, tiny_architecture, tmp_path, name, n_weights):
    folder = shutil.copytree(tiny_clip, tmp_path / "trained-untrained")
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    configured(folder, preprocess_cfg=squash)
    weights = load_file(folder / WEIGHTS)
    shutil.copy(folder / WEIGHTS, folder / name) if name == LATER else torch.save(weights, folder / name)
    if n_weights == 1:
        (folder / WEIGHTS).unlink()
    backbone = load_backbone(tiny_architecture, str(folder / name), "cpu")
    assert resize_mode_and_mean(backbone) == ("squash", [0.5, 0.5, 0.5])
    told = f"{CONFIG} beside {name} is read as its own; other weights lie there too: {WEIGHTS}"
    assert backbone.checkpoint.remarks == ((told,) if n_weights == 2 else ())
    configured(folder, preprocess_cfg={"std": [0.5] * 3})
    assert load_backbone(tiny_architecture, str(folder / name)).digest != backbone.digest


def test_a_configuration_that_says_the_usual_changes_no_key(tiny_clip, tiny_architecture, alone):
    before = load_backbone(tiny_architecture, str(alone)).digest
    folder = shutil.copytree(tiny_clip, alone.parent / "two-untrained")
    shutil.copy(alone, folder / LATER)
    configured(folder, preprocess_cfg=preprocessing.USUAL)
    assert load_backbone(tiny_architecture, str(folder / LATER)).digest == before
    assert load_backbone(tiny_architecture, str(folder / WEIGHTS)).digest != before  # as it always was


@pytest.mark.parametrize("quick", [True, False])
def test_quick_gelu_is_compared_whatever_the_file_is_called(tmp_path, architecture, quick):
    plain, other = (write_clip(tmp_path / f"{q}-untrained", quick_gelu=q) for q in (False, True))
    names = architecture(plain, "tiny-plain"), architecture(other, "tiny-plain-quickgelu")
    folder = other if quick else plain
    torch.save(load_file(folder / WEIGHTS), folder / "epoch_5.pt")
    said = refusal(load_backbone, names[not quick], str(folder / "epoch_5.pt"))
    assert f"epoch_5.pt was trained {'with' if quick else 'without'} QuickGELU" in said
    assert f"use --backbone {names[quick]}, or move it away from that configuration" in said
    assert load_backbone(names[quick], str(folder / "epoch_5.pt")).model is not None


def test_a_configuration_without_a_model_says_nothing_of_activations(tmp_path, architecture, alone):
    name = architecture(write_clip(tmp_path / "quick-untrained", quick_gelu=True), "tiny-quick")
    (alone.parent / CONFIG).write_text(json.dumps({"preprocess_cfg": SIGLIPS}))
    assert resize_mode_and_mean(load_backbone(name, str(alone)))[0] == "squash"


def test_weights_of_another_image_size_are_refused_where_no_shape_tells(tmp_path, architecture):
    small, large = (
        write_clip(tmp_path / f"{size}-untrained", vision_cfg={**RESNET, "image_size": size}) for size in (64, 96)
    )
    name = architecture(small, "tiny-64")
    said = refusal(load_backbone, name, str(large / WEIGHTS))
    assert "was trained on images of 96 x 96 pixels, as the open_clip_config.json beside it says" in said
    assert "and tiny-64 takes 64 x 64 pixels: use --backbone local-dir:FOLDER" in said
    assert load_backbone(f"local-dir:{large}", None).preprocessing["size"] == 96
    assert load_backbone(name, str(small / WEIGHTS)).preprocessing["size"] == 64


def test_keys_that_change_nothing_are_told(tiny_clip, tiny_architecture, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "odd-untrained")
    own = {**SIGLIPS, "size": [48, 48], "fill_color": 7}
    configured(folder, preprocess_cfg=own)
    size = f"backbone: {CONFIG} in odd-untrained has preprocess_cfg.size of 48 x 48 pixels, and its model takes 32 x 32"
    (of_folder,) = load_backbone(f"local-dir:{folder}", None).checkpoint.remarks
    assert of_folder.startswith(size)
    first, second = load_backbone(tiny_architecture, str(folder / WEIGHTS)).checkpoint.remarks
    assert first == of_folder
    assert "preprocess_cfg.fill_color, which only local-dir:FOLDER uses" in second
    configured(folder, preprocess_cfg={**SIGLIPS, "size": 32})
    assert load_backbone(f"local-dir:{folder}", None).checkpoint.remarks == ()


def test_a_configuration_beside_openais_own_format_is_told_to_be_unread(tiny_clip, tiny_architecture, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "two-untrained")
    file = write_openai(folder / "openai-untrained.pt", load_file(folder / WEIGHTS))
    (remark,) = load_backbone(tiny_architecture, str(file)).checkpoint.remarks
    assert remark.startswith(f"{CONFIG} beside openai-untrained.pt is not read: OpenAI's own format has QuickGELU")
    (folder / CONFIG).unlink()
    assert load_backbone(tiny_architecture, str(file)).checkpoint.remarks == ()
