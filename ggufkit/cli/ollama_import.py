"""`ggufkit ollama-import`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import dry_run_option, force_option, model_argument, output_options
from ggufkit.cli.render import Out, size_text

if TYPE_CHECKING:
    from ggufkit.runtimes.ollama import StorePlace
    from ggufkit.runtimes.ways import Wanted
    from ggufkit.verbs.ollama_import import ImportPlan, ImportReport


@click.command("ollama-import", short_help="Make an Ollama model without a second copy.")
@model_argument
@click.option("--name", metavar="NAME[:TAG]", help="The model's name; otherwise one is made of the file's.")
@click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Ollama's models folder, if not the one of OLLAMA_MODELS or of the running server.",
)
@click.option(
    "--ctx-size",
    "--num-ctx",
    "context_tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tokens of context (num_ctx); 0: the model's own. Left out, what fits this machine, 8192 at most.",
)
@click.option("--hard-link", "method", flag_value="hard-link", help="Link or fail; never copy.")
@click.option(
    "--reflink", "method", flag_value="reflink", help="Share the blocks (btrfs, XFS) or fail; never copy."
)
@click.option("--symbolic-link", "method", flag_value="symbolic-link", help="Link by name, across disks too.")
@click.option("--move", "method", flag_value="move", help="Give the file up here once it is in the store.")
@click.option("--copy", "method", flag_value="copy", help="Copy the file even where a link would do.")
@force_option
@dry_run_option
@output_options
def command(
    out: Out,
    model: str | None,
    name: str | None,
    models_dir: Path | None,
    context_tokens: int | None,
    method: Wanted | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Make an Ollama model without a second copy.

    \b
    Examples:
      ggufkit ollama-import
      ggufkit ollama-import DeepSeek-R1-GGUF --name deepseek-r1:671b
      ggufkit ollama-import model.gguf --models-dir /mnt/ollama/models --dry-run

    MODEL is a GGUF file, any shard or a folder; left out, the model at hand. Shards are merged first,
    beside their folder. The file is then linked into Ollama's store, so its bytes are on the disk once,
    and unchanged: keep it as it is, for the two names are one file. Where a hard link is refused, a
    reflink is tried, then it is copied; it says why, and what to type instead.

    --symbolic-link also works across disks: Ollama's clean-up and `ollama rm` remove only the link, but
    without the file (moved, disk not mounted) the model is listed and does not load. --move gives the
    file to Ollama: there `ollama rm` deletes it.

    No server need run. It does what `ollama create` does, but that copies the file (Ollama 0.30 and
    later up to three times on the way). `ollama rm` takes the model out again and leaves your file.
    """
    from ggufkit.runtimes.ollama import find_store
    from ggufkit.verbs.locate import find_model
    from ggufkit.verbs.ollama_import import ollama_import, plan_ollama_import

    found = find_model(model)
    if model is None:
        out.say(f"model: {found.folder / found.name}")
    place = find_store(models_dir=models_dir, environ=os.environ)
    out.say(f"store: {_store_text(place)}")
    plan = plan_ollama_import(
        found, place, name=name, method=method or "auto", force=force, context_tokens=context_tokens
    )
    if plan.mend:
        out.say(plan.why)
        out.hint(plan.mend)
    if dry_run:
        return _show_plan(out, plan)
    _show_report(out, ollama_import(plan, out.progress()))
    return None


def _store_text(place: StorePlace) -> str:
    by = f"the Ollama at {place.found_by} uses it" if place.by_server else place.found_by
    return f"{place.store.root} ({by})"


def _show_plan(out: Out, plan: ImportPlan) -> None:
    for warning in plan.warnings:
        out.warn(warning)
    out.say("[dry run] nothing is written")
    out.result(plan, "\n".join(_plan_lines(plan)), quiet=[plan.name])


def _plan_lines(plan: ImportPlan) -> list[str]:
    if plan.action == "nothing":
        return [f"{plan.name} is there already, from {plan.source}"]
    lines = []
    if plan.merge_bytes:
        lines.append(f"merge    {size_text(plan.merge_bytes)} to {plan.source}")
    if plan.action == "compare":
        lines.append(f"compare  {plan.source} with the {plan.name} that is there")
    room = f"{size_text(plan.free_bytes)} free"
    verb = "move" if plan.method == "move" else "copy" if plan.copy_bytes else "link"
    how = f"{verb}     {size_text(plan.copy_bytes)} ({room}) of" if plan.copy_bytes else f"{verb}    "
    lines.append(f"{how} {plan.source}")
    lines.append(f"         {plan.why}")
    told = ", ".join(layer.kind for layer in plan.recipe.layers) or "nothing but the weights"
    lines.append(f"write    {told} ({plan.recipe.family or 'family not known'})")
    if plan.memory.num_ctx:
        mapped = ", use_mmap" if plan.memory.use_mmap else ""
        lines.append(f"         num_ctx {plan.memory.num_ctx}{mapped} ({plan.memory.why})")
    lines.append(f"{'replace' if plan.action == 'replace' else 'name   '}  {plan.name}")
    return lines


def _show_report(out: Out, report: ImportReport) -> None:
    for warning in report.warnings:
        out.warn(warning)
    if report.action == "nothing":
        text = f"{report.name} is there already, from {report.source}"
    else:
        how = "moved" if report.moved else _HOW[report.method]
        text = f"{report.name}: {size_text(report.n_bytes)} {how}"
        text += f", {size_text(report.extra_bytes)} more on the disk"
    listed = {True: "listed by the running Ollama", False: "not listed by the running Ollama", None: None}
    details = [f"sha256: {report.sha256}", f"id: {report.id[:12]}", listed[report.listed]]
    out.result(report, "\n".join([text, *filter(None, details)]), quiet=[report.name])
    out.hint(f"next: ollama run {report.name}")


_HOW = {
    "hard-link": "linked",
    "symbolic-link": "linked by name",
    "reflink": "copied without its bytes (reflink)",
    "copy": "copied",
    "present": "in the store before",
}
