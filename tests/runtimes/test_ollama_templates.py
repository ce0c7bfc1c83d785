"""Which template, stops and sampling a model gets; how they render is tried on a real server elsewhere."""

from __future__ import annotations

import hashlib
import re

import pytest

from ggufkit.runtimes.ollama_templates import (
    R1_STOP,
    ChatFormat,
    Version,
    chat_format,
    read,
    without_thinking,
)

R1_JINJA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}"
    "{% endfor %}"
)
V3_JINJA = R1_JINJA.replace(".split('</think>')[-1]", "")
V31_JINJA = "{% if not thinking is defined %}{% set thinking = false %}{% endif %}" + R1_JINJA
CHATML_JINJA = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
GEMMA_JINJA = "<start_of_turn>user\n{{ messages[0]['content'] }}<end_of_turn>\n<start_of_turn>model\n"
LLAMA3_JINJA = "<|start_header_id|>user<|end_header_id|>\n\n{{ messages[0]['content'] }}<|eot_id|>"


def format_of(
    jinja: str | None, *, arch: str = "deepseek2", name: str = "DeepSeek-V3", server: Version | None = None
) -> ChatFormat | None:
    return chat_format(jinja, architecture=arch, names=(name, None), server=server)


def r1(server: Version | None = None) -> ChatFormat:
    chat = format_of(R1_JINJA, server=server)
    assert chat is not None
    return chat


def test_r1_has_tools_thinking_stops_sampling_and_licence() -> None:
    chat = r1()
    template = chat.template or ""
    assert chat.name == "deepseek-r1"
    assert ".Tools" in template
    assert ".ToolCalls" in template
    assert "{{ .Thinking }}" in template
    assert chat.parameters == {"stop": list(R1_STOP), "temperature": 0.6, "top_p": 0.95}
    assert "MIT License" in (chat.license or "")


def test_r1_stops_are_the_real_tokens() -> None:
    assert [stop.encode("unicode_escape").decode() for stop in R1_STOP] == [
        r"<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        r"<\uff5cend\u2581of\u2581sentence\uff5c>",
        r"<\uff5cUser\uff5c>",
        r"<\uff5cAssistant\uff5c>",
    ]


@pytest.mark.parametrize("name", ["deepseek-r1.gotmpl", "deepseek-r1-distill.gotmpl"])
def test_every_special_token_of_the_templates_is_spelled_with_the_real_characters(name: str) -> None:
    tokens = set(re.findall(r"<[|｜][^<>]*>", read(name)))
    assert tokens
    assert all(token[1] == token[-2] == "\uff5c" and "_" not in token for token in tokens)


@pytest.mark.parametrize(
    ("server", "thinks"), [(None, True), ((0, 5), False), ((0, 8), False), ((0, 9), True), ((0, 33), True)]
)
def test_thinking_only_for_servers_that_know_it(server: Version | None, thinks: bool) -> None:
    template = r1(server).template or ""
    assert ("Think" in template) == thinks
    assert ".ToolCalls" in template


def test_without_thinking_leaves_a_balanced_template() -> None:
    for name in ("deepseek-r1.gotmpl", "deepseek-r1-distill.gotmpl"):
        plain = without_thinking(read(name))
        opened = len(re.findall(r"\{\{-? ?(?:if|range|with)\b", plain))
        assert opened == len(re.findall(r"\{\{-? ?end\b", plain)) > 3
        assert "<think>" not in plain


def test_the_distills_template_is_the_published_one() -> None:
    chat = format_of(R1_JINJA, arch="qwen2")
    assert chat is not None
    assert chat.name == "deepseek-r1-distill"
    digest = hashlib.sha256((chat.template or "").encode()).hexdigest()
    assert digest == "c5ad996bda6eed4df6e3b605a9869647624851ac248209d22fd5e2c0cc1121d3"
    assert chat.parameters["temperature"] == 0.6
    assert chat.license is None, "a distill has the licence of what it was distilled into"


def test_v3_has_r1s_turns_but_no_thinking() -> None:
    chat = format_of(V3_JINJA)
    assert chat is not None
    assert chat.name == "deepseek-v3"
    assert "Think" not in (chat.template or "Think")
    assert chat.parameters == {"stop": list(R1_STOP)}


def test_a_name_with_r1_is_believed() -> None:
    named = format_of(V3_JINJA, name="DeepSeek-R1-UD-IQ1_S")
    alike = format_of(V3_JINJA, name="DeepSeek-XR1")
    assert named is not None
    assert alike is not None
    assert (named.name, alike.name) == ("deepseek-r1", "deepseek-v3")


def test_modes_that_ollama_renders_by_code_are_left_alone() -> None:
    assert format_of(V31_JINJA) is None


@pytest.mark.parametrize(
    ("jinja", "name", "stop"),
    [
        (CHATML_JINJA, "chatml", ["<|im_start|>", "<|im_end|>"]),
        (GEMMA_JINJA, "gemma", ["<start_of_turn>", "<end_of_turn>"]),
        (LLAMA3_JINJA, "llama3", ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    ],
)
def test_known_families(jinja: str, name: str, stop: list[str]) -> None:
    chat = format_of(jinja, arch="llama")
    assert chat is not None
    assert (chat.name, chat.parameters) == (name, {"stop": stop})
    assert chat.template == read(f"{name}.gotmpl")
    current = format_of(jinja, arch="llama", server=(0, 30))
    assert current is not None
    assert current.template is None, "0.30 and later render the file's own template"
    assert current.parameters == {"stop": stop}


@pytest.mark.parametrize("jinja", [None, "", "{{ messages }}", "<|User|><|Assistant|></think>"])
def test_what_is_not_known_is_not_guessed(jinja: str | None) -> None:
    assert format_of(jinja) is None
