"""`ggufkit serve-config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.at_hand import model_here
from ggufkit.cli.fit_gpus import ALL, AUTO, offload_of
from ggufkit.cli.fit_hosts import HostSize, host_table
from ggufkit.cli.params import MEMORY_SIZE, force_option, model_argument, output_options
from ggufkit.cli.render import Out, size_text
from ggufkit.errors import NotFoundError, TargetExistsError, UsageError

if TYPE_CHECKING:
    from ggufkit.fit.estimate import Offload
    from ggufkit.verbs.serve_config import ServePlan, ServeWishes, Target

CACHE_TYPE = click.Choice(["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])


@click.command("serve-config", short_help="Write how llama.cpp is to serve a model.")
@model_argument
@click.option(
    "--target",
    type=click.Choice(["command", "systemd", "router", "llama-swap", "rpc"]),
    default="command",
    show_default=True,
    help="Who reads it: a shell, systemd, llama-server's router, llama-swap, or several machines.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there; left out, it is printed.",
)
@click.option("-c", "--ctx-size", type=click.IntRange(1), metavar="N", help="Tokens of context of each slot.")
@click.option(
    "-np", "--parallel", type=click.IntRange(1, 256), default=1, show_default=True, help="Number of slots."
)
@click.option("-t", "--threads", type=click.IntRange(1), metavar="N", help="Left out: this machine's cores.")
@click.option("--cache-type-k", type=CACHE_TYPE, default="f16", show_default=True, help="Type of the keys.")
@click.option("--cache-type-v", type=CACHE_TYPE, default="f16", show_default=True, help="Type of the values.")
@click.option(
    "--flash-attn",
    type=click.Choice(["on", "off", "auto"]),
    default="auto",
    show_default=True,
    help="Flash attention; auto leaves it to llama.cpp.",
)
@click.option(
    "--load-mode",
    type=click.Choice(["mmap", "mlock", "none"]),
    help="Map the file (the default), map and lock it in memory, or read it.",
)
@click.option(
    "--vram",
    type=MEMORY_SIZE,
    multiple=True,
    metavar="SIZE",
    help="Memory of a GPU that is free for the model, once for each: what goes there is planned.",
)
@click.option("-ngl", "--n-gpu-layers", metavar="N", help="Layers on GPUs: a number, auto or all.")
@click.option(
    "-ncmoe", "--n-cpu-moe", type=click.IntRange(0), metavar="N", help="Keep experts of N layers in RAM."
)
@click.option("-ot", "--override-tensor", metavar="PATTERN=BUFFER", help="Put tensors elsewhere.")
@click.option(
    "--worker",
    "workers",
    type=HostSize(),
    multiple=True,
    metavar="ADDRESS=SIZE",
    help="rpc: another machine and its memory, e.g. 192.168.1.12=64G or box2:50052=64G; once for each.",
)
@click.option(
    "--worker-threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="rpc: threads of each worker; left out, half of its CPUs.",
)
@click.option("-a", "--alias", metavar="NAME", help="What the API calls it; left out, the file's name.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port.")
@click.option("--user", metavar="NAME", help="systemd: the user to run as; left out, a unit for your own.")
@click.option(
    "--ram", type=MEMORY_SIZE, metavar="SIZE", help="Memory of this machine; left out, what it has."
)
@click.option(
    "--llama-server",
    "server",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The build to write for; left out, the one on the PATH.",
)
@click.option(
    "--dialect",
    type=click.Choice(["new", "old"]),
    help="Don't ask the program: flags since July 2026, or before.",
)
@force_option
@output_options
def command(
    out: Out,
    model: str | None,
    target: Target,
    output: Path | None,
    server: Path | None,
    dialect: str | None,
    ram: int | None,
    force: bool,
    **wishes: Any,
) -> None:
    """Write how llama.cpp is to serve a model.

    \b
    Examples:
      ggufkit serve-config
      ggufkit serve-config DeepSeek-R1-GGUF --target systemd -o deepseek-r1.service
      ggufkit serve-config model.gguf --target router --ctx-size 32768 --cache-type-k q8_0
      ggufkit serve-config DeepSeek-R1-GGUF --vram 24G
      ggufkit serve-config DeepSeek-R1-GGUF --target rpc --worker 192.168.1.12=128G

    The model is judged as by fit: the context is 8,192 tokens, or what fits. The llama-server on the PATH is
    asked which flags it knows, since builds of July 2026 renamed those of loading. Shards need no
    merging: llama.cpp takes the first. With --vram, fit's placement on GPUs is written; without it, flags
    for GPUs are passed on. rpc divides the model among this machine, which has the file, and workers, and
    writes a command for each. Nothing is started and nothing installed.
    """
    from ggufkit.verbs.serve_config import check_target, plan_serving, serve_config

    _check_output(output, force)
    found = model_here(out, model)
    asked = _wishes(**wishes)
    check_target(target, has_workers=bool(asked.workers))
    plan = plan_serving(found, asked, server=server, dialect=dialect, ram_bytes=ram)
    text = serve_config(plan, target)
    for warning in plan.warnings:
        out.warn(warning)
    if plan.server == "llama-server" and target in ("systemd", "llama-swap"):
        out.warn("llama-server was not found here: put its whole path into what is written")
    if plan.hosts is not None:
        out.detail(host_table(plan.hosts.shares))
    out.detail(f"{plan.level}: takes {size_text(plan.needed_bytes)}; flags: {plan.dialect_from}")
    if output is None:
        out.result({"plan": plan, "text": text}, text.rstrip("\n"), quiet=[text.rstrip("\n")])
    else:
        _write(output, text)
        out.result({"plan": plan, "text": text}, f"{output}: written", quiet=[output])
    out.hint(f"next: {_next_step(plan, target, output)}")


def _wishes(
    *,
    ctx_size: int | None,
    parallel: int,
    threads: int | None,
    load_mode: Any,
    vram: tuple[int, ...],
    n_gpu_layers: str | None,
    n_cpu_moe: int | None,
    override_tensor: str | None,
    workers: tuple[tuple[str, int], ...],
    worker_threads: int | None,
    **same: Any,
) -> ServeWishes:
    from ggufkit.fit.hosts import Host
    from ggufkit.verbs.serve_config import ServeWishes

    layers = _layers(n_gpu_layers)
    flags = {"n-gpu-layers": n_gpu_layers, "n-cpu-moe": n_cpu_moe, "override-tensor": override_tensor}
    given = tuple((name, str(value)) for name, value in flags.items() if value is not None)
    return ServeWishes(
        context_tokens=ctx_size,
        n_slots=parallel,
        n_threads=threads,
        load=load_mode,
        placement=() if vram else given,
        offload=_offload(vram, layers, n_cpu_moe, override_tensor) if vram else None,
        workers=tuple(Host(name, n_bytes) for name, n_bytes in workers),
        n_worker_threads=worker_threads,
        **same,
    )


def _layers(text: str | None) -> int | None:
    """Read a number of layers, in `fit`'s terms."""
    if text is None or text in ("auto", "all"):
        return {None: None, "auto": AUTO, "all": ALL}[text]
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise UsageError(f"-ngl {text} is no number of layers", hint="write 40, all or auto")
    return int(text)


