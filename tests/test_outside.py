"""What the command line is given from outside: odd paths, bytes that are no text, huge numbers, odd terminals.

Whatever it is, it is one line that names the thing, exit code 2, and never a traceback.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal, write_images
from finished_runs import CMM, cmm, write_embeddings
from PIL import Image
from safetensors.torch import save_file
from synthetic_embeddings import CLASSES, synthetic_arrays

from cmmlib import Study, process
from cmmlib.errors import ChapterError, InputError, ProviderError, visible, why
from cmmlib.report import book
from cmmlib.storage import own_folders
from cmmlib.storage.cache import whole_file, write_text
from cmmlib.storage.text_files import content, parse_json, read_json, read_lines
from cmmlib.study.run_files import replace_table

PROC = Path("/proc/self").exists()
LINUX = pytest.mark.skipif(not PROC, reason="no /proc here")


def one_line(said: str) -> str:
    assert said.startswith("cmm: "), said
    assert said.count("\n") == 1, said
    assert said[:-1].isprintable(), said
    return said


# ---------------------------------------------------------------- paths


def odd_paths(root: Path) -> dict[str, str]:
    """Paths that nobody can read as a file of the right kind, by what is odd about them."""
    (root / "folder").mkdir()
    (root / "file").write_text("")
    (root / "loop").symlink_to("loop")
    (root / "one").symlink_to("other")
    (root / "other").symlink_to("one")
    (root / os.fsdecode(b"latin-\xe9")).write_bytes(b"latin-\xe9\n")
    paths = {
        "missing": root / "none",
        "a folder": root / "folder",
        "an empty file": root / "file",
        "below a file": root / "file" / "x",
        "a long name": root / ("n" * 300),
        "a long path": root / "/".join(["n" * 100] * 60),
        "a link to itself": root / "loop",
        "links in a circle": root / "one" / "x",
        "bytes that are no text": root / os.fsdecode(b"latin-\xe9"),
        "missing bytes": root / os.fsdecode(b"\xff\xfe"),
        "colours": root / "\x1b[31mred\x1b[0m",
        "right to left": root / "\u202egpj.exe",
        "a new line": root / "a\nb",
        "nobody's home": Path("~nosuchuser/x"),
    }
    if PROC:
        paths |= {"no end": Path("/dev/zero"), "nothing": Path("/dev/null"), "memory": Path("/proc/self/mem")}
    return {what: str(path) for what, path in paths.items()}


READ = {  # commands in which PATH is read
    "images": ["run", "--dry-run", "--backbone", "local-dir:x", "--dataset", "folder:PATH"],
    "embeddings": ["run", "--dry-run", "--dataset", "embeddings:PATH"],
    "npz": ["run", "--dry-run", "--dataset", "embeddings:PATH.npz"],
    "shards": ["run", "--dry-run", "--backbone", "local-dir:x", "--dataset", "wds:PATH"],
    "class names": ["run", "--dry-run", "--dataset", "folder:IMAGES", "--class-names", "PATH"],
    "classes": ["run", "--dry-run", "--dataset", "embeddings:GOOD", "--classes", "PATH"],
    "templates": ["run", "--dry-run", "--templates", "PATH"],
    "model": ["run", "--dry-run", "--dataset", "folder:IMAGES", "--backbone", "local-dir:PATH"],
    "weights": ["run", "--dry-run", "--dataset", "folder:IMAGES", "--backbone", "RN50", "--pretrained", "PATH.pt"],
    "data root": ["run", "--dry-run", "--dataset", "imagenet", "--data-root", "PATH"],
    "other runs": ["run", "--dry-run", "--dataset", "embeddings:GOOD", "--compare-with", "PATH"],
    "book": ["book", "PATH"],
    "notebooks": ["notebooks", "PATH", "--out", "out"],
    "verified": ["verify", "PATH"],
    "compared": ["compare", "PATH", "PATH"],
    "classifier": ["classify", "PATH", "--images", "embeddings:GOOD"],
    "measured": ["blazon", "measure", "PATH"],
}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with a good embeddings file, images, and odd paths."""
    root = tmp_path_factory.mktemp("given")
    write_embeddings(root / "good.npz")
    write_images(root / "images")
    return root


