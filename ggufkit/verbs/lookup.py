"""Look up keys and tensors in the headers of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ggufkit.errors import NotFoundError, printable
from ggufkit.gguf.header import KV, ArraySpan, Header, shown
from ggufkit.gguf.stats import Role, role_of, type_name
from ggufkit.gguf.types import ValueType

FEW_ELEMENTS = 16
"""Arrays up to this length are decoded unasked: tags and languages, but no vocabulary."""
MAX_NAMES = 2048
"""So many names are compared for a "did you mean"; R1 has 1,025 tensors."""
CHAT_TEMPLATE = "tokenizer.chat_template"  # gguf.constants.Keys.Tokenizer; named ones have `.<name>` behind


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the KV metadata."""

    key: str
    """The name."""
    type: ValueType
    """Type of the value."""
    element_type: ValueType | None
    """Type of an array's elements; None for no array."""
    n_elements: int | None
    """Length of an array; None for no array."""
    value: Any
    """The value; None for a long array that was not asked for. NaN and infinities are strings."""


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor."""

    name: str
    """Its name."""
    type: str
    """Name of the tensor type."""
    shape: tuple[int, ...]
    """Dimensions in ggml order: the first runs fastest."""
    n_bytes: int
    """Its data without padding."""
    role: Role
    """What it does in the model, told by its name."""
    shard: int
    """Number of the file that it is in, from 1."""
    file_offset: int
    """Where its data start in that file."""


def matches(name: str, pattern: str) -> bool:
    """Say whether `pattern` is in `name`, or fits all of it when it has one of `*?[`."""
    if not any(c in pattern for c in "*?["):
        return pattern in name
    import fnmatch

    return fnmatch.fnmatchcase(name, pattern)


def tensor_rows(headers: Sequence[Header], pattern: str = "") -> tuple[TensorRow, ...]:
    """Return the tensors of a model whose names match `pattern`; raises NotFoundError for none."""
    rows = tuple(
        TensorRow(
            name=t.name,
            type=type_name(t),
            shape=t.shape,
            n_bytes=t.n_bytes,
            role=role_of(t.name),
            shard=i,
            file_offset=header.data_offset + t.offset,
        )
        for i, header in enumerate(headers, 1)
        for t in header.tensors
        if matches(t.name, pattern)
    )
    if not rows and pattern:
        names = [t.name for h in headers for t in h.tensors]
        raise _nothing("no tensor fits '{}'", pattern, names, "patterns: attn_q, 'blk.0.*'")
    return rows


def entries(header: Header, pattern: str = "", *, limit: int | None = None) -> tuple[Entry, ...]:
    """Return the KV metadata whose keys match `pattern`; raises NotFoundError for none.

    Arrays longer than `limit` are not decoded.
    """
    found = tuple(_entry(header, kv, limit) for key, kv in header.kv.items() if matches(key, pattern))
    if not found and pattern:
        raise _nothing("no key fits '{}'", pattern, list(header.kv), "patterns: tokenizer, 'general.*'")
    return found


def find_entry(header: Header, key: str) -> Entry:
    """Return the entry under `key`, arrays decoded; raises NotFoundError with the nearest keys."""
    if key not in header.kv:
        raise _nothing("there is no key '{}'", key, list(header.kv), "--metadata lists all keys")
    return _entry(header, header.kv[key], None)


def chat_template(header: Header) -> Entry:
    """Return the chat template that runtimes use, as it is in the file; raises NotFoundError for none."""
    entry = header.kv.get(CHAT_TEMPLATE)
    if entry is not None and entry.type is ValueType.STRING:
        return _entry(header, entry, None)
    others = [key for key in header.kv if key.startswith(CHAT_TEMPLATE + ".")]
    hint = f"there is a named one: --key {shown(others[0])}" if others else None
    raise NotFoundError(f"{printable(header.name)}: there is no chat template in it", hint=hint)


def _nothing(message: str, pattern: str, names: Sequence[str], hint: str) -> NotFoundError:
    """Make the error, with the nearest name or part of a name (`attn_q` of `blk.0.attn_q.weight`)."""
    import difflib

    parts = {part: None for name in names[:MAX_NAMES] for part in (name, *name.split("."))}
    near = difflib.get_close_matches(pattern, parts, n=1)
    if near:
        hint = f"did you mean {shown(near[0])}?"
    return NotFoundError(message.format(shown(pattern)), hint=hint)


def _entry(header: Header, kv: KV, limit: int | None) -> Entry:
    if not isinstance(kv.value, ArraySpan):
        return Entry(kv.key, kv.type, None, None, _finite(kv.value))
    span = kv.value
    value = None
    if limit is None or span.n_elements <= limit:
        value = header.array(kv.key)
        if span.element_type in (ValueType.FLOAT32, ValueType.FLOAT64):
            value = [_finite(v) for v in value]
    return Entry(kv.key, kv.type, span.element_type, span.n_elements, value)


def _finite(value: Any) -> Any:
    """Return `value`; a number that JSON does not know as the name that JavaScript has for it."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
