"""What each runtime does when nobody says otherwise: slots, context, cache, outputs.

Sources: llama.cpp b11434 (tools/server/server.cpp, tools/llama-bench/llama-bench.cpp, common/common.h);
Ollama 0.5.4, 0.9.3, 0.24 and 0.33 (envconfig/config.go, server/sched.go, llm/server.go, routes.go `Serve`);
LM Studio 0.4's settings schema (`llm.load.*`). Borders between the versions looked at are a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.fit.repack import Isa

GIB = 1 << 30
RuntimeName = Literal["llama-server", "llama-bench", "ollama", "lmstudio"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime's defaults."""

    name: RuntimeName
    """What it is called."""
    since: tuple[int, ...]
    """The first version that does so."""
    n_sequences: int
    """Texts that are worked on at the same time."""
    unified: bool
    """Whether they share one cache unless the number of texts is given."""
    always_unified: bool
    """Whether they share one cache in any case."""
    context_tokens: int | None
    """Tokens of context; None: the model's own."""
    context_each: bool
    """Whether each text gets that context, so that all together take it as many times."""
    all_outputs: bool
    """Whether scores are provided for all tokens of a batch, not for one of each text."""
    flash: bool
    """Whether attention is computed in one step."""
    n_batch_tokens: int
    """Tokens that are handed over at once."""
    mixed_inputs: bool
    """Whether its llama.cpp provides for batches that mix tokens and embeddings."""
    prompt_cache_bytes: int
    """How far a cache of earlier prompts may grow."""
    n_checkpoints: int
    """States that may be kept for each text, of models with sliding windows or recurrent layers."""


PROMPT_CACHE_BYTES = 8 * GIB  # common.h cache_ram_mib
CHECKPOINTS = 32  # common.h n_ctx_checkpoints; LM Studio llm.load.llama.contextCheckpoints

_SERVER = Runtime(
    name="llama-server",
    since=(10435,),
    n_sequences=4,
    unified=True,
    always_unified=False,
    context_tokens=None,
    context_each=False,
    all_outputs=False,
    flash=True,
    n_batch_tokens=2048,
    mixed_inputs=True,
    prompt_cache_bytes=PROMPT_CACHE_BYTES,
    n_checkpoints=CHECKPOINTS,
)
_BENCH = replace(
    _SERVER,
    name="llama-bench",
    n_sequences=1,
    unified=False,
    context_tokens=512,
    all_outputs=True,
    prompt_cache_bytes=0,
    n_checkpoints=0,
)
_OLLAMA = replace(
    _SERVER,
    name="ollama",
    since=(0, 30),
    n_sequences=1,
    unified=False,
    context_tokens=4096,
    context_each=True,
    n_batch_tokens=512,
)
_OWN_RUNNER = replace(
    _OLLAMA,
    since=(0, 11),
    unified=True,
    always_unified=True,
    flash=False,
    mixed_inputs=False,
    prompt_cache_bytes=0,
    n_checkpoints=0,
)
_LM_STUDIO = replace(_SERVER, name="lmstudio", since=(0, 4), context_tokens=4096, prompt_cache_bytes=0)

RUNTIMES: tuple[Runtime, ...] = (
    replace(_SERVER, since=(0,), mixed_inputs=False),
    _SERVER,
    replace(_BENCH, since=(0,), mixed_inputs=False),
    _BENCH,
    replace(_OWN_RUNNER, since=(0,), n_sequences=4, context_tokens=2048),
    replace(_OWN_RUNNER, since=(0, 7), n_sequences=2),
    _OWN_RUNNER,
    _OLLAMA,
    replace(
        _LM_STUDIO,
        since=(0,),
        n_sequences=1,
        always_unified=True,
        flash=False,
        n_batch_tokens=512,
        mixed_inputs=False,
        n_checkpoints=0,
    ),
    _LM_STUDIO,
)
"""By name, the oldest first; llama.cpp's versions are the numbers of its builds."""

OLLAMA_BY_VRAM = ((47 * GIB, 262_144), (23 * GIB, 32_768))
"""Ollama 0.30 and later: the context by the memory of all GPUs; else 4,096."""


def find_runtime(text: str) -> Runtime:
    """Return the runtime called `NAME` or `NAME@VERSION`, by default as it is now; else raise UsageError."""
    name, _, version = text.partition("@")
    found = [runtime for runtime in RUNTIMES if runtime.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(runtime.name for runtime in RUNTIMES))
        raise UsageError(f"no runtime is called {name}", hint=f"choose from {names}, e.g. ollama@0.5")
    if not version:
        return found[-1]
    parts = version.lstrip("vb").split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        raise UsageError(f"--runtime {text}: {version} is no version", hint="write it like ollama@0.5.4")
    asked = tuple(int(part) for part in parts)
    return next(runtime for runtime in reversed(found) if runtime.since <= asked)


def context_of(runtime: Runtime, vram_bytes: int = 0) -> int | None:
    """Return the tokens of context when nobody asks for a number; None: the model's own."""
    if runtime.name == "ollama" and runtime.since >= (0, 30):
        for least, tokens in OLLAMA_BY_VRAM:
            if vram_bytes >= least:
                return tokens
    return runtime.context_tokens


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for; None: what the runtime does by itself."""

    n_sequences: int | None = None
    """Texts that are worked on at the same time."""
    n_batch_tokens: int | None = None
    """Tokens that are handed over at once."""
    n_ubatch_tokens: int | None = None
    """Tokens that are computed at once."""
    flash: bool | None = None
    """Whether attention is computed in one step."""
    unified: bool = False
    """Whether the texts share one cache."""
    swa_full: bool = False
    """Whether sliding-window layers keep the whole context."""
    cache_type_k: str = "f16"
    """Type of the keys in the cache."""
    cache_type_v: str = "f16"
    """Type of the values in the cache."""
    offload: Offload | None = None
    """What is to lie on GPUs."""
    isa: Isa = "avx512"
    """The CPU's instruction set."""


def settings_for(wishes: Wishes, runtime: Runtime | None = None, context_tokens: int = 4096) -> FitSettings:
    """Return the settings of a model run with `wishes`; without a runtime: one text, as a server runs it."""
    n_batch = wishes.n_batch_tokens or (runtime.n_batch_tokens if runtime else 2048)
    shared = runtime is not None and runtime.unified and (runtime.always_unified or not wishes.n_sequences)
    return FitSettings(
        context_tokens=context_tokens,
        n_sequences=wishes.n_sequences or (runtime.n_sequences if runtime else 1),
        n_ubatch_tokens=wishes.n_ubatch_tokens or 512,
        cache_type_k=wishes.cache_type_k,
        cache_type_v=wishes.cache_type_v,
        unified=wishes.unified or shared,
        swa_full=wishes.swa_full,
        n_batch_tokens=n_batch,
        flash=(runtime.flash if runtime else True) if wishes.flash is None else wishes.flash,
        n_outputs=n_batch if runtime and runtime.all_outputs else None,
        mixed_inputs=runtime.mixed_inputs if runtime else True,
        prompt_cache_bytes=runtime.prompt_cache_bytes if runtime else 0,
        n_checkpoints=runtime.n_checkpoints if runtime else 0,
        offload=_offload_of(wishes.offload, runtime),
        isa=wishes.isa,
    )


def _offload_of(offload: Offload | None, runtime: Runtime | None) -> Offload | None:
    whole = runtime is not None and runtime.name == "ollama"
    return replace(offload, whole_layers=True) if offload and whole else offload
