"""What is told of a study's class names and of what follows from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmmlib.study.open_run import study_data
from cmmlib.study.remarks import odd_names
from cmmlib.study.study import Study
from cmmlib.texts.transcripts import shipped_transcripts


def class_folders(root: Path, *names: str) -> Path:
    for c, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4, 3), c, np.uint8)).save(root / name / "0.png")
    return root


def told(root: Path, **fields: object) -> list[str]:
    return list(study_data(Study.of({"dataset": f"folder:{root}", "backbone": "ViT-B-32", **fields})).remarks)


# ---------------------------------------------------------------- numbers before names


@pytest.mark.parametrize(
    "names",
    [
        ("001.Black_footed_Albatross", "002.Laysan_Albatross"),
        ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"),
        ("001.ak47", "002.american-flag"),
        ("0: tench", "1: goldfish"),
        ("n01440764 tench", "n01443537 goldfish"),
        ("1_caf\u00e9", "2_\u732b"),
    ],
    ids=str,
)
def test_names_that_begin_with_a_number_are_told(names):
    (line,) = odd_names(names)
    assert line.startswith(f"all class names begin with a number or a WordNet id ({names[0]!r}, {names[1]!r}), which")
    assert line.endswith("give --class-names FILE with the names alone")


@pytest.mark.parametrize(
    "names",
    [
        ("707-320", "A300B4"),
        ("2CV", "4CV"),
        ("1.5", "2.5 litres"),
        ("001.ak47", "american flag"),
        ("24h clock", "3D printer"),
        ("n1 road", "n2 road"),
    ],
    ids=str,
)
def test_other_names_with_numbers_are_names(names):
    assert odd_names(names) == []


# ---------------------------------------------------------------- the domain that follows from names


def test_a_domain_that_follows_from_a_few_names_is_told(tmp_path):
    root = class_folders(tmp_path / "walks", "forest", "river")
    (line,) = told(root)
    assert line == (
        "all class names are among the 10 of eurosat, so that descriptions are of 'satellite images': "
        "name what the images are with --domain, as in --domain photographs"
    )
    assert told(root, domain="photographs") == []
    assert told(root, domain="satellite images") == []


def test_the_domain_of_a_data_set_that_is_known_is_no_guess(tmp_path):
    """By its name, also of a part, or by its classes."""
    assert told(class_folders(tmp_path / "EuroSAT_RGB", "Forest", "River", "SeaLake")) == []
    (tmp_path / "few.txt").write_text("Forest\nRiver\n")
    assert told(tmp_path / "EuroSAT_RGB", classes=str(tmp_path / "few.txt")) == []
    known = list(dict.fromkeys(record.class_name for record in shipped_transcripts()["eurosat"].records))
    assert len(known) == 10
    assert told(class_folders(tmp_path / "nine", *known[1:])) == []
    assert len(told(class_folders(tmp_path / "eight", *known[2:]))) == 1
    assert told(class_folders(tmp_path / "unheard of", "forest", "moor")) == []
