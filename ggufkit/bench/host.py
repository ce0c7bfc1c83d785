"""The machine that asks, as far as it matters for a speed."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from ggufkit.bench.result import Host
from ggufkit.errors import ToolError
from ggufkit.fit.machine import this_machine


def this_host() -> Host:
    """Ask the system."""
    ram_bytes = available_bytes = None
    with contextlib.suppress(ToolError):
        machine = this_machine()
        ram_bytes, available_bytes = machine.ram_bytes, machine.available_bytes
    return Host(
        os=platform.system(),
        kernel=platform.release(),
        cpu=_cpu(Path("/proc/cpuinfo")),
        n_cpus=os.cpu_count(),
        ram_bytes=ram_bytes,
        available_bytes=available_bytes,
        load_average=_load(),
    )


def _cpu(cpuinfo: Path) -> str | None:
    """Return the processor's name: proc(5) cpuinfo, else what Python knows."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
