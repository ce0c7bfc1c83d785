"""How much memory a model takes in llama.cpp: weights, caches, buffers, each term explained.

Pure arithmetic on the header; compute buffers are planned by `compute.py`.
Source of the rules: llama.cpp b11434 (October 2026), llama-context.cpp, llama-kv-cache-iswa.cpp,
llama-memory-recurrent.cpp.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ggufkit.errors import UsageError
from ggufkit.fit.caches import CacheLayer, Caches, Certainty, caches_of, is_mla, n_trunk_layers
from ggufkit.fit.cells import (
    CACHE_TYPES,
    bytes_per_token,
    cells_of,
    layer_bytes,
    mla_bytes_per_token,
    n_streams,
    row_text,
    sequence_tokens,
)
from ggufkit.fit.compute import certainty_of, compute_phases, layers_of
from ggufkit.fit.devices import F32_BYTES, devices_of, most
from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Offload, Term
from ggufkit.fit.layers import ComputeSettings
from ggufkit.fit.placement import Placement, place, weights_on
from ggufkit.fit.repack import MEASURED_ISA, is_rearranged, rearranged_bytes
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo

_BLOCK = re.compile(r"blk\.(\d+)\.")


def estimate_memory(info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings) -> MemoryEstimate:
    """Estimate the memory of a model with these `tensors` (of all shards) under `settings`.

    Raises UsageError for settings with which llama.cpp refuses the model.
    """
    caches = caches_of(info)
    _check_settings(info, settings)
    placed = place(settings.offload, info.n_layers or 0)
    loaded = _loaded(info, tensors)
    on_devices = weights_on(placed, loaded)
    copies = _embedding_copy(tensors, caches, settings, placed)
    weights = [_weights_term(info, tensors, loaded, sum(on_devices)), *copies]
    cache = _cache_terms(info, caches, settings)
    phases = _phases(info, tensors, caches, settings, placed)
    compute, output = _compute_term(info, phases, settings), _output_term(info, settings)
    devices = devices_of(settings, on_devices, _sums(copies), placed, caches, phases, output.n_bytes)
    parts = _sums(weights), _known_sum(cache), compute.n_bytes, output.n_bytes
    mapped = on_devices[placed.cpu]
    return MemoryEstimate(
        settings=settings,
        context_tokens=sequence_tokens(settings) * n_streams(settings),
        terms=(*weights, *cache, compute, output),
        weights_bytes=parts[0],
        mapped_bytes=mapped,
        rearranged_bytes=_rearranged(loaded, copies, settings, placed),
        kv_cache_bytes=parts[1],
        compute_bytes=parts[2],
        output_bytes=parts[3],
        kept_bytes=None if parts[1] is None else devices[0].total_bytes - mapped,
        total_bytes=sum(device.total_bytes for device in devices),
        kv_bytes_per_token=bytes_per_token(caches, settings),
        devices=devices,
        phases=tuple(max(phases, key=most).items()) if phases else (),
        may_grow=tuple(_growth(caches, settings)),
        warnings=tuple(_warnings(info, caches, settings)),
    )


def _sums(terms: Iterable[Term]) -> int:
    return sum(term.n_bytes or 0 for term in terms)


def _known_sum(terms: Sequence[Term]) -> int | None:
    return None if any(term.n_bytes is None for term in terms) else _sums(terms)


def _check_settings(info: ModelInfo, settings: FitSettings) -> None:
    k, v = settings.cache_type_k, settings.cache_type_v
    for option, name in (("--cache-type-k", k), ("--cache-type-v", v)):
        if name not in CACHE_TYPES:
            raise UsageError(f"{option} {name}: choose from {', '.join(CACHE_TYPES)}")
    if CACHE_TYPES[v].block_size > 1 and not settings.flash:
        hint = "--flash-attn on, or --cache-type-v f16"
        raise UsageError(f"llama.cpp keeps {v} values only with flash attention", hint=hint)
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


def _rearranged(
    tensors: Sequence[TensorInfo], copies: Sequence[Term], settings: FitSettings, placed: Placement
) -> int:
    """Sum what the CPU rearranges of the weights that it has."""
    if placed.n_places > 1:
        tensors = [tensor for tensor in tensors if placed.cpu in placed.of_tensor(tensor.name)]
    own = _sums(copies) if placed.output == placed.cpu else 0
    return rearranged_bytes(tensors, settings.isa) + own


def _loaded(info: ModelInfo, tensors: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Return the tensors that the runtime loads: all but the blocks that predict further tokens."""
    trunk = n_trunk_layers(info)
    blocks = ((tensor, _BLOCK.match(tensor.name)) for tensor in tensors)
    return [tensor for tensor, block in blocks if trunk is None or block is None or int(block[1]) < trunk]


