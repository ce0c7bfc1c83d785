"""What headers say about a model: real ones, odd ones, hostile ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import FormatError
from ggufkit.gguf import model
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.types import ValueType
from ggufkit.transfer.sources import open_header
from tests.support.ggufs import TensorSpec, Typed, gguf_bytes, r1_shaped, r1_shards

SHARDS = sorted((Path(__file__).parents[1] / "data" / "shards").glob("*.gguf"))


def header_of(
    kv: Mapping[str, Any], *, arch: str | None = "llama", tensors: Sequence[TensorSpec] = ()
) -> Header:
    data = gguf_bytes(arch=arch, tensors=tensors, kv=kv)
    return read_header(data, name="m.gguf", file_size_bytes=len(data))


def info_of(**keys: Any) -> ModelInfo:
    """A model of 4 layers; `keys` are the architecture's own, with `__` for dots."""
    named = {f"llama.{key.replace('__', '.')}": value for key, value in keys.items()}
    return model_info([header_of({"llama.block_count": 4} | named)])


# Real shapes


def test_r1(tmp_path: Path) -> None:
    info = model_info([open_header(r1_shaped(tmp_path / "r1.gguf"))])
    assert (info.kind, info.architecture, info.n_layers) == ("model", "deepseek2", 61)
    assert info.n_vocabulary == 129280
    assert info.n_parameters == 671_026_419_200
    assert info.n_tensors == 1025
    assert info.attention is not None
    assert info.experts is not None
    assert info.attention.n_kv_heads == (128,) * 61
    assert (info.attention.key_length, info.attention.value_length) == (192, 128)
    assert (info.attention.kv_lora_rank, info.attention.rope_dimension_count) == (512, 64)
    assert info.attention.key_length_mla is None
    assert (info.experts.n_experts, info.experts.n_used, info.experts.n_shared) == (256, 8, 1)
    assert info.experts.n_leading_dense_layers == 3
    assert info.recurrent is None


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = model_info([open_header(r1_shaped(tmp_path / "r1.gguf"))])
    shards = [open_header(path) for path in r1_shards(tmp_path / "shards")]
    assert model_info(shards) == whole
    assert model_info([open_header(path) for path in SHARDS]).n_tensors > 0


def test_who_made_it() -> None:
    kv = {
        "general.quantized_by": "Unsloth",
        "general.base_model.count": 2,
        "general.base_model.0.repo_url": "https://huggingface.co/deepseek-ai/DeepSeek-R1",
        "general.base_model.0.name": "DeepSeek R1",
        "general.base_model.1.name": "Other",
        "general.file_type": 19 | 1024,
        "general.size_label": "256x20B",
        "general.license": "mit",
        "general.organization": "",
    }
    info = model_info([header_of(kv)])
    assert info.base_models == ("https://huggingface.co/deepseek-ai/DeepSeek-R1", "Other")
    assert (info.quantized_by, info.size_label, info.license) == ("Unsloth", "256x20B", "mit")
    assert info.file_type == "IQ2_XXS"
    assert info.organization is None


def test_a_file_type_that_nobody_knows_keeps_its_number() -> None:
    assert model_info([header_of({"general.file_type": 999})]).file_type == "type 999"


# What kind of file


@pytest.mark.parametrize(
    ("arch", "kv", "kind"),
    [
        ("clip", {}, "mmproj"),
        ("llama", {"general.type": "mmproj"}, "mmproj"),
        ("llama", {"general.type": "adapter"}, "adapter"),
        ("llama", {"adapter.type": "lora"}, "adapter"),
        ("llama", {"general.type": "imatrix"}, "imatrix"),
        ("llama", {"tokenizer.ggml.tokens": ["a", "b"]}, "vocabulary"),
        ("llama", {"general.type": "model"}, "model"),
        (None, {}, "model"),
    ],
)
def test_kinds(arch: str | None, kv: dict[str, Any], kind: str) -> None:
    assert model_info([header_of(kv, arch=arch)]).kind == kind


def test_a_first_shard_without_tensors_is_no_vocabulary() -> None:
    first = header_of({"tokenizer.ggml.tokens": ["a"]})
    second = header_of({}, arch=None, tensors=[("token_embd.weight", (256, 64), "F16")])
    assert model_info([first, second]).kind == "model"
    assert model_info([first]).kind == "vocabulary"


def test_nothing_is_said() -> None:
    info = model_info([header_of({}, arch=None)])
    unsaid = {"kind", "base_models", "n_tensors", "n_parameters"}
    assert all(getattr(info, f.name) is None for f in fields(info) if f.name not in unsaid)


# Defaults and layers


def test_heads_default_as_in_llama_cpp() -> None:
    attention = info_of(embedding_length=1024, attention__head_count=16).attention
    assert attention is not None
    assert (attention.key_length, attention.value_length) == (64, 64)
    assert attention.n_kv_heads == attention.n_heads == (16,) * 4


