"""Which caches llama.cpp gives a model: what each layer keeps of every token, and what it keeps once.

Source of all rules here: llama.cpp b11434 (October 2026), `llama_model::create_memory` in
llama-model.cpp, the `load_arch_hparams` of src/models/, llama-hparams.cpp and llama-kv-cache*.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ggufkit.gguf.model import Attention, ModelInfo, Recurrent

Certainty = Literal["exact", "approximate", "unknown"]


def names_of(text: str) -> frozenset[str]:
    """Return the names in a text, in which spaces and ends of lines are between them."""
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What one layer keeps of a token."""

    k_elements: int
    """Elements of all key heads."""
    v_elements: int
    """Elements of all value heads; 0 where values are read from the keys (MLA)."""
    windowed: bool
    """Whether the layer keeps only the tokens of the sliding window."""
    index: int = field(default=0, compare=False)
    """The layer's number."""


@dataclass(frozen=True, slots=True)
class Caches:
    """All that a model keeps while it runs."""

    layers: tuple[CacheLayer, ...]
    """One entry for each cache; layers without one are left out."""
    window_tokens: int
    """The sliding window, tokens; 0 when no layer has one."""
    recurrent: tuple[int, ...]
    """Numbers of the layers that keep a state of fixed size."""
    state_elements: int
    """Elements (f32) of one recurrent layer's state for one sequence."""
    certainty: Certainty
    """`exact` when the rule was held against llama.cpp's own numbers for this architecture."""
    rule: str
    """What kind of cache it is, in words."""

    @property
    def n_recurrent_layers(self) -> int:
        """Layers that keep a state of fixed size."""
        return len(self.recurrent)


@dataclass(frozen=True, slots=True)
class Window:
    """Where an architecture's sliding windows are when the file does not say."""

    period: int
    """Every n-th layer is a full one; 0: the file has to say which layers slide."""
    dense_first: bool = False
    """Whether the full layer is the first of a period, not the last."""
    default_tokens: int = 0
    """The window when the file gives none; 0: then there is none."""
    fixed_tokens: int = 0
    """The window whatever the file gives, unless that is 0."""


WINDOWS: dict[str, Window] = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, dense_first=True),
    "exaone-moe": Window(4, default_tokens=128),
    "exaone4": Window(4, default_tokens=4096),
    "gemma2": Window(2, default_tokens=4096),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gemma4": Window(0),
    "gpt-oss": Window(2),
    "granite_swa": Window(0),
    "laguna": Window(4, dense_first=True),
    "llama4": Window(4, default_tokens=8192, fixed_tokens=8192),
    "maple": Window(0),
    "mellum": Window(4),
    "mimo2": Window(0),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, dense_first=True, fixed_tokens=4096),
    "spark2_5": Window(0),
    "step35": Window(0),
}
"""Architectures with sliding windows. Others may name a window and get none (phi3, qwen2, mistral)."""

NO_CACHE = names_of("""
    bert clef dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe modern-bert
    neo-bert nomic-bert nomic-bert-moe rnd1 wavtokenizer-dec
""")
"""Embedding and diffusion models: they see the whole text at once and keep nothing."""

RWKV = frozenset({"arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"})
RECURRENT = RWKV | {"mamba", "mamba2"}
"""Every layer keeps a state, none a cache."""
SHORTCONV = frozenset({"lfm2", "lfm2moe"})
KDA = frozenset({"bailingmoe3", "kimi-k3", "kimi-linear"})
NEMOTRON = frozenset({"nemotron_h", "nemotron_h_moe"})
BY_KV_HEADS = SHORTCONV | KDA | NEMOTRON | {"granitehybrid", "jamba", "plamo2"}
"""Hybrids whose recurrent layers are those without key-value heads."""
BY_INTERVAL = frozenset({"qwen35", "qwen35moe", "qwen3next"})
"""Hybrids in which every n-th layer has attention."""
FULL_ATTENTION_INTERVAL = 4  # the default of those (qwen3next.cpp, qwen35.cpp)
INDEXED = frozenset({"deepseek32", "glm-dsa", "minimax-m3"})
"""Sparse attention: a second cache for an indexer, with one head."""

MEASURED = names_of("""
    afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom
    chameleon chatglm codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2
    deepseek32 dots1 dream ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon falcon-h1
    gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 glm-dsa glm4 glm4moe gpt-oss gpt2 gptneox
    granite granite_swa granitehybrid granitemoe grok grovemoe hrm_text hunyuan-dense hunyuan-moe
    hunyuan_vl hy_v3 internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3 kimi-k3 kimi-linear laguna
    lfm2 lfm2moe llada llada-moe llama llama-embed llama4 maincoder mamba mamba2 maple mellum mimo2
    minicpm minicpm3 minimax-m2 minimax-m3 mistral3 mistral4 modern-bert mpt muse-glimmer nemotron
    nemotron_h nemotron_h_moe neo-bert nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion
    paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3 pockettts qwen qwen2 qwen2moe
    qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl qwen3vlmoe refact rnd1 rwkv6
    rwkv7 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 t5 t5encoder
    talkie wavtokenizer-dec xverse
""")
"""Architectures for which every number here was held against llama.cpp's own (tests/fit/test_memory.py).

Left out are cache kinds that nothing here computes (deepseek4, dots3note, glm5-next, hy_v4, minimax-01,
qwen4exp), models whose layers run more than once (nanbeige), drafts (dflash, eagle3) and all unknown ones.
"""


