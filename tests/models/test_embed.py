"""Images and texts -> embeddings, each computed once, whatever interrupts it."""

import errno
import multiprocessing
import os
import shutil
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import refusal, write_clip
from PIL import Image
from safetensors.torch import load_file, save_file

from cmmlib.data.folders import load_folder
from cmmlib.data.images import ImageFolder
from cmmlib.errors import InputError
from cmmlib.models import embed
from cmmlib.models import embed_texts as embed_texts_file
from cmmlib.models.backbones import Backbone, load_backbone
from cmmlib.models.embed import embed_images
from cmmlib.models.embed_texts import embed_texts, encode_texts
from cmmlib.storage.cache import digest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "a cat",
    "a photo of a sea lion.",
    "itap of the hard to see granny smith apple, which is a type of fruit.",
    "",
    "a photo of the large {}.",
    "a bad photo of a dog",
]


@pytest.fixture
def backbone(tiny_clip) -> Backbone:
    return load_backbone(f"local-dir:{tiny_clip}", None, "cpu")


@pytest.fixture
def counted(monkeypatch) -> dict[str, list[int]]:
    """Sizes of the batches that reach the model."""
    sizes = {"images": [], "texts": []}

    def count(name: str, key: str):
        original = getattr(Backbone, name)

        def counting(self, batch):
            sizes[key].append(len(batch))
            return original(self, batch)

        monkeypatch.setattr(Backbone, name, counting)

    count("encode_images", "images")
    count("encode_tokens", "texts")
    return sizes


def entries(cache: Path, kind: str) -> list[Path]:
    return sorted(path for path in (cache / kind).rglob("*") if path.is_file()) if (cache / kind).exists() else []


def reference_texts(folder: Path, texts: list[str]) -> torch.Tensor:
    """open_clip's own, with all its padding."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        return model.eval().encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True)


def reference_images(folder: Path, paths: list[Path]) -> torch.Tensor:
    """open_clip's own, one image at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        rows = []
        for path in paths:
            with Image.open(path) as image:
                rows.append(model.eval().encode_image(preprocess(image.convert("RGB"))[None], normalize=True))
        return torch.cat(rows)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"custom_text": True},
        {"custom_text": True, "text": {"proj_bias": True}},
        {"custom_text": True, "text": {"pool_type": "eos", "eos_id": 49407}},
        {"text": {"pool_type": "eos", "eos_id": 49407}},
        {"custom_text": True, "text": {"no_causal_mask": True}},
        {"text": {"no_causal_mask": True}},
        {"custom_text": True, "text": {"no_causal_mask": True, "pool_type": "last"}},
        {"custom_text": True, "text": {"pool_type": "last"}},
        {"custom_text": True, "text": {"embed_cls": True, "output_tokens": False}},
        {"text": {"context_length": 12}},
    ],
    ids=str,
)
def test_texts_have_the_vectors_of_open_clip_whatever_the_tower(tmp_path, config):
    folder = write_clip(tmp_path / "x-untrained", **config)
    found = encode_texts(load_backbone(f"local-dir:{folder}", None, "cpu"), TEXTS)
    expected = reference_texts(folder, TEXTS)
    assert torch.allclose(found, expected, atol=1e-5)
    assert (expected - expected[0]).abs().max(1).values[
        1:
    ].min() > 1e-3  # texts differ, so the comparison says something


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_cut_where_that_is_allowed_and_kept_where_not(tmp_path, monkeypatch, custom_text, causal):
    folder = write_clip(tmp_path / "x-untrained", custom_text=custom_text, text={"no_causal_mask": not causal})
    lengths = []
    original = Backbone.encode_tokens
    monkeypatch.setattr(Backbone, "encode_tokens", lambda self, t: lengths.append(t.shape[1]) or original(self, t))
    encode_texts(load_backbone(f"local-dir:{folder}", None, "cpu"), ["a cat", "a photo of a cat."])
    assert lengths == ([4, 8] if causal else [77])


