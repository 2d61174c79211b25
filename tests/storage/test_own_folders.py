"""Folders that are emptied: only the program's own, and at no moment of it does one cease to be its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import refusal

from cmmlib.errors import InputError
from cmmlib.storage.own_folders import (
    LIST,
    MARK,
    emptied,
    filled,
    foreign,
    is_own,
    list_made,
    mark,
    noted,
    overlap,
    put,
)


def full(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b", ".hidden"):
        (folder / name).write_text("x")
    return folder


def test_an_own_folder_is_emptied_but_for_its_mark(tmp_path):
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        assert [path.name for path in emptied(folder).iterdir()] == [MARK]
        full(folder)


def test_a_link_in_an_own_folder_goes_and_what_it_points_to_stays(tmp_path):
    elsewhere, folder = full(tmp_path / "elsewhere"), emptied(tmp_path / "folder")
    (folder / "link").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "a")
    emptied(folder)
    assert sorted(path.name for path in elsewhere.rglob("*")) == [".hidden", "a", "b", "deep"]


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    mine, link, file = full(tmp_path / "mine"), tmp_path / "link", tmp_path / "mine" / "a"
    link.symlink_to(emptied(tmp_path / "own"))
    for path in (mine, link, file):
        assert not is_own(path)
        fault = "is no folder: choose one" if path == file else "holds what cmm did not make"
        assert refusal(emptied, path).startswith(f"{path} {fault}")
    assert refusal(put, tmp_path / "own", mine).startswith(f"{mine} holds")
    assert len(list(mine.rglob("*"))) == 4


def test_a_kill_on_the_way_leaves_an_own_folder(tmp_path, monkeypatch):
    folder = full(emptied(tmp_path / "folder"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            emptied(folder)
    assert is_own(folder)
    assert (folder / "deep" / "b").exists()
    assert [path.name for path in emptied(folder).iterdir()] == [MARK]


def test_a_folder_takes_the_place_of_an_own_one(tmp_path):
    old, new = full(emptied(tmp_path / "old")), full(tmp_path / "new")
    mark(new, "note")
    put(new, old)
    assert (noted(old), noted(tmp_path / "new")) == ("note", None)
    assert sorted(path.name for path in old.iterdir()) == sorted([MARK, ".hidden", "a", "deep"])
    assert not new.exists()


def fill_and_stop(folder: Path) -> None:
    with filled(folder) as place:
        full(place)
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an own folder"])
def test_a_block_that_fails_leaves_its_folder_as_it_was(before, tmp_path):
    folder = tmp_path / "folder"
    if before == "an own folder":
        made(folder)
    elif before == "an empty folder":
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        fill_and_stop(folder)
    assert folder.exists() == (before != "nothing")
    if before == "an own folder":
        assert sorted(path.name for path in folder.iterdir()) == sorted([LIST, MARK, ".hidden", "a", "deep"])
        assert foreign(folder, always_listed=True) == []
    else:
        assert before == "nothing" or not list(folder.iterdir())


def test_a_full_disk_while_a_folder_is_filled_has_its_name(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, filled(tmp_path / "folder"):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path / "folder")


def test_somebody_else_s_folder_or_link_is_not_cleared_by_a_block_that_cannot_begin(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(made(tmp_path / "own"))
    for path in (full(tmp_path / "mine"), link):
        before = sorted(path.rglob("*"))
        with pytest.raises(InputError, match="holds what cmm did not make"), filled(path):
            pytest.fail("begun")
        assert sorted(path.rglob("*")) == before


def test_places_overlap_whatever_links_lead_there(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert overlap(tmp_path / "link" / "b", tmp_path / "a")
    assert overlap(tmp_path / "a", tmp_path / "link" / "new")
    assert not overlap(tmp_path / "a", tmp_path / "ab")


def made(folder: Path) -> Path:
    with filled(folder) as place:
        full(place)
    return folder


def killed(folder: Path) -> Path:
    """A folder as a process leaves it that is killed while it fills it: no block ends, and no list is written."""
    block = filled(folder)
    full(block.__enter__())
    ENDLESS.append(block)  # a generator that is collected would end its block
    return folder


ENDLESS: list[object] = []


@pytest.mark.parametrize("before", ["nothing", "an earlier one"])
def test_what_somebody_puts_where_a_killed_process_was_is_not_lost(before, tmp_path):
    folder = tmp_path / "folder"
    if before == "an earlier one":
        made(folder)
    killed(folder)
    assert foreign(folder, always_listed=True) == []
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"that were edited: notes\.txt: move them away"), filled(folder):
        pytest.fail("begun")
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    made(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([LIST, MARK, ".hidden", "a", "deep"])


@pytest.mark.parametrize("content", [None, "{", "[]", '"x"'])
def test_without_a_list_nothing_in_a_filled_folder_is_ours(content, tmp_path):
    folder = made(tmp_path / "folder")
    (folder / LIST).unlink()
    if content is not None:
        (folder / LIST).write_text(content)
    with pytest.raises(InputError, match="that were edited"), filled(folder):
        pytest.fail("begun")
    assert (folder / "deep" / "b").read_text() == "x"


def test_what_somebody_put_into_an_own_folder_or_edited_there_is_not_lost(tmp_path):
    folder = made(tmp_path / "folder")
    assert foreign(folder) == []
    changes = {"mine.txt": "mine", "deep/mine.txt": "mine", "a": "edited"}
    for name, text in changes.items():
        before = (folder / name).read_text() if (folder / name).exists() else None
        (folder / name).write_text(text)
        assert f"that were edited: {name}: move them away" in refusal(emptied, folder)
        assert (folder / name).read_text() == text
        assert (folder / "deep" / "b").read_text() == "x"
        (folder / name).write_text(before) if before else (folder / name).unlink()
    made(folder)
    (folder / "link").symlink_to(tmp_path)
    assert foreign(folder) == ["link"]


def test_what_a_program_that_looked_has_left_is_no_loss(tmp_path):
    folder = made(tmp_path / "folder")
    (folder / "deep" / ".ipynb_checkpoints").mkdir()
    (folder / "deep" / ".ipynb_checkpoints" / "b-checkpoint").write_text("x")
    (folder / "a").unlink()
    assert [path.name for path in emptied(folder).iterdir()] == [MARK]


def test_a_list_that_is_damaged_or_older_programs_did_not_write_stops_nothing(tmp_path):
    folder = made(tmp_path / "folder")
    (folder / LIST).write_text("{")
    (folder / "mine").write_text("x")
    assert foreign(folder) == []
    list_made(folder)
    assert foreign(folder) == []
