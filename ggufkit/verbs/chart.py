"""What `fit` found as a chart: rows with a bar of memory and a range of speed. Pure; `plot` draws it."""

from __future__ import annotations

from dataclasses import dataclass

from ggufkit.errors import printable
from ggufkit.fit.outlook import ModelSpeed
from ggufkit.fit.rig import Rig
from ggufkit.fit.verdict import Level
from ggufkit.verbs.fit import FitReport
from ggufkit.verbs.fit_machines import Comparison
from ggufkit.verbs.fit_repo import MachineFit, QuantFit, RepoFit

GIB = 1 << 30
MAX_LABEL = 34

LEVELS: dict[Level | None, str] = {
    "fits": "fits",
    "tight": "tight",
    "pages": "pages from the SSD",
    "no": "does not fit",
    "unknown": "unknown",
    None: "not judged",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the chart."""

    label: str
    """What it is of."""
    bar_gib: float | None
    """Length of the bar, GiB; None: no bar."""
    level: Level | None
    """The verdict, which gives the bar its colour."""
    note: str
    """What stands beside the bar."""
    speed: ModelSpeed | None
    """The range that is drawn."""
    marked: bool = False
    """Whether it is the best choice."""
    limit_gib: float | None = None
    """Where this row's own memory ends, GiB, when rows differ in that."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture in words."""

    title: str
    """What it shows."""
    subtitle: str
    """For which machine or model."""
    rows: tuple[Row, ...]
    """From top to bottom."""
    limit_gib: float | None
    """Where memory ends for all rows, GiB; None where rows differ."""
    footer: str
    """How the numbers were found."""


def chart_of(found: RepoFit | Comparison | FitReport) -> Chart:
    """Return the chart of quants, of machines, or of one model's contexts."""
    if isinstance(found, FitReport):
        return _contexts(found)
    if isinstance(found, Comparison):
        return _machines(found)
    return _quants(found, found.machines[0]) if len(found.machines) == 1 else _choices(found)


def _quants(fit: RepoFit, machine: MachineFit) -> Chart:
    rows = tuple(_quant(quant, marked=quant.name == machine.best) for quant in machine.quants)
    tokens = next((quant.context_tokens for quant in machine.quants if quant.context_tokens), None)
    with_tokens = f"with {tokens:,} tokens of context" if tokens else ""
    speeds = [quant.speed for quant in machine.quants]
    label = f"best choice: {machine.best}, " if machine.best else ""
    return Chart(
        title=_shown(f"{_name(fit)}: which quant fits?", 80),
        subtitle=_shown(f"{_rig(machine.rig)}, {with_tokens}; {label}{machine.reason}", 130),
        rows=rows,
        limit_gib=machine.rig.memory.ram_bytes / GIB,
        footer=_footer(speeds),
    )


def _quant(quant: QuantFit, *, marked: bool) -> Row:
    largest = quant.largest_context_tokens
    note = LEVELS[quant.level] if largest is None else f"up to {largest:,} tokens"
    n_bytes = quant.needed_bytes if quant.needed_bytes is not None else quant.file_bytes
    return Row(_shown(quant.name), n_bytes / GIB, quant.level, note, quant.speed, marked)


def _choices(fit: RepoFit) -> Chart:
    rows = []
    for machine in fit.machines:
        best = machine.best_quant
        rows.append(
            Row(
                label=_shown(machine.rig.name),
                bar_gib=None if best is None or best.needed_bytes is None else best.needed_bytes / GIB,
                level=best.level if best else None,
                note=_note(machine.rig, best.name if best else "none fits"),
                speed=best.speed if best else None,
                limit_gib=machine.rig.memory.ram_bytes / GIB,
            )
        )
    title = _shown(f"{_name(fit)}: the best quant for each machine", 80)
    tokens = [q.context_tokens for machine in fit.machines for q in machine.quants if q.context_tokens]
    subtitle = f"with {tokens[0]:,} tokens of context" if tokens else ""
    return Chart(title, subtitle, tuple(rows), None, _footer([row.speed for row in rows]))


def _machines(comparison: Comparison) -> Chart:
    rows = tuple(
        Row(
            label=_shown(one.rig.name),
            bar_gib=one.needed_bytes / GIB,
            level=one.level,
            note=_note(one.rig, LEVELS[one.level]),
            speed=one.speed,
            limit_gib=one.rig.memory.ram_bytes / GIB,
        )
        for one in comparison.machines
    )
    return Chart(
        title=_shown(f"{comparison.name}: which machine runs it?", 80),
        subtitle=f"with {comparison.context_tokens:,} tokens of context",
        rows=rows,
        limit_gib=None,
        footer=_footer([row.speed for row in rows]),
    )


def _contexts(report: FitReport) -> Chart:
    rows = tuple(
        Row(f"{row.context_tokens:,} tokens", row.total_bytes / GIB, row.level, LEVELS[row.level], None)
        for row in report.contexts
    )
    name = report.machine_name or f"{report.machine.ram_bytes / GIB:.0f} GiB of memory"
    title = _shown(f"{report.name}: how much context fits?", 80)
    return Chart(title, _shown(name, 130), rows, report.machine.ram_bytes / GIB, _footer([]))


def _name(fit: RepoFit) -> str:
    """Return the repo; of a folder only its name, as nobody else knows where it is."""
    return fit.name if fit.where else fit.name.replace("\\", "/").rstrip("/").rpartition("/")[2] or fit.name


def _rig(rig: Rig) -> str:
    memory = f"{rig.memory.ram_bytes / GIB:.0f} GiB"
    parts = [rig.profile, memory] if rig.profile else [memory]
    if rig.bandwidth is not None:
        parts.append(f"{rig.bandwidth.bytes_per_s / 1e9:.1f} GB/s")
    return ", ".join(parts)


def _note(rig: Rig, text: str) -> str:
    """Return `text` with the price and the power of the machine, where a source gives them."""
    parts = [text]
    if rig.price_cny is not None:
        parts.append(f"{rig.price_cny.value:,.0f} CNY")
    elif rig.price_usd is not None:
        parts.append(f"{rig.price_usd.value:,.0f} USD")
    if rig.power_w is not None:
        parts.append(f"{rig.power_w.value:g} W")
    return ", ".join(parts)


def range_text(speed: ModelSpeed) -> str:
    """Return a range of speeds with as many digits as mean something."""
    return " to ".join(
        f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
        for value in (speed.low_tokens_per_s, speed.high_tokens_per_s)
    )


def _footer(speeds: list[ModelSpeed | None]) -> str:
    basis = ", ".join(dict.fromkeys(speed.basis for speed in speeds if speed))
    told = f"; speeds: {basis}, from a full to an empty context, the dot likely" if basis else ""
    return f"ggufkit fit: memory from the files' headers{told}"


def _shown(text: str, most: int = MAX_LABEL) -> str:
    """Return `text` without control characters, its middle left out where it is too long."""
    text = printable(text)
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[head - most + 1 :]}"
