"""How much memory a model takes in llama.cpp: weights and what it keeps while it runs, each term explained.

Pure arithmetic on the header. Compute buffers are not computed here; `verdict.py` sets room aside for them.
Source of the rules: llama.cpp b11434 (October 2026), llama-context.cpp, llama-kv-cache-iswa.cpp,
llama-memory-recurrent.cpp.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufkit.errors import UsageError
from ggufkit.fit.caches import CacheLayer, Caches, Certainty, caches_of, is_mla, n_trunk_layers
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo
from ggufkit.gguf.types import TENSOR_TYPES, TensorType

CONTEXT_STEP_TOKENS = 256  # llama-context.cpp: n_ctx and n_ctx_seq go through GGML_PAD(..., 256)
CACHE_TYPES: dict[str, TensorType] = {
    t.name.lower(): t
    for t in TENSOR_TYPES.values()
    if t.name in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
}
"""What a cache may be made of (common/arg.cpp `kv_cache_types`)."""

REPACKED = frozenset({"Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4"})
"""Types whose matrices llama.cpp copies into another order on x86-64 with AVX2 (ggml-cpu/repack.cpp)."""
REPACK_ROWS = 8  # rows of one group there: a matrix whose rows are no multiple stays as it is
F32_BYTES = 4

_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the model is to be run, in llama.cpp's terms."""

    context_tokens: int
    """`--ctx-size`: tokens of context, of all sequences together."""
    n_sequences: int = 1
    """`--parallel`: texts that are worked on at the same time."""
    n_ubatch_tokens: int = 512
    """`--ubatch-size`: tokens that are computed at once; sliding windows grow with it."""
    cache_type_k: str = "f16"
    """`--cache-type-k`."""
    cache_type_v: str = "f16"
    """`--cache-type-v`."""
    unified: bool = False
    """`--kv-unified`: the sequences share one cache, each may use all of it."""
    swa_full: bool = False
    """`--swa-full`: sliding-window layers keep the whole context."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the memory, and how it was found."""

    name: str
    """`weights`, `embedding copy`, `KV cache` or `recurrent state`."""
    n_bytes: int | None
    """Bytes; None when the file gives nothing to go by."""
    certainty: Certainty
    """`exact`: to the byte what llama.cpp reports; `approximate`: by a rule not checked for this file."""
    formula: str
    """The arithmetic, with the numbers put in."""
    keys: tuple[str, ...]
    """Header keys that the numbers come from."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a model takes with certain settings."""

    settings: FitSettings
    """The settings asked for."""
    context_tokens: int
    """Tokens of context after the runtime's rounding, of all sequences together."""
    terms: tuple[Term, ...]
    """The parts, weights first."""
    weights_bytes: int
    """Bytes of the weights: with mmap the system can drop them and read them again."""
    kept_bytes: int | None
    """Bytes of all else, which has to stay; None when it is not known."""
    total_bytes: int
    """Sum of the terms that are known."""
    kv_bytes_per_token: int | None
    """Bytes that each further token of context takes (full-attention layers)."""
    warnings: tuple[str, ...]
    """What is odd about the model or the settings."""


def estimate_memory(info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings) -> MemoryEstimate:
    """Estimate the memory of a model with these `tensors` (of all shards) under `settings`.

    Raises UsageError for settings with which llama.cpp refuses the model.
    """
    caches = caches_of(info)
    _check_settings(info, settings)
    weights = _weights_term(info, tensors)
    kept = [*_embedding_copy(tensors, caches), *_cache_terms(info, caches, settings)]
    known = [term.n_bytes for term in kept if term.n_bytes is not None]
    return MemoryEstimate(
        settings=settings,
        context_tokens=_sequence_tokens(settings) * _n_streams(settings),
        terms=(weights, *kept),
        weights_bytes=weights.n_bytes or 0,
        kept_bytes=sum(known) if len(known) == len(kept) else None,
        total_bytes=(weights.n_bytes or 0) + sum(known),
        kv_bytes_per_token=_bytes_per_token(caches, settings),
        warnings=tuple(_warnings(info, caches, settings)),
    )


