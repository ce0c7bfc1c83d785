"""Say whether a model fits a machine, and at which context. Plans only: nothing is written or run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ggufkit.errors import UsageError
from ggufkit.fit.cells import CONTEXT_STEP_TOKENS
from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.machine import Machine, given_machine, this_machine
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.offload import settled
from ggufkit.fit.outlook import ModelSpeed, speed_on, token_reads
from ggufkit.fit.profiles import Runtime
from ggufkit.fit.rig import Rig
from ggufkit.fit.verdict import Level, Reserve, Verdict, judge, reserve_of
from ggufkit.gguf.header import Header, TensorInfo
from ggufkit.gguf.model import ModelInfo
from ggufkit.verbs.advice import Change, Situation, change_text, changes
from ggufkit.verbs.asked import asked_of
from ggufkit.verbs.placing import GpuPlacement, gpu_placement

SHOWN_CONTEXTS_TOKENS = (2048, 4096, 8192, 32768)
"""The contexts that are always shown, beside the one asked for and the model's own."""


@dataclass(frozen=True, slots=True)
class ContextFit:
    """Whether the model fits with a certain context."""

    context_tokens: int
    """Tokens of context, of all sequences together."""
    cache_bytes: int | None
    """What the model keeps of the context: KV cache and recurrent state; None when it is not known."""
    total_bytes: int
    """All that the model takes."""
    level: Level
    """The verdict."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """Whether a model fits, and why."""

    name: str
    """What the model is called."""
    n_files: int
    """Files of the model."""
    file_bytes: int
    """Bytes of all files."""
    model: ModelInfo
    """The architecture in numbers."""
    machine: Machine
    """The memory it is to fit."""
    machine_name: str | None
    """The profile that the machine is; None for this machine, or when only its memory was given."""
    reserve: Reserve
    """What is set aside for all else."""
    runtime: str | None
    """The runtime whose defaults hold, with the version since which they do; None: none was named."""
    context_is_default: bool
    """Whether nobody asked for a certain context."""
    estimate: MemoryEstimate
    """What the model takes, term by term."""
    placement: GpuPlacement | None
    """What lies on which GPU, and what to type for it; None without GPUs."""
    verdict: Verdict
    """Whether it fits."""
    contexts: tuple[ContextFit, ...]
    """The same for other contexts, the shortest first."""
    longest_context_tokens: int | None
    """The longest context with which it fits; None when it fits with none, or when that is not known."""
    speed: ModelSpeed | None
    """How fast it generates; None when it does not run, or when nobody knows how fast memory is read."""
    warnings: tuple[str, ...]
    """What is odd about the model, the settings or the machine."""
    changes: tuple[Change, ...]
    """What to change when it does not fit, most useful first."""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change, in words."""
        return tuple(change_text(change) for change in self.changes)


