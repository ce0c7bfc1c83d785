"""Headers: ours and those of the `gguf` package, each read by the other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import pytest

from ggufkit.gguf.header import ArraySpan, Header, encode_kv, encode_string, pad, shown
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.types import ValueType
from ggufkit.transfer.sources import open_header
from tests.gguf.measured import run_measured
from tests.support.ggufs import Typed, gguf_bytes, make_gguf

SCALARS: dict[ValueType, list[Any]] = {
    ValueType.UINT8: [0, 255],
    ValueType.INT8: [-128, 127],
    ValueType.UINT16: [0, 65_535],
    ValueType.INT16: [-32_768, 32_767],
    ValueType.UINT32: [0, (1 << 32) - 1],
    ValueType.INT32: [-1 << 31, (1 << 31) - 1],
    ValueType.FLOAT32: [0.5, -math.inf, 2.0**-149],
    ValueType.BOOL: [True, False],
    ValueType.STRING: ["plain", "深度求索 \U0001f433", "two\nlines"],
    ValueType.UINT64: [0, (1 << 64) - 1],
    ValueType.INT64: [-1 << 63, (1 << 63) - 1],
    ValueType.FLOAT64: [0.1, math.inf],
}
EVERY_VALUE = {
    f"test.{t.name.lower()}.{i}": Typed(t, v) for t, vs in SCALARS.items() for i, v in enumerate(vs)
}
EVERY_ARRAY = {f"test.array.{t.name.lower()}": Typed(ValueType.ARRAY, vs, t) for t, vs in SCALARS.items()}
TENSORS = [
    ("a.weight", (256, 3), "Q4_K"),
    ("b.weight", (64, 2, 2), "Q8_0"),
    ("c.weight", (5,), "F32"),
    ("d.weight", (2, 2, 2, 3), "F16"),
    ("e.weight", (32,), "MXFP4"),
    ("f.weight", (3, 7), "BF16"),
]


@pytest.fixture(params=[None, 8, 64, 4096], ids=lambda n: f"alignment {n}")
def everything(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of ours with every value type and arrays of each, in several alignments."""
    kv = {**EVERY_VALUE, **EVERY_ARRAY, "general.alignment": request.param}
    return make_gguf(tmp_path / "ours.gguf", tensors=TENSORS, kv=kv)


def test_gguf_reads_our_values(everything: Path) -> None:
    theirs = gguf.GGUFReader(everything)
    for key, typed in {**EVERY_VALUE, **EVERY_ARRAY}.items():
        field = theirs.get_field(key)
        assert field is not None
        assert field.contents() == typed.value
        last = typed.type if typed.element_type is None else typed.element_type
        assert (field.types[0].value, field.types[-1].value) == (typed.type.value, last.value)


def test_gguf_reads_our_tensors(everything: Path) -> None:
    ours, theirs = open_header(everything), gguf.GGUFReader(everything)
    assert theirs.data_offset == ours.data_offset
    assert [_theirs(t) for t in theirs.tensors] == [_ours(ours, i) for i in range(len(TENSORS))]
    assert [(t.name, t.shape) for t in ours.tensors] == [(name, shape) for name, shape, _ in TENSORS]


def _theirs(tensor: Any) -> tuple[Any, ...]:
    shape = tuple(int(n) for n in tensor.shape)
    return tensor.name, shape, int(tensor.tensor_type), int(tensor.n_bytes), int(tensor.data_offset)


def _ours(header: Header, i: int) -> tuple[Any, ...]:
    t = header.tensors[i]
    return t.name, t.shape, t.type_id, t.n_bytes, header.data_offset + t.offset


