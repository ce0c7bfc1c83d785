"""GGUF files for tests: small ones with random data, sets of shards, and R1's shape as sparse files."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ggufkit.gguf.header import DEFAULT_ALIGNMENT, TensorInfo, encode_header, encode_kv, pad
from ggufkit.gguf.layout import Layout, Literal, split_layouts
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.shards import ShardName
from ggufkit.gguf.types import TENSOR_TYPES, ValueType
from ggufkit.transfer.sources import open_header
from tests.support.r1 import r1_kv, r1_tensors

TensorSpec = tuple[str, tuple[int, ...], str]
"""Name, shape in ggml order (`ne[0]` first), name of the tensor type."""

TYPE_IDS = {known.name: type_id for type_id, known in TENSOR_TYPES.items()}
"""ggml's number of each tensor type by its name."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A KV value whose type is not the one that `make_gguf` would choose."""

    type: ValueType
    """Type of the value."""
    value: Any
    """The value; a list for an array."""
    element_type: ValueType | None = None
    """Type of an array's elements."""


def make_gguf(
    path: Path,
    *,
    arch: str | None = "llama",
    tensors: Sequence[TensorSpec] | None = None,
    kv: Mapping[str, Any] | None = None,
    seed: int = 0,
    version: int = 3,
) -> Path:
    """Write a GGUF with random tensor data and return its path; see `gguf_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(arch=arch, tensors=tensors, kv=kv, seed=seed, version=version))
    return path


def gguf_bytes(
    *,
    arch: str | None = "llama",
    tensors: Sequence[TensorSpec] | None = None,
    kv: Mapping[str, Any] | None = None,
    seed: int = 0,
    version: int = 3,
) -> bytes:
    """Return a GGUF with random tensor data.

    `tensors` None means a small llama of two blocks (0.6 MB), and then its hyper-parameters and a
    small vocabulary are there too. `kv` is added (or replaces what is there; None removes a key): a
    bool, int (UINT32, INT32 or 64 bits as needed), float (FLOAT32), str or a list of one of these;
    anything else as `Typed`. `arch` None leaves `general.architecture` out.
    """
    entries: dict[str, Any] = {} if arch is None else {"general.architecture": arch}
    if tensors is None:
        tensors = small_llama()
        entries |= small_llama_kv(arch or "llama")
    entries |= kv or {}
    alignment = entries.get("general.alignment") or DEFAULT_ALIGNMENT
    infos = tensor_infos(tensors)
    header = encode_header(encode_entries(entries), infos, alignment=alignment, version=version)
    return header + random_data(infos, alignment, seed)


def small_llama(n_blocks: int = 2, n_tokens: int = 64) -> list[TensorSpec]:
    """Return the tensors of a llama with embeddings of 256, in the mix of a Q4_K_M."""
    out: list[TensorSpec] = [
        ("token_embd.weight", (256, n_tokens), "Q4_K"),
        ("output_norm.weight", (256,), "F32"),
        ("output.weight", (256, n_tokens), "Q6_K"),
    ]
    for i in range(n_blocks):
        out += [
            (f"blk.{i}.attn_norm.weight", (256,), "F32"),
            (f"blk.{i}.attn_q.weight", (256, 256), "Q4_K"),
            (f"blk.{i}.attn_k.weight", (256, 128), "Q4_K"),
            (f"blk.{i}.attn_v.weight", (256, 128), "Q6_K"),
            (f"blk.{i}.attn_output.weight", (256, 256), "Q4_K"),
            (f"blk.{i}.ffn_norm.weight", (256,), "F32"),
            (f"blk.{i}.ffn_gate.weight", (256, 512), "Q4_K"),
            (f"blk.{i}.ffn_up.weight", (256, 512), "Q4_K"),
            (f"blk.{i}.ffn_down.weight", (512, 256), "Q6_K"),
        ]
    return out


def small_llama_kv(arch: str, n_blocks: int = 2, n_tokens: int = 64) -> dict[str, Any]:
    """Return the metadata that go with `small_llama`, under the architecture's name."""
    return {
        "general.name": "Tiny Test",
        "general.file_type": 15,  # MOSTLY_Q4_K_M
        "general.quantization_version": 2,
        f"{arch}.block_count": n_blocks,
        f"{arch}.context_length": 2048,
        f"{arch}.embedding_length": 256,
        f"{arch}.feed_forward_length": 512,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": 2,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.dimension_count": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"tok{i}" for i in range(n_tokens)],
        "tokenizer.ggml.token_type": Typed(ValueType.ARRAY, [1] * n_tokens, ValueType.INT32),
    }


def tensor_infos(tensors: Sequence[TensorSpec]) -> list[TensorInfo]:
    """Return the tensor infos of `tensors`; their offsets are left at 0."""
    return [_tensor_info(*spec) for spec in tensors]


