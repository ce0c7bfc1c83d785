"""What this machine has for running models, and what holds it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import ToolError
from ggufkit.fit.bandwidth import Bandwidth, measure_bandwidth, measured_set_bytes
from ggufkit.fit.channels import Channels, advice, find_channels, warnings
from ggufkit.fit.cpus import Cpu, MemoryController, memory_controller, soldered_bandwidth, speed_family
from ggufkit.fit.gpus import Gpu, library_gpus
from ggufkit.fit.machine import (
    Disk,
    Machine,
    ModulesFound,
    read_cpu,
    read_disks,
    read_gpus,
    read_modules,
    this_machine,
)
from ggufkit.verbs.rigs import remember_bandwidth

# A machine with all channels filled reads at 0.7 of the theoretical bandwidth or more; at less than this,
# and with threads enough to ask for more, channels are empty or the memory is slow.
SUSPICIOUS_PART, ENOUGH_THREADS = 0.45, 4


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A machine, as far as running models is concerned."""

    memory: Machine
    """What memory there is."""
    cpu: Cpu
    """The processors."""
    controller: MemoryController | None
    """The memory that a socket can have; None for a CPU that is not in our table."""
    family: str
    """What `predict_speed` calls machines like this one, when a model runs on its CPUs."""
    channels: Channels | None
    """The memory channels; None when nobody tells."""
    bandwidth_bytes_per_s: float | None
    """Theoretical bandwidth of the memory that is there, for `predict_speed`; None when nobody tells."""
    bandwidth: Bandwidth | None
    """The bandwidth measured; None when it was not, or was too noisy to be used."""
    gpus: tuple[Gpu, ...]
    """The graphics cards."""
    gpu_libraries: tuple[str, ...]
    """The makers' libraries that could be asked."""
    disks: tuple[Disk, ...]
    """The disks, that of the current folder first."""
    warnings: tuple[str, ...]
    """What makes models slower than they could be."""
    notes: tuple[str, ...]
    """What could not be found out, and why."""
    advice: tuple[str, ...]
    """What to buy or to change."""


def describe_machine(
    *, measure: bool = True, folder: Path | None = None, root: Path = Path("/")
) -> MachineReport:
    """Ask the system whose files lie below `root`, and measure its memory's bandwidth.

    Measuring reads four times the L3 cache five times: a second or less. What was measured is kept for `fit`.
    """
    memory, cpu, found = this_machine(root), read_cpu(root), read_modules(root)
    controller = memory_controller(cpu.name)
    channels = None
    if found.source and not cpu.virtual:
        channels = find_channels(found.modules, found.source, cpu, controller)
    bandwidth, silence = _measured(cpu, memory) if measure else (None, None)
    if bandwidth is not None and root == Path("/"):
        remember_bandwidth(cpu, bandwidth.bytes_per_s)
    gpus, libraries = library_gpus()
    return MachineReport(
        memory=memory,
        cpu=cpu,
        controller=controller,
        family=speed_family(cpu),
        channels=channels,
        bandwidth_bytes_per_s=channels.bandwidth_bytes_per_s if channels else soldered_bandwidth(cpu.name),
        bandwidth=bandwidth,
        gpus=gpus or read_gpus(root),
        gpu_libraries=libraries,
        disks=read_disks(folder or Path.cwd(), root),
        warnings=tuple(_warnings(cpu, controller, channels, bandwidth)),
        notes=tuple(_notes(cpu, controller, channels, found, silence)),
        advice=tuple(advice(channels, controller)) if channels else (),
    )


def _measured(cpu: Cpu, memory: Machine) -> tuple[Bandwidth | None, str | None]:
    """Return the bandwidth, or why there is none."""
    try:
        set_bytes = measured_set_bytes(cpu.l3_bytes, memory.available_bytes)
        bandwidth = measure_bandwidth(min(cpu.n_cores, _n_allowed()), set_bytes)
    except ToolError as error:
        return None, error.message
    if bandwidth.noisy:
        spread = f"five rounds differed by {bandwidth.spread:.0%}"
        return None, f"{spread}: something else is using the memory; try again when it is done"
    return bandwidth, None


def _n_allowed() -> int:
    """Return on how many CPUs this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _warnings(
    cpu: Cpu,
    controller: MemoryController | None,
    channels: Channels | None,
    bandwidth: Bandwidth | None,
) -> Iterator[str]:
    if channels:
        yield from warnings(channels, cpu)
    elif controller and bandwidth and not cpu.virtual and bandwidth.n_threads >= ENOUGH_THREADS:
        full = cpu.n_sockets * controller.n_channels * controller.max_mts * 8e6
        if bandwidth.bytes_per_s < SUSPICIOUS_PART * full:
            read, can = bandwidth.bytes_per_s / 1e9, full / 1e9
            kind = f"{controller.memory_type}-{controller.max_mts}"
            n = cpu.n_sockets * controller.n_channels
            yield (
                f"memory reads at {read:.1f} GB/s, but {n} channels of {kind} do {can:.1f}: "
                "channels are probably empty"
            )


def _notes(
    cpu: Cpu,
    controller: MemoryController | None,
    channels: Channels | None,
    found: ModulesFound,
    silence: str | None,
) -> Iterator[str]:
    if silence:
        yield f"bandwidth: not measured: {silence}"
    if cpu.virtual:
        yield "memory channels: this is a virtual machine, which does not show its host's"
    elif channels is None and soldered_bandwidth(cpu.name) is None:
        yield f"memory channels: {found.problem}; sudo ggufkit machine may know more"
    elif channels is None:
        return
    elif controller is None:
        yield f"memory channels: how many this CPU has is not in our table: {cpu.name or 'it has no name'}"
    elif not channels.exact:
        yield "memory channels: this board's names don't tell which module is on which; modules were counted"
    elif channels.speed_mts is None:
        yield f"memory speed: {found.problem}; sudo ggufkit machine may know more"
