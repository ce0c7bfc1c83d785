"""How llama.cpp is to be started with a model on this machine: planned from `fit`, written for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import NoSpaceError
from ggufkit.fit.machine import read_cpu
from ggufkit.fit.profiles import Wishes, settings_for
from ggufkit.fit.verdict import Level
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
from ggufkit.runtimes.llamacpp_targets import llama_swap_yaml, router_ini, shell_command, systemd_unit
from ggufkit.verbs.fit import FitReport, fit_model
from ggufkit.verbs.locate import LocalModel

Target = Literal["command", "systemd", "router", "llama-swap"]
TARGETS: tuple[Target, ...] = ("command", "systemd", "router", "llama-swap")

USUAL_CONTEXT_TOKENS = 8192
"""The context that is served unless another is asked for, or less fits: a thinking model's answer and its
question. llama-server's own default is the model's longest, 163,840 tokens for DeepSeek-R1."""


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
    placement: tuple[tuple[str, str], ...] = ()
    """Flags for GPUs, passed on as they are."""
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
    """What the model takes."""
    longest_context_tokens: int | None
    """The longest context with which it fits."""
    user: str | None
    """The user that a systemd service runs as."""
    warnings: tuple[str, ...]
    """What to know before it is started."""


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
    found = find_server(server)
    spoken, who = _dialect(found, dialect)
    report = _fit(model, asked, ram_bytes)
    cpu = read_cpu(root)
    several_nodes = (cpu.n_numa_nodes or 1) > 1
    deployment = Deployment(
        alias=asked.alias or model.name,
        model=model.files[0].absolute(),
        context_tokens=report.estimate.context_tokens,
        n_slots=asked.n_slots,
        n_threads=asked.n_threads or cpu.n_cores,
        numa=several_nodes,
        load=asked.load or "mmap",
        repack=report.verdict.level != "pages",
        cache_type_k=asked.cache_type_k,
        cache_type_v=asked.cache_type_v,
        flash_attn="on" if asked.cache_type_v != "f16" and asked.flash_attn == "auto" else asked.flash_attn,
        placement=asked.placement,
        host=asked.host,
        port=asked.port,
    )
    return ServePlan(
        server=str(found or PROGRAM),
        dialect=spoken,
        dialect_from=who,
        deployment=deployment,
        level=report.verdict.level,
        needed_bytes=report.verdict.needed_bytes,
        longest_context_tokens=report.longest_context_tokens,
        user=asked.user,
        warnings=tuple(_warnings(report, deployment, who)),
    )


def serve_config(plan: ServePlan, target: Target) -> str:
    """Return the plan as `target` reads it; raises ToolError for a router that this build can't be."""
    from ggufkit.errors import ToolError

    if target == "router":
        if not plan.dialect.router:
            raise ToolError("this llama-server is no router", hint="--target llama-swap, or a newer build")
        return router_ini(plan.deployment, plan.dialect)
    if target == "systemd":
        return systemd_unit(plan.server, plan.deployment, plan.dialect, plan.user)
    if target == "llama-swap":
        return llama_swap_yaml(plan.server, plan.deployment, plan.dialect)
    return shell_command(plan.server, plan.deployment, plan.dialect) + "\n"


def _dialect(server: Path | None, asked: str | None) -> tuple[Dialect, Literal["probed", "asked", "assumed"]]:
    if asked is not None:
        return DIALECTS[asked], "asked"
    return (probe(server), "probed") if server is not None else (NEW, "assumed")


def _fit(model: LocalModel, asked: ServeWishes, ram_bytes: int | None) -> FitReport:
    """Judge the model with the context asked for; else with the usual one, or the longest that fits."""
    headers = model.headers()
    flash = None if asked.flash_attn == "auto" else asked.flash_attn == "on"
    caches = Wishes(
        n_sequences=asked.n_slots,
        flash=flash,
        cache_type_k=asked.cache_type_k,
        cache_type_v=asked.cache_type_v,
    )

    def at(tokens: int) -> FitReport:
        return fit_model(
            headers,
            name=model.name,
            ram_bytes=ram_bytes,
            context_tokens=tokens,
            settings=settings_for(caches),
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


def _no_room(report: FitReport) -> NoSpaceError:
    need, have = report.verdict.needed_bytes / 2**30, report.machine.ram_bytes / 2**30
    message = f"{report.name} takes {need:.1f} GiB, which does not fit {have:.1f} GiB of memory"
    return NoSpaceError(message, hint="ggufkit fit says what would")


def _warnings(report: FitReport, deployment: Deployment, who: str) -> Iterator[str]:
    level = report.verdict.level
    if level == "pages":
        share = report.verdict.weights_in_memory
        yield f"{share:.0%} of the weights stay in memory: the rest is read from the disk for each token"
        if deployment.load != "mmap":
            yield f"--load-mode {deployment.load} needs all of the weights in memory: it will fail or swap"
    if level == "tight":
        yield "it fits, but leaves less memory to the system than it should"
    if deployment.load == "mlock":
        yield "mlock needs a memlock limit of the model's size (ulimit -l; a systemd unit gets it)"
    if deployment.numa:
        yield "several NUMA nodes: drop the page cache before the first start, so that pages spread"
    if deployment.host not in ("127.0.0.1", "::1", "localhost"):
        yield "everybody who reaches this address may use the model: llama-server asks for no key by itself"
    if who == "assumed":
        yield "no llama-server on the PATH: the flags are for builds since July 2026 (--dialect old: before)"
