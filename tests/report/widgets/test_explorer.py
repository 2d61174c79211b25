"""The class explorer says of every class what the run's files say, and names stay names."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from finished_runs import HOSTILE
from PIL import Image

from cmmlib import functional as F
from cmmlib.data.images import ImageSet
from cmmlib.errors import InputError
from cmmlib.report.widgets import explorer
from cmmlib.report.widgets.embedded import FOLDER, widget_html


def test_the_explorer_has_the_numbers_of_the_files(labelled):
    chapter = json.loads((labelled / "chapters" / "10_every_class.ipynb").read_text())
    html = "".join(
        "".join(output["data"]["text/html"])
        for cell in chapter["cells"]
        for output in cell.get("outputs", [])
        if "cmm-explorer" in "".join(output.get("data", {}).get("text/html", ""))
    )
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)[1])
    table = pd.read_csv(labelled / "per_class.csv")
    shown = pd.DataFrame(data["classes"])
    for column, name in (
        ("accuracy", "accuracy"),
        ("cmm", "cmm_soft"),
        ("low", "accuracy_low"),
        ("high", "accuracy_high"),
    ):
        assert shown[column].to_numpy() == pytest.approx(table[name].to_numpy(), abs=1e-6)
    for column, name in (
        ("rank", "suspect_rank"),
        ("rival", "rival"),
        ("n", "n_images"),
        ("predicted", "predicted_count"),
    ):
        assert shown[column].tolist() == table[name].tolist()
    assert shown["taken"].tolist() == table["taken_for"].fillna("").tolist()
    ensembles = pd.read_csv(labelled / "ensembles.csv", index_col="name")
    overall = (pd.DataFrame(shown["methods"].tolist()) * 1.0).mul(shown["n"], axis=0).sum() / shown["n"].sum()
    assert len(overall) >= 3
    for method in set(overall.index) & set(ensembles.index):
        assert overall[method] == pytest.approx(ensembles.loc[method, "overall"], abs=1e-6)


def test_without_labels_it_has_no_accuracy(synthetic):
    data = explorer.explorer_data(replace(synthetic, labels=None))
    assert {row["accuracy"] for row in data["classes"]} == {None}
    assert data["methods"] == []
    assert [column["key"] for column in data["columns"]] == ["name", "predicted", "cmm", "rank", "rival"]
    assert sum(row["predicted"] for row in data["classes"]) == len(synthetic.image_features)


def test_a_class_without_images_has_no_accuracy_and_does_not_break_the_page(synthetic):
    labels = torch.where(synthetic.labels == 3, 4, synthetic.labels)
    row = explorer.explorer_data(replace(synthetic, labels=labels))["classes"][3]
    assert (row["accuracy"], row["n"], row["low"]) == (None, 0, None)


def test_text_from_outside_cannot_leave_the_data():
    names = [*HOSTILE, "</script><script>alert(2)</script>", "<!--<script>", "\u2028 line"]
    html = widget_html("explorer", {"classes": names}, "none")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.S)
    assert len(scripts) == 2
    assert json.loads(scripts[0])["classes"] == names
    assert "<" not in scripts[0]


def test_scripts_put_text_into_pages_as_text_only():
    for script in FOLDER.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", script.read_text()), script


class Pictures(ImageSet):
    """A grey picture for every image."""

    def read(self, index: int) -> Image.Image:
        return Image.effect_noise((80, 80), 60)


def test_pictures_are_of_the_first_suspects_as_far_as_there_is_room(synthetic, monkeypatch):
    monkeypatch.setattr(explorer, "PICTURE_BYTES", 20_000)
    with_images = replace(synthetic, pictures=Pictures("grey", synthetic.classnames, synthetic.labels, []))
    data = explorer.explorer_data(with_images)
    rows = data["classes"]
    with_pictures = [row["rank"] for row in sorted(rows, key=lambda row: row["rank"]) if row["pictures"]]
    assert with_pictures == list(range(1, len(with_pictures) + 1))
    assert 0 < sum(len(picture["source"]) for picture in data["pictures"]) <= 20_000
    assert 0 < len(with_pictures) < len(rows)
    monkeypatch.setattr(explorer, "DATA_BYTES", 1000)  # the numbers leave no room
    assert explorer.explorer_data(with_images)["pictures"] == []


class Numbered(ImageSet):
    """The picture of image n has n in its red, and is of another size."""

    def read(self, index: int) -> Image.Image:
        return Image.new("RGB", (300, 200) if index % 2 else (90, 70), (index, 0, 0))


def test_a_missed_image_stands_beside_one_of_the_class_that_it_is_taken_for(synthetic, monkeypatch):
    monkeypatch.setattr(explorer, "_webp", lambda image: str(image.getpixel((0, 0))[0]))
    few = torch.arange(256)  # their numbers fit into a pixel
    labels = torch.where(synthetic.labels == 3, 4, synthetic.labels)[few]
    names = ["twin", "twin", *synthetic.classnames[2:]]  # a name is not enough to find a class by
    run = replace(synthetic, image_features=synthetic.image_features[few], labels=labels, classnames=names)
    data = explorer.explorer_data(replace(run, pictures=Numbered("numbers", names, labels, [])))
    prediction = F.predict(run.image_features, run.base_text_features)
    others, _ = F.taken_for(prediction, labels, run.n_classes)
    confused = 0
    for c, row in enumerate(data["classes"]):
        shown = [data["pictures"][at] for at in row["pictures"]]
        images = [int(picture["source"]) for picture in shown]
        other, recognised = int(others[c]), (labels == c) & (prediction == c)
        assert len(set(images)) == len(images)
        if other >= 0:
            assert (int(labels[images[0]]), int(prediction[images[0]])) == (c, other)
            assert (shown[0]["name"], shown[0]["text"]) == (names[c], f"predicted: {names[other]}")
        if other >= 0 and bool((labels == other).any()):
            assert (int(labels[images[1]]), shown[1]["name"]) == (other, names[other])
            confused += 1
        if bool(recognised.any()):
            assert (recognised[images[-1]], shown[-1]["text"]) == (True, "recognised")
    assert confused > 0
    sources = [picture["source"] for picture in data["pictures"]]
    assert len(set(sources)) == len(sources)  # a picture of two classes is carried once
    assert len(sources) < sum(len(row["pictures"]) for row in data["classes"])


def test_without_labels_the_nearest_image_stands_beside_the_rivals(synthetic):
    pictures = Numbered("numbers", synthetic.classnames, None, [])
    data = explorer.explorer_data(replace(synthetic, labels=None, pictures=pictures))
    for row in data["classes"]:
        assert [data["pictures"][at]["name"] for at in row["pictures"]] == [row["name"], row["rival"]]
    assert all("nearest to this text" in picture["text"] for picture in data["pictures"])


@pytest.mark.parametrize(("size", "side"), [((300, 200), 160), ((90, 70), 70)])
def test_pictures_are_large_and_not_enlarged(size, side):
    source = explorer._webp(Image.new("L", size))
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert image.size == (side, side)


def test_what_the_explorer_could_show_and_does_not_is_said(synthetic, monkeypatch):
    gains, pictures = "There are no gains: chapters 4 and 5", "Pictures are those of"
    with_images = replace(synthetic, pictures=Pictures("grey", synthetic.classnames, synthetic.labels, []))
    (said,) = explorer.explorer_data(with_images)["remarks"]
    assert said.startswith(gains)
    synthetic.record_classifier("uniform", F.uniform_mean(synthetic.text_features))
    assert explorer.explorer_data(with_images)["remarks"] == []
    monkeypatch.setattr(explorer, "PICTURE_BYTES", 20_000)
    (said,) = explorer.explorer_data(with_images)["remarks"]
    assert re.fullmatch(rf"{pictures} [1-9]\d* class(es)? of highest suspicion\.", said)
    assert explorer.explorer_data(replace(synthetic, labels=None))["remarks"] == []


def test_a_class_without_images_is_no_cut(synthetic):
    labels = synthetic.labels.clone()
    labels[labels == 3] = 4
    pictured = replace(synthetic, labels=labels, pictures=Pictures("grey", synthetic.classnames, labels, []))
    assert [said[:18] for said in explorer.explorer_data(pictured)["remarks"]] == ["There are no gains"]


def test_labels_reach_nothing_that_needs_none(synthetic):
    free = ("name", "cmm", "rank", "rival", "predicted")
    other = replace(synthetic, labels=synthetic.labels.flip(0))
    rows = [explorer.explorer_data(run)["classes"] for run in (synthetic, other)]
    assert [[row[key] for key in free] for row in rows[0]] == [[row[key] for key in free] for row in rows[1]]
    assert [row["accuracy"] for row in rows[0]] != [row["accuracy"] for row in rows[1]]


def test_a_classifier_of_other_classes_is_refused(synthetic):
    synthetic.record_classifier("uniform", F.uniform_mean(synthetic.text_features))
    few = replace(
        synthetic,
        classnames=synthetic.classnames[:5],
        base_text_features=synthetic.base_text_features[:5],
        text_features=synthetic.text_features[:, :5],
        labels=synthetic.labels.clamp_max(4),
    )
    with pytest.raises(InputError, match="other classes"):
        explorer.explorer_data(few)
