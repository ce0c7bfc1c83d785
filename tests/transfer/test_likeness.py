"""One vocabulary for many headers: fewer bytes, the same tensors; another vocabulary is noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header, encode_header
from ggufkit.gguf.reader import read_header
from ggufkit.transfer.likeness import MEETING_BYTES, START_BYTES, Likeness
from tests.support.ggufs import encode_entries, tensor_infos

TENSORS = [(f"blk.{i}.ffn_up.weight", (256, 256), "Q4_K") for i in range(200)]
OTHERS = [(name, shape, "Q8_0") for name, shape, _ in TENSORS]


def kv(n_tokens: int = 40_000, **changes: Any) -> dict[str, Any]:
    tokens = [f"token {i:08}" for i in range(n_tokens)]
    entries: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "first",
        "llama.block_count": 200,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [f"a{i} b{i}" for i in range(n_tokens)],
        "tokenizer.chat_template": "first",
        "general.quantization_version": 2,
    }
    return entries | changes


def header_bytes(entries: dict[str, Any], tensors: list[Any] = TENSORS) -> bytes:
    return encode_header(encode_entries(entries), tensor_infos(tensors))


@dataclass
class File:
    """A file in memory that counts what is read of it; its data are not there."""

    data: bytes
    n_bytes: int = 0
    n_whole: int = 0
    size_bytes: int = 1 << 40
    name: str = "it"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, offset: int, n_bytes: int) -> bytes:
        with self.lock:
            self.n_bytes += n_bytes
        padded = self.data[offset : offset + n_bytes]
        return padded + bytes(n_bytes - len(padded))

    def header(self) -> Header:
        with self.lock:
            self.n_whole += 1
            self.n_bytes += len(self.data)
        return read_header(self.data, name=self.name, file_size_bytes=self.size_bytes)


def seen(header: Header) -> tuple[Any, ...]:
    scalars = {key: entry.value for key, entry in header.kv.items() if not hasattr(entry.value, "n_elements")}
    return header.tensors, scalars, header.data_offset, header.raw


def test_the_vocabulary_is_read_once() -> None:
    likeness = Likeness()
    first = File(header_bytes(kv()))
    assert seen(likeness.header(first)) == seen(first.header())
    changes: dict[str, Any] = {
        "general.name": "a longer name of another quant",
        "tokenizer.chat_template": "x" * 100_000,
    }
    more = [*OTHERS, ("output.weight", (256, 512), "Q6_K")]
    for tensors in (TENSORS, OTHERS, more):
        file = File(header_bytes(kv(**changes), tensors))
        assert seen(likeness.header(file)) == seen(read_header(file.data, name="it", file_size_bytes=1 << 40))
        assert file.n_whole == 0
        assert file.n_bytes < len(file.data) / 4
    assert len(first.data) > 1_500_000


Change = Callable[[], dict[str, Any]]


@pytest.mark.parametrize(
    "change",
    [
        lambda: kv(39_999),
        lambda: kv(40_001),
        lambda: kv(10),
        lambda: kv() | {"tokenizer.ggml.tokens": [f"taken {i:08}" for i in range(40_000)]},
        lambda: kv() | {"tokenizer.ggml.merges": [f"a{i} c{i}" for i in range(40_000)]},
        lambda: {key: value for key, value in kv().items() if not key.startswith("tokenizer")},
    ],
    ids=["one less", "one more", "few", "others at the start", "others at the end", "none"],
)
def test_another_vocabulary_is_read_whole(change: Change) -> None:
    likeness = Likeness()
    likeness.header(File(header_bytes(kv())))
    file = File(header_bytes(change(), OTHERS))
    assert seen(likeness.header(file)) == seen(read_header(file.data, name="it", file_size_bytes=1 << 40))
    assert file.n_whole == 1


def test_where_other_entries_lie_among_the_vocabulary_all_is_read() -> None:
    entries = kv()
    merges = entries.pop("tokenizer.ggml.merges")
    entries |= {"llama.context_length": 4096, "tokenizer.ggml.merges": merges}
    likeness = Likeness()
    likeness.header(File(header_bytes(entries)))
    file = File(header_bytes(entries | {"llama.context_length": 8192}))
    assert likeness.header(file).integer("llama.context_length") == 8192
    assert file.n_whole == 1


def test_what_differs_only_in_the_middle_has_the_same_tensors() -> None:
    likeness = Likeness()
    likeness.header(File(header_bytes(kv())))
    tokens = kv()["tokenizer.ggml.tokens"]
    tokens[20_000] = "tokem 00020000"
    file = File(header_bytes(kv(**{"tokenizer.ggml.tokens": tokens}), OTHERS))
    header = likeness.header(file)
    assert header.tensors == read_header(file.data, name="it", file_size_bytes=1 << 40).tensors
    assert file.n_whole == 0


@pytest.mark.parametrize("size", [100, START_BYTES, START_BYTES + MEETING_BYTES, 1_400_000])
def test_a_file_cut_short_is_told_as_ever(size: int) -> None:
    likeness = Likeness()
    likeness.header(File(header_bytes(kv())))
    data = header_bytes(kv(), OTHERS)[:size]
    with pytest.raises(FormatError):
        likeness.header(File(data, size_bytes=size))


def test_many_threads_wait_for_the_first() -> None:
    likeness, files = Likeness(), [File(header_bytes(kv(), OTHERS)) for _ in range(8)]
    threads = [threading.Thread(target=likeness.header, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.n_whole for file in files) == [0] * 7 + [1]
