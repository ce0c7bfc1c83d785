"""The result file on disk: read with every name and type checked, written whole or not at all."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from ggufkit.bench.load import dump, json_schema, load
from ggufkit.bench.result import SCHEMA, BenchResult
from ggufkit.errors import FormatError, NotFoundError
from ggufkit.transfer.disk import write_atomic

MAX_FILE_BYTES = 256 << 20
SCHEMA_FILE = "bench-1.schema.json"


def read_result(path: Path) -> BenchResult:
    """Read a result file; raises NotFoundError, and FormatError for what is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"{path}: no such file", hint="ggufkit bench --model NAME -o FILE") from None
    if len(data) > MAX_FILE_BYTES:
        raise FormatError(str(path), f"more than {MAX_FILE_BYTES >> 20} MiB: not a bench result")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(str(path), f"not JSON: {error}") from None
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise FormatError(str(path), f"its schema is {found!r}, not {SCHEMA}")
    return load(BenchResult, document, str(path))


def write_result(path: Path, result: BenchResult) -> None:
    """Write a result file, in place of one that is there."""
    text = json.dumps(dump(result), indent=1, ensure_ascii=False, allow_nan=False)
    # a lone half of a surrogate pair can come out of a server's JSON, and is no UTF-8
    write_atomic(path, (text + "\n").encode(errors="backslashreplace"))


def published_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, as it is shipped."""
    text = files("ggufkit.bench").joinpath(SCHEMA_FILE).read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def current_schema() -> dict[str, Any]:
    """Return the JSON Schema that the code makes; a test holds the shipped one to it."""
    return json_schema(BenchResult, SCHEMA)
