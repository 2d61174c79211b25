"""A run's folder: the documented files and fields, nothing private, the same numbers however it was made."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_images
from data_sets import web_data_set
from finished_runs import cmm, documented, read_through, strict_json, words, write_embeddings, write_many
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import InputError, Study, open_run
from cmmlib.functional.similarity import similarity_pass
from cmmlib.report import pages
from cmmlib.study.run import Run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "book" / "results.md").read_text()


def opened(dataset: str, **parameters: Any) -> Run:
    return open_run(Study.of({"dataset": dataset, **parameters}))


def columns(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return next(csv.reader(file))


# ---------------------------------------------------------------- what the book documents


def test_results_have_exactly_the_documented_fields(labelled):
    results, said = strict_json(labelled / "results.json"), documented("results.json")
    assert results.keys() == {name.partition(".")[0] for name in said}
    accuracy = {name.partition(".")[2] for name in said if name.startswith("accuracy.")}
    accuracy |= {name.partition(".")[2] + "_floored" for name, m in said.items() if "`_floored`" in m}
    assert results["accuracy"].keys() == accuracy
    assert results["near_ties"].keys() == set(words(said["near_ties"]))
    *fields, odd_one, error = words(said["cmm.<score>"])
    scores = results["cmm"]
    assert odd_one in scores
    for name, score in scores.items():
        assert score.keys() == {*fields, *([error] if name == odd_one else [])}, name
    for row in results["prompts"]:
        assert list(row) == words(said["prompts"])
    for row in results["ensembles"]:
        assert [field for field in words(said["ensembles"]) if field != "null"] == list(row)


def test_duplicates_have_the_documented_fields(tmp_path):
    texts = synthetic_arrays()["text_features"]
    texts[:, 1] = texts[:, 0]
    names = np.array(["Twin", *(f"class {c}" for c in range(1, CLASSES - 1)), "twin"])
    run = opened(
        write_embeddings(tmp_path / "x.npz", text_features=texts, classnames=names), out=str(tmp_path / "runs")
    )
    read_through(run, ROOT / "notebooks" / "01_phenomenon.ipynb")
    duplicates = strict_json(run.folder / "results.json")["duplicates"]
    fields = words(documented("results.json")["duplicates"])
    assert all(list(group) == fields for group in duplicates)
    assert {"classes": [0, CLASSES - 1], "names": ["Twin", "twin"], "by": "name"} in duplicates
    assert {"classes": [0, 1], "names": ["Twin", "class 1"], "by": "text"} in duplicates


def test_results_hold_what_the_design_asks_for(labelled):
    results = strict_json(labelled / "results.json")
    assert results["schema_version"] == 1
    for name in ("worst", "worst_split_half", "worst_without_duplicates"):
        assert list(results["accuracy"][name]) == ["1", "3", "5", "10", "20"]  # 3 is the k of this study
    assert list(results["cmm"]) == [
        *("labels", "pseudo", "soft", "soft_probability", "retrieval", "class_mean"),
        *("accuracy_estimate", "predicted_count", "mean_top_probability", "nearest_text_distance"),
    ]
    assert [row["prompt"] for row in results["prompts"]] == ["synthetic prompt 0", "synthetic prompt 1"]


def test_what_is_undefined_is_null(labelled, unlabelled):
    assert strict_json(labelled / "results.json")["accuracy"]["worst"]["20"] is None  # of 12 classes
    results = strict_json(unlabelled / "results.json")
    assert results["accuracy"] is None
    assert results["cmm"] is None
    assert [(row["overall"], row["worst_10"]) for row in results["prompts"]] == [(None, None)] * 2
    assert all(isinstance(row["cmm_mean"], float) for row in results["prompts"])


def test_tables_have_exactly_the_documented_columns(labelled):
    assert columns(labelled / "per_class.csv") == list(documented("per_class.csv"))
    said = DOCUMENT.partition("## prompts.csv\n")[2].partition(":")[0]
    assert columns(labelled / "prompts.csv") == words(said)
    said = DOCUMENT.partition("## ensembles.csv\n")[2].partition(": as in")[0]
    followed = tuple(f"base_worst{what}_<k>" for what in ("", "_count", "_split_half"))
    forms = ("worst_<k>", "worst_split_half_<k>", *followed)
    ks = ((1, 5, 10, 20), (1, 5, 10, 20), *[(10, 20)] * 3)
    many = [form.replace("<k>", str(k)) for form, of in zip(forms, ks, strict=True) for k in of]
    assert columns(labelled / "ensembles.csv") == [*(w for w in words(said) if w not in forms), *many]


def test_a_study_without_labels_leaves_the_columns_that_need_them_out(labelled, unlabelled):
    with_labels = [
        *("n_images", "accuracy", "accuracy_low", "accuracy_high"),
        *("taken_for", "taken_for_index", "share_taken_for", "cmm_labels"),
        *("accuracy_ensemble", "described"),
    ]
    all_of_them = columns(labelled / "per_class.csv")
    assert columns(unlabelled / "per_class.csv") == [name for name in all_of_them if name not in with_labels]


def test_label_free_columns_are_the_same_with_and_without_labels(labelled, unlabelled):
    one, other = (pd.read_csv(folder / "per_class.csv") for folder in (labelled, unlabelled))
    pd.testing.assert_frame_equal(one[list(other.columns)], other)


def test_numbers_are_those_of_a_direct_calculation(labelled):
    arrays = synthetic_arrays()
    x, labels = arrays["image_features"].astype(np.float64), arrays["labels"]
    right = (x @ arrays["text_features"].astype(np.float64).transpose(0, 2, 1)).argmax(2) == labels  # [P, N]
    accuracy = np.array([right[0][labels == c].mean() for c in range(CLASSES)])
    results = strict_json(labelled / "results.json")
    assert results["accuracy"]["overall"] == pytest.approx(right[0].mean())
    assert results["accuracy"]["worst"]["5"] == pytest.approx(np.sort(accuracy)[:5].mean())
    assert results["worst_k"] == 3
    assert results["accuracy"]["base_worst_classes"] == np.argsort(accuracy, kind="stable")[:3].tolist()
    assert [row["overall"] for row in results["prompts"]] == pytest.approx(right.mean(1).tolist())
    table = pd.read_csv(labelled / "per_class.csv")
    assert table["accuracy"].tolist() == pytest.approx(accuracy.tolist())
    assert table["class_index"].tolist() == list(range(CLASSES))
    assert sorted(table["suspect_rank"]) == list(range(1, CLASSES + 1))


def test_every_figure_is_there_as_svg_for_two_screens_and_as_png(labelled, unlabelled):
    for folder in (labelled, unlabelled):
        names = sorted(path.name for path in (folder / "figures").iterdir())
        stems = {name.partition(".")[0].removesuffix("_narrow") for name in names}
        assert names == sorted(f"{stem}{kind}" for stem in stems for kind in (".svg", "_narrow.svg", ".png"))
    assert {"class_accuracy", "cmm_against_accuracy"} <= {p.stem for p in (labelled / "figures").iterdir()}
    assert not {"class_accuracy", "cmm_against_accuracy"} & {p.stem for p in (unlabelled / "figures").iterdir()}


# ---------------------------------------------------------------- nothing private


def test_manifest_says_what_was_run(labelled, twins):
    manifest = strict_json(labelled / "manifest.json")
    assert manifest["id"] == labelled.name
    assert manifest["study"]["dataset"] == "embeddings:synthetic.npz"
    assert manifest["data"] | {"digest": ""} == {
        "name": "synthetic",
        "split": None,
        "n_images": 600,
        "broken": [],
        "remarks": [],
        "digest": "",
        "stored_as": "float16",
    }
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
    general = ["00_real_clip", "01_phenomenon", "02_cmm", "03_enrichment", "04_ensemble", "05_unlabelled"]
    general += ["07_backbones", "08_without_labels", "09_trust", "10_every_class", "11_playground"]
    assert list(manifest["chapters"]) == general
    assert strict_json(twins[0] / "manifest.json")["model"]["backbone"] == "local-dir:tiny-clip-untrained"


def test_a_dry_run_lists_the_chapters_that_the_run_makes(labelled, unlabelled):
    for run, file in ((labelled, "synthetic"), (unlabelled, "unlabelled")):
        made = strict_json(run / "manifest.json")["chapters"]
        said = cmm("run", "--dataset", f"embeddings:{run.parents[1] / file}.npz", "--dry-run")
        assert f"\nchapters: {', '.join(made)}\n" in said.out


def test_no_file_of_a_run_or_book_tells_where_it_was_made(labelled, twins, changed, labelled_book, tmp_path_factory):
    private = [str(tmp_path_factory.getbasetemp().parent), str(Path.home()) + "/", str(ROOT)]
    roots = [labelled, *twins, changed, labelled_book / "html"]
    kinds = {".json", ".csv", ".ipynb", ".svg", ".html", ".js", ".inv"}
    files = [p for root in roots for p in root.rglob("*") if p.suffix in kinds and "mathjax" not in p.parts]
    assert {path.suffix for path in files} >= {".json", ".csv", ".ipynb", ".svg", ".html"}
    texts = ((path, path.read_text(errors="replace")) for path in files)
    assert [(path.name, word) for path, text in texts for word in private if word in text] == []


# ---------------------------------------------------------------- the same study


def test_the_same_study_has_the_same_id_wherever_and_however_fast(tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    first = opened(data, out=str(tmp_path))
    assert first.id == opened(data, out=str(tmp_path)).id
    assert first.id == opened(data, out=str(tmp_path / "elsewhere")).id
    assert first.folder == tmp_path / first.id
    assert opened(write_embeddings(tmp_path / "moved" / "x.npz")).id == first.id


@pytest.mark.parametrize("change", [{"seed": 1}, {"worst_k": 2}, {"analysis_precision": "bf16"}], ids=str)
def test_another_study_has_another_id(change, tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    assert opened(data).id != opened(data, **change).id


def test_other_data_or_names_have_another_id(tmp_path):
    first = opened(write_embeddings(tmp_path / "x.npz"))
    labels = np.roll(synthetic_arrays()["labels"], 1)
    names = np.array([f"name {c}" for c in range(CLASSES)])
    others = [{"labels": labels}, {"classnames": names}, {"logit_scale": np.float32(7)}]
    ids = {opened(write_embeddings(tmp_path / str(i) / "x.npz", **change)).id for i, change in enumerate(others)}
    assert len(ids | {first.id}) == 4


def test_two_runs_at_once_in_batches_of_7_and_4096_agree(twins):
    one, other = twins
    assert one != other
    assert one.name == other.name  # neither place nor batch size is in the id
    first, second = (pd.read_csv(folder / "per_class.csv") for folder in twins)
    exact = ["n_images", "accuracy", "predicted_count", "taken_for_index", "suspect_rank", "rival_index"]
    pd.testing.assert_frame_equal(first[exact], second[exact])
    pd.testing.assert_frame_equal(first, second, atol=1e-6)
    assert first["n_images"].tolist() == [2, 3, 2, 3]
    assert first["predicted_count"].sum() == 10
    assert strict_json(one / "results.json").keys() == strict_json(other / "results.json").keys()


def test_batch_size_does_not_change_a_prediction(tmp_path, tiny_clip, monkeypatch):
    many = write_many(tmp_path / "many")
    predictions = []
    for size in (7, 4096):
        monkeypatch.setenv("CMM_CACHE", str(tmp_path / f"cache-{size}"))
        run = opened(many, backbone=f"local-dir:{tiny_clip}", batch_size=size)
        predictions.append(similarity_pass(run.image_features, run.text_features, run.logit_scale).prediction)
    assert predictions[0].shape == (7, 240)
    assert len(predictions[0].unique()) > 1
    assert predictions[0].equal(predictions[1])


def test_float16_storage_changes_only_near_ties(tmp_path, tiny_clip):
    many = write_many(tmp_path / "many")
    full, half = (opened(many, backbone=f"local-dir:{tiny_clip}", storage=s) for s in ("float32", "float16"))
    assert not torch.equal(full.image_features, half.image_features)
    x, text = full.image_features[:40], full.base_text_features[0]
    mirrored = 2 * (x @ text)[:, None] * x - text  # [40, D], each as similar to its image as the text is
    ties = torch.stack([text.expand_as(x), mirrored], 1)  # [40, 2, D]
    for heads in (ties, full.text_features):
        wide, narrow = (similarity_pass(run.image_features, heads, run.logit_scale) for run in (full, half))
        differ = wide.prediction != narrow.prediction
        assert differ.any() or heads is not ties
        assert (wide.margin[differ] < 1e-3).all()
        assert ((wide.margin - narrow.margin).abs() < 1e-3).all()


def test_near_ties_bound_what_float16_storage_changes(labelled, tmp_path):
    """The synthetic images are stored as float16; brought to a coarser grid, only counted images may change sides."""
    ties = strict_json(labelled / "results.json")["near_ties"]
    run = opened(write_embeddings(tmp_path / "x.npz"))
    exact = similarity_pass(run.image_features, run.base_text_features[None], run.logit_scale)
    rounded = similarity_pass(
        torch.nn.functional.normalize(run.image_features.half().float()), run.base_text_features[None], run.logit_scale
    )
    assert ties == {"margin_below": 1e-3, "n_images": int((exact.margin[0] < 1e-3).sum())}
    assert 0 < ties["n_images"] < 60
    assert int((exact.prediction != rounded.prediction).sum()) <= ties["n_images"]


# ---------------------------------------------------------------- an opened run


def test_a_k_over_the_classes_is_refused(tmp_path):
    data = write_embeddings(tmp_path / "x.npz")
    assert opened(data, worst_k=CLASSES).worst_k == CLASSES
    with pytest.raises(InputError, match="worst_k: 13 is more than the 12 classes"):
        opened(data, worst_k=CLASSES + 1)


def test_chapters_add_to_the_files_of_others(tmp_path):
    run = opened(write_embeddings(tmp_path / "x.npz"), out=str(tmp_path))
    run.record(accuracy={"overall": float("nan")}, n_images=torch.tensor(3))
    run.record(cmm=[float("inf"), np.float64(0.5), (1, None)])
    assert strict_json(run.folder / "results.json") == {
        "schema_version": 1,
        "accuracy": {"overall": None},
        "n_images": 3,
        "cmm": [None, 0.5, [1, None]],
    }
    run.record_table("t.csv", pd.DataFrame({"key": [0, 1], "a": [1, 2]}), "key")
    run.record_table("t.csv", pd.DataFrame({"key": [0, 1], "b": [None, "x, y"]}), "key")
    run.record_table("t.csv", pd.DataFrame({"key": [0, 1], "a": [3, 4]}), "key")
    assert pd.read_csv(run.folder / "t.csv").to_csv(index=False) == 'key,a,b\n0,3,\n1,4,"x, y"\n'
    assert [path.name for path in run.folder.iterdir() if path.name.startswith(".")] == []


def test_broken_images_are_named_in_the_manifest_and_gone_from_the_run(tmp_path, tiny_clip, image_folder):
    fields = {"backbone": f"local-dir:{tiny_clip}", "out": str(tmp_path / "runs")}
    dataset = f"folder:{image_folder}"
    sound = opened(dataset, **fields)
    (image_folder / "noise" / "0b.png").write_text("no image")
    with pytest.raises(InputError, match=r"noise/0b\.png: not an image"):
        opened(dataset, **fields)
    run = opened(dataset, **fields, max_broken=1)
    run.write_manifest({})
    data = strict_json(run.folder / "manifest.json")["data"]
    assert (data["broken"], data["n_images"]) == (["noise/0b.png"], 10)
    assert run.id == sound.id  # what is left out changes no number
    assert torch.equal(run.labels, sound.labels)
    assert run.pictures.image_ids == sound.pictures.image_ids
    table = pages.study_table(run).set_index("what")["value"]
    assert table["unreadable images left out"] == "1"


def test_what_was_taken_of_a_set_is_told(tmp_path, tiny_clip):
    root = web_data_set(tmp_path / "animals")
    (tmp_path / "few.txt").write_text("cat\ndog\n")
    fields = {"backbone": f"local-dir:{tiny_clip}", "classes": str(tmp_path / "few.txt"), "limit": 1}
    run = opened(f"wds:{root}", **fields)
    assert run.classnames == ["cat", "dog"]
    assert sorted(run.labels.tolist()) == [0, 1]
    assert run.prompts == ["a {}.", "the {}, a {}."]  # the set's own
    assert run.facts["templates"] == "animals-2"
    table = pages.study_table(run).set_index("what")["value"]
    told = {"data set": "wds:animals", "split": "test", "classes taken": "few.txt", "images a class, at most": "1"}
    assert told.items() <= table.to_dict().items()
    assert opened(f"wds:{root}", **fields, templates="openai-7").prompts != run.prompts
    assert opened(f"wds:{root}", **fields, split="test").id == run.id


def test_conditions_say_what_a_study_has(tmp_path, tiny_clip, image_folder):
    one_head = synthetic_arrays()["text_features"][0]
    facts = [
        opened(write_embeddings(tmp_path / "a.npz")).conditions,
        opened(write_embeddings(tmp_path / "b.npz", labels=None, text_features=one_head, prompts=None)).conditions,
        opened(f"folder:{image_folder}", backbone=f"local-dir:{tiny_clip}").conditions,
    ]
    assert facts == [
        {
            "labels": True,
            "images": False,
            "pool": True,
            "blazon": False,
            "tower": False,
            "disambiguated": False,
            "others": False,
            "browser": True,
        },
        {
            "labels": False,
            "images": False,
            "pool": False,
            "blazon": False,
            "tower": False,
            "disambiguated": False,
            "others": False,
            "browser": False,
        },
        {
            "labels": True,
            "images": True,
            "pool": True,
            "blazon": False,
            "tower": True,
            "disambiguated": False,
            "others": False,
            "browser": True,
        },
    ]


# ---------------------------------------------------------------- several processes

RECORD = """
import sys
from pathlib import Path
import pandas as pd
from cmmlib.study.run_files import merge_columns, merge_sections
folder, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for n in range(60):
    column = {"class_index": range(20), f"{name}{n}": n}
    merge_columns(folder / "per_class.csv", pd.DataFrame(column), "class_index")
    merge_sections(folder / "results.json", {f"{name}{n}": n})
"""


def test_two_processes_that_record_at_once_lose_nothing(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", RECORD, tmp_path, name], **pipes) for name in "ab"]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
        assert process.returncode == 0
    names = {f"{name}{n}" for name in "ab" for n in range(60)}
    assert set(columns(tmp_path / "per_class.csv")) == names | {"class_index"}
    assert strict_json(tmp_path / "results.json").keys() == names | {"schema_version"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_class.csv", "results.json"]


@pytest.mark.parametrize("dataset", ["folder", "blazon"])
def test_a_blind_run_has_no_labels_in_any_place(dataset, tmp_path, tiny_clip):
    data = f"folder:{write_images(tmp_path / 'images')}" if dataset == "folder" else "blazon"
    model = {"backbone": f"local-dir:{tiny_clip}"} if dataset == "folder" else {"limit": 1}
    run = opened(data, **model)
    assert run.labels is not None
    assert run.pictures is not None
    assert run.pictures.labels is not None
    assert run.blind.pictures is not None
    assert (run.blind.labels, run.blind.pictures.labels) == (None, None)
    assert run.blind.pictures.read(0).tobytes() == run.pictures.read(0).tobytes()
