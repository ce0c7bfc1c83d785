"""How fast a model generates: a range of tokens per second, from the bytes that a token reads.

Generating a token reads each weight that it uses once, so time is `bytes / (efficiency x bandwidth) +
overhead`. Efficiency and overhead are those of a family of machines, fitted on published measurements by
`scripts/speed_table.py`, which writes the table below and docs/speed.md. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ggufkit.errors import UsageError
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo
from ggufkit.gguf.stats import main_tensors, used_part

Basis = Literal["measured here", "calibrated", "formula"]


@dataclass(frozen=True, slots=True)
class FamilySpeed:
    """What a family of machines makes of its bandwidth."""

    efficiency: float
    """Share of the theoretical bandwidth that is reached."""
    overhead_s: float
    """Seconds of a token that are not spent reading."""
    low_factor: float
    """The low end of the range, as a multiple of the speed predicted."""
    high_factor: float
    """The high end of the range, as a multiple of the speed predicted."""
    n_points: int
    """Measurements of this family that it was fitted on."""


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    """How fast a model will generate."""

    low_tokens_per_s: float
    """Slower than this is unlikely."""
    tokens_per_s: float
    """The most likely speed."""
    high_tokens_per_s: float
    """Faster than this is unlikely."""
    basis: Basis
    """Where the numbers come from."""
    formula: str
    """How `tokens_per_s` was computed, in words."""


# scripts/speed_table.py: begin
FAMILIES: dict[str, FamilySpeed] = {
    "cpu_desktop_ddr4": FamilySpeed(0.792, 0.0, 0.72, 1.39, 3),
    "cpu_xeon": FamilySpeed(0.425, 0.0, 0.64, 1.55, 1),
    "cpu_epyc_1s": FamilySpeed(0.55, 0.0, 0.76, 1.32, 5),
    "cpu_2s_numa": FamilySpeed(0.482, 0.0, 0.49, 2.04, 7),
    "cpu_xeon_ddr5": FamilySpeed(0.418, 0.0, 0.64, 1.55, 2),
    "cpu_desktop_ddr5": FamilySpeed(0.679, 0.0, 0.64, 1.55, 1),
    "cpu_sbc": FamilySpeed(0.412, 0.0, 0.72, 1.39, 4),
    "hybrid_moe": FamilySpeed(0.645, 0.0, 0.62, 1.62, 4),
    "apple": FamilySpeed(0.82, 0.00225, 0.7, 1.25, 21),
    "gpu": FamilySpeed(0.84, 0.002, 0.46, 1.34, 52),
    "igpu_unified": FamilySpeed(0.71, 0.0, 0.72, 1.39, 4),
    "hybrid_dense": FamilySpeed(0.157, 0.0, 0.22, 4.45, 11),
    "cpu": FamilySpeed(0.482, 0.0, 0.5, 2.01, 0),
}
"""Every family that was measured, and all CPUs together (`cpu`)."""
MOE_LOW_FACTOR = 0.93
"""How much lower the low end is for a model with experts."""
CALIBRATED_LOW_FACTOR, CALIBRATED_HIGH_FACTOR = 0.64, 1.56
"""The range when one run on the machine is known."""
# scripts/speed_table.py: end

FALLBACK_FAMILY = "cpu"
"""CPUs of no family that was measured (`cpu_arm_server`): the pool of all, with the widest range."""

RAM_FAMILIES = ("hybrid_moe",)
"""Families beside `cpu...` whose bandwidth is that of the host's memory."""
TWO_SOCKETS = "cpu_2s_numa"


def family_speed(family: str, n_sockets: int = 1) -> FamilySpeed:
    """Return what a family makes of its bandwidth; raises UsageError naming the families there are."""
    if family.startswith("cpu") and n_sockets > 1:
        return FAMILIES[TWO_SOCKETS]
    if family in FAMILIES:
        return FAMILIES[family]
    if family.startswith("cpu"):
        return FAMILIES[FALLBACK_FAMILY]
    raise UsageError(f"no family of machines is called {family}", hint=f"one of {', '.join(FAMILIES)}")


def counted_bandwidth(family: str, bandwidth_bytes_per_s: float, n_sockets: int = 1) -> float:
    """Return the bandwidth that counts: several sockets are as fast as one.

    Each socket reads half of the weights from the other's memory, and llama.cpp waits for the slowest.
    """
    if not (family.startswith("cpu") or family in RAM_FAMILIES):
        return bandwidth_bytes_per_s
    return bandwidth_bytes_per_s / max(n_sockets, 2 if family == TWO_SOCKETS else 1)


def seconds_per_token(speed: FamilySpeed, bandwidth_bytes_per_s: float, active_bytes: float) -> float:
    """Return the time that a token takes with the bandwidth that counts."""
    return active_bytes / (speed.efficiency * bandwidth_bytes_per_s) + speed.overhead_s