def _weights_term(
    info: ModelInfo, tensors: Sequence[TensorInfo], loaded: Sequence[TensorInfo], on_devices: int
) -> Term:
    total, kept = (sum(tensor.n_bytes for tensor in some) for some in (tensors, loaded))
    formula = f"{len(tensors):,} tensors of {total:,} bytes"
    if kept < total:
        formula += f", less {total - kept:,} of next-token-prediction blocks, which are not loaded"
    keys = _keys(info, "nextn_predict_layers") if kept < total else ()
    if on_devices > kept:
        formula += f", plus {on_devices - kept:,} that every device with layers gets"
    return Term("weights", on_devices, "exact", formula, keys)


def _embedding_copy(
    tensors: Iterable[TensorInfo], caches: Caches | None, settings: FitSettings, placed: Placement
) -> list[Term]:
    """Count the second copy of an embedding that is the output matrix as well: repacked, or for a GPU."""
    by_name = {t.name: t for t in tensors if t.name in ("output.weight", "token_embd.weight")}
    embedding = by_name.get("token_embd.weight")
    if embedding is None or "output.weight" in by_name or caches is None or len(embedding.shape) < 2:
        return []
    if placed.output != placed.cpu:
        formula = "the embedding is the output matrix too, of which the GPU gets its own"
        return [Term("embedding copy", embedding.n_bytes, "exact", formula, ())]
    isa = settings.isa
    if not is_rearranged(embedding, isa, as_output=True):
        return []
    certainty: Certainty = "exact" if isa == MEASURED_ISA else "approximate"
    formula = f"the embedding is the output matrix too, and rearranged as that ({isa}; --isa for another CPU)"
    return [Term("embedding copy", embedding.n_bytes, certainty, formula, ())]


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
    streams, groups = n_streams(settings), Counter(caches.layers)
    n_bytes, parts = 0, []
    for layer, n_layers in groups.items():
        cells = cells_of(layer, caches, settings)
        n_bytes += streams * n_layers * cells * layer_bytes(layer, settings)
        parts.append(f"{n_layers} layers x {cells:,} cells x {row_text(layer, settings)}")
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


def _phases(
    info: ModelInfo,
    tensors: Sequence[TensorInfo],
    caches: Caches | None,
    settings: FitSettings,
    placed: Placement,
) -> list[dict[str, int]]:
    """Return how far each phase fills the compute buffer of each device; nothing when that is not known."""
    layers = None if caches is None else layers_of(info, tensors, placed)
    if caches is None or layers is None:
        return []
    return compute_phases(info, layers, _compute_settings(caches, settings, placed))


