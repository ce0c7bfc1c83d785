"""The part of JSON Schema (2020-12) that our schema uses, checked: anything else in it is an error."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, type] = {"string": str, "object": dict, "array": list, "null": type(None), "boolean": bool}
_KNOWN = {"$schema", "$defs", "$ref", "title", "description", "type", "properties", "required", "items"}
_KNOWN |= {"anyOf", "enum"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> list[str]:
    """Return what in `value` is not as the schema says."""
    assert schema.keys() <= _KNOWN, f"{where}: {schema.keys() - _KNOWN}"
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    if "anyOf" in schema:
        options = [faults(value, option, root, where) for option in schema["anyOf"]]
        return [] if [] in options else options[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{where}: {value!r}"]
    if not _is(value, schema["type"]):
        return [f"{where}: {value!r} is no {schema['type']}"]
    if isinstance(value, list):
        items = schema["items"]
        return [f for i, item in enumerate(value) for f in faults(item, items, root, f"{where}[{i}]")]
    return _members(value, schema, root, where) if isinstance(value, dict) else []


def _members(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], where: str) -> list[str]:
    found = [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, member in schema.get("properties", {}).items():
        if name in value:
            found += faults(value[name], member, root, f"{where}.{name}")
    return found


def _is(value: Any, name: str) -> bool:
    if name in ("number", "integer"):
        kinds: tuple[type, ...] = (int, float) if name == "number" else (int,)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, _TYPES[name])
