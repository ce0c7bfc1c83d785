"""Hostile and broken GGUF files: the corpus of 63 that other readers were measured with, and more of ours."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
F32_TENSOR, Q4_0_TENSOR, F64_TENSOR = 0, 2, 28
BIG_TEMPLATE_BYTES = 10 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One file and what reading it must come to."""

    name: str
    """What is wrong with it; also the file's name."""
    build: Callable[[], bytes]
    """Makes the bytes at the start of the file."""
    message: str
    """Pattern in the error's message, or, for a file that is read, in its warning."""
    size_bytes: int | None = None
    """Length of the file when zeros follow as a hole."""
    refused: bool = True
    """Whether the file is refused, or read with a warning."""

    def write(self, folder: Path) -> Path:
        """Write the file into `folder`."""
        path = folder / f"{self.name}.gguf"
        with path.open("wb") as file:
            file.write(self.build())
            if self.size_bytes is not None:
                file.truncate(self.size_bytes)
        return path


def text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def entry(key: bytes, type_: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_) + value


def array(key: bytes, element_type: int, n: int, value: bytes = b"") -> bytes:
    return entry(key, ARRAY, struct.pack("<IQ", element_type, n) + value)


def tensor(
    name: bytes = b"t", dims: Sequence[int] = (32,), type_: int = F32_TENSOR, offset: int = 0
) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, offset)


ARCHITECTURE = entry(b"general.architecture", STRING, text(b"llama"))
DATA = bytes(range(128))
"""Data of `tensor()`: 32 numbers of 4 bytes."""