def _tensor_info(name: str, shape: tuple[int, ...], type_name: str) -> TensorInfo:
    type_id = TYPE_IDS[type_name]
    known = TENSOR_TYPES[type_id]
    n_elements = 1
    for dim in shape:
        n_elements *= dim
    return TensorInfo(name, shape, type_id, 0, n_elements // known.block_size * known.type_size_bytes)


def random_data(infos: Sequence[TensorInfo], alignment: int, seed: int) -> bytes:
    """Return random bytes for each tensor, padded with zeros as the format wants it."""
    rng = random.Random(seed)
    parts = []
    for info in infos:
        parts += [rng.randbytes(info.n_bytes), bytes(pad(info.n_bytes, alignment) - info.n_bytes)]
    return b"".join(parts)


def encode_entries(entries: Mapping[str, Any]) -> list[bytes]:
    """Encode KV metadata given as plain values or `Typed`; an entry of None is left out."""
    typed = [(key, as_typed(value)) for key, value in entries.items() if value is not None]
    return [encode_kv(key, t.type, t.value, t.element_type) for key, t in typed]


def as_typed(value: Any) -> Typed:
    """Choose the type of a plain value, as `gguf_bytes` says."""
    if isinstance(value, Typed):
        return value
    if isinstance(value, list):
        element_type = as_typed(value[0]).type if value else ValueType.STRING
        return Typed(ValueType.ARRAY, value, element_type)
    return Typed(_scalar_type(value), value)


def _scalar_type(value: Any) -> ValueType:
    match value:
        case bool():
            return ValueType.BOOL
        case str():
            return ValueType.STRING
        case float():
            return ValueType.FLOAT32
        case int() if value < 0:
            return ValueType.INT32 if value >= -1 << 31 else ValueType.INT64
        case int():
            return ValueType.UINT32 if value < 1 << 32 else ValueType.UINT64
    raise TypeError(f"no GGUF type for {value!r}")


# ---- layouts, written the plain way (what the engine writes is held against this) ----


def render(layout: Layout, sources: Sequence[bytes]) -> bytes:
    """Return the file that `layout` describes."""
    parts = []
    for segment in layout.segments:
        if isinstance(segment, Literal):
            parts.append(segment.data)
        else:
            part = sources[segment.source][segment.offset : segment.offset + segment.n_bytes]
            assert len(part) == segment.n_bytes, "a span beyond its source"
            parts.append(part)
    return b"".join(parts)


def write_sparse(layout: Layout, path: Path) -> Path:
    """Write the literal bytes of `layout` only; the rest of the file is a hole of the right length."""
    with path.open("wb") as file:
        for offset, segment in layout.placed():
            if isinstance(segment, Literal):
                file.seek(offset)
                file.write(segment.data)
        file.truncate(layout.n_bytes)
    return path


def make_shards(
    source: Path,
    folder: Path | None = None,
    *,
    prefix: str | None = None,
    max_tensors: int | None = None,
    max_bytes: int | None = None,
    no_tensor_first: bool = False,
) -> tuple[Path, ...]:
    """Cut the GGUF `source` into shards in `folder` (default: beside it), as llama-gguf-split would."""
    layouts = split_layouts(
        open_header(source), max_tensors=max_tensors, max_bytes=max_bytes, no_tensor_first=no_tensor_first
    )
    data = source.read_bytes()
    paths = shard_paths(folder or source.parent, prefix or source.stem, len(layouts))
    for path, layout in zip(paths, layouts, strict=True):
        path.write_bytes(render(layout, [data]))
    return paths


def shard_paths(folder: Path, prefix: str, total: int) -> tuple[Path, ...]:
    """Return the paths of a set of shards in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(folder / name.file_name() for name in ShardName(prefix, 1, total).siblings())


# ---- DeepSeek-R1, full size, header only ----

R1_SHARD_BYTES = 49_800_000_000
"""A limit of tensor data that cuts R1 UD-IQ2_XXS into 4 shards, each below the hubs' 50 GB."""


def r1_shaped(path: Path, *, mla: bool = False, chat_template: str | None = None) -> Path:
    """Write a sparse GGUF of the shape of DeepSeek-R1 UD-IQ2_XXS (198 GB long, 5 MB on disk).

    deepseek2, 61 blocks, 1,025 tensors (1,086 with the split attention of `mla`), a BPE vocabulary
    of 129,280 tokens and 127,741 merges. There is no tensor data: it reads as zeros.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header, size = _r1_header(mla, chat_template)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return path


def r1_shards(
    folder: Path,
    *,
    prefix: str = "DeepSeek-R1-UD-IQ2_XXS",
    mla: bool = False,
    chat_template: str | None = None,
    max_bytes: int = R1_SHARD_BYTES,
    no_tensor_first: bool = False,
) -> tuple[Path, ...]:
    """Write `r1_shaped` as a set of sparse shards, 4 of them by default."""
    data, size = _r1_header(mla, chat_template)
    header = read_header(data, name=prefix, file_size_bytes=size)
    layouts = split_layouts(header, max_bytes=max_bytes, no_tensor_first=no_tensor_first)
    paths = shard_paths(folder, prefix, len(layouts))
    return tuple(write_sparse(layout, path) for layout, path in zip(layouts, paths, strict=True))


@lru_cache(maxsize=4)
def _r1_header(mla: bool, chat_template: str | None) -> tuple[bytes, int]:
    """Return the padded header and the size of the whole file in bytes."""
    infos = tensor_infos(list(r1_tensors(mla)))
    kv = r1_kv(mla, chat_template)
    kv["tokenizer.ggml.token_type"] = Typed(ValueType.ARRAY, kv["tokenizer.ggml.token_type"], ValueType.INT32)
    header = encode_header(encode_entries(kv), infos)
    return header, len(header) + sum(pad(info.n_bytes, DEFAULT_ALIGNMENT) for info in infos)
