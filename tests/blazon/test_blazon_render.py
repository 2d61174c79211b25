"""Rendered shields: the same bytes everywhere, every term drawn, and what is drawn can be seen."""

import hashlib
import os
import platform
import random
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from cmmlib.blazon.drawing.pen import path_points
from cmmlib.blazon.drawing.photograph import BACKGROUNDS, SIDE, camera, homography
from cmmlib.blazon.drawing.render import FEW, Scene, draw, render, render_many
from cmmlib.blazon.drawing.shapes import OUTLINES, charge_mask, division_mask, shield_mask
from cmmlib.blazon.heraldry import CHARGES, DIVISIONS, TINCTURES, Arms, sample_arms
from cmmlib.errors import InputError

SMALL = [term for term, charge in CHARGES.items() if charge.kind == "small"]
PHOTOGRAPHS = "3898b5a7c81aaccf44671f4911492e3cbb5c32b102d7403c517683d8dad0c021"
DRAWINGS = "0a2e9359557f62d0da5c457fc1a18c92f584973fb76f5bfb6eaffe46a4aea34b"


def some_arms(n: int, seed: int = 0) -> list[Arms]:
    rng = random.Random(seed)
    return [sample_arms(rng) for _ in range(n)]


def every_term() -> list[Arms]:
    charges = [Arms("gules", charge=term, tincture="or") for term in CHARGES]
    threes = [Arms("azure", charge=term, tincture="argent", count=3) for term in SMALL]
    return charges + threes + [Arms("vert", term, "argent") for term in DIVISIONS]


def digests() -> list[str]:
    """Of photographs and of drawings."""
    arms = every_term() + some_arms(200)
    photographs = np.stack([render(a, seed)[0] for seed, a in enumerate(arms)])
    drawings = np.stack([draw(a, 96, OUTLINES[i % 3]) for i, a in enumerate(every_term())])
    return [hashlib.sha256(x.tobytes()).hexdigest() for x in (photographs, drawings)]


def array(mask) -> np.ndarray:
    return np.asarray(mask, np.float64) / 255


on_x86_64 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="promised for x86-64 only")


@on_x86_64
def test_the_bytes_are_those_recorded():
    assert digests() == [PHOTOGRAPHS, DRAWINGS]


@on_x86_64
def test_the_bytes_are_the_same_on_an_older_processor():
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    tunables = "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX512VL,-AVX512BW"  # libm's sine has variants, too
    env = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(extensions), "GLIBC_TUNABLES": tunables}
    code = "import test_blazon_render as t; print(*t.digests())"
    command = [sys.executable, "-W", "error", "-c", code]
    here = os.path.dirname(__file__)
    done = subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [PHOTOGRAPHS, DRAWINGS]


def test_a_photograph_is_a_function_of_arms_and_seed_alone():
    arms = some_arms(5)
    first = [render(a, 7)[0] for a in arms]
    random.seed(99)
    np.random.default_rng(99).random(10)
    assert all((image == render(a, 7)[0]).all() for image, a in zip(first, arms, strict=True))
    assert (render(arms[0], 7)[0] != render(arms[0], 8)[0]).any()


@pytest.mark.parametrize("n", [0, 1, 501])
@pytest.mark.parametrize("processes", [None, 1, 2])
def test_many_are_the_same_as_one_by_one_for_any_number_of_processes(n, processes):
    arms, seeds = some_arms(n), range(10, 10 + n)
    images, scenes = render_many(arms, seeds, processes)
    assert images.shape == (n, SIDE, SIDE, 3)
    assert images.dtype == np.uint8
    one_by_one = [render(a, seed) for a, seed in zip(arms, seeds, strict=True)]
    assert all((image == single).all() for image, (single, _) in zip(images, one_by_one, strict=True))
    assert scenes == [scene for _, scene in one_by_one]


def test_many_starts_workers_by_itself():
    arms = some_arms(3) * (FEW // 3 + 1)
    images, _ = render_many(arms, range(len(arms)))
    assert (images[-1] == render(arms[-1], len(arms) - 1)[0]).all()


def test_many_works_from_a_script_without_a_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from cmmlib.blazon.heraldry import Arms\n"
        "from cmmlib.blazon.drawing.render import render_many\n"
        "images, _ = render_many([Arms('or')] * 300, range(300), processes=2)\n"
        "print(images.shape)\n"
    )
    for stdin in (None, script.read_text()):
        command = [sys.executable, *([] if stdin else [str(script)])]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert (done.stdout, done.stderr) == ("(300, 64, 64, 3)\n", "")


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="one seed for each"):
        render_many(some_arms(2), [1])
    with pytest.raises(InputError, match="at least 1"):
        render_many(some_arms(2), [1, 2], processes=0)


@pytest.mark.parametrize("size", [24, 96])
def test_masks_have_their_size_and_are_neither_empty_nor_full(size):
    masks = [charge_mask(term, size) for term in CHARGES] + [division_mask(term, size) for term in DIVISIONS]
    masks += [shield_mask(outline, size, inset) for outline in OUTLINES for inset in (0, 0.03, 0.12)]
    assert all(mask.size == (size, size) and mask.mode == "L" for mask in masks)
    assert all(0.08 < array(mask).mean() < 0.92 for mask in masks)


