"""Read GGUF headers. Pure: bytes in, values out; every length is checked before it is believed.

Rules that are enforced: ggml `gguf.cpp` (`gguf_init_from_reader`) and the corpus of hostile files in
`tests/gguf`. Arrays are stepped over, not decoded: R1's 257 thousand strings cost some 40 ms.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, NoReturn

from ggufkit.errors import FormatError
from ggufkit.gguf.checks import check_metadata
from ggufkit.gguf.header import KV, MAGIC, ArraySpan, Header, Scalar, TensorInfo, pad, shown
from ggufkit.gguf.types import SIZES_BYTES, STRUCT_FORMATS, ValueType, tensor_type

VERSIONS = (2, 3)  # gguf.h GGUF_VERSION 3; version 2 has the same layout
MAX_DIMS = 4  # ggml.h GGML_MAX_DIMS
MAX_NAME_BYTES = 63  # ggml.h GGML_MAX_NAME is 64 with the closing NUL

# Caps of our own against hostile headers, far above any real one (R1: 4.9 MB, 257 thousand strings,
# 1,025 tensors).
MAX_HEADER_BYTES = 128 << 20
MAX_STRING_BYTES = 40 << 20  # a whole tokenizer.json, which some files carry, has 33 MB
MAX_KEY_BYTES = 65535  # gguf.md of ggml: keys have at most 2^16-1 bytes
MAX_STRINGS = 1 << 22
MAX_KVS = 65536
MAX_TENSORS = 65536
MAX_DATA_BYTES = 1 << 63  # file offsets are signed 64-bit numbers
MAX_WARNINGS = 20
LARGE_STRING_BYTES = 1 << 20  # worth a warning: real templates have a few KiB


class MoreNeeded(Exception):
    """The header goes on beyond the bytes given: read `n_bytes` from the file's start.

    It is the end of the next field, for an array of strings a guess at the array's end. It is more
    than was given, and neither beyond the file's end nor beyond MAX_HEADER_BYTES.
    """

    def __init__(self, n_bytes: int) -> None:
        super().__init__(n_bytes)
        self.n_bytes = n_bytes


def read_header(
    data: bytes, *, name: str, file_size_bytes: int, whole_file: bool = True, like: Header | None = None
) -> Header:
    """Parse the header at the start of `data`, checking every bound.

    `data` is the file's beginning. Raises MoreNeeded when the header goes on beyond it, FormatError
    when the file is no sound GGUF. With `whole_file` False the data may end early (a raw part). Arrays of
    strings that are those of `like`, byte for byte, are stepped over at once.
    """
    reader = Reader(data, name, file_size_bytes, like)
    version, n_tensors, n_kv = reader.preamble()
    kv = reader.kvs(n_kv)
    alignment = check_metadata(kv, name, reader.warnings)
    tensors = reader.tensors(n_tensors, alignment)
    data_offset = pad(reader.pos, alignment)
    data_bytes = sum(pad(t.n_bytes, alignment) for t in tensors)
    header = Header(
        name=name,
        version=version,
        kv=kv,
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        data_bytes=data_bytes,
        header_end=reader.pos,
        file_size_bytes=file_size_bytes,
        raw=data[: reader.pos],
        warnings=_at_most(reader.warnings, MAX_WARNINGS),
    )
    return _check_bounds(header) if whole_file else header


class Reader:
    """A cursor over the start of a file that never reads or allocates unchecked."""

    def __init__(self, data: bytes, name: str, file_size_bytes: int, like: Header | None = None) -> None:
        self.data = data
        self.like = like
        self.name = name
        self.file_size_bytes = file_size_bytes
        self.pos = 0
        self.n_strings = 0
        self.warnings: list[str] = []

    def fail(self, reason: str, offset: int | None = None) -> FormatError:
        return FormatError(self.name, reason, offset=self.pos if offset is None else offset)

    def need(self, n_bytes: int, what: str) -> None:
        """Make sure that `n_bytes` at the cursor are in `data`."""
        end = self.pos + n_bytes
        if end <= len(self.data):
            return
        if end > self.file_size_bytes:
            left = self.file_size_bytes - self.pos
            raise self.fail(f"{what} needs {n_bytes:,} bytes, the file has {left:,} more")
        if end > MAX_HEADER_BYTES:
            raise self.fail(f"{what} would make a header of more than {MAX_HEADER_BYTES >> 20} MiB")
        raise MoreNeeded(end)

    def unpack(self, fmt: str, n_bytes: int, what: str) -> tuple[Any, ...]:
        self.need(n_bytes, what)
        values = struct.unpack_from(fmt, self.data, self.pos)
        self.pos += n_bytes
        return values

    def preamble(self) -> tuple[int, int, int]:
        self._check_magic()
        version, n_tensors, n_kv = self.unpack("<Iqq", 20, "the preamble")
        if version not in VERSIONS:
            big_endian = version and version & 0xFFFF == 0
            reason = "big-endian GGUF, made for another machine" if big_endian else f"GGUF version {version}"
            raise self.fail(f"{reason}; versions 2 and 3 in little-endian are supported", 4)
        # The least bytes of an entry: KV 8 + 1 + 4 + 1; tensor info 8 + 1 + 4 + 4 + 8.
        self._check_count(n_tensors, "tensors", 25, MAX_TENSORS, 8)
        self._check_count(n_kv, "KV entries", 14, MAX_KVS, 16)
        return version, n_tensors, n_kv

    def _check_count(self, count: int, what: str, least_bytes: int, cap: int, offset: int) -> None:
        if not 0 <= count <= cap or count * least_bytes > self.file_size_bytes:
            raise self.fail(f"the header claims {count:,} {what}", offset)

    def _check_magic(self) -> None:
        if not self.file_size_bytes:
            raise self.fail("the file is empty")
        self.need(min(24, self.file_size_bytes), "the preamble")
        start = self.data[:24]
        if start[:4] == MAGIC:
            self.need(24, "the preamble")
            self.pos = 4
            return
        raise self.fail(_not_gguf_reason(start))

    def string(self, what: str, cap: int) -> bytes:
        (length,) = self.unpack("<Q", 8, f"the length of {what}")
        if length > cap:
            raise self.fail(f"{what} claims {length:,} bytes, allowed are {cap:,}", self.pos - 8)
        self.need(length, what)
        raw = self.data[self.pos : self.pos + length]
        self.pos += length
        return raw

    def kvs(self, n_kv: int) -> dict[str, KV]:
        kv: dict[str, KV] = {}
        for i in range(n_kv):
            start = self.pos
            key = self.key(i)
            if key in kv:
                raise self.fail(f"key {shown(key)} occurs twice", start)
            type_ = self.value_type(f"key {shown(key)}")
            value = self.array(key) if type_ is ValueType.ARRAY else self.scalar(key, type_)
            kv[key] = KV(key, type_, value, start, self.pos)
        return kv

    def key(self, i: int) -> str:
        start = self.pos
        raw = self.string(f"key {i}", MAX_KEY_BYTES)
        if not raw:
            raise self.fail(f"key {i} is empty", start)
        return self.name_text(raw, f"key {i}", start)

    def name_text(self, raw: bytes, what: str, start: int) -> str:
        """Decode the name of a key or tensor, which must be UTF-8 without control characters."""
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8", start) from None
        if not name.isprintable():
            raise self.fail(f"{what} has control characters: {shown(name)}", start)
        return name

    def value_type(self, what: str) -> ValueType:
        (number,) = self.unpack("<I", 4, f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise self.fail(f"{what} has the unknown type {number}", self.pos - 4) from None

    def scalar(self, key: str, type_: ValueType) -> Scalar:
        what = f"the value of {shown(key)}"
        if type_ is ValueType.STRING:
            return self._text(key, self.string(what, MAX_STRING_BYTES))
        size = SIZES_BYTES[type_]
        (value,) = self.unpack("<" + STRUCT_FORMATS[type_], size, what)
        if type_ is ValueType.BOOL and self.data[self.pos - 1] > 1:
            self.warnings.append(f"key {shown(key)}: a bool of {self.data[self.pos - 1]} is taken as true")
        if isinstance(value, float) and value != value:
            self.warnings.append(f"key {shown(key)} is NaN")
        return value  # type: ignore[no-any-return]

    def _text(self, key: str, raw: bytes) -> str:
        if not raw:
            self.warnings.append(f"key {shown(key)} is an empty string")
        if len(raw) > LARGE_STRING_BYTES:
            self.warnings.append(f"key {shown(key)} has {len(raw):,} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.warnings.append(f"key {shown(key)} is not UTF-8")
            return raw.decode("utf-8", "surrogateescape")

    def array(self, key: str) -> ArraySpan:
        what = f"array {shown(key)}"
        element_type = self.value_type(what)
        (n,) = self.unpack("<Q", 8, f"the length of {what}")
        if element_type is ValueType.ARRAY:
            raise self.fail(f"key {shown(key)} is an array of arrays", self.pos - 12)
        size = SIZES_BYTES.get(element_type, 8)  # a string has at least its length field
        if n * size > self.file_size_bytes - self.pos:
            raise self.fail(f"{what} claims {n:,} elements", self.pos - 8)
        start = self.pos
        if element_type is ValueType.STRING:
            self._skip_strings(key, n)
        else:
            self.need(n * size, what)
            self.pos += n * size
        if element_type is ValueType.BOOL and self.data[start : self.pos].translate(None, b"\0\1"):
            self.warnings.append(f"{what}: bools above 1 are taken as true")
        return ArraySpan(element_type, n, start, self.pos)

    def _skip_strings(self, key: str, n: int) -> None:
        what = f"array {shown(key)}"
        self.n_strings += n
        if self.n_strings > MAX_STRINGS:
            raise self.fail(f"{what} claims {n:,} strings", self.pos - 8)
        if self._skip_known(key, n):
            return
        data, pos, last = self.data, self.pos, len(self.data) - 8
        unpack = struct.Struct("<Q").unpack_from
        done = n
        for i in range(n):
            if pos > last:
                done = i
                break
            pos += 8 + unpack(data, pos)[0]
        if done < n or pos > len(data):
            self._strings_go_on(what, pos, done, n)
        self.pos = pos

    def _skip_known(self, key: str, n: int) -> bool:
        """Step over an array that is, byte for byte, the one in the header that this one is like."""
        known = self.like.kv.get(key) if self.like is not None else None
        if self.like is None or known is None or not isinstance(known.value, ArraySpan):
            return False
        span = known.value
        if (span.element_type, span.n_elements) != (ValueType.STRING, n):
            return False
        end = self.pos + span.end - span.start
        if self.data[self.pos : end] != self.like.raw[span.start : span.end]:
            return False
        self.pos = end
        return True

    def _strings_go_on(self, what: str, pos: int, done: int, n: int) -> NoReturn:
        """Raise for an array of `n` strings of which `done`, up to `pos`, were found to start in `data`."""
        try:
            self.need(pos + 8 * (n - done) - self.pos, what)
        except MoreNeeded as more:
            guess = 0
            if done >= 64:  # enough to tell the mean length; the tensor infos after it take some 100 KB
                guess = self.pos + (len(self.data) - self.pos) * n // done * 51 // 50 + (128 << 10)
            limit = min(self.file_size_bytes, MAX_HEADER_BYTES)
            raise MoreNeeded(max(more.n_bytes, min(guess, limit))) from None
        raise AssertionError("need() raises, because data ends here")  # pragma: no cover

    def tensors(self, n_tensors: int, alignment: int) -> tuple[TensorInfo, ...]:
        seen: set[str] = set()
        out: list[TensorInfo] = []
        offset = 0
        for i in range(n_tensors):
            start = self.pos
            tensor = self.tensor(i)
            if tensor.name in seen:
                raise self.fail(f"tensor {tensor.name} occurs twice", start)
            if tensor.offset != offset:
                where = f"at data offset {tensor.offset:,}, not at {offset:,}"
                raise self.fail(f"tensor {tensor.name} is {where}", start)
            seen.add(tensor.name)
            out.append(tensor)
            offset += pad(tensor.n_bytes, alignment)
            if offset >= MAX_DATA_BYTES:
                raise self.fail(f"tensor {tensor.name} ends at data offset {offset:,}", start)
        return tuple(out)

    def tensor(self, i: int) -> TensorInfo:
        start = self.pos
        raw = self.string(f"the name of tensor {i}", MAX_NAME_BYTES)
        if not raw:
            raise self.fail(f"the name of tensor {i} is empty", start)
        name = self.name_text(raw, f"the name of tensor {i}", start)
        (n_dims,) = self.unpack("<I", 4, f"tensor {name}")
        if n_dims > MAX_DIMS:
            raise self.fail(f"tensor {name} has {n_dims:,} dimensions", self.pos - 4)
        shape = self.unpack(f"<{n_dims}Q", 8 * n_dims, f"tensor {name}") or (1,)  # none: a single number
        type_id, offset = self.unpack("<IQ", 12, f"tensor {name}")
        return TensorInfo(name, shape, type_id, offset, self._tensor_bytes(name, shape, type_id))

    def _tensor_bytes(self, name: str, shape: tuple[int, ...], type_id: int) -> int:
        type_ = tensor_type(type_id)
        if type_ is None:
            raise self.fail(f"tensor {name} has the unknown type {type_id}", self.pos - 12)
        n_elements = 1
        for dim in shape:
            n_elements *= dim
        if not 0 < n_elements < 1 << 63:  # gguf.cpp counts elements in int64
            raise self.fail(f"tensor {name} has the impossible shape {list(shape)}", self.pos - 12)
        if shape[0] % type_.block_size:
            blocks = f"{type_.name}'s blocks of {type_.block_size}"
            raise self.fail(f"tensor {name}: rows of {shape[0]} don't fit {blocks}", self.pos - 12)
        return n_elements // type_.block_size * type_.type_size_bytes


def _not_gguf_reason(start: bytes) -> str:
    if start.startswith(b"version https"):
        return "a Git LFS pointer, not the model itself"
    if start.lstrip()[:1] == b"<":
        return "an HTML or XML page, not a GGUF"
    if start.lstrip()[:1] == b"{":
        return "a JSON text (a hub's answer?), not a GGUF"
    if start[:4] in (b"lmgg", b"tjgg", b"fmgg", b"algg", b"GGML"):  # GGML, GGJT, GGMF, GGLA
        return "a file of the format before GGUF"
    if start[:4] == b"FUGG":
        return "a big-endian GGUF"
    if not any(start):
        return "starts with zeros: a download that was never written"
    return f"no GGUF: starts with {start[:4]!r}"


def _check_bounds(header: Header) -> Header:
    """Check that the data lie within the file; warn of bytes behind them."""
    size = header.file_size_bytes
    for tensor in header.tensors:
        end = header.data_offset + tensor.offset + tensor.n_bytes
        if end > size:
            reason = f"cut short: it has {size:,} bytes, tensor {tensor.name} ends at byte {end:,}"
            raise FormatError(header.name, reason, hint="fetch or copy the file again")
    behind = size - (header.data_offset + header.data_bytes)
    if behind <= 0:
        return header
    return replace(header, warnings=(*header.warnings, f"{behind:,} bytes behind the data"))


def _at_most(warnings: list[str], n: int) -> tuple[str, ...]:
    left = len(warnings) - n
    return (*warnings[:n], f"and {left:,} more warnings") if left > 0 else tuple(warnings)
