"""What to change so that a model fits: each with what it saves, and whether that is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ggufkit.errors import UsageError
from ggufkit.fit.caches import is_mla
from ggufkit.fit.cells import mla_bytes_per_token
from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Offload
from ggufkit.fit.verdict import KERNEL_SHARE, SYSTEM_SHARE, Level, Verdict
from ggufkit.gguf.model import ModelInfo

Kind = Literal[
    "micro-batch", "slots", "flash attention", "sliding window", "upload", "cache type", "context", "quant",
    "memory", "placement", "repacking",
]  # fmt: skip
Attempt = Callable[[FitSettings], tuple[MemoryEstimate, Verdict]]

SMALL_UBATCH_TOKENS = 128
"""Below this prompts get much slower while little is saved. Our own choice."""
MODEL_SHARE = 1 - 1 / KERNEL_SHARE - 1 / SYSTEM_SHARE
"""Part of further memory that is left for a model."""
LEAST_CONTEXT_TOKENS = 4096  # common/common.h fit_params_min_ctx
CACHE_STEPS = ("q8_0", "q4_0")
"""Smaller types of cache, the one that changes the answers least first."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something to change."""

    kind: Kind
    """What kind of thing it is."""
    text: str
    """What to do, with the flags to type."""
    saves_bytes: int
    """Bytes of the computer's memory that it saves (for `memory`: that it adds)."""
    level: Level
    """The verdict after it."""

    @property
    def is_enough(self) -> bool:
        """Whether the model fits after it."""
        return self.level == "fits"


@dataclass(frozen=True, slots=True)
class Situation:
    """A model that does not fit as it is asked for."""

    info: ModelInfo
    """The model."""
    settings: FitSettings
    """The settings asked for."""
    estimate: MemoryEstimate
    """What it takes."""
    verdict: Verdict
    """Why it does not fit."""
    longest_context_tokens: int | None
    """The longest context of all texts together with which it fits."""
    context_each: bool
    """Whether the runtime gives each text the context that is typed."""
    attempt: Attempt
    """Judges other settings."""


def changes(situation: Situation) -> tuple[Change, ...]:
    """Return what can be changed, most useful first: what is enough in the order of what it costs."""
    if situation.verdict.level in ("fits", "unknown"):
        return ()
    found = [
        change for change in _candidates(situation) if change.saves_bytes > 0 or change.kind == "placement"
    ]
    enough = [change for change in found if change.is_enough]
    others = [change for change in found if not change.is_enough]
    return (*enough, *sorted(others, key=lambda change: -change.saves_bytes), *_paging(situation))


def change_text(change: Change) -> str:
    """Return a change in a sentence."""
    gib = f"{change.saves_bytes / 2**30:.1f} GiB"
    if change.kind == "memory":
        return f"it fits with {change.text}"
    if change.kind == "repacking":
        return change.text
    if change.is_enough:
        return f"it fits with {change.text}" + (f" ({gib} less)" if change.saves_bytes > 0 else "")
    return f"{change.text} saves {gib}, which is not enough by itself"


def _candidates(at: Situation) -> Iterator[Change]:
    """Yield changes, those that cost least first: quality comes after speed, the context after both."""
    settings = at.settings
    if at.verdict.short_gpus:
        yield from _placed(at)
    if not settings.flash:
        yield from _tried(at, "flash attention", "--flash-attn on", replace(settings, flash=True))
    if settings.n_ubatch_tokens > SMALL_UBATCH_TOKENS:
        small = replace(settings, n_ubatch_tokens=SMALL_UBATCH_TOKENS)
        yield from _tried(at, "micro-batch", f"--ubatch-size {SMALL_UBATCH_TOKENS}", small)
    if settings.swa_full:
        yield from _tried(at, "sliding window", "leave out --swa-full", replace(settings, swa_full=False))
    if settings.n_sequences > 1:
        each = settings.context_tokens // (settings.n_sequences if at.context_each else 1)
        one = replace(settings, n_sequences=1, context_tokens=each)
        yield from _tried(at, "slots", "--parallel 1", one)
    yield from _upload(at)
    yield from _cache_types(at)
    yield from _context(at)
    yield from _quant(at)
    yield from _memory(at)


