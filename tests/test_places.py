"""Every place in the package that deletes, moves or writes over something, by the calls in its source, and why it may.

A new call site fails the test until somebody has thought about it and written here why nothing of a user's can be lost.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "cmmlib"
OF_PATHS = {"rmtree", "unlink", "rmdir", "removedirs", "renames", "move", "truncate"}
OF_OS = {"remove", "replace", "rename"}  # lists, strings and tables have methods of these names too
WRITING = {"whole_file", "write_text", "write_bytes", "write_json", "save_tensors", "mark", "open_memmap"}
WRITING |= {"copyfile", "copytree", "savefig", "save_svg", "save_file", "symlink_to", "hardlink_to", "mkstemp"}

OWN = "in a folder that carries the program's mark, or was made by it just now"
SWEEP = "in the folder of a sweep, whose name holds a digest of its studies"
RUN = "in the run's own folder, whose name holds a digest, under a name of the program"
CACHE = "in the cache, under a name that only the program gives (storage.cache.is_entry)"
TRAINING = "in a folder that has the recipe of this training: `_claim` refuses any other"
TEMPORARY = "the program's temporary file or folder"

DELETIONS = {
    "blazon/training/pretrain.py:_resume": (["unlink"], TRAINING),
    "data/torchvision.py:_build": (["rmdir"], "the empty folder that torchvision made a moment before"),
    "data/torchvision.py:_download": (["replace"], "onto nothing, or a file with the same bytes"),
    "report/book.py:_claim": (["unlink"], "the stamp of an earlier version, told by what it holds"),
    "report/staging.py:stage": (["unlink"], OWN),
    "report/web_files.py:_prune": (["rmtree", "rmtree", "unlink"], OWN),
    "report/chapters.py:_put_aside": (["rename"], "a reader's notebook, to a name that nothing has"),
    "storage/cache.py:load_tensors": (["unlink"], f"a damaged entry {CACHE}"),
    "storage/cache.py:whole_file": (["replace", "unlink"], f"{TEMPORARY}; where it goes is for WRITES"),
    "storage/cache_maintenance.py:drop_damaged": (["unlink"], f"a damaged memo {CACHE}"),
    "storage/cache_maintenance.py:drop_left_behind": (["unlink"], f"unfinished, {CACHE}"),
    "storage/cache_maintenance.py:prune": (["unlink"], CACHE),
    "storage/locks.py:locked": (["unlink"], "the lock that this process holds"),
    "storage/own_folders.py:_clear": (["rmtree", "unlink"], OWN),
    "storage/own_folders.py:filled": (["rename", "rmdir", "rmdir", "rmtree", "rmtree", "unlink"], OWN),
    "storage/own_folders.py:put": (["move", "rmdir", "unlink"], OWN),
    "study/made_files.py:drop_left_behind": (["unlink"], f"{TEMPORARY} of a process that was killed, {RUN}"),
    "study/made_files.py:forget_lost": (["unlink"], f"a file that the manifest says a chapter made, {RUN}"),
}
WRITES = {
    "blazon/training/model.py:_add_configuration": (["write_bytes"], TEMPORARY),
    "blazon/training/model.py:_keep": (["whole_file", "write_bytes"], CACHE),
    "blazon/training/pretrain.py:_checkpoint": (["whole_file"], TRAINING),
    "blazon/training/pretrain.py:_claim": (["write_text"], "the recipe: nothing is there, or the same recipe"),
    "blazon/training/pretrain.py:_finish": (["save_tensors", "write_text", "write_text"], TRAINING),
    "blazon/training/pretrain.py:_resume": (["write_text"], TRAINING),
    "blazon/training/pairs.py:prepare": (["open_memmap", "write_text"], TRAINING),
    "blazon/training/pretrain.py:pretrain": (["open"], TRAINING),
    "blazon/training/pretrain.py:write_frequencies": (["whole_file"], TRAINING),
    "process.py:_open_streams": (["open"], "the null device"),
    "estimators/classifier_file.py:save_classifier": (["save_tensors"], "over nothing but a classifier"),
    "models/embed.py:_tried_again": (["save_tensors"], f"a shard with fewer images missing, {CACHE}"),
    "models/embed_texts.py:embed_texts": (["save_tensors"], CACHE),
    "models/backbones.py:_opened": (["copyfile"], TEMPORARY),
    "models/state_dicts.py:readable": (["save_file"], TEMPORARY),
    "report/book.py:_claim": (["mark"], "a folder that an earlier version made, or an empty one"),
    "report/book.py:build": (["mark"], OWN),
    "report/placed_chapters.py:place": (["write"], OWN),
    "report/staging.py:stage": (["write_text", "write_text", "write_text"], OWN),
    "report/chapters.py:_write": (["whole_file", "write"], f"{RUN}; what a reader wrote there was put aside"),
    "report/pages.py:show_figure": (["save_svg", "whole_file"], RUN),
    "report/kernels.py:serve": (["write_text"], "the name of the process, in the system's list"),
    "report/plots/style.py:save_svg": (["whole_file", "write_text"], "where its callers say: they are here"),
    "report/plots/style.py:save": (["savefig"], TEMPORARY),
    "report/staging.py:add_part": (["write_text"], OWN),
    "report/web_files.py:_keep_used_icons": (["write_text"], OWN),
    "report/web_files.py:lighten": (["write_text"], OWN),
    "report/web_pages.py:finish": (["write_text"], OWN),
    "report/web_pages.py:_add_narrow": (["copyfile"], OWN),
    "report/sweep_pages.py:write": (["write_text", "write_text"], OWN),
    "report/classroom.py:_pack": (["whole_file"], f"{OWN}, of the notebooks"),
    "report/slides.py:place": (["write_text"], OWN),
    "report/slides.py:write": (["write_text"], OWN),
    "report/student_notebooks.py:_zip": (["whole_file"], OWN),
    "report/student_notebooks.py:_write_chapter": (["whole_file", "write"], OWN),
    "storage/cache.py:cached": (["save_tensors"], CACHE),
    "storage/cache.py:save_tensors": (["whole_file", "write_bytes"], "where its caller says: all are here"),
    "storage/cache.py:whole_file": (["mkstemp"], TEMPORARY),
    "storage/cache.py:write_memo": (["write_text"], CACHE),
    "storage/cache.py:write_text": (["whole_file", "write_text"], "where its caller says: all are here"),
    "storage/csv_files.py:write_csv": (["open"], "where its caller says: all are here"),
    "storage/locks.py:_acquire": (["write_text"], "the lock that this process holds"),
    "storage/own_folders.py:copy": (["copyfile"], OWN),
    "storage/own_folders.py:emptied": (["mark"], OWN),
    "storage/own_folders.py:filled": (["mark"], OWN),
    "storage/own_folders.py:_write_list": (["write_text"], "the list beside the mark; its callers fill the folder"),
    "storage/own_folders.py:mark": (["write_text"], "the mark of a folder; its callers are here"),
    "study/run_files.py:merge_columns": (["whole_file"], RUN),
    "study/run_files.py:merge_sections": (["write_json"], RUN),
    "study/run_files.py:replace_table": (
        ["write_text"],
        "over nothing but an empty file or a table with these columns",
    ),
    "study/run_files.py:write_json": (["write_text"], RUN),
    "study/run_files.py:write_manifest": (["write_json"], RUN),
    "sweeps/results.py:draw": (["save_svg", "whole_file"], SWEEP),
    "sweeps/results.py:write_results": (["whole_file", "write_json"], SWEEP),
    "texts/transcripts.py:require_appendable": (["open"], "adds nothing to a transcript that is there"),
    "texts/transcripts.py:append": (["open"], "adds to a transcript, and takes nothing out of it"),
}


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module, with the innermost function that makes it."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            yield function, node
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")), "")


def name_and_owner(call: ast.Call) -> tuple[str, str]:
    """`unlink` and `path` of `path.unlink()`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr, ast.unparse(call.func.value)
    return (call.func.id, "") if isinstance(call.func, ast.Name) else ("", "")