def gguf(
    kvs: Sequence[bytes] = (ARCHITECTURE,),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    n_kv: int | None = None,
    n_tensors: int | None = None,
    version: int = 3,
) -> bytes:
    """Return a GGUF of encoded entries and tensor infos; the counts may lie."""
    counts = (len(tensors) if n_tensors is None else n_tensors, len(kvs) if n_kv is None else n_kv)
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(kvs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def with_kv(*kvs: bytes) -> bytes:
    """Return a sound file with the entries `kvs`."""
    return gguf([ARCHITECTURE, *kvs], [tensor()], DATA)


def with_tensors(*tensors: bytes, n_bytes: int = 4096) -> bytes:
    """Return a file with these tensor infos and plenty of data."""
    return gguf([ARCHITECTURE], tensors, bytes(n_bytes))


def big_endian() -> bytes:
    head = b"GGUF" + struct.pack(">IQQ", 3, 0, 1)
    key, value = b"general.architecture", b"llama"
    return head + struct.pack(">Q", len(key)) + key + struct.pack(">IQ", STRING, len(value)) + value


def vocabulary(n_tokens: int, scores: bytes) -> bytes:
    return with_kv(array(b"tokenizer.ggml.tokens", STRING, n_tokens, text(b"tok") * n_tokens), scores)


def _preamble_cases() -> Iterator[Case]:
    yield Case("01 empty", lambda: b"", "empty")
    yield Case("02 three bytes", lambda: b"GGU", "no GGUF")
    yield Case("03 GGML magic", lambda: b"lmgg" + bytes(60), "before GGUF")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    yield Case("04 LFS pointer", lambda: pointer, "Git LFS pointer")
    yield Case("05 HTML", lambda: b"<!DOCTYPE html><html><body>Not Found</body></html>", "HTML")
    yield Case("06 version 0", lambda: gguf(version=0), r"version 0.*at byte 4")
    yield Case("07 version 1", lambda: gguf(version=1), r"version 1.*at byte 4")
    yield Case("08 version 99", lambda: gguf(version=99), r"version 99.*at byte 4")
    yield Case("09 big-endian", big_endian, "big-endian")
    yield Case("10 n_tensors 2^63", lambda: gguf(n_tensors=1 << 63), "claims .* tensors .at byte 8")
    yield Case("11 n_kv 2^40", lambda: gguf(n_kv=1 << 40), "claims .* KV entries .at byte 16")
    yield Case("12 n_tensors 1e9 sparse", lambda: gguf(n_tensors=10**9), "claims .* tensors", 16 << 30)


def _kv_cases() -> Iterator[Case]:
    def key_of(length: int) -> bytes:
        return b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, length) + bytes(64)

    yield Case("13 key length 2^63", lambda: key_of(1 << 63), "key 0 claims .*at byte 24")
    yield Case("14 key length -1", lambda: key_of((1 << 64) - 1), "key 0 claims .*at byte 24")
    yield Case("15 key length 1 GiB sparse", lambda: key_of(1 << 30), "key 0 claims .*at byte 24", 2 << 30)
    yield Case("16 empty key", lambda: with_kv(entry(b"", U8, b"\1")), "key 1 is empty")
    one = entry(b"a.b", U8, b"\1")
    yield Case("17 duplicate key", lambda: with_kv(one, one), r"key a\.b occurs twice")
    yield Case("18 non-UTF-8 key", lambda: with_kv(entry(b"a\xff", U8, b"\1")), "key 1 is not UTF-8")
    yield Case("19 value type 99", lambda: with_kv(entry(b"a.b", 99, b"")), r"key a\.b .*unknown type 99")
    long = entry(b"a.b", STRING, struct.pack("<Q", 1 << 62))
    yield Case("20 string length 2^62", lambda: with_kv(long), r"value of a\.b claims")
    yield Case("21 array 2^61 u64", lambda: with_kv(array(b"a.b", U64, 1 << 61)), r"a\.b claims .*elements")
    yield Case("22 string array 2^40", lambda: with_kv(array(b"a.b", STRING, 1 << 40)), r"a\.b claims")
    u8s = gguf([ARCHITECTURE, array(b"a.b", U8, 8 << 30)])
    yield Case("23 u8 array 8 GiB sparse", lambda: u8s, r"a\.b would make a header", 9 << 30)
    strings = gguf([ARCHITECTURE, array(b"a.b", STRING, 1 << 29)])
    yield Case("24 string array 2^29 sparse", lambda: strings, r"a\.b claims .*strings", 5 << 30)
    nested = struct.pack("<IQ", ARRAY, 1) * 200_000
    yield Case("25 nested arrays", lambda: with_kv(entry(b"a.b", ARRAY, nested)), r"a\.b is an array of arr")
    inner = struct.pack("<IQB", U8, 1, 1)
    yield Case("26 array of array", lambda: with_kv(array(b"a.b", ARRAY, 1, inner)), r"a\.b is an array of")
    for number, value in (("27", 0), ("28", 33), ("29", 1 << 31)):
        alignment = entry(b"general.alignment", U32, struct.pack("<I", value))
        yield Case(f"{number} alignment {value}", partial(with_kv, alignment), "general.alignment is ")
    alignment = entry(b"general.alignment", STRING, text(b"32"))
    yield Case("30 alignment a string", lambda: with_kv(alignment), "general.alignment is no u32")


def _tensor_cases() -> Iterator[Case]:
    def one(number: str, message: str, info: bytes) -> Case:
        return Case(number, lambda: with_tensors(info), message)

    yield one("31 n_dims 5", "tensor t has 5 dimensions", tensor(dims=(1,) * 5))
    many = text(b"t") + struct.pack("<I", 1 << 31)
    yield one("32 n_dims 2^31", "tensor t has 2,147,483,648 dimensions", many)
    yield one("33 dim 0", "tensor t has the impossible shape", tensor(dims=(32, 0)))
    yield one("34 negative dim", "tensor t has the impossible shape", tensor(dims=((1 << 64) - 32,)))
    yield one("35 product 2^64", "tensor t has the impossible shape", tensor(dims=(1 << 32, 1 << 32)))
    huge = tensor(dims=(1 << 61,), type_=F64_TENSOR)
    yield one("36 bytes 2^64", "tensor t ends at data offset", huge)
    yield one("37 type 255", "tensor t has the unknown type 255", tensor(type_=255))
    yield one("38 removed type 4", "tensor t has the unknown type 4", tensor(type_=4))
    yield one("39 row no block multiple", "rows of 33 .*blocks of 32", tensor(dims=(33,), type_=Q4_0_TENSOR))
    yield one("40 name of 64 bytes", "name of tensor 0 claims 64 bytes, allowed are 63", tensor(b"x" * 64))
    yield one("41 name of 1 MB", "name of tensor 0 claims 1,048,576", tensor(b"x" * (1 << 20)))
    yield one("42 empty name", "name of tensor 0 is empty", tensor(b""))
    twice = [tensor(), tensor(offset=128)]
    yield Case("43 duplicate name", lambda: with_tensors(*twice), "tensor t occurs twice")
    yield one("44 NUL and ANSI name", "name of tensor 0 has control", tensor(b"\0\x1b[2J../../x"))
    offsets = (("45 misaligned", 8), ("46 overlap", 96), ("47 gap", 256), ("48 beyond EOF", 1 << 20))
    for number, offset in (*offsets, ("49 2^64-32", (1 << 64) - 32)):
        message = f"tensor u is at data offset {offset:,}, not at 128"
        yield Case(f"{number} offset", partial(with_tensors, tensor(), tensor(b"u", offset=offset)), message)


