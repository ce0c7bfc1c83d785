"""What a GGUF header holds, and how it is written.

Layout of a file (little-endian): magic `GGUF`, version u32, n_tensors i64, n_kv i64, the KV
metadata, the tensor infos, zeros up to `alignment`, the tensor data. `reader.py` reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ggufkit.errors import printable
from ggufkit.gguf.types import STRUCT_FORMATS, ValueType

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32  # gguf.h GGUF_DEFAULT_ALIGNMENT
SPLIT_KEYS = ("split.no", "split.tensors.count", "split.count")
"""Keys of a shard, in the order in which llama-gguf-split writes them."""

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ArraySpan:
    """An array value that was stepped over: where it is, not what it holds."""

    element_type: ValueType
    """Type of each element (never ARRAY)."""
    n_elements: int
    """How many elements."""
    start: int
    """Offset in the file of the first element's first byte."""
    end: int
    """Offset after the last element."""


@dataclass(frozen=True, slots=True)
class KV:
    """One entry of the KV metadata."""

    key: str
    """The name, e.g. `general.architecture`."""
    type: ValueType
    """Type of the value."""
    value: Scalar | ArraySpan
    """The decoded scalar or string; for an array where it lies."""
    start: int
    """Offset in the file of the entry (its key's length field)."""
    end: int
    """Offset after the entry."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the tensor table."""

    name: str
    """At most 63 bytes."""
    shape: tuple[int, ...]
    """Dimensions in ggml order: `ne[0]` runs fastest."""
    type_id: int
    """ggml's number of the tensor type."""
    offset: int
    """Bytes from the start of the tensor data (not of the file)."""
    n_bytes: int
    """Bytes of the data without padding."""

    @property
    def n_elements(self) -> int:
        """Product of the dimensions."""
        n = 1
        for dim in self.shape:
            n *= dim
        return n


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the tensor data of one GGUF file."""

    name: str
    """What the file is called in messages."""
    version: int
    """2 or 3."""
    kv: Mapping[str, KV]
    """KV metadata by key, in file order."""
    tensors: tuple[TensorInfo, ...]
    """Tensor infos in file order, which is also the order of the data."""
    alignment: int
    """`general.alignment`, or 32."""
    data_offset: int
    """Offset in the file where the tensor data starts (for no tensors: where it would)."""
    data_bytes: int
    """Bytes of the tensor data, padding of the last tensor included."""
    header_end: int
    """Offset after the last tensor info, before padding."""
    file_size_bytes: int
    """Size of the whole file."""
    raw: bytes
    """The header's bytes `[0, header_end)`."""
    warnings: tuple[str, ...] = ()
    """Oddities that do not make the file unusable."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the scalar or string under `key`, or `default`; for an array its ArraySpan."""
        entry = self.kv.get(key)
        return default if entry is None else entry.value

    def string(self, key: str, default: str | None = None) -> str | None:
        """Return the string under `key`, or `default` when it is missing or no string."""
        value = self.get(key)
        return value if isinstance(value, str) else default

    def integer(self, key: str, default: int | None = None) -> int | None:
        """Return the integer under `key`, or `default` when it is missing or no integer."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def array(self, key: str, limit: int | None = None) -> list[Any]:
        """Decode the array under `key` (at most `limit` elements); empty when there is none."""
        span = self.get(key)
        if not isinstance(span, ArraySpan):
            return []
        n = span.n_elements if limit is None else min(limit, span.n_elements)
        if span.element_type is ValueType.STRING:
            return _decode_strings(self.raw, span.start, n)
        return list(struct.unpack_from(f"<{n}{STRUCT_FORMATS[span.element_type]}", self.raw, span.start))

    def raw_kv(self, key: str) -> bytes:
        """Return the entry under `key` as it stands in the file."""
        entry = self.kv[key]
        return self.raw[entry.start : entry.end]


def pad(n_bytes: int, alignment: int) -> int:
    """Round `n_bytes` up to a multiple of `alignment`."""
    return -(-n_bytes // alignment) * alignment


def shown(text: str, limit: int = 80) -> str:
    """Return a key or name as it may stand in a message: printable, at most `limit` characters."""
    safe = printable(text[:limit])
    return safe if len(text) <= limit and len(safe) <= limit else safe[: limit - 1] + "…"


def encode_kv(key: str, type_: ValueType, value: Any, element_type: ValueType | None = None) -> bytes:
    """Encode one KV entry; for an array `value` is a list and `element_type` its elements' type."""
    head = encode_string(key) + struct.pack("<I", type_)
    if type_ is not ValueType.ARRAY:
        return head + _encode_scalar(type_, value)
    if element_type is None:
        raise ValueError("an array needs its element type")
    head += struct.pack("<IQ", element_type, len(value))
    return head + b"".join(_encode_scalar(element_type, item) for item in value)


def encode_string(text: str) -> bytes:
    """Encode a string: length u64, then UTF-8 (surrogates of a non-UTF-8 source go back to bytes)."""
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def encode_header(
    kvs: Sequence[bytes],
    tensors: Iterable[TensorInfo],
    *,
    alignment: int = DEFAULT_ALIGNMENT,
    version: int = 3,
) -> bytes:
    """Build a header from encoded KV entries and tensor infos, padded up to where the data start.

    The tensors' `offset` is not taken over: it is the running sum of padded sizes, as the format
    demands.
    """
    table = bytearray()
    offset = n_tensors = 0
    for tensor in tensors:
        table += _encode_tensor(tensor, offset)
        offset += pad(tensor.n_bytes, alignment)
        n_tensors += 1
    head = MAGIC + struct.pack("<IQQ", version, n_tensors, len(kvs))
    header = head + b"".join(kvs) + bytes(table)
    return header + bytes(pad(len(header), alignment) - len(header))


def _encode_tensor(tensor: TensorInfo, offset: int) -> bytes:
    n = len(tensor.shape)
    return encode_string(tensor.name) + struct.pack(f"<I{n}QIQ", n, *tensor.shape, tensor.type_id, offset)


def _encode_scalar(type_: ValueType, value: Any) -> bytes:
    if type_ is ValueType.STRING:
        return encode_string(value)
    return struct.pack("<" + STRUCT_FORMATS[type_], value)


def _decode_strings(raw: bytes, pos: int, n: int) -> list[str]:
    out = []
    for _ in range(n):
        (length,) = struct.unpack_from("<Q", raw, pos)
        out.append(raw[pos + 8 : pos + 8 + length].decode("utf-8", "surrogateescape"))
        pos += 8 + length
    return out
