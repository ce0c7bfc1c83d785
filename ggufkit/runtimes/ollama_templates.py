"""How Ollama must talk to a model: Go template, stop words and sampling, by the GGUF's own chat template.

Ollama before 0.30 knows no GGUF's Jinja template, and guesses right only for some families; later ones render
it themselves (ollama server/images.go `shouldPreferChatTemplate`). The templates lie in `templates/`:

- deepseek-r1: the structure of Ollama's own deepseek-r1:671b (ollama.com/library/deepseek-r1, layer
  7162a2550b7a, MIT), instructions for tools in our words.
- deepseek-r1-distill: the layer of Ollama's deepseek-r1 distills as published (SHA-256 c5ad996bda6e...).
- chatml, gemma, llama3: the turns as each GGUF's own Jinja template has them, without tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

THINKING_SINCE = (0, 9)  # ollama v0.9.0: Message.Thinking, template values Think and IsThinkSet
JINJA_SINCE = (0, 30)  # ollama v0.30.0: llama-server renders the GGUF's own template

R1_STOP = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
"""U+FF5C and U+2581, not the ASCII bar and underscore."""

Version = tuple[int, int]

_THINKING_BLOCK = re.compile(r"\s*\{\{- if and \$\.IsThinkSet .*?\{\{-? end \}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one family of models is talked to."""

    name: str
    """What the family is called here."""
    template: str | None
    """The Go template, or None to leave it to the runtime."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Ollama's parameters: `stop` (list of strings), `temperature`, `top_p`."""
    license: str | None = None
    """The licence's text, where it is known for sure."""


def chat_format(
    jinja: str | None, *, architecture: str | None, names: Sequence[str | None], server: Version | None
) -> ChatFormat | None:
    """Return the format of a model with the chat template `jinja`, or None when it is not known.

    `names` are what the model is called (a name with R1 in it is believed); `server` is the version of the
    Ollama that will run it, None for any. The template has thinking blocks unless the server is older.
    """
    jinja = jinja or ""
    if all(token in jinja for token in ("<｜User｜>", "<｜Assistant｜>")):
        return _deepseek(jinja, architecture, names, server)
    for mark, name, stop in _FAMILIES:
        if mark in jinja:
            renders_jinja = server is not None and server >= JINJA_SINCE
            return ChatFormat(name, None if renders_jinja else read(f"{name}.gotmpl"), {"stop": list(stop)})
    return None


_FAMILIES = (
    ("<|im_start|>", "chatml", ("<|im_start|>", "<|im_end|>")),
    ("<start_of_turn>", "gemma", ("<start_of_turn>", "<end_of_turn>")),
    ("<|start_header_id|>", "llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
)
"""A token of the chat template, the family, its stop words (as in ollama template/*.json)."""


def _deepseek(
    jinja: str, architecture: str | None, names: Sequence[str | None], server: Version | None
) -> ChatFormat | None:
    if re.search(r"\bthinking\b", jinja):
        return None  # V3.1 and later: modes of their own, which Ollama renders by code
    thinks = "</think>" in jinja or any(re.search(r"\bR1\b", name or "") for name in names)
    whole = architecture == "deepseek2"
    template = read("deepseek-r1.gotmpl" if whole else "deepseek-r1-distill.gotmpl")
    if not thinks or (server is not None and server < THINKING_SINCE):
        template = without_thinking(template)
    if not thinks:
        return ChatFormat("deepseek-v3", template, {"stop": list(R1_STOP)})
    sampling = {"stop": list(R1_STOP), "temperature": 0.6, "top_p": 0.95}  # DeepSeek-R1 README, "Usage"
    if not whole:
        return ChatFormat("deepseek-r1-distill", template, sampling)
    return ChatFormat("deepseek-r1", template, sampling, read("deepseek-r1.license"))


def without_thinking(template: str) -> str:
    """Take the blocks out of a template that only servers with thinking understand."""
    return _THINKING_BLOCK.sub("", template)


def read(name: str) -> str:
    """Return the text of one of our files, without the newline at its end."""
    text = (files("ggufkit.runtimes") / "templates" / name).read_text("utf-8")
    return text.replace("\r\n", "\n").removesuffix("\n")