def _file_cases() -> Iterator[Case]:
    whole = gguf(tensors=[tensor(dims=(1024,))], data=bytes(4096))
    yield Case("50 data cut by 1000", lambda: whole[:-1000], "cut short: .*tensor t ends at byte 4,224")
    infos_end = len(gguf(tensors=[tensor()])) - 32
    cut = gguf(tensors=[tensor()])[: infos_end - 8]
    yield Case("51 cut in tensor info", lambda: cut, "tensor (0|t) needs .* the file has ")
    yield Case("52 cut in KV", lambda: gguf()[:50], "needs .* bytes, the file has ")
    junk = gguf(tensors=[tensor()], data=DATA) + b"junk" * 10
    yield Case("53 trailing bytes", lambda: junk, "40 bytes behind the data", refused=False)
    two = with_kv(entry(b"a.b", BOOL, b"\2"))
    yield Case("54 bool of 2", lambda: two, r"key a\.b: a bool of 2 is taken as true", refused=False)
    count = entry(b"split.count", STRING, text(b"2"))
    yield Case("55 split.count a string", lambda: with_kv(count), "split.count is no integer")
    numbers = (_u16(b"split.no", 2), _u16(b"split.count", 2))
    yield Case("56 split.no beyond", lambda: with_kv(*numbers), "split.no is 2 of split.count 2")
    negative = entry(b"split.tensors.count", I32, struct.pack("<i", -1))
    yield Case("57 negative tensors.count", lambda: with_kv(negative), "split.tensors.count is -1")
    bare = gguf([], [tensor()], DATA)
    yield Case("58 no architecture", lambda: bare, "general.architecture is missing", refused=False)
    number = entry(b"general.architecture", U32, struct.pack("<I", 1))
    yield Case("59 architecture u32", lambda: gguf([number]), "general.architecture is no string")


def _vocabulary_cases() -> Iterator[Case]:
    def template() -> bytes:
        return with_kv(entry(b"tokenizer.chat_template", STRING, text(b"{" * BIG_TEMPLATE_BYTES)))

    yield Case("60 template of 10 MB", template, "chat_template has 10,485,760 bytes", refused=False)
    short = array(b"tokenizer.ggml.scores", F32, 2, bytes(8))
    yield Case("61 scores too short", lambda: vocabulary(3, short), "scores has 2 elements for 3 tokens")
    wide = array(b"tokenizer.ggml.scores", U64, 3, bytes(24))
    yield Case("61 scores of another type", lambda: vocabulary(3, wide), "scores is no array of FLOAT32")
    strings = array(b"tokenizer.ggml.token_type", STRING, 3, text(b"1") * 3)
    yield Case("61 token types strings", lambda: vocabulary(3, strings), "token_type is no array of INT32")
    no_strings = with_kv(array(b"tokenizer.ggml.tokens", U8, 3, b"abc"))
    yield Case("61 tokens no strings", lambda: no_strings, "tokens is no array of strings")
    nan = with_kv(entry(b"a.b", F32, struct.pack("<f", float("nan"))))
    yield Case("62 NaN", lambda: nan, r"key a\.b is NaN", refused=False)
    many = entry(b"k", U8, b"\1") * 1_000_000
    yield Case("63 a million duplicate keys", lambda: gguf([many], n_kv=1_000_000), "claims 1,000,000 KV")
    empty = with_kv(entry(b"a.b", STRING, text(b"")))
    yield Case("empty string", lambda: empty, r"key a\.b is an empty string", refused=False)
    latin = with_kv(entry(b"a.b", STRING, text(b"caf\xe9")))
    yield Case("non-UTF-8 string", lambda: latin, r"key a\.b is not UTF-8", refused=False)


