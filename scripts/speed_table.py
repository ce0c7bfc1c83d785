#!/usr/bin/env python3
"""Fit the families' constants on published speeds, judge them without the point judged, write the tables.

`scripts/speed_table.py` writes the table in ggufkit/fit/speed.py and docs/speed.md. What is fitted is kept
small: an efficiency for each family, pulled towards its kind where points are few, and an overhead for the
families with many points. Errors are logarithms of ratios, so twice as fast is as wrong as half as fast.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ggufkit.fit.speed import (  # noqa: E402
    FALLBACK_FAMILY,
    TWO_SOCKETS,
    FamilySpeed,
    counted_bandwidth,
    seconds_per_token,
    speed_range,
)

POINTS = ROOT / "tests/data/speed_points.json"
CODE = ROOT / "ggufkit/fit/speed.py"
DOCUMENT = ROOT / "docs/speed.md"
BEGIN, END = "# scripts/speed_table.py: begin\n", "# scripts/speed_table.py: end\n"

KINDS = {
    "cpu_desktop_ddr4": "desktop",
    "cpu_desktop_ddr5": "desktop",
    "cpu_epyc_1s": "server",
    "cpu_xeon": "server",
    "cpu_xeon_ddr5": "server",
    TWO_SOCKETS: "server",
}
"""Families whose points help each other; another family is its own kind."""
MANY_POINTS = 16  # enough for an overhead of its own; fewer points would fit it to noise
PULL_POINTS = 1.0  # how many points the kind (and for the kind, all CPUs) counts as
# Half-widths of ranges, as logarithms: at least a quarter up and down, and twice either way for a family
# of which nothing was measured.
MIN_SPREAD, UNKNOWN_SPREAD = 0.22, 0.7
RANGE_SHARE = 0.9  # of a family's points that the range holds when there are many
EFFICIENCIES = [x / 100 for x in range(50, 97, 2)]
OVERHEADS_S = [x / 4000 for x in range(25)]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement."""

    family: str
    """The family of the machine."""
    hardware: str
    """The machine."""
    bandwidth_bytes_per_s: float
    """Theoretical, of all sockets."""
    model: str
    """The model and its quant."""
    active_bytes: float
    """What a token reads."""
    moe: bool
    """Whether the model has experts."""
    tokens_per_s: float
    """What was measured."""
    paged: bool
    """Whether the SSD was read: judged, but not learnt from."""

    @property
    def read_s(self) -> float:
        """Return the time to read a token's bytes at the bandwidth that counts."""
        return self.active_bytes / counted_bandwidth(self.family, self.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Judged:
    """A point and what was predicted without it."""

    point: Point
    """The measurement."""
    low: float
    """Low end of the range, tokens/s."""
    likely: float
    """The prediction, tokens/s."""
    high: float
    """High end of the range, tokens/s."""

    @property
    def error(self) -> float:
        """Return how far the prediction is off, as a share of what was measured."""
        return abs(self.likely / self.point.tokens_per_s - 1)

    @property
    def held(self) -> bool:
        """Return whether the range holds what was measured."""
        return self.low <= self.point.tokens_per_s <= self.high


def load_points(path: Path = POINTS) -> list[Point]:
    """Read the measurements whose bandwidth is known."""
    return [
        Point(
            row["family"],
            row["hardware"],
            row["bandwidth_gb_per_s"] * 1e9,
            row["model"],
            row["active_gb_per_token"] * 1e9,
            row["moe"],
            row["tokens_per_s"],
            "pages from disk" in row["note"],
        )
        for row in json.loads(path.read_text("utf-8"))["points"]
        if row["bandwidth_gb_per_s"]
    ]


def fit(points: Sequence[Point]) -> tuple[dict[str, FamilySpeed], float]:
    """Return the constants of each family, and the factor of the low end for models with experts."""
    families = list(dict.fromkeys(p.family for p in points)) + [FALLBACK_FAMILY]
    fitted = {family: fit_family(family, points) for family in families}
    residuals = [(p.moe, math.log(p.tokens_per_s * _seconds(fitted[p.family], p))) for p in learnt(points)]
    gap = statistics.median(r for moe, r in residuals if moe) - statistics.median(
        r for moe, r in residuals if not moe
    )
    return fitted, round(min(1.0, math.exp(gap)), 2)


def fit_family(family: str, points: Sequence[Point]) -> FamilySpeed:
    """Return the constants of one family."""
    own = [p for p in learnt(points) if p.family == family]
    if len(own) >= MANY_POINTS:
        efficiency, overhead = _grid(tuple(own))
    else:
        efficiency, overhead = _pulled(family, own, points), 0.0
    speed = FamilySpeed(round(efficiency, 3), overhead, 1.0, 1.0, len(own))
    residuals = [math.log(p.tokens_per_s * _seconds(speed, p)) for p in own]
    low, high = _range(residuals, len({p.hardware for p in own}))
    return FamilySpeed(
        speed.efficiency, overhead, round(math.exp(low), 2), round(math.exp(high), 2), len(own)
    )


def learnt(points: Iterable[Point]) -> Iterator[Point]:
    """Yield the points whose weights were in memory."""
    return (p for p in points if not p.paged)


def _seconds(speed: FamilySpeed, p: Point) -> float:
    return seconds_per_token(speed, counted_bandwidth(p.family, p.bandwidth_bytes_per_s), p.active_bytes)


@cache
def _grid(points: tuple[Point, ...]) -> tuple[float, float]:
    """Find the efficiency and the overhead with the least sum of absolute errors."""
    known = [(p.read_s, p.tokens_per_s) for p in points]

    def cost(pair: tuple[float, float]) -> float:
        return sum(abs(math.log((read / pair[0] + pair[1]) * speed)) for read, speed in known)

    return min(((e, t) for e in EFFICIENCIES for t in OVERHEADS_S), key=cost)


def _pulled(family: str, own: Sequence[Point], points: Sequence[Point]) -> float:
    """Return the family's median share of the bandwidth, pulled towards its kind's and all CPUs'."""
    kind = [p for p in learnt(points) if KINDS.get(p.family, p.family) == KINDS.get(family, family)]
    cpus = [p for p in learnt(points) if p.family.startswith("cpu")]
    everything = statistics.median(math.log(p.read_s * p.tokens_per_s) for p in cpus)
    return math.exp(_pull(own, _pull(kind, everything)))


def _pull(points: Sequence[Point], towards: float) -> float:
    shares = [math.log(p.read_s * p.tokens_per_s) for p in points]
    n = len(shares)
    return (statistics.median(shares) * n + towards * PULL_POINTS) / (n + PULL_POINTS) if shares else towards


def _range(residuals: Sequence[float], n_machines: int) -> tuple[float, float]:
    """Return how far below and above the prediction the range goes, as logarithms.

    The quantiles of the family's own errors; of few points the greatest, widened for the machines not seen.
    """
    n = len(residuals)
    if not n:
        return -UNKNOWN_SPREAD, UNKNOWN_SPREAD
    if n < MANY_POINTS:
        spread = max(MIN_SPREAD, max(abs(r) for r in residuals)) * (1 + 1 / n_machines)
        return -spread, spread
    ordered, outside = sorted(residuals), (1 - RANGE_SHARE) / 2
    low, high = ordered[int(outside * n)], ordered[min(n - 1, math.ceil((1 - outside) * n) - 1)]
    return min(low, -MIN_SPREAD), max(high, MIN_SPREAD)


def judge(points: Sequence[Point], *, by_machine: bool = False) -> list[Judged]:
    """Predict each point with constants fitted without it, or without its whole machine."""
    judged = []
    for point in points:
        rest = [p for p in points if p != point and not (by_machine and p.hardware == point.hardware)]
        fitted, moe_factor = fit(rest)
        speed = fitted.get(point.family) or fit_family(point.family, rest)
        counted = counted_bandwidth(point.family, point.bandwidth_bytes_per_s)
        ends = speed_range(speed, counted, point.active_bytes, moe_factor if point.moe else 1.0)
        judged.append(Judged(point, *ends))
    return judged


def summary(judged: Sequence[Judged]) -> tuple[int, float, float, float]:
    """Return the number of points, the median and the worst error, and the share that the ranges hold."""
    errors = [j.error for j in judged]
    return len(judged), statistics.median(errors), max(errors), sum(j.held for j in judged) / len(judged)


def calibrated_ratios(points: Sequence[Point]) -> list[float]:
    """Return measured to calibrated speed, for each pair of models on one machine, as logarithms.

    The first of the pair calibrates, the second is predicted; the family is fitted without the machine.
    """
    ratios = []
    for hardware in dict.fromkeys(p.hardware for p in points):
        here = [p for p in learnt(points) if p.hardware == hardware]
        rest = [p for p in points if p.hardware != hardware]
        pairs = [(a, b) for a in here for b in here if a != b and a.family == b.family]
        speeds = {p.family: fit_family(p.family, rest) for p, _ in pairs}
        for run, p in pairs:
            speed = speeds[p.family]
            factor = run.tokens_per_s * _seconds(speed, run)
            ratios.append(math.log(p.tokens_per_s * _seconds(speed, p) / factor))
    return sorted(ratios)


def calibrated_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return the factors between which nine of ten such ratios are."""
    ratios, outside = calibrated_ratios(points), (1 - RANGE_SHARE) / 2
    low, high = ratios[int(outside * len(ratios))], ratios[math.ceil((1 - outside) * len(ratios)) - 1]
    return round(math.exp(low), 2), round(math.exp(high), 2)


def code_table(points: Sequence[Point]) -> str:
    """Return the table that stands in ggufkit/fit/speed.py."""
    fitted, moe_factor = fit(points)
    rows = [
        f'    "{family}": FamilySpeed({", ".join(str(value) for value in astuple(speed))}),'
        for family, speed in fitted.items()
    ]
    about = '"""Every family that was measured, and all CPUs together (`cpu`)."""'
    moe = '"""How much lower the low end is for a model with experts."""'
    lines = ["FAMILIES: dict[str, FamilySpeed] = {", *rows, "}", about]
    lines += [f"MOE_LOW_FACTOR = {moe_factor}", moe]
    low, high = calibrated_range(points)
    lines += [f"CALIBRATED_LOW_FACTOR, CALIBRATED_HIGH_FACTOR = {low}, {high}"]
    return "\n".join([*lines, '"""The range when one run on the machine is known."""', ""])


def document(points: Sequence[Point]) -> str:
    """Return docs/speed.md."""
    fitted, _ = fit(points)
    judged, by_machine = judge(points), judge(points, by_machine=True)
    families = [family for family in fitted if family != FALLBACK_FAMILY]
    rows = [_family_row(family, fitted[family], judged, by_machine) for family in families]
    total = f"| all | {len(points)} | | | | {_summary_cells(judged)} | {_summary_cells(by_machine)} |"
    ratios, (low, high) = calibrated_ratios(points), calibrated_range(points)
    return _TEXT.format(
        calibrated_median=f"{statistics.median(abs(math.exp(-ratio) - 1) for ratio in ratios):.0%}",
        n_pairs=len(ratios),
        calibrated_low=low,
        calibrated_high=high,
        n_points=len(points),
        families="\n".join([*rows, total]),
        points="\n".join(_point_row(j) for j in judged),
    )


def _family_row(family: str, s: FamilySpeed, judged: Sequence[Judged], by_machine: Sequence[Judged]) -> str:
    cells = " | ".join(
        _summary_cells([j for j in part if j.point.family == family]) for part in (judged, by_machine)
    )
    overhead = f"{s.overhead_s * 1e3:.2f} ms" if s.overhead_s else ""
    ends = f"{s.low_factor:.2f} to {s.high_factor:.2f}"
    n = sum(j.point.family == family for j in judged)
    return f"| {family} | {n} | {s.efficiency:.2f} | {overhead} | {ends} | {cells} |"


def _summary_cells(judged: Sequence[Judged]) -> str:
    _, median, worst, held = summary(judged)
    return f"{median:.0%} | {worst:.0%} | {held:.0%}"


def _point_row(j: Judged) -> str:
    p = j.point
    numbers = (
        f"{p.active_bytes / 1e9:.2f} | {p.tokens_per_s:.4g} | {j.likely:.3g} | {j.low:.3g} to {j.high:.3g}"
    )
    return f"| {p.family} | {p.hardware} | {p.model} | {numbers} | {'yes' if j.held else 'no'} |"


_TEXT = """# How well the speed is predicted

Written by `scripts/speed_table.py` from {n_points} published measurements (`tests/data/speed_points.json`,
each with its source). No point is used to predict itself: for every line below the constants were fitted
without the point ("without the point"), or without any point of its machine ("without the machine").

Time for a token = bytes read / (efficiency x theoretical bandwidth) + overhead. Of several CPU sockets one
counts. `hybrid_dense` is a model that does not fit the GPU: its speed rests on how much does not, which the
family does not say; its range is wide. `cpu_2s_numa` rests on how the memory is laid out over the sockets.
The measurement of the HP Z440 with `r1-q2kl` read from the SSD: it is judged, but nothing is learnt from it.

## By family

Median and worst error and the share in the range, first without the point, then without the machine (M).

| family | n | efficiency | overhead | range | median | worst | held | median M | worst M | held M |
|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|
{families}

With one run on the same machine known, another model's speed is predicted within {calibrated_median}
(median of {n_pairs} pairs of models, the family fitted without the machine); nine of ten are between
{calibrated_low} and {calibrated_high} times the prediction.

## What `fit` makes of it

- **Bytes a token reads**: all weights, of the experts those used, of the input embedding one row, and the
  KV cache of one text. A text fills its context: the number is for a context half full, the low end of the
  range for a full one, the high end for an empty one.
- **Bandwidth**, the first of: `--bandwidth`; the profile's (`--machine`); that of the filled channels, or
  of the chip, or the one that `ggufkit machine` measured and remembered, the lower of them. Measured means
  read by all cores; it stands for a theoretical bandwidth of 1/0.85 of it, which is a rule of our own.
- **IQ1 to IQ3 quants on CPUs**: where a quarter or more of the weights that a token uses is in such types,
  the low end is 0.6 of what it would be. Weak evidence; `cpu_xeon` has it in its efficiency, which is that
  of one such run.
- **A part on GPUs** (`--vram`): the time of the part in RAM, by its CPU family, plus that of the part on
  GPUs, by theirs. A rule that was fitted on none of the runs with the experts in RAM: of R1 at Q4_K_M it
  says 9.5, 16.2 and 6.7 tokens/s where 8.73, 14 and 6.5 were measured, each in the range; of gpt-oss-120b
  on a Threadripper 46 where 25 was measured, out of it. The memory of an unknown GPU is taken to be
  between a P106-100's and an RTX 4090's.
- **From the SSD**: the missing share of the weights a token uses, at the speed that `ggufkit machine
  --disk FILE` measured, or `--disk-speed` (2 GB/s when nobody says: a guess). Low end: twice as much, or,
  of a model without experts, all of the weights, since a cache that drops the oldest first has then
  dropped what comes next; high end: half as much. Rules of our own, held against one run: Q2_K_L of R1 in
  256 GB with the Ollama of early 2025, told to do 1 to 2 tokens/s on an SSD that nobody names: `fit` says
  0.3 to 1.1.
- **Basis**: `formula` from the table above; `calibrated` by one run on this machine (`--calibrate`);
  `measured here` for the model of that run itself, within 10 %.

## Point by point

GB are decimal, speeds tokens/s; predicted without the point.

| family | machine | model | GB a token | measured | predicted | range | in range |
|---|---|---|--:|--:|--:|---|---|
{points}
"""


def main() -> None:
    """Write both tables."""
    points = load_points()
    before, rest = CODE.read_text("utf-8").split(BEGIN)
    CODE.write_text(before + BEGIN + code_table(points) + END + rest.split(END)[1], "utf-8")
    DOCUMENT.write_text(document(points), "utf-8")
    n, median, worst, held = summary(judge(points))
    print(f"{n} points: median error {median:.1%}, worst {worst:.0%}, {held:.0%} in range")


if __name__ == "__main__":
    main()
