"""Names of Ollama models: the grammar as real servers have it, and names made of files'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import UsageError
from ggufkit.runtimes.ollama_names import ModelName, default_name, parse_name, size_tag, split_quant

VALID = (
    "bare",
    "deepseek-r1:671b-UD-IQ1_S",
    "A/B:C",
    "_x",
    "h.io:5000/ns/m:t",
    "hf.co/unsloth/DeepSeek-R1-GGUF:latest",
    "m" * 80,
    "m:" + "t" * 80,
    "qwen2.5:0.5b",
)
INVALID = (
    "",
    "-x",
    ".x",
    "m" * 81,
    "m:" + "t" * 81,
    "ns.dot/m",
    "a b",
    "modèle",
    "模型",
    "m:",
    "m:-t",
    "m:a:b",
    "/m",
    "/ns/m",
    "h//m",
    "a/b/c/d",
    "../m",
    "..:..",
    "a/../b",
    "m\n",
    "m\x00",
    "c:\\m",
    "m@sha256",
)
"""Both lists are held against a running Ollama in tests/verbs/test_ollama_import.py."""


@pytest.mark.parametrize("text", VALID)
def test_valid_names(text: str) -> None:
    assert len(parse_name(text).path.parts) == 4


@pytest.mark.parametrize("text", INVALID)
def test_invalid_names(text: str) -> None:
    with pytest.raises(UsageError, match="no name for an Ollama model") as refusal:
        parse_name(text)
    assert refusal.value.message.isprintable()
    assert "deepseek-r1" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("text", "parts", "shown"),
    [
        ("m", ("registry.ollama.ai", "library", "m", "latest"), "m:latest"),
        ("m:t", ("registry.ollama.ai", "library", "m", "t"), "m:t"),
        ("me/m", ("registry.ollama.ai", "me", "m", "latest"), "me/m:latest"),
        ("hf.co/me/m:Q4", ("hf.co", "me", "m", "Q4"), "hf.co/me/m:Q4"),
        ("h:1/n/m", ("h:1", "n", "m", "latest"), "h:1/n/m:latest"),
    ],
)
def test_parts_and_short_form(text: str, parts: tuple[str, str, str, str], shown: str) -> None:
    name = parse_name(text)
    assert (name.host, name.namespace, name.model, name.tag) == parts
    assert name.path.parts == parts
    assert str(name) == shown
    assert parse_name(shown) == name


@pytest.mark.parametrize(
    ("set_name", "n_parameters", "name"),
    [
        ("DeepSeek-R1-UD-IQ2_XXS", 671_026_404_352, "deepseek-r1:671b-ud-iq2_xxs"),
        ("DeepSeek-R1-0528-UD-IQ1_S", 671_026_404_352, "deepseek-r1-0528:671b-ud-iq1_s"),
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M", 7_615_616_512, "deepseek-r1-distill-qwen:7b-q4_k_m"),
        ("SmolLM2-135M-Instruct.Q4_1", 134_515_008, "smollm2:135m-instruct-q4_1"),
        ("gemma-3-270m-q4_k_m", 268_098_176, "gemma-3:270m-q4_k_m"),
        (
            "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL",
            30_532_122_624,
            "qwen3:30b-a3b-instruct-2507-ud-q4_k_xl",
        ),
        ("Mixtral-8x7B-v0.1.Q8_0", 46_702_792_704, "mixtral:8x7b-v0.1-q8_0"),
        ("gpt-oss-20b-MXFP4", 20_914_757_184, "gpt-oss:20b-mxfp4"),
        ("model", 5_000, "model:latest"),
        ("模型-Q4_K_M", 7_000_000_000, "model:7b-q4_k_m"),
        ("-.strange name!", 1_500_000, "strange-name:2m"),
        ("7B-Q4_0", 7_000_000_000, "7b:7b-q4_0"),
    ],
)
def test_default_names(set_name: str, n_parameters: int, name: str) -> None:
    assert str(default_name(set_name, n_parameters)) == name


@given(st.text(max_size=200), st.integers(0, 10**13))
def test_a_default_name_is_valid_whatever_the_file_is_called(set_name: str, n_parameters: int) -> None:
    name = default_name(set_name, n_parameters)
    assert parse_name(str(name)) == name
    assert name.model == name.model.lower()


@given(st.builds("{}/{}:{}".format, *[st.text(min_size=1, max_size=6)] * 3))
def test_no_valid_name_leaves_its_folder(text: str) -> None:
    try:
        name = parse_name(text)
    except UsageError:
        return
    for part in name.path.parts:
        assert part.isascii()
        assert not set(part) & set("/\\\0")
        assert not part.startswith(".")


def test_size_tags() -> None:
    sizes = (671_026_404_352, 7_615_616_512, 1_000_000_000, 134_515_008, 999_999)
    assert [size_tag(n) for n in sizes] == ["671b", "7.6b", "1b", "135m", ""]


def test_split_quant() -> None:
    assert split_quant("DeepSeek-R1-UD-IQ2_XXS") == ("DeepSeek-R1", "UD-IQ2_XXS")
    assert split_quant("DeepSeek-R1-BF16") == ("DeepSeek-R1", "BF16")
    assert split_quant("DeepSeek-R1") == ("DeepSeek-R1", "")
    assert split_quant("Q4_K_M") == ("Q4_K_M", ""), "a name that is nothing but a quant is the model's"


def test_names_are_values() -> None:
    assert parse_name("m") == ModelName("registry.ollama.ai", "library", "m", "latest")