@pytest.mark.parametrize("terms", [list(CHARGES), list(DIVISIONS)], ids=["charges", "divisions"])
def test_no_two_shapes_are_alike(terms):
    mask = charge_mask if terms[0] in CHARGES else division_mask
    shield = array(shield_mask("heater", 64))
    shapes = {t: array(mask(t, 64)) * (1 if t in SMALL else shield) for t in terms}
    for a, b in combinations(terms, 2):
        union = np.maximum(shapes[a], shapes[b]).sum()
        assert np.minimum(shapes[a], shapes[b]).sum() / union < 0.82, (a, b)


def test_an_inset_shield_lies_within_the_shield_and_a_bordure_outside_of_it():
    for outline in OUTLINES:
        whole, inset = array(shield_mask(outline, 128)), array(shield_mask(outline, 128, 0.12))
        assert (inset <= whole).all()
        assert 0.3 < inset.sum() / whole.sum() < 0.7
        assert np.abs(array(charge_mask("bordure", 128, outline)) - (1 - inset)).mean() < 0.01


@pytest.mark.parametrize("term", ["mullet", "estoile", "crescent", "anchor", "heart", "sun", "mill-rind", "pheon"])
def test_these_charges_are_the_same_on_both_sides(term):
    mask = array(charge_mask(term, 64))
    assert np.abs(mask - mask[:, ::-1]).mean() < (0.06 if term == "estoile" else 0.01)


def test_every_term_shows_in_a_drawing():
    plain = draw(Arms("gules"))
    drawings = [draw(a) for a in every_term() if a.count == 1]
    for arms, image in zip(every_term(), drawings, strict=False):
        other = plain if arms.field == "gules" else draw(Arms("vert"))
        assert (image != other).any(2).mean() > 0.03, arms
    assert len({image.tobytes() for image in drawings}) == len(drawings)


@pytest.mark.parametrize("size", [48, 256])
def test_a_drawing_has_the_tinctures_colours_on_white(size):
    image = draw(Arms("azure", charge="roundel", tincture="or"), size)
    assert image.shape == (size, size, 3)
    assert tuple(image[int(0.45 * size), size // 2]) == TINCTURES["or"].rgb
    assert tuple(image[int(0.10 * size), size // 2]) == TINCTURES["azure"].rgb
    assert tuple(image[-1, 0]) == (255, 255, 255)


@pytest.mark.parametrize("term", SMALL)
def test_three_charges_are_not_one(term):
    one = Arms("gules", charge=term, tincture="or")
    plain, single, triple = (draw(a, 128) for a in (Arms("gules"), one, replace(one, count=3)))
    assert (triple != plain).any((0, 2)).sum() > (single != plain).any((0, 2)).sum()  # columns that they touch
    three = render(replace(one, count=3), 3)[0].astype(int)
    assert np.abs(render(one, 3)[0] - three).max() > 60


def changed(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pixels that differ much between photographs which differ in one tincture only: where that tincture lies."""
    difference = np.abs(image.astype(int) - other).sum(2)
    return difference > 0.6 * np.quantile(difference, 0.99)


def test_a_shield_fills_a_sane_share_of_the_photograph():
    shares = [changed(render(Arms("argent"), i)[0], render(Arms("sable"), i)[0]).mean() for i in range(200)]
    assert min(shares) > 0.25
    assert max(shares) < 0.85
    assert 0.35 < np.mean(shares) < 0.65


def test_charge_and_field_differ_visibly():
    """By the mean colours of their pixels, under the rule of tincture, in at least 99 of 100 photographs."""
    distances = []
    for i in range(300):
        term = random.Random(i).choice(SMALL)
        dark, light = (("azure", "argent"), ("gules", "or"), ("sable", "argent"))[i % 3]
        arms = Arms(dark, charge=term, tincture=light, count=(1, 3)[i % 2])
        image = render(arms, i)[0]
        charge = changed(image, render(replace(arms, tincture=dark), i)[0])
        field = changed(image, render(replace(arms, field=light), i)[0]) & ~charge
        assert charge.mean() > 0.008, (term, i)
        distances.append(np.abs(image[charge].mean(0) - image[field].mean(0)).max())
    assert np.quantile(distances, 0.01) > 40


def test_scenes_name_the_background_and_a_tilt():
    _, scenes = render_many(some_arms(400), range(400), processes=1)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert 0.2 < np.mean([scene.tilted for scene in scenes]) < 0.6
    with pytest.raises(AttributeError):
        scenes[0].background = "sea"  # type: ignore[misc]
    assert Scene("sky", True) == Scene("sky", True)


def test_a_sky_is_blue_and_grass_is_green():
    images, scenes = render_many([Arms("sable")] * 400, range(400), processes=1)
    for background, channel in (("sky", 2), ("grass", 1), ("wood", 0)):
        corners = [x[:4, :4].mean((0, 1)) for x, s in zip(images, scenes, strict=True) if s.background == background]
        assert np.median(corners, 0).argmax() == channel


def test_the_perspective_takes_the_corners_where_they_should_be():
    for seed in range(20):
        corners, _ = camera(random.Random(seed))
        a, b, c, d, e, f, g, h = homography(corners)
        for (x, y), (u, v) in zip(((0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)), corners, strict=True):
            scale = g * x + h * y + 1
            assert scale > 0
            assert (a * x + b * y + c) / scale == pytest.approx(u / 64)
            assert (d * x + e * y + f) / scale == pytest.approx(v / 64)


def test_a_curve_ends_at_its_last_point_and_bends_towards_the_others():
    points = path_points("M 0 0 C 0 1 1 1 1 0", steps=2)
    assert points == [(0, 0), (0.5, 0.75), (1, 0)]
