"""How llama.cpp is to be started with a model on this machine: planned from `fit`, written for many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import NoSpaceError, UsageError
from ggufkit.fit.cpus import Cpu
from ggufkit.fit.estimate import Offload
from ggufkit.fit.hosts import Host, HostsPlacement
from ggufkit.fit.machine import read_cpu, this_machine
from ggufkit.fit.profiles import Wishes, settings_for
from ggufkit.fit.verdict import Level
from ggufkit.gguf.model import model_info
from ggufkit.runtimes.llamacpp import (
    DIALECTS,
    NEW,
    PROGRAM,
    Deployment,
    Dialect,
    LoadMode,
    find_server,
    probe,
)
from ggufkit.runtimes.llamacpp_rpc import Endpoint, placement_flags, rpc_commands
from ggufkit.runtimes.llamacpp_targets import llama_swap_yaml, router_ini, shell_command, systemd_unit
from ggufkit.verbs.fit import FitReport, fit_model
from ggufkit.verbs.hosts import HostsFit, check_hosts, fit_hosts
from ggufkit.verbs.locate import LocalModel

Target = Literal["command", "systemd", "router", "llama-swap", "rpc"]
TARGETS: tuple[Target, ...] = ("command", "systemd", "router", "llama-swap", "rpc")

USUAL_CONTEXT_TOKENS = 8192
"""The context that is served unless another is asked for, or less fits: a thinking model's answer and its
question. llama-server's own default is the model's longest, 163,840 tokens for DeepSeek-R1."""
SHORT_CONTEXTS_TOKENS = (4096, 2048, 1024)
"""What is tried in place of that when a model is divided among machines and does not fit."""
HEAD = "this machine"
TIGHT = "it fits, but leaves less memory to the system than it should"


@dataclass(frozen=True, slots=True)
class ServeWishes:
    """What was asked for; None: what suits the model and the machine."""

    alias: str | None = None
    """What the API calls the model."""
    context_tokens: int | None = None
    """Tokens of context for each slot."""
    n_slots: int = 1
    """How many texts are worked on at the same time."""
    n_threads: int | None = None
    """Threads that compute."""
    load: LoadMode | None = None
    """How the weights come into memory."""
    cache_type_k: str = "f16"
    """Type of the cached keys."""
    cache_type_v: str = "f16"
    """Type of the cached values."""
    flash_attn: str = "auto"
    """`on`, `off` or `auto`."""
    placement: tuple[tuple[str, str | None], ...] = ()
    """Flags for GPUs, passed on as they are."""
    offload: Offload | None = None
    """GPUs whose memory is known: what goes there is planned, in place of `placement`."""
    workers: tuple[Host, ...] = ()
    """Other machines that are to have a part of the model; their names are their addresses."""
    n_worker_threads: int | None = None
    """Threads that compute on each worker; None: as many as ggml-rpc-server takes, half of its CPUs."""
    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 8080
    """The port to listen at."""
    user: str | None = None
    """The user that a systemd service runs as; None: one of the user's own services."""


@dataclass(frozen=True, slots=True)
class ServePlan:
    """A model as it is to be served, and by what."""

    server: str
    """The program: its path, or only its name when it isn't on this machine."""
    dialect: Dialect
    """The flags that it knows."""
    dialect_from: Literal["probed", "asked", "assumed"]
    """Who says so: the program itself, the user, or nobody."""
    deployment: Deployment
    """What it is told."""
    level: Level
    """Whether the model fits this machine, as `fit` has it."""
    needed_bytes: int
    """What the model takes of this machine's memory."""
    longest_context_tokens: int | None
    """The longest context with which it fits; None when that is not known, as with workers."""
    user: str | None
    """The user that a systemd service runs as."""
    hosts: HostsPlacement | None
    """What each machine has of it, this one first; None without workers."""
    workers: tuple[Endpoint, ...]
    """Where the workers listen."""
    n_worker_threads: int | None
    """Threads that compute on each worker."""
    warnings: tuple[str, ...]
    """What to know before it is started."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What `fit` says of a model, on one machine or on several."""

    level: Level
    needed_bytes: int
    context_tokens: int
    longest_context_tokens: int | None
    placement: tuple[tuple[str, str | None], ...]
    hosts: HostsPlacement | None
    warnings: tuple[str, ...]


