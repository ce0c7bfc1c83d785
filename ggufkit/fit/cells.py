"""What caches take: cells of each stream, rows of each layer, after llama.cpp's rounding.

Source: llama.cpp b11434, llama-context.cpp, llama-kv-cache-iswa.cpp, common/arg.cpp.
"""

from __future__ import annotations

from ggufkit.fit.caches import CacheLayer, Caches, is_mla, n_trunk_layers
from ggufkit.fit.estimate import FitSettings
from ggufkit.gguf.model import ModelInfo
from ggufkit.gguf.types import TENSOR_TYPES, TensorType

CONTEXT_STEP_TOKENS = 256  # llama-context.cpp: n_ctx and n_ctx_seq go through GGML_PAD(..., 256)
CACHE_TYPES: dict[str, TensorType] = {
    t.name.lower(): t
    for t in TENSOR_TYPES.values()
    if t.name in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
}
"""What a cache may be made of (common/arg.cpp `kv_cache_types`)."""


def sequence_tokens(settings: FitSettings) -> int:
    """Tokens that one sequence may use, after llama.cpp's rounding (llama-context.cpp)."""
    tokens = padded(settings.context_tokens)
    return tokens if settings.unified else padded(tokens // settings.n_sequences)


def n_streams(settings: FitSettings) -> int:
    """Count the caches that are kept apart."""
    return 1 if settings.unified else settings.n_sequences


def padded(n_tokens: int) -> int:
    """Round tokens up as llama.cpp does."""
    return max(-(-n_tokens // CONTEXT_STEP_TOKENS), 1) * CONTEXT_STEP_TOKENS


def cells_of(layer: CacheLayer, caches: Caches, settings: FitSettings) -> int:
    """Tokens that a layer keeps for one stream (llama-kv-cache-iswa.cpp size_swa)."""
    full = sequence_tokens(settings)
    if not layer.windowed or settings.swa_full:
        return full
    windows = caches.window_tokens * (settings.n_sequences if settings.unified else 1)
    return padded(min(full, windows + settings.n_ubatch_tokens))


def row_bytes(elements: int, type_name: str) -> int:
    """Return the bytes of a row of so many elements of a cache type."""
    type_ = CACHE_TYPES[type_name]
    return elements * type_.type_size_bytes // type_.block_size


def layer_bytes(layer: CacheLayer, settings: FitSettings) -> int:
    """Return the bytes that a layer keeps of one token."""
    return row_bytes(layer.k_elements, settings.cache_type_k) + row_bytes(
        layer.v_elements, settings.cache_type_v
    )


def row_text(layer: CacheLayer, settings: FitSettings) -> str:
    """Say what a layer keeps of one token."""
    key = f"{layer.k_elements:,} {settings.cache_type_k}"
    return f"({key} + {layer.v_elements:,} {settings.cache_type_v})" if layer.v_elements else key


def bytes_per_token(caches: Caches | None, settings: FitSettings) -> int | None:
    """Return the bytes that each further token takes, in layers that keep all of them."""
    if caches is None:
        return None
    return sum(
        layer_bytes(layer, settings) for layer in caches.layers if settings.swa_full or not layer.windowed
    )


def mla_bytes_per_token(info: ModelInfo, settings: FitSettings) -> int | None:
    """Return what a new file of the same model would take for a token; None when this is no old file."""
    attention = info.attention
    if info.architecture != "deepseek2" or attention is None or is_mla(attention):
        return None
    elements = (attention.kv_lora_rank or 0) + (attention.rope_dimension_count or 0)
    return (n_trunk_layers(info) or 0) * row_bytes(elements, settings.cache_type_k)
