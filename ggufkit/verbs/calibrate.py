"""Learn this machine's speed from one run on it, for all models to come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ggufkit.bench.result import BenchResult
from ggufkit.errors import FormatError, UsageError
from ggufkit.fit.machine import read_cpu
from ggufkit.fit.outlook import token_reads
from ggufkit.fit.rig import KnownRun, Rig, calibrated
from ggufkit.fit.speed import Run
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import model_info
from ggufkit.verbs.fit import FitReport
from ggufkit.verbs.rigs import remember_run

FORGET = "off"


def calibrate(rig: Rig, headers: Sequence[Header], report: FitReport, text: str) -> Rig:
    """Remember that the model of `report` generates at the speed that `text` says, and return the machine so.

    `text` is tokens/s, or the result file of a bench of this model. Raises UsageError for a machine that is
    not this one, or a model that does not all fit in memory: its speed would be the disk's.
    """
    if rig.profile is not None:
        raise UsageError(
            f"--calibrate is for this machine, not for {rig.profile}", hint="leave one of them out"
        )
    if not report.verdict.in_memory:
        reason = f"{report.name} does not all stay in memory: its speed tells of the disk"
        raise UsageError(f"--calibrate: {reason}", hint="calibrate with a model that fits")
    info = model_info(headers)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    weights_bytes = token_reads(info, tensors, report.estimate).weights_bytes
    if not weights_bytes:
        raise UsageError(f"--calibrate: {report.name} has no weights")
    known = KnownRun(report.name, Run(weights_bytes, run_speed(text)))
    remember_run(read_cpu(), known)
    return calibrated(rig, known)


def forget() -> None:
    """Forget what was learnt."""
    remember_run(read_cpu(), None)


def run_speed(text: str) -> float:
    """Return the tokens/s that `text` is, or that the result file of that name holds.

    Raises UsageError for a number that is none, or a file that tells nothing of this machine; what
    `read_result` raises.
    """
    from ggufkit.bench.file import read_result

    try:
        speed = float(text)
    except ValueError:
        pass
    else:
        if not 0 < speed < 1e6:
            raise UsageError(f"--calibrate {text}: no speed", hint="tokens/s, e.g. --calibrate 1.83")
        return speed
    return _speed_of(read_result(Path(text)), text)


def _speed_of(result: BenchResult, file: str) -> float:
    """Return the middle speed of a bench that can tell this machine's."""
    said = "say the speed: --calibrate 1.83"
    if not result.server.same_machine:
        raise UsageError(f"{file} was measured on another machine: {result.server.base_url}", hint=said)
    if result.settings.n_concurrent > 1:
        n = result.settings.n_concurrent
        raise UsageError(f"{file} is of {n} questions at the same time, which slow each other", hint=said)
    speeds = [m.summary.server_generation or m.summary.generation for m in result.models]
    if len(speeds) != 1:
        raise UsageError(f"{file} is of {len(speeds)} models", hint=said)
    if speeds[0] is None or not speeds[0].median > 0:
        raise FormatError(file, "holds no speed of generation", hint=said)
    return speeds[0].median
