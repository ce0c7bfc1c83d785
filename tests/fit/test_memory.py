"""Weights and caches against llama.cpp's own numbers, to the byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import FormatError, UsageError
from ggufkit.fit.caches import MEASURED, NO_CACHE, RECURRENT, WINDOWS
from ggufkit.fit.cells import CACHE_TYPES
from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Term
from ggufkit.fit.memory import estimate_memory
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import model_info
from tests.fit.facts import (
    architecture_header,
    architectures,
    header_of,
    settings_of,
    truth,
    truth_header,
)

MODELS = sorted(truth()["models"])
ARCHITECTURES = sorted(architectures()["architectures"])
OLD_R1, MLA_R1 = "deepseek-r1-671b-old-ud-iq2xxs", "deepseek-r1-671b-mla-ud-iq2xxs"
GIB = 1 << 30


def estimate(header: Header, settings: FitSettings | None = None) -> MemoryEstimate:
    return estimate_memory(model_info([header]), header.tensors, settings or FitSettings(4096))


def of(found: MemoryEstimate, *names: str) -> int:
    return sum(term.n_bytes or 0 for term in found.terms if term.name in names)


def term_of(found: MemoryEstimate, name: str) -> Term:
    return next(term for term in found.terms if term.name == name)


def llama(**keys: Any) -> Header:
    """A model of 4 layers with 8 heads of 64, of which 2 are key-value heads."""
    kv = {
        "block_count": 4,
        "embedding_length": 512,
        "context_length": 8192,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
    }
    arch = keys.pop("arch", "llama")
    kv |= keys
    return header_of({"general.architecture": arch} | {f"{arch}.{k}": v for k, v in kv.items()})


# Against llama.cpp


@pytest.mark.parametrize("name", MODELS)
def test_caches_of_real_models_are_exact(name: str) -> None:
    header, expected = truth_header(name), truth()["models"][name]["context_bytes"]
    n_exact = 0
    for settings, n_bytes in zip(settings_of(truth()), expected, strict=True):
        if n_bytes is None:
            with pytest.raises(UsageError, match=r"MLA.*refuses"):
                estimate(header, settings)
            continue
        found = estimate(header, settings)
        assert of(found, "KV cache", "recurrent state") == n_bytes, settings
        assert {term.certainty for term in found.terms if term.name != "embedding copy"} == {"exact"}
        n_exact += 1
    assert n_exact >= 26


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_real_models_are_exact(name: str) -> None:
    found = estimate(truth_header(name))
    assert of(found, "weights", "embedding copy") == truth()["models"][name]["model_bytes"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_caches_of_every_known_architecture_are_exact(name: str) -> None:
    facts = architectures()
    header, expected = architecture_header(name), facts["architectures"][name]["context_bytes"]
    n_exact = 0
    for settings, n_bytes in zip(settings_of(facts), expected, strict=True):
        if n_bytes == "refused":
            with pytest.raises(UsageError):
                estimate(header, settings)
        elif n_bytes is not None:
            assert of(estimate(header, settings), "KV cache", "recurrent state") == n_bytes, settings
            n_exact += 1
    assert n_exact


def test_exact_is_said_of_measured_architectures_only() -> None:
    assert set(ARCHITECTURES) == MEASURED
    measured = {model["kv"]["general.architecture"] for model in truth()["models"].values()}
    assert measured <= MEASURED
    assert WINDOWS.keys() | RECURRENT - {"rwkv6qwen2"} <= MEASURED
    assert {"clef"} == NO_CACHE - MEASURED


# R1, whose numbers the project began with


def test_old_r1_takes_71_times_the_cache() -> None:
    old, new = estimate(truth_header(OLD_R1)), estimate(truth_header(MLA_R1))
    assert (old.kv_bytes_per_token, new.kv_bytes_per_token) == (4_997_120, 70_272)
    (warning,) = old.warnings
    assert "4,997,120 bytes a token, 71 times the 70,272" in warning
    assert not new.warnings


def test_r1_on_the_articles_machine() -> None:
    header = truth_header(OLD_R1)
    assert f"{header.file_size_bytes / GIB:.1f}" == "183.1"
    at_4096, at_8192 = (estimate(header, FitSettings(n)) for n in (4096, 8192))
    assert (f"{at_4096.total_bytes / GIB:.1f}", f"{at_8192.total_bytes / GIB:.1f}") == ("202.5", "221.5")
    assert f"{of(at_4096, 'KV cache') / GIB:.1f}" == "19.1"


# Terms say where they come from


def test_terms_carry_formula_and_keys() -> None:
    cache = term_of(estimate(truth_header(OLD_R1)), "KV cache")
    assert cache.formula == "keys and values: 61 layers x 4,096 cells x (24,576 f16 + 16,384 f16)"
    assert "deepseek2.attention.head_count_kv" in cache.keys
    mla = term_of(estimate(truth_header(MLA_R1)), "KV cache")
    assert mla.formula.endswith("61 layers x 4,096 cells x 576 f16")
    assert "deepseek2.attention.key_length_mla" in mla.keys


def test_sliding_windows_are_told_apart() -> None:
    gemma = term_of(estimate(truth_header("gemma3-27b-q4km"), FitSettings(32768)), "KV cache")
    assert "52 layers x 1,536 cells" in gemma.formula
    assert "10 layers x 32,768 cells" in gemma.formula
    assert "gemma3.attention.sliding_window" in gemma.keys


def test_sequences_are_named() -> None:
    settings = FitSettings(4096, n_sequences=2)
    found = estimate(truth_header("qwen3-next-80b-a3b-q4km"), settings)
    cells = "2,048 cells x (512 f16 + 512 f16), for each of 2 sequences"
    assert term_of(found, "KV cache").formula.endswith(cells)
    assert term_of(found, "recurrent state").formula == "36 layers x 548,864 f32, for each of 2 sequences"


def test_blocks_that_predict_further_tokens_are_not_loaded() -> None:
    found = estimate(truth_header("glm-4.5-355b-q4km"))
    weights = term_of(found, "weights")
    assert "less 2,263,815,808 of next-token-prediction blocks" in weights.formula
    assert weights.keys == ("glm4moe.nextn_predict_layers",)
    assert "92 layers" in term_of(found, "KV cache").formula


def test_some_hybrids_keep_memory_for_blocks_that_do_not_run() -> None:
    heads = [0 if i % 3 == 1 else 1 for i in range(13)]
    header = architecture_header("bailingmoe3")
    keys = {key.split(".", 1)[1]: header.get(key) for key in header.kv if not key.endswith("head_count_kv")}
    keys |= {"block_count": 13, "attention.head_count": 1, "attention.head_count_kv": heads}
    found = estimate(llama(arch="bailingmoe3", **keys, nextn_predict_layers=1))
    assert of(found, "KV cache", "recurrent state") == 42_747_904  # llama.cpp b11434


def test_a_tied_embedding_is_counted_twice_where_it_is_repacked() -> None:
    copy = term_of(estimate(truth_header("gemma3-27b-q4km")), "embedding copy")
    assert (copy.n_bytes, copy.certainty) == (5376 * 262208 * 144 // 256, "exact")
    tied = header_of({"general.architecture": "llama"}, [("token_embd.weight", (256, 64), "Q6_K")])
    assert "embedding copy" not in [term.name for term in estimate(tied).terms]


# What is not known is said


def test_an_unknown_architecture_is_a_labelled_guess() -> None:
    cache = term_of(estimate(llama(arch="notyet")), "KV cache")
    assert cache.certainty == "approximate"
    assert cache.formula.startswith("a guess, as ggufkit does not know how notyet keeps its context")
    assert cache.n_bytes == 4 * 4096 * 2 * 128 * 2


def test_a_cache_kind_that_is_not_computed_is_a_guess() -> None:
    found = estimate(llama(arch="deepseek4", **{"attention.sliding_window": 128}))
    assert term_of(found, "KV cache").certainty == "approximate"


@pytest.mark.parametrize("missing", ["block_count", "attention.head_count"])
def test_a_header_that_says_too_little_gives_no_number(missing: str) -> None:
    found = estimate(llama(**{missing: None}))
    cache = term_of(found, "KV cache")
    assert (cache.n_bytes, cache.certainty) == (None, "unknown")
    assert found.kept_bytes is None
    assert found.kv_bytes_per_token is None


def test_embedding_models_keep_nothing() -> None:
    found = estimate(llama(arch="bert"))
    assert term_of(found, "KV cache").n_bytes == 0
    assert term_of(found, "KV cache").formula.startswith("no cache")


def test_recurrent_models_keep_a_state_of_fixed_size() -> None:
    keys = {"ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 16, "attention.head_count": None}
    short, long = (estimate(llama(arch="mamba", **keys), FitSettings(n)) for n in (512, 8192))
    assert [term.name for term in short.terms][:2] == ["weights", "recurrent state"]
    assert "KV cache" not in [term.name for term in short.terms]
    assert of(short, "recurrent state") == of(long, "recurrent state") == 4 * (3 * 1024 + 16 * 1024) * 4


def test_layers_without_heads_keep_nothing_in_a_model_without_state() -> None:
    found = estimate(llama(arch="deci", **{"attention.head_count_kv": [2, 0, 0, 2]}))
    assert of(found, "KV cache") == 2 * 4096 * 2 * 128 * 2


# Settings


def test_the_context_is_rounded_up_as_llama_cpp_does() -> None:
    header = llama()
    assert estimate(header, FitSettings(1)).context_tokens == 256
    assert estimate(header, FitSettings(5000)).context_tokens == 5120
    assert estimate(header, FitSettings(5000, n_sequences=3)).context_tokens == 3 * 1792
    assert estimate(header, FitSettings(5000, n_sequences=3, unified=True)).context_tokens == 5120


def test_a_context_beyond_the_models_own_is_warned_of() -> None:
    (warning,) = estimate(llama(), FitSettings(8193)).warnings
    assert warning == "the model was trained for 8,192 tokens, not 8,193"
    assert not estimate(llama(), FitSettings(8192)).warnings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FitSettings(4096, cache_type_k="q3_k"), "--cache-type-k q3_k: choose from f32, f16"),
        (FitSettings(4096, cache_type_v="int4"), "--cache-type-v int4: choose from"),
    ],
)
def test_unknown_cache_types_are_refused(settings: FitSettings, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        estimate(llama(), settings)
    assert words in caught.value.message


def test_heads_must_fit_the_blocks_of_a_cache_type() -> None:
    header = llama(**{"attention.key_length": 80, "attention.value_length": 80})
    assert estimate(header, FitSettings(4096, cache_type_k="bf16")).total_bytes > 0
    with pytest.raises(UsageError, match=r"--cache-type-v: heads of 80 don't fit q8_0's blocks of 32"):
        estimate(header, FitSettings(4096, cache_type_v="q8_0"))


def test_mla_needs_the_same_type_twice() -> None:
    with pytest.raises(UsageError) as caught:
        estimate(truth_header(MLA_R1), FitSettings(4096, cache_type_k="q8_0"))
    assert caught.value.hint == "--cache-type-k q8_0 --cache-type-v q8_0"


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({}, False),
        ({"attention.sliding_window": 0}, False),
        ({"attention.sliding_window": 512}, True),
        ({"attention.sliding_window": 512, "attention.sliding_window_pattern": 1}, False),
    ],
)
def test_gemma3_slides_when_its_file_says_so(keys: dict[str, int], window: bool) -> None:
    cache = term_of(estimate(llama(arch="gemma3", **keys)), "KV cache")
    assert ("1,024 cells" in cache.formula) is window


def test_windows_have_defaults_where_llama_cpp_has_them() -> None:
    def cells(arch: str, **keys: Any) -> str:
        return term_of(estimate(llama(arch=arch, **keys), FitSettings(16384)), "KV cache").formula

    assert "4,608 cells" in cells("gemma2")
    assert "8,704 cells" in cells("llama4")
    assert "16,384 cells" in cells("llama4", **{"attention.sliding_window": 0})
    assert "4,608 cells" not in cells("exaone4")
    assert "48 layers x 4,608 cells" in cells("exaone4", block_count=64)


@pytest.mark.parametrize(
    ("keys", "n_indexers"),
    [
        ({"context_length": 131072}, 8),
        ({"context_length": 1 << 20}, 4),
        ({"context_length": 1 << 20, "attention.indexer.types": [1, 0, 0, 1]}, 2),
    ],
)
def test_glm_indexers_are_in_the_layers_that_have_one(keys: dict[str, Any], n_indexers: int) -> None:
    sizes = {"attention.key_length_mla": 192, "attention.value_length_mla": 128, "block_count": 8}
    header = llama(arch="glm-dsa", **{"attention.indexer.key_length": 96}, **sizes, **keys)
    assert f"{n_indexers} layers x 4,096 cells x 96 f16" in term_of(estimate(header), "KV cache").formula


@given(
    context=st.integers(1, 1 << 20),
    more=st.integers(0, 1 << 18),
    n_sequences=st.integers(1, 16),
    ubatch=st.integers(1, 4096),
    unified=st.booleans(),
    type_name=st.sampled_from(sorted(CACHE_TYPES)),
)
def test_more_context_never_takes_less(
    context: int, more: int, n_sequences: int, ubatch: int, unified: bool, type_name: str
) -> None:
    settings = FitSettings(context, n_sequences, ubatch, type_name, type_name, unified)
    header = architecture_header("gemma3")
    less, grown = (estimate(header, s) for s in (settings, replace(settings, context_tokens=context + more)))
    assert less.total_bytes <= grown.total_bytes
    assert less.context_tokens >= context
    assert less.context_tokens % 256 == 0


NAMES = (
    "block_count nextn_predict_layers context_length embedding_length feed_forward_length "
    "full_attention_interval attention.head_count attention.head_count_kv attention.key_length "
    "attention.value_length attention.key_length_swa attention.key_length_mla attention.value_length_mla "
    "attention.kv_lora_rank attention.sliding_window attention.sliding_window_pattern "
    "attention.shared_kv_layers attention.indexer.key_length attention.indexer.types "
    "attention.recurrent_layers rope.dimension_count expert_count expert_used_count "
    "leading_dense_block_count ssm.conv_kernel ssm.inner_size ssm.state_size ssm.group_count kda.head_dim "
    "wkv.head_size token_shift_count shortconv.l_cache"
)
NUMBERS = st.one_of(st.integers(0, 8), st.sampled_from([-1, 64, 512, 1 << 31, 1 << 63]))
LISTS = st.lists(st.integers(0, 3), min_size=4, max_size=5)
VALUES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=3), LISTS)
SOUND = {"block_count": 4, "attention.head_count": 4, "embedding_length": 64}


@hypothesis.settings(max_examples=300, deadline=None)
@given(
    arch=st.sampled_from([*ARCHITECTURES, "notyet"]),
    keys=st.dictionaries(st.sampled_from(NAMES.split()), VALUES),
)
def test_no_metadata_break_it(arch: str, keys: dict[str, Any]) -> None:
    named = {f"{arch}.{name}": value for name, value in (SOUND | keys).items()}
    header = header_of({"general.architecture": arch} | named)
    try:
        found = estimate(header, FitSettings(4096, n_sequences=2, unified=True))
    except FormatError as error:
        assert f"key {arch}." in error.message
    else:
        assert all(term.n_bytes is None or term.n_bytes >= 0 for term in found.terms)
        assert {term.n_bytes is None for term in found.terms if term.certainty == "unknown"} <= {True}
