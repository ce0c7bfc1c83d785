"""How many memory channels are filled of those the CPU has, what that costs, and what to buy. Pure.

Generating text runs at the speed of memory, and memory at the number of filled channels: one module in a
machine with four channels costs a factor of four. Boards name slots as they like, so the channel of a module
is told by the names that are known; else modules are counted, of which each fills one channel at most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ggufkit.fit.cpus import Cpu, MemoryController
from ggufkit.fit.smbios import Module

CHANNEL_BITS = 64  # DDR3 and DDR4; of DDR5 two halves of 32 are counted as one, as makers do
Told = Literal["SMBIOS", "udev", "EDAC"]
Channel = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Channels:
    """The memory channels of a machine, all sockets together."""

    source: Told
    """Who named the modules."""
    modules: tuple[Module, ...]
    """The slots, empty ones too."""
    n_modules: int
    """Slots that are filled."""
    n_filled: int
    """Channels of 64 bits that are filled; when not `exact`, no more than these."""
    exact: bool
    """Whether the channel of each module is known."""
    n_channels: int | None
    """Channels that the CPUs have; None for a CPU that is not in our table."""
    speed_mts: int | None
    """What the modules run at (the slowest), millions of transfers per second."""
    bandwidth_bytes_per_s: float | None
    """Theoretical bandwidth of the filled channels."""
    full_bandwidth_bytes_per_s: float | None
    """What it would be with a module of this speed in every channel."""


# How boards name places. Supermicro, ASRock, Gigabyte (AGESA), Intel's reference code, HP, Lenovo, ASUS.
_PLACES = (
    re.compile(r"(?:NODE|PROC|CPU|P)[ _]?(\d+)\D*?CHANNEL[ _]?([A-Z]\b|\d+)", re.IGNORECASE),
    re.compile(r"(?:P|CPU|PROC)[ _]?(\d+)[-_ ]?(?:DIMM)?[-_ ]?([A-Z])\d?\b", re.IGNORECASE),
    re.compile(r"(?:Controller(\d+)-)?Channel[ _-]?([A-Z]|\d+)", re.IGNORECASE),
    re.compile(r"()DIMM[ _]?([A-Z])\d?\b", re.IGNORECASE),
)
_LETTER_NUMBER = re.compile(r"([A-Z])(\d+)")  # Dell's servers: socket and slot; desktops: channel and slot
MOST_SLOTS_A_CHANNEL = 2  # of boards that mean the channel by the letter


def find_channels(
    modules: Sequence[Module], source: Told, cpu: Cpu, controller: MemoryController | None
) -> Channels:
    """Count the channels that the modules fill."""
    filled = [module for module in modules if module.populated]
    n_channels = controller.n_channels * cpu.n_sockets if controller else None
    n_filled, exact = _count(modules, filled, controller, cpu.n_sockets)
    speed = min((m.configured_mts or m.speed_mts or 0 for m in filled), default=0) or None
    return Channels(
        source=source,
        modules=tuple(modules),
        n_modules=len(filled),
        n_filled=n_filled,
        exact=exact,
        n_channels=n_channels,
        speed_mts=speed,
        bandwidth_bytes_per_s=_bandwidth(n_filled, speed),
        full_bandwidth_bytes_per_s=_bandwidth(n_channels, speed),
    )


def _bandwidth(n_channels: int | None, speed_mts: int | None) -> float | None:
    return n_channels * speed_mts * 1e6 * CHANNEL_BITS / 8 if n_channels and speed_mts else None


def _count(
    slots: Sequence[Module], filled: Sequence[Module], controller: MemoryController | None, n_sockets: int
) -> tuple[int, bool]:
    """Return the number of filled channels, and whether it is sure."""
    if filled and all((m.memory_type or "").startswith("LPDDR") and m.data_bits for m in filled):
        return max(1, sum(m.data_bits or 0 for m in filled) // CHANNEL_BITS), True  # soldered: no slots
    n_each = controller.n_channels if controller else None
    places = {place_of(module, slots, n_each) for module in filled}
    most = min(len(filled), n_each * n_sockets if n_each else len(filled))
    if None in places:
        return most, len(filled) <= 1
    return (len(places), True) if len(places) <= most else (most, False)


def place_of(module: Module, slots: Sequence[Module], n_channels: int | None) -> Channel | None:
    """Return socket (or controller) and channel of a module, by its names; None when they don't tell."""
    for name in (module.bank, module.locator):
        for pattern in _PLACES:
            match = pattern.search(name)
            if match:
                return (match[1] or "0", match[2].upper())
    return _by_letter(module.locator, slots, n_channels)


