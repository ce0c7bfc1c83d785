"""Checks of the KV metadata that the format itself, or every runtime, relies on."""

from __future__ import annotations

from collections.abc import Mapping

from ggufkit.errors import FormatError
from ggufkit.gguf.header import DEFAULT_ALIGNMENT, KV, SPLIT_KEYS, ArraySpan
from ggufkit.gguf.types import STRUCT_FORMATS, ValueType

MAX_ALIGNMENT = 1 << 20  # a cap of our own: llama.cpp has none, a crafted 2^31 makes absurd paddings


def check_metadata(kv: Mapping[str, KV], name: str, warnings: list[str]) -> int:
    """Check the keys that the format itself gives a meaning to; return the alignment."""
    _check_architecture(kv, name, warnings)
    _check_split_keys(kv, name)
    _check_vocabulary(kv, name)
    entry = kv.get("general.alignment")
    if entry is None:
        return DEFAULT_ALIGNMENT
    value = entry.value
    if entry.type is not ValueType.UINT32 or not isinstance(value, int):
        raise FormatError(name, "general.alignment is no u32", offset=entry.start)
    if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise FormatError(
            name,
            f"general.alignment is {value}, not a power of two up to {MAX_ALIGNMENT:,}",
            offset=entry.start,
        )
    return value


def _check_architecture(kv: Mapping[str, KV], name: str, warnings: list[str]) -> None:
    entry = kv.get("general.architecture")
    if entry is None:
        if "split.no" not in kv or kv["split.no"].value == 0:
            warnings.append("key general.architecture is missing")
    elif entry.type is not ValueType.STRING:
        raise FormatError(name, "general.architecture is no string", offset=entry.start)


# llama-gguf-split writes split.no and split.count as u16, split.tensors.count as i32; other tools wider.
_INTEGER_TYPES = frozenset(STRUCT_FORMATS) - {ValueType.FLOAT32, ValueType.FLOAT64, ValueType.BOOL}
MAX_SHARDS = 0xFFFF
_MOST = {"split.no": MAX_SHARDS, "split.count": MAX_SHARDS, "split.tensors.count": 0x7FFFFFFF}


def _check_split_keys(kv: Mapping[str, KV], name: str) -> None:
    for key in SPLIT_KEYS:
        entry = kv.get(key)
        if entry is None:
            continue
        if entry.type not in _INTEGER_TYPES:
            raise FormatError(name, f"{key} is no integer", offset=entry.start)
        if not isinstance(entry.value, int) or not 0 <= entry.value <= _MOST[key]:
            reason = f"{key} is {entry.value}, allowed are 0 to {_MOST[key]:,}"
            raise FormatError(name, reason, offset=entry.start)
    number, count = kv.get("split.no"), kv.get("split.count")
    if number is None or count is None or not count.value:
        return
    if number.value >= count.value:  # type: ignore[operator]
        reason = f"split.no is {number.value} of split.count {count.value}"
        raise FormatError(name, reason, offset=number.start)


def _check_vocabulary(kv: Mapping[str, KV], name: str) -> None:
    """Check the tokenizer's parallel arrays (llama-vocab.cpp takes their lengths and types on trust)."""
    tokens = kv.get("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if not isinstance(tokens.value, ArraySpan) or tokens.value.element_type is not ValueType.STRING:
        raise FormatError(name, "tokenizer.ggml.tokens is no array of strings", offset=tokens.start)
    for key, allowed in (
        ("tokenizer.ggml.scores", {ValueType.FLOAT32}),
        ("tokenizer.ggml.token_type", {ValueType.INT32, ValueType.UINT32}),
    ):
        entry = kv.get(key)
        if entry is None:
            continue
        if not isinstance(entry.value, ArraySpan) or entry.value.element_type not in allowed:
            types = " or ".join(sorted(t.name for t in allowed))
            raise FormatError(name, f"{key} is no array of {types}", offset=entry.start)
        if entry.value.n_elements != tokens.value.n_elements:
            n, m = entry.value.n_elements, tokens.value.n_elements
            raise FormatError(name, f"{key} has {n:,} elements for {m:,} tokens", offset=entry.start)
