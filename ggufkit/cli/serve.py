"""`ggufkit serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import dry_run_option, output_options
from ggufkit.cli.render import Out, count_text, size_text

if TYPE_CHECKING:
    from ggufkit.verbs.serve import Serving


@click.command("serve", short_help="Be a hub for the machines on your LAN.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes a free one."
)
@dry_run_option
@output_options
def command(out: Out, folder: Path, host: str, port: int, dry_run: bool) -> None:
    """Be a hub for the machines on your LAN.

    \b
    Examples:
      ggufkit serve models
      ggufkit serve . --host 0.0.0.0

    Serves models/OWNER/NAME/..., and folders that ggufkit pull wrote, in the protocols of both hubs:
    ggufkit, hf and modelscope on the other machines pull from here. Files are only read; there is no
    login, so only this machine is served unless --host says otherwise.
    """
    from ggufkit.verbs.serve import plan_serve, serve

    plan = plan_serve(folder, host, port)
    for warning in plan.warnings:
        out.warn(warning)
    what = f"{count_text(len(plan.repos), 'repo')}, {count_text(plan.n_files, 'file')}"
    summary = f"{what}, {size_text(plan.total_bytes)}"
    if dry_run:
        out.say("[dry run] nothing is served")
        out.result(plan, f"{summary} in {plan.root}", quiet=[plan.root])
        return

    def ready(serving: Serving) -> None:
        text = (
            f"serving {summary} at {serving.url}\n"
            "on the other machine:\n"
            f"  export HF_ENDPOINT={serving.url} MODELSCOPE_ENDPOINT={serving.url}\n"
            "Ctrl-C ends it"
        )
        out.result(
            {"url": serving.url, "host": serving.host, "port": serving.port}, text, quiet=[serving.url]
        )

    serve(plan, out.progress(), ready)
