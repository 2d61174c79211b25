"""Flags of the commands that take a study: one for each field, named and described as the field is."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, get_args

import typer

from cmmlib.study.study import Study


def study_flags(command):
    """Give a command one flag for each field of Study, named and described as the field is."""
    signature = inspect.signature(command, eval_str=True)  # typer reads no annotation that is a text
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(name, field) for name, field in Study.model_fields.items()]
    command.__signature__ = inspect.Signature([*own, *flags])
    command.__annotations__ = {p.name: p.annotation for p in (*own, *flags)}
    return command


def given_study(context: typer.Context, fields: dict[str, Any]) -> Study:
    """The study of the flags that were given; the others are left to its defaults."""
    default = "ParameterSource.DEFAULT"
    return Study.of({n: v for n, v in fields.items() if str(context.get_parameter_source(n)) != default})


def _flag(name: str, field: Any) -> inspect.Parameter:
    kinds = (field.annotation, *get_args(field.annotation))
    kind = next((kind for kind in (int, float) if kind in kinds), str)
    option = typer.Option(
        f"--{name.replace('_', '-')}", help=field.description, show_default=field.default not in (None, "")
    )
    annotation = Annotated[kind | None if field.default is None else kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
