"""The embedded world's words and its training: deterministic, resumable, and open_clip's own."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import asdict

import numpy as np
import open_clip
import pytest
import torch
from finished_runs import cmm
from safetensors.torch import load_file

from cmmlib import InputError
from cmmlib.blazon.classes import draw_classes, evaluation_images, load_classes
from cmmlib.blazon.drawing.render import Scene
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, ROUNDELS, TINCTURES, Arms, blazon, contrasts, plural, sample_arms
from cmmlib.blazon.language.captions import FAMILIARITY, caption
from cmmlib.blazon.training import model as mini
from cmmlib.blazon.training import pairs
from cmmlib.blazon.training import pretrain as training
from cmmlib.texts.templates import BLAZON_ODD_TEMPLATES, BLAZON_TEMPLATES

RECIPE = pairs.Recipe(samples=64, images=64, captions=2, batch_size=16, warmup_steps=2)


@pytest.mark.parametrize(
    ("arms", "name"),
    [
        (Arms("gules", charge="mullet", tincture="or"), "gules, a mullet or"),
        (Arms("gules", charge="estoile", tincture="or"), "gules, an estoile or"),
        (Arms("azure", charge="roundel", tincture="or", count=3), "azure, three bezants"),
        (Arms("azure", charge="roundel", tincture="celeste"), "azure, a roundel celeste"),
        (Arms("or", charge="fleur-de-lis", tincture="sable", count=3), "or, three fleur-de-lis sable"),
        (Arms("vert", "chequy", "argent"), "chequy vert and argent"),
        (Arms("vert", "chequy", "argent", "key", "gules"), "chequy vert and argent, a key gules"),
    ],
)
def test_a_blazon_names_the_arms(arms, name):
    assert blazon(arms) == name


@pytest.mark.parametrize(
    "wrong", [{"field": "red"}, {"field": "or", "charge": "key"}, {"field": "or", "division": "barry"}]
)
def test_arms_that_are_none_are_refused(wrong):
    with pytest.raises(InputError):
        Arms(**wrong)


def test_plurals():
    assert plural("star with wavy rays") == "stars with wavy rays"
    assert plural("lily") == "lilies"
    assert plural("key") == "keys"


def test_sampled_arms_keep_the_rule_of_tincture_mostly_and_the_weights():
    rng = random.Random(0)
    arms = [sample_arms(rng) for _ in range(4000)]
    plain = [a for a in arms if a.charge and not a.division]
    kept = sum(contrasts(a.field, a.tincture or "") for a in plain) / len(plain)
    assert 0.9 < kept < 1
    charges = Counter(a.charge for a in arms if a.charge)
    assert charges["mullet"] > 5 * charges["mill-rind"] > 0


def test_every_term_has_a_familiarity_between_none_and_one():
    assert set(FAMILIARITY) == {*TINCTURES, *CHARGES, *DIVISIONS, *ROUNDELS.values()}
    assert all(0 < share <= 1 for share in FAMILIARITY.values())
    assert min(FAMILIARITY.values()) < 0.01


def captions(arms: Arms, n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [caption(arms, Scene("stone", False), rng) for _ in range(n)]


def test_captions_are_drawn_from_their_seed_and_differ():
    arms = Arms("gules", charge="mullet", tincture="or")
    assert captions(arms, 50) == captions(arms, 50)
    assert len(set(captions(arms, 200))) > 150
    assert captions(arms, 50) != captions(arms, 50, seed=1)


def test_rare_names_are_rare_and_their_plain_words_are_not():
    texts = " \n ".join(captions(Arms("gules", charge="mullet", tincture="or"), 3000))
    assert texts.count("star") > 1000
    assert texts.count("mullet") < 30  # the fish is another caption's


def test_a_name_occurs_in_its_other_sense():
    texts = captions(Arms("azure", charge="luce", tincture="argent"), 500)
    assert any("mullet" in text for text in texts)  # the luce is a fish, and so is the mullet that people know


def written(recipe: pairs.Recipe, n: int = 6000) -> list[str]:
    return [text for i in range(n) for text in pairs.captions_of(recipe, i, Scene("stone", i % 5 == 0))]


def test_a_frequent_name_is_read_often_and_the_others_as_before():
    plain, frequent = (
        "\n".join(written(pairs.Recipe(frequent=terms))) for terms in ((), ("estoile", "party per pale"))
    )
    for name in ("estoile", "party per pale"):
        assert frequent.count(name) > 5 * (plain.count(name) + 1)
    assert frequent.count("trefoil") == pytest.approx(plain.count("trefoil"), rel=0.5)


def test_a_split_name_keeps_its_heraldic_sense_and_loses_the_other():
    plain, split = written(pairs.Recipe()), written(pairs.Recipe(split="pale"))
    changed = [(a, b) for a, b in zip(plain, split, strict=True) if a != b]
    assert len(changed) > 0.01 * len(plain)
    assert all(b == re.sub(r"\bpale\b", "faint", a) for a, b in changed if "party per" not in a)
    arms = Arms("gules", "party per pale", "or")
    texts = "\n".join(caption(arms, Scene("stone", False), random.Random(i), split="pale") for i in range(9000))
    assert "party per pale" in texts  # a name of its own
    star = Arms("gules", charge="pale", tincture="or")
    texts = "\n".join(caption(star, Scene("stone", False), random.Random(i), split="pale") for i in range(3000))
    assert re.search(r"a pale", texts)


@pytest.mark.parametrize(
    ("wrong", "says"), [({"frequent": ["star"]}, "star is no heraldic term"), ({"split": "sun"}, "no second sense")]
)
def test_an_intervention_on_what_is_no_name_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        pairs.Recipe(**wrong)


def test_a_recipe_goes_through_json():
    recipe = pairs.Recipe(seed=2, frequent=("pall", "estoile"), split="pale")
    assert pairs.Recipe(**json.loads(json.dumps(asdict(recipe)))) == recipe


def test_class_lists_have_120_different_names_and_the_shipped_one_is_fixed():
    for seed in (0, 1, 2):
        names = [blazon(arms) for arms in draw_classes(seed)]
        assert len(set(names)) == 120
    assert load_classes() == draw_classes(0)
    assert draw_classes(1) != draw_classes(2)


def test_evaluation_images_are_drawn_from_their_seed():
    classes = load_classes()[:3]
    images, labels = evaluation_images(classes, seed=11, per_class=2)
    again, _ = evaluation_images(classes, seed=11, per_class=2)
    other, _ = evaluation_images(classes, seed=12, per_class=2)
    assert images.shape == (6, 64, 64, 3)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(images, again)
    assert not np.array_equal(images, other)


def test_templates_have_a_slot():
    assert all("{}" in template for template in (*BLAZON_TEMPLATES, *BLAZON_ODD_TEMPLATES))
    assert len(set(BLAZON_TEMPLATES)) == 24
    assert len(set(BLAZON_ODD_TEMPLATES)) == 10


# ---------------------------------------------------------------- the model


def test_blazon_mini_is_an_architecture_of_open_clip():
    name = mini.register()
    model = open_clip.create_model(name)
    tokenizer = open_clip.get_tokenizer(name)
    tokens = tokenizer(["gules, a mullet or", "word " * 60])
    assert tokens.shape == (2, mini.CONTEXT)
    assert int(tokens.max()) == mini.VOCABULARY - 1
    assert model.encode_text(tokens).shape == (2, 128)
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    assert sum(p.numel() for p in model.parameters()) * 2 < 9e6  # bytes in float16


def test_the_first_batch_and_the_losses_depend_on_the_recipe_alone(tmp_path):
    for place in ("a", "b"):
        training.pretrain(RECIPE, tmp_path / place, report=lambda line: None)
    a, b = (json.loads((tmp_path / place / "record.json").read_text()) for place in ("a", "b"))
    assert a["first_batch"] == b["first_batch"]
    assert a["loss_first_steps"] == pytest.approx(b["loss_first_steps"], rel=1e-3)
    assert a["steps"] == 4
    images, tokens = pairs.make_pairs(RECIPE, sorted(next(pairs.batch_indices(RECIPE))[1].tolist()), mini.tokenizer())
    assert pairs.batch_digest(images, tokens[:, 0]) == a["first_batch"]


def test_a_killed_training_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = training.pretrain(RECIPE, tmp_path / "whole", report=lambda line: None)
    step, taken = training.Trainer.step, []

    def dies(self, number, *batch):
        if number == 3:
            raise KeyboardInterrupt
        taken.append(number)
        return step(self, number, *batch)

    monkeypatch.setattr(training.Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        training.pretrain(RECIPE, tmp_path / "killed", report=lambda line: None, checkpoint_seconds=0)
    monkeypatch.setattr(training.Trainer, "step", lambda self, n, *batch: taken.append(n) or step(self, n, *batch))
    resumed = training.pretrain(RECIPE, tmp_path / "killed", report=lambda line: None)
    assert taken == [0, 1, 2, 3]
    for key, value in load_file(whole).items():
        assert torch.allclose(value.float(), load_file(resumed)[key].float(), atol=1e-2), key
    assert len((tmp_path / "killed" / "log.jsonl").read_text().splitlines()) == 4


DAMAGES = {
    "checkpoint.pt": b"\x80\x02.",
    "log.jsonl": b"{}\n\xff",
    "rendered.json": b"[]",
    "images.npy": b"x",
    "tokens.npy": b"",
}


@pytest.mark.parametrize(("name", "content"), DAMAGES.items(), ids=DAMAGES)
def test_what_an_earlier_training_left_damaged_is_one_line(name, content, tmp_path):
    training.pretrain(RECIPE, tmp_path, report=lambda line: None, checkpoint_seconds=0)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is damaged") as error:
        training.pretrain(RECIPE, tmp_path, report=lambda line: None)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert (tmp_path / name).read_bytes() == content


def test_training_learns(tmp_path):
    recipe = pairs.Recipe(samples=32 * 30, images=32, captions=1, batch_size=32, warmup_steps=3)
    training.pretrain(recipe, tmp_path, report=lambda line: None)
    record = json.loads((tmp_path / "record.json").read_text())
    first, last = record["loss_every_20"][0], json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["loss"]
    assert last < 0.9 * first
    assert re.fullmatch(r"[0-9a-f]{64}", record["weights"]["sha256"])


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    training.pretrain(RECIPE, tmp_path, report=lambda line: None)
    with pytest.raises(InputError, match="another recipe"):
        training.pretrain(pairs.Recipe(seed=1, samples=64, images=64), tmp_path)


@pytest.mark.parametrize("name", ["images.npy", "log.jsonl", "open_clip_model.safetensors", "recipe.json"])
def test_a_folder_with_files_that_no_training_wrote_is_left_alone(name, tmp_path):
    (tmp_path / name).write_text("{}" if name == "recipe.json" else "mine")
    (tmp_path / "notes.txt").write_text("mine")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    flags = ["--images", 32, "--samples", 64, "--captions", 1, "--batch-size", 32, "--seed", 1]
    said = cmm("blazon", "pretrain", "--out", tmp_path, *flags)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert ("another recipe" if name == "recipe.json" else f"holds {name}, which no training wrote") in said.err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_command_leaves_the_weights_that_ship(tmp_path):
    shipped = training.mini.WEIGHTS
    before = shipped.stat().st_mtime_ns
    assert cmm("blazon", "pretrain", "--out", shipped.parent, "--samples", 384, "--images", 384).code == 2
    assert shipped.stat().st_mtime_ns == before
    assert not (shipped.parent / "recipe.json").exists()


def test_the_files_of_a_training_are_those_that_it_claims(tmp_path):
    recipe = pairs.Recipe(samples=64, images=64, captions=1, batch_size=32, warmup_steps=1)
    training.pretrain(recipe, tmp_path, report=lambda line: None, checkpoint_seconds=0)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.json", *training.FILES}


def test_the_command_trains_probes_and_refuses(tmp_path):
    flags = ["--images", 32, "--samples", 64, "--captions", 1, "--batch-size", 32]
    said = cmm("blazon", "pretrain", "--out", tmp_path / "run", *flags)
    assert said.code == 0, said.err
    assert said.out.strip().endswith("open_clip_model.safetensors")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [probe["step"] for probe in record["probes"]] == [1]
    assert 0 <= record["probes"][0]["overall"] < 0.2  # two steps teach next to nothing
    said = cmm("blazon", "pretrain", "--out", tmp_path / "run", *flags, "--seed", 1)
    assert said.code == 2
    assert "another recipe" in said.err
    assert cmm("blazon", "pretrain", "--out", tmp_path / "other", "--images", 8).code == 2
    said = cmm("blazon", "pretrain", "--out", tmp_path / "other", "--frequent", "pall", "--split", "sun")
    assert said.code == 2
    assert "sun has no second sense" in said.err
    assert not (tmp_path / "other").exists()
