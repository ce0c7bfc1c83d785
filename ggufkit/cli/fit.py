"""`ggufkit fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.at_hand import model_headers
from ggufkit.cli.fit_gpus import gpu_options
from ggufkit.cli.fit_hosts import fit_over_hosts, host_option, refuse_beside_hosts
from ggufkit.cli.fit_options import machine_options
from ggufkit.cli.fit_text import no_room, show_report
from ggufkit.cli.params import model_argument, output_options, source_option
from ggufkit.cli.render import Out
from ggufkit.errors import UsageError

if TYPE_CHECKING:
    from ggufkit.fit.estimate import Offload
    from ggufkit.fit.profiles import Runtime, Wishes
    from ggufkit.fit.repack import Isa
    from ggufkit.fit.rig import Rig
    from ggufkit.verbs.fit import FitReport
    from ggufkit.verbs.fit_machines import Comparison
    from ggufkit.verbs.fit_repo import RepoFit
    from ggufkit.verbs.locate import LoadedModel
    from ggufkit.verbs.several import Several

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
@host_option
@click.option(
    "--isa",
    type=click.Choice(ISAS),
    help="The CPU's instruction set, by which weights are rearranged; left out, this CPU's.",
)
@click.option("--explain", is_flag=True, help="Print every term with its formula and its header keys.")
@click.option("--compare", is_flag=True, help="Ask llama-fit-params on the PATH for the same, and say both.")
@click.option("--check", is_flag=True, help="Exit with 8 when it does not fit in memory.")
@source_option
@output_options
def command(out: Out, **flags: Any) -> None:
    """Say whether a model fits this machine.

    \b
    Examples:
      ggufkit fit --ram 256G
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --ctx-size 32768 --cache-type-k q8_0 --cache-type-v q8_0
      ggufkit fit unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS --ram 192GiB --check
      ggufkit fit unsloth/DeepSeek-R1-GGUF --ram 256G --bandwidth 76.8G
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --ram 256G --vram 24G --vram 24G
      ggufkit fit --machine z440-1ch --machine z440-4ch --plot machines.png
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --calibrate 1.83
      ggufkit fit --ram 256G --runtime ollama@0.5 --explain
      ggufkit fit unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS --host box1=128G --host box2=128G

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
    given = _Flags(**flags)
    if given.hosts:
        _fit_over_hosts(out, given)
        return
    asked = _asked(out, given)
    several = None if given.model is None else _several(out, given.model, given.source)
    if several is not None or len(asked.rigs) > 1:
        _check_for_one(asked)
    if several is not None:
        _fit_several(out, several, asked, given.min_speed)
    else:
        _fit_one(out, given.model, given.source, asked)


@dataclass(frozen=True, slots=True)
class _Flags:
    """What was typed, by the names that Click gives it."""

    model: str | None
    source: str
    ram: int | None
    machines: tuple[str, ...]
    hosts: tuple[tuple[str, int], ...]
    bandwidth: int | None
    gpu_bandwidth: int | None
    disk_speed: int | None
    ctx_size: int | None
    runtime: str | None
    parallel: int | None
    cache_type_k: str
    cache_type_v: str
    batch_size: int | None
    ubatch_size: int
    flash_attn: str
    kv_unified: bool
    swa_full: bool
    offload: Offload | None
    isa: Isa | None
    calibrate: str | None
    min_speed: float
    picture: Path | None
    force: bool
    check: bool
    explain: bool
    compare: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of one model, or of several."""

    rigs: tuple[Rig, ...]
    context_tokens: int | None
    wishes: Wishes
    runtime: Runtime | None
    calibrate: str | None
    check: bool
    explain: bool
    compare: bool
    draw: Callable[[RepoFit | Comparison | FitReport], None]


def _asked(out: Out, given: _Flags) -> _Asked:
    """Look up what the flags name: machines, a runtime, the place of the picture."""
    from ggufkit.verbs.placing import isa_for
    from ggufkit.verbs.rigs import find_rigs

    draw = _painter(out, given.picture, force=given.force)
    calibrate = _forgotten(given.calibrate)
    rigs = find_rigs(
        given.machines,
        ram_bytes=given.ram,
        bandwidth_bytes_per_s=given.bandwidth,
        gpu_bytes_per_s=given.gpu_bandwidth,
        disk_bytes_per_s=given.disk_speed,
        model=Path(given.model) if given.model and Path(given.model).exists() else None,
    )
    return _Asked(
        rigs=rigs,
        context_tokens=given.ctx_size,
        wishes=_wishes(given, given.isa or isa_for(rigs[0])),
        runtime=_runtime(given),
        calibrate=calibrate,
        check=given.check,
        explain=given.explain,
        compare=given.compare,
        draw=draw,
    )


def _fit_over_hosts(out: Out, given: _Flags) -> None:
    refuse_beside_hosts(
        {
            "--ram": given.ram,
            "--machine": given.machines,
            "--vram": given.offload,
            "--calibrate": given.calibrate,
            "--plot": given.picture,
            "--explain": given.explain,
            "--compare": given.compare,
        }
    )
    fit_over_hosts(
        out,
        given.model,
        given.source,
        given.hosts,
        context_tokens=given.ctx_size,
        wishes=_wishes(given, given.isa or "avx512"),  # the one that may keep the most copies
        runtime=_runtime(given),
        check=given.check,
    )


def _check_for_one(asked: _Asked) -> None:
    """Refuse, where there are several models or machines, what is for one."""
    if asked.calibrate is not None:
        raise UsageError("--calibrate is for one model on this machine", hint="name the quant that was run")
    if asked.compare:
        raise UsageError("--compare is for one model and one machine", hint="name one of them")


def _forgotten(calibrate: str | None) -> str | None:
    """Forget the run if that is what --calibrate asks for."""
    if calibrate != "off":
        return calibrate
    from ggufkit.verbs.calibrate import forget

    forget()
    return None


def _several(out: Out, model: str, source: str) -> Several | None:
    """Return the models of a repo or a folder, without the hubs' code where a file is meant."""
    if Path(model).is_file():
        return None
    from ggufkit.verbs.several import find_several

    return find_several(model, source=source, progress=out.progress())


