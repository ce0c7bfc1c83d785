"""`ggufkit serve-config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.params import MEMORY_SIZE, force_option, model_argument, output_options
from ggufkit.cli.render import Out, size_text
from ggufkit.errors import TargetExistsError

if TYPE_CHECKING:
    from ggufkit.verbs.serve_config import ServePlan, ServeWishes, Target

CACHE_TYPE = click.Choice(["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])


@click.command("serve-config", short_help="Write how llama.cpp is to serve a model.")
@model_argument
@click.option(
    "--target",
    type=click.Choice(["command", "systemd", "router", "llama-swap"]),
    default="command",
    show_default=True,
    help="Who reads it: a shell, systemd, llama-server's router, or llama-swap.",
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
    "--flash-attn", type=click.Choice(["on", "off", "auto"]), default="auto", show_default=True, help="As is."
)
@click.option(
    "--load-mode",
    type=click.Choice(["mmap", "mlock", "none"]),
    help="Map the file (the default), map and lock it in memory, or read it.",
)
@click.option("-ngl", "--n-gpu-layers", metavar="N", help="Layers on GPUs: a number, auto or all.")
@click.option(
    "-ncmoe", "--n-cpu-moe", type=click.IntRange(0), metavar="N", help="Keep experts of N layers in RAM."
)
@click.option("-ot", "--override-tensor", metavar="PATTERN=BUFFER", help="Passed on to llama-server.")
@click.option("-a", "--alias", metavar="NAME", help="What the API calls it; left out, the file's name.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port.")
@click.option("--user", metavar="NAME", help="systemd: the user to run as; left out, a unit for your own.")
@click.option("--ram", type=MEMORY_SIZE, metavar="SIZE", help="Memory built in; left out, this machine's.")
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

    The model is judged as by fit: the context is 8,192 tokens, or what fits. The llama-server on the PATH is
    asked which flags it knows, since builds of July 2026 renamed those of loading. Shards need no
    merging: llama.cpp takes the first. Nothing is started and nothing installed.
    """
    from ggufkit.verbs.locate import find_model
    from ggufkit.verbs.serve_config import plan_serving, serve_config

    found = find_model(model)
    if model is None:
        out.say(f"model: {found.folder / found.name}")
    plan = plan_serving(found, _wishes(**wishes), server=server, dialect=dialect, ram_bytes=ram)
    text = serve_config(plan, target)
    for warning in plan.warnings:
        out.warn(warning)
    out.detail(f"{plan.level}: takes {size_text(plan.needed_bytes)}; flags: {plan.dialect_from}")
    if output is None:
        out.result({"plan": plan, "text": text}, text.rstrip("\n"), quiet=[text.rstrip("\n")])
    else:
        _write(output, text, force)
        out.result({"plan": plan, "text": text}, f"{output}: written", quiet=[output])
    out.hint(f"next: {_next_step(plan, target, output)}")


def _wishes(
    *,
    ctx_size: int | None,
    parallel: int,
    threads: int | None,
    load_mode: Any,
    n_gpu_layers: str | None,
    n_cpu_moe: int | None,
    override_tensor: str | None,
    **same: Any,
) -> ServeWishes:
    from ggufkit.verbs.serve_config import ServeWishes

    flags = {"n-gpu-layers": n_gpu_layers, "n-cpu-moe": n_cpu_moe, "override-tensor": override_tensor}
    placement = tuple((name, str(value)) for name, value in flags.items() if value is not None)
    return ServeWishes(
        context_tokens=ctx_size,
        n_slots=parallel,
        n_threads=threads,
        load=load_mode,
        placement=placement,
        **same,
    )


def _write(output: Path, text: str, force: bool) -> None:
    from ggufkit.transfer.disk import write_atomic

    if output.exists() and not force:
        raise TargetExistsError(f"{output} is there already", hint="--force overwrites it")
    write_atomic(output, text.encode())


def _next_step(plan: ServePlan, target: Target, output: Path | None) -> str:
    file = output.name if output else "FILE"
    folder = "/etc/systemd/system" if plan.user else "~/.config/systemd/user"
    systemctl = "systemctl" if plan.user else "systemctl --user"
    unit = file if output else "llama-server.service"
    return {
        "command": f"then curl http://{plan.deployment.host}:{plan.deployment.port}/v1/models",
        "systemd": f"put it into {folder}/{unit}, then {systemctl} enable --now {unit}",
        "router": f"{plan.server} --models-preset {file} --host {plan.deployment.host}",
        "llama-swap": f"llama-swap --config {file} --listen {plan.deployment.host}:{plan.deployment.port}",
    }[target]
