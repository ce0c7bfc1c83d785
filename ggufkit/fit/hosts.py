"""Which part of a model lies on which of several machines, as llama.cpp's RPC engine divides it. Pure.

To llama.cpp a worker is a device like a GPU. The head keeps the input embedding and as many of the first
layers as it has room for, so that as little as possible goes over the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ggufkit.fit.devices import gpu_layer_bytes
from ggufkit.fit.estimate import DeviceEstimate, FitSettings, MemoryEstimate, Offload
from ggufkit.fit.machine import given_machine
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.placement import place
from ggufkit.fit.splits import layer_splits
from ggufkit.fit.verdict import reserve_of
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that is to have a part of a model."""

    name: str
    """What it is called, or its address."""
    ram_bytes: int
    """Memory built in."""


@dataclass(frozen=True, slots=True)
class HostShare:
    """What one machine has of a model."""

    name: str
    """What the machine is called."""
    ram_bytes: int
    """Memory built in."""
    n_layers: int
    """Layers there, the output layer being one."""
    weights_bytes: int
    """Bytes of the weights."""
    kv_cache_bytes: int | None
    """Bytes kept of the context; None when it is not known."""
    compute_bytes: int | None
    """Bytes of the buffer that is computed in; None when it is not known."""
    total_bytes: int
    """Sum of those that are known, and on the head of the buffer for the scores."""
    reserve_bytes: int
    """What is set aside for the system, and for a compute buffer that is not surely known."""
    left_bytes: int
    """What is left then; negative when it is short."""


@dataclass(frozen=True, slots=True)
class HostsPlacement:
    """A model over several machines."""

    estimate: MemoryEstimate
    """What the model takes on all of them."""
    shares: tuple[HostShare, ...]
    """What each has, the head first."""
    level: Literal["fits", "tight", "no", "unknown"]
    """`tight`: it fits, but leaves less than it should to a system; `unknown`: the header says too little."""
    n_gpu_layers: int
    """`--n-gpu-layers`: layers on workers, the last ones, the output layer being one."""
    n_layers: int
    """Layers of the model, the output layer being one."""
    tensor_split: tuple[float, ...]
    """`--tensor-split`: how many of these layers each worker gets."""
    head_alone: bool
    """Whether the head has room for all of it, so that nothing but a trial speaks for workers."""

    @property
    def shipped_bytes(self) -> int:
        """Bytes of weights that go over the network when the model is loaded."""
        return sum(share.weights_bytes for share in self.shares[1:])


def place_on_hosts(
    info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings, hosts: Sequence[Host]
) -> HostsPlacement:
    """Divide a model among `hosts` (two or more), the first being the head, which reads the file.

    What does not fit is divided by room all the same, to show what is short. Raises UsageError for settings
    with which llama.cpp refuses the model.
    """
    division = _Division(info, tensors, replace(settings, offload=None), tuple(hosts))
    alone = estimate_memory(info, tensors, division.settings)
    head_alone = alone.total_bytes <= division.rooms(alone)[0]
    for tight in (False, True):
        offload = division.found(tight=tight, even=head_alone)
        if offload is not None:
            level: Literal["fits", "tight"] = "tight" if tight else "fits"
            return division.placement(offload, level, head_alone=head_alone)
    return division.placement(division.short(), "no", head_alone=False)