@pytest.mark.parametrize("command", READ)
def test_an_odd_path_is_one_line(command, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, path in odd_paths(tmp_path).items():
        words = {"PATH": path, "GOOD": str(given / "good.npz"), "IMAGES": str(given / "images")}
        arguments = READ[command]
        for word, filled in words.items():
            arguments = [argument.replace(word, filled) for argument in arguments]
        said = cmm(*arguments)
        assert (said.code, said.out) == (2, ""), (what, said)
        one_line(said.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["/dev/null", "/dev/full", "/proc/self/x"])
@LINUX
def test_a_device_is_written_over_by_nothing(where, tmp_path):
    kind = Path(where).stat().st_mode if Path(where).exists() else None
    with pytest.raises((OSError, InputError)):
        replace_table(Path(where), "a,b\n")
    with pytest.raises(OSError), whole_file(Path(where)):  # noqa: PT011
        raise AssertionError("begun")
    (tmp_path / "link").symlink_to(where)
    if kind is not None:
        with pytest.raises(FileExistsError):
            write_text(tmp_path / "link", "x")
        assert Path(where).stat().st_mode == kind
    assert (tmp_path / "link").is_symlink()


def test_a_pipe_is_not_written_over_and_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "pipe", "x")
    with subprocess.Popen([sys.executable, "-c", f"open({str(tmp_path / 'pipe')!r}, 'w').write('a\\nb')"]):
        assert read_lines(tmp_path / "pipe", "names") == ["a", "b"]


@LINUX
def test_a_run_is_not_written_into_its_images(tmp_path):
    images = write_images(tmp_path / "images")
    run = cmm("run", "--dataset", f"folder:{images}", "--only", "01", "--out", images / "cat" / "runs")
    assert (run.code, run.out) == (2, "")
    assert "lies in the folder of the images" in run.err
    assert not (images / "cat" / "runs").exists()


def test_a_working_folder_that_is_gone_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cmm("cache", "list").err == "cmm: the working folder has been deleted: change to one that exists\n"


def test_a_line_break_in_a_name_breaks_no_line(tmp_path):
    names = np.array(["a\nmodel: 0 to compute", "A\nmodel: 0 to compute", *map(str, range(CLASSES - 2))])
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "x.npz", classnames=names), "--dry-run").out
    assert "names that stand for more than one class" in said
    assert not [line for line in said.splitlines() if line.startswith("model")]


@pytest.mark.parametrize(("terminal", "shown"), [(True, "red\n"), (False, "\x1b[31mred\n")])
def test_what_goes_to_a_terminal_does_nothing_there(terminal, shown, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    process.show_text("\x1b[31mred\n")
    assert capsys.readouterr().out == shown


def test_what_an_embeddings_file_has_and_nobody_reads_is_told(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", labels=None, label=np.zeros(3))
    assert (
        "arrays that are not used: label; those that are: image_features"
        in cmm("run", "--dataset", data, "--dry-run").out
    )
    arrays = {key: synthetic_arrays()[key] for key in ("image_features", "text_features")}
    names = json.dumps([str(c) for c in range(CLASSES)])
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    save_file(tensors, tmp_path / "x.safetensors", {"classnames": names, "logit_scal": "20", "format": "pt"})
    said = cmm("run", "--dataset", f"embeddings:{tmp_path / 'x.safetensors'}", "--dry-run").out
    assert "arrays that are not used: logit_scal; those that are: image_features" in said
    names = np.array(["a", " ", *map(str, range(CLASSES - 2))])
    refused = cmm("run", "--dataset", write_embeddings(tmp_path / "y.npz", classnames=names), "--dry-run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "class 1 has an empty name" in refused.err
    same = np.array(["Fox", "fox", *map(str, range(CLASSES - 2))])
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "z.npz", classnames=same), "--dry-run").out
    assert "names that stand for more than one class: 'fox'" in said


@pytest.mark.parametrize("twin", ["f\u200box", "fox\ufeff", "\u200efox", "f\u00adox", "\x1bfox", "fo\0x", "f\u200dox"])
def test_names_that_differ_by_what_nobody_sees_are_told(twin, tmp_path):
    names = np.array(["fox", twin, "polar  bear", "polar bear", *map(str, range(CLASSES - 4))])
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "x.npz", classnames=names), "--dry-run").out
    assert "names that stand for more than one class: 'fox', 'polar bear'" in said
    told = f"class names with characters that nobody sees, which are read as part of them: {twin!a}"
    assert (told in said) == ("\u200d" not in twin)  # some scripts need this one


