"""Files of YAML that a user names, read with one clear line where they cannot be."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cmmlib.errors import InputError, one_line, some, why
from cmmlib.storage.text_files import content

TYPES = {"NoneType": "nothing", "str": "a text", "list": "a list", "int": "a number", "float": "a number"}
_DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE)


class _OtherNumber(yaml.MarkedYAMLError):
    """A number that YAML 1.1 knows and its writer hardly meant."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its other numbers: 010 would be 8, 1:30 would be 90, 1_0 would be 10."""

    def construct_scalar(self, node: Any) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and not _DECIMAL.fullmatch(node.value):
            told = f"{node.value} is no decimal number: write it in digits without 0 before them, or a text in quotes"
            raise _OtherNumber(problem=told, problem_mark=node.start_mark)
        return super().construct_scalar(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # a date that is none
            told = f"{node.value} is none: {error}; write a text in quotes"
            raise yaml.MarkedYAMLError(problem=told, problem_mark=node.start_mark) from None


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The names and values of a YAML file; its numbers are decimal.

    Raises:
        InputError: a file that cannot be read, is no YAML, or holds anything else; `what` begins the line.
    """
    try:
        text = content(path)
        found, twice = yaml.load(text, _Loader), _keys_twice(yaml.compose(text, _Loader))  # safe: of SafeLoader
    except OSError as error:
        raise InputError(f"{what}: cannot read {path}: {why(error)}") from None
    except yaml.YAMLError as error:
        mark, told = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        where = f", line {mark.line + 1}" if mark else ""
        fault = "" if isinstance(error, _OtherNumber) else " is no YAML"
        raise InputError(f"{what}: {path.name}{fault}{where}: {told}") from None
    except (RecursionError, ValueError) as error:  # bytes that are no text, dates that are none
        raise InputError(f"{what}: {path.name} is no YAML: {one_line(error)}") from None
    if twice:
        raise InputError(f"{what}: {path.name} has {some(twice)} twice in one place: leave one out")
    return mapping(found, f"{what}: {path.name} holds")


def mapping(value: Any, what: str) -> dict[str, Any]:
    """A value that holds names and values.

    Raises:
        InputError: it holds anything else; `what` begins the line.
    """
    odd = [key for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
    if odd:
        raise InputError(f"{what} a mapping with the name {odd[0]!r}, which is no text: write it in quotes")
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise InputError(f"{what} {TYPES.get(kind, kind)}, expected names and values")
    return value


def _keys_twice(node: Any) -> list[str]:
    """Keys that a mapping has twice, of which YAML would take the last without a word."""
    twice, left, seen = [], [node], set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue  # a part that is named again, perhaps in itself
        seen.add(id(one))
        if isinstance(one, yaml.MappingNode):
            counts = Counter(key.value for key, _ in one.value if isinstance(key, yaml.ScalarNode))
            twice += [f"{key!r}" for key, n in counts.items() if n > 1]
            left += [value for _, value in one.value]
        elif isinstance(one, yaml.SequenceNode):
            left += one.value
    return twice