@pytest.mark.parametrize("alignment", [None, 64, 4096])
def test_we_read_what_gguf_writes(alignment: int | None, tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    _write_theirs(path, alignment)
    header, reader = open_header(path), gguf.GGUFReader(path)
    assert header.warnings == ()
    assert header.alignment == (alignment or 32)
    for key, typed in EVERY_VALUE.items():
        assert (header.kv[key].type, header.get(key)) == (typed.type, typed.value)
    for key, typed in EVERY_ARRAY.items():
        assert isinstance(header.get(key), ArraySpan)
        assert header.array(key) == typed.value
    assert [_ours(header, i) for i in range(len(TENSORS))] == [_theirs(t) for t in reader.tensors]


def _write_theirs(path: Path, alignment: int | None) -> None:
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, typed in {**EVERY_VALUE, **EVERY_ARRAY}.items():
        sub_type = None if typed.element_type is None else gguf.GGUFValueType(typed.element_type)
        writer.add_key_value(key, typed.value, gguf.GGUFValueType(typed.type), sub_type)
    for name, shape, type_name in TENSORS:
        type_ = gguf.GGMLQuantizationType[type_name]
        rows = gguf.quant_shape_to_byte_shape(shape[::-1], type_)
        writer.add_tensor(name, numpy.ones(rows, numpy.uint8), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_gguf_writes_we_would_write_the_same(tmp_path: Path) -> None:
    """Header and all, byte for byte."""
    path = tmp_path / "theirs.gguf"
    _write_theirs(path, None)
    ours = gguf_bytes(tensors=TENSORS, kv={**EVERY_VALUE, **EVERY_ARRAY})
    header = open_header(path)
    assert path.read_bytes()[: header.data_offset] == ours[: header.data_offset]
    assert header.data_offset + header.data_bytes == len(ours) == path.stat().st_size


def test_gguf_writes_single_numbers_without_dimensions(tmp_path: Path) -> None:
    import numpy

    path = tmp_path / "scalar.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", numpy.array(1.5, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (info,) = open_header(path).tensors
    assert (info.shape, info.n_bytes) == ((1,), 4)


def read(data: bytes) -> Header:
    return read_header(data, name="test", file_size_bytes=len(data))


def test_looking_things_up() -> None:
    kv = {"a.string": "text", "a.number": 7, "a.flag": True, "a.list": ["x", "y", "z"]}
    header = read(gguf_bytes(tensors=[], kv=kv))
    assert header.get("a.number") == 7
    assert header.get("a.missing", "else") == "else"
    assert header.string("a.string") == "text"
    assert header.string("a.number", "else") == "else"
    assert header.integer("a.number") == 7
    assert header.integer("a.flag") is None, "a bool is no number"
    assert header.integer("a.string", 1) == 1
    assert header.array("a.list") == ["x", "y", "z"]
    assert header.array("a.list", limit=2) == ["x", "y"]
    assert header.array("a.number") == header.array("a.missing") == []
    assert header.raw_kv("a.number") == encode_kv("a.number", ValueType.UINT32, 7)


def test_bytes_that_are_no_utf8_survive() -> None:
    latin = "caf\udce9"  # a 0xE9 byte, as surrogateescape keeps it
    header = read(gguf_bytes(tensors=[], kv={"a.b": latin, "a.list": [latin]}))
    assert header.get("a.b") == latin
    assert header.array("a.list") == [latin]
    assert encode_string(latin)[8:] == b"caf\xe9"


def test_versions_2_and_3_have_one_layout() -> None:
    two, three = read(gguf_bytes(version=2)), read(gguf_bytes(version=3))
    assert (two.version, three.version) == (2, 3)
    assert (two.tensors, two.kv) == (three.tensors, three.kv)


def test_an_array_needs_its_element_type() -> None:
    with pytest.raises(ValueError, match="element type"):
        encode_kv("a.b", ValueType.ARRAY, [1])


@pytest.mark.parametrize(("n", "alignment", "padded"), [(0, 32, 0), (1, 32, 32), (32, 32, 32), (33, 8, 40)])
def test_pad(n: int, alignment: int, padded: int) -> None:
    assert pad(n, alignment) == padded


@pytest.mark.parametrize(
    ("text", "safe"),
    [("a.b", "a.b"), ("\x1b[2J", "\\x1b[2J"), ("k" * 81, "k" * 79 + "…"), ("\n" * 80, "\\n" * 39 + "\\…")],
)
def test_names_in_messages_are_printable_and_short(text: str, safe: str) -> None:
    assert shown(text) == safe


def test_reading_a_header_imports_no_numpy(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "model.gguf")
    code = """
import sys
from pathlib import Path
from ggufkit.transfer.sources import open_header
result = len(open_header(Path(sys.argv[1])).tensors)
"""
    measured = run_measured(code, str(path))
    assert measured["result"] == 21
    assert {"gguf", "numpy", "huggingface_hub", "modelscope"}.isdisjoint(measured["modules"])