def test_templates_that_are_cut_are_told(tmp_path, tiny_clip):
    (tmp_path / "pool.txt").write_text("a {}\n" + "word " * 100 + "{}\n")
    images = f"folder:{write_images(tmp_path / 'images')}"
    model = ("--backbone", f"local-dir:{tiny_clip}", "--dry-run")
    said = cmm("run", "--dataset", images, *model, "--templates", tmp_path / "pool.txt").out
    assert "templates longer than the text tower reads, and cut there: 'word word" in said
    assert "class names longer" not in said


def test_templates_and_names_in_quotation_marks_are_told(tmp_path, tiny_clip):
    (tmp_path / "pool.txt").write_text('"a {}.",\n"the {}"\na {}\n')
    images = f"folder:{write_images(tmp_path / 'images')}"
    classes = sorted(path.name for path in (tmp_path / "images").iterdir())
    (tmp_path / "names.txt").write_text("".join(f'"{name}",\n' for name in classes))
    model = ("--backbone", f"local-dir:{tiny_clip}", "--dry-run", "--templates", tmp_path / "pool.txt")
    said = cmm("run", "--dataset", images, *model, "--class-names", tmp_path / "names.txt").out
    assert """templates in quotation marks, which are read as part of them: '"a {}.",', '"the {}"'\n""" in said
    assert f"""class names in quotation marks, which are read as part of them: '"{classes[0]}",'""" in said
    assert "quotation marks" not in cmm("run", "--dataset", images, *model[:3]).out


def test_templates_of_a_list_and_given_twice_are_told(tmp_path, tiny_clip):
    (tmp_path / "pool.txt").write_text("1. a {}.\n- the {}\na {}\na {}\n3D {}\n")
    images = f"folder:{write_images(tmp_path / 'images')}"
    model = ("--backbone", f"local-dir:{tiny_clip}", "--dry-run")
    said = cmm("run", "--dataset", images, *model, "--templates", tmp_path / "pool.txt").out
    assert (
        "templates that begin with the mark of a list, which is read as part of them: '1. a {}.', '- the {}'\n" in said
    )
    assert "templates that are there more than once, and count as often: 'a {}'\n" in said
    usual = cmm("run", "--dataset", images, *model).out
    assert "mark of a list" not in usual
    assert "more than once" not in usual


@pytest.mark.parametrize("numbers", [True, False])
def test_class_names_that_are_numbers_are_told(numbers, tmp_path):
    names = np.array([str(c) if numbers or c else "none" for c in range(CLASSES)])
    said = cmm("run", "--dataset", write_embeddings(tmp_path / "z.npz", classnames=names), "--dry-run").out
    assert ("class names are numbers (0, 1, 2" in said) == numbers
    assert ("give --class-names FILE" in said) == numbers


