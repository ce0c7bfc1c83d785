"""`ggufkit fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.fit_changes import change_lines
from ggufkit.cli.fit_gpus import device_lines, gpu_options, overfull_text
from ggufkit.cli.fit_options import machine_options
from ggufkit.cli.fit_tables import LEVELS, ORIGINS, SPEED_UNKNOWN, show_comparison, show_repo
from ggufkit.cli.inspect_text import parameters_text
from ggufkit.cli.params import model_argument, output_options, source_option
from ggufkit.cli.render import Out, count_text, gb_text, size_text, table
from ggufkit.cli.speed_text import speed_lines
from ggufkit.errors import NoSpaceError, UsageError, printable

if TYPE_CHECKING:
    from ggufkit.fit.estimate import Offload, Term
    from ggufkit.fit.profiles import Wishes
    from ggufkit.fit.repack import Isa
    from ggufkit.verbs.fit import FitReport
    from ggufkit.verbs.fit_machines import Comparison
    from ggufkit.verbs.fit_repo import RepoFit

CACHE_TYPES = ("f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "bf16")
CACHE_TYPE = click.Choice(CACHE_TYPES)
ISAS = ("avx512", "avx2", "amx", "neon", "none")


@click.command("fit", short_help="Say whether a model fits this machine.")
@model_argument
@machine_options
@click.option(
    "-c", "--ctx-size", type=click.IntRange(0), metavar="N", help="Tokens of context; 0: the model's own."
)
@click.option(
    "--runtime",
    metavar="NAME[@VERSION]",
    help="Use the defaults of llama-server, llama-bench, ollama or lmstudio, e.g. ollama@0.5.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Texts that are worked on at the same time; left out, the runtime's, else 1.",
)
@click.option("--cache-type-k", type=CACHE_TYPE, default="f16", show_default=True, help="Type of the keys.")
@click.option("--cache-type-v", type=CACHE_TYPE, default="f16", show_default=True, help="Type of the values.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1 << 20),
    metavar="N",
    help="Tokens that are handed over at once; left out, the runtime's, else 2,048.",
)
@click.option(
    "--ubatch-size",
    type=click.IntRange(1, 1 << 20),
    default=512,
    show_default=True,
    metavar="N",
    help="Tokens that are computed at once.",
)
@click.option(
    "--flash-attn",
    type=click.Choice(["on", "off", "auto"]),
    default="auto",
    show_default=True,
    help="Flash attention; auto: as the runtime has it, which llama.cpp has on.",
)
@click.option("--kv-unified", is_flag=True, help="One cache for all parallel texts.")
@click.option("--swa-full", is_flag=True, help="Sliding-window layers keep the whole context.")
@gpu_options
@click.option(
    "--isa",
    type=click.Choice(ISAS),
    help="The CPU's instruction set, by which weights are rearranged; left out, this CPU's.",
)
@click.option("--explain", is_flag=True, help="Print every term with its formula and its header keys.")
@click.option("--check", is_flag=True, help="Exit with 8 when it does not fit in memory.")
@source_option
@output_options
def command(
    out: Out,
    model: str | None,
    ram: int | None,
    machines: tuple[str, ...],
    bandwidth: int | None,
    gpu_bandwidth: int | None,
    disk_speed: int | None,
    ctx_size: int | None,
    runtime: str | None,
    calibrate: str | None,
    min_speed: float,
    picture: Path | None,
    force: bool,
    check: bool,
    explain: bool,
    source: str,
    isa: Isa | None,
    **wishes: Any,
) -> None:
    """Say whether a model fits this machine.

    \b
    Examples:
      ggufkit fit --ram 256G
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --ctx-size 32768 --cache-type-k q8_0 --cache-type-v q8_0
      ggufkit fit unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS --ram 192GiB --check
      ggufkit fit unsloth/DeepSeek-R1-GGUF --ram 256G --bandwidth 76.8G
      ggufkit fit --machine z440-1ch --machine z440-4ch --plot machines.png
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --calibrate 1.83
      ggufkit fit --ram 256G --runtime ollama@0.5 --explain

    Weights, KV cache and compute buffer are computed from the header, as llama.cpp has them in memory;
    --explain shows every term with its formula. MODEL may be a repo on a hub: only the headers are
    fetched. A repo without a quant, or a folder of several models, gives a table of them all, with the
    best choice: the one with the most bits a weight that fits and reaches --min-speed, though no more
    than Q8_0's. --ram 256G is 256 GiB, as memory is sold.

    Speed is a range: from the bytes that a token reads, and how fast memory gives them. That is known
    once ggufkit machine has measured it, or --bandwidth or --machine says it; one run on this machine,
    told with --calibrate, narrows it for all models to come.

    \b
    fits            and leaves what should be set aside
    tight           fits, but leaves less than it should to the system
    pages from SSD  the weights do not all stay in memory (mmap): each token reads from the SSD
    does not fit    what can't be read again, such as the KV cache, is too large

    -q prints fits, tight, pages, no or unknown. A part of the memory is set aside for the system, and
    shown; and for the compute buffer of architectures for which it is not or only roughly known.
    """
    from ggufkit.fit.profiles import find_runtime, settings_for
    from ggufkit.verbs.calibrate import FORGET, forget
    from ggufkit.verbs.calibrate import calibrate as learn
    from ggufkit.verbs.fit import fit_model
    from ggufkit.verbs.fit_machines import compare_machines
    from ggufkit.verbs.fit_repo import fit_repo
    from ggufkit.verbs.locate import load_headers
    from ggufkit.verbs.placing import isa_for
    from ggufkit.verbs.rigs import find_rigs
    from ggufkit.verbs.several import find_several

    if calibrate == FORGET:
        forget()
        calibrate = None
    draw = _painter(out, picture, force=force)
    rigs = find_rigs(
        machines,
        ram_bytes=ram,
        bandwidth_bytes_per_s=bandwidth,
        gpu_bytes_per_s=gpu_bandwidth,
        disk_bytes_per_s=disk_speed,
    )
    chosen = None if runtime is None else find_runtime(runtime)
    wished = _wishes(isa=isa or isa_for(rigs[0]), **wishes)
    several = find_several(model, source=source, progress=out.progress())
    if calibrate is not None and (several is not None or len(rigs) > 1):
        raise UsageError("--calibrate is for one model on this machine", hint="name the quant that was run")
    if several is not None:
        fit = fit_repo(
            several,
            rigs,
            context_tokens=ctx_size,
            wishes=wished,
            runtime=chosen,
            usable_tokens_per_s=min_speed,
            progress=out.progress(),
        )
        draw(fit)
        show_repo(out, fit, check=check)
        return
    loaded = load_headers(model, source=source, progress=out.progress())
    if model is None:
        out.say(f"model: {printable(loaded.where)}")
    options: dict[str, Any] = {
        "name": loaded.name,
        "context_tokens": ctx_size,
        "settings": settings_for(wished, chosen),
        "runtime": chosen,
    }
    if len(rigs) > 1:
        comparison = compare_machines(loaded.headers, rigs, **options)
        draw(comparison)
        show_comparison(out, comparison, check=check)
        return
    report = fit_model(loaded.headers, rig=rigs[0], **options)
    if calibrate is not None:
        rig = learn(rigs[0], loaded.headers, report, calibrate)
        report = fit_model(loaded.headers, rig=rig, **options)
    draw(report)
    _show(out, report, explain=explain)
    if check and not report.verdict.in_memory:
        raise _no_room(report)


def _painter(
    out: Out, picture: Path | None, *, force: bool
) -> Callable[[RepoFit | Comparison | FitReport], None]:
    """Return what draws the picture that was asked for, if one was; says at once if it can't be made."""
    from ggufkit.verbs.plot import check_target, plot

    if picture is not None:
        check_target(picture, force=force)

    def draw(found: RepoFit | Comparison | FitReport) -> None:
        if picture is not None:
            out.say(f"picture: {plot(found, picture, force=force)}")

    return draw


