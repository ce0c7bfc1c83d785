"""`ggufkit ollama-import`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.at_hand import model_here
from ggufkit.cli.params import dry_run_option, force_option, model_argument, output_options
from ggufkit.cli.render import Out
from ggufkit.errors import UsageError

if TYPE_CHECKING:
    from ggufkit.runtimes.ollama import StorePlace
    from ggufkit.runtimes.ways import Wanted
    from ggufkit.verbs.locate import LocalModel


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
@click.option(
    "--store",
    "own_store",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Make or fill a store for another machine, to be copied over the one there.",
)
@click.option(
    "--server",
    metavar="ADDRESS",
    help="Send it to the Ollama of another machine or a container, by its API (as OLLAMA_HOST is written).",
)
@click.option("--smoke", is_flag=True, help="Have the model answer at the end (it is loaded for that).")
@click.option(
    "--modelfile",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Only write a Modelfile for `ollama create` (- prints it); nothing is imported.",
)
@click.option("--undo", metavar="NAME", help="Take an import back as a whole; the file stays or comes back.")
@force_option
@dry_run_option
@output_options
def command(out: Out, **flags: Any) -> None:
    """Make an Ollama model without a second copy.

    \b
    Examples:
      ggufkit ollama-import
      ggufkit ollama-import DeepSeek-R1-GGUF --name deepseek-r1:671b
      ggufkit ollama-import model.gguf --models-dir /mnt/ollama/models --dry-run
      ggufkit ollama-import model.gguf --store /media/disk/models
      ggufkit ollama-import --undo deepseek-r1:671b

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
    given = _Flags(**flags)
    if given.undo is not None:
        _undo(out, given, given.undo)
        return
    if given.method == "move" and _was_moved(out, given):
        return
    found = model_here(out, given.model)
    if given.server is not None:
        _send(out, given, found, given.server)
        return
    place = _place(out, given)
    if given.modelfile is not None:
        _modelfile(out, given, found, place, given.modelfile)
    else:
        _import(out, given, found, place)


@dataclass(frozen=True, slots=True)
class _Flags:
    """What was typed, by the names that Click gives it."""

    model: str | None
    name: str | None
    models_dir: Path | None
    context_tokens: int | None
    method: Wanted | None
    own_store: Path | None
    server: str | None
    smoke: bool
    modelfile: Path | None
    undo: str | None
    force: bool
    dry_run: bool


def _import(out: Out, given: _Flags, model: LocalModel, place: StorePlace) -> None:
    """Put the model into the store."""
    from ggufkit.cli.ollama_text import show_plan, show_report
    from ggufkit.verbs.ollama_import import ollama_import, plan_ollama_import

    if given.smoke and place.server is None:
        raise UsageError("--smoke needs an Ollama that runs here", hint="ollama serve, or without --smoke")
    plan = plan_ollama_import(
        model,
        place,
        name=given.name,
        method=given.method or "auto",
        force=given.force,
        context_tokens=given.context_tokens,
    )
    if plan.mend:
        out.say(plan.why)
        out.hint(plan.mend)
    if given.dry_run:
        show_plan(out, plan)
        return
    report = ollama_import(plan, out.progress())
    show_report(out, report, place.server.answer(report.name) if given.smoke and place.server else None)


def _was_moved(out: Out, given: _Flags) -> bool:
    """Say so, and return True, when the file is gone because this very command moved it into the store."""
    from ggufkit.cli.ollama_text import show_report
    from ggufkit.verbs.ollama_moved import find_moved, moves_of

    if given.model is None or given.server or given.modelfile or not moves_of(given.model):
        return False
    place = _place(out, given)
    report = find_moved(given.model, place, given.name)
    if report is not None:
        smoke = given.smoke and not given.dry_run and place.server is not None
        show_report(out, report, place.server.answer(report.name) if smoke and place.server else None)
    return report is not None


def _place(out: Out, given: _Flags) -> StorePlace:
    from ggufkit.cli.ollama_text import store_text
    from ggufkit.runtimes import ollama
    from ggufkit.runtimes.ollama_versions import version_notes

    if given.own_store is not None and given.models_dir is not None:
        raise UsageError("--store is for another machine, --models-dir for this one", hint="take one of them")
    if given.own_store is not None:
        place = ollama.own_store(given.own_store)
    else:
        place = ollama.find_store(models_dir=given.models_dir, environ=os.environ)
    out.say(f"store: {store_text(place)}")
    if out.verbose and place.server is not None:
        for note in version_notes(place.server.version):
            out.say(f"Ollama {place.server.version_text}: {note}")
    return place


def _undo(out: Out, given: _Flags, name: str) -> None:
    from ggufkit.cli.ollama_text import show_undo
    from ggufkit.verbs.ollama_undo import plan_undo, undo_ollama_import

    place = _place(out, given)
    if given.model is not None:
        raise UsageError("--undo takes the name in Ollama, and no file", hint=f"--undo {name} alone")
    plan = plan_undo(name, place)
    done = plan if given.dry_run else undo_ollama_import(plan, out.progress())
    show_undo(out, done, done=not given.dry_run)


def _send(out: Out, given: _Flags, model: LocalModel, server: str) -> None:
    """Send the model to an Ollama by its API."""
    from ggufkit.cli.render import size_text
    from ggufkit.verbs.ollama_send import ollama_send, plan_ollama_send

    _check_for_server(given)
    plan = plan_ollama_send(
        model, server, name=given.name, force=given.force, context_tokens=given.context_tokens
    )
    for warning in plan.warnings:
        out.warn(warning)
    if given.dry_run:
        out.say("[dry run] nothing is sent")
        text = f"send  {size_text(plan.n_bytes)} of {plan.source} to {plan.server.url} as {plan.name}"
        out.result(plan, text, quiet=[plan.name])
        return
    report = ollama_send(plan, out.progress())
    sent = f"{size_text(report.sent_bytes)} sent" if report.sent_bytes else "it had the bytes already"
    lines = [f"{report.name} at {report.url}: {sent}", f"sha256: {report.sha256}", f"id: {report.id[:12]}"]
    out.result(report, "\n".join(lines), quiet=[report.name])


def _check_for_server(given: _Flags) -> None:
    """Refuse beside --server what is for a store on this machine."""
    others = {
        "--models-dir": given.models_dir,
        "--store": given.own_store,
        "--modelfile": given.modelfile,
        "a method": given.method,
    }
    wrong = [flag for flag, value in others.items() if value is not None] + ["--smoke"] * given.smoke
    if wrong:
        raise UsageError(f"--server takes the bytes over the line: {wrong[0]} means nothing there")


def _modelfile(out: Out, given: _Flags, model: LocalModel, place: StorePlace, target: Path) -> None:
    """Write a Modelfile, and nothing else."""
    from ggufkit.verbs.ollama_modelfile import plan_modelfile, write_modelfile

    plan = plan_modelfile(model, place, target, context_tokens=given.context_tokens, force=given.force)
    for warning in plan.warnings:
        out.warn(warning)
    if str(target) == "-":
        out.result(plan, plan.text.rstrip("\n"), quiet=plan.text.splitlines())
        return
    if given.dry_run:
        out.say("[dry run] nothing is written")
    else:
        write_modelfile(plan)
    out.result(plan, f"{target}: {len(plan.text.encode())} bytes", quiet=[target])
    out.hint(f"next: ollama create {plan.name} -f {target}")