def test_cutting_into_the_text_would_be_noticed(backbone):
    tokens = backbone.tokenizer(["a photo of a cat."])
    whole = backbone.encode_tokens(tokens[:, :8])
    assert torch.allclose(whole, backbone.encode_tokens(tokens), atol=1e-6)
    assert not torch.allclose(whole, backbone.encode_tokens(tokens[:, :7]), atol=1e-3)


def test_equal_texts_are_encoded_once(backbone, counted):
    texts = ["a dog", "a cat", "a dog", "a cat", "a dog"]
    found = embed_texts(backbone, texts)
    assert sum(counted["texts"]) == 2
    assert torch.equal(found, found[[0, 1, 0, 1, 0]])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_texts_keep_their_order(backbone, tiny_clip):
    assert torch.allclose(embed_texts(backbone, TEXTS), reference_texts(tiny_clip, TEXTS), atol=1e-5)
    back = list(reversed(TEXTS))
    assert torch.equal(embed_texts(backbone, back), embed_texts(backbone, TEXTS).flip(0))


def test_known_texts_are_not_encoded_again(backbone, counted):
    first = embed_texts(backbone, TEXTS[:4])
    counted["texts"].clear()
    both = embed_texts(backbone, [*TEXTS, "something new"])
    assert sum(counted["texts"]) == 3
    assert torch.equal(both[:4], first)


def test_texts_of_another_model_or_precision_are_other_texts(tmp_path, backbone, tiny_clip, counted):
    embed_texts(backbone, ["a cat"])
    other = load_backbone(f"local-dir:{write_clip(tmp_path / 'other-untrained', seed=1)}", None, "cpu")
    assert not torch.allclose(embed_texts(other, ["a cat"]), embed_texts(backbone, ["a cat"]), atol=1e-3)
    embed_texts(load_backbone(f"local-dir:{tiny_clip}", None, "cpu", "bf16"), ["a cat"])
    assert sum(counted["texts"]) == 3


def test_a_class_name_longer_than_the_context_keeps_its_end_of_text(backbone, tiny_clip):
    """open_clip cuts it at 77 tokens and keeps the end-of-text token, and so does the cut of padding."""
    texts = ["a photo of a " + "very " * 200 + "long cat", "a cat", "a photo of a " + "very " * 300 + "long dog"]
    assert backbone.text_lengths(backbone.tokenizer(texts)).tolist() == [77, 4, 77]
    found = embed_texts(backbone, texts)
    assert torch.allclose(found, reference_texts(tiny_clip, texts), atol=1e-5)
    assert torch.equal(found[0], found[2])