def deletes(call: ast.Call) -> bool:
    """Whether a call deletes or moves a file: `Path.replace` and `Path.rename` have one argument, strings' has two."""
    name, owner = name_and_owner(call)
    if name in OF_PATHS or (name in OF_OS and owner == "os"):
        return True
    return name in ("replace", "rename") and bool(owner) and len(call.args) == 1 and not call.keywords


def writes(call: ast.Call) -> bool:
    """Whether a call makes a file, or writes over one."""
    name, owner = name_and_owner(call)
    if name == "open" and owner in ("", "io", "os"):
        modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        return any(set(getattr(mode, "value", "?")) & set("wax+?") for mode in modes)
    return name in WRITING or (name, owner) in {("copy", "shutil"), ("copy2", "shutil"), ("write", "nbformat")}


def sites(kind) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(ROOT.rglob("*.py")):
        for function, call in calls(file):
            if kind(call):
                place = f"{file.relative_to(ROOT).as_posix()}:{function}"
                found.setdefault(place, []).append(name_and_owner(call)[0])
    return {place: sorted(names) for place, names in found.items()}


def test_every_place_that_deletes_or_moves_something_is_known():
    assert sites(deletes) == {place: names for place, (names, _) in DELETIONS.items()}


def test_every_place_that_writes_something_is_known():
    assert sites(writes) == {place: names for place, (names, _) in WRITES.items()}
