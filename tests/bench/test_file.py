"""The result file: one source of truth for its types, its schema and its reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggufkit.bench.file import current_schema, published_schema, read_result, write_result
from ggufkit.bench.load import dump
from ggufkit.errors import FormatError, NotFoundError
from tests.bench.made import made
from tests.bench.schema_check import faults


def test_the_published_schema_is_the_code_s() -> None:
    assert published_schema() == current_schema()
    assert published_schema()["title"] == "ggufkit.bench/1"
    for name, definition in published_schema()["$defs"].items():
        assert definition["properties"] and definition["description"], name
        assert all(field["description"] for field in definition["properties"].values()), name


def test_what_is_written_is_read_again_and_is_as_the_schema_says(tmp_path: Path) -> None:
    result = made()
    write_result(tmp_path / "r.json", result)
    assert read_result(tmp_path / "r.json") == result
    schema = published_schema()
    assert faults(json.loads((tmp_path / "r.json").read_bytes()), schema, schema) == []
    text = (tmp_path / "r.json").read_text("utf-8")
    assert text.startswith('{\n "schema": "ggufkit.bench/1"') and "落叶" in text


def test_half_a_character_is_still_a_file(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", made(answer="\ud83d and \x1b[31m"))
    (one,) = read_result(tmp_path / "r.json").models[0].questions[0].runs[:1]
    assert one.answer == "\ud83d and \x1b[31m"


CHANGES: list[tuple[list[Any], Any]] = [
    (["schema"], "ggufkit.bench/2"),
    (["started_at"], None),
    (["models"], {}),
    (["models", 0, "name"], 7),
    (["models", 0, "load", "source"], "guess"),
    (["models", 0, "questions", 0, "runs", 0, "status"], "fine"),
    (["models", 0, "questions", 0, "runs", 0, "client", "end_s"], "soon"),
    (["models", 0, "questions", 0, "runs", 0, "tokens", "n_generated_tokens"], True),
    (["models", 0, "questions", 0, "runs", 0, "tokens", "n_generated_tokens"], 2.5),
    (["models", 0, "questions", 0, "runs", 0, "server", "raw"], []),
    (["host", "ram_bytes"], "much"),
]


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_reader_and_schema_refuse_the_same(tmp_path: Path, path: list[Any], value: Any) -> None:
    document = json.loads(json.dumps(dump(made())))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (tmp_path / "r.json").write_text(json.dumps(document))
    schema = published_schema()
    assert faults(document, schema, schema) != []
    with pytest.raises(FormatError):
        read_result(tmp_path / "r.json")


def test_names_of_a_later_version_are_passed_over_and_missing_ones_are_not(tmp_path: Path) -> None:
    document = dump(made())
    document["models"][0]["later"] = {"x": 1}
    (tmp_path / "r.json").write_text(json.dumps(document))
    assert read_result(tmp_path / "r.json") == made()
    del document["models"][0]["summary"]
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"models\[0\].summary is missing"):
        read_result(tmp_path / "r.json")


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"7", b"[" * 100_000, b'{"schema": "x"}'])
def test_other_files_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(FormatError):
        read_result(tmp_path / "r.json")
    with pytest.raises(NotFoundError):
        read_result(tmp_path / "none.json")