def _check_settings(info: ModelInfo, settings: FitSettings) -> None:
    k, v = settings.cache_type_k, settings.cache_type_v
    for option, name in (("--cache-type-k", k), ("--cache-type-v", v)):
        if name not in CACHE_TYPES:
            raise UsageError(f"{option} {name}: choose from {', '.join(CACHE_TYPES)}")
    attention = info.attention
    if attention is None:
        return
    if is_mla(attention) and k != v:
        raise UsageError(
            f"this model keeps no values of its own (MLA), so llama.cpp refuses {k} keys with {v} values",
            hint=f"--cache-type-k {k} --cache-type-v {k}",
        )
    if info.architecture == "grok" and CACHE_TYPES[v].block_size > 1:
        raise UsageError(f"llama.cpp has no flash attention for grok, so it refuses {v} values")
    values = 0 if is_mla(attention) else attention.value_length
    for option, name, length in (("k", k, attention.key_length), ("v", v, values)):
        if length % CACHE_TYPES[name].block_size:
            blocks = f"{name}'s blocks of {CACHE_TYPES[name].block_size}"
            raise UsageError(f"--cache-type-{option}: heads of {length} don't fit {blocks}")


def _weights_term(info: ModelInfo, tensors: Sequence[TensorInfo]) -> Term:
    """Sum the tensors that the runtime loads: all but the blocks that predict further tokens."""
    trunk = n_trunk_layers(info)
    total = skipped = 0
    for tensor in tensors:
        block = _BLOCK.match(tensor.name)
        total += tensor.n_bytes
        if trunk is not None and block is not None and int(block[1]) >= trunk:
            skipped += tensor.n_bytes
    formula = f"{len(tensors):,} tensors of {total:,} bytes"
    if skipped:
        formula += f", less {skipped:,} of next-token-prediction blocks, which are not loaded"
    keys = _keys(info, "nextn_predict_layers") if skipped else ()
    return Term("weights", total - skipped, "exact", formula, keys)


def _embedding_copy(tensors: Iterable[TensorInfo], caches: Caches | None) -> list[Term]:
    """Count the second copy of an embedding that is the output matrix as well, where it is repacked."""
    by_name = {t.name: t for t in tensors if t.name in ("output.weight", "token_embd.weight")}
    embedding = by_name.get("token_embd.weight")
    if embedding is None or "output.weight" in by_name or caches is None or len(embedding.shape) < 2:
        return []
    type_ = TENSOR_TYPES.get(embedding.type_id)
    if type_ is None or type_.name not in REPACKED or embedding.shape[1] % REPACK_ROWS:
        return []
    formula = f"the {type_.name} embedding is the output matrix too, and repacked as that (x86-64 with AVX2)"
    return [Term("embedding copy", embedding.n_bytes, "approximate", formula, ())]


def _cache_terms(info: ModelInfo, caches: Caches | None, settings: FitSettings) -> list[Term]:
    if caches is None:
        reason = "the header says too little about the attention layers"
        return [Term("KV cache", None, "unknown", reason, ())]
    terms = []
    if caches.layers or not caches.n_recurrent_layers:
        terms.append(_kv_term(info, caches, settings))
    if caches.n_recurrent_layers:
        terms.append(_state_term(info, caches, settings))
    return terms


def _kv_term(info: ModelInfo, caches: Caches, settings: FitSettings) -> Term:
    streams, groups = _n_streams(settings), Counter(caches.layers)
    n_bytes, parts = 0, []
    for layer, n_layers in groups.items():
        cells = _cells(layer, caches, settings)
        n_bytes += streams * n_layers * cells * _layer_bytes(layer, settings)
        parts.append(f"{n_layers} layers x {cells:,} cells x {_row_text(layer, settings)}")
    formula = f"{caches.rule}: " + " + ".join(parts) if parts else caches.rule
    if streams > 1:
        formula += f", for each of {streams} sequences"
    return Term("KV cache", n_bytes, caches.certainty, formula, _cache_keys(info, caches))


