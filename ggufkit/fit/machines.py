"""Machines that a model can be judged for without having them: what `machines.toml` says of each. Pure.

`ggufkit.fit.machine.machine_profiles()` reads the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggufkit.errors import FormatError
from ggufkit.fit.channels import CHANNEL_BITS
from ggufkit.fit.speed import FAMILIES

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Sourced:
    """A number and where it comes from."""

    value: float
    """The number, in the unit of the field it stands in."""
    source: str
    """Who says so; `assumed: ...` when nobody does."""


@dataclass(frozen=True, slots=True)
class ProfileGpu:
    """The graphics cards of one kind in a profile."""

    name: str
    """The maker's name for it."""
    n: Sourced
    """How many there are."""
    vram_gib: Sourced
    """Memory of one, GiB."""
    bandwidth_gb_per_s: Sourced
    """Theoretical bandwidth of one's memory, decimal GB/s."""


@dataclass(frozen=True, slots=True)
class MeasuredSpeed:
    """A speed that somebody measured on the machine."""

    model: str
    """The model, as docs/speed.md calls it."""
    tokens_per_s: Sourced
    """Tokens per second of one text."""


@dataclass(frozen=True, slots=True)
class MachineProfile:
    """A machine in numbers, each with its source."""

    name: str
    """What `machines.toml` calls it."""
    title: str
    """What it is."""
    family: str
    """Its family in `ggufkit.fit.speed`."""
    n_sockets: Sourced
    """Processors."""
    ram_gib: Sourced
    """Memory, GiB."""
    n_cores: Sourced | None = None
    """Physical cores of all sockets."""
    n_channels: Sourced | None = None
    """Filled memory channels of all sockets."""
    memory_mts: Sourced | None = None
    """Speed of the memory, millions of transfers per second."""
    bandwidth_gb_per_s: Sourced | None = None
    """Theoretical bandwidth, decimal GB/s, where it is not that of channels."""
    price_cny: Sourced | None = None
    """Price in yuan."""
    price_usd: Sourced | None = None
    """Price in dollars."""
    power_w: Sourced | None = None
    """Power at work, watts."""
    gpus: tuple[ProfileGpu, ...] = ()
    """Graphics cards."""
    measured: tuple[MeasuredSpeed, ...] = ()
    """Speeds that were measured on it."""

    @property
    def ram_bytes(self) -> int:
        """Return the memory in bytes."""
        return int(self.ram_gib.value * GIB)

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Return the theoretical bandwidth of the memory, all sockets together."""
        if self.bandwidth_gb_per_s is not None:
            return self.bandwidth_gb_per_s.value * 1e9
        assert self.n_channels is not None  # parse_profiles() saw to it
        assert self.memory_mts is not None
        return self.n_channels.value * self.memory_mts.value * 1e6 * CHANNEL_BITS / 8


_REQUIRED, _OPTIONAL = (
    ("n_sockets", "ram_gib"),
    ("n_cores", "n_channels", "memory_mts", "bandwidth_gb_per_s", "price_cny", "price_usd", "power_w"),
)
_WORDS = ("title", "family")


def parse_profiles(text: str, file: str = "machines.toml") -> dict[str, MachineProfile]:
    """Return the profiles by name; raises FormatError naming the machine whose entry is not sound."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(file, f"is no TOML: {error}") from error
    sources = document.get("sources", {})
    machines = document.get("machines", {})
    return {name: _Entry(file, name, fields, sources).profile() for name, fields in machines.items()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One table of the file, with what its errors need."""

    file: str
    name: str
    fields: Mapping[str, Any]
    sources: Mapping[str, str]

    def fail(self, reason: str) -> FormatError:
        return FormatError(self.file, f"machine {self.name}: {reason}")

    def profile(self) -> MachineProfile:
        known = {*_REQUIRED, *_OPTIONAL, *_WORDS, "gpus", "measured"}
        missing = [key for key in (*_WORDS, *_REQUIRED) if key not in self.fields]
        if missing or not known >= set(self.fields):
            raise self.fail(f"lacks {missing}, knows no {sorted(set(self.fields) - known)}")
        if self.fields["family"] not in FAMILIES:
            raise self.fail(f"no family is called {self.fields['family']}")
        if "bandwidth_gb_per_s" not in self.fields and not {"n_channels", "memory_mts"} <= set(self.fields):
            raise self.fail("has neither channels and their speed nor a bandwidth")
        return MachineProfile(
            name=self.name,
            title=str(self.fields["title"]),
            family=str(self.fields["family"]),
            **{key: self.number(self.fields, key) for key in _REQUIRED},
            **{key: self.number(self.fields, key) for key in _OPTIONAL if key in self.fields},
            gpus=tuple(self.gpu(fields) for fields in self.fields.get("gpus", ())),
            measured=tuple(self.measured(fields) for fields in self.fields.get("measured", ())),
        )

    def number(self, fields: Mapping[str, Any], key: str) -> Sourced:
        match fields.get(key):
            case [int() | float() as value, str(source)] if value > 0:
                if source not in self.sources:
                    raise self.fail(f"{key} names a source that is not listed: {source}")
                return Sourced(value, self.sources[source])
        raise self.fail(f"{key} is no [number, source]")

    def gpu(self, fields: Mapping[str, Any]) -> ProfileGpu:
        numbers = {key: self.number(fields, key) for key in ("n", "vram_gib", "bandwidth_gb_per_s")}
        return ProfileGpu(str(fields.get("name", "")), **numbers)

    def measured(self, fields: Mapping[str, Any]) -> MeasuredSpeed:
        return MeasuredSpeed(str(fields.get("model", "")), self.number(fields, "tokens_per_s"))
