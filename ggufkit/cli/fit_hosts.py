"""What `ggufkit fit --host` asks for and prints: a model over several machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.at_hand import model_headers
from ggufkit.cli.fit_tables import LEVELS
from ggufkit.cli.params import MEMORY_SIZE
from ggufkit.cli.render import Out, count_text, gb_text, size_text, table
from ggufkit.errors import NoSpaceError, UsageError, printable

if TYPE_CHECKING:
    from ggufkit.fit.hosts import HostShare
    from ggufkit.fit.profiles import Runtime, Wishes
    from ggufkit.verbs.hosts import HostsFit


class HostSize(click.ParamType[tuple[str, int]]):
    """A machine and its memory: `box2=64G`."""

    name = "host"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the machine's name and its memory in bytes."""
        if isinstance(value, tuple):
            return value
        name, mark, size = str(value).rpartition("=")
        if not mark or not name:
            self.fail(f"{value!r} is no machine with its memory; write it like box2=64G", param, ctx)
        return name, MEMORY_SIZE.convert(size, param, ctx)


host_option = click.option(
    "--host",
    "hosts",
    type=HostSize(),
    multiple=True,
    metavar="NAME=SIZE",
    help="Divide MODEL among machines (llama.cpp's RPC), e.g. box1=64G; the first has the file.",
)


def refuse_beside_hosts(given: Mapping[str, object]) -> None:
    """Raise UsageError for flags that say nothing of several machines, by their names."""
    flag = next((name for name, value in given.items() if value), None)
    if flag is not None:
        raise UsageError(f"{flag} does not go with --host", hint="each --host names its memory")


def fit_over_hosts(
    out: Out,
    model: str | None,
    source: str,
    hosts: Sequence[tuple[str, int]],
    *,
    context_tokens: int | None,
    wishes: Wishes,
    runtime: Runtime | None,
    check: bool,
) -> None:
    """Plan the model over the machines, and print the plan."""
    from ggufkit.fit.hosts import Host
    from ggufkit.fit.profiles import settings_for
    from ggufkit.verbs.hosts import check_hosts, fit_hosts

    machines = tuple(Host(name, n_bytes) for name, n_bytes in hosts)
    check_hosts(machines)
    loaded = model_headers(out, model, source)
    found = fit_hosts(
        loaded.headers,
        machines,
        name=loaded.name,
        context_tokens=context_tokens,
        settings=settings_for(wishes, runtime),
        runtime=runtime,
    )
    for warning in found.warnings:
        out.warn(warning)
    out.result(found, "\n".join(_lines(found)), quiet=[found.placement.level])
    if found.placement.level in ("fits", "tight"):
        out.hint(f"next: {_next_step(model, found)}")
    elif check:
        hint = "another --host, or a smaller quant"
        raise NoSpaceError(printable(f"{found.name} {_short(found)}"), hint=hint)


def _next_step(model: str | None, found: HostsFit) -> str:
    from ggufkit.hubs.refs import is_ref

    remote = model is not None and is_ref(model)
    words = ["ggufkit serve-config", *([] if model is None or remote else [model]), "--target rpc"]
    head, *workers = found.placement.shares
    settings = found.placement.estimate.settings
    if not found.context_is_default and settings.n_sequences == 1:
        words.append(f"--ctx-size {settings.context_tokens}")
    words.append(f"--ram {_sold(head)}")
    command = " ".join([*words, *(f"--worker {share.name}={_sold(share)}" for share in workers)])
    return f"ggufkit pull {model} on {head.name}, then {command}" if remote else command


def _sold(share: HostShare) -> str:
    gib, rest = divmod(share.ram_bytes, 1 << 30)
    return str(share.ram_bytes) if rest else f"{gib}G"


def _lines(found: HostsFit) -> list[str]:
    placement = found.placement
    files = f"{count_text(found.n_files, 'file')} of {gb_text(found.file_bytes)}"
    context = f"{placement.estimate.context_tokens:,} tokens of context"
    if found.context_is_default:
        context += " (the default; --ctx-size for another)"
    takes = f"takes {gb_text(placement.estimate.total_bytes)} with {context}"
    lines = [printable(f"{found.name}: {files}"), f"{_level(found)}: {takes}", ""]
    lines.append(host_table(placement.shares))
    if placement.level == "no":
        return lines
    sent, minutes = gb_text(placement.shipped_bytes), found.load_s / 60
    load = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{max(found.load_s, 1):.0f} s"
    return [
        *lines,
        f"{placement.n_gpu_layers} of {placement.n_layers} layers on workers",
        f"loading sends {sent} over the network: {load} at 1 Gbit/s; workers keep it on their disks",
        f"llama-server: {printable(' '.join(found.flags))}",
    ]


def host_table(shares: Sequence[HostShare]) -> str:
    """Return a table of what each machine gets."""
    rows = []
    for share in shares:
        parts = (share.weights_bytes, share.kv_cache_bytes, share.compute_bytes)
        sizes = ["?" if n is None else size_text(n) for n in parts]
        left = size_text(share.left_bytes) if share.left_bytes >= 0 else f"-{size_text(-share.left_bytes)}"
        memory, total = gb_text(share.ram_bytes), gb_text(share.total_bytes)
        rows.append((share.name, memory, share.n_layers, *sizes, total, size_text(share.reserve_bytes), left))
    headers = ("HOST", "MEMORY", "LAYERS", "WEIGHTS", "KV CACHE", "COMPUTE", "TOTAL", "SET ASIDE", "LEFT")
    return table(headers, rows, right=range(1, 9))


def _level(found: HostsFit) -> str:
    level = found.placement.level
    return _short(found) if level == "no" else LEVELS[level]


def _short(found: HostsFit) -> str:
    if found.placement.level == "unknown":
        return "says too little of itself"
    names = ", ".join(share.name for share in found.placement.shares if share.left_bytes < 0)
    return f"{LEVELS['no']}, too little memory on {names}"