def _state_term(info: ModelInfo, caches: Caches, settings: FitSettings) -> Term:
    rows = max(settings.n_sequences, 1)
    n_bytes = caches.n_recurrent_layers * rows * caches.state_elements * F32_BYTES
    formula = f"{caches.n_recurrent_layers} layers x {caches.state_elements:,} f32"
    if rows > 1:
        formula += f", for each of {rows} sequences"
    names = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.group_count")
    return Term("recurrent state", n_bytes, caches.certainty, formula, _keys(info, *names))


def _sequence_tokens(settings: FitSettings) -> int:
    """Tokens that one sequence may use, after llama.cpp's rounding (llama-context.cpp)."""
    tokens = _padded(settings.context_tokens)
    return tokens if settings.unified else _padded(tokens // settings.n_sequences)


def _n_streams(settings: FitSettings) -> int:
    return 1 if settings.unified else settings.n_sequences


def _padded(n_tokens: int) -> int:
    return max(-(-n_tokens // CONTEXT_STEP_TOKENS), 1) * CONTEXT_STEP_TOKENS


def _cells(layer: CacheLayer, caches: Caches, settings: FitSettings) -> int:
    """Tokens that a layer keeps for one stream (llama-kv-cache-iswa.cpp size_swa)."""
    full = _sequence_tokens(settings)
    if not layer.windowed or settings.swa_full:
        return full
    windows = caches.window_tokens * (settings.n_sequences if settings.unified else 1)
    return _padded(min(full, windows + settings.n_ubatch_tokens))


def _row_bytes(elements: int, type_name: str) -> int:
    type_ = CACHE_TYPES[type_name]
    return elements * type_.type_size_bytes // type_.block_size


def _layer_bytes(layer: CacheLayer, settings: FitSettings) -> int:
    return _row_bytes(layer.k_elements, settings.cache_type_k) + _row_bytes(
        layer.v_elements, settings.cache_type_v
    )


def _row_text(layer: CacheLayer, settings: FitSettings) -> str:
    key = f"{layer.k_elements:,} {settings.cache_type_k}"
    return f"({key} + {layer.v_elements:,} {settings.cache_type_v})" if layer.v_elements else key


def _bytes_per_token(caches: Caches | None, settings: FitSettings) -> int | None:
    if caches is None:
        return None
    return sum(
        _layer_bytes(layer, settings) for layer in caches.layers if settings.swa_full or not layer.windowed
    )


def _keys(info: ModelInfo, *names: str) -> tuple[str, ...]:
    return tuple(f"{info.architecture}.{name}" for name in names)


def _cache_keys(info: ModelInfo, caches: Caches) -> tuple[str, ...]:
    names = ["block_count", "attention.head_count_kv", "attention.key_length"]
    names.append("attention.key_length_mla" if is_mla(info.attention) else "attention.value_length")
    if caches.window_tokens:
        names += ["attention.sliding_window", "attention.sliding_window_pattern"]
    return _keys(info, *names)


def _warnings(info: ModelInfo, caches: Caches | None, settings: FitSettings) -> list[str]:
    warnings = []
    longest = info.context_length_tokens
    if longest and settings.context_tokens > longest:
        warnings.append(f"the model was trained for {longest:,} tokens, not {settings.context_tokens:,}")
    old, new = _bytes_per_token(caches, settings), _mla_bytes_per_token(info, settings)
    if old and new:
        warnings.append(
            f"this file was made before llama.cpp learnt MLA: its KV cache takes {old:,} bytes a token, "
            f"{old / new:.0f} times the {new:,} of a newer upload of the same quant (since April 2025)"
        )
    return warnings


def _mla_bytes_per_token(info: ModelInfo, settings: FitSettings) -> int | None:
    """Return what a new file of the same model would take for a token; None when this is no old file."""
    attention = info.attention
    if info.architecture != "deepseek2" or attention is None or is_mla(attention):
        return None
    elements = (attention.kv_lora_rank or 0) + (attention.rope_dimension_count or 0)
    return (n_trunk_layers(info) or 0) * _row_bytes(elements, settings.cache_type_k)
