"""Compare machines: whether one model fits each of them, how fast it is there, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.outlook import ModelSpeed
from ggufkit.fit.profiles import Runtime
from ggufkit.fit.rig import Rig
from ggufkit.fit.verdict import Level
from ggufkit.gguf.header import Header
from ggufkit.verbs.fit import FitReport, fit_model


@dataclass(frozen=True, slots=True)
class RigFit:
    """One model on one machine."""

    rig: Rig
    """The machine, with its price and power where a source gives them."""
    level: Level
    """The verdict with the context asked for."""
    needed_bytes: int
    """What the model takes of the computer's memory with it."""
    longest_context_tokens: int | None
    """The longest context with which it fits; None when it fits with none, or when that is not known."""
    speed: ModelSpeed | None
    """How fast it generates; None when it does not run, or nobody knows how fast memory is read."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model on several machines."""

    name: str
    """What the model is called."""
    file_bytes: int
    """Bytes of all its files."""
    context_tokens: int
    """The context that the verdicts are for."""
    context_is_default: bool
    """Whether nobody asked for a certain context."""
    machines: tuple[RigFit, ...]
    """One for each machine, in the order asked."""
    warnings: tuple[str, ...]
    """What is odd about the model or the settings."""


def compare_machines(
    headers: Sequence[Header],
    rigs: Sequence[Rig],
    *,
    name: str | None = None,
    context_tokens: int | None = None,
    settings: FitSettings | None = None,
    runtime: Runtime | None = None,
) -> Comparison:
    """Judge one model for each of the `rigs`; raises what `fit_model` raises."""
    reports = [
        fit_model(
            headers,
            name=name,
            context_tokens=context_tokens,
            settings=settings,
            runtime=runtime,
            rig=rig,
        )
        for rig in rigs
    ]
    first = reports[0]
    return Comparison(
        name=first.name,
        file_bytes=first.file_bytes,
        context_tokens=first.estimate.context_tokens,
        context_is_default=first.context_is_default,
        machines=tuple(_rig_fit(rig, report) for rig, report in zip(rigs, reports, strict=True)),
        warnings=first.estimate.warnings,
    )


def _rig_fit(rig: Rig, report: FitReport) -> RigFit:
    verdict = report.verdict
    return RigFit(rig, verdict.level, verdict.needed_bytes, report.longest_context_tokens, report.speed)
