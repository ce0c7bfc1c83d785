"""Say what is in a GGUF: a file, a set of shards as one model, or a quant on a hub."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufkit.gguf.header import SPLIT_KEYS, Header
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.gguf.shards import check_set
from ggufkit.gguf.stats import Statistics, statistics
from ggufkit.gguf.types import ValueType
from ggufkit.verbs.lookup import CHAT_TEMPLATE, FEW_ELEMENTS, Entry, TensorRow, entries, tensor_rows

if TYPE_CHECKING:
    from ggufkit.verbs.locate import LoadedModel


@dataclass(frozen=True, slots=True)
class FileSummary:
    """One file of the model."""

    name: str
    """Its path, or its path in the repo."""
    n_bytes: int
    """Size of the file."""
    version: int
    """GGUF version."""
    n_tensors: int
    """Tensors in it."""
    alignment: int
    """What the data of its tensors are aligned to, bytes."""
    data_offset: int
    """Offset in the file where its tensor data start."""


@dataclass(frozen=True, slots=True)
class Split:
    """Whether a model is split, or once was."""

    n_shards: int
    """Shards of the set (`split.count`); 1 for one file."""
    shard_number: int | None
    """The number, from 1, of a shard that was looked at alone."""
    leftover_keys: tuple[str, ...]
    """Split keys in a file that is no shard: llama-gguf-split --merge leaves them."""


@dataclass(frozen=True, slots=True)
class Rope:
    """How far positions are stretched."""

    freq_base: float | None
    """Base of the frequencies."""
    scaling_type: str | None
    """`linear`, `yarn`, ..."""
    scaling_factor: float | None
    """How many times the original context."""
    original_context_length_tokens: int | None
    """Context before the stretching, tokens."""


@dataclass(frozen=True, slots=True)
class Imatrix:
    """The importance matrix that the quantizer used, by the file's own word."""

    file: str | None
    """Its file name."""
    dataset: str | None
    """The text it was computed from."""
    n_entries: int | None
    """Tensors that it covers."""
    n_chunks: int | None
    """Chunks of text that it was computed from."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The vocabulary and the chat templates."""

    model: str | None
    """`gpt2` (byte-level BPE), `llama` (SentencePiece), ..."""
    pre: str | None
    """The pre-tokenizer, e.g. `deepseek-v3`."""
    n_tokens: int | None
    """Tokens of the vocabulary."""
    chat_templates: tuple[str, ...]
    """Keys of the chat templates; the first, if it is there, is the one that runtimes use."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a GGUF."""

    name: str
    """The file's name without `.gguf` and shard numbers."""
    where: str
    """The file or folder, or the repo."""
    n_bytes: int
    """Bytes of all files."""
    files: tuple[FileSummary, ...]
    """The file, or the shards in order."""
    split: Split
    """Whether it is split, or once was."""
    model: ModelInfo
    """The architecture in numbers, and where the file comes from."""
    rope: Rope
    """How far positions are stretched."""
    imatrix: Imatrix | None
    """The importance matrix; None when no key speaks of one."""
    tokenizer: Tokenizer
    """The vocabulary and the chat templates."""
    statistics: Statistics
    """What the tensors add up to."""
    metadata: tuple[Entry, ...]
    """The KV metadata that were asked for (unasked: all), in file order."""
    tensors: tuple[TensorRow, ...] | None
    """The tensors that were asked for; None when none were."""
    warnings: tuple[str, ...]
    """Oddities that do not make the model unusable."""


def inspect(
    loaded: LoadedModel, *, metadata: str = "", tensors: str | None = None, all_elements: bool = False
) -> Inspection:
    """Say what is in a model.

    `metadata` and `tensors` are patterns (see `lookup.matches`); `all_elements` decodes long arrays too.
    Raises FormatError naming the key whose value is impossible, NotFoundError when a pattern fits nothing.
    """
    headers, first = loaded.headers, loaded.headers[0]
    info = model_info(headers)
    return Inspection(
        name=loaded.name,
        where=loaded.where,
        n_bytes=loaded.n_bytes,
        files=tuple(_file(header) for header in headers),
        split=_split(headers),
        model=info,
        rope=_rope(first, info.architecture),
        imatrix=_imatrix(first),
        tokenizer=_tokenizer(first, info),
        statistics=statistics(headers, info),
        metadata=entries(first, metadata, limit=None if all_elements else FEW_ELEMENTS),
        tensors=None if tensors is None else tensor_rows(headers, tensors),
        warnings=warnings_of(headers),
    )


def load_one(path: Path) -> LoadedModel:
    """Return the header of the file at `path` alone, be it a shard or not."""
    from ggufkit.transfer.sources import open_header
    from ggufkit.verbs.locate import LoadedModel

    return LoadedModel(path.name.removesuffix(".gguf"), (open_header(path),), str(path))


def warnings_of(headers: Sequence[Header]) -> tuple[str, ...]:
    """Return the oddities of a model's headers."""
    return check_set(headers).warnings if len(headers) > 1 else headers[0].warnings


def _file(header: Header) -> FileSummary:
    return FileSummary(
        name=header.name,
        n_bytes=header.file_size_bytes,
        version=header.version,
        n_tensors=len(header.tensors),
        alignment=header.alignment,
        data_offset=header.data_offset,
    )


def _split(headers: Sequence[Header]) -> Split:
    first = headers[0]
    n_shards = first.integer("split.count") or 0
    if not n_shards:
        return Split(1, None, tuple(key for key in SPLIT_KEYS if key in first.kv))
    alone = n_shards > len(headers)
    return Split(n_shards, (first.integer("split.no") or 0) + 1 if alone else None, ())


def _number(header: Header, key: str) -> float | None:
    value = header.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _rope(header: Header, architecture: str | None) -> Rope:
    prefix = f"{architecture}.rope."
    return Rope(
        freq_base=_number(header, prefix + "freq_base"),
        scaling_type=header.string(prefix + "scaling.type") or None,
        scaling_factor=_number(header, prefix + "scaling.factor"),
        original_context_length_tokens=header.integer(prefix + "scaling.original_context_length"),
    )


def _imatrix(header: Header) -> Imatrix | None:
    """Read what llama-quantize notes (llama.cpp tools/quantize/quantize.cpp, `LLM_KV_QUANTIZE_IMATRIX_*`)."""
    prefix = "quantize.imatrix."
    found = Imatrix(
        file=header.string(prefix + "file"),
        dataset=header.string(prefix + "dataset"),
        n_entries=header.integer(prefix + "entries_count"),
        n_chunks=header.integer(prefix + "chunks_count"),
    )
    return None if found == Imatrix(None, None, None, None) else found


def _tokenizer(header: Header, info: ModelInfo) -> Tokenizer:
    templates = [
        key
        for key, kv in header.kv.items()
        if (key == CHAT_TEMPLATE or key.startswith(CHAT_TEMPLATE + ".")) and kv.type is ValueType.STRING
    ]
    return Tokenizer(
        model=header.string("tokenizer.ggml.model"),
        pre=header.string("tokenizer.ggml.pre"),
        n_tokens=info.n_vocabulary,
        chat_templates=tuple(sorted(templates)),
    )
