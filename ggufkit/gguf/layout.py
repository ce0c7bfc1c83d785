"""Layouts: a file to be written, described before a byte moves.

A layout is an ordered list of segments, each either literal bytes or a span of a numbered source.
Merging, splitting and joining are lists of a few segments, because a shard's tensor data is
contiguous: one span per shard, whatever the number of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ggufkit.errors import FormatError, UsageError
from ggufkit.gguf.header import (
    DEFAULT_ALIGNMENT,
    SPLIT_KEYS,
    Header,
    TensorInfo,
    encode_header,
    encode_kv,
    pad,
)
from ggufkit.gguf.shards import ShardSet, is_shard
from ggufkit.gguf.types import ValueType

MAX_PADDING_BYTES = 256 << 20
"""A cap of our own, 2,000 tensors times the largest memory pages in use (64 KiB) and to spare."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that stand in the layout itself: a header, padding."""

    data: bytes
    """The bytes."""

    @property
    def n_bytes(self) -> int:
        """Length in bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a source."""

    source: int
    """Index of the source."""
    offset: int
    """First byte in the source."""
    n_bytes: int
    """Length in bytes."""


Segment = Literal | Span


@dataclass(frozen=True, slots=True)
class Layout:
    """One file to be written."""

    segments: tuple[Segment, ...]
    """What the file consists of, in order."""

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return sum(s.n_bytes for s in self.segments)

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """Yield each segment with its offset in the file."""
        offset = 0
        for segment in self.segments:
            yield offset, segment
            offset += segment.n_bytes


def whole_file(n_bytes: int) -> Layout:
    """Return the layout of source 0 as it is."""
    return Layout((Span(0, 0, n_bytes),))


def join_layout(sizes_bytes: Sequence[int]) -> Layout:
    """Return the layout of raw parts put one behind the other."""
    return Layout(tuple(Span(i, 0, n) for i, n in enumerate(sizes_bytes)))


def merge_layout(shards: ShardSet, *, keep_split_keys: bool = False) -> Layout:
    """Return the layout of the file that `shards` (sources 0, 1, ...) make.

    Without the `split.*` keys it is the file as it was before llama-gguf-split cut it; with
    `keep_split_keys` it is what `llama-gguf-split --merge` writes (`split.count` 0, at the end).
    """
    first = shards.first
    tensors = [t for h in shards.headers for t in h.tensors]
    if keep_split_keys:
        # gguf_set_val_u16 removes the key and appends it, so split.count moves to the end.
        kvs = [first.raw_kv(key) for key in first.kv if key != "split.count"]
        kvs.append(encode_kv("split.count", ValueType.UINT16, 0))
        tensors = [_without_trailing_ones(t) for t in tensors]
    else:
        kvs = [first.raw_kv(key) for key in first.kv if key not in SPLIT_KEYS]
    header = encode_header(kvs, tensors, alignment=first.alignment, version=first.version)
    segments: list[Segment] = [Literal(header)]
    for i, shard in enumerate(shards.headers):
        segments += data_segments(i, shard, shard.tensors, first.alignment)
    return Layout(tuple(_joined(segments)))


def split_layouts(
    header: Header,
    *,
    max_tensors: int | None = None,
    max_bytes: int | None = None,
    no_tensor_first: bool = False,
) -> tuple[Layout, ...]:
    """Return the layouts of the shards that llama-gguf-split would cut the file (source 0) into.

    `max_bytes` counts tensor data padded to 32 only; without any limit 128 tensors go in a shard. A
    tensor beyond `max_bytes` is a UsageError (llama-gguf-split lets such a shard be too large, unless
    it is the first). Source: llama.cpp tools/gguf-split/gguf-split.cpp, `split_strategy`.
    """
    if is_shard(header):
        raise FormatError(header.name, "is one shard of several", hint="merge the set first")
    groups = _group_tensors(header, max_tensors, max_bytes)
    if no_tensor_first:
        groups.insert(0, [])
    if len(groups) > 0xFFFF:
        raise UsageError(f"{len(groups):,} shards: the format allows 65,535", hint="allow larger shards")
    return tuple(_shard_layout(header, i, len(groups), group) for i, group in enumerate(groups))