def test_values_for_each_layer() -> None:
    info = info_of(
        attention__head_count=[8, 8, 0, 8],
        attention__head_count_kv=[2, 2, 0, 1],
        feed_forward_length=[64, 0, 64, 64],
        expert_count=8,
        expert_used_count=[2, 4, 2, 2],
        expert_feed_forward_length=[32, 32, 16, 32],
    )
    assert info.attention is not None
    assert info.experts is not None
    assert (info.attention.n_heads, info.attention.n_kv_heads) == ((8, 8, 0, 8), (2, 2, 0, 1))
    assert info.feed_forward_length == (64, 0, 64, 64)
    assert (info.experts.n_used, info.experts.feed_forward_length) == (4, 32)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [(6, 6), ([1, 0, 1, 1], (True, False, True, True)), ([True, False], (True, False)), (None, None)],
)
def test_sliding_window_patterns(value: Any, pattern: Any) -> None:
    attention = info_of(attention__head_count=8, attention__sliding_window_pattern=value).attention
    assert attention is not None
    assert attention.sliding_window_pattern == pattern


def test_vocabulary_is_counted_by_what_there_is() -> None:
    embedding: list[TensorSpec] = [("token_embd.weight", (256, 64), "F16")]
    tokens = {"tokenizer.ggml.tokens": ["a", "b", "c"], "llama.vocab_size": 5}
    assert model_info([header_of(tokens, tensors=embedding)]).n_vocabulary == 3
    assert model_info([header_of({"llama.vocab_size": 5}, tensors=embedding)]).n_vocabulary == 5
    assert model_info([header_of({}, tensors=embedding)]).n_vocabulary == 64
    assert model_info([header_of({})]).n_vocabulary is None


# Hostile values: an error that names the key, or nothing


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("block_count", 513, "is 513; 0 to 512 are possible"),
        ("block_count", -1, "is -1"),
        ("block_count", "61", "is no integer"),
        ("block_count", True, "is no integer"),
        ("block_count", 4.0, "is no integer"),
        ("context_length", 1 << 40, "is 1099511627776"),
        ("embedding_length", [1, 2], "is no integer"),
        ("nextn_predict_layers", 5, "is 5; 0 to 4 are possible"),
        ("attention.head_count", [8, 8, 8], "has 3 elements for 4 layers"),
        ("attention.head_count", ["8", "8", "8", "8"], "is no integer"),
        ("attention.head_count", Typed(ValueType.ARRAY, [8, 8, -8, 8], ValueType.INT32), "is -8"),
        ("attention.head_count_kv", [2.0, 2.0, 2.0, 2.0], "is no integer"),
        ("attention.key_length", -64, "is -64"),
        ("attention.sliding_window_pattern", ["x"], "is no array of bools"),
        ("attention.sliding_window_pattern", [1] * 513, "has 513 elements; 512 are possible"),
        ("attention.sliding_window_pattern", "6", "is no integer"),
        ("attention.shared_kv_layers", 5, "is 5; 0 to 4 are possible"),
        ("attention.indexer.types", 1, "is no array of bools"),
        ("attention.recurrent_layers", [0.5], "is no array of bools"),
        ("expert_count", -8, "is -8"),
        ("expert_used_count", 9, "is 9; 0 to 8 are possible"),
        ("ssm.state_size", "16", "is no integer"),
        ("vocab_size", -1, "is -1"),
    ],
)
def test_impossible_values_name_their_key(key: str, value: Any, words: str) -> None:
    kv = {"llama.block_count": 4, "llama.attention.head_count": 8, "llama.expert_count": 8}
    with pytest.raises(FormatError) as caught:
        model_info([header_of(kv | {f"llama.{key}": value})])
    assert f"key llama.{key} {words}" in caught.value.message
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.name", 5, "is no string"),
        ("general.type", ["model"], "is no string"),
        ("general.base_model.count", 1 << 31, "16 are possible"),
        ("general.file_type", "Q4", "is no integer"),
    ],
)
def test_impossible_general_values(key: str, value: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        model_info([header_of({key: value})])


def test_u64_values_that_are_small_are_taken() -> None:
    assert info_of(context_length=Typed(ValueType.UINT64, 4096)).context_length_tokens == 4096


def test_every_field_is_explained() -> None:
    source = Path(model.__file__).read_text()
    for cls in (model.Attention, model.Experts, model.Recurrent, ModelInfo):
        for field in fields(cls):
            assert f"    {field.name}: " in source
            after = source.split(f"class {cls.__name__}:")[1].split(f"    {field.name}: ")[1]
            assert after.split("\n")[1].startswith('    """'), field.name
