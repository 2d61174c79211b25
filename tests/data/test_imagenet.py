"""ImageNet: classes by WordNet id, names as published, and the doubled names told apart."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pandas as pd
import pytest
from data_sets import image, imagenet, text
from finished_runs import read_through

from cmmlib import Study, open_run
from cmmlib.data.imagenet import disambiguate
from cmmlib.data.load import load_dataset
from cmmlib.errors import InputError

CHAPTER = Path(__file__).resolve().parents[2] / "notebooks" / "01_phenomenon.ipynb"
DOUBLED = (657, 744, 836, 837)


def refusal(root: Path, **more) -> str:
    with pytest.raises(InputError) as error:
        load_dataset("imagenet", root=root, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_in_the_order_of_wordnet_ids_under_their_published_names(tmp_path):
    imagenet(tmp_path, {0: 1, 657: 2, 999: 1})
    data = load_dataset("ImageNet", root=tmp_path)
    assert data.classnames == list(open_clip.IMAGENET_CLASSNAMES)
    assert data.labels.tolist() == [0, 657, 657, 999]
    assert (data.name, data.split) == ("imagenet", "val")
    assert data.image_ids[0] == "n01440764/ILSVRC2012_val_00000000.JPEG"
    assert data.templates is None


def test_doubled_names_get_a_second_term_from_torchvision(tmp_path):
    imagenet(tmp_path, {0: 1})
    data = load_dataset("imagenet", root=tmp_path)
    told = data.disambiguated
    assert [data.classnames[c] for c in DOUBLED] == ["missile", "missile", "sunglasses", "sunglasses"]
    assert [told[c] for c in DOUBLED] == ["missile", "missile, projectile", "sunglasses, sunglass", "sunglasses"]
    assert len(set(told)) == 1000
    assert {c for c in range(1000) if told[c] != data.classnames[c]} == {744, 836}


@pytest.mark.parametrize(("file", "separator"), [("LOC_synset_mapping.txt", " "), ("words.txt", "\t")])
def test_the_data_sets_own_synsets_come_first(tmp_path, file, separator):
    ids = imagenet(tmp_path, {0: 1})
    terms = {836: "sunglass", 837: "sunglasses, dark glasses, shades", 744: "projectile, missile", 0: "tench, Tinca"}
    lines = [f"{ids[c]}{separator}{words}" for c, words in terms.items()]
    text(tmp_path / "imagenet" / file, "\n".join(["n99999999", *lines]) + "\n")
    told = load_dataset("imagenet", root=tmp_path).disambiguated
    assert [told[c] for c in DOUBLED] == [
        "missile",
        "missile, projectile",
        "sunglasses, sunglass",
        "sunglasses, dark glasses",
    ]
    assert told[0] == "tench"  # one bearer: as published


def test_names_given_in_a_file_are_told_apart_by_whoever_wrote_them(tmp_path):
    imagenet(tmp_path / "data", {0: 1})
    text(tmp_path / "names.txt", "\n".join(f"name {c}" for c in range(1000)))
    assert load_dataset("imagenet", str(tmp_path / "names.txt"), root=tmp_path / "data").disambiguated is None


def test_folders_that_are_not_imagenets_are_refused(tmp_path):
    message = refusal(tmp_path)
    assert message.startswith(f"imagenet: no folder {tmp_path}/imagenet/val")
    assert "--data-root" in message
    assert "split: imagenet has no split 'test': it has val, train" in refusal(tmp_path, split="test")
    for name in ("n01440764", "n01443537"):
        image(tmp_path / "imagenet" / "val" / name / "1.JPEG")
    assert "holds 2 class folders from n01440764 to n01443537: 1000 named by WordNet ids" in refusal(tmp_path)


def test_a_name_without_another_term_stays():
    assert disambiguate(["A", "a", "b"], [["a"], [], ["c"]]) == ["A", "a", "b"]
    assert disambiguate(["A", "a", "b"], [["a", "x"], ["y"], ["c"]]) == ["A, x", "a, y", "b"]


def test_the_chapter_shows_both_sets_of_names_side_by_side(tmp_path, tiny_clip):
    imagenet(tmp_path / "data", {0: 2, 657: 3, 744: 3, 836: 2, 837: 2})
    (tmp_path / "few.txt").write_text("tench\n657\n744\n836\n837\n")
    fields = {"dataset": "imagenet", "data_root": str(tmp_path / "data"), "classes": str(tmp_path / "few.txt")}
    run = open_run(Study.of({**fields, "backbone": f"local-dir:{tiny_clip}", "out": str(tmp_path / "runs")}))
    assert run.conditions["disambiguated"]
    assert run.classnames == ["tench", "missile", "missile", "sunglasses", "sunglasses"]
    said = read_through(run, CHAPTER)
    assert any(
        'shared names: "missile" and "sunglasses"; told apart: "missile, projectile" and "sunglasses, sunglass".'
        in text
        for text in said
    )
    results = json.loads((run.folder / "results.json").read_text())
    told = results["disambiguated"]
    assert told["names"] == {"2": "missile, projectile", "3": "sunglasses, sunglass"}
    assert told.keys() == {"names", "overall", "worst", "zero_classes"}
    texts = run.encode(["a photo of a tench.", *(f"a photo of a {name}." for name in run.disambiguated[1:])])
    right = (run.image_features @ texts.T).argmax(1) == run.labels
    assert told["overall"] == pytest.approx(float(right.double().mean()))
    per_class = pd.read_csv(run.folder / "per_class.csv")["accuracy"]
    assert per_class[2] == per_class[4] == 0  # as published, by construction
    assert results["accuracy"]["worst"]["1"] == 0


def test_other_studies_have_nothing_to_tell_apart(labelled):
    assert json.loads((labelled / "results.json").read_text())["disambiguated"] is None
