"""Sweep files: which studies they name, and everything that is no sweep in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmmlib import InputError, Study
from cmmlib.sweeps.plan import read_sweep, shown, sweep_name, varied


def read(folder: Path, text: str | bytes) -> list[Study]:
    file = folder / "studies.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sweep(file)


def test_a_grid_is_every_combination_and_the_last_parameter_changes_first(tmp_path):
    studies = read(tmp_path, "grid: {pretrained: [v1, v2], seed: [0, 1, 2]}")
    assert [(s.pretrained, s.seed) for s in studies] == [(w, s) for w in ("v1", "v2") for s in (0, 1, 2)]
    assert varied(studies) == ["pretrained", "seed"]


def test_parameters_that_change_together_are_one_part_of_the_grid(tmp_path):
    text = """
        common: {limit: 3, seed: 7}
        studies: [{seed: 1}]
        grid:
          model:
            - {backbone: ViT-B-32, pretrained: openai}
            - {backbone: ViT-L-14, pretrained: openai}
          worst_k: [2, 3]
    """
    studies = read(tmp_path, text)
    assert [(s.backbone, s.worst_k, s.seed, s.limit) for s in studies] == [
        ("blazon-mini", None, 1, 3),
        ("ViT-B-32", 2, 7, 3),
        ("ViT-B-32", 3, 7, 3),
        ("ViT-L-14", 2, 7, 3),
        ("ViT-L-14", 3, 7, 3),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "studies: [{seed: 1}, {seed: 2}, {seed: 1}]",
            "sweep: 1 of 3 studies is the same as another: each is run once\n",
        ),
        (
            "studies: [{seed: 1}]\ngrid: {seed: [1, 2, 2]}",
            "sweep: 2 of 4 studies are the same as others: each is run once\n",
        ),
        ("grid: {seed: [1, 2]}", ""),
    ],
)
def test_a_study_that_is_named_twice_is_run_once_with_a_line(text, told, tmp_path, capsys):
    assert len(read(tmp_path, text)) == 2
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("{seed: [1, 2, 3], m: [{seed: 4}]}", "seed is in the grid and in its group m: leave one out"),
        ("{m: [{limit: 3}, {seed: 4}], seed: [1, 2]}", "seed is in the grid and in its group m: leave one out"),
        ("{m: [{seed: 4}], n: [{seed: 5, limit: 2}]}", "seed is in its group m and in its group n: leave one out"),
    ],
)
def test_a_parameter_in_two_parts_of_a_grid_is_refused(grid, said, tmp_path):
    with pytest.raises(InputError, match=f"^sweep: {said}$"):
        read(tmp_path, f"grid: {grid}")


@pytest.mark.parametrize("number", ["010", "1:30", "1_0", "0x1F", "0b11", "-07", "1_0.5", "1:30.5"])
def test_a_number_that_is_not_decimal_is_refused(number, tmp_path):
    with pytest.raises(InputError, match=rf"^sweep: studies.yaml, line 1: {number} is no decimal number: write it"):
        read(tmp_path, f"studies: [{{seed: {number}}}]")


def test_a_date_that_is_none_is_named_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"^sweep: studies.yaml is no YAML, line 2: 2020-13-45 is none: month must be"):
        read(tmp_path, "studies:\n  - {split: 2020-13-45}")


def test_decimal_numbers_and_texts_in_quotes_are_read(tmp_path):
    text = "studies: [{seed: 10, limit: +3, max_cost: 1.5, llm: x/y, pretrained: '010'}, {llm: x, max_cost: 2.5e-1}]"
    one, other = read(tmp_path, text)
    assert (one.seed, one.limit, one.max_cost, one.pretrained, other.max_cost) == (10, 3, 1.5, "010", 0.25)


def test_one_study_has_its_data_set_as_its_name(tmp_path):
    studies = read(tmp_path, "studies: [{}]")
    assert (varied(studies), shown(studies[0], ["dataset"])) == (["dataset"], {"dataset": "blazon"})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("studies: [{seed: 1}]\nstudies: [{seed: 2}]", "'studies'"),
        ("studies:\n  - {seed: 1, seed: 2}", "'seed'"),
        ("grid:\n  model:\n    - {pretrained: a, pretrained: b}", "'pretrained'"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(text, key, tmp_path):
    with pytest.raises(InputError, match=f"studies.yaml has {key} twice"):
        read(tmp_path, text)


@pytest.mark.parametrize("field", ["seed: yes", "limit: true", "max_broken: off", "dataset: no", "split: no"])
def test_a_yes_is_no_number(field, tmp_path):
    with pytest.raises(
        InputError, match=r"study 1: .*expected a number or a text, got (True|False); in YAML, .* in quotes"
    ):
        read(tmp_path, f"studies: [{{{field}}}]")


def test_the_name_of_a_sweep_is_that_of_its_file_and_its_studies(tmp_path):
    one, other = read(tmp_path, "grid: {seed: [0, 1]}"), read(tmp_path, "studies: [{seed: 0}, {seed: 1}]")
    named = sweep_name(Path("a b/My studies.yaml"), one)
    assert named.startswith("my-studies-")
    assert named == sweep_name(Path("my studies.yaml"), other)
    assert named != sweep_name(Path("my studies.yaml"), one[:1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds nothing, expected names and values"),
        ("- a", "holds a list, expected names and values"),
        ("{}", "names no study: give studies, or a grid"),
        ("grid: {}", "names no study"),
        ("studies: {a: 1}", "studies is no list: write one study a line"),
        ("studies: [3]", "study 1 is a number, expected names and values"),
        ("studies: [{seed: 1}, {sed: 1}]", "study 2: unknown parameter 'sed'"),
        ("studies: [{seed: -1}]", "study 1: seed"),
        ("studies: [{out: elsewhere}]", "study 1 has out, and a sweep has a folder of its own"),
        ("grid: {seed: 3}", "seed of the grid has no list of values"),
        ("grid: {seed: []}", "seed of the grid has no list of values"),
        ("grid: {sed: [3]}", "sed is no parameter of a study"),
        ("grid: {1: [3]}", "sweep: grid is a mapping with the name 1, which is no text: write it in quotes"),
        ("grids: {seed: [3]}", "has a part 'grids': its parts are common, studies, grid"),
        ("common: [1]\nstudies: [{}]", "common is a list, expected names and values"),
        ("grid: {seed: [1", "is no YAML, line"),
        ("a: &a [*a]", "has a part 'a'"),
        ("studies: !!python/object/apply:os.system ['touch ran']", "is no YAML, line 1"),
        (b"studies: \xff", "is no YAML"),
        (b"\0", "is no YAML"),
        ("studies: [{seed: 2026-13-45}]", "is no YAML"),
        ("grid: {seed: [%s], worst_k: [%s]}" % ((",".join(map(str, range(1, 102))),) * 2), "10,201 combinations"),
    ],
)
def test_what_is_no_sweep_is_one_line(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    line = str(caught.value)
    assert line.startswith("sweep: ")
    assert said in line
    assert "\n" not in line
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^sweep: cannot read .*none\.yaml: no such file"):
        read_sweep(tmp_path / "none.yaml")
