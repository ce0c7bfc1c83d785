"""What a fit is asked: which model, with which settings and for how much context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.profiles import Runtime, Wishes, context_of, settings_for
from ggufkit.gguf.header import Header, TensorInfo
from ggufkit.gguf.model import Kind, ModelInfo, model_info

DEFAULT_CONTEXT_TOKENS = 4096
"""The context when neither it nor a runtime is asked for: Ollama's without a large GPU (0.9 and later)."""

NO_MODEL: dict[Kind, str] = {
    "mmproj": "a projector for images or sound (mmproj), which is loaded beside its model",
    "adapter": "an adapter (LoRA), which is loaded on top of its model",
    "imatrix": "an importance matrix, which only a quantizer uses",
    "vocabulary": "a vocabulary without weights",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that can be run by itself, and how it is to be."""

    info: ModelInfo
    """The architecture in numbers."""
    tensors: tuple[TensorInfo, ...]
    """The tensors of all files."""
    settings: FitSettings
    """The settings, with the context of all texts together."""


def asked_of(
    headers: Sequence[Header],
    context_tokens: int | None,
    settings: FitSettings | None,
    runtime: Runtime | None,
) -> Asked:
    """Return the model with these `headers` and its settings, by default the `runtime`'s.

    `context_tokens` is as `context_asked` has it. Raises FormatError for impossible metadata, UsageError for
    what is no model.
    """
    info = model_info(headers)
    if info.kind in NO_MODEL:
        raise UsageError(f"{headers[0].name} is {NO_MODEL[info.kind]}", hint="name the model itself")
    settings = settings or settings_for(Wishes(), runtime)
    tokens = context_asked(info, context_tokens, runtime, settings)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return Asked(info, tensors, replace(settings, context_tokens=tokens))


def context_asked(info: ModelInfo, asked: int | None, runtime: Runtime | None, settings: FitSettings) -> int:
    """Return the context of all texts together; raises UsageError when it is the model's, which says none.

    `asked` None: the runtime's, else 4,096; 0: the model's own.
    """
    if asked is None and runtime is not None:
        vram_bytes = sum(settings.offload.gpus_bytes) if settings.offload else 0
        asked = context_of(runtime, vram_bytes) or 0
        asked = min(asked, info.context_length_tokens or asked)  # Ollama llm/server.go clamps to the model's
    return _context_of_one(info, asked) * (settings.n_sequences if runtime and runtime.context_each else 1)


def _context_of_one(info: ModelInfo, asked: int | None) -> int:
    longest = info.context_length_tokens
    if asked:
        return asked
    if asked == 0:
        if not longest:
            raise UsageError("the model does not say how long its context is", hint="--ctx-size 32768")
        return longest
    return min(DEFAULT_CONTEXT_TOKENS, longest or DEFAULT_CONTEXT_TOKENS)