def plan_serving(
    model: LocalModel,
    wishes: ServeWishes | None = None,
    *,
    server: Path | None = None,
    dialect: str | None = None,
    ram_bytes: int | None = None,
    root: Path = Path("/"),
) -> ServePlan:
    """Decide how `model` is served on this machine (whose files lie below `root`), or one with `ram_bytes`.

    `server` is the llama-server to be asked for its flags (else the one on the PATH), `dialect` (`new`,
    `old`) spares asking. Raises NotFoundError, FormatError, UsageError, ToolError when the program does not
    answer, and NoSpaceError when the model can't run in this memory at all.
    """
    asked = wishes or ServeWishes()
    _check_host(asked.host)
    hosts = (Host(HEAD, ram_bytes or this_machine(root).ram_bytes), *asked.workers)
    workers = check_hosts(hosts) if asked.workers else ()
    found = find_server(server)
    spoken, who = _dialect(found, dialect)
    judged = _fit_hosts(model, asked, hosts) if workers else _fit_here(model, asked, ram_bytes)
    deployment = _deployment(model, asked, judged, read_cpu(root))
    return ServePlan(
        server=str(found or PROGRAM),
        dialect=spoken,
        dialect_from=who,
        deployment=deployment,
        level=judged.level,
        needed_bytes=judged.needed_bytes,
        longest_context_tokens=judged.longest_context_tokens,
        user=asked.user,
        hosts=judged.hosts,
        workers=workers,
        n_worker_threads=asked.n_worker_threads,
        warnings=(*judged.warnings, *_warnings(judged.level, deployment, spoken, who)),
    )


def _deployment(model: LocalModel, asked: ServeWishes, judged: _Judged, cpu: Cpu) -> Deployment:
    """Say how the model is run: as asked, and where nothing was asked as this machine and model want it."""
    return Deployment(
        alias=asked.alias or model.name,
        model=_plain(model.files[0]),
        context_tokens=judged.context_tokens,
        n_slots=asked.n_slots,
        n_threads=asked.n_threads or cpu.n_cores,
        numa=(cpu.n_numa_nodes or 1) > 1,
        load=asked.load or "mmap",
        repack=judged.level != "pages",
        cache_type_k=asked.cache_type_k,
        cache_type_v=asked.cache_type_v,
        flash_attn="on" if asked.cache_type_v != "f16" and asked.flash_attn == "auto" else asked.flash_attn,
        placement=judged.placement,
        host=asked.host,
        port=asked.port,
    )


def serve_config(plan: ServePlan, target: Target) -> str:
    """Return the plan as `target` reads it.

    Raises ToolError for a router that this build can't be, and UsageError for workers without `rpc`, or `rpc`
    without workers.
    """
    from ggufkit.errors import ToolError

    check_target(target, has_workers=bool(plan.workers))
    if target == "router":
        if not plan.dialect.router:
            raise ToolError("this llama-server is no router", hint="--target llama-swap, or a newer build")
        return router_ini(plan.deployment, plan.dialect)
    if target == "systemd":
        return systemd_unit(plan.server, plan.deployment, plan.dialect, plan.user)
    if target == "llama-swap":
        return llama_swap_yaml(plan.server, plan.deployment, plan.dialect)
    if plan.hosts is not None:
        commands = shell_command(plan.server, plan.deployment, plan.dialect)
        return rpc_commands(commands, plan.workers, plan.hosts, plan.n_worker_threads)
    return shell_command(plan.server, plan.deployment, plan.dialect) + "\n"


def _check_host(host: str) -> None:
    """Refuse what is no address and no name, before it gets into a file."""
    if not re.fullmatch(r"[0-9A-Za-z](?:[0-9A-Za-z._-]*)|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", host):
        raise UsageError(f"--host {host!r} is no address", hint="127.0.0.1, or 0.0.0.0 for all networks")


def check_target(target: Target, *, has_workers: bool) -> None:
    """Raise UsageError for workers without the target `rpc`, or `rpc` without workers."""
    if (target == "rpc") != has_workers:
        message = "--target rpc and --worker belong together"
        raise UsageError(message, hint="--target rpc --worker 192.168.1.12=64G, once for each worker")


def _plain(path: Path) -> Path:
    """Return an absolute path without `..`; a link to a file keeps its name, by which shards are found."""
    return path.parent.resolve() / path.name if ".." in path.parts else path.absolute()


def _dialect(server: Path | None, asked: str | None) -> tuple[Dialect, Literal["probed", "asked", "assumed"]]:
    if asked is not None:
        return DIALECTS[asked], "asked"
    return (probe(server), "probed") if server is not None else (NEW, "assumed")


def _wishes(asked: ServeWishes) -> Wishes:
    return Wishes(
        n_sequences=asked.n_slots,
        flash=None if asked.flash_attn == "auto" else asked.flash_attn == "on",
        cache_type_k=asked.cache_type_k,
        cache_type_v=asked.cache_type_v,
        offload=asked.offload,
    )


def _fit_here(model: LocalModel, asked: ServeWishes, ram_bytes: int | None) -> _Judged:
    report = _fit(model, asked, ram_bytes)
    verdict = report.verdict
    planned = report.placement.llama_server if report.placement else ()
    return _Judged(
        level=verdict.level,
        needed_bytes=verdict.needed_bytes,
        context_tokens=report.estimate.context_tokens,
        longest_context_tokens=report.longest_context_tokens,
        placement=_pairs(planned) or asked.placement,
        hosts=None,
        warnings=tuple(_warnings_of_fit(report)),
    )


