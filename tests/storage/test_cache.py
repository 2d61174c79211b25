"""Files that are whole or not there."""

import errno
import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from cmmlib.errors import InputError
from cmmlib.storage import cache
from cmmlib.storage.cache import (
    cache_folder,
    cached,
    digest,
    file_digests,
    fix_cache_folder,
    load_tensors,
    save_tensors,
    whole_file,
    write_text,
)

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def disk_full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_cache_folder_is_the_one_that_the_environment_names(own_cache, monkeypatch):
    assert cache.cache_folder() == own_cache
    monkeypatch.delenv("CMM_CACHE")
    assert "cmmlib" in str(cache.cache_folder())


def test_a_relative_cache_folder_is_the_same_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value, folder in (("rel", tmp_path / "rel"), ("~/mine", tmp_path / "home" / "mine")):
        monkeypatch.setenv("CMM_CACHE", value)
        assert cache_folder() == folder
        fix_cache_folder()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert cache_folder() == folder
        monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMM_CACHE", " ")
    assert cache_folder().is_absolute()
    assert cache_folder().name == "cmmlib"


def test_a_damaged_entry_that_cannot_be_removed_is_computed_again(tmp_path, monkeypatch):
    path = tmp_path / "entry.safetensors"
    path.write_bytes(b"damaged")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match="entry.safetensors is damaged"):
        assert load_tensors(path) is None


def test_a_file_is_written_whole(tmp_path):
    write_text(tmp_path / "new" / "a.json", "ü")
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == "ü"
    assert names(tmp_path / "new") == ["a.json"]


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize(("owner", "function"), [(Path, "write_bytes"), (os, "replace")])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, owner, function):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.zeros(3)})
    monkeypatch.setattr(owner, function, disk_full)
    with pytest.raises(OSError, match="No space left") as error:
        save_tensors(path, {"x": torch.ones(3)})
    assert (error.value.filename, error.value.filename2) == (str(path), None)  # not that of the file beside it
    with pytest.raises(OSError, match="No space left"):
        save_tensors(tmp_path / "y.safetensors", {"x": torch.ones(3)})
    monkeypatch.undo()
    assert names(tmp_path) == ["x.safetensors"]
    assert load_tensors(path)["x"].tolist() == [0, 0, 0]


def test_a_write_that_fails_half_way_is_an_os_error_and_leaves_nothing(tmp_path):
    """The real thing, by a limit on file size: it is the writer itself that fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            save_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "tensors",
    [
        {"x": torch.arange(6).reshape(2, 3).T},
        {"x": torch.tensor(3.5), "none": torch.empty(0, 4)},
        {"half": torch.tensor([1, -0.0, float("nan")], dtype=torch.float16), "b": torch.tensor([True, False])},
        {"brain": torch.randn(3, dtype=torch.bfloat16)},
    ],
)
def test_tensors_come_back_bit_for_bit(tmp_path, tensors):
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for key, t in tensors.items():
        assert loaded[key].dtype == t.dtype
        assert torch.equal(loaded[key].nan_to_num(7), t.nan_to_num(7))
        assert loaded[key].shape == t.shape


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_byte,
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:4],
        lambda content: b"",
        lambda content: b"\x00" * len(content),
        lambda content: content.replace(b"sha256", b"sha257"),
    ],
    ids=["flipped byte", "last byte lost", "cut in half", "cut in the header", "empty", "zeros", "no checksum"],
)
def test_a_damaged_entry_is_dropped_with_one_warning_and_computed_again(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    calls = []

    def compute():
        calls.append(1)
        return {"x": torch.arange(5.0)}

    cached(path, compute)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"x\.safetensors is damaged") as seen:
        again = cached(path, compute)
    assert len(seen) == 1
    assert len(calls) == 2
    assert again["x"].tolist() == [0, 1, 2, 3, 4]
    assert cached(path, compute)["x"].tolist() == [0, 1, 2, 3, 4]  # whole again, without a warning
    assert len(calls) == 2
    assert names(tmp_path) == ["x.safetensors"]


def test_a_damaged_entry_is_gone_before_it_is_computed_again(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="dropped"):
        assert load_tensors(path) is None
    assert names(tmp_path) == []


def test_a_computation_that_fails_leaves_no_entry(tmp_path):
    def compute():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached(tmp_path / "x.safetensors", compute)
    assert names(tmp_path) == []


def test_two_processes_may_write_one_entry_at_once(tmp_path):
    program = """
import sys, torch, warnings
from pathlib import Path
from cmmlib.storage.cache import load_tensors, save_tensors
warnings.simplefilter("error")
path = Path(sys.argv[1]) / "x.safetensors"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    save_tensors(path, {"x": torch.full((500,), float(sys.argv[2]))})
    assert load_tensors(path)["x"].unique().numel() == 1
"""

    def start(value: int):
        command = [sys.executable, "-c", program, tmp_path, str(value)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start(1) as one, start(2) as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [one.wait(), two.wait()] == [0, 0]
    assert names(tmp_path) == ["x.safetensors"]
    assert load_tensors(tmp_path / "x.safetensors")["x"].unique().item() in (1, 2)


def test_a_missing_entry_is_no_damage(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_tensors(tmp_path / "gone.safetensors") is None


def test_a_digest_depends_on_every_part_and_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest("a", "b"), digest("ab"), digest("b", "a"), digest(["a", "b"]), digest("a", None)}) == 5


@pytest.fixture
def reads(monkeypatch):
    """Names of the files whose content is read for a digest."""
    seen = []
    original = cache.file_digest
    monkeypatch.setattr(cache, "file_digest", lambda file: seen.append(file.name) or original(file))
    return seen


def test_only_changed_files_are_read_again(tmp_path, reads):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text(file.name)
    first = file_digests(tmp_path, files)
    assert len(set(first)) == 3
    assert file_digests(tmp_path, iter(files)) == first
    assert reads == ["a", "b", "c"]
    files[1].write_text("longer")
    second = file_digests(tmp_path, files)
    assert reads == ["a", "b", "c", "b"]
    assert [old == new for old, new in zip(first, second, strict=True)] == [True, False, True]


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    before = file_digests(tmp_path, [file])
    other = tmp_path / "b"
    other.write_text("two")
    os.utime(other, ns=times)
    os.replace(other, file)
    assert file.stat().st_mtime_ns == times[1]
    assert file_digests(tmp_path, [file]) != before


def test_files_are_known_by_their_content_not_by_their_place(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("same")
    digests = [file_digests(tmp_path / folder, [tmp_path / folder / "a"]) for folder in ("one", "two")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"content": {}}', "[" * 10**5])
def test_a_damaged_list_of_digests_is_made_again(tmp_path, own_cache, damage):
    (tmp_path / "a").write_text("a")
    expected = file_digests(tmp_path, [tmp_path / "a"])
    (memo,) = (own_cache / "digests").iterdir()
    memo.write_text(damage)
    assert file_digests(tmp_path, [tmp_path / "a"]) == expected
    assert list(json.loads(memo.read_text())["content"]) == [str(tmp_path / "a")]


def test_digests_do_not_need_a_disk_with_room(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")
    monkeypatch.setattr(os, "replace", disk_full)
    assert len(file_digests(tmp_path, [tmp_path / "a"])[0]) == 64


def test_a_file_that_is_missing_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_digests(tmp_path, [tmp_path / "absent"])


def test_a_file_is_no_cache_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("CMM_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"CMM_CACHE: .*file is no folder"):
        fix_cache_folder()
    assert (tmp_path / "file").read_text() == "mine"
