"""`cmm classify`: a run's or an estimator's file applied to new images, and everything that does not fit refused."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_clip, write_images
from data_sets import web_data_set
from finished_runs import cmm, opened, write_embeddings
from synthetic_embeddings import CLASSES, IMAGES, WIDTH, synthetic_arrays

from cmmlib import functional as F
from cmmlib import load_classifier
from cmmlib.data.images import decode
from cmmlib.estimators.classifier import Classifier, Provenance, plain
from cmmlib.estimators.classifier_file import save_classifier
from cmmlib.study.run import Run

COLUMNS = ["image", "prediction", "class_index", "probability", "runner_up", "runner_up_probability", "suspected"]


def read_csv(text: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    assert rows.fieldnames == COLUMNS
    return list(rows)


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    return [row[name] for row in rows]


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """The empty folder that a command runs in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def matched(synthetic) -> Path:
    """A run's file of prior matching on the synthetic embeddings."""
    run = synthetic
    run.record_classifier(
        "prior_matching", F.fit_prior_matching(run.image_features, run.base_text_features, run.logit_scale)
    )
    return run.folder / "classifiers" / "prior_matching.safetensors"


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, tiny_clip) -> tuple[Run, Path]:
    """A run of ten images with the tiny CLIP, and its file of the base prompt."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("tiny")
        patch.setenv("CMM_CACHE", str(root / "cache"))
        images = write_images(root / "images")
        run = opened(f"folder:{images}", backbone=f"local-dir:{tiny_clip}", out=str(root / "runs"))
        run.record_classifier("base", run.base_text_features)
    return run, run.folder / "classifiers" / "base.safetensors"


# ---------------------------------------------------------------- embeddings


def test_embeddings_are_classified_as_the_run_did(synthetic, matched, work):
    data = write_embeddings(work / "new.npz")
    said = cmm("classify", matched, "--images", data)
    assert (said.code, said.out) == (0, "predictions.csv\n")
    rows = read_csv((work / "predictions.csv").read_text("utf-8"))
    correction = F.fit_prior_matching(synthetic.image_features, synthetic.base_text_features, synthetic.logit_scale)
    q, order = correction.logits(synthetic.image_features).softmax(1).sort(descending=True, stable=True)
    assert column(rows, "class_index") == [str(c) for c in correction.predict(synthetic.image_features).tolist()]
    assert column(rows, "prediction") == [synthetic.classnames[int(c)] for c in column(rows, "class_index")]
    assert column(rows, "runner_up") == [synthetic.classnames[c] for c in order[:, 1].tolist()]
    assert column(rows, "image") == [str(i) for i in range(IMAGES)]
    for name, values in (("probability", q[:, 0]), ("runner_up_probability", q[:, 1])):
        np.testing.assert_allclose([float(value) for value in column(rows, name)], values, rtol=1e-5)
    suspects = {str(c) for c in load_classifier(matched).suspects}
    assert len(suspects) == CLASSES // 4
    assert column(rows, "suspected") == ["yes" if c in suspects else "no" for c in column(rows, "class_index")]


def test_the_warning_counts_images_of_suspected_classes(matched, work):
    said = cmm("classify", matched, "--images", write_embeddings(work / "new.npz"), "--out", "-")
    rows = read_csv(said.out)
    names = [row["prediction"] for row in rows if row["suspected"] == "yes"]
    most = max(set(names), key=names.count)
    assert said.err.startswith(f"{len(names)} of 600 images went to classes that CMM suspects: {most} (")
    assert said.err.count("\n") == 1
    assert not list(work.glob("*.csv"))


def test_labels_and_texts_of_the_file_change_nothing(matched, work):
    def answers(**changes: object) -> str:
        return cmm("classify", matched, "--images", write_embeddings(work / "new.npz", **changes), "--out", "-").out

    plain_answers = answers()
    assert plain_answers == answers(labels=None)
    assert plain_answers == answers(labels=np.zeros(IMAGES, int), classnames=None, text_features=None, prompts=None)


def test_images_have_the_names_of_the_file(matched, work):
    names = [f"photo, {i}.jpg" for i in range(IMAGES)]
    said = cmm("classify", matched, "--images", write_embeddings(work / "x.npz", image_ids=names), "--out", "-")
    assert column(read_csv(said.out), "image") == names


def test_names_that_a_spreadsheet_would_run_are_text(matched, work):
    names = [f"=cmd|{i}.jpg" for i in range(IMAGES)]
    said = cmm("classify", matched, "--images", write_embeddings(work / "x.npz", image_ids=names), "--out", "-")
    assert column(read_csv(said.out), "image") == [f"'{name}" for name in names]


def test_embeddings_of_another_backbone_are_remarked_on(matched, work):
    data = write_embeddings(work / "new.npz", backbone=np.array("ViT-B-32"))
    said = cmm("classify", matched, "--images", data)
    assert said.code == 0
    assert "new.npz is of backbone ViT-B-32, the classifier was fitted with synthetic" in said.err
    assert said.err.count("\n") == 2
    data = write_embeddings(work / "unnamed.npz", backbone=None)
    said = cmm("classify", matched, "--images", data, "--overwrite")
    assert "no backbone is named by unnamed.npz: both are taken to be of one model" in said.err


def test_embeddings_of_other_weights_are_remarked_on(matched, work):
    data = write_embeddings(work / "new.npz", pretrained=np.array("laion2b_s34b_b79k"))
    said = cmm("classify", matched, "--images", data)
    assert said.code == 0
    assert (
        said.err.splitlines()[0] == "new.npz is of the weights laion2b_s34b_b79k, the classifier was fitted with none"
    )
    assert said.err.count("\n") == 2
    data = write_embeddings(work / "unnamed.npz", pretrained=None)
    assert "weights" not in cmm("classify", matched, "--images", data, "--overwrite").err


def test_what_looks_wrong_in_a_file_of_embeddings_is_told_where_it_is_classified(matched, work):
    names = [f"photo {i // 2}" for i in range(IMAGES)]
    more = {"image_ids": names, "image_feature": np.zeros(3), "prompts": np.zeros(7)}  # prompts are not read here
    said = cmm("classify", matched, "--images", write_embeddings(work / "new.npz", **more), "--out", "-")
    assert said.code == 0
    first, second, *_ = said.err.splitlines()
    assert first == "image_ids that are there more than once: 'photo 0', 'photo 1', 'photo 2' and 297 more"
    assert second.startswith("arrays that are not used: image_feature; those that are: ")


def test_a_classifier_without_names_or_suspects_answers_with_indices(work):
    texts = torch.nn.functional.normalize(torch.from_numpy(synthetic_arrays()["text_features"][0]), dim=1)
    save_classifier(Classifier("mine", plain(texts, 50.0), []), work / "mine.safetensors")
    said = cmm("classify", work / "mine.safetensors", "--images", write_embeddings(work / "new.npz"), "--out", "-")
    rows = read_csv(said.out)
    assert column(rows, "prediction") == column(rows, "class_index")
    assert set(column(rows, "suspected")) == {"no"}
    assert said.err.splitlines() == [
        "no backbone is named by the classifier: both are taken to be of one model",
        "the classifier does not say which classes CMM suspects",
    ]


# ---------------------------------------------------------------- images


def test_a_folder_in_any_layout_is_embedded_and_classified(tiny_run, tiny_clip, work):
    run, file = tiny_run
    (work / "new" / "deep").mkdir(parents=True)
    for i, path in enumerate(run.pictures.paths):
        shutil.copy(path, work / "new" / ("deep" if i % 2 else ".") / f"{i:02d}{path.suffix}")
    said = cmm("classify", file, "--images", "folder:new", "--backbone", f"local-dir:{tiny_clip}")
    assert said.code == 0, said.err
    rows = {int(Path(row["image"]).stem): row for row in read_csv((work / "predictions.csv").read_text("utf-8"))}
    expected = F.predict(run.image_features, run.base_text_features).tolist()
    assert [int(rows[i]["class_index"]) for i in range(len(expected))] == expected
    assert {row["image"].count("/") for row in rows.values()} == {0, 1}


def test_a_web_data_set_without_classes_is_classified(tiny_run, tiny_clip, work):
    _, file = tiny_run
    root = web_data_set(work / "web")
    (root / "classnames.txt").unlink()
    said = cmm("classify", file, "--images", f"wds:{root}", "--backbone", f"local-dir:{tiny_clip}", "--out", "-")
    assert column(read_csv(said.out), "image") == [f"test/{i // 3}.tar/s{i:07d}.png" for i in range(5)]


def test_a_broken_image_is_left_out_where_it_may_be(tiny_run, tiny_clip, work):
    _, file = tiny_run
    (write_images(work / "new") / "noise" / "broken.png").write_text("no image")
    command = ["classify", file, "--images", "folder:new", "--backbone", f"local-dir:{tiny_clip}", "--out", "-"]
    refused = cmm(*command)
    assert (refused.code, refused.out) == (2, "")
    assert "broken.png: not an image" in refused.err
    said = cmm(*command, "--max-broken", 1)
    assert len(read_csv(said.out)) == 10
    assert "images that cannot be read are left out, 1 in all: noise/broken.png" in said.err


def test_what_is_told_of_a_models_weights_is_told_where_it_classifies(tiny_run, tiny_clip, work):
    _, file = tiny_run
    write_images(work / "new")
    folder = shutil.copytree(tiny_clip, work / tiny_clip.name)
    (folder / "other.bin").write_bytes(b"other")
    said = cmm("classify", file, "--images", "folder:new", "--backbone", f"local-dir:{folder}", "--out", "-")
    assert said.code == 0, said.err
    assert "others beside it are not: other.bin" in said.err


def test_a_file_name_that_is_no_text_is_written_as_well_as_it_can_be(tiny_run, tiny_clip, work):
    run, file = tiny_run
    (work / "new").mkdir()
    decode(run.pictures.paths[0], "an image").save(Path("new") / b"caf\xe9.png".decode("utf-8", "surrogateescape"))
    said = cmm("classify", file, "--images", "folder:new", "--backbone", f"local-dir:{tiny_clip}")
    assert said.code == 0, said.err
    assert column(read_csv((work / "predictions.csv").read_text("utf-8")), "image") == [
        "caf\N{REPLACEMENT CHARACTER}.png"
    ]


def test_an_estimators_file_says_that_its_weights_are_unknown(tiny_run, tiny_clip, work):
    run, _ = tiny_run
    made = Provenance(backbone="ViT-B-32", pretrained="openai")
    save_classifier(Classifier("mine", plain(run.base_text_features, 9.0), [], None, made), work / "mine.safetensors")
    command = ["classify", "mine.safetensors", "--images", f"folder:{run.pictures.root}", "--out", "-"]
    said = cmm(*command, "--backbone", f"local-dir:{tiny_clip}")
    assert said.code == 0, said.err
    assert "does not say which weights it was fitted with" in said.err


# ---------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def other_clips(tmp_path_factory) -> Path:
    """Tiny CLIPs with other weights and with another width."""
    root = tmp_path_factory.mktemp("others")
    write_clip(root / "other-weights", seed=1)
    write_clip(root / "wide", embed_dim=24)
    return root


def made_with(folder: Path, **made: str | None) -> Path:
    path = folder / "made.safetensors"
    save_classifier(Classifier("mine", plain(torch.eye(3, 16), 9.0), [], None, Provenance(**made)), path)
    return path


MODELS = {
    "another width": ({}, ["--backbone", "local-dir:{others}/wide"], "local-dir:wide has width 24, the classifier 16"),
    "other weights": (
        {},
        ["--backbone", "local-dir:{others}/other-weights"],
        "weights: local-dir:other-weights is not what the classifier was fitted with, local-dir:tiny-clip-untrained",
    ),
    "no folder": ({}, [], "fitted with local-dir:tiny-clip-untrained: give its folder, --backbone local-dir:PATH"),
    "no such folder": ({}, ["--backbone", "local-dir:nowhere"], "nowhere has no open_clip_config.json"),
    "unknown backbone": ({"backbone": "ViT-B-99"}, [], "open_clip has no model 'ViT-B-99'"),
    "no backbone": ({"backbone": None}, [], "does not say which model it was fitted with: give --backbone"),
    "missing weights": ({"backbone": "ViT-B-32", "pretrained": "openai"}, [], "not on this machine"),
    "missing hub model": ({"backbone": "hf-hub:nobody/nothing"}, [], "hf-hub:nobody/nothing is not on this machine"),
    "no tag": ({"backbone": "ViT-B-32"}, [], "ViT-B-32 without weights is a random model"),
    "a checkpoint": (
        {"backbone": "ViT-B-32", "pretrained": "mine.pt"},
        [],
        "fitted with mine.pt: give its place, --pretrained PATH",
    ),
    "Lightning's checkpoint": (
        {"backbone": "ViT-B-32", "pretrained": "mine.ckpt"},
        [],
        "fitted with mine.ckpt: give its place, --pretrained PATH",
    ),
    "a missing checkpoint": (
        {"backbone": "ViT-B-32", "pretrained": "mine.pt"},
        ["--pretrained", "./mine.pt"],
        "mine.pt': ",
    ),
    "weights of no file": ({"backbone": "ViT-B-32"}, ["--pretrained", "x.pt"], "x.pt': "),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_model_that_does_not_fit_is_refused_in_one_line(what, tiny_run, other_clips, work):
    made, flags, said = MODELS[what]
    run, file = tiny_run
    file = made_with(work, **made) if made else file
    before = sorted(work.iterdir())
    flags = [flag.format(others=other_clips) for flag in flags]
    refused = cmm("classify", file, "--images", f"folder:{run.pictures.root}", *flags)
    assert said in refused.err
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert sorted(work.iterdir()) == before


INPUTS = {
    "no classifier": (["nothing.safetensors", "--images", "{data}"], "cannot read classifier nothing.safetensors"),
    "a run folder": ([".", "--images", "{data}"], "cannot read classifier .: is a directory"),
    "another file": (["new.npz", "--images", "{data}"], "new.npz is no classifier of cmmlib"),
    "no images": (["{file}"], "Missing option '--images'"),
    "unknown images": (["{file}", "--images", "imagenot"], "unknown data set 'imagenot'"),
    "no folder": (["{file}", "--images", "folder:nowhere"], "nowhere: give folder:PATH, a folder of images"),
    "an empty folder": (["{file}", "--images", "folder:empty"], "folder empty holds no image"),
    "no split": (["{file}", "--images", "folder:.", "--split", "val"], "has no folder 'val'"),
    "a split of embeddings": (
        ["{file}", "--images", "{data}", "--split", "val"],
        "split: --split has no say over embeddings:FILE",
    ),
    "no embeddings": (["{file}", "--images", "embeddings:nothing.npz"], "nothing.npz: give embeddings:FILE"),
    "texts alone": (["{file}", "--images", "embeddings:texts.npz"], "texts.npz lacks image_features: it has"),
    "flat": (["{file}", "--images", "embeddings:flat.npz"], "flat.npz: image_features has shape [64], expected [N, D]"),
    "names": (["{file}", "--images", "embeddings:names.npz"], "names.npz: 2 image_ids for 600 images"),
    "NaN": (["{file}", "--images", "embeddings:nan.npz"], "nan.npz: image_features row 7 has NaN or Inf"),
    "another width": (
        ["{file}", "--images", "embeddings:narrow.npz"],
        "the embeddings of narrow.npz have width 9, the classifier 64: it was fitted with synthetic none",
    ),
    "an existing file": (
        ["{file}", "--images", "{data}", "--out", "new.npz"],
        "new.npz is there already, and no table with these columns",
    ),
    "a folder": (
        ["{file}", "--images", "{data}", "--out", "empty", "--overwrite"],
        "empty is there already, and no table",
    ),
    "somebody's table": (
        ["{file}", "--images", "{data}", "--out", "own.csv", "--overwrite"],
        "own.csv is there already",
    ),
    "a model for embeddings": (["{file}", "--images", "{data}", "--backbone", "RN50"], "--backbone has no say over"),
    "no batch": (["{file}", "--images", "folder:.", "--batch-size", "0"], "batch_size: input should be greater"),
    "labels": (["{file}", "--images", "{data}", "--labels", "y"], "No such option: --labels"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(what, matched, work):
    arguments, said = INPUTS[what]
    nan = synthetic_arrays()["image_features"]
    nan[7, 3] = np.nan
    data = write_embeddings(work / "new.npz")
    write_embeddings(work / "texts.npz", image_features=None)
    write_embeddings(work / "flat.npz", image_features=np.ones(WIDTH))
    write_embeddings(work / "names.npz", image_ids=["a", "b"])
    write_embeddings(work / "nan.npz", image_features=nan)
    write_embeddings(work / "narrow.npz", image_features=np.ones((4, 9)))
    (work / "empty").mkdir()
    (work / "own.csv").write_text("image,label\n1,cat\n")
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    refused = cmm("classify", *(argument.format(file=matched, data=data) for argument in arguments))
    assert said in refused.err
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


def test_a_table_is_replaced_only_when_told_to(matched, work):
    data = write_embeddings(work / "new.npz")
    command = ["classify", matched, "--images", data]
    assert cmm(*command).code == 0
    other = (work / "predictions.csv").read_text("utf-8").replace("yes", "no")
    (work / "predictions.csv").write_text(other)
    refused = cmm(*command)
    assert (refused.code, (work / "predictions.csv").read_text()) == (2, other)
    assert "replace it with --overwrite" in refused.err
    assert cmm(*command, "--overwrite").code == 0
    assert (work / "predictions.csv").read_text("utf-8") != other
    assert len(read_csv((work / "predictions.csv").read_text("utf-8"))) == IMAGES


@pytest.mark.parametrize("to", ["a file", "nothing"])
def test_a_link_stays_and_what_it_points_to_is_written(to, matched, work):
    data = write_embeddings(work / "new.npz")
    target, link = work / "results" / "table.csv", work / "link.csv"
    target.parent.mkdir()
    link.symlink_to("results/table.csv")
    if to == "a file":
        target.write_text("")
    assert cmm("classify", matched, "--images", data, "--out", link, "--overwrite").code == 0
    assert link.is_symlink()
    assert len(read_csv(target.read_text("utf-8"))) == IMAGES
    target.write_text("mine")
    assert "is there already" in cmm("classify", matched, "--images", data, "--out", link, "--overwrite").err
    assert (link.is_symlink(), target.read_text()) == (True, "mine")


@pytest.mark.parametrize("out", ["/dev/null", "loop", "notes.txt/x/table.csv"])
def test_a_place_that_can_hold_no_table_is_refused_before_the_work(out, matched, work, monkeypatch):
    (work / "notes.txt").write_text("mine")
    (work / "loop").symlink_to("loop")
    monkeypatch.setattr("cmmlib.study.classify.new_images", lambda *_: pytest.fail("begun"))
    refused = cmm("classify", matched, "--images", "folder:any", "--out", out, "--overwrite")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert (work / "loop").is_symlink()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(matched, work, monkeypatch):
    def read_only(dir: Path) -> None:
        raise OSError(30, "Read-only file system", f"{dir}/tmp1234")

    monkeypatch.setattr("cmmlib.storage.text_files.tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("cmmlib.study.classify.new_images", lambda *_: pytest.fail("begun"))
    refused = cmm("classify", matched, "--images", "folder:any", "--out", "new/deep/table.csv")
    line = f"cmm: read-only file system ({work}): allow access there or choose another place (--out, CMM_CACHE)\n"
    assert (refused.code, refused.out, refused.err) == (2, "", line)


def test_a_full_disk_leaves_no_table(matched, work, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("cmmlib.storage.cache.os.replace", full)
    refused = cmm("classify", matched, "--images", write_embeddings(work / "new.npz"))
    assert (refused.code, refused.err.splitlines()[-1][:25]) == (2, "cmm: no space left on dev")
    assert [path.name for path in work.iterdir()] == ["new.npz"]
