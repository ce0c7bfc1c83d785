"""What `ggufkit inspect` shows to people: the summary, tables of shares, values."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from ggufkit.cli.render import count_text, gb_text, size_text, table
from ggufkit.errors import printable
from ggufkit.gguf.header import shown
from ggufkit.gguf.stats import Share
from ggufkit.gguf.types import ValueType
from ggufkit.verbs.inspect import Imatrix, Inspection
from ggufkit.verbs.lookup import Entry

LINE_WIDTH = 300
"""Characters of a line of the summary at most: a file may say what it likes."""
VALUE_WIDTH = 80
"""Characters of a value in the list of keys; --key has all of it."""
SHOWN_ELEMENTS = 4
"""Elements of an array in the list of keys."""

# All control characters but tabs and newlines (CR LF too), line separators, what turns the direction of
# text (Unicode TR 36, "bidirectional text spoofing"), and the surrogates that stand for bytes that are no
# UTF-8. Not `printable`: a template keeps its ideographic spaces and joiners.
_CONTROLS = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def raw_text(entry: Entry) -> tuple[str, int]:
    """Return a whole value as text, and how many characters of it were escaped."""
    if entry.element_type is not None:
        return "\n".join(_one_line(value, entry.element_type) for value in entry.value), 0
    if not isinstance(entry.value, str):
        return _one_line(entry.value, entry.type), 0
    text, n_escaped = _CONTROLS.subn(lambda m: printable(m[0]), entry.value)
    return text.removesuffix("\n"), n_escaped  # echo() writes one


def type_text(entry: Entry) -> str:
    """Return a value's type: `uint32`, or for an array `string[129,280]`."""
    if entry.element_type is None:
        return entry.type.name.lower()
    return f"{entry.element_type.name.lower()}[{entry.n_elements:,}]"


def value_text(entry: Entry, start: Sequence[Any]) -> str:
    """Return a value in one short line; of an array its `start`, the first elements."""
    if entry.element_type is None:
        return _short(entry.value, entry.type)
    parts = [_short(value, entry.element_type) for value in start]
    left = (entry.n_elements or 0) - len(parts)
    return ", ".join([*parts, f"and {left:,} more"] if left else parts)


def _one_line(value: Any, type_: ValueType) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and type_ is ValueType.FLOAT32:
        return _float32_text(value)
    text = str(value)
    return text if text.isprintable() else printable(text)


def _float32_text(value: float) -> str:
    """Return the shortest number that makes this FLOAT32: 1e-06, not 9.999999974752427e-07."""
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        try:
            if struct.pack("<f", float(text)) == struct.pack("<f", value):
                return text
        except OverflowError:  # the greatest FLOAT32, rounded up
            continue
    return f"{value:.9g}"


def _short(value: Any, type_: ValueType) -> str:
    if not isinstance(value, str) or len(value) <= VALUE_WIDTH:
        return _one_line(value, type_)
    return f"{_one_line(value[: VALUE_WIDTH - 20], type_)}… ({len(value):,} characters)"


def shares_table(heading: str, shares: Sequence[Share]) -> str:
    """Return a table of tensor types, roles or layers."""
    headings = (heading, "TENSORS", "PARAMETERS", "SIZE", "BITS/WEIGHT", "TYPES")
    n = len(headings) - (heading == "TYPE")
    rows = [
        (
            share.name.replace("_", " ") if heading == "ROLE" else share.name,
            f"{share.n_tensors:,}",
            parameters_text(share.n_parameters),
            size_text(share.n_bytes),
            f"{share.bits_per_weight:.2f}",
            " ".join(share.types),
        )[:n]
        for share in shares
    ]
    return table(headings[:n], rows, right=[1, 2, 3, 4])


def parameters_text(n: int) -> str:
    """Return a count as the field writes it: `671.0B`, `134.5M`."""
    for letter, unit in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if n >= unit * 0.99995:
            return f"{n / unit:.1f}{letter}"
    return f"{n:,}"


def summary_text(found: Inspection) -> str:
    """Return the model in one screen."""
    lines = [(label, text) for label, text in _lines(found) if text]
    width = max(len(label) for label, _ in lines)
    parts = ["\n".join(f"{label:{width}}  {shown(text, LINE_WIDTH)}" for label, text in lines)]
    if found.statistics.by_type:
        parts.append(shares_table("TYPE", found.statistics.by_type))
        parts.append(shares_table("ROLE", found.statistics.by_role))
    return "\n\n".join(parts)


