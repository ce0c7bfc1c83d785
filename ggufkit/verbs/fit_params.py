"""Hold an estimate against llama.cpp's own `llama-fit-params`, where that is installed.

It loads the model without its data and prints what each device would have, in MiB: llama.cpp b11434,
tools/fit-params, common/fit.cpp `common_fit_print`. Weights that it rearranges for the CPU it leaves out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggufkit.errors import ToolError
from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.memory import estimate_memory
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import model_info
from ggufkit.verbs.placing import GpuPlacement

PROGRAM = "llama-fit-params"
TIMEOUT_S = 300.0  # it takes seconds; only a stuck driver takes longer
MIB = 1 << 20

_LINE = re.compile(r"(\S+) (\d+) (\d+) (\d+)")


@dataclass(frozen=True, slots=True)
class DevicePair:
    """What one device has, by us and by llama.cpp."""

    name: str
    """llama.cpp's name: `Host`, `CUDA0`."""
    ours_mib: tuple[int, int, int]
    """Weights, cache and compute buffer as estimated, MiB, rounded down."""
    theirs_mib: tuple[int, int, int]
    """The same as llama-fit-params prints it."""

    @property
    def is_equal(self) -> bool:
        """Whether they agree but for rounding."""
        return all(abs(a - b) <= 1 for a, b in zip(self.ours_mib, self.theirs_mib, strict=True))


@dataclass(frozen=True, slots=True)
class LlamaComparison:
    """Our numbers beside llama.cpp's own."""

    program: str
    """Where it is."""
    devices: tuple[DevicePair, ...]
    """The computer's memory first."""
    unpaired: tuple[str, ...]
    """Devices that it sees and nobody asked us for."""


def compare_with_llama(
    path: Path,
    headers: Sequence[Header],
    estimate: MemoryEstimate,
    placement: GpuPlacement | None,
    *,
    program: str = PROGRAM,
) -> LlamaComparison:
    """Run llama-fit-params on the file (or first shard) at `path` with the estimate's settings.

    Raises ToolError when it is not on the PATH, fails, or does not see the GPUs that were asked for.
    """
    found = shutil.which(program)
    if found is None:
        raise ToolError(f"{program} is not on the PATH", hint="it comes with llama.cpp; leave out --compare")
    settings = estimate.settings
    theirs = _run([found, "--model", str(path), *_flags(settings, placement), "--fit-print", "on"])
    ours = _ours(headers, settings)
    n_gpus = len(settings.offload.gpus_bytes) if settings.offload else 0
    gpus = [name for name in theirs if name != "Host"]
    if len(gpus) < n_gpus:
        raise ToolError(
            f"{program} sees {len(gpus)} GPUs here, {n_gpus} were asked for",
            hint="compare on the machine that has them, or leave out --vram",
        )
    names = ["Host", *gpus[:n_gpus]]
    pairs = (DevicePair(name, mine, theirs[name]) for name, mine in zip(names, ours, strict=True))
    return LlamaComparison(found, tuple(pairs), tuple(gpus[n_gpus:]))


def _flags(settings: FitSettings, placement: GpuPlacement | None) -> list[str]:
    flags = ["--ctx-size", str(settings.context_tokens), "--parallel", str(settings.n_sequences)]
    flags += ["--batch-size", str(settings.n_batch_tokens), "--ubatch-size", str(settings.n_ubatch_tokens)]
    flags += ["--flash-attn", "on" if settings.flash else "off"]
    flags += ["--cache-type-k", settings.cache_type_k, "--cache-type-v", settings.cache_type_v]
    flags += ["--kv-unified"] if settings.unified else []
    flags += ["--swa-full"] if settings.swa_full else []
    if placement is None:
        return [*flags, "--n-gpu-layers", "0"]
    return [*flags, *placement.llama_server[2:]]  # its context was said above


def _run(command: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{command[0]}: {error}", hint="leave out --compare") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    found = {m[1]: (int(m[2]), int(m[3]), int(m[4])) for m in map(_LINE.match, map(str.strip, lines)) if m}
    if done.returncode or "Host" not in found:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in said if " E " in line or "error" in line.lower()]
        reason = (errors or said or ["no numbers"])[0][-300:]
        raise ToolError(f"{command[0]} failed: {reason}", hint="leave out --compare")
    return found


def _ours(headers: Sequence[Header], settings: FitSettings) -> list[tuple[int, int, int]]:
    """Return our MiB, the computer's memory first; it provides for scores of all tokens of a batch."""
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    asked = replace(settings, n_outputs=settings.n_batch_tokens)
    estimate = estimate_memory(model_info(headers), tensors, asked)
    rows = []
    for device in estimate.devices:
        rearranged = estimate.rearranged_bytes if device.memory_bytes is None else 0
        parts = (device.weights_bytes - rearranged, device.kv_cache_bytes or 0, device.compute_bytes or 0)
        rows.append((parts[0] // MIB, parts[1] // MIB, parts[2] // MIB))
    return rows
