"""Speeds in words and in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufkit.fit.machines import Sourced
    from ggufkit.fit.outlook import ModelSpeed
    from ggufkit.fit.rig import Bandwidths

BANDWIDTH_SOURCES = {
    "given": "as given",
    "measured here": "measured on this machine",
    "channels": "of this machine's filled channels",
    "maker": "the maker's number for this chip",
    "profile": "of the profile",
    "run": "what the calibrating run comes to",
}


def number_text(tokens_per_s: float) -> str:
    """Return a speed with two or three digits that mean something."""
    if tokens_per_s >= 99.5:
        return f"{tokens_per_s:,.0f}"
    return f"{tokens_per_s:.1f}" if tokens_per_s >= 1 else f"{tokens_per_s:.2f}"


def range_text(speed: ModelSpeed | None) -> str:
    """Return `1.2 to 2.8`, or a question mark."""
    if speed is None:
        return "?"
    return f"{number_text(speed.low_tokens_per_s)} to {number_text(speed.high_tokens_per_s)}"


def speed_lines(speed: ModelSpeed) -> list[str]:
    """Return the range with its basis, and below it how it was found."""
    lines = [
        f"speed: {range_text(speed)} tokens/s, likely {number_text(speed.tokens_per_s)} ({speed.basis})",
        f"  {speed.formula}",
        f"  bandwidth {_bandwidth(speed.bandwidth)}; low end with a full context, high end with an empty one",
    ]
    return lines + [f"  {note}" for note in speed.notes]


def _bandwidth(bandwidth: Bandwidths) -> str:
    return f"{bandwidth.bytes_per_s / 1e9:.1f} GB/s, {BANDWIDTH_SOURCES[bandwidth.source]}"


def price_text(cny: Sourced | None, usd: Sourced | None) -> str:
    """Return a price in the currency that the source has, or nothing."""
    if cny is not None:
        return f"{cny.value:,.0f} CNY"
    return "" if usd is None else f"{usd.value:,.0f} USD"
