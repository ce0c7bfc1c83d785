"""Whether a model fits a machine: what is set aside for the rest, and what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.machine import Machine

GIB = 1 << 30

KERNEL_SHARE = 64
"""Linux keeps 64 bytes (struct page) for each page of 4,096: a machine sold with 256 GiB shows 252 at most.
Source: Documentation/mm/vmemmap_dedup.rst, include/linux/mm_types.h."""
SYSTEM_SHARE = 20
"""A twentieth for the system and for what a server grows by later (prompt cache, checkpoints). The 5 % is
what AWS Batch recommends to keep for the system ("Reserve system memory")."""
SYSTEM_LEAST_BYTES = 2 * GIB
"""Never less for the system: an idle desktop takes as much. Our own choice."""
SMALL_SHARE = 8
"""But no more than an eighth of a small machine, for each of system and compute. Our own choice."""
COMPUTE_BYTES = GIB
"""For the compute buffer where nothing can compute it: llama.cpp's own margin (common/common.h
`fit_params_target`, 1,024 MiB). The largest of 18 measured models took 0.68 GiB with flash attention and a
ubatch of 512; without flash attention it can be far more (DeepSeek R1 at 32,768 tokens: 8.5 GiB)."""
COMPUTE_UBATCH_TOKENS = 512
"""The ubatch that COMPUTE_BYTES is meant for; compute buffers grow with the ubatch."""

GPU_MARGIN_BYTES = GIB
"""What is left free on each GPU, as llama.cpp does (common/common.h `fit_params_target`)."""

Level = Literal["fits", "tight", "pages", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is set aside, bytes."""

    kernel_bytes: int
    """For the kernel's own tables; 0 where the machine's memory is given without them."""
    system_bytes: int
    """For the system, and for what the runtime grows by later."""
    compute_bytes: int
    """For the compute buffer, where it is not or only roughly known."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.kernel_bytes + self.system_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model fits."""

    level: Level
    """`fits`; `tight`: it does, but leaves less than it should to the system; `pages`: the weights do not all
    stay in memory and are read from the SSD again and again; `no`; `unknown`: the header says too little."""
    needed_bytes: int
    """What the model takes of the computer's memory."""
    left_bytes: int
    """What is left of the memory after the model and all that is set aside; negative when it is short."""
    weights_in_memory: float
    """Share of the weights that can stay in memory: 1.0 unless the model pages."""
    short_gpus: tuple[str, ...] = ()
    """GPUs on which more is placed than they have room for, with a margin."""

    @property
    def in_memory(self) -> bool:
        """Whether all of the model stays in memory."""
        return self.level in ("fits", "tight")


def reserve_of(machine: Machine, settings: FitSettings, estimate: MemoryEstimate | None = None) -> Reserve:
    """Say what to set aside on `machine` for a model run with `settings`, beside its `estimate`."""
    ram = machine.ram_bytes
    small = ram // SMALL_SHARE
    ubatch = max(settings.n_ubatch_tokens, COMPUTE_UBATCH_TOKENS)
    return Reserve(
        kernel_bytes=ram // KERNEL_SHARE if machine.source == "given" else 0,
        system_bytes=min(max(SYSTEM_LEAST_BYTES, ram // SYSTEM_SHARE), small),
        compute_bytes=_unsure(min(COMPUTE_BYTES, small) * ubatch // COMPUTE_UBATCH_TOKENS, estimate),
    )


def _unsure(n_bytes: int, estimate: MemoryEstimate | None) -> int:
    """Set aside what an estimate of the compute buffer may be short of: nothing when that is exact."""
    terms = estimate.terms if estimate else ()
    certainty, known = next(
        ((t.certainty, t.n_bytes or 0) for t in terms if t.name == "compute buffer"), ("unknown", 0)
    )
    return 0 if certainty == "exact" else max(n_bytes - known, 0)


def short_gpus(estimate: MemoryEstimate, margin_bytes: int = GPU_MARGIN_BYTES) -> tuple[str, ...]:
    """Return the names of the GPUs that have less than `margin_bytes` left."""
    gpus = (device for device in estimate.devices if device.memory_bytes is not None)
    return tuple(d.name for d in gpus if d.total_bytes + margin_bytes > (d.memory_bytes or 0))


def judge(estimate: MemoryEstimate, machine: Machine, reserve: Reserve) -> Verdict:
    """Say whether a model that takes `estimate` fits `machine` beside `reserve`."""
    room = machine.ram_bytes - reserve.total_bytes
    needed = estimate.host_bytes
    left = room - needed
    share = (room - (estimate.kept_bytes or 0)) / (estimate.mapped_bytes or 1)
    return Verdict(
        level=_level(estimate, room, reserve.system_bytes),
        needed_bytes=needed,
        left_bytes=left,
        weights_in_memory=min(max(share, 0.0), 1.0),
        short_gpus=short_gpus(estimate),
    )


def _level(estimate: MemoryEstimate, room: int, system_bytes: int) -> Level:
    """Judge by the `room` for a model, and by what it is when the system gets nothing."""
    if short_gpus(estimate, 0):
        return "no"
    fits: Level = "fits" if estimate.host_bytes <= room and not short_gpus(estimate) else "tight"
    if estimate.host_bytes <= room + system_bytes:
        return fits if estimate.kept_bytes is not None else "unknown"
    return "pages" if (estimate.kept_bytes or 0) < room else "no"