def caches_of(info: ModelInfo) -> Caches | None:
    """Return what the model keeps while it runs; None when the file gives nothing to go by."""
    arch = info.architecture or ""
    if arch in NO_CACHE:
        return Caches((), 0, (), 0, _certainty(arch), "no cache: the model sees the whole text at once")
    # the memory of those hybrids is made for all layers, be they run or not
    n_layers = info.n_layers if arch in KDA else n_trunk_layers(info)
    if n_layers is None or (info.attention is None and arch not in RECURRENT):
        return None
    recurrent = _recurrent_layers(info, n_layers)
    layers, window = _attention_layers(info, n_layers, recurrent)
    return Caches(
        layers=layers,
        window_tokens=window,
        recurrent=tuple(i for i, state in enumerate(recurrent) if state),
        state_elements=_state_elements(info) if any(recurrent) else 0,
        certainty=_certainty(arch),
        rule=_rule(info, layers),
    )


def layer_kinds(info: ModelInfo) -> tuple[tuple[bool, bool], ...]:
    """Say for each layer that runs for every token whether it slides and whether it is recurrent."""
    n_layers = n_trunk_layers(info)
    if not n_layers or info.attention is None:
        return ()
    recurrent = _recurrent_layers(info, n_layers)
    return tuple(zip(_window(info, n_layers, recurrent)[1], recurrent, strict=True))


def n_trunk_layers(info: ModelInfo) -> int | None:
    """Count the layers that run for every token: all but those that predict further ones."""
    if info.n_layers is None:
        return None
    return info.n_layers - (info.n_nextn_layers or 0) or info.n_layers


def is_mla(attention: Attention | None) -> bool:
    """Say whether the cache holds MLA's compressed keys only (files made since April 2025)."""
    return attention is not None and bool(attention.key_length_mla and attention.value_length_mla)


def _certainty(arch: str) -> Certainty:
    return "exact" if arch in MEASURED else "approximate"


def _rule(info: ModelInfo, layers: Sequence[CacheLayer]) -> str:
    if not layers:
        return "a state of fixed size, no cache"
    kind = "keys and values"
    if is_mla(info.attention):
        kind = "compressed keys (MLA; runtimes of before 2026 keep values too, 1.9 times as much)"
    if info.architecture in MEASURED:
        return kind
    return f"a guess, as ggufkit does not know how {info.architecture} keeps its context: {kind}"


def _attention_layers(
    info: ModelInfo, n_layers: int, recurrent: Sequence[bool]
) -> tuple[tuple[CacheLayer, ...], int]:
    """Return a cache for each layer that has one, and the window in tokens."""
    attention, arch = info.attention, info.architecture or ""
    if attention is None or arch in RECURRENT:
        return (), 0
    window, windowed = _window(info, n_layers, recurrent)
    layers = tuple(
        _cache_layer(attention, i, windowed[i])
        for i in range(_n_cached_layers(info, n_layers))
        if _has_attention(info, i, recurrent[i])
    )
    indexed = tuple(_index_layers(info, n_layers) if arch in INDEXED else ())
    return layers + indexed, window


def _cache_layer(attention: Attention, i: int, windowed: bool) -> CacheLayer:
    heads = attention.n_kv_heads[i]
    key, value = attention.key_length, attention.value_length
    if windowed:
        key = attention.key_length_swa or key
        value = attention.value_length_swa or value
    return CacheLayer(heads * key, 0 if is_mla(attention) else heads * value, windowed, i)


def _has_attention(info: ModelInfo, i: int, recurrent: bool) -> bool:
    if info.architecture == "falcon-h1":
        return True  # every layer has both
    if info.architecture in NEMOTRON and info.feed_forward_length and info.feed_forward_length[i]:
        return False
    return not recurrent


def _n_cached_layers(info: ModelInfo, n_layers: int) -> int:
    """Count the first layers that have caches of their own; the rest use theirs."""
    if info.architecture == "gemma3n":
        return min(n_layers, 20)  # gemma3n.cpp n_layer_kv_from_start
    shared = info.attention.n_shared_kv_layers if info.attention else None
    return n_layers - shared if shared and info.architecture == "gemma4" else n_layers


