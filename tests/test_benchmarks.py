"""The scripts of benchmarks/ still find what they take from the package."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def missing(source: str) -> list[str]:
    """Names imported from the package, in functions too, and attributes of what was imported, that are not there."""
    tree = ast.parse(source)
    names = {
        imported.asname or imported.name: f"{node.module}.{imported.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cmmlib")
        for imported in node.names
    }
    attributes = {
        f"{names[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    return sorted(name for name in {*names.values(), *attributes} if not is_there(name))


def test_a_name_that_has_moved_is_seen():
    moved = "    from cmmlib.report.chapters import applies"
    lines = ("from cmmlib import functional as F", "def f():", moved, "    F.absent()")
    assert missing("\n".join(lines)) == ["cmmlib.functional.absent", "cmmlib.report.chapters.applies"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_name_that_a_script_takes_is_there(script, monkeypatch):
    assert missing(script.read_text()) == []
    monkeypatch.syspath_prepend(str(FOLDER))
    assert callable(importlib.import_module(script.stem).main)
