"""Our type tables against those of the `gguf` package, and how a type that we lack is found."""

from __future__ import annotations

import struct

import gguf.constants as oracle
import pytest

from ggufkit.gguf.types import (
    FILE_TYPES,
    REMOVED_TENSOR_TYPES,
    SIZES_BYTES,
    STRUCT_FORMATS,
    TENSOR_TYPES,
    TensorType,
    ValueType,
    tensor_type,
)
from tests.gguf.measured import run_measured

GUESSED = 1024  # LlamaFileType.GUESSED: a flag of llama.cpp's loader, never written


def test_value_types() -> None:
    assert {t.name: t.value for t in ValueType} == {t.name: t.value for t in oracle.GGUFValueType}


def test_tensor_types() -> None:
    theirs = {t.value: TensorType(t.name, *oracle.GGML_QUANT_SIZES[t]) for t in oracle.GGMLQuantizationType}
    assert theirs == TENSOR_TYPES


def test_removed_types_are_in_no_table() -> None:
    theirs = {t.value for t in oracle.GGMLQuantizationType}
    assert set(range(max(theirs) + 1)) - theirs == REMOVED_TENSOR_TYPES
    assert [tensor_type(n) for n in REMOVED_TENSOR_TYPES] == [None] * len(REMOVED_TENSOR_TYPES)


def test_file_types() -> None:
    theirs = {
        t.value: t.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for t in oracle.LlamaFileType
        if t.value != GUESSED
    }
    assert theirs == FILE_TYPES


def test_scalar_sizes_are_those_of_their_formats() -> None:
    assert {t: struct.calcsize("<" + fmt) for t, fmt in STRUCT_FORMATS.items()} == SIZES_BYTES
    assert set(ValueType) - set(SIZES_BYTES) == {ValueType.STRING, ValueType.ARRAY}


@pytest.mark.parametrize(("type_id", "bits"), [(0, 32.0), (8, 8.5), (12, 4.5), (16, 2.0625), (39, 4.25)])
def test_bits_per_weight(type_id: int, bits: float) -> None:
    assert TENSOR_TYPES[type_id].bits_per_weight == bits


def test_a_type_that_we_lack_is_taken_from_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    known = TENSOR_TYPES[12]
    monkeypatch.delitem(TENSOR_TYPES, 12)
    assert tensor_type(12) == known


@pytest.mark.parametrize("type_id", [-1, 255, 1 << 16, 1 << 31])
def test_a_type_that_nobody_knows(type_id: int) -> None:
    assert tensor_type(type_id) is None


_LOOK_UP = """
import sys
from ggufkit.gguf.types import TENSOR_TYPES, tensor_type
{prepare}
result = tensor_type(int(sys.argv[1])) is not None
"""


@pytest.mark.parametrize(
    ("prepare", "type_id", "found", "imported"),
    [
        ("", 12, True, False),
        ("", 4, False, False),
        ("", 1 << 20, False, False),
        ("", 255, False, True),
        ("del TENSOR_TYPES[12]", 12, True, True),
        ("del TENSOR_TYPES[12]; sys.modules['gguf'] = None", 12, False, False),
    ],
)
def test_gguf_is_imported_for_unknown_types_only(
    prepare: str, type_id: int, found: bool, imported: bool
) -> None:
    measured = run_measured(_LOOK_UP.format(prepare=prepare), str(type_id))
    assert measured["result"] is found
    assert ("gguf.constants" in measured["modules"]) is imported
    assert ("numpy" in measured["modules"]) is imported
