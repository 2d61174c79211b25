import csv
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmmlib import process
from cmmlib.storage.csv_files import csv_text, read_csv, unquoted, write_csv
from cmmlib.study.run_files import merge_columns, read_columns, read_object

FORMULAS = [
    "=cmd|'/c calc'!A0",
    "+1+cmd",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''+x",
    "-",
    "- a photo",
]
HARMLESS = [
    "cat",
    "'s Gravenhage",
    "a = b",
    "x-ray",
    "-5",
    "+0.25",
    "-1e-05",
    ".5",
    "-inf",
    "",
    " =1",
    'he said "=1", then',
]


def cells(path: Path) -> list[str]:
    """What any other program reads in the column `name`."""
    with open(path, encoding="utf-8", newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_to_a_spreadsheet_and_itself_to_this_package(text, tmp_path):
    path = tmp_path / "t.csv"
    write_csv(pd.DataFrame({"name": [text], "value": [-0.5]}), path)
    assert cells(path) == ["'" + text]
    read = read_csv(path)
    assert (read["name"].tolist(), read["value"].tolist()) == ([text], [-0.5])


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stands_as_it_is(text, tmp_path):
    path = tmp_path / "t.csv"
    write_csv(pd.DataFrame({"value": [1], "name": [text]}), path)
    assert cells(path) == [text]
    assert read_csv(path, dtype=str)["name"].tolist() == [text]


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(words, min_size=1, max_size=5))
@example(["\r", "\n", "\r\n", "'", "''", "=", "'=", '"', '="', "\x1b[31m", "\x85", "\u2028"])
def test_every_text_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    table = pd.DataFrame({"index": range(len(texts)), "name": texts})
    write_csv(table, path)
    assert path.read_bytes().decode() == csv_text(table)
    assert read_csv(path, dtype=str)["name"].tolist() == texts
    assert [unquoted(cell) for cell in cells(path)] == texts


def test_columns_that_are_merged_later_keep_names_and_negative_numbers(tmp_path):
    path, names = tmp_path / "per_class.csv", ["=a", "'=a", "-5", "b"]
    merge_columns(
        path,
        pd.DataFrame({"class_index": range(4), "class_name": names, "cmm": [-0.25, 0.5, -1.0, 2.0]}),
        "class_index",
    )
    first = cells_of(path)
    for column in ("one", "two"):
        merge_columns(path, pd.DataFrame({"class_index": range(4), column: [-1, -2, -3, -4]}), "class_index")
    assert [line[:3] for line in cells_of(path)] == first
    table = read_columns(path)
    assert table is not None
    assert table["class_name"].tolist() == names
    assert table["cmm"].tolist() == ["-0.25", "0.5", "-1.0", "2.0"]


def test_rows_are_found_again_by_a_key_that_looks_like_a_formula(tmp_path):
    path = tmp_path / "prompts.csv"
    merge_columns(path, pd.DataFrame({"prompt": ["=a", "b"], "cmm": [1, 2]}), "prompt")
    merge_columns(path, pd.DataFrame({"prompt": ["b", "=a"], "accuracy": [4, 3]}), "prompt")
    table = read_columns(path)
    assert table is not None
    assert table.to_dict("list") == {"prompt": ["b", "=a"], "cmm": ["2", "1"], "accuracy": ["4", "3"]}


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "per_class.csv"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match="is no file"):
        read_csv(path)
    assert read_columns(path) is None
    assert read_object(path) is None


def cells_of(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_whole_numbers_beside_none_stay_whole(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(pd.DataFrame({"name": ["a", "b"], "k": [500, None]}, dtype=object), path)
    assert cells_of(path) == [["name", "k"], ["a", "500"], ["b", ""]]


CONTROL = ["\x1b[31mred\x1b[0m", "a\u202egnp.exe", "two\nlines", "a\tb", "a\x00b", "bell\x07"]


@pytest.mark.parametrize("name", CONTROL)
def test_a_file_has_the_exact_name_and_a_terminal_nothing_that_it_obeys(name, tmp_path, monkeypatch, capsys):
    table = pd.DataFrame({"name": [name, "cat"]})
    write_csv(table, tmp_path / "x.csv")
    assert cells(tmp_path / "x.csv") == [name, "cat"]
    assert list(read_csv(tmp_path / "x.csv")["name"]) == [name, "cat"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    process.show_text(csv_text(table))
    assert not {*capsys.readouterr().out} & {"\x1b", "\u202e", "\x00", "\x07"}