def _tried(at: Situation, kind: Kind, text: str, settings: FitSettings) -> Iterator[Change]:
    try:
        estimate, verdict = at.attempt(settings)
    except UsageError:  # llama.cpp refuses these settings for this model
        return
    yield Change(kind, text, at.estimate.host_bytes - estimate.host_bytes, verdict.level)


def _placed(at: Situation) -> Iterator[Change]:
    offload = at.settings.offload
    if offload is not None and not offload.automatic:
        text = "--n-gpu-layers auto, without --n-cpu-moe and --override-tensor"
        plain = Offload(
            offload.gpus_bytes,
            automatic=True,
            whole_layers=offload.whole_layers,
            cache_on_cpu=offload.cache_on_cpu,
        )
        yield from _tried(at, "placement", text, replace(at.settings, offload=plain))


def _upload(at: Situation) -> Iterator[Change]:
    """Compare with a file of the same quant that keeps MLA's compressed cache."""
    old, new = at.estimate.kv_bytes_per_token, mla_bytes_per_token(at.info, at.settings)
    if not old or not new or is_mla(at.info.attention):
        return
    saved = (old - new) * at.estimate.context_tokens
    text = "a newer upload of the same quant (since April 2025), whose cache is MLA's"
    yield Change("upload", text, saved, _level_with(at, saved))


def _level_with(at: Situation, saved_bytes: int) -> Level:
    """Return the verdict when so much less is needed."""
    return (
        "fits" if at.verdict.left_bytes + saved_bytes >= 0 and not at.verdict.short_gpus else at.verdict.level
    )


def _cache_types(at: Situation) -> Iterator[Change]:
    for name in CACHE_STEPS:
        text = f"--cache-type-k {name} --cache-type-v {name}"
        text = text if at.settings.flash else f"--flash-attn on {text}"
        small = replace(at.settings, cache_type_k=name, cache_type_v=name, flash=True)
        for change in _tried(at, "cache type", text, small):
            yield change
            if change.is_enough:
                return


def _context(at: Situation) -> Iterator[Change]:
    """Propose the longest context that fits, else the least that llama.cpp's own fitting goes down to."""
    n_each = at.settings.n_sequences if at.context_each else 1
    tokens = at.longest_context_tokens or LEAST_CONTEXT_TOKENS * n_each
    if tokens >= at.settings.context_tokens:
        return
    yield from _tried(
        at, "context", f"--ctx-size {tokens // n_each}", replace(at.settings, context_tokens=tokens)
    )


def _quant(at: Situation) -> Iterator[Change]:
    """Say how small a quant has to be."""
    saved = -at.verdict.left_bytes
    room = at.estimate.mapped_bytes - saved
    if saved <= 0 or room <= 0 or at.verdict.short_gpus or not at.info.n_parameters:
        return
    share = at.estimate.mapped_bytes / max(at.estimate.weights_bytes, 1)
    bits = room * 8 / (at.info.n_parameters * share)
    text = (
        f"a quant of at most {room / 2**30:.1f} GiB ({bits:.1f} bits a weight); ggufkit fit REPO lists them"
    )
    yield Change("quant", text, saved, "fits")


def _memory(at: Situation) -> Iterator[Change]:
    if at.verdict.left_bytes < 0 and not at.verdict.short_gpus:
        short = -at.verdict.left_bytes
        more = math.ceil(short / MODEL_SHARE / 2**30)
        yield Change("memory", f"{more} GiB more memory", short, "fits")


def _paging(at: Situation) -> Iterator[Change]:
    """llama.cpp can drop only what lies in memory as it lies in the file."""
    if at.verdict.level == "pages" and at.estimate.rearranged_bytes:
        gib = at.estimate.rearranged_bytes / 2**30
        text = f"--no-repack, or llama.cpp can't page: {gib:.1f} GiB of rearranged weights can't be dropped"
        yield Change("repacking", text, at.estimate.rearranged_bytes, "pages")