@dataclass(frozen=True, slots=True)
class _Division:
    """A model and machines, to be tried in several ways."""

    info: ModelInfo
    tensors: Sequence[TensorInfo]
    settings: FitSettings
    hosts: tuple[Host, ...]

    @property
    def n_layers(self) -> int:
        return (self.info.n_layers or 0) + 1

    def offload(self, n: int, tensor_split: tuple[float, ...] = ()) -> Offload:
        workers = tuple(host.ram_bytes for host in self.hosts[1:])
        return Offload(workers, n_gpu_layers=n, tensor_split=tensor_split)

    def at(self, offload: Offload) -> MemoryEstimate:
        return estimate_memory(self.info, self.tensors, replace(self.settings, offload=offload))

    def reserves(self, estimate: MemoryEstimate, *, tight: bool = False) -> list[int]:
        """Return what is set aside on each machine; when it is `tight`, nothing for programs."""
        found = [reserve_of(given_machine(h.ram_bytes), self.settings, estimate) for h in self.hosts]
        return [r.total_bytes - (r.system_bytes if tight else 0) for r in found]

    def rooms(self, estimate: MemoryEstimate, *, tight: bool = False) -> list[int]:
        """Return what each machine has for a model."""
        reserves = self.reserves(estimate, tight=tight)
        return [host.ram_bytes - aside for host, aside in zip(self.hosts, reserves, strict=True)]

    def found(self, *, tight: bool, even: bool) -> Offload | None:
        """Return the division with the fewest layers on workers, or an `even` one; None when none fits."""
        least = self.least(tight=tight)
        if least is None:
            return None
        rooms = self.rooms(self.at(self.offload(least)), tight=tight)
        n = max(least, round(self.n_layers * sum(rooms[1:]) / (sum(rooms) or 1))) if even else least
        for shares in self.splits(n, rooms):
            estimate = self.at(self.offload(n, shares))
            if all(d.total_bytes <= room for d, room in zip(estimate.devices, rooms, strict=True)):
                return self.offload(n, shares)
        return None

    def least(self, *, tight: bool) -> int | None:
        """Find the fewest layers on workers with which the head has room for the rest."""
        low, high = 1, self.n_layers
        if not self.head_fits(high, tight=tight):
            return None
        while low < high:
            middle = (low + high) // 2
            fits = self.head_fits(middle, tight=tight)
            low, high = (low, middle) if fits else (middle + 1, high)
        return low

    def head_fits(self, n: int, *, tight: bool) -> bool:
        estimate = self.at(self.offload(n))
        return estimate.devices[0].total_bytes <= self.rooms(estimate, tight=tight)[0]

    def short(self) -> Offload:
        """Return a division by room for what does not fit."""
        least = self.least(tight=True) or self.n_layers
        rooms = self.rooms(self.at(self.offload(least)), tight=True)
        return self.offload(least, next(self.splits(least, rooms)))

    def splits(self, n: int, rooms: Sequence[int]) -> Iterator[tuple[float, ...]]:
        """Propose how many of `n` layers each worker gets: by room, then each filled before the next."""
        offload = self.offload(n)
        devices = self.at(offload).devices[1:]
        free = [max(room - (d.compute_bytes or 0), 1) for room, d in zip(rooms[1:], devices, strict=True)]
        at = replace(self.settings, offload=offload)
        sizes = gpu_layer_bytes(self.info, self.tensors, at, place(offload, self.n_layers - 1))
        return layer_splits(sizes, free)

    def placement(
        self, offload: Offload, level: Literal["fits", "tight", "no"], *, head_alone: bool
    ) -> HostsPlacement:
        estimate = self.at(offload)
        placed = place(offload, self.n_layers - 1)
        counts = [[*placed.layers, placed.output].count(i) for i in (placed.cpu, *range(placed.cpu))]
        parts = zip(self.hosts, estimate.devices, counts, self.reserves(estimate), strict=True)
        unknown = estimate.kept_bytes is None and level != "no"
        return HostsPlacement(
            estimate=estimate,
            shares=tuple(_share(*part) for part in parts),
            level="unknown" if unknown else level,
            n_gpu_layers=offload.n_gpu_layers or 0,
            n_layers=self.n_layers,
            tensor_split=offload.tensor_split,
            head_alone=head_alone,
        )


def _share(host: Host, device: DeviceEstimate, n_layers: int, reserve_bytes: int) -> HostShare:
    return HostShare(
        name=host.name,
        ram_bytes=host.ram_bytes,
        n_layers=n_layers,
        weights_bytes=device.weights_bytes,
        kv_cache_bytes=device.kv_cache_bytes,
        compute_bytes=device.compute_bytes,
        total_bytes=device.total_bytes,
        reserve_bytes=reserve_bytes,
        left_bytes=host.ram_bytes - reserve_bytes - device.total_bytes,
    )
