"""Parts of a data set: its classes from a list, its images by a seeded draw, the same for images and embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import write_embeddings
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import Study
from cmmlib.data.load import load_dataset
from cmmlib.data.subsets import draw, only_classes, read_classes
from cmmlib.errors import InputError
from cmmlib.study.open_run import study_data

NAMES = ["cat", "dog", "1", "Sea Lion", "twin", "Twin"]


def listed(tmp_path: Path, *lines: str) -> Path:
    (tmp_path / "classes.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "classes.txt"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["dog", "cat"], [0, 1]),
        (["sea lion ", "", "DOG", "dog"], [1, 3]),
        (["0", "5"], [0, 5]),
        (["1", "0"], [0, 2]),  # class 2 is called 1
    ],
)
def test_classes_are_named_or_counted(tmp_path, lines, expected):
    assert read_classes(listed(tmp_path, *lines), NAMES) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["cat"], "classes.txt names 1 of the classes: two or more are needed"),
        (["cat", "cat", "0"], "names 1 of the classes"),
        (["cat", "sea lyon"], "no class 'sea lyon' (classes.txt), did you mean 'Sea Lion'?"),
        (["cat", "6"], "no class '6' (classes.txt): write a class name, or an index below 6"),
        (["cat", "-1"], "no class '-1'"),
        (["cat", "twin"], "'twin' in classes.txt is the name of classes [4, 5]: give an index"),
    ],
)
def test_a_line_that_is_no_class_is_refused(tmp_path, lines, expected):
    with pytest.raises(InputError) as error:
        read_classes(listed(tmp_path, *lines), NAMES)
    assert str(error.value).startswith("classes: ")
    assert expected in str(error.value)


def test_chosen_classes_are_counted_anew(image_folder):
    data = load_dataset(f"folder:{image_folder}")
    part = only_classes(data, [1, 3])
    assert part.classnames == ["noise", "see through glass"]
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert part.image_ids == data.image_ids[2:5] + data.image_ids[7:]
    assert np.array_equal(np.asarray(part.read(3)), np.asarray(data.read(7)))


def test_chosen_classes_of_embeddings_keep_their_vectors(tmp_path):
    data = load_dataset(write_embeddings(tmp_path / "x.npz"))
    part = only_classes(data, [2, 7])
    rows = (data.labels == 2) | (data.labels == 7)
    assert torch.equal(part.image_features, data.image_features[rows])
    assert torch.equal(part.text_features, data.text_features[:, [2, 7]])
    assert torch.equal(part.labels, (data.labels[rows] == 7).long())
    assert len({data.digest, part.digest, only_classes(data, [2, 8]).digest}) == 3


def test_without_labels_chosen_classes_keep_all_images(tmp_path):
    data = load_dataset(write_embeddings(tmp_path / "x.npz", labels=None))
    part = only_classes(data, [2, 7])
    assert (len(part.image_features), part.classnames, part.labels) == (
        len(data.image_features),
        [data.classnames[c] for c in (2, 7)],
        None,
    )


def test_classes_without_an_image_are_refused(image_folder):
    for name in ("aardvark", "bear"):
        (image_folder / name).mkdir()
    data = load_dataset(f"folder:{image_folder}")
    with pytest.raises(InputError, match="has no image of these 2 classes"):
        only_classes(data, [0, 1])


def test_a_draw_is_balanced_seeded_and_in_order(tmp_path):
    data = load_dataset(write_embeddings(tmp_path / "x.npz"))
    few = draw(data, 3, seed=0)
    assert few.labels.bincount(minlength=CLASSES).tolist() == [3] * CLASSES
    where = [(data.image_features == x).all(1).nonzero()[0].item() for x in few.image_features]
    assert where == sorted(set(where))
    assert torch.equal(few.image_features, draw(data, 3, seed=0).image_features)
    assert few.digest == draw(data, 3, seed=0).digest
    assert few.digest != draw(data, 3, seed=1).digest


def test_a_class_with_few_images_gives_all_of_them(image_folder):
    data = load_dataset(f"folder:{image_folder}")
    assert draw(data, 2, 0).labels.bincount().tolist() == [2, 2, 2, 2]
    assert draw(data, 3, 0) is data


def test_without_labels_a_draw_takes_as_many_images_in_all(tmp_path):
    data = load_dataset(write_embeddings(tmp_path / "x.npz", labels=None))
    assert len(draw(data, 2, 0).image_features) == 2 * CLASSES
    assert draw(data, 1000, 0) is data


def test_image_ids_follow_the_images(tmp_path):
    ids = np.array([f"{i}.jpg" for i in range(len(synthetic_arrays()["labels"]))])
    data = load_dataset(write_embeddings(tmp_path / "x.npz", image_ids=ids))
    few = draw(data, 1, 0)
    for x, name in zip(few.image_features, few.image_ids, strict=True):
        assert torch.equal(data.image_features[data.image_ids.index(name)], x)


def test_a_study_chooses_classes_by_names_of_its_own_before_it_draws(image_folder, tmp_path):
    (tmp_path / "names.txt").write_text("ramps\nstatic\npalettes\nglass\n")
    study = {"dataset": f"folder:{image_folder}", "class_names": str(tmp_path / "names.txt"), "limit": 2}
    data = study_data(Study.of({**study, "classes": str(listed(tmp_path, "static", "glass"))}))
    assert (data.classnames, data.labels.tolist()) == (["static", "glass"], [0, 0, 1, 1])


def test_the_embedded_world_keeps_its_arms_with_its_classes():
    data = study_data(Study.of({"limit": 1}))
    part = only_classes(data, [5, 110])
    assert (len(data), len(part)) == (120, 2)
    assert part.arms == [data.arms[5], data.arms[110]]
    assert np.array_equal(part.pixels, data.pixels[[5, 110]])