def data_segments(
    source: int, header: Header, tensors: Sequence[TensorInfo], alignment: int
) -> list[Segment]:
    """Return the segments of neighbouring `tensors` of a source, padded to `alignment`.

    One span, when the source is padded the same way; else one span per tensor and its padding.
    """
    if not tensors:
        return []
    if alignment != header.alignment:
        _check_padding(header, len(tensors), alignment)
        return _joined(s for t in tensors for s in _padded(source, header, t, alignment))
    first, last = tensors[0], tensors[-1]
    start = header.data_offset + first.offset
    end = header.data_offset + last.offset + pad(last.n_bytes, alignment)
    missing = max(0, end - header.file_size_bytes)  # some writers leave out the last padding
    return [Span(source, start, end - start - missing), *_zeros(missing)]


def _check_padding(header: Header, n_tensors: int, alignment: int) -> None:
    """Refuse padding beyond all measure, since it stands in the layout as bytes."""
    if n_tensors * alignment > MAX_PADDING_BYTES:
        raise FormatError(header.name, f"{n_tensors:,} tensors to be aligned to {alignment:,} bytes each")


def _padded(source: int, header: Header, tensor: TensorInfo, alignment: int) -> list[Segment]:
    span = Span(source, header.data_offset + tensor.offset, tensor.n_bytes)
    return [span, *_zeros(pad(tensor.n_bytes, alignment) - tensor.n_bytes)]


def _zeros(n_bytes: int) -> list[Literal]:
    return [Literal(bytes(n_bytes))] if n_bytes else []


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """Make one span of neighbouring spans."""
    out: list[Segment] = []
    for segment in segments:
        last = out[-1] if out else None
        if (
            isinstance(last, Span)
            and isinstance(segment, Span)
            and last.source == segment.source
            and last.offset + last.n_bytes == segment.offset
        ):
            out[-1] = Span(last.source, last.offset, last.n_bytes + segment.n_bytes)
        else:
            out.append(segment)
    return out


def _without_trailing_ones(tensor: TensorInfo) -> TensorInfo:
    """Drop trailing dimensions of 1, as ggml's writer does (ggml.c `ggml_n_dims`)."""
    shape = tensor.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return TensorInfo(tensor.name, shape, tensor.type_id, tensor.offset, tensor.n_bytes)


def _group_tensors(header: Header, max_tensors: int | None, max_bytes: int | None) -> list[list[TensorInfo]]:
    if max_tensors is None and max_bytes is None:
        max_tensors = 128  # gguf-split.cpp, split_params::n_split_tensors
    if max_tensors is not None and max_tensors < 1:
        raise UsageError(f"a shard of {max_tensors} tensors: at least 1 is needed")
    groups: list[list[TensorInfo]] = [[]]
    group_bytes = 0
    for tensor in header.tensors:
        n_bytes = pad(tensor.n_bytes, DEFAULT_ALIGNMENT)
        if max_bytes is not None and n_bytes > max_bytes:
            raise _too_large(max(header.tensors, key=lambda one: one.n_bytes), max_bytes)
        full = len(groups[-1]) == max_tensors
        if full or (max_bytes is not None and group_bytes + n_bytes > max_bytes):
            groups.append([])
            group_bytes = 0
        groups[-1].append(tensor)
        group_bytes += n_bytes
    return groups


def _too_large(tensor: TensorInfo, max_bytes: int) -> UsageError:
    n_bytes = pad(tensor.n_bytes, DEFAULT_ALIGNMENT)
    message = f"tensor {tensor.name} alone has {n_bytes:,} bytes, a shard may have {max_bytes:,}"
    least = f"{-(-n_bytes // 10**6)}M" if n_bytes > 10**6 else f"{n_bytes}"
    return UsageError(message, hint=f"--max-size {least}, or more")


def _shard_layout(header: Header, i: int, total: int, tensors: list[TensorInfo]) -> Layout:
    kvs = [header.raw_kv(key) for key in header.kv if key not in SPLIT_KEYS] if i == 0 else []
    kvs += [
        encode_kv("split.no", ValueType.UINT16, i),
        encode_kv("split.tensors.count", ValueType.INT32, len(header.tensors)),
        encode_kv("split.count", ValueType.UINT16, total),
    ]
    alignment = header.alignment if i == 0 else DEFAULT_ALIGNMENT
    plain = [_without_trailing_ones(t) for t in tensors]
    head = encode_header(kvs, plain, alignment=alignment, version=3)
    return Layout((Literal(head), *data_segments(0, header, tensors, alignment)))
