"""`ggufkit pull`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.adopted import adopt_options, adopted_text
from ggufkit.cli.following import with_model
from ggufkit.cli.line import line_options, say_served
from ggufkit.cli.params import dry_run_option, output_options, source_option
from ggufkit.cli.pull_merged import pull_into_one, say_if_merged
from ggufkit.cli.pull_to import place_options, pull_into_place
from ggufkit.cli.quants import quants_table
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import printable
from ggufkit.progress import Progress

if TYPE_CHECKING:
    from ggufkit.verbs.pull import PullPlan, PullReport
    from ggufkit.verbs.pull_to import Runtime


@click.command("pull", short_help="Get a quant from ModelScope or Hugging Face.")
@click.argument("ref", metavar="REF|MANIFEST")
@click.option("--quant", metavar="Q", help="Which quant, e.g. UD-IQ2_XXS; or a file's path in the repo.")
@source_option
@click.option("--revision", metavar="REV", help="Branch, tag or commit.")
@click.option("--local-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where it goes. [./NAME]")
@place_options
@adopt_options
@line_options
@dry_run_option
@output_options
def command(out: Out, **flags: Any) -> None:
    """Get a quant from ModelScope or Hugging Face.

    \b
    Examples:
      ggufkit pull unsloth/DeepSeek-R1-GGUF --quant UD-IQ2_XXS
      ggufkit pull ms:unsloth/DeepSeek-R1-GGUF:UD-IQ1_S --local-dir /data/r1
      ggufkit pull DeepSeek-R1-UD-IQ2_XXS    # a manifest: see ggufkit manifest
      ggufkit pull unsloth/DeepSeek-R1-GGUF --quant UD-IQ2_XXS --to ollama

    Every byte is checked against the published SHA-256 while it arrives. Stop it at any time: the
    same command goes on where it stopped. Without --quant the only quant there is is taken.

    Files go to ./NAME/<path in the repo>; what was pulled is recorded in NAME/.ggufkit.

    What browsers, hf, modelscope and aria2 left of it there, in the hubs' caches and in the folders of
    --adopt is taken over: whole files are linked, parts go on. Their files stay as they are.

    With --merge a split quant becomes one file on the way, NAME/<quant>.gguf: each byte is written once,
    at its final place, and every shard is proven all the same. ggufkit split --restore gives them back.

    With --to the model goes straight to where Ollama, LM Studio or llama-server -hf reads it, its bytes on
    the disk once, whichever disk that is: split quants as one file for Ollama, as published for the others.
    """
    given = _Flags(**flags)
    out.say(f"asking for {printable(given.ref)}")
    progress = out.progress()
    plan = _plan(out, given, progress)
    if given.to or given.name or given.user_repo:
        pull_into_place(
            out,
            plan,
            progress,
            to=given.to,
            merge=given.merge,
            name=given.name,
            user_repo=given.user_repo,
            dry_run=given.dry_run,
        )
    elif not (given.merge and pull_into_one(out, plan, progress, dry_run=given.dry_run)):
        _pull_as_published(out, plan, progress, dry_run=given.dry_run)


@dataclass(frozen=True, slots=True)
class _Flags:
    """What was typed, by the names that Click gives it."""

    ref: str
    quant: str | None
    source: str
    revision: str | None
    local_dir: Path | None
    merge: bool
    to: tuple[Runtime, ...]
    name: str | None
    user_repo: str | None
    adopt_dirs: tuple[Path, ...]
    no_adopt: bool
    connections: int
    limit_rate: int | None
    dry_run: bool


def _plan(out: Out, given: _Flags, progress: Progress) -> PullPlan:
    """Plan the pull; says which quants there are when it can't tell which one is meant."""
    from ggufkit.hubs.quants import QuantError
    from ggufkit.verbs.pull import plan_pull

    try:
        plan = plan_pull(
            given.ref,
            quant=given.quant,
            source=given.source,
            revision=given.revision,
            local_dir=given.local_dir,
            adopt=not given.no_adopt,
            adopt_dirs=given.adopt_dirs,
            connections=given.connections,
            limit_bytes_per_s=given.limit_rate,
            progress=progress,
        )
    except QuantError as error:
        out.say(quants_table(error.quants))
        raise
    for remark in plan.remarks:
        out.warn(remark)
    return plan


def _pull_as_published(out: Out, plan: PullPlan, progress: Progress, *, dry_run: bool) -> None:
    """Fetch the quant's files as they are in the repo."""
    from ggufkit.verbs.pull import pull

    say_if_merged(out, plan)
    if dry_run:
        _show_plan(out, plan)
        return
    out.say(
        f"{plan.repo.titles(plan.quant.files)}: {plan.quant.name}, {count_text(len(plan.files), 'file')}, "
        f"{size_text(plan.total_bytes)} to {plan.root}{adopted_text(plan.files)}"
    )
    _show_report(out, pull(plan, progress))
    out.hint(f"next: {_next_step(plan)}")


def _next_step(plan: PullPlan) -> str:
    """Say what to type now; the model is named where another one would be meant by itself."""
    first = plan.files[0].target
    if plan.quant.kind == "raw":
        merge = with_model("ggufkit merge", first)
        return f"{merge} (these are pieces of one file; nothing loads them as they are)"
    commands = ("ggufkit fit", "ggufkit merge") if len(plan.files) > 1 else ("ggufkit fit",)
    return ", ".join(with_model(command, first) for command in commands)


def _show_plan(out: Out, plan: PullPlan) -> None:
    rows = [(size_text(f.size_bytes), f.state, f.target) for f in plan.files]
    text = table(("SIZE", "ACTION", "FILE"), rows, right=[0])
    text += adopted_text(plan.files)
    text += f"\n{size_text(plan.needed_bytes)} to fetch, {size_text(plan.free_bytes)} free"
    document = {
        "repo_id": plan.repo.ref.repo_id,
        "hub": plan.repo.origins(plan.quant.files)[0].hub,
        "sources": plan.repo.origins(plan.quant.files),
        "remarks": plan.remarks,
        "quant": plan.quant.name,
        "root": plan.root,
        "files": plan.files,
        "total_bytes": plan.total_bytes,
        "needed_bytes": plan.needed_bytes,
        "copied_bytes": plan.copied_bytes,
        "free_bytes": plan.free_bytes,
    }
    out.say("[dry run] nothing is written")
    out.result(document, text, quiet=[f.target for f in plan.files])


def _show_report(out: Out, report: PullReport) -> None:
    states = [f.state for f in report.files]
    words = {"kept": "kept", "adopt": "adopted", "resume": "resumed", "download": "downloaded"}
    done = ", ".join(f"{states.count(s)} {word}" for s, word in words.items() if s in states)
    checked = "SHA-256 checked"
    if report.n_unproven:
        checked = f"{report.n_unproven} without a published digest"
    files = count_text(len(report.files), "file")
    text = f"{files}, {size_text(report.total_bytes)} in {report.root} ({done}), {checked}"
    out.result(report, printable(text), quiet=[f.target for f in report.files])
    say_served(out, report.sources)
