"""The order of the packages: a module imports from its own or from lower ones only, and nothing runs in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the lowest to the highest. CONTRIBUTING.md draws it; this is the one place that says it.
FLOORS = (
    "errors",
    "process",
    "storage",
    "functional",
    "estimators",
    "texts",
    "blazon",
    "data",
    "models",
    "study",
    "evaluation",
    "report",
    "sweeps",
    "cli",
)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in (ROOT / "cmmlib").rglob("*.py")}


def imports_of(name: str) -> set[str]:
    """Modules of this package that a module imports, in functions and for the type checker too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= children & set(MODULES) or {node.module}
    return {module for module in found if module in MODULES} - {name}


IMPORTS = {name: imports_of(name) for name in MODULES}


def floor_of(name: str) -> int:
    """The package itself stands on top: it gathers the public names."""
    parts = name.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 else len(FLOORS)


def test_every_part_of_the_package_has_a_floor():
    assert {name.split(".")[1] for name in MODULES if "." in name} == set(FLOORS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_from_its_own_floor_or_from_below(name):
    assert {module for module in IMPORTS[name] if floor_of(module) > floor_of(name)} == set()


def test_no_import_runs_in_a_circle():
    graph = {name: {m for m in modules if m != name.rpartition(".")[0]} for name, modules in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_drawing_in_contributing_has_the_floors_in_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = [
        line.split()[0].rstrip("/").removesuffix(".py") for line in text.split("```")[1].splitlines() if line.strip()
    ]
    assert drawn[1:] == list(reversed(FLOORS))
