"""Layouts: what they describe, where alignments differ, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufkit.errors import FormatError, UsageError
from ggufkit.gguf.header import Header, encode_header, pad
from ggufkit.gguf.layout import (
    MAX_PADDING_BYTES,
    Layout,
    Literal,
    Span,
    data_segments,
    join_layout,
    merge_layout,
    split_layouts,
    whole_file,
)
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.shards import ShardSet, check_set
from ggufkit.gguf.types import ValueType
from tests.support.ggufs import (
    TensorSpec,
    Typed,
    encode_entries,
    gguf_bytes,
    random_data,
    render,
    tensor_infos,
)

ROWS: list[TensorSpec] = [
    ("token_embd.weight", (32, 3), "Q8_0"),
    ("blk.0.attn_norm.weight", (5,), "F32"),
    ("blk.0.ffn_up.weight", (33,), "F16"),
    ("blk.0.ffn_down.weight", (7,), "I8"),
    ("output.weight", (3, 3, 3), "F32"),
]
ALIGNMENTS = [8, 16, 32, 64, 4096, 65_536]


def read(data: bytes, name: str = "test") -> Header:
    return read_header(data, name=name, file_size_bytes=len(data))


def cut(data: bytes, **limits: int | bool | None) -> list[bytes]:
    return [render(layout, [data]) for layout in split_layouts(read(data), **limits)]  # type: ignore[arg-type]


def set_of(files: list[bytes]) -> ShardSet:
    return check_set([read(data, f"shard {i + 1}") for i, data in enumerate(files)])


def tensor_data(data: bytes) -> dict[str, bytes]:
    header = read(data)
    starts = {t.name: header.data_offset + t.offset for t in header.tensors}
    return {t.name: data[starts[t.name] : starts[t.name] + t.n_bytes] for t in header.tensors}


# ---- the pieces ----


def test_a_layout_places_its_segments() -> None:
    layout = Layout((Literal(b"abc"), Span(0, 10, 5), Span(1, 0, 2)))
    assert layout.n_bytes == 10
    assert list(layout.placed()) == [
        (0, Literal(b"abc")),
        (3, Span(0, 10, 5)),
        (8, Span(1, 0, 2)),
    ]


def test_whole_files_and_raw_parts() -> None:
    assert render(whole_file(3), [b"abc"]) == b"abc"
    assert render(join_layout([3, 2, 4]), [b"abc", b"de", b"fghi"]) == b"abcdefghi"


# ---- alignments ----


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_alignments_survive_splitting_and_merging(alignment: int) -> None:
    """llama-gguf-split writes an unreadable shard 1 for 64, and wrong bytes in all tensors for 8."""
    original = gguf_bytes(tensors=ROWS, kv={"general.alignment": alignment})
    shards = cut(original, max_tensors=2)
    assert [read(shard).alignment for shard in shards] == [alignment, 32, 32]
    whole = {name: data for shard in shards for name, data in tensor_data(shard).items()}
    assert whole == tensor_data(original)
    assert render(merge_layout(set_of(shards)), shards) == original
    kept = render(merge_layout(set_of(shards), keep_split_keys=True), shards)
    assert tensor_data(kept) == tensor_data(original)
    assert read(kept).alignment == alignment


def test_each_shard_may_have_its_own_alignment() -> None:
    original = gguf_bytes(tensors=ROWS)
    shards = [
        gguf_bytes(
            arch="llama" if i == 0 else None,
            tensors=ROWS[start:end],
            kv={
                "general.alignment": alignment,
                "split.no": Typed(ValueType.UINT16, i),
                "split.tensors.count": Typed(ValueType.INT32, 5),
                "split.count": Typed(ValueType.UINT16, 3),
            },
            seed=i,
        )
        for i, (start, end, alignment) in enumerate([(0, 1, None), (1, 3, 128), (3, 5, 8)])
    ]
    merged = render(merge_layout(set_of(shards)), shards)
    assert read(merged).alignment == 32
    assert len(merged) == len(original)
    assert tensor_data(merged) == {n: d for shard in shards for n, d in tensor_data(shard).items()}


@pytest.mark.parametrize("alignment", [8, 32, 64])
def test_a_source_without_its_last_padding(alignment: int) -> None:
    rows = [*ROWS, ("last.weight", (1,), "F32")]
    padded = gguf_bytes(tensors=rows, kv={"general.alignment": alignment})
    header = read(padded)
    last = header.tensors[-1]
    short = padded[: header.data_offset + last.offset + last.n_bytes]
    assert len(short) < len(padded)
    shards = cut(short, max_tensors=3)
    assert render(merge_layout(set_of(shards)), shards) == padded


def test_padding_beyond_all_measure_is_refused() -> None:
    header = read(gguf_bytes(tensors=ROWS))
    n = MAX_PADDING_BYTES // (1 << 20)
    with pytest.raises(FormatError, match="257 tensors to be aligned to 1,048,576 bytes each"):
        data_segments(0, header, [header.tensors[0]] * (n + 1), 1 << 20)
    assert len(data_segments(0, header, header.tensors, 1 << 20)) == 2 * len(ROWS)


def test_no_tensors_no_segments() -> None:
    assert data_segments(0, read(gguf_bytes(tensors=[])), [], 32) == []


# ---- the order and form of what is written ----


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_split_keys_in_any_order_and_place(order: tuple[int, int, int]) -> None:
    split = [("split.no", 0), ("split.tensors.count", 5), ("split.count", 1)]
    kv = {"before.it": 1, **{split[i][0]: Typed(ValueType.UINT16, split[i][1]) for i in order}, "after.it": 2}
    shard = gguf_bytes(tensors=ROWS, kv=kv)
    merged = render(merge_layout(set_of([shard])), [shard])
    assert merged == gguf_bytes(tensors=ROWS, kv={"before.it": 1, "after.it": 2})
    kept = render(merge_layout(set_of([shard]), keep_split_keys=True), [shard])
    others = [key for key in read(shard).kv if key != "split.count"]
    assert list(read(kept).kv) == [*others, "split.count"]
    assert read(kept).get("split.count") == 0


def test_shards_carry_only_what_belongs_to_them() -> None:
    first, *later = cut(gguf_bytes(tensors=ROWS, kv={"a.b": "c"}), max_tensors=2)
    split = ["split.no", "split.tensors.count", "split.count"]
    assert list(read(first).kv) == ["general.architecture", "a.b", *split]
    assert [list(read(shard).kv) for shard in later] == [split, split]
    assert [read(shard).get("split.no") for shard in (first, *later)] == [0, 1, 2]


def test_trailing_ones_are_dropped_as_ggml_does() -> None:
    (shard,) = cut(gguf_bytes(tensors=[("a", (4, 1, 1), "F32"), ("b", (1, 1), "F32"), ("c", (1, 4), "F32")]))
    assert [t.shape for t in read(shard).tensors] == [(4,), (1,), (1, 4)]


def test_trailing_ones_of_shards_are_kept_unless_llama_cpp_is_followed() -> None:
    kv = {
        "split.no": Typed(ValueType.UINT16, 0),
        "split.tensors.count": Typed(ValueType.INT32, 1),
        "split.count": Typed(ValueType.UINT16, 1),
    }
    shard = gguf_bytes(tensors=[("a", (4, 1), "F32")], kv=kv)
    plain, kept = (
        read(render(merge_layout(set_of([shard]), keep_split_keys=keep), [shard])) for keep in (False, True)
    )
    assert (plain.tensors[0].shape, kept.tensors[0].shape) == ((4, 1), (4,))


def test_version_2_is_split_into_version_3_and_else_restored() -> None:
    original = gguf_bytes(tensors=ROWS, version=2)
    shards = cut(original, max_tensors=2)
    merged = render(merge_layout(set_of(shards)), shards)
    assert [read(data).version for data in (*shards, merged)] == [3, 3, 3, 3]
    assert merged == gguf_bytes(tensors=ROWS, version=3)


def test_version_2_shards_are_merged_into_version_2() -> None:
    kv = {
        "split.no": Typed(ValueType.UINT16, 0),
        "split.tensors.count": Typed(ValueType.INT32, 5),
        "split.count": Typed(ValueType.UINT16, 1),
    }
    shard = gguf_bytes(tensors=ROWS, kv=kv, version=2)
    assert render(merge_layout(set_of([shard])), [shard]) == gguf_bytes(tensors=ROWS, version=2)


def test_encoding_a_header_does_not_believe_offsets() -> None:
    infos = [replace(info, offset=12_345) for info in tensor_infos(ROWS)]
    header = encode_header(encode_entries({"general.architecture": "llama"}), infos, alignment=32)
    assert read(header + random_data(infos, 32, 0)).tensors[0].offset == 0


# ---- where to cut ----


def shard_sizes(**limits: int | bool | None) -> list[int]:
    return [len(read(shard).tensors) for shard in cut(gguf_bytes(tensors=ROWS), **limits)]


def test_where_it_is_cut() -> None:
    padded = [pad(info.n_bytes, 32) for info in tensor_infos(ROWS)]
    assert padded == [128, 32, 96, 32, 128]
    assert shard_sizes() == [5], "128 tensors by default"
    assert shard_sizes(max_tensors=5) == [5]
    assert shard_sizes(max_tensors=4) == [4, 1]
    assert shard_sizes(max_tensors=1) == [1] * 5
    assert shard_sizes(max_bytes=160) == [2, 2, 1]
    assert shard_sizes(max_bytes=159) == [1, 2, 1, 1]
    assert shard_sizes(max_bytes=10_000, no_tensor_first=True) == [0, 5]
    assert shard_sizes(max_bytes=256, max_tensors=2) == [2, 2, 1]
    assert shard_sizes(max_bytes=416, max_tensors=4) == [4, 1]
    assert shard_sizes(max_bytes=128, max_tensors=2) == [1, 2, 1, 1]


def test_a_model_without_tensors() -> None:
    empty = gguf_bytes(tensors=[])
    (shard,) = cut(empty)
    assert render(merge_layout(set_of([shard])), [shard]) == empty


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_tensor_larger_than_a_shard_may_be(place: int) -> None:
    rows = [*ROWS[:place], ("large.weight", (1024,), "F32"), *ROWS[place:]]
    too_large = r"tensor large\.weight alone has 4,096 bytes, a shard may have"
    with pytest.raises(UsageError, match=f"{too_large} 4,095") as caught:
        cut(gguf_bytes(tensors=rows), max_bytes=4095)
    assert caught.value.hint == "--max-size 4096, or more"
    with pytest.raises(UsageError, match=f"{too_large} 1$"):
        cut(gguf_bytes(tensors=rows), max_bytes=1)
    assert len(cut(gguf_bytes(tensors=rows), max_bytes=4096)) >= 1


@pytest.mark.parametrize("n", [0, -1])
def test_a_shard_needs_at_least_a_tensor(n: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        cut(gguf_bytes(tensors=ROWS), max_tensors=n)
    with pytest.raises(UsageError, match="alone has 128 bytes"):
        cut(gguf_bytes(tensors=ROWS), max_bytes=n)


def test_more_shards_than_can_be_numbered() -> None:
    header = read(gguf_bytes(tensors=ROWS))
    many = replace(header, tensors=header.tensors * 13_200)
    with pytest.raises(UsageError, match="66,000 shards: the format allows 65,535"):
        split_layouts(many, max_tensors=1)


def test_a_shard_is_not_split_again() -> None:
    first, *_ = cut(gguf_bytes(tensors=ROWS), max_tensors=2)
    with pytest.raises(FormatError, match="is one shard of several") as caught:
        cut(first)
    assert caught.value.hint == "merge the set first"