def _fit_several(out: Out, several: Several, asked: _Asked, min_speed: float) -> None:
    from ggufkit.cli.fit_tables import show_repo
    from ggufkit.verbs.fit_repo import fit_repo

    fit = fit_repo(
        several,
        asked.rigs,
        context_tokens=asked.context_tokens,
        wishes=asked.wishes,
        runtime=asked.runtime,
        usable_tokens_per_s=min_speed,
        progress=out.progress(),
    )
    asked.draw(fit)
    show_repo(out, fit, check=asked.check)


def _fit_one(out: Out, model: str | None, source: str, asked: _Asked) -> None:
    from ggufkit.fit.profiles import settings_for

    loaded = model_headers(out, model, source)
    options: dict[str, Any] = {
        "name": loaded.name,
        "context_tokens": asked.context_tokens,
        "settings": settings_for(asked.wishes, asked.runtime),
        "runtime": asked.runtime,
    }
    if len(asked.rigs) > 1:
        _compare(out, loaded, asked, options)
        return
    report = _report(loaded, asked, options)
    asked.draw(report)
    show_report(out, report, explain=asked.explain)
    if asked.compare:
        from ggufkit.cli.fit_compare import show_llama

        show_llama(out, model, report)
    if asked.check and not report.verdict.in_memory:
        raise no_room(report)


def _report(loaded: LoadedModel, asked: _Asked, options: dict[str, Any]) -> FitReport:
    """Judge the model on one machine, once more when there is a run to learn from."""
    from ggufkit.verbs.fit import fit_model

    report = fit_model(loaded.headers, rig=asked.rigs[0], **options)
    if asked.calibrate is None:
        return report
    from ggufkit.verbs.calibrate import calibrate

    rig = calibrate(asked.rigs[0], loaded.headers, report, asked.calibrate)
    return fit_model(loaded.headers, rig=rig, **options)


def _compare(out: Out, loaded: LoadedModel, asked: _Asked, options: dict[str, Any]) -> None:
    from ggufkit.cli.fit_tables import show_comparison
    from ggufkit.verbs.fit_machines import compare_machines

    comparison = compare_machines(loaded.headers, asked.rigs, **options)
    asked.draw(comparison)
    show_comparison(out, comparison, check=asked.check)


def _painter(
    out: Out, picture: Path | None, *, force: bool
) -> Callable[[RepoFit | Comparison | FitReport], None]:
    """Return what draws the picture that was asked for, if one was; says at once if it can't be made."""
    if picture is None:
        return lambda found: None
    from ggufkit.verbs.plot import check_target, plot

    check_target(picture, force=force)
    return lambda found: out.say(f"picture: {plot(found, picture, force=force)}")


def _runtime(given: _Flags) -> Runtime | None:
    from ggufkit.fit.profiles import find_runtime

    return None if given.runtime is None else find_runtime(given.runtime)


def _wishes(given: _Flags, isa: Isa) -> Wishes:
    from ggufkit.fit.profiles import Wishes

    return Wishes(
        n_sequences=given.parallel,
        n_batch_tokens=given.batch_size,
        n_ubatch_tokens=given.ubatch_size,
        flash=None if given.flash_attn == "auto" else given.flash_attn == "on",
        unified=given.kv_unified,
        swa_full=given.swa_full,
        cache_type_k=given.cache_type_k,
        cache_type_v=given.cache_type_v,
        offload=given.offload,
        isa=isa,
    )
