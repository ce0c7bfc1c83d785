"""JSON into dataclasses and back, and the JSON Schema that says so: annotations are the one source."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ggufkit.errors import FormatError

T = TypeVar("T")
_SCALARS: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def load(kind: type[T], value: Any, file: str, where: str = "$") -> T:
    """Make `kind` of parsed JSON; names it does not know are passed over.

    Raises FormatError, naming `file` and the place, for a value of another type or one that is missing.
    """
    made: T = _load(kind, value, file, where)
    return made


def _load(kind: Any, value: Any, file: str, where: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, file, where)
    if origin in (Union, types.UnionType):
        return None if value is None else _load(_not_none(kind), value, file, where)
    if origin is tuple:
        _expect(isinstance(value, list), "an array", file, where)
        return tuple(_load(get_args(kind)[0], item, file, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        _expect(isinstance(value, dict), "an object", file, where)
        return value
    if origin is Literal:
        _expect(value in get_args(kind), f"one of {', '.join(map(str, get_args(kind)))}", file, where)
        return value
    if kind is float and type(value) is int:
        return float(value)
    _expect(type(value) is kind, f"a {_SCALARS[kind]}", file, where)
    return value


def _dataclass(kind: Any, value: Any, file: str, where: str) -> Any:
    _expect(isinstance(value, dict), "an object", file, where)
    hints, made = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            made[field.name] = _load(hints[field.name], value[field.name], file, f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise FormatError(file, f"{where}.{field.name} is missing")
    return kind(**made)


def _expect(true: bool, what: str, file: str, where: str) -> None:
    if not true:
        raise FormatError(file, f"{where} is not {what}")


def _not_none(kind: Any) -> Any:
    return next(option for option in get_args(kind) if option is not type(None))


def dump(value: Any) -> Any:
    """Return what JSON knows of a dataclass; nulls are kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [dump(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): dump(item) for name, item in value.items()}
    return value


def json_schema(kind: Any, title: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a dataclass's JSON."""
    definitions: dict[str, Any] = {}
    reference = _schema(kind, definitions)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": title, **reference, "$defs": definitions}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _object(kind, definitions)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(_not_none(kind), definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0], definitions)}
    if origin is Mapping:
        return {"type": "object"}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    return {"type": _SCALARS[kind]}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}
        hints, fields, told = get_type_hints(kind), dataclasses.fields(kind), _field_texts(kind)
        definitions[name] = {
            "type": "object",
            "description": (kind.__doc__ or "").splitlines()[0],
            "properties": {
                field.name: _schema(hints[field.name], definitions) | {"description": told[field.name]}
                for field in fields
            },
            "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        }
    return {"$ref": f"#/$defs/{name}"}


def _field_texts(kind: Any) -> dict[str, str]:
    """Return the docstrings that stand under a dataclass's fields in its source."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            texts[field.target.id] = str(text.value.value)
    return texts