def _by_letter(locator: str, slots: Sequence[Module], n_channels: int | None) -> Channel | None:
    match = _LETTER_NUMBER.fullmatch(locator)
    numbers = [int(m[2]) for slot in slots if (m := _LETTER_NUMBER.fullmatch(slot.locator))]
    if not match:
        return None
    if max(numbers) <= MOST_SLOTS_A_CHANNEL:
        return ("0", match[1])
    # PowerEdge manuals: slots 1 to n are the first of each channel, n + 1 to 2 n the second.
    return (match[1], str((int(match[2]) - 1) % n_channels)) if n_channels else None


def warnings(channels: Channels, cpu: Cpu) -> list[str]:
    """Say what empty channels cost."""
    n_filled, n_all = channels.n_filled, channels.n_channels
    if not n_all or n_filled >= n_all or not n_filled:
        return []
    which = str(n_filled) if channels.exact else f"at most {n_filled}"
    verb = "is" if n_filled == 1 else "are"
    each = f" ({n_all // cpu.n_sockets} for each of {cpu.n_sockets} CPUs)" if cpu.n_sockets > 1 else ""
    cost = f"models run {n_all / n_filled:.3g} times slower than this CPU can"
    if channels.bandwidth_bytes_per_s and channels.full_bandwidth_bytes_per_s:
        here, full = channels.bandwidth_bytes_per_s / 1e9, channels.full_bandwidth_bytes_per_s / 1e9
        cost = f"{here:.1f} of {full:.1f} GB/s, so {cost}"
    return [f"{which} of {n_all} memory channels{each} {verb} filled: {cost}"]


def advice(channels: Channels, controller: MemoryController | None) -> list[str]:
    """Say what to buy, or to move, to fill the channels; and to run modules as fast as they can."""
    found = []
    missing = (channels.n_channels or 0) - channels.n_filled
    if channels.n_filled and missing > 0:
        n_spare = channels.n_modules - channels.n_filled if channels.exact else 0
        if n_spare >= missing:
            found.append(
                f"move {missing} of the modules, one to each empty channel; the manual names the slots"
            )
        else:
            found.append(f"buy {_modules(channels, missing - n_spare)}, one for each empty channel")
    slow = _slow(channels, controller)
    return [*found, slow] if slow else found


def _modules(channels: Channels, n: int) -> str:
    """Describe the module that most slots have."""
    filled = [m for m in channels.modules if m.populated and m.size_bytes]
    if not filled:
        return f"{n} more modules like those there"
    (module, _), *_ = Counter(filled).most_common(1)
    kind = f"{module.memory_type}-{module.speed_mts}" if module.speed_mts else module.memory_type
    size = f"{(module.size_bytes or 0) / 2**30:.3g} GiB"
    part = f"(as {module.part})" if module.part else ""
    words = (str(n), "more", "module" if n == 1 else "modules", "of", size, kind, part)
    return " ".join(word for word in words if word)


def _slow(channels: Channels, controller: MemoryController | None) -> str | None:
    """Tell of modules that run slower than both they and the CPU could."""
    rated = min((m.speed_mts or 0 for m in channels.modules if m.populated), default=0)
    possible = min(rated, controller.max_mts) if controller else 0
    if channels.speed_mts and possible > channels.speed_mts:
        runs = f"the modules run at {channels.speed_mts} MT/s, but they and the CPU can do {possible}"
        return f"{runs}: see the firmware's settings, and the manual for modules per channel"
    return None