def _wishes(
    *,
    parallel: int | None,
    cache_type_k: str,
    cache_type_v: str,
    batch_size: int | None,
    ubatch_size: int,
    flash_attn: str,
    kv_unified: bool,
    swa_full: bool,
    offload: Offload | None,
    isa: Isa,
) -> Wishes:
    from ggufkit.fit.profiles import Wishes

    return Wishes(
        n_sequences=parallel,
        n_batch_tokens=batch_size,
        n_ubatch_tokens=ubatch_size,
        flash=None if flash_attn == "auto" else flash_attn == "on",
        unified=kv_unified,
        swa_full=swa_full,
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
        offload=offload,
        isa=isa,
    )


def _size(n_bytes: int | None) -> str:
    """Return a size in binary units with the decimal ones in brackets."""
    if n_bytes is None:
        return "?"
    return (
        gb_text(n_bytes) if n_bytes >= 1 << 30 else f"{n_bytes / (1 << 20):.1f} MiB ({n_bytes / 1e6:.1f} MB)"
    )


def _show(out: Out, report: FitReport, *, explain: bool) -> None:
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


def _no_room(report: FitReport) -> NoSpaceError:
    hint = report.advice[0] if report.advice else None
    name, level = report.name, LEVELS[report.verdict.level]
    needed, ram = _size(report.verdict.needed_bytes), _size(report.machine.ram_bytes)
    if report.verdict.level == "unknown":
        return NoSpaceError(printable(f"whether {name} fits is unknown: takes at least {needed} of {ram}"))
    taken = overfull_text(report) if report.verdict.short_gpus else f"takes {needed} of {ram}"
    return NoSpaceError(printable(f"{name} {level}: {taken}"), hint=hint)