def _index_layers(info: ModelInfo, n_layers: int) -> list[CacheLayer]:
    """Return the indexer's caches, one for each layer that has an indexer of its own."""
    attention = info.attention
    assert attention is not None
    # llama-kv-cache-msa.cpp: that of minimax-m3 has values too, which it does not need
    values = 0 if is_mla(attention) else attention.value_length
    size = attention.indexer_key_length or 0
    return [CacheLayer(size, values, False, i) for i in range(n_layers) if _has_indexer(info, attention, i)]


def _has_indexer(info: ModelInfo, attention: Attention, i: int) -> bool:
    if info.architecture == "minimax-m3":
        dense = info.experts.n_leading_dense_layers if info.experts else 0
        return i >= (dense or 0)
    if info.architecture != "glm-dsa":
        return True
    own = attention.indexer_layers
    if own is not None:
        return i < len(own) and own[i]
    # glm-dsa.cpp: in every layer before GLM 5.2, which is known by its million tokens
    return (info.context_length_tokens or 0) < 1 << 20 or i < 2 or i % 4 == 2


def _window(info: ModelInfo, n_layers: int, recurrent: Sequence[bool]) -> tuple[int, tuple[bool, ...]]:
    """Return the window in tokens and for each layer whether it has it."""
    none = 0, (False,) * n_layers
    attention, arch = info.attention, info.architecture or ""
    assert attention is not None
    if arch == "lfm2" and attention.sliding_window_tokens:
        return attention.sliding_window_tokens, tuple(not r for r in recurrent)
    rule = WINDOWS.get(arch)
    if rule is None or (arch == "exaone4" and n_layers != 64):
        return none
    tokens = attention.sliding_window_tokens
    tokens = rule.default_tokens if tokens is None else tokens and (rule.fixed_tokens or tokens)
    pattern = attention.sliding_window_pattern
    if isinstance(pattern, tuple):
        layers = (pattern + none[1])[:n_layers]
    else:
        layers = _periodic(rule.period if pattern is None else pattern, rule.dense_first, n_layers)
    return (tokens, layers) if tokens and any(layers) else none


def _periodic(period: int, dense_first: bool, n_layers: int) -> tuple[bool, ...]:
    """llama-hparams.cpp set_swa_pattern: one full layer in each period; period 0: none."""
    if not period:
        return (True,) * n_layers
    full = 0 if dense_first else period - 1
    return tuple(i % period != full for i in range(n_layers))


def _recurrent_layers(info: ModelInfo, n_layers: int) -> tuple[bool, ...]:
    """Say for each layer whether it keeps a state."""
    arch, attention = info.architecture or "", info.attention
    if arch in RECURRENT or arch == "falcon-h1":
        return (True,) * n_layers
    if arch in BY_INTERVAL:
        return _recurrent_by_interval(info, n_layers)
    if attention is None or (arch in MEASURED | WINDOWS.keys() and arch not in BY_KV_HEADS):
        return (False,) * n_layers
    without = [not heads for heads in attention.n_kv_heads[:n_layers]]
    if arch in NEMOTRON and info.feed_forward_length:
        without = [none and not info.feed_forward_length[i] for i, none in enumerate(without)]
    trunk = n_trunk_layers(info) or 0
    return tuple(none and info.recurrent is not None and i < trunk for i, none in enumerate(without))


def _recurrent_by_interval(info: ModelInfo, n_layers: int) -> tuple[bool, ...]:
    own = info.recurrent.layers if info.recurrent else None
    if own is not None:
        return (own + (False,) * n_layers)[:n_layers]
    interval = info.full_attention_interval or FULL_ATTENTION_INTERVAL
    return tuple((i + 1) % interval != 0 for i in range(n_layers))


def _state_elements(info: ModelInfo) -> int:
    """llama-hparams.cpp n_embd_r() + n_embd_s(): the convolution's tail and the state."""
    arch, state, embedding = info.architecture or "", info.recurrent, info.embedding_length or 0
    if state is None:
        return 0
    if arch in RWKV:
        shifts = 2 if state.n_token_shifts is None else state.n_token_shifts
        return embedding * (shifts + (state.wkv_head_size or 0))
    if arch in SHORTCONV:
        return embedding * max((state.shortconv_cache or 0) - 1, 0)
    tail = max((state.conv_kernel or 0) - 1, 0)
    if arch in KDA and info.attention:
        head, n_heads = state.kda_head_size or 0, info.attention.n_heads[0]
        return n_heads * head * (3 * (tail or 3) + head)
    return _mamba_elements(state, tail, 0 if arch in ("mamba", "jamba") else state.n_groups or 0)


def _mamba_elements(state: Recurrent, tail: int, n_groups: int) -> int:
    inner, size = state.inner_size or 0, state.state_size or 0
    return tail * (inner + 2 * n_groups * size) + size * inner