def _offload(
    vram: tuple[int, ...], n_gpu_layers: int | None, n_cpu_moe: int | None, override: str | None
) -> Offload | None:
    pattern, mark, buffer = (override or "").rpartition("=")
    if override and not (mark and pattern and buffer):
        raise UsageError(f"-ot {override} has no buffer", hint=r"write it like '\.ffn_.*_exps\.=CPU'")
    return offload_of(
        vram=vram,
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        cpu_moe=False,
        override_tensor=((pattern, buffer),) if override else (),
        tensor_split=None,
        no_kv_offload=False,
    )


def _check_output(output: Path | None, force: bool) -> None:
    if output is None:
        return
    if output.exists() and not force:
        raise TargetExistsError(f"{output} is there already", hint="--force overwrites it")
    if not output.parent.is_dir():
        raise NotFoundError(f"{output.parent}: no such folder", hint=f"mkdir -p {output.parent}")


def _write(output: Path, text: str) -> None:
    from ggufkit.transfer.disk import write_atomic

    write_atomic(output, text.encode())


def _next_step(plan: ServePlan, target: Target, output: Path | None) -> str:
    file = output.name if output else "FILE"
    folder = "/etc/systemd/system" if plan.user else "~/.config/systemd/user"
    systemctl = "systemctl" if plan.user else "systemctl --user"
    unit = file if output else "llama-server.service"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.deployment.host, plan.deployment.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{plan.deployment.port}/v1/models"
    return {
        "command": f"run it, then curl {url}",
        "systemd": f"put it into {folder}/{unit}, then {systemctl} enable --now {unit}",
        "router": f"{plan.server} --models-preset {file} --host {plan.deployment.host}",
        "rpc": f"run each on its machine, the head last, then curl {url}",
        "llama-swap": f"llama-swap --config {file} --listen {plan.deployment.host}:{plan.deployment.port}",
    }[target]
