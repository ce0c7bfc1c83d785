"""What `ggufkit fit` prints of several quants, and of several machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.render import Out, count_text, gb_text, size_text, table
from ggufkit.cli.speed_text import BANDWIDTH_SOURCES, number_text, price_text, range_text
from ggufkit.errors import NoSpaceError, printable

if TYPE_CHECKING:
    from ggufkit.fit.rig import Rig
    from ggufkit.fit.verdict import Level
    from ggufkit.verbs.fit_machines import Comparison
    from ggufkit.verbs.fit_repo import MachineFit, QuantFit, RepoFit

LEVELS: dict[Level, str] = {
    "fits": "fits",
    "tight": "tight",
    "pages": "pages from SSD",
    "no": "does not fit",
    "unknown": "unknown",
}
ORIGINS = {"given": "given", "system": "this machine's", "control group": "this control group's limit"}
SPEED_UNKNOWN = "unknown until ggufkit machine has measured this one; or say --bandwidth or --machine"


DEFAULT_CONTEXT = "(the default context; --ctx-size for another)"


def show_repo(out: Out, fit: RepoFit, *, check: bool) -> None:
    """Print the quants for a machine, or the best one for each, or --json.

    `check` raises NoSpaceError for the first machine that none fits.
    """
    where = f" on {fit.where}" if fit.where else ""
    n_models = count_text(len(fit.machines[0].quants), "model")
    lines = [printable(f"{fit.name}{where}: {n_models}")]
    lines += _quants(fit.machines[0]) if len(fit.machines) == 1 else ["", _choices(fit)]
    if fit.context_is_default:
        lines.append(DEFAULT_CONTEXT)
    out.result(fit, "\n".join(lines), quiet=[machine.best or "none" for machine in fit.machines])
    best = {machine.best for machine in fit.machines if machine.best}
    if fit.where and len(best) == 1:
        (name,) = best
        out.hint(f"next: ggufkit fit {fit.name}:{name}, ggufkit pull {fit.name} --quant {name}")
    homeless = [machine for machine in fit.machines if machine.best is None]
    if check and homeless:
        raise NoSpaceError(printable(f"{fit.name} on {homeless[0].rig.name}: {homeless[0].reason}"))


def show_comparison(out: Out, comparison: Comparison, *, check: bool) -> None:
    """Print what a model does on each machine, or --json; `check` raises NoSpaceError for one it is too
    large for.
    """
    for warning in comparison.warnings:
        out.warn(warning)
    rows = [
        (
            one.rig.name,
            gb_text(one.rig.memory.ram_bytes),
            LEVELS[one.level],
            "-" if one.longest_context_tokens is None else f"{one.longest_context_tokens:,}",
            "-" if one.level == "no" else range_text(one.speed),
            "" if one.speed is None else number_text(one.speed.tokens_per_s),
            *_costs(one.rig),
        )
        for one in comparison.machines
    ]
    headers = ("MACHINE", "MEMORY", "VERDICT", "LONGEST", "TOKENS/S", "LIKELY", "PRICE", "POWER")
    tokens = f"{comparison.context_tokens:,} tokens of context"
    takes = gb_text(comparison.machines[0].needed_bytes)
    title = printable(f"{comparison.name}: takes {takes} with {tokens}")
    lines = [title, "", table(headers, rows, right=[1, 3, 4, 5, 6, 7])]
    if comparison.context_is_default:
        lines += ["", DEFAULT_CONTEXT]
    out.result(comparison, "\n".join(lines), quiet=[one.level for one in comparison.machines])
    large = [one for one in comparison.machines if one.level not in ("fits", "tight")]
    if check and large:
        raise NoSpaceError(printable(f"{comparison.name} {LEVELS[large[0].level]} on {large[0].rig.name}"))


def _choices(fit: RepoFit) -> str:
    """Return the best choice for each machine as a table."""
    rows = []
    for machine in fit.machines:
        best = machine.best_quant
        largest = best.largest_context_tokens if best else None
        rows.append(
            (
                machine.rig.name,
                gb_text(machine.rig.memory.ram_bytes),
                best.name if best else "none fits",
                "" if best is None else gb_text(best.file_bytes),
                "" if largest is None else f"{largest:,}",
                "" if best is None else range_text(best.speed),
                *_costs(machine.rig),
            )
        )
    headers = ("MACHINE", "MEMORY", "BEST CHOICE", "SIZE", "FITS WITH", "TOKENS/S", "PRICE", "POWER")
    return table(headers, rows, right=[1, 3, 4, 5, 6, 7]) + "\n"


def _costs(rig: Rig) -> tuple[str, str]:
    power = "" if rig.power_w is None else f"{rig.power_w.value:g} W"
    return price_text(rig.price_cny, rig.price_usd), power


def _quants(machine: MachineFit) -> list[str]:
    memory = machine.rig.memory
    origin = machine.rig.profile or ORIGINS[memory.source]
    rows = [_row(quant, machine) for quant in machine.quants]
    headers = ("QUANT", "SIZE", "BITS", f"WITH {_context(machine)}", "VERDICT", "FITS WITH", "TOKENS/S", "")
    label = f"best choice: {machine.best}, " if machine.best else ""
    return [
        f"memory: {gb_text(memory.ram_bytes)}, {origin}",
        *_speed_basis(machine),
        "",
        table(headers, rows, right=[1, 2, 3, 5, 6]),
        "",
        printable(label + machine.reason),
    ]


def _context(machine: MachineFit) -> str:
    tokens = {quant.context_tokens for quant in machine.quants if quant.context_tokens}
    return f"{tokens.pop():,}" if len(tokens) == 1 else "CONTEXT"


def _speed_basis(machine: MachineFit) -> list[str]:
    speeds = [quant.speed for quant in machine.quants if quant.speed]
    if not speeds:
        runs = any(quant.level in ("fits", "tight", "pages") for quant in machine.quants)
        return [f"speed: {SPEED_UNKNOWN}"] if runs else []
    first = speeds[0]
    source = BANDWIDTH_SOURCES[first.bandwidth.source]
    lines = [f"bandwidth: {first.bandwidth.bytes_per_s / 1e9:.1f} GB/s, {source}; speeds: {first.basis}"]
    notes = dict.fromkeys(note for speed in speeds for note in speed.notes)
    return lines + [f"  {note}" for note in notes]


def _row(quant: QuantFit, machine: MachineFit) -> tuple[str, ...]:
    size = gb_text(quant.file_bytes)
    if quant.problem is not None or quant.level is None:
        return quant.name, size, "", "", "not judged", "", "", quant.problem or ""
    largest = quant.largest_context_tokens
    return (
        quant.name,
        size,
        "?" if quant.bits_per_weight is None else f"{quant.bits_per_weight:.2f}",
        "?" if quant.needed_bytes is None else size_text(quant.needed_bytes),
        LEVELS[quant.level],
        "-" if largest is None else f"{largest:,}",
        "-" if quant.level == "no" else range_text(quant.speed),
        "<- best choice" if quant.name == machine.best else "",
    )
