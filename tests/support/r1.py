"""DeepSeek-R1 on paper: the metadata and tensors of its GGUF, without the weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

# The dynamic mix of UD-IQ2_XXS, first match wins: experts at about 2 bits, the rest at 4 to 6.
_R1_MIX = (
    ("output.weight", "Q6_K"),
    ("down_exps", "Q2_K"),
    ("_exps", "IQ2_XXS"),
    ("down_shexp", "Q6_K"),
    ("ffn_down.", "Q6_K"),
    ("attn_kv_a_mqa", "Q6_K"),
    ("attn_kv_b", "Q6_K"),
    ("attn_k_b", "Q8_0"),  # rows of 128 don't fit the K-quants' blocks of 256
    ("attn_v_b", "Q6_K"),
    ("", "Q4_K"),
)
_R1_N_MERGES = 127_741
_R1_N_TOKENS = 129_280


def r1_kv(mla: bool = False, chat_template: str | None = None) -> dict[str, Any]:
    """Return R1's metadata: the hyper-parameters of the published config.json, a made-up vocabulary."""
    tokens, merges = bpe_vocabulary(_R1_N_TOKENS, _R1_N_MERGES)
    kv: dict[str, Any] = {
        "general.architecture": "deepseek2",
        "general.type": "model",
        "general.name": "DeepSeek R1",
        "general.quantized_by": "Nobody",
        "general.size_label": "256x20B",
        "deepseek2.block_count": 61,
        "deepseek2.context_length": 163_840,
        "deepseek2.embedding_length": 7168,
        "deepseek2.feed_forward_length": 18_432,
        "deepseek2.attention.head_count": 128,
        "deepseek2.attention.head_count_kv": 1 if mla else 128,
        "deepseek2.rope.freq_base": 10_000.0,
        "deepseek2.attention.layer_norm_rms_epsilon": 1e-6,
        "deepseek2.expert_used_count": 8,
        "deepseek2.leading_dense_block_count": 3,
        "deepseek2.vocab_size": _R1_N_TOKENS,
        "deepseek2.attention.q_lora_rank": 1536,
        "deepseek2.attention.kv_lora_rank": 512,
        "deepseek2.attention.key_length": 512 + 64 if mla else 128 + 64,
        "deepseek2.attention.value_length": 512 if mla else 128,
        "deepseek2.attention.key_length_mla": 128 + 64 if mla else None,
        "deepseek2.attention.value_length_mla": 128 if mla else None,
        "deepseek2.expert_feed_forward_length": 2048,
        "deepseek2.expert_count": 256,
        "deepseek2.expert_shared_count": 1,
        "deepseek2.expert_weights_scale": 2.5,
        "deepseek2.expert_weights_norm": True,
        "deepseek2.expert_gating_func": 2,
        "deepseek2.rope.dimension_count": 64,
        "deepseek2.rope.scaling.type": "yarn",
        "deepseek2.rope.scaling.factor": 40.0,
        "deepseek2.rope.scaling.original_context_length": 4096,
        "deepseek2.rope.scaling.yarn_log_multiplier": 0.1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-v3",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": _token_types(tokens),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": chat_template,
        "general.quantization_version": 2,
        "general.file_type": 19,  # MOSTLY_IQ2_XXS
        "quantize.imatrix.file": "DeepSeek-R1.imatrix",
        "quantize.imatrix.entries_count": 720,
        "quantize.imatrix.chunks_count": 124,
    }
    return kv


def r1_tensors(mla: bool = False) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape in ggml order and tensor type of R1's tensors, quantized as UD-IQ2_XXS."""
    for name, shape in _r1_shapes(mla):
        plain = len(shape) == 1 or "ffn_gate_inp" in name
        yield name, shape, "F32" if plain else next(type_ for part, type_ in _R1_MIX if part in name)


def _r1_shapes(mla: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (7168, _R1_N_TOKENS)
    yield "output_norm.weight", (7168,)
    yield "output.weight", (7168, _R1_N_TOKENS)
    for i in range(61):
        rows = [*_r1_attention(mla), *(_R1_DENSE if i < 3 else _R1_EXPERTS)]
        yield from ((f"blk.{i}.{name}", shape) for name, shape in rows)


_R1_DENSE = (
    ("ffn_norm.weight", (7168,)),
    ("ffn_gate.weight", (7168, 18_432)),
    ("ffn_up.weight", (7168, 18_432)),
    ("ffn_down.weight", (18_432, 7168)),
)
_R1_EXPERTS = (
    ("ffn_norm.weight", (7168,)),
    ("ffn_gate_inp.weight", (7168, 256)),
    ("exp_probs_b.bias", (256,)),
    ("ffn_gate_exps.weight", (7168, 2048, 256)),
    ("ffn_up_exps.weight", (7168, 2048, 256)),
    ("ffn_down_exps.weight", (2048, 7168, 256)),
    ("ffn_gate_shexp.weight", (7168, 2048)),
    ("ffn_up_shexp.weight", (7168, 2048)),
    ("ffn_down_shexp.weight", (2048, 7168)),
)


def _r1_attention(mla: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "attn_norm.weight", (7168,)
    yield "attn_q_a_norm.weight", (1536,)
    yield "attn_q_a.weight", (7168, 1536)
    yield "attn_q_b.weight", (1536, 128 * 192)
    yield "attn_kv_a_norm.weight", (512,)
    yield "attn_kv_a_mqa.weight", (7168, 512 + 64)
    if mla:
        yield "attn_k_b.weight", (128, 512, 128)
        yield "attn_v_b.weight", (512, 128, 128)
    else:
        yield "attn_kv_b.weight", (512, 128 * 256)
    yield "attn_output.weight", (128 * 128, 7168)


@lru_cache(maxsize=2)
def bpe_vocabulary(n_tokens: int, n_merges: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Return tokens and merges of a made-up byte-level BPE: each merge makes one of the tokens."""
    rng = random.Random(seed)
    pieces = [_byte_letter(b) for b in range(256)]
    n_special = n_tokens - len(pieces) - n_merges
    letters = [_byte_letter(b) for b in b" etaoinshrdlucmfwypvbgkjqxz"]
    made, known = list(letters), set(pieces)
    merges: list[str] = []
    while len(merges) < n_merges:
        left, right = _early(made, rng), _early(made, rng)
        token = left + right
        if token not in known and len(token) <= 10 and right[0] != letters[0]:  # a space only in front
            known.add(token)
            made.append(token)
            merges.append(f"{left} {right}")
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>"]
    special += [f"<｜place▁holder▁no▁{i}｜>" for i in range(n_special - len(special))]
    return [*special[:n_special], *pieces, *made[len(letters) :]], merges


def _early(tokens: Sequence[str], rng: random.Random) -> str:
    return tokens[int(rng.random() ** 3 * len(tokens))]


def _token_types(tokens: Sequence[str]) -> list[int]:
    return [3 if token.startswith("<｜") else 1 for token in tokens]  # llama.h: 1 normal, 3 control


def _byte_letter(byte: int) -> str:
    """Return the letter that byte-level BPE writes for a byte (GPT-2 encoder.py `bytes_to_unicode`)."""
    if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD):
        return chr(byte)
    hidden = [b for b in range(256) if not chr(b).isprintable() or b in (0x20, 0xA0, 0xAD)]
    return chr(256 + hidden.index(byte))
