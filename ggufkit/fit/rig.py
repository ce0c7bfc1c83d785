"""A machine that models are judged for: its memory, how fast it is read, and who says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ggufkit.fit.machine import Machine, given_machine
from ggufkit.fit.machines import MachineProfile, ProfileGpu, Sourced
from ggufkit.fit.speed import Run, bandwidth_of_run

BandwidthSource = Literal["given", "measured here", "channels", "maker", "profile", "run"]

THIS_MACHINE = "this machine"
READ_SHARE = 0.85
"""Part of the theoretical bandwidth that reading with all cores reaches, by which a measured bandwidth stands
for the theoretical one that families are fitted on. A rule of our own; a Xeon 6980P of the published points
reads 555 of 614 GB/s (Intel MLC)."""


@dataclass(frozen=True, slots=True)
class Bandwidths:
    """How fast the memory is read."""

    bytes_per_s: float
    """Theoretical bandwidth of all sockets, or what stands for it."""
    source: BandwidthSource
    """Who says so: `given` by the user; `measured here`: measured and remembered, then divided by
    READ_SHARE; `channels`: of the modules that the firmware lists; `maker`: soldered memory; `profile`;
    `run`: what the known run comes to."""


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that was measured on this machine and is remembered."""

    model: str
    """The model's name."""
    run: Run
    """What a token of it reads, and how fast it was."""


@dataclass(frozen=True, slots=True)
class Rig:
    """A machine that a model is judged for."""

    name: str
    """The profile's name, or THIS_MACHINE."""
    title: str
    """What it is."""
    memory: Machine
    """The memory that a model may use."""
    family: str
    """Its family in `ggufkit.fit.speed`."""
    n_sockets: int = 1
    """Processors."""
    bandwidth: Bandwidths | None = None
    """How fast the memory is read; None when nobody knows."""
    disk_bytes_per_s: float | None = None
    """How fast the disk with the model is read; None when nobody said."""
    known_run: KnownRun | None = None
    """One run on it, to calibrate by."""
    gpus: tuple[ProfileGpu, ...] = ()
    """Its graphics cards; counted only for what is laid on them (--vram), but where the family has them."""
    gpu_bytes_per_s: float | None = None
    """Bandwidth of a GPU's memory (the slowest); None when nobody said."""
    price_cny: Sourced | None = None
    """Price in yuan."""
    price_usd: Sourced | None = None
    """Price in dollars."""
    power_w: Sourced | None = None
    """Power at work, watts."""

    @property
    def profile(self) -> str | None:
        """Return the name of the profile; None for this machine."""
        return None if self.name == THIS_MACHINE else self.name


def rig_of(profile: MachineProfile, *, ram_bytes: int | None = None) -> Rig:
    """Return the machine that a profile describes, with another amount of memory if that is given."""
    return Rig(
        name=profile.name,
        title=profile.title,
        memory=given_machine(ram_bytes or profile.ram_bytes),
        family=profile.family,
        n_sockets=int(profile.n_sockets.value),
        bandwidth=Bandwidths(profile.bandwidth_bytes_per_s, "profile"),
        gpus=profile.gpus,
        gpu_bytes_per_s=min((gpu.bandwidth_gb_per_s.value * 1e9 for gpu in profile.gpus), default=None),
        price_cny=profile.price_cny,
        price_usd=profile.price_usd,
        power_w=profile.power_w,
    )


def calibrated(rig: Rig, known: KnownRun) -> Rig:
    """Return `rig` with a run that is known of it, which tells the bandwidth where nobody else does."""
    bandwidth = rig.bandwidth
    if bandwidth is None:
        bandwidth = Bandwidths(bandwidth_of_run(rig.family, known.run, rig.n_sockets), "run")
    return replace(rig, known_run=known, bandwidth=bandwidth)


def bandwidth_here(known: Bandwidths | None, read_bytes_per_s: float | None) -> Bandwidths | None:
    """Choose among the theoretical bandwidth and the one measured: the lower, in theory's terms."""
    measured = None
    if read_bytes_per_s is not None:
        measured = Bandwidths(read_bytes_per_s / READ_SHARE, "measured here")
    if known is None or measured is None:
        return known or measured
    return min(known, measured, key=lambda bandwidth: bandwidth.bytes_per_s)