def test_prompts_and_image_ids_that_are_there_twice_are_told(tmp_path):
    arrays = synthetic_arrays()
    ids = np.arange(len(arrays["image_features"]))
    prompts = np.array([f"p {i}" for i in range(len(arrays["text_features"]))])
    ids[5], prompts[1] = ids[2], prompts[0]
    said = cmm(
        "run", "--dataset", write_embeddings(tmp_path / "y.npz", image_ids=ids, prompts=prompts), "--dry-run"
    ).out
    assert "image_ids that are there more than once: '2'\n" in said
    assert "prompts that are there more than once: 'p 0'\n" in said


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    said = cmm("run", "--dataset", f"folder:{tmp_path}/x.zip", "--dry-run").err
    assert f"{tmp_path}/x.zip is a file: give folder:PATH" in said


def test_a_device_is_no_file():
    with pytest.raises(OSError, match="is a device"):
        content(Path("/dev/zero"))
    assert "is a device" in refusal(read_lines, Path("/dev/zero"), "names")
    assert "is a device" in refusal(read_json, Path("/dev/zero"), "x.json")


@pytest.mark.parametrize("field", ["class_names", "out", "compare_with", "dataset", "transcript"])
def test_a_path_that_no_system_has_is_refused_by_its_field(field):
    given = {field: "embeddings:/a\0b" if field == "dataset" else "/a\0b"}
    assert refusal(Study.of, given).startswith(f"{field}: ")