def test_length_batches_cover_every_row_once_within_the_budget():
    lengths = torch.tensor([3, 7, 3, 3, 77, 7, 3])
    batches = list(embed_texts_file._length_batches(lengths, 10))
    assert sorted(int(row) for rows, _ in batches for row in rows) == list(range(7))
    assert all((lengths[rows] <= length).all() for rows, length in batches)
    assert all(len(rows) == 1 or len(rows) * length <= 10 for rows, length in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_have_the_vectors_of_open_clip(backbone, tiny_clip, image_folder, workers):
    data = load_folder(image_folder)
    found = embed_images(backbone, data, workers=workers)
    assert found.shape == (10, 16)
    assert torch.allclose(found, reference_images(tiny_clip, data.paths), atol=1e-5)


@pytest.fixture
def embedded(tiny_clip, image_folder, monkeypatch, tmp_path):
    """Images and texts embedded with a batch size, in a cache that nobody used before."""

    def run(batch_size: int):
        monkeypatch.setenv("CMM_CACHE", str(tmp_path / f"cache-{batch_size}"))
        backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
        images = embed_images(backbone, load_folder(image_folder), batch_size=batch_size)
        return images, embed_texts(backbone, TEXTS, batch_size=batch_size)

    return run


def test_batch_sizes_change_nothing(embedded):
    one, seven, all_at_once = embedded(1), embedded(7), embedded(4096)
    for other in (seven, all_at_once):
        for a, b in zip(one, other, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert torch.equal((one[0] @ one[1].T).argmax(1), (all_at_once[0] @ all_at_once[1].T).argmax(1))


def test_float16_storage_halves_the_entry_and_rounds(backbone, image_folder, own_cache):
    data = load_folder(image_folder)
    exact = embed_images(backbone, data)
    (full,) = entries(own_cache, "images")
    rounded = embed_images(backbone, data, storage="float16")
    (half,) = set(entries(own_cache, "images")) - {full}
    assert full.stat().st_size - half.stat().st_size == 10 * 16 * 2
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded.norm(dim=1), torch.ones(10), atol=1e-6)
    assert torch.allclose(exact, rounded, atol=1e-3)
    assert not torch.equal(exact, rounded)


def test_a_full_cache_needs_no_model(tiny_clip, image_folder, monkeypatch):
    def run():
        backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
        return embed_images(backbone, load_folder(image_folder)), embed_texts(backbone, TEXTS)

    first = run()

    def create(*_args, **_kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_a_moved_folder_finds_its_embeddings_again(backbone, image_folder, tmp_path, counted):
    first = embed_images(backbone, load_folder(image_folder))
    counted["images"].clear()
    moved = image_folder.rename(tmp_path / "elsewhere")
    assert torch.equal(embed_images(backbone, load_folder(moved)), first)
    assert counted["images"] == []


def test_a_kill_costs_one_shard(backbone, image_folder, own_cache, monkeypatch, counted):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 2)
    data = load_folder(image_folder)
    original, calls = embed._encode_shard, []

    def killed_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(embed, "_encode_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        embed_images(backbone, data)
    assert len(entries(own_cache, "images")) == 2
    assert sum(counted["images"]) == 4
    resumed = embed_images(backbone, data)
    assert sum(counted["images"]) == 10
    assert len(entries(own_cache, "images")) == 5
    monkeypatch.setattr(embed, "IMAGE_SHARD", 512)
    assert torch.allclose(resumed, embed_images(backbone, data), atol=1e-5)


def test_killed_texts_are_resumed_too(backbone, monkeypatch, counted):
    monkeypatch.setattr(embed_texts_file, "TEXT_SHARD", 2)
    original, calls = embed_texts_file.encode_texts, []

    def killed_at_the_third(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(embed_texts_file, "encode_texts", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(backbone, TEXTS)
    assert sum(counted["texts"]) == 4
    resumed = embed_texts(backbone, TEXTS)
    assert sum(counted["texts"]) == 6
    assert torch.allclose(resumed, original(backbone, TEXTS), atol=1e-5)


def test_images_of_another_model_or_precision_are_embedded_again(tmp_path, backbone, tiny_clip, image_folder, counted):
    data = load_folder(image_folder)
    first = embed_images(backbone, data)
    other = load_backbone(f"local-dir:{write_clip(tmp_path / 'other-untrained', seed=1)}", None, "cpu")
    assert not torch.allclose(embed_images(other, data), first, atol=1e-3)
    assert not torch.equal(embed_images(load_backbone(f"local-dir:{tiny_clip}", None, "cpu", "bf16"), data), first)
    assert counted["images"] == [10, 10, 10]


def test_a_changed_image_costs_its_shard(backbone, image_folder, monkeypatch, counted):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 2)
    before = embed_images(backbone, load_folder(image_folder))
    counted["images"].clear()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(image_folder / "noise" / "1.jpeg")
    after = embed_images(backbone, load_folder(image_folder))
    assert counted["images"] == [2]
    changed = (before != after).any(1).nonzero()[:, 0].tolist()
    assert 3 in changed
    assert set(changed) <= {2, 3}


@pytest.mark.parametrize("kind", ["images", "texts"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_entry_is_computed_again_with_one_warning(backbone, image_folder, own_cache, kind, cut):
    data = load_folder(image_folder)

    def run():
        return embed_images(backbone, data) if kind == "images" else embed_texts(backbone, TEXTS)

    first = run()
    (entry,) = entries(own_cache, kind)
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content[:-9] if cut else content)
    with pytest.warns(UserWarning, match="is damaged: dropped, and computed again") as seen:
        again = run()
    assert len(seen) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, run())


NOT_IMAGES = {
    "text": lambda path: path.write_text("no image"),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "header only": lambda path: path.write_bytes(path.read_bytes()[:20]),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", NOT_IMAGES)
def test_an_unreadable_image_is_told_by_its_path_and_leaves_the_cache_clean(
    backbone, image_folder, own_cache, monkeypatch, damage, workers
):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    path = image_folder / "palette" / "a.gif"  # image 5: in the second shard
    NOT_IMAGES[damage](path)
    with pytest.raises(InputError) as error:
        embed_images(backbone, load_folder(image_folder), workers=workers)
    assert str(error.value).startswith(f"cannot read image {path}: ")
    assert str(error.value).endswith("; repair or remove it (or set max_broken)")
    assert "\n" not in str(error.value)
    assert len(entries(own_cache, "images")) == 1  # the first shard is kept
    path.unlink()
    assert embed_images(backbone, load_folder(image_folder)).shape == (9, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_let_pass_up_to_a_number(backbone, image_folder, own_cache, monkeypatch, workers):
    whole = embed_images(backbone, load_folder(image_folder))
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    broken = [image_folder / name for name in ("grey_ramp/b.jpg", "palette/a.gif", "palette/deeper/b.png")]
    for path in broken:  # images 1, 5 and 6: one in the first shard, two in the second
        path.write_text("no image")
    data = load_folder(image_folder)
    with pytest.raises(InputError) as error:
        embed_images(backbone, data, workers=workers, max_broken=2, batch_size=2)
    assert str(error.value).startswith(f"cannot read image {broken[2]}: ")
    assert str(error.value).endswith("repair or remove it (max_broken lets 2 pass, and this is one more)")
    assert len(entries(own_cache, "images")) == 2  # the whole set and the first shard
    found = embed_images(backbone, data, workers=workers, max_broken=3, batch_size=2)
    assert found.isnan().any(1).nonzero()[:, 0].tolist() == [1, 5, 6]
    good = [0, 2, 3, 4, 7, 8, 9]
    assert torch.allclose(found[good], whole[good], atol=1e-5)


def test_an_entry_with_broken_images_serves_only_who_lets_them_pass(backbone, image_folder, counted):
    path = image_folder / "palette" / "a.gif"
    path.write_text("no image")
    data = load_folder(image_folder)
    first = embed_images(backbone, data, max_broken=1, storage="float16")
    counted["images"].clear()
    assert torch.equal(first.isnan(), embed_images(backbone, data, max_broken=5, storage="float16").isnan())
    assert counted["images"] == []
    with pytest.raises(InputError, match=r"cannot read image .*a\.gif: not an image"):
        embed_images(backbone, data, storage="float16")


def test_a_shard_of_broken_images_alone_is_let_pass(backbone, image_folder, own_cache, monkeypatch):
    whole = embed_images(backbone, load_folder(image_folder))
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    for path in load_folder(image_folder).paths[4:8]:
        path.write_text("no image")
    found = embed_images(backbone, load_folder(image_folder), max_broken=4)
    assert found.isnan().all(1).nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    assert torch.allclose(found[:4], whole[:4], atol=1e-5)
    with pytest.raises(InputError, match="max_broken lets 3 pass, and this is one more"):
        embed_images(backbone, load_folder(image_folder), max_broken=3)


def test_a_set_without_one_whole_image_is_refused(backbone, image_folder):
    paths = load_folder(image_folder).paths
    for path in paths:
        path.write_text("no image")
    with pytest.raises(InputError) as error:
        embed_images(backbone, load_folder(image_folder), max_broken=99)
    assert str(error.value) == f"cannot read image {paths[0]}: not an image; repair or remove it"


def test_an_image_too_large_to_decode_is_told_by_its_path(backbone, image_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"cannot read image .*grey_ramp/a\.png: it has more than 200 pixels"):
        embed_images(backbone, load_folder(image_folder))


def test_a_palette_with_transparency_gives_its_colours_without_a_warning(backbone, tiny_clip, image_folder):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).quantize(4)
    picture.save(image_folder / "palette" / "clear.png", transparency=bytes([0, 128, 255, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = embed_images(backbone, load_folder(image_folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, which is why ours goes another way to the same colours
        expected = reference_images(tiny_clip, load_folder(image_folder).paths)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_full_disk_is_an_os_error_and_leaves_no_entry(backbone, image_folder, own_cache, monkeypatch, kind):
    data = load_folder(image_folder)

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        embed_images(backbone, data) if kind == "images" else embed_texts(backbone, TEXTS)
    assert entries(own_cache, kind) == []


PROCESS = """
import sys, warnings
from pathlib import Path
import torch
from cmmlib.models import embed, embed_texts
from cmmlib.models.backbones import load_backbone
from cmmlib.data.folders import load_folder
warnings.simplefilter("error")
embed.IMAGE_SHARD = 2
folder, model, out = sys.argv[1:]
backbone = load_backbone("local-dir:" + model, None, "cpu")
data = load_folder(Path(folder))
print("ready", flush=True)
sys.stdin.readline()
texts = [f"a photo of {i} {'very ' * (i % 9)}small cats" for i in range(60)]
torch.save((embed.embed_images(backbone, data), embed_texts.embed_texts(backbone, texts)), out)
"""


def test_two_processes_at_once_share_a_cache(tiny_clip, image_folder, own_cache, tmp_path, fork):
    def start(name: str):
        return fork(PROCESS, image_folder, tiny_clip, tmp_path / name)

    with start("one.pt") as one, start("two.pt") as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [one.wait(), two.wait()] == [0, 0]
    results = [torch.load(tmp_path / name) for name in ("one.pt", "two.pt")]
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(entries(own_cache, "images")) == 5
    assert not [path for path in own_cache.rglob(".*") if path.is_file()]  # no temporary file is left


# ---------------------------------------------------------------- several devices


def contents(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entries(cache, "images")}


@pytest.fixture
def forks(monkeypatch) -> None:
    """Processes are forks of one that imported the package once, which takes seconds; a study starts each anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cmmlib.models.embed"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


def test_two_processes_write_the_bytes_of_one(tiny_clip, image_folder, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 2)
    data, found = load_folder(image_folder), {}
    for devices in ("cpu", "cpu,cpu"):
        monkeypatch.setenv("CMM_CACHE", str(tmp_path / devices))
        found[devices] = embed_images(load_backbone(f"local-dir:{tiny_clip}", None, devices), data)
    assert len(contents(tmp_path / "cpu")) == 5
    assert contents(tmp_path / "cpu") == contents(tmp_path / "cpu,cpu")
    assert torch.equal(found["cpu"], found["cpu,cpu"])
    assert sum(counted["images"]) == 10  # of the first round: the second was embedded elsewhere


@pytest.mark.usefixtures("forks")
def test_processes_embed_what_is_missing_only(tiny_clip, image_folder, own_cache, monkeypatch):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 2)
    data = load_folder(image_folder)
    one, backbone = (load_backbone(f"local-dir:{tiny_clip}", None, device) for device in ("cpu", "cpu,cpu"))
    first = embed_images(one, data)
    kept, *gone = entries(own_cache, "images")
    stamp = kept.stat().st_mtime_ns
    for path in gone:
        path.unlink()
    assert torch.equal(embed_images(backbone, data), first)
    assert kept.stat().st_mtime_ns == stamp
    monkeypatch.setattr(embed, "ProcessPoolExecutor", None)  # nothing is missing: nothing is started
    assert torch.equal(embed_images(backbone, data), first)


@pytest.mark.usefixtures("forks")
def test_an_unreadable_image_in_a_process_is_told_by_its_path(tiny_clip, image_folder, own_cache, monkeypatch):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    path = image_folder / "palette" / "a.gif"
    path.write_text("no image")
    message = refusal(embed_images, load_backbone(f"local-dir:{tiny_clip}", None, "cpu,cpu"), load_folder(image_folder))
    assert message.startswith(f"cannot read image {path}: ")


class Deadly(ImageFolder):
    """Images whose reading ends the process, as the system does where memory runs out."""

    def read(self, index: int) -> Image.Image:
        self.paths[index].with_suffix(".read").touch()
        os._exit(9)


@pytest.mark.usefixtures("forks")
def test_a_process_that_is_ended_from_outside_is_one_line(tiny_clip, image_folder, monkeypatch):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    data = Deadly(**vars(load_folder(image_folder)))
    message = refusal(embed_images, load_backbone(f"local-dir:{tiny_clip}", None, "cpu,cpu"), data)
    assert "a process was ended from outside" in message
    assert list(image_folder.rglob("*.read"))


class DeadlyBesides(ImageFolder):
    """Images of which the fourth ends the process that decodes it, by `ENDED`."""

    def read(self, index: int) -> Image.Image:
        if self.paths[index].name == "d.png":
            ENDED["by"]()
        return super().read(index)


ENDED = {"by": lambda: os._exit(9)}


@pytest.mark.parametrize("how", [lambda: os._exit(9), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_process_that_decodes_and_is_ended_is_one_line(backbone, image_folder, own_cache, monkeypatch, how):
    monkeypatch.setattr(embed, "IMAGE_SHARD", 4)
    monkeypatch.setitem(ENDED, "by", how)
    last = load_folder(image_folder).paths[-1]
    last.rename(last.with_name("d.png"))
    data = DeadlyBesides(**vars(load_folder(image_folder)))
    message = refusal(lambda: embed_images(backbone, data, workers=1))
    assert message.startswith("workers: a process that decodes images was ended from outside")
    assert "fewer --workers, or docker run --shm-size" in message
    assert len(entries(own_cache, "images")) == 2  # the shards before it are kept


def test_a_process_that_ends_while_the_model_works_is_not_the_models_fault(backbone, image_folder, monkeypatch):
    """torch raises it in whatever the main process does at that moment."""

    def interrupted(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...")

    monkeypatch.setattr(backbone.model, "encode_image", interrupted)
    assert refusal(embed_images, backbone, load_folder(image_folder)).startswith("workers: a process that decodes")


# ---------------------------------------------------------------- images that could not be read, and now can


class Passing(ImageFolder):
    """Images that fail, while they are in `FAILING`, for a reason that is not in their bytes."""

    def read(self, index: int) -> Image.Image:
        path = self.paths[index]
        TRIED.append(path.name)
        if path.parent.name + "/" + path.name in FAILING:
            raise InputError(f"cannot read image {path}: input/output error; repair or remove it")
        return super().read(index)


FAILING: set[str] = set()
TRIED: list[str] = []


@pytest.fixture
def passing(image_folder, monkeypatch):
    FAILING.clear(), TRIED.clear()
    yield Passing(**vars(load_folder(image_folder)))
    FAILING.clear()


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("max_broken", [0, 2])
def test_an_image_that_failed_once_is_tried_again_and_kept(
    backbone, passing, own_cache, counted, storage, max_broken, monkeypatch, tmp_path
):
    FAILING.update(("grey_ramp/b.jpg", "palette/a.gif"))
    first = embed_images(backbone, passing, max_broken=2, storage=storage)
    assert first.isnan().any(1).sum() == 2
    FAILING.clear(), counted["images"].clear()
    healed = embed_images(backbone, passing, max_broken=max_broken, storage=storage)
    assert counted["images"] == [2]  # the two alone
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "other"))
    assert torch.allclose(healed, embed_images(backbone, passing, storage=storage), atol=1e-3)
    monkeypatch.setenv("CMM_CACHE", str(own_cache))
    TRIED.clear(), counted["images"].clear()
    assert torch.equal(embed_images(backbone, passing, storage=storage), healed)
    assert (TRIED, counted["images"]) == ([], [])  # stored whole


def test_of_two_failures_the_one_that_stays_is_told_and_the_other_kept(backbone, passing, counted):
    FAILING.update(("grey_ramp/b.jpg", "palette/a.gif"))
    embed_images(backbone, passing, max_broken=2)
    FAILING.remove("grey_ramp/b.jpg")
    assert "palette/a.gif: input/output error" in refusal(embed_images, backbone, passing)
    counted["images"].clear()
    assert embed_images(backbone, passing, max_broken=1).isnan().any(1).sum() == 1
    assert counted["images"] == []


def test_broken_images_cost_one_look_each_and_no_model(backbone, passing, tiny_clip, monkeypatch):
    FAILING.update(("grey_ramp/b.jpg", "palette/a.gif"))
    first = embed_images(backbone, passing, max_broken=2)
    assert TRIED.count("b.jpg") + TRIED.count("a.gif") >= 2
    TRIED.clear()
    monkeypatch.setattr(open_clip, "create_model_and_transforms", None)
    again = embed_images(load_backbone(f"local-dir:{tiny_clip}", None, "cpu"), passing, max_broken=2)
    assert torch.equal(again.isnan(), first.isnan())
    assert sorted(TRIED) == ["a.gif", "b.jpg"]


def test_a_set_that_failed_whole_is_embedded_once_it_can_be_read(backbone, passing):
    FAILING.update(path.parent.name + "/" + path.name for path in passing.paths)
    refusal(lambda: embed_images(backbone, passing, max_broken=99))
    FAILING.clear()
    assert embed_images(backbone, passing).isfinite().all()


def test_a_cache_that_may_only_be_read_serves_what_heals_too(backbone, passing, monkeypatch):
    FAILING.add("palette/a.gif")
    embed_images(backbone, passing, max_broken=1)
    FAILING.clear()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(embed, "save_tensors", refuse)
    assert embed_images(backbone, passing).isfinite().all()


def test_a_model_without_numbers_is_told_at_the_second_try_too(backbone, passing, monkeypatch):
    FAILING.add("palette/a.gif")
    embed_images(backbone, passing, max_broken=1)
    FAILING.clear()
    monkeypatch.setattr(Backbone, "encode_images", lambda self, pixels: torch.full((len(pixels), 16), torch.nan))
    assert "gives no finite embedding of palette/a.gif" in refusal(embed_images, backbone, passing)


def test_other_pixels_have_another_key_and_todays_have_the_one_they_had(backbone, image_folder, monkeypatch):
    data = load_folder(image_folder)
    ((_, path),) = embed._shards(backbone, data, "float32")
    assert path.stem == digest("image", backbone.digest, "fp32", "float32", data.digests)
    monkeypatch.setattr(embed, "PIXELS", (1,))
    ((_, other),) = embed._shards(backbone, data, "float32")
    assert other != path


# ---------------------------------------------------------------- a model whose numbers overflow


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_model_without_numbers_is_no_broken_image(value, tmp_path, image_folder, own_cache, tiny_clip):
    shutil.copytree(tiny_clip, tmp_path / "loud-untrained")
    file = tmp_path / "loud-untrained" / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["visual.proj"] = torch.full_like(weights["visual.proj"], value)
    weights["text_projection"] = torch.full_like(weights["text_projection"], value)
    save_file(weights, file)
    backbone = load_backbone(f"local-dir:{file.parent}", None, "cpu")
    message = refusal(lambda: embed_images(backbone, load_folder(image_folder), max_broken=100))
    assert "local-dir:loud-untrained in fp32 gives no finite embedding of grey_ramp/a.png" in message
    assert message.endswith(": use other weights")
    half = replace(backbone, precision="fp16")
    for precise, remedy in ((backbone, "use other weights"), (half, "use --precision fp32, or other weights")):
        told = f"gives no finite embedding of the text 'a cat': {remedy}"
        assert refusal(lambda model=precise: embed_texts(model, ["a cat"])).endswith(told)
    assert not list(own_cache.rglob("*.safetensors"))


def test_an_image_that_no_model_can_take_is_named(image_folder, tiny_clip, monkeypatch):
    def refuse(self, image):
        raise MemoryError("too thin\nto resize")

    backbone = load_backbone(f"local-dir:{tiny_clip}", None, "cpu")
    monkeypatch.setattr("torchvision.transforms.Resize.forward", refuse)
    message = refusal(embed_images, backbone, load_folder(image_folder))
    assert message.startswith("cannot bring image grey_ramp/a.png to the model's size: too thin to resize")