def _warnings_of_fit(report: FitReport) -> Iterator[str]:
    yield from report.warnings
    verdict = report.verdict
    if verdict.level == "pages":
        share = f"{verdict.weights_in_memory:.0%} of the weights stay in memory"
        yield f"{share}: the rest is read from the disk for each token"
    if verdict.short_gpus:
        yield f"less than 1 GiB stays free on {', '.join(verdict.short_gpus)}"
    elif verdict.level == "tight":
        yield TIGHT


def _fit(model: LocalModel, asked: ServeWishes, ram_bytes: int | None) -> FitReport:
    """Judge the model with the context asked for; else with the usual one, or the longest that fits."""
    headers, settings = model.headers(), settings_for(_wishes(asked))

    def at(tokens: int) -> FitReport:
        return fit_model(
            headers, name=model.name, ram_bytes=ram_bytes, context_tokens=tokens, settings=settings
        )

    if asked.context_tokens is not None:
        report = at(asked.context_tokens * asked.n_slots)
    else:
        report = at(USUAL_CONTEXT_TOKENS * asked.n_slots)
        longest = report.model.context_length_tokens or USUAL_CONTEXT_TOKENS
        best = min(report.longest_context_tokens or longest, longest * asked.n_slots)
        if best < report.estimate.context_tokens:
            report = at(best)
    if report.verdict.level == "no":
        raise _no_room(report)
    return report


def _pairs(flags: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    """Return flags and their values; those given several times once, with commas, as INI files need it."""
    found: dict[str, str | None] = {}
    for i, flag in enumerate(flags):
        if flag.startswith("--") and flag != "--ctx-size":
            name, after = flag[2:], flags[i + 1 : i + 2]
            value = after[0] if after and not after[0].startswith("--") else None
            found[name] = f"{found[name]},{value}" if name in found else value
    return tuple(found.items())


def _fit_hosts(model: LocalModel, asked: ServeWishes, hosts: tuple[Host, ...]) -> _Judged:
    """Judge the model on all machines, with the usual context or the longest of some shorter ones."""
    if asked.offload is not None or asked.placement:
        raise UsageError("workers and GPUs together are not planned", hint="leave out --vram, -ngl and -ot")
    headers, settings = model.headers(), settings_for(_wishes(asked))
    longest = model_info(headers).context_length_tokens or USUAL_CONTEXT_TOKENS
    usual = [min(tokens, longest) for tokens in (USUAL_CONTEXT_TOKENS, *SHORT_CONTEXTS_TOKENS)]
    for tokens in [asked.context_tokens] if asked.context_tokens else usual:
        context = tokens * asked.n_slots
        found = fit_hosts(headers, hosts, name=model.name, context_tokens=context, settings=settings)
        if found.placement.level != "no":
            break
    else:
        raise _no_room_on(found)
    placement = found.placement
    return _Judged(
        level=placement.level,
        needed_bytes=placement.shares[0].total_bytes,
        context_tokens=placement.estimate.context_tokens,
        longest_context_tokens=None,
        placement=placement_flags(check_hosts(hosts), placement),
        hosts=placement,
        warnings=(*found.warnings, *((TIGHT,) if placement.level == "tight" else ())),
    )


def _no_room_on(found: HostsFit) -> NoSpaceError:
    need = found.placement.estimate.total_bytes / 2**30
    names = ", ".join(share.name for share in found.placement.shares if share.left_bytes < 0)
    message = f"{found.name} takes {need:.1f} GiB, for which there is too little memory on {names}"
    return NoSpaceError(message, hint="another --worker; ggufkit fit --host shows what each would have")


def _no_room(report: FitReport) -> NoSpaceError:
    if report.verdict.short_gpus:
        message = f"{report.name} leaves too little free on {', '.join(report.verdict.short_gpus)}"
        return NoSpaceError(message, hint="-ngl auto puts there what fits")
    need, have = report.verdict.needed_bytes / 2**30, report.machine.ram_bytes / 2**30
    message = f"{report.name} takes {need:.1f} GiB, which does not fit {have:.1f} GiB of memory"
    return NoSpaceError(message, hint="ggufkit fit says what would")


def _warnings(level: Level, deployment: Deployment, dialect: Dialect, who: str) -> Iterator[str]:
    if level == "pages" and deployment.load != "mmap":
        yield f"--load-mode {deployment.load} needs all of the weights in memory: it will fail or swap"
    if deployment.load == "mlock":
        yield "mlock needs a memlock limit of the model's size (ulimit -l; a systemd unit gets it)"
    if deployment.numa:
        yield "several NUMA nodes: drop the page cache before the first start, so that pages spread"
    if deployment.host not in ("127.0.0.1", "::1", "localhost"):
        yield "everybody who reaches this address may use the model: llama-server asks for no key by itself"
    if any(name == "rpc" for name, _ in deployment.placement) and not dialect.load_mode:
        yield "builds before October 2025 do not know --device RPC0: leave it out there"
    if who == "assumed":
        yield "no llama-server on the PATH: the flags are for builds since July 2026 (--dialect old: before)"