@pytest.mark.parametrize("place", ["loop/x", "n" * 300])
def test_a_book_is_built_in_no_such_place(place, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    def begin() -> None:
        book._claim(tmp_path / place, [tmp_path / "run"])
        own_folders.emptied(tmp_path / place / "book")

    with pytest.raises(OSError, match=place[:4]):
        begin()


# ---------------------------------------------------------------- what the system refuses


ERRORS = [
    getattr(errno, name)
    for name in ("ENAMETOOLONG", "ELOOP", "EIO", "ESTALE", "EMFILE", "EISDIR", "ENODEV", "EACCES", "EFBIG")
]


def test_a_library_that_finds_no_memory_is_a_line(monkeypatch):
    def refuse(*_: object) -> None:
        raise ImportError("libtorch_cuda.so: failed to map segment from shared object")

    monkeypatch.setattr("cmmlib.evaluation.reference.verify", refuse)
    said = cmm("verify", "run")
    assert said.code == 2
    assert "out of memory while a library is loaded" in one_line(said.err)


@pytest.mark.parametrize("number", [*ERRORS, errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_whatever_the_system_refuses_is_a_line_with_the_path(number, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "/some/place")

    monkeypatch.setattr("cmmlib.evaluation.reference.verify", refuse)
    said = cmm("verify", "run")
    assert said.code == 2
    assert f"{os.strerror(number).lower()} (/some/place)" in one_line(said.err)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (shutil.Error([("/a", "/b", "[Errno 13] Permission denied"), ("/c", "/d", "x")]), "/a: [Errno 13] Permission"),
        (shutil.Error("Destination path 'x' already exists"), "already exists"),
        (shutil.SameFileError("'a' and 'a' are the same file"), "the same file"),
        (OSError("without a number"), "without a number"),
        (MemoryError(), "out of memory"),
    ],
    ids=str,
)
def test_an_error_without_a_number_is_a_line_too(error, told, monkeypatch):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("cmmlib.evaluation.reference.verify", refuse)
    said = cmm("verify", "run")
    assert said.code == 2
    assert told.lower() in one_line(said.err).lower()


def test_why_of_an_error_without_words():
    assert why(OSError()) == "oserror"
    assert why(FileNotFoundError(2, "No such file", "x")) == "no such file"


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([CMM, *map(str, arguments)], stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.parametrize("endpoint", ["hub", "", "file:///etc", "http://127.0.0.1:1", "http://[", "ftp://127.0.0.1"])
def test_a_hub_that_is_no_address_is_named(endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    write_images(tmp_path / "images")
    for arguments in (
        ["--dataset", "wds:owner/name-that-is-not-here"],
        ["--dataset", f"folder:{tmp_path / 'images'}", "--backbone", "hf-hub:owner/name-that-is-not-here"],
    ):
        said = cmm("run", "--dry-run", *arguments)
        assert said.code == 2
        assert f"no hub answers at {endpoint}" in one_line(said.err)


@LINUX
def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = command("cache", "list", stdout=full)
    assert (done.returncode, b"no space left on device" in done.stderr) == (2, True)
    one_line(done.stderr.decode())


@LINUX
def test_a_terminal_that_is_full_changes_no_exit_code():
    with open("/dev/full", "w") as full:
        assert subprocess.run([CMM, "verify", "none"], stderr=full, check=False).returncode == 2


def test_a_file_above_the_limit_is_one_line_and_leaves_no_half(tmp_path):
    script = "import resource, sys\nfrom pathlib import Path\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    script += "import cmmlib.study.run_files as f\nfrom cmmlib import cli\n"
    script += "from cmmlib.evaluation import reference\n"
    script += "reference.verify = lambda *_: f.replace_table(Path('table.csv'), 'a,b\\n' * 1000)\n"
    script += "sys.exit(cli._exit_code(['verify', 'x']))"
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    assert (done.returncode, b"file too large" in done.stderr) == (2, True)
    one_line(done.stderr.decode())
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_is_told_nothing():
    out, ours = os.pipe()
    os.close(out)
    done = command("run", "--help", stdout=ours)
    os.close(ours)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_terminal_without_the_letters_of_a_name_gets_them_escaped(tmp_path):
    dataset = write_embeddings(tmp_path / "fox \N{FOX FACE} stra\u00dfe.npz")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    script = "import sys\nfrom cmmlib import cli, process\nprocess.begin()\n"  # as `cmm` begins, and two in one process
    script += "sys.exit([cli._exit_code(['run', '--dry-run', '--dataset', at]) for at in sys.argv[1:]] != [0, 2])"
    done = subprocess.run(
        [sys.executable, "-c", script, dataset, f"{dataset}.npz"], capture_output=True, env=ascii_only, check=False
    )
    assert done.returncode == 0
    assert rb"data set embeddings:fox \U0001f98a stra\xdfe.npz: " in done.stdout
    assert rb"fox \U0001f98a stra\xdfe.npz.npz" in done.stderr
    one_line(done.stderr.decode())


# ---------------------------------------------------------------- text, numbers, JSON


def test_names_in_another_encoding_are_one_line(tmp_path):
    for name in ("names.txt", "pool.txt"):
        (tmp_path / name).write_bytes("caf\u00e9 {}\nrat\n".encode("latin-1"))
    good = write_embeddings(tmp_path / "good.npz")
    for arguments in (["--classes", tmp_path / "names.txt"], ["--templates", tmp_path / "pool.txt"]):
        dataset = ["--dataset", good] if "--classes" in arguments else []
        said = cmm("run", "--dry-run", *dataset, *arguments)
        assert (said.code, "is not UTF-8 text" in one_line(said.err)) == (2, True)
    bad = write_embeddings(tmp_path / "bad.npz", classnames=np.array([b"caf\xe9"] * 12))
    said = cmm("run", "--dry-run", "--dataset", bad)
    assert (said.code, "is not UTF-8 text" in one_line(said.err)) == (2, True)


def test_class_folders_in_another_encoding_are_one_line(tmp_path):
    for name in (b"caf\xe9", b"rat"):
        folder = tmp_path / "images" / os.fsdecode(name)
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    said = cmm("run", "--dry-run", "--dataset", f"folder:{tmp_path / 'images'}", "--backbone", "blazon-mini")
    assert (said.code, "not UTF-8" in one_line(said.err)) == (2, True)


DIGITS = "9" * 5000
NUMBERS = [
    *(["run", f"--{flag}", number] for flag in ("seed", "limit", "worst-k", "batch-size", "workers", "n-described")
      for number in (DIGITS, "1" + "0" * 25)),
    *(["compare", "a", "b", "--worst-k", number] for number in (DIGITS, "1" + "0" * 25)),
    *(["blazon", "pretrain", "--out", "x", f"--{flag}", DIGITS] for flag in ("seed", "samples", "images", "captions")),
    *(["blazon", "pretrain", "--out", "x", f"--{flag}", "1" + "0" * 25] for flag in ("seed", "samples", "captions")),
    *(["cache", "prune", "--size", size] for size in (DIGITS, DIGITS + "GB", "1" + "0" * 400)),
    ["run", "--max-cost", DIGITS],
    ["run", "--max-cost", "nan"],
    ["run", "--dataset", f"blazon:{DIGITS}"],
    ["run", "--only", DIGITS],
    ["run", "--device", f"cuda:{DIGITS}"],
    ["run", "--split", DIGITS],
]  # fmt: skip


@pytest.mark.parametrize("arguments", NUMBERS, ids=lambda arguments: " ".join(arguments)[:40])
def test_a_number_that_no_machine_counts_to_is_one_line(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cmm(*arguments, *(["--dry-run"] if arguments[0] == "run" else []))
    assert (said.code, said.out) == (2, "")
    one_line(said.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[" * 100_000, DIGITS, f'{{"a": {DIGITS}}}', "", "{", b"\xff\xff\xff", b"\x80"])
def test_json_that_python_does_not_read_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


@pytest.mark.parametrize("held", ["[]", "3", "null", '"x"', "{", DIGITS, "[" * 100_000])
def test_a_json_file_that_holds_no_object_is_one_line(held, tmp_path):
    (tmp_path / "x.json").write_text(held)
    assert refusal(read_json, tmp_path / "x.json", "x.json").startswith("x.json cannot be read: it ")


# ---------------------------------------------------------------- what a terminal would obey


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1bcx\x1b(By", "xy"),
        ("\x9b31mx", "31mx"),
        ("a\x08\x07\x00b\x7f", "ab"),
        ("\u202egpj.exe\u202c \u2066x\u2069 \u200f", "gpj.exe x "),
        ("unfinished \x1b", "unfinished "),
        ("unfinished \x1b[", "unfinished "),
        ("unfinished \x1b]0;title", "unfinished "),
        ("lines\nand\ttabs stay, \N{FOX FACE} stra\u00dfe too", "lines\nand\ttabs stay, \N{FOX FACE} stra\u00dfe too"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(text, seen):
    assert visible(text) == seen
    for kind in (InputError, ChapterError, ProviderError):
        assert "\x1b" not in str(kind(text))
    assert str(InputError("a\nb\x1b[2J")) == "a b"


def test_a_remark_about_files_has_no_escape_sequences(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "a.png")
    (tmp_path / "images" / "a" / "x.\x1b[2J\u202etxt").write_text("")
    said = cmm("run", "--dry-run", "--dataset", f"folder:{tmp_path / 'images'}", "--backbone", "blazon-mini")
    assert said.code == 0
    assert "1 .txt" in said.out
    assert said.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("key", ["image_features", "text_features", "labels", "classnames", "image_ids", "backbone"])
@pytest.mark.parametrize("held", [b"", b"a,b\n1,2\n"])
def test_a_member_that_is_no_array_is_refused(held, key, tmp_path):
    arrays = {
        **synthetic_arrays(),
        "backbone": np.array("ViT-B-32"),
        "image_ids": np.arange(len(synthetic_arrays()["image_features"])),
    }
    np.savez(tmp_path / "x.npz", **{name: array for name, array in arrays.items() if name != key})
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr(f"{key}.npy", held)
    refused = cmm("run", "--dataset", f"embeddings:{tmp_path / 'x.npz'}", "--dry-run")
    assert (refused.code, refused.err) == (
        2,
        f"cmm: x.npz: {key} is no array: save the file again with numpy.savez\n",
    )


def test_two_backbones_in_a_file_are_refused(tmp_path):
    data = write_embeddings(tmp_path / "x.npz", backbone=np.array(["ViT-B-32", "ViT-L-14"]))
    refused = cmm("run", "--dataset", data, "--dry-run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "backbone holds 2 texts, ViT-B-32, ViT-L-14: save the one that was used" in refused.err
