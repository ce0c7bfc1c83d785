"""What the KV metadata say about a model: its architecture in numbers, and where it comes from.

Keys: llama-arch.cpp `LLM_KV_NAMES` of llama.cpp; the same names in `gguf.constants.Keys`. A key that is
absent is None (the runtimes have defaults of their own); one with an impossible value is a FormatError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ggufkit.errors import FormatError
from ggufkit.gguf.header import KV, ArraySpan, Header, TensorInfo
from ggufkit.gguf.types import FILE_TYPES, ValueType

MAX_LAYERS = 512  # llama-hparams.h LLAMA_MAX_LAYERS
MAX_BASE_MODELS = 16  # a cap of our own: merges name two or three
GUESSED_FILE_TYPE = 1024  # llama.h LLAMA_FTYPE_GUESSED, a flag on top of the number
MAX_COUNT = 0x7FFFFFFF  # ggml keeps its sizes in int32 here and there; real values are far below

Kind = Literal["model", "mmproj", "adapter", "imatrix", "vocabulary"]


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention layers' numbers, as the file gives them."""

    n_heads: tuple[int, ...]
    """Query heads of each layer."""
    n_kv_heads: tuple[int, ...]
    """Key and value heads of each layer; 0 for a layer without attention."""
    key_length: int
    """Elements of one head's key."""
    value_length: int
    """Elements of one head's value."""
    key_length_swa: int | None
    """Elements of one head's key in sliding-window layers, when it differs."""
    value_length_swa: int | None
    """Elements of one head's value in sliding-window layers, when it differs."""
    key_length_mla: int | None
    """Elements of a key after MLA's decompression; files for the compressed cache have it."""
    value_length_mla: int | None
    """Elements of a value after MLA's decompression."""
    q_lora_rank: int | None
    """Elements of MLA's compressed query."""
    kv_lora_rank: int | None
    """Elements of MLA's compressed key and value."""
    sliding_window_tokens: int | None
    """How far back a sliding-window layer looks, tokens."""
    sliding_window_pattern: int | tuple[bool, ...] | None
    """Every n-th layer is a full one, or for each layer (the rest: no) whether it has the window."""
    n_shared_kv_layers: int | None
    """Last layers that use the cache of earlier ones."""
    rope_dimension_count: int | None
    """Elements of a key that carry its position."""
    indexer_key_length: int | None
    """Elements of the indexer's key (sparse attention, DSA)."""
    indexer_layers: tuple[bool, ...] | None
    """For each layer whether it has an indexer of its own (`attention.indexer.types`)."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The numbers of a mixture of experts."""

    n_experts: int
    """Routed experts of a layer."""
    n_used: int | None
    """Routed experts that a token uses; the most, where layers differ."""
    n_shared: int | None
    """Experts that every token uses."""
    feed_forward_length: int | None
    """Elements of a routed expert's hidden layer; the most, where layers differ."""
    n_leading_dense_layers: int | None
    """First layers without experts."""


@dataclass(frozen=True, slots=True)
class Recurrent:
    """The numbers of recurrent layers (state space models, RWKV, short convolutions)."""

    conv_kernel: int | None
    """Width of the convolution, tokens (`ssm.conv_kernel`)."""
    inner_size: int | None
    """Elements of the inner state's rows (`ssm.inner_size`)."""
    state_size: int | None
    """Elements of one state (`ssm.state_size`)."""
    time_step_rank: int | None
    """Rank of the time step (`ssm.time_step_rank`)."""
    n_groups: int | None
    """Groups (`ssm.group_count`)."""
    kda_head_size: int | None
    """Elements of a head of Kimi's delta attention (`kda.head_dim`)."""
    wkv_head_size: int | None
    """Elements of an RWKV head (`wkv.head_size`)."""
    n_token_shifts: int | None
    """Embeddings that an RWKV layer keeps (`token_shift_count`)."""
    shortconv_cache: int | None
    """Width of a short convolution, tokens (`shortconv.l_cache`)."""
    layers: tuple[bool, ...] | None
    """For each layer (the rest: no) whether it is recurrent (`attention.recurrent_layers`)."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in numbers; None where the file does not say."""

    kind: Kind
    """What the file is: only a `model` can be run by itself."""
    architecture: str | None
    """llama.cpp's name, e.g. `deepseek2`; the prefix of the other keys."""
    name: str | None
    """`general.name`."""
    size_label: str | None
    """`general.size_label`, e.g. `256x20B`."""
    organization: str | None
    """Who made the model."""
    quantized_by: str | None
    """Who made this file."""
    license: str | None
    """SPDX name or whatever the file says."""
    repo_url: str | None
    """Where the file comes from, by its own word."""
    base_models: tuple[str, ...]
    """What the model was made from: a URL, else a name."""
    file_type: str | None
    """The quant that most tensors were meant to have (`general.file_type`), e.g. `Q4_K_M`."""
    n_tensors: int
    """Tensors in all shards."""
    n_parameters: int
    """Elements of all tensors in all shards."""
    n_layers: int | None
    """Blocks, next-token-prediction blocks included (`block_count`)."""
    n_nextn_layers: int | None
    """Last blocks that predict further tokens (MTP); runtimes skip them unless asked."""
    context_length_tokens: int | None
    """The longest context that the model was trained for, tokens."""
    embedding_length: int | None
    """Elements of an embedding."""
    feed_forward_length: tuple[int, ...] | None
    """Elements of each layer's hidden feed-forward layer."""
    n_vocabulary: int | None
    """Tokens of the vocabulary."""
    full_attention_interval: int | None
    """Every n-th layer has attention, the others are recurrent."""
    attention: Attention | None
    """Attention's numbers; None for a model without."""
    experts: Experts | None
    """Experts' numbers; None for a dense model."""
    recurrent: Recurrent | None
    """Recurrent layers' numbers; None for a model without."""