def predict_speed(
    family: str,
    bandwidth_bytes_per_s: float,
    active_bytes_per_token: float,
    moe: bool = False,
    n_sockets: int = 1,
) -> SpeedEstimate:
    """Predict the speed of generating one text, when weights and cache are in the family's memory.

    `bandwidth_bytes_per_s` is the theoretical one, of all sockets together. `moe` widens the range
    downwards: scattered reads of experts and a router for each layer cost more on some machines. Raises
    UsageError for an unknown family or numbers that are not positive.
    """
    for name, value in (
        ("bandwidth", bandwidth_bytes_per_s),
        ("bytes per token", active_bytes_per_token),
        ("number of sockets", n_sockets),
    ):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"the {name} is {value}; only positive numbers are possible")
    speed = family_speed(family, n_sockets)
    counted = counted_bandwidth(family, bandwidth_bytes_per_s, n_sockets)
    low, likely, high = speed_range(speed, counted, active_bytes_per_token, MOE_LOW_FACTOR if moe else 1.0)
    formula = _formula(speed, counted, active_bytes_per_token, counted < bandwidth_bytes_per_s)
    return SpeedEstimate(low, likely, high, "formula", formula)


@dataclass(frozen=True, slots=True)
class Run:
    """A speed that was measured on the machine in question, with a model that was in memory."""

    active_bytes_per_token: float
    """What a token of that model reads."""
    tokens_per_s: float
    """How fast it was."""


SAME_MODEL = 0.02  # relative difference of the bytes a token reads, within which it is the run's own model
REPEAT_FACTOR = 1.1  # a rule of our own: runs that differ by more than 10 % were disturbed


def calibrated_speed(
    family: str,
    bandwidth_bytes_per_s: float,
    active_bytes_per_token: float,
    run: Run,
    moe: bool = False,
    n_sockets: int = 1,
) -> SpeedEstimate:
    """Predict the speed on a machine of which one run is known: by the ratio to the run's own prediction.

    The range is what remains between models on one machine. A run of the same model is taken as measured.
    """
    speed = predict_speed(family, bandwidth_bytes_per_s, active_bytes_per_token, moe, n_sockets)
    known = predict_speed(family, bandwidth_bytes_per_s, run.active_bytes_per_token, moe, n_sockets)
    if not (run.tokens_per_s > 0 and math.isfinite(run.tokens_per_s)):
        raise UsageError(f"the run's speed is {run.tokens_per_s}; only positive numbers are possible")
    same = abs(active_bytes_per_token / run.active_bytes_per_token - 1) <= SAME_MODEL
    factor = run.tokens_per_s / known.tokens_per_s
    likely = run.tokens_per_s if same else speed.tokens_per_s * factor
    low, high = (
        (1 / REPEAT_FACTOR, REPEAT_FACTOR) if same else (CALIBRATED_LOW_FACTOR, CALIBRATED_HIGH_FACTOR)
    )
    return SpeedEstimate(
        low_tokens_per_s=likely * low,
        tokens_per_s=likely,
        high_tokens_per_s=likely * high,
        basis="measured here" if same else "calibrated",
        formula=f"{factor:.2f} x ({speed.formula})",
    )


def bandwidth_of_run(family: str, run: Run, n_sockets: int = 1) -> float:
    """Return the theoretical bandwidth with which the family's formula gives the run's speed."""
    speed = family_speed(family, n_sockets)
    read_s = max(1 / run.tokens_per_s - speed.overhead_s, 0.1 / run.tokens_per_s)
    counted = run.active_bytes_per_token / (speed.efficiency * read_s)
    return counted / counted_bandwidth(family, 1.0, n_sockets)


def speed_range(
    speed: FamilySpeed, bandwidth_bytes_per_s: float, active_bytes: float, low_factor: float = 1.0
) -> tuple[float, float, float]:
    """Return low end, prediction and high end in tokens/s; nothing is faster than the bandwidth that counts.

    `low_factor` lowers the low end further.
    """
    likely = 1 / seconds_per_token(speed, bandwidth_bytes_per_s, active_bytes)
    most = bandwidth_bytes_per_s / active_bytes
    high = max(likely, min(likely * speed.high_factor, most))
    return likely * speed.low_factor * low_factor, likely, high


def _formula(speed: FamilySpeed, bandwidth: float, active_bytes: float, one_socket: bool) -> str:
    read = f"{active_bytes / 1e9:.1f} GB / ({speed.efficiency:.2f} x {bandwidth / 1e9:.1f} GB/s"
    text = read + (" of one socket)" if one_socket else ")")
    if speed.overhead_s:
        text += f" + {speed.overhead_s * 1e3:.1f} ms"
    n = speed.n_points
    pooled = "all CPUs that were measured together"
    whose = f"{n} published measurement{'' if n == 1 else 's'}" if n else pooled
    return f"{text} a token; efficiency from {whose}"


def active_bytes_per_token(info: ModelInfo, tensors: Sequence[TensorInfo], *, cache_bytes: int = 0) -> int:
    """Return the bytes that generating one token reads.

    All tensors, but: of experts those used, of the input embedding one row (when it is the output matrix
    too, all of it), and no blocks that predict further tokens (MTP). `cache_bytes` is what attention
    reads of the KV cache: the cells in use at the context in mind.
    """
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    return cache_bytes + sum(
        used_part(tensor, tensor.n_bytes, info)
        for tensor in main_tensors(tensors, info)
        if tied or tensor.name != "token_embd.weight"
    )
