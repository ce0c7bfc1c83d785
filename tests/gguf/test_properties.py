"""What holds for every GGUF: read as written, cut and merged without a trace, broken loudly."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ggufkit.errors import FormatError
from ggufkit.gguf.header import ArraySpan, Header, encode_header, pad
from ggufkit.gguf.layout import merge_layout, split_layouts
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.shards import check_set
from ggufkit.gguf.types import TENSOR_TYPES, ValueType
from ggufkit.transfer.sources import header_by_range
from tests.gguf.test_header import EVERY_ARRAY, EVERY_VALUE, TENSORS
from tests.support.ggufs import (
    TYPE_IDS,
    TensorSpec,
    Typed,
    encode_entries,
    gguf_bytes,
    random_data,
    render,
    tensor_infos,
)

some = settings(deadline=None, max_examples=60)
many = settings(deadline=None, max_examples=300)

VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.UINT8: st.integers(0, (1 << 8) - 1),
    ValueType.INT8: st.integers(-1 << 7, (1 << 7) - 1),
    ValueType.UINT16: st.integers(0, (1 << 16) - 1),
    ValueType.INT16: st.integers(-1 << 15, (1 << 15) - 1),
    ValueType.UINT32: st.integers(0, (1 << 32) - 1),
    ValueType.INT32: st.integers(-1 << 31, (1 << 31) - 1),
    ValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: st.text(st.characters(codec="utf-8"), max_size=20),
    ValueType.UINT64: st.integers(0, (1 << 64) - 1),
    ValueType.INT64: st.integers(-1 << 63, (1 << 63) - 1),
    ValueType.FLOAT64: st.floats(allow_nan=False),
}
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}\.[a-z0-9_.]{1,12}", fullmatch=True).filter(
    lambda key: not key.startswith(("split.", "general.", "tokenizer."))
)


def typed_values() -> st.SearchStrategy[Typed]:
    scalars = [values.map(partial(Typed, t)) for t, values in VALUES.items()]
    arrays = [
        st.lists(values, max_size=6).map(partial(Typed, ValueType.ARRAY, element_type=t))
        for t, values in VALUES.items()
    ]
    return st.one_of(*scalars, *arrays)


@st.composite
def tensor_specs(draw: st.DrawFn) -> list[TensorSpec]:
    """Tensors of several types and shapes, none with a trailing dimension of 1."""
    names = draw(st.lists(st.from_regex(r"[a-z0-9_.]{1,63}", fullmatch=True), max_size=12, unique=True))
    specs: list[TensorSpec] = []
    for name in names:
        type_name = draw(st.sampled_from(["F32", "F16", "I8", "F64", "Q8_0", "Q4_K", "IQ2_XXS", "MXFP4"]))
        block_size = TENSOR_TYPES[TYPE_IDS[type_name]].block_size
        rows = draw(st.integers(1, 9 if block_size == 1 else 2)) * block_size
        others = draw(st.lists(st.integers(1, 4), max_size=3))
        while others and others[-1] == 1:
            others.pop()
        specs.append((name, (rows, *others), type_name))
    return specs


@st.composite
def ggufs(draw: st.DrawFn) -> bytes:
    """Whole files, with any alignment up to 4096 or none."""
    kv = draw(st.dictionaries(KEYS, typed_values(), max_size=6))
    alignment = draw(st.sampled_from([None, 1, 2, 8, 32, 64, 4096]))
    seed = draw(st.integers(0, 9))
    return gguf_bytes(tensors=draw(tensor_specs()), kv={**kv, "general.alignment": alignment}, seed=seed)


def read(data: bytes) -> Header:
    return read_header(data, name="test", file_size_bytes=len(data))


def decoded(header: Header) -> tuple[Any, ...]:
    """All that a header says, arrays included."""
    kv = [
        (entry.key, entry.type, header.array(entry.key), entry.value.element_type)
        if isinstance(entry.value, ArraySpan)
        else (entry.key, entry.type, entry.value, None)
        for entry in header.kv.values()
    ]
    return header.version, kv, header.tensors, header.alignment, header.warnings


@some
@given(kv=st.dictionaries(KEYS, typed_values(), max_size=8), specs=tensor_specs())
def test_what_is_written_is_read(kv: dict[str, Typed], specs: list[TensorSpec]) -> None:
    header = read(gguf_bytes(tensors=specs, kv=kv))
    assert list(header.kv) == ["general.architecture", *kv]
    for key, typed in kv.items():
        value = header.array(key) if typed.type is ValueType.ARRAY else header.get(key)
        assert (header.kv[key].type, value) == (typed.type, typed.value)
    infos = tensor_infos(specs)
    assert [(t.name, t.shape, t.type_id, t.n_bytes) for t in header.tensors] == [
        (t.name, t.shape, t.type_id, t.n_bytes) for t in infos
    ]


@some
@given(data=ggufs())
def test_what_is_read_is_written_again(data: bytes) -> None:
    header = read(data)
    again = encode_header(
        [header.raw_kv(key) for key in header.kv], header.tensors, alignment=header.alignment
    )
    assert again == data[: header.data_offset]
    assert header.raw == data[: header.header_end]
    assert header.data_offset == pad(header.header_end, header.alignment)
    assert header.data_offset + header.data_bytes == len(data)


@some
@given(
    data=ggufs(),
    max_tensors=st.none() | st.integers(1, 6),
    max_bytes=st.none() | st.integers(40_000, 80_000),
    no_tensor_first=st.booleans(),
)
def test_cut_and_merged_without_a_trace(
    data: bytes, max_tensors: int | None, max_bytes: int | None, no_tensor_first: bool
) -> None:
    layouts = split_layouts(
        read(data), max_tensors=max_tensors, max_bytes=max_bytes, no_tensor_first=no_tensor_first
    )
    shards = [render(layout, [data]) for layout in layouts]
    found = check_set([read(shard) for shard in shards])
    merged = merge_layout(found)
    assert merged.n_bytes == len(data)
    assert render(merged, shards) == data
    kept = merge_layout(found, keep_split_keys=True)
    whole = render(kept, shards)
    assert whole[read(whole).data_offset :] == data[read(data).data_offset :]


@lru_cache(maxsize=1)
def everything() -> bytes:
    """A file with every value type, arrays of each, a vocabulary, and data."""
    vocabulary = {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0.5, 1.5]}
    return gguf_bytes(tensors=TENSORS, kv={**EVERY_VALUE, **EVERY_ARRAY, **vocabulary})


def read_or_refuse(data: bytes) -> Header | None:
    """Read a whole file; anything but a header or a FormatError of one line fails the test."""
    try:
        return read(data)
    except FormatError as error:
        assert error.message.isprintable()
        assert len(error.message) < 400
        return None


def test_cut_at_any_byte_of_the_header() -> None:
    data = everything()
    for n in range(read(data).data_offset + 1):
        assert read_or_refuse(data[:n]) is None


def test_any_byte_of_the_header_changed() -> None:
    data = everything()
    original = decoded(read(data))
    for position in range(read(data).header_end):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[position] ^= flip
            header = read_or_refuse(bytes(broken))
            assert header is None or decoded(header) != original


@many
@given(st.data())
def test_any_bytes_of_the_header_changed(choices: st.DataObject) -> None:
    data = everything()
    end = read(data).header_end
    broken = bytearray(data)
    for _ in range(choices.draw(st.integers(1, 4))):
        start = choices.draw(st.integers(0, end - 1))
        patch = choices.draw(st.binary(min_size=1, max_size=8))
        broken[start : min(start + len(patch), end)] = patch[: end - start]
    header = read_or_refuse(bytes(broken))
    unchanged = bytes(broken) == data
    assert header is None or (decoded(header) == decoded(read(data))) is unchanged


@some
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    assert read_or_refuse(b"GGUF\x03\0\0\0" + b"\1" * 16 + junk) is None
    assert read_or_refuse(junk) is None


@some
@given(first_read_bytes=st.integers(0, 6000), growth=st.sampled_from([1.0, 1.25, 2, 8]))
def test_any_first_read_gives_the_same_header(first_read_bytes: int, growth: float) -> None:
    data = everything()
    asked: list[int] = []

    def read_start(n_bytes: int) -> bytes:
        asked.append(n_bytes)
        return data[:n_bytes]

    header = header_by_range(
        read_start,
        name="test",
        file_size_bytes=len(data),
        first_read_bytes=first_read_bytes,
        growth=growth,
    )
    assert header == read(data)
    assert asked == sorted(set(asked)), "each read is longer than the one before"
    assert asked[-1] <= len(data)


def test_random_data_are_reproducible_and_padded() -> None:
    infos = tensor_infos([("a", (5,), "F32"), ("b", (3,), "I8")])
    data = random_data(infos, 32, seed=1)
    assert data == random_data(infos, 32, seed=1) != random_data(infos, 32, seed=2)
    assert (len(data), data[20:32], data[35:]) == (64, bytes(12), bytes(29))
    assert encode_entries({"a": None}) == []