def _compute_settings(caches: Caches, settings: FitSettings, placed: Placement) -> ComputeSettings:
    """llama-context.cpp: the batch is no longer than the context, and a multiple of the sequences."""
    k, v = CACHE_TYPES[settings.cache_type_k], CACHE_TYPES[settings.cache_type_v]
    n, context = settings.n_sequences, sequence_tokens(settings) * n_streams(settings)
    n_tokens = min(context, settings.n_batch_tokens, settings.n_ubatch_tokens)
    return ComputeSettings(
        n_tokens=-(-n_tokens // n) * n,
        n_sequences=n,
        n_outputs=min(n_tokens, settings.n_outputs or n),
        n_cells=sequence_tokens(settings),
        n_window_cells=cells_of(CacheLayer(0, 0, True), caches, settings) if caches.window_tokens else 0,
        n_streams=n_streams(settings),
        flash=settings.flash,
        k_element_bytes=k.type_size_bytes / k.block_size,
        v_element_bytes=v.type_size_bytes / v.block_size,
        k_quantized=k.block_size > 1,
        v_quantized=v.block_size > 1,
        mixed_inputs=settings.mixed_inputs,
        n_places=placed.n_places,
        output_place=placed.output,
        pipeline=_is_pipeline(settings.offload, placed),
        cache_on_cpu=settings.offload is not None and settings.offload.cache_on_cpu,
    )


def _is_pipeline(offload: Offload | None, placed: Placement) -> bool:
    """llama-context.cpp `pipeline_parallel`, for GPUs that can compute while they copy."""
    several = placed.n_places > 2 and placed.all_layers and not placed.rules
    return several and offload is not None and not offload.cache_on_cpu


def _compute_term(info: ModelInfo, phases: list[dict[str, int]], settings: FitSettings) -> Term:
    if not phases:
        reason = f"ggufkit does not know how {info.architecture} computes, or the header says too little"
        return Term("compute buffer", None, "unknown", reason, ())
    fullest = max(phases, key=most)
    widest = max(fullest, key=lambda name: fullest[name])
    tokens = min(settings.n_ubatch_tokens, settings.n_batch_tokens)
    attention = "flash attention" if settings.flash else "no flash attention"
    formula = f"the graph for {tokens:,} tokens, planned as ggml plans it: most for {widest}; {attention}"
    names = ("embedding_length", "feed_forward_length", "attention.head_count", "attention.key_length")
    certainty = certainty_of(info)
    if len(phases) > 1:
        certainty = "approximate"
        formula += f"; on {len(phases)} devices, from measurements with RPC devices in the place of GPUs"
    return Term("compute buffer", sum(map(most, phases)), certainty, formula, _keys(info, *names))


def _output_term(info: ModelInfo, settings: FitSettings) -> Term:
    """llama-context.cpp output_reserve: the scores of one token of each sequence."""
    if not info.n_vocabulary:
        return Term("output buffer", None, "unknown", "the header says nothing of a vocabulary", ())
    n_bytes = info.n_vocabulary * settings.n_sequences * F32_BYTES
    formula = f"{info.n_vocabulary:,} tokens of the vocabulary x {settings.n_sequences} x 4 bytes"
    return Term("output buffer", n_bytes, "exact", formula, ("tokenizer.ggml.tokens",))


def _growth(caches: Caches | None, settings: FitSettings) -> Iterable[Term]:
    """Return what llama-server adds while it runs (tools/server/server-context.cpp)."""
    if settings.prompt_cache_bytes:
        text = "earlier prompts are kept up to --cache-ram"
        yield Term("prompt cache", settings.prompt_cache_bytes, "exact", text, ())
    if caches is None or not settings.n_checkpoints:
        return
    windows = sum(
        cells_of(layer, caches, settings) * layer_bytes(layer, settings)
        for layer in caches.layers
        if layer.windowed and not settings.swa_full
    )
    states = caches.n_recurrent_layers * caches.state_elements * F32_BYTES
    if windows + states:
        n = settings.n_checkpoints * settings.n_sequences
        text = f"at most {n} states of {windows + states:,} bytes (--ctx-checkpoints)"
        yield Term("checkpoints", n * (windows + states), "approximate", text, ())


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
    old, new = bytes_per_token(caches, settings), mla_bytes_per_token(info, settings)
    if old and new:
        warnings.append(
            f"this file was made before llama.cpp learnt MLA: its KV cache takes {old:,} bytes a token, "
            f"{old / new:.0f} times the {new:,} of a newer upload of the same quant (since April 2025)"
        )
    return warnings