def _u16(key: bytes, value: int) -> bytes:
    return entry(key, U16, struct.pack("<H", value))


CORPUS = (
    *_preamble_cases(),
    *_kv_cases(),
    *_tensor_cases(),
    *_file_cases(),
    *_vocabulary_cases(),
)
"""The corpus by its numbers, and the oddities that are let pass."""


def _our_cases() -> Iterator[Case]:
    yield Case("zeros", lambda: bytes(64), "starts with zeros", 1 << 30)
    yield Case("JSON", lambda: b'{"error":"Repository not found"}', "JSON text")
    yield Case("big-endian magic", lambda: b"FUGG" + bytes(60), "big-endian")
    yield Case("magic only", lambda: b"GGUF", "preamble needs 24 bytes, the file has 4")
    yield Case("23 bytes", lambda: gguf()[:23], "preamble needs 24 bytes, the file has 23")
    yield Case("n_tensors -1", lambda: gguf(n_tensors=(1 << 64) - 1), "claims -1 tensors")
    control = with_kv(entry(b"a\x1b[2J\n", U8, b"\1"))
    yield Case("control characters in a key", lambda: control, r"key 1 has control characters: a\\x1b\[2J\\n")
    long = entry(b"k" * 65_535, U8, b"\1")
    yield Case("long key twice", lambda: with_kv(long, long), "key k{79}… occurs twice")
    yield Case("key of 65,536 bytes", lambda: with_kv(entry(b"k" * 65_536, U8, b"\1")), "key 1 claims 65,536")
    u8s = gguf([ARCHITECTURE, array(b"a.b", U8, 500 << 20)])
    yield Case("u8 array of 500 MiB", lambda: u8s, r"a\.b would make a header", 1 << 30)
    string = gguf([ARCHITECTURE, entry(b"a.b", STRING, struct.pack("<Q", 41 << 20))])
    yield Case("string of 41 MiB", lambda: string, r"value of a\.b claims", 1 << 30)
    bools = with_kv(array(b"a.b", BOOL, 3, b"\0\1\2"))
    yield Case("bools above 1", lambda: bools, r"array a\.b: bools above 1", refused=False)
    run_on = array(b"a.b", STRING, 2, text(b"x") + struct.pack("<Q", (1 << 64) - 1))
    yield Case("string of an array runs on", lambda: with_kv(run_on), r"array a\.b needs .*the file has")
    wraps = array(b"a.b", STRING, 2, struct.pack("<Q", (1 << 64) - 8) + text(b"x"))
    yield Case("string length wraps around", lambda: with_kv(wraps), r"array a\.b needs .*the file has")
    shards = _u16(b"split.no", 0), entry(b"split.count", U32, struct.pack("<I", 65_536))
    yield Case("65,536 shards", lambda: with_kv(*shards), "split.count is 65536, allowed are 0 to 65,535")
    tail = with_tensors(tensor(dims=(1 << 60,), type_=24), n_bytes=64)
    yield Case("a tensor of 2^60 bytes", lambda: tail, "cut short: .*tensor t ends at byte 1,152,921,504,")
    sums = [tensor(dims=(1 << 62,), type_=24), tensor(b"u", dims=(1 << 62,), type_=24, offset=1 << 62)]
    yield Case("tensors of 2^63 bytes together", lambda: with_tensors(*sums), "tensor u ends at data offset")
    wild = entry(b"split.count", F32, struct.pack("<f", 2.0))
    yield Case("split.count a float", lambda: with_kv(wild), "split.count is no integer")


OUR_CASES = tuple(_our_cases())
"""Cases that the corpus lacks."""
