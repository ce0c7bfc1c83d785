"""What `ggufkit fit` prints of one model on one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.fit_changes import change_lines
from ggufkit.cli.fit_gpus import device_lines, overfull_text
from ggufkit.cli.fit_tables import LEVELS, ORIGINS, SPEED_UNKNOWN
from ggufkit.cli.inspect_text import parameters_text
from ggufkit.cli.render import Out, count_text, gb_text, size_text, table
from ggufkit.cli.speed_text import speed_lines
from ggufkit.errors import NoSpaceError, printable

if TYPE_CHECKING:
    from ggufkit.fit.estimate import Term
    from ggufkit.verbs.fit import FitReport


def _size(n_bytes: int | None) -> str:
    """Return a size in binary units with the decimal ones in brackets."""
    if n_bytes is None:
        return "?"
    return (
        gb_text(n_bytes) if n_bytes >= 1 << 30 else f"{n_bytes / (1 << 20):.1f} MiB ({n_bytes / 1e6:.1f} MB)"
    )


def show_report(out: Out, report: FitReport, *, explain: bool) -> None:
    """Print whether a model fits, and why, or --json; `explain` prints every term in full."""
    for warning in report.warnings:
        out.warn(warning)
    terms = ["", *_explained(report)] if explain else []
    gpus = device_lines(report.estimate, report.placement)
    parts = [_parts(report), *gpus, *_growth(report), *terms]
    text = "\n".join(
        [*_summary(report), "", *parts, "", _contexts(report), *_longest(report), *change_lines(report)]
    )
    out.result(report, text, quiet=[report.verdict.level])
    for term in report.estimate.terms:
        if term.keys:
            out.detail(f"{term.name}: from {', '.join(term.keys)}")


def _explained(report: FitReport) -> list[str]:
    """Return every term in full, what may grow, and what the compute buffer is used for."""
    lines = []
    for term in (*report.estimate.terms, *report.estimate.may_grow):
        lines += _term_lines(term, later=term in report.estimate.may_grow)
        if term.name == "compute buffer":
            lines += [f"  {name}: {n_bytes:,} bytes" for name, n_bytes in report.estimate.phases]
    return lines


def _term_lines(term: Term, *, later: bool) -> list[str]:
    n_bytes = "unknown" if term.n_bytes is None else f"{'up to ' if later else ''}{term.n_bytes:,} bytes"
    lines = [f"{term.name}{', later' if later else ''}: {n_bytes} ({term.certainty})"]
    lines.append(f"  {printable(term.formula)}")
    return [*lines, f"  from {printable(', '.join(term.keys))}"] if term.keys else lines


def _summary(report: FitReport) -> list[str]:
    info, machine = report.model, report.machine
    what = f"{info.architecture or 'unknown architecture'}, {parameters_text(info.n_parameters)} parameters"
    files = f"{count_text(report.n_files, 'file')} of {_size(report.file_bytes)}"
    return [
        printable(f"{report.name}: {what}, {files}"),
        f"memory: {_size(machine.ram_bytes)}, {report.machine_name or ORIGINS[machine.source]}",
        _verdict(report),
        *_speed(report),
    ]


def _speed(report: FitReport) -> list[str]:
    if report.speed is not None:
        return speed_lines(report.speed)
    if report.verdict.level in ("no", "unknown"):
        return []
    return [f"speed: {SPEED_UNKNOWN}"]


def _verdict(report: FitReport) -> str:
    verdict = report.verdict
    at_least = "at least " if report.estimate.kept_bytes is None else ""
    context = f"{report.estimate.context_tokens:,} tokens of context"
    if report.estimate.settings.n_sequences > 1:
        context += f" for {report.estimate.settings.n_sequences} texts together"
    if report.context_is_default:
        whose = "the default" if report.runtime is None else f"the default of {report.runtime}"
        context += f" ({whose}; --ctx-size for another)"
    text = f"{LEVELS[verdict.level]}: takes {at_least}{_size(verdict.needed_bytes)} with {context}"
    if verdict.short_gpus:
        text += f"; {overfull_text(report)}"
    elif verdict.level == "pages":
        text += f"; {verdict.weights_in_memory:.0%} of the weights stay in memory"
    return text


def _parts(report: FitReport) -> str:
    estimate, reserve, left = report.estimate, report.reserve, report.verdict.left_bytes
    rows: list[tuple[str, str, str, str]] = [
        (term.name, _size(term.n_bytes), term.certainty, term.formula) for term in estimate.terms
    ]
    parts = {"kernel": reserve.kernel_bytes, "system": reserve.system_bytes}
    parts["compute buffers"] = reserve.compute_bytes
    aside = ", ".join(f"{name} {size_text(n_bytes)}" for name, n_bytes in parts.items() if n_bytes)
    if report.placement is not None:
        rows.append(("on all devices", _size(estimate.total_bytes), "", ""))
    rows += [
        ("total", _size(report.verdict.needed_bytes), "", "in RAM" if report.placement else ""),
        ("set aside", _size(reserve.total_bytes), "rule", aside),
        ("left" if left >= 0 else "short", _size(abs(left)), "", ""),
    ]
    return table(("PART", "SIZE", "CERTAINTY", "HOW"), rows, right=[1])


def _growth(report: FitReport) -> list[str]:
    grows = [f"{term.name} up to {_size(term.n_bytes)}" for term in report.estimate.may_grow]
    return [f"may grow later, not counted: {', '.join(grows)}"] if grows else []


def _contexts(report: FitReport) -> str:
    rows = [
        (f"{row.context_tokens:,}", _size(row.cache_bytes), _size(row.total_bytes), LEVELS[row.level])
        for row in report.contexts
    ]
    return table(("CONTEXT", "KV CACHE", "TOTAL", "VERDICT"), rows, right=[0, 1, 2])


def _longest(report: FitReport) -> list[str]:
    lines = []
    per_token = report.estimate.kv_bytes_per_token
    if per_token:
        lines.append(f"a token of context takes {per_token:,} bytes")
    if report.longest_context_tokens is not None:
        lines.append(f"the longest context that fits: {report.longest_context_tokens:,} tokens")
    return ["", "; ".join(lines)] if lines else []


def no_room(report: FitReport) -> NoSpaceError:
    """Return the error for a model that --check does not let pass."""
    hint = report.advice[0] if report.advice else None
    name, level = report.name, LEVELS[report.verdict.level]
    needed, ram = _size(report.verdict.needed_bytes), _size(report.machine.ram_bytes)
    if report.verdict.level == "unknown":
        return NoSpaceError(printable(f"whether {name} fits is unknown: takes at least {needed} of {ram}"))
    taken = overfull_text(report) if report.verdict.short_gpus else f"takes {needed} of {ram}"
    return NoSpaceError(printable(f"{name} {level}: {taken}"), hint=hint)