def model_info(headers: Sequence[Header]) -> ModelInfo:
    """Read what the headers of one model (one file, or its shards in order) say about it.

    The first header holds the metadata. Raises FormatError naming the key whose value is impossible.
    """
    keys = Keys(headers[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    n_layers = keys.count("block_count", MAX_LAYERS)
    nextn = keys.count("nextn_predict_layers", n_layers)
    return ModelInfo(
        kind=_kind(keys, tensors),
        architecture=keys.architecture,
        name=keys.text("general.name"),
        size_label=keys.text("general.size_label"),
        organization=keys.text("general.organization"),
        quantized_by=keys.text("general.quantized_by"),
        license=keys.text("general.license"),
        repo_url=keys.text("general.repo_url"),
        base_models=_base_models(keys),
        file_type=_file_type(keys),
        n_tensors=len(tensors),
        n_parameters=sum(tensor.n_elements for tensor in tensors),
        n_layers=n_layers,
        n_nextn_layers=nextn,
        context_length_tokens=keys.count("context_length"),
        embedding_length=keys.count("embedding_length"),
        feed_forward_length=keys.per_layer("feed_forward_length", n_layers),
        n_vocabulary=_n_vocabulary(keys, tensors),
        full_attention_interval=keys.count("full_attention_interval"),
        attention=_attention(keys, n_layers),
        experts=_experts(keys, n_layers),
        recurrent=_recurrent(keys),
    )


_NO_FLAGS = (ValueType.STRING, ValueType.FLOAT32, ValueType.FLOAT64)


class Keys:
    """The metadata of one header, read with checks; short names stand for `<architecture>.<name>`."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.architecture = header.string("general.architecture") or None

    def entry(self, name: str) -> KV | None:
        """Return the entry under the architecture's key `name`."""
        return self.header.kv.get(f"{self.architecture}.{name}")

    def fail(self, entry: KV, reason: str) -> FormatError:
        """Make the error that names the entry's key."""
        return FormatError(self.header.name, f"key {entry.key} {reason}", offset=entry.start)

    def text(self, key: str) -> str | None:
        """Return the string under the full `key`; None when it is absent or empty."""
        entry = self.header.kv.get(key)
        if entry is None or entry.value == "":
            return None
        if not isinstance(entry.value, str):
            raise self.fail(entry, "is no string")
        return entry.value

    def count(self, name: str, most: int | None = None) -> int | None:
        """Return the integer under the architecture's key `name`, checked to be within 0 and `most`."""
        entry = self.entry(name)
        return None if entry is None else self.checked(entry, entry.value, most)

    def checked(self, entry: KV, value: object, most: int | None = None) -> int:
        """Return `value`, of the entry or of its array, when it is an integer within 0 and `most`."""
        limit = MAX_COUNT if most is None else most
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(entry, "is no integer")
        if not 0 <= value <= limit:
            raise self.fail(entry, f"is {value}; 0 to {limit} are possible")
        return value

    def per_layer(self, name: str, n_layers: int | None) -> tuple[int, ...] | None:
        """Return a value for each layer: the key holds one for all, or an array with one for each."""
        entry = self.entry(name)
        if entry is None or n_layers is None:
            return None
        if not isinstance(entry.value, ArraySpan):
            return (self.checked(entry, entry.value),) * n_layers
        if entry.value.n_elements != n_layers:
            raise self.fail(entry, f"has {entry.value.n_elements} elements for {n_layers} layers")
        return tuple(self.checked(entry, value) for value in self.header.array(entry.key))

    def most(self, name: str, n_layers: int | None, limit: int | None = None) -> int | None:
        """Return the greatest of a value that layers may have in common or each for itself."""
        entry, values = self.entry(name), self.per_layer(name, n_layers)
        return self.checked(entry, max(values), limit) if entry and values else None

    def flags(self, name: str) -> tuple[bool, ...] | None:
        """Return an array of yes and no for the first layers; None when the key is absent."""
        entry = self.entry(name)
        if entry is None:
            return None
        span = entry.value
        if not isinstance(span, ArraySpan) or span.element_type in _NO_FLAGS:
            raise self.fail(entry, "is no array of bools")
        if span.n_elements > MAX_LAYERS:
            raise self.fail(entry, f"has {span.n_elements:,} elements; {MAX_LAYERS} are possible")
        return tuple(bool(value) for value in self.header.array(entry.key))


def _kind(keys: Keys, tensors: Sequence[TensorInfo]) -> Kind:
    type_ = keys.text("general.type")
    if type_ == "mmproj" or keys.architecture == "clip":
        return "mmproj"
    if type_ == "adapter" or "adapter.type" in keys.header.kv:
        return "adapter"
    if type_ == "imatrix":
        return "imatrix"
    return "model" if tensors or "tokenizer.ggml.tokens" not in keys.header.kv else "vocabulary"


def _base_models(keys: Keys) -> tuple[str, ...]:
    entry = keys.header.kv.get("general.base_model.count")
    n = 0 if entry is None else keys.checked(entry, entry.value, MAX_BASE_MODELS)
    found = (
        keys.text(f"general.base_model.{i}.repo_url") or keys.text(f"general.base_model.{i}.name")
        for i in range(n)
    )
    return tuple(text for text in found if text)


def _file_type(keys: Keys) -> str | None:
    entry = keys.header.kv.get("general.file_type")
    if entry is None:
        return None
    number = keys.checked(entry, entry.value) & ~GUESSED_FILE_TYPE
    return FILE_TYPES.get(number, f"type {number}")


def _n_vocabulary(keys: Keys, tensors: Sequence[TensorInfo]) -> int | None:
    """Count tokens: the tokenizer's list, else `vocab_size`, else the rows of the embedding."""
    tokens = keys.header.kv.get("tokenizer.ggml.tokens")
    if tokens is not None and isinstance(tokens.value, ArraySpan):
        return tokens.value.n_elements
    said = keys.count("vocab_size")
    if said is not None:
        return said
    rows = (t.shape[1] for t in tensors if t.name == "token_embd.weight" and len(t.shape) > 1)
    return next(rows, None)


def _attention(keys: Keys, n_layers: int | None) -> Attention | None:
    n_heads = keys.per_layer("attention.head_count", n_layers)
    if not n_heads:
        return None
    head_length = (keys.count("embedding_length") or 0) // (n_heads[0] or max(n_heads) or 1)
    key_length, value_length = (keys.count(f"attention.{what}_length") for what in ("key", "value"))
    return Attention(
        n_heads=n_heads,
        n_kv_heads=keys.per_layer("attention.head_count_kv", n_layers) or n_heads,
        key_length=head_length if key_length is None else key_length,
        value_length=head_length if value_length is None else value_length,
        key_length_swa=keys.count("attention.key_length_swa"),
        value_length_swa=keys.count("attention.value_length_swa"),
        key_length_mla=keys.count("attention.key_length_mla"),
        value_length_mla=keys.count("attention.value_length_mla"),
        q_lora_rank=keys.count("attention.q_lora_rank"),
        kv_lora_rank=keys.count("attention.kv_lora_rank"),
        sliding_window_tokens=keys.count("attention.sliding_window"),
        sliding_window_pattern=_pattern(keys),
        n_shared_kv_layers=keys.count("attention.shared_kv_layers", n_layers),
        rope_dimension_count=keys.count("rope.dimension_count"),
        indexer_key_length=keys.count("attention.indexer.key_length"),
        indexer_layers=keys.flags("attention.indexer.types"),
    )


def _pattern(keys: Keys) -> int | tuple[bool, ...] | None:
    entry = keys.entry("attention.sliding_window_pattern")
    if entry is None or isinstance(entry.value, ArraySpan):
        return keys.flags("attention.sliding_window_pattern")
    return keys.checked(entry, entry.value, MAX_LAYERS)


def _experts(keys: Keys, n_layers: int | None) -> Experts | None:
    n_experts = keys.count("expert_count")
    if not n_experts:
        return None
    return Experts(
        n_experts=n_experts,
        n_used=keys.most("expert_used_count", n_layers, n_experts),
        n_shared=keys.count("expert_shared_count"),
        feed_forward_length=keys.most("expert_feed_forward_length", n_layers),
        n_leading_dense_layers=keys.count("leading_dense_block_count", n_layers),
    )


def _recurrent(keys: Keys) -> Recurrent | None:
    found = Recurrent(
        conv_kernel=keys.count("ssm.conv_kernel"),
        inner_size=keys.count("ssm.inner_size"),
        state_size=keys.count("ssm.state_size"),
        time_step_rank=keys.count("ssm.time_step_rank"),
        n_groups=keys.count("ssm.group_count"),
        kda_head_size=keys.count("kda.head_dim"),
        wkv_head_size=keys.count("wkv.head_size"),
        n_token_shifts=keys.count("token_shift_count"),
        shortconv_cache=keys.count("shortconv.l_cache"),
        layers=keys.flags("attention.recurrent_layers"),
    )
    return None if found == Recurrent(*[None] * 10) else found
