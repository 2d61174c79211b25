"""The embedded world as a study: its images, its shipped model, their record, and the cards that the book renders."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from cmmlib import InputError, Study, open_run
from cmmlib import functional as F
from cmmlib.blazon import card, classes
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, terms_of
from cmmlib.blazon.language import noisy_descriptions
from cmmlib.blazon.language.clean_descriptions import descriptions
from cmmlib.blazon.language.frequencies import COLUMNS, frequencies
from cmmlib.blazon.training import model as mini
from cmmlib.blazon.training import pairs
from cmmlib.blazon.training import pretrain as training
from cmmlib.data.load import load_blazon, load_dataset
from cmmlib.evaluation import model_card
from cmmlib.models.backbones import load_backbone
from cmmlib.models.embed import embed_images

PLAIN = {"chevron", "crescent", "cross", "heart", "key", "sword", "anchor", "sun", "tower", "orange"}


# ---------------------------------------------------------------- the data set


def test_the_images_of_a_seed_are_rendered_once(monkeypatch):
    first = load_blazon()
    monkeypatch.setattr(classes, "evaluation_images", lambda *_: pytest.fail("rendered again"))
    again = load_dataset("blazon")
    assert len(first) == 120 * classes.IMAGES_A_CLASS
    assert np.array_equal(first.pixels, again.pixels)
    assert first.digest == again.digest
    assert first.labels.bincount().unique().tolist() == [classes.IMAGES_A_CLASS]
    assert np.array_equal(np.asarray(first.read(7)), first.pixels[7])


def test_a_seed_changes_the_images_and_never_the_classes(monkeypatch):
    monkeypatch.setattr(classes, "IMAGES_A_CLASS", 1)
    monkeypatch.setattr(classes.evaluation_images, "__defaults__", (1,))
    monkeypatch.setattr(classes.rendering_digest, "__defaults__", (1,))
    zero, one, other_list = load_blazon(), load_blazon(seed=1), load_blazon("7")
    assert zero.classnames == one.classnames
    assert not set(zero.digests) & set(one.digests)
    assert len(set(other_list.classnames)) == 120
    assert len(set(other_list.classnames) & set(zero.classnames)) < 60
    assert other_list.name == "blazon:7"


def test_no_evaluation_image_has_a_render_seed_of_training(monkeypatch):
    asked: list[int] = []

    def render_many(arms, seeds):
        asked.extend(seeds)
        return np.zeros((len(arms), 1)), []

    monkeypatch.setattr(classes, "render_many", render_many)
    classes.evaluation_images(classes.load_classes(), seed=1000)
    recipes = [pairs.Recipe(seed=seed) for seed in range(3)]
    trained = {pairs.image_seed(recipe, i) for recipe in recipes for i in range(5000)}
    assert len(trained) == 15_000
    assert not trained & set(asked)
    assert {seed % 2 for seed in trained} == {1}
    assert {seed % 2 for seed in asked} == {0}


@pytest.mark.parametrize("name", ["blazon:x", "blazon:-1", "blazon:1.5"])
def test_a_class_list_that_is_no_number_is_refused(name):
    with pytest.raises(InputError, match="unknown data set 'blazon:"):
        load_dataset(name)


# ---------------------------------------------------------------- the shipped model


@pytest.mark.parametrize("tag", mini.weights())
def test_weights_that_ship_are_small_and_those_of_their_record(tag):
    weights = mini.weights()[tag].read_bytes()
    record = card.load_record(tag)
    assert len(weights) <= 9_000_000
    assert hashlib.sha256(weights).hexdigest() == record["weights"]["sha256"]
    assert (record["recipe"]["samples"] >= 600_000) == (tag == mini.TAG)
    assert load_backbone("blazon-mini", tag).checkpoint.path == mini.weights()[tag]


def test_a_tag_that_does_not_ship_is_refused():
    with pytest.raises(InputError, match="no tag or file 'late': tags of blazon-mini: shipped, early"):
        load_backbone("blazon-mini", "late")


@pytest.mark.usefixtures("shared_cache")
def test_open_clip_makes_the_shipped_model_by_its_name_and_tag():
    model, _, preprocess = open_clip.create_model_and_transforms(mini.register(), pretrained=mini.TAG)
    data = load_blazon()
    backbone = load_backbone("blazon-mini", None)
    pixels = torch.stack([preprocess(data.read(i)) for i in range(4)])
    with torch.inference_mode():
        there = model.eval().encode_image(pixels, normalize=True)
    torch.testing.assert_close(backbone.encode_images(pixels), there, atol=1e-5, rtol=0)
    as_trained = pairs.pixels(data.pixels[:4])
    torch.testing.assert_close(pixels, as_trained, atol=1e-6, rtol=0)


def test_a_checkpoint_of_blazon_mini_has_its_preprocessing_and_tokenizer():
    by_tag, by_path = load_backbone("blazon-mini", None), load_backbone("blazon-mini", str(mini.WEIGHTS))
    assert by_tag.digest == by_path.digest
    assert by_path.preprocessing["mean"] == mini.PREPROCESS["mean"]
    assert by_path.tokenizer(["gules"]).shape == (1, mini.CONTEXT)


def test_the_record_is_that_of_the_command():
    """The first steps, taken again on the schedule of the full length, have the recorded batch and losses."""
    record, recipe = card.load_record(), card.shipped_recipe()
    trainer, tokenizer = training.Trainer(recipe), mini.tokenizer()
    tolerance = 0.02 if record["processor"] == training._processor() else 0.10
    for step, index, which in pairs.batch_indices(recipe):
        if step == 4:
            break
        images, tokens = pairs.make_pairs(recipe, index.sort().values.tolist(), tokenizer)
        if step == 0:
            assert pairs.batch_digest(images, tokens[:, which]) == record["first_batch"]
        loss = trainer.step(step, images, tokens[:, which])
        assert loss == pytest.approx(record["loss_first_steps"][step], rel=tolerance)
    assert len(record["loss_first_steps"]) >= 0.03 * recipe.steps


# ---------------------------------------------------------------- what it can do


def test_the_world_is_of_the_right_kind():
    runs = {run["training_seed"]: run for run in card.load_quality()}
    shipped = runs[card.shipped_recipe().seed]
    assert len(runs) >= 3
    assert shipped["linear_probe"] >= 0.95
    for row in shipped["by_seed"]:
        assert 0.60 <= row["overall"] <= 0.78
        assert row["worst_10"] <= 0.05
        assert row["below_30"] <= 30
        assert row["hardly_predicted"] >= 4
        assert row["auroc"] >= 0.93
        assert row["described_overall"] >= row["overall"] + 0.12
    by_overall = card.spread(card.load_quality()).sort_values("overall")["training_seed"].tolist()
    assert by_overall[len(by_overall) // 2] == card.shipped_recipe().seed  # the rule


def test_the_card_has_a_row_for_every_tag():
    table = card.tags().set_index("tag")
    assert list(table.index) == list(mini.weights())
    seed = card.shipped_recipe().seed
    overall = card.spread(card.load_quality()).set_index("training_seed").loc[seed, "overall"]
    assert table.loc[mini.TAG, "overall"] == overall
    assert table.loc[mini.TAG, "samples"] == card.shipped_recipe().samples


@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize("tag", mini.weights())
def test_the_measured_numbers_are_those_of_the_weights(tag):
    seed = card.load_record(tag)["recipe"]["seed"]
    (recorded,) = (run for run in card.load_quality(tag) if run["training_seed"] == seed)
    again = model_card.measure(mini.weights()[tag], seeds=(1,))
    assert again["logit_scale"] == pytest.approx(recorded["logit_scale"], rel=1e-5)
    for name in ("overall", "worst_10", "auroc", "described_overall"):
        assert again["by_seed"][0][name] == pytest.approx(recorded["by_seed"][0][name], abs=0.003), name
    assert again["linear_probe"] == pytest.approx(recorded["linear_probe"], abs=0.005)


def test_a_linear_probe_separates_what_is_separable_and_nothing_else():
    random_ = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    centres = torch.eye(4).repeat(1, 2)
    near = torch.nn.functional.normalize(centres[labels] + 0.05 * torch.randn(200, 8, generator=random_), dim=-1)
    noise = torch.nn.functional.normalize(torch.randn(200, 8, generator=random_), dim=-1)
    assert F.linear_probe_accuracy(near[:100], labels[:100], near[100:], labels[100:]) == 1.0
    assert F.linear_probe_accuracy(noise[:100], labels[:100], noise[100:], labels[100:]) < 0.5


# ---------------------------------------------------------------- words


def test_clean_descriptions_are_plain_and_fit_the_text_tower():
    heraldic = {*TINCTURES, *CHARGES, *DIVISIONS} - PLAIN
    for arms in classes.load_classes():
        texts = descriptions(arms)
        assert len(set(texts)) == len(texts) >= 2
        for text in texts:
            assert not heraldic & set(text.replace(",", "").split()), text
            assert int((mini.tokenizer()([text]) > 0).sum()) < mini.CONTEXT


def test_wordy_descriptions_are_drawn_from_their_seed_and_now_and_then_wrong():
    arms = Arms("gules", charge="mullet", tincture="or")
    assert (
        noisy_descriptions.descriptions(arms, 1)
        == noisy_descriptions.descriptions(arms, 1)
        != noisy_descriptions.descriptions(arms, 2)
    )
    heraldic = {*TINCTURES, *CHARGES, *DIVISIONS} - PLAIN
    drawn = [text for seed in range(300) for text in noisy_descriptions.descriptions(arms, seed)]
    assert not [text for text in drawn if heraldic & set(text.lower().replace(",", " ").replace(".", " ").split())]
    about = [text for text in drawn if any(word in text for word in ("shows", "standing", "placed", "middle"))]
    wrong = sum("star" not in text for text in about) / len(about)
    assert 0.5 * noisy_descriptions.WRONG < wrong < 1.5 * noisy_descriptions.WRONG
    assert any(text in noisy_descriptions.EMPTY for text in drawn)
    for other in classes.load_classes():
        texts = noisy_descriptions.descriptions(other, 0)
        assert len(set(texts)) == len(texts) >= 3


def test_names_are_counted_by_what_the_picture_shows():
    star, fish = Arms("gules", charge="mullet", tincture="or"), Arms("azure", charge="luce", tincture="argent")
    captions = [
        (star, "arms: gules, a mullet or"),
        (star, "three five-pointed stars for sale"),
        (fish, "a photo of a blue shield with a mullet"),
        (fish, "untitled"),
    ]
    tokens = mini.tokenizer()([text for _, text in captions]).numpy().astype(np.int16)
    table = frequencies(zip([arms for arms, _ in captions], tokens, strict=True), mini.tokenizer())
    assert list(table.columns) == COLUMNS
    counts = table.set_index(["term", "wording"])[["pictures", "shown", "not_shown"]]
    assert counts.loc[("mullet", "mullet")].tolist() == [2, 1, 1]
    assert counts.loc[("mullet", "star")].tolist() == [2, 1, 0]  # "stars"
    assert counts.loc[("mullet", "five-pointed star")].tolist() == [2, 1, 0]
    assert counts.loc[("azure", "blue")].tolist() == [2, 1, 0]
    assert counts.loc[("gules", "gules")].tolist() == [2, 1, 0]
    assert counts.loc[("luce", "luce")].tolist() == [2, 0, 0]


def test_the_shipped_frequencies_are_those_of_the_recipe():
    recipe, table = card.shipped_recipe(), card.load_frequencies()
    assert list(table.columns) == COLUMNS
    names = table[table["is_name"]]
    assert set(names["term"]) >= {*TINCTURES, *CHARGES, *DIVISIONS}
    sample = random.Random(0).sample(range(recipe.images), 4000)
    shows = sum("gules" in terms_of(pairs.arms_of(recipe, i)) for i in sample) / len(sample)
    pictures = int(names.set_index("term").loc["gules", "pictures"])
    assert pictures / (recipe.steps * recipe.batch_size) == pytest.approx(shows, abs=0.03)
    assert (table["shown"] <= table["pictures"]).all()


def test_training_leaves_its_frequencies(tmp_path):
    recipe = pairs.Recipe(samples=64, images=64, captions=2, batch_size=16, warmup_steps=2)
    training.pretrain(recipe, tmp_path / "run", report=lambda line: None)
    table = pd.read_csv(tmp_path / "run" / "frequencies.csv", keep_default_na=False)
    tinctures = table[table["is_name"] & (table["kind"] == "tincture")]
    assert 64 <= tinctures["pictures"].sum() <= 3 * 64  # one to three in each of the 64 pairs


def test_the_weakest_name_is_rare_or_read_elsewhere(monkeypatch):
    rows = [("gules", "tincture", 900, 0), ("or", "tincture", 500, 0), ("mullet", "charge", 40, 4000)]
    rows += [("pall", "charge", 3, 0), ("roundel", "charge", 1, 0), ("bezant", "roundel", 20, 0)]
    table = pd.DataFrame(
        [(term, kind, term, True, 1000, shown, other) for term, kind, shown, other in rows], columns=COLUMNS
    )
    monkeypatch.setattr(card, "load_frequencies", lambda: table)
    arms = [Arms("gules", charge=c, tincture="or") for c in ("mullet", "pall", "roundel")] + [Arms("or")]
    assert card.weakest_names(arms)["name"].tolist() == ["mullet", "pall", "bezant", "or"]


# ---------------------------------------------------------------- the default study


@pytest.mark.usefixtures("shared_cache")
def test_the_default_study_opened_twice_is_one_run(tmp_path):
    study = Study.of({"out": str(tmp_path)})
    first, second = open_run(study), open_run(study)
    assert first.id == second.id
    assert torch.equal(first.image_features, second.image_features)
    prediction = (first.image_features @ first.base_text_features.T).argmax(1)
    assert F.class_accuracy(prediction, first.labels, 120).overall > 0.5
    assert torch.equal(embed_images(load_backbone("blazon-mini", None), first.pictures), first.image_features)