def fit_model(
    headers: Sequence[Header],
    *,
    name: str | None = None,
    ram_bytes: int | None = None,
    context_tokens: int | None = None,
    settings: FitSettings | None = None,
    runtime: Runtime | None = None,
    rig: Rig | None = None,
) -> FitReport:
    """Say whether the model with these `headers` (one, or one for each shard) fits.

    `ram_bytes` is the memory that is built in; left out, this machine's is asked for. `context_tokens` 0
    means the model's own context; left out, the `runtime`'s, else 4,096; that of `settings` does not count.
    Where a runtime gives each text as much, it is multiplied. `rig` (`ggufkit.verbs.rigs.find_rigs`) is the
    machine in place of `ram_bytes`, whose speed is predicted too. Raises FormatError for
    impossible metadata, UsageError for what is no model or for settings that llama.cpp refuses.
    """
    asked = asked_of(headers, context_tokens, settings, runtime)
    info, tensors, settings = asked.info, asked.tensors, asked.settings
    machine = rig.memory if rig else this_machine() if ram_bytes is None else given_machine(ram_bytes)
    fitting = _Fitting(info, tensors, machine, settings)
    estimate, verdict = fitting.at(settings)
    each = runtime is not None and runtime.context_each
    automatic = settings.offload is not None and settings.offload.automatic
    longest = fitting.longest()
    reads = token_reads(info, tensors, estimate, context_each=each)
    return FitReport(
        name=name or headers[0].name,
        n_files=len(headers),
        file_bytes=sum(header.file_size_bytes for header in headers),
        model=info,
        machine=machine,
        machine_name=rig.profile if rig else None,
        reserve=fitting.reserve(estimate),
        runtime=None if runtime is None else _runtime_text(runtime),
        context_is_default=context_tokens is None,
        estimate=estimate,
        placement=gpu_placement(info, tensors, estimate.settings, automatic=automatic),
        verdict=verdict,
        contexts=tuple(fitting.row(n) for n in _shown_contexts(info, settings.context_tokens)),
        longest_context_tokens=longest,
        speed=None if rig is None else speed_on(rig, reads, verdict),
        warnings=(*estimate.warnings, *_machine_warnings(machine, verdict)),
        changes=changes(Situation(info, settings, estimate, verdict, longest, each, fitting.at)),
    )


def _runtime_text(runtime: Runtime) -> str:
    since = ".".join(map(str, runtime.since))
    return runtime.name if since == "0" else f"{runtime.name} {since}"


def _shown_contexts(info: ModelInfo, asked: int) -> list[int]:
    longest = info.context_length_tokens
    usual = [n for n in SHOWN_CONTEXTS_TOKENS if not longest or n <= longest]
    return sorted({*usual, asked, longest or asked})


@dataclass(frozen=True, slots=True)
class _Fitting:
    """A model and a machine, to be tried with several settings."""

    info: ModelInfo
    tensors: tuple[TensorInfo, ...]
    machine: Machine
    settings: FitSettings

    def reserve(self, estimate: MemoryEstimate) -> Reserve:
        return reserve_of(self.machine, estimate.settings, estimate)

    def at(self, settings: FitSettings) -> tuple[MemoryEstimate, Verdict]:
        placed = settled(self.info, self.tensors, settings)
        estimate = estimate_memory(self.info, self.tensors, placed)
        return estimate, judge(estimate, self.machine, self.reserve(estimate))

    def row(self, context_tokens: int) -> ContextFit:
        estimate, verdict = self.at(replace(self.settings, context_tokens=context_tokens))
        caches = [t.n_bytes for t in estimate.terms if t.name in ("KV cache", "recurrent state")]
        known = [n for n in caches if n is not None]
        return ContextFit(
            context_tokens=context_tokens,
            cache_bytes=sum(known) if len(known) == len(caches) else None,
            total_bytes=estimate.total_bytes,
            level=verdict.level,
        )

    def longest(self) -> int | None:
        """Find the longest context that fits by halving: more context never takes less memory."""
        most = self.info.context_length_tokens
        if not most or not self._fits_context(min(most, CONTEXT_STEP_TOKENS)):
            return None
        if self._fits_context(most):
            return most
        low, high = 1, math.ceil(most / CONTEXT_STEP_TOKENS)
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._fits_context(middle * CONTEXT_STEP_TOKENS)
            low, high = (middle, high) if fits else (low, middle)
        return low * CONTEXT_STEP_TOKENS

    def _fits_context(self, context_tokens: int) -> bool:
        return self._fits(replace(self.settings, context_tokens=context_tokens))

    def _fits(self, settings: FitSettings) -> bool:
        try:
            return self.at(settings)[1].level == "fits"
        except UsageError:  # llama.cpp refuses these settings for this model
            return False


def _machine_warnings(machine: Machine, verdict: Verdict) -> Iterator[str]:
    available = machine.available_bytes
    if available is not None and verdict.in_memory and verdict.needed_bytes > available:
        gib = available / (1 << 30)
        yield f"only {gib:.1f} GiB are free now: other programs have the rest"