def _lines(found: Inspection) -> Iterator[tuple[str, str | None]]:
    info = found.model
    yield "model", info.name or found.name
    yield "kind", info.kind if info.kind != "model" else None
    yield "architecture", info.architecture
    yield "parameters", _parameters(found)
    yield "quant", _quant(found)
    yield "size", _size(found)
    yield "layers", _layers(found)
    yield "experts", _experts(found)
    yield "attention", _attention(found)
    yield "context", _context(found)
    yield "vocabulary", _vocabulary(found)
    yield "chat template", _templates(found)
    yield "quantized by", info.quantized_by
    yield "imatrix", _imatrix(found.imatrix)
    yield "made from", ", ".join(info.base_models)
    yield "made by", info.organization
    yield "license", info.license
    yield "alignment", ", ".join(sorted({str(file.alignment) for file in found.files})) + " bytes"
    yield "where", found.where


def _parameters(found: Inspection) -> str | None:
    active = found.statistics.n_active_parameters
    text = parameters_text(found.model.n_parameters)
    return text if active is None else f"{text}, {parameters_text(active)} active"


def _quant(found: Inspection) -> str:
    bits = found.statistics.bits_per_weight
    parts = (found.model.file_type, None if bits is None else f"{bits:.2f} bits per weight")
    return ", ".join(part for part in parts if part)


def _size(found: Inspection) -> str:
    size = gb_text(found.n_bytes) if found.n_bytes >= 1 << 30 else size_text(found.n_bytes)
    split = found.split
    if split.shard_number is not None:
        return f"{size}, shard {split.shard_number} of {split.n_shards} alone"
    files = count_text(len(found.files), "shard") if split.n_shards > 1 else "one file"
    merged = ", merged by llama-gguf-split (split keys are left)" if split.leftover_keys else ""
    return f"{size}, {files}{merged}"


def _layers(found: Inspection) -> str | None:
    info = found.model
    if info.n_layers is None:
        return None
    n_dense = info.experts.n_leading_dense_layers if info.experts else None
    dense = f", the first {n_dense} without experts" if n_dense else ""
    nextn = f", the last {info.n_nextn_layers} for further tokens (MTP)" if info.n_nextn_layers else ""
    return f"{info.n_layers}{dense}{nextn}"


def _experts(found: Inspection) -> str | None:
    experts = found.model.experts
    if experts is None:
        return None
    used = f", {experts.n_used} active" if experts.n_used is not None else ""
    shared = f", {experts.n_shared} shared" if experts.n_shared else ""
    return f"{experts.n_experts}{used}{shared}"


def _attention(found: Inspection) -> str | None:
    attention = found.model.attention
    if attention is None:
        return None
    text = f"{_range(attention.n_heads)} heads, {_range(attention.n_kv_heads)} for keys and values"
    if attention.kv_lora_rank:
        text += f", compressed to {attention.kv_lora_rank} (MLA)"
    if attention.sliding_window_tokens:
        text += f", window of {attention.sliding_window_tokens:,} tokens"
    return text


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _context(found: Inspection) -> str | None:
    tokens, rope = found.model.context_length_tokens, found.rope
    if tokens is None:
        return None
    original = rope.original_context_length_tokens
    if rope.scaling_type in (None, "none") or not rope.scaling_factor or not original:
        return f"{tokens:,} tokens"
    return f"{tokens:,} tokens ({rope.scaling_type}: {rope.scaling_factor:g} times {original:,})"


def _vocabulary(found: Inspection) -> str | None:
    tokenizer = found.tokenizer
    if tokenizer.n_tokens is None:
        return None
    kinds = ", ".join(text for text in (tokenizer.model, tokenizer.pre) if text)
    return f"{tokenizer.n_tokens:,} tokens" + (f" ({kinds})" if kinds else "")


def _templates(found: Inspection) -> str | None:
    keys = found.tokenizer.chat_templates
    if not keys and (found.model.kind != "model" or found.split.shard_number is not None):
        return None
    return f"yes ({', '.join(keys)})" if len(keys) > 1 else "yes" if keys else "none"


def _imatrix(imatrix: Imatrix | None) -> str | None:
    if imatrix is None:
        return None
    entries = None if imatrix.n_entries is None else f"{imatrix.n_entries:,} entries"
    chunks = None if imatrix.n_chunks is None else f"{imatrix.n_chunks:,} chunks"
    return ", ".join(text for text in (imatrix.file, imatrix.dataset, entries, chunks) if text)
