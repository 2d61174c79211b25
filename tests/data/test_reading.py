"""What the system refuses to read is told as that, by every reader: it is not damaged."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path

import pytest
from conftest import refusal, write_images
from data_sets import WRITERS, web_data_set
from finished_runs import cmm, write_embeddings
from PIL import Image
from safetensors.numpy import save_file
from synthetic_embeddings import synthetic_arrays

from cmmlib.data import torchvision
from cmmlib.data.embeddings import load_image_embeddings
from cmmlib.data.image_files import decode
from cmmlib.data.load import load_dataset, load_images


@pytest.fixture
def refuse(monkeypatch):
    """Have the system refuse a file or folder and what lies in it, as where a user may not read it; root may read all.

    Size and times of the place itself are still told, since those are its folder's.
    """

    def refuse(place: Path, number: int = errno.EACCES) -> None:
        def of(call):
            def asked(path, *arguments, **more):
                at = Path(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else Path()
                if place in at.parents or (at == place and call is not told):
                    raise OSError(number, os.strerror(number), os.fspath(path))
                return call(path, *arguments, **more)

            return asked

        told = os.stat
        for module, names in ((builtins, ("open",)), (os, ("scandir", "listdir", "stat"))):
            for name in names:
                monkeypatch.setattr(module, name, of(getattr(module, name)))
        monkeypatch.setattr("io.open", builtins.open)

    return refuse


def denied(place: Path) -> str:
    return f"cannot read {place}: permission denied"


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_embeddings_that_may_not_be_read_are_not_damaged(ending, number, tmp_path, refuse):
    file = tmp_path / f"x{ending}"
    write_embeddings(tmp_path / "x.npz")
    save_file({"image_features": synthetic_arrays()["image_features"]}, tmp_path / "x.safetensors")
    refuse(file, number)
    cause = os.strerror(number).lower()
    for said in (refusal(load_dataset, f"embeddings:{file}"), refusal(load_image_embeddings, file)):
        assert said == f"cannot read {file}: {cause}"


def test_embeddings_that_are_damaged_are_told_to_be_copied_again(tmp_path):
    for name in ("x.npz", "x.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x05\x06" + b"\xff" * 30)
        said = refusal(load_dataset, f"embeddings:{tmp_path / name}")
        assert said.endswith(": damaged, or another format: copy or fetch it again, or save it anew")


@pytest.mark.parametrize("part", ["", "noise", "noise/0.png"])
def test_a_part_of_a_folder_that_may_not_be_read_is_named(part, tmp_path, refuse):
    images = write_images(tmp_path / "images")
    refuse(images / part)
    for load in (load_dataset, load_images):
        said = refusal(load, f"folder:{images}")
        assert said.startswith("cannot read ")
        assert str(images / part) in said
        assert said.endswith(": permission denied")


@pytest.mark.parametrize("part", ["", "test", "test/nshards.txt", "test/1.tar", "classnames.txt"])
def test_a_part_of_a_web_data_set_that_may_not_be_read_is_named(part, tmp_path, refuse):
    root = web_data_set(tmp_path / "wds")
    refuse(root / part)
    said = refusal(load_dataset, f"wds:{root}")
    assert (root / part).name in said
    assert "cannot read " in said
    assert said.endswith(": permission denied")


@pytest.mark.parametrize("part", ["", "test"])
def test_a_folder_of_shards_that_may_be_entered_and_not_listed_is_named(part, tmp_path, monkeypatch):
    root = web_data_set(tmp_path / "wds")

    def refuse(path=".", list_of=os.listdir, *_):
        if not isinstance(path, int) and Path(os.fsdecode(path)) == root / part:  # tidying up asks by number
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return list_of(path)

    monkeypatch.setattr(os, "scandir", lambda path=".", call=os.scandir: refuse(path, call))
    monkeypatch.setattr(os, "listdir", refuse)
    assert refusal(load_dataset, f"wds:{root}") == denied(root / part)


def test_a_shard_that_may_no_longer_be_read_is_named_with_the_image(tmp_path, monkeypatch):
    data = load_dataset(f"wds:{web_data_set(tmp_path / 'wds')}")

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    monkeypatch.setattr("builtins.open", refuse)
    assert refusal(data.read, 4) == denied(tmp_path / "wds" / "test" / "1.tar")


def test_an_image_that_may_not_be_read_is_neither_to_be_repaired_nor_removed(tmp_path, monkeypatch):
    def refuse(*_arguments, **_more):
        raise PermissionError(errno.EACCES, "Permission denied", "a.png")

    monkeypatch.setattr(Image, "open", refuse)
    assert refusal(decode, tmp_path / "a.png", "a.png") == "cannot read image a.png: permission denied"


def test_a_folder_for_imagenet_that_may_not_be_read_is_named(tmp_path, refuse):
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    refuse(tmp_path / "imagenet")
    with pytest.raises(ValueError, match=r"^cannot read .*imagenet/val: permission denied$"):
        load_dataset("imagenet", root=tmp_path)


def test_files_of_a_published_set_that_may_not_be_read_are_not_called_others(tmp_path, monkeypatch, refuse):
    monkeypatch.setattr(torchvision, "find_spec", lambda name: None)
    WRITERS["fgvc_aircraft"](tmp_path, monkeypatch)
    file = tmp_path / "fgvc-aircraft-2013b" / "data" / "variants.txt"
    refuse(file)
    with pytest.raises(ValueError, match=r"^fgvc_aircraft: cannot read .*variants\.txt: permission denied$"):
        load_dataset("fgvc_aircraft", root=tmp_path)


def test_a_place_for_published_files_that_may_not_be_written_is_not_their_hosts_fault(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/eurosat")

    monkeypatch.setattr(torchvision, "host_responds", lambda host: True)
    monkeypatch.setattr(torchvision, "_download", refuse)
    with pytest.raises(ValueError, match=r"^eurosat: cannot write /data/eurosat: permission denied: name another"):
        load_dataset("eurosat", root=tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_the_system_itself_refuses(tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    (tmp_path / "x.npz").chmod(0)
    assert cmm("run", "--dry-run", "--dataset", data).err == f"cmm: {denied(tmp_path / 'x.npz')}\n"
