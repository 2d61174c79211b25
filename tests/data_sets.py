"""Small data sets in the formats in which the published ones lie on disk, with generated images."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

RANDOM = np.random.default_rng(0)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def cifar(root: Path, cls: type, key: str, classes: list[str], patch: pytest.MonkeyPatch) -> None:
    """CIFAR's pickled batches. torchvision knows the published checksums, which no generated file has: the test
    gives it those of these files, and another test sees that it refuses any other."""
    folder = root / cls.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    def batch(name: str, n: int) -> list[str]:
        pixels = RANDOM.integers(0, 256, (n, 3072), dtype=np.uint8)
        return [name, write(name, {"data": pixels, key: [i % len(classes) for i in range(n)]})]

    patch.setattr(cls, "train_list", [batch(name, 4) for name, _ in cls.train_list])
    patch.setattr(cls, "test_list", [batch(name, 6) for name, _ in cls.test_list])
    md5 = write(cls.meta["filename"], {cls.meta["key"]: classes})
    patch.setattr(cls, "meta", {**cls.meta, "md5": md5})


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    cifar(root, datasets.CIFAR10, "labels", ["airplane", "automobile", "bird"], patch)


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    cifar(root, datasets.CIFAR100, "fine_labels", ["apple", "aquarium_fish", "baby"], patch)


def dtd(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "dtd" / "dtd"
    lines = [f"{name}/{name}_000{i}.jpg" for name in ("polka-dotted", "banded") for i in range(2)]
    for split in ("test", "val"):
        text(folder / "labels" / f"{split}1.txt", "\n".join(lines if split == "test" else lines[1:3]) + "\n")
    for line in lines:
        image(folder / "images" / line)


def eurosat(root: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("SeaLake_1", "AnnualCrop_1", "AnnualCrop_2", "Forest_1"):
        image(root / "eurosat" / "2750" / name.partition("_")[0] / f"{name}.jpg")


def fgvc_aircraft(root: Path, patch: pytest.MonkeyPatch) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    text(data / "variants.txt", "707-320\nA300B4\nAn-12\n")
    text(data / "images_variant_test.txt", "0034309 An-12\n0034310 707-320\n0034311 707-320\n")
    for number in (34309, 34310, 34311):
        image(data / "images" / f"{number:07d}.jpg")


def flowers(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Labels count from 1 and images are listed by split in .mat files, whose checksums torchvision knows too."""
    folder, files = root / "flowers-102", {"label": "imagelabels.mat", "setid": "setid.mat"}
    folder.mkdir(parents=True)
    savemat(folder / files["label"], {"labels": np.array([[102, 1, 1, 7]], np.uint8)})
    savemat(folder / files["setid"], {"trnid": [[4, 4]], "valid": [[4, 4]], "tstid": [[1, 2, 3]]})
    for number in range(1, 5):
        image(folder / "jpg" / f"image_{number:05d}.jpg")
    known = {key: (name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for key, name in files.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **known})


def food101(root: Path, patch: pytest.MonkeyPatch) -> None:
    lists = {"waffles": ["waffles/1", "waffles/2"], "apple_pie": ["apple_pie/3"]}
    text(root / "food-101" / "meta" / "test.json", json.dumps(lists))
    for name in [*lists["waffles"], *lists["apple_pie"]]:
        image(root / "food-101" / "images" / f"{name}.jpg")


def pets(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "oxford-iiit-pet"
    text(folder / "annotations" / "test.txt", "american_bulldog_10 2 2 1\nAbyssinian_2 1 1 1\nAbyssinian_1 1 1 1\n")
    for name in ("american_bulldog_10", "Abyssinian_1", "Abyssinian_2"):
        image(folder / "images" / f"{name}.jpg")


def cars(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "stanford_cars"
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("bbox_x1", "u1"), ("class", "u1"), ("fname", "O")]
    rows = np.array([(1, 2, "00001.jpg"), (1, 1, "00002.jpg"), (1, 1, "00003.jpg")], dtype=kinds)
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    for name in rows["fname"]:
        image(folder / "cars_test" / name)


def sun397(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "SUN397"
    text(folder / "ClassName.txt", "/a/abbey\n/a/apartment_building/outdoor\n")
    for name in ("a/abbey/sun_b.jpg", "a/abbey/sun_a.jpg", "a/apartment_building/outdoor/sun_c.jpg"):
        image(folder / name)


def caltech101(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "caltech101" / "101_ObjectCategories"
    for name, n in {"BACKGROUND_Google": 1, "yin_yang": 2, "Faces_easy": 1}.items():
        for i in range(1, n + 1):
            image(folder / name / f"image_{i:04d}.jpg")


def gtsrb(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "gtsrb"
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{i:05d}.ppm;53;54;6;5;48;49;{label}" for i, label in enumerate((2, 0, 1))]
    text(folder / "GT-final_test.csv", "\n".join([head, *rows]))
    for i in range(3):
        image(folder / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm")


def country211(root: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("AD/1.jpg", "AE/2.jpg", "AE/3.jpg"):
        image(root / "country211" / "test" / name)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    f.__name__: f
    for f in (
        *(cifar10, cifar100, dtd, eurosat, fgvc_aircraft, flowers, food101),
        *(pets, cars, sun397, caltech101, gtsrb, country211),
    )
}


def imagenet(root: Path, classes: dict[int, int], split: str = "val") -> list[str]:
    """A thousand class folders by WordNet id, with so many images in some of them; returns the ids."""
    ids = [f"n{1_440_764 + 7 * c:08d}" for c in range(1000)]
    for c, name in enumerate(ids):
        folder = root / "imagenet" / split / name
        folder.mkdir(parents=True)
        for i in range(classes.get(c, 0)):
            image(folder / f"ILSVRC2012_val_{1000 * c + i:08d}.JPEG")
    return ids


def png(*colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), colour).save(stream, "PNG")
    return stream.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def web_data_set(root: Path) -> Path:
    """Five images of three classes in two shards, in CLIP_benchmark's layout."""
    text(root / "classnames.txt", "cat\ndog\nsea lion\n")
    text(root / "zeroshot_classification_templates.txt", "a {c}.\n\nthe {c}, a {c}.\n")
    text(root / "test" / "nshards.txt", "2\n")
    samples = [{f"s{i:07d}.png": png(i, 0, 200), f"s{i:07d}.cls": str(i % 3).encode()} for i in range(5)]
    shard(root / "test" / "0.tar", samples[0] | samples[1] | samples[2])
    shard(root / "test" / "1.tar", samples[3] | samples[4])
    return root
