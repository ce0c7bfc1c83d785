"""`ggufkit merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.following import with_model
from ggufkit.cli.params import dry_run_option, force_option, model_argument, output_options
from ggufkit.cli.render import Out, count_text, size_text
from ggufkit.errors import UsageError, printable

if TYPE_CHECKING:
    from ggufkit.verbs.consume import ConsumePlan
    from ggufkit.verbs.locate import LocalModel
    from ggufkit.verbs.merge import MergePlan, MergeReport


@click.command("merge", short_help="Make one file of a model's shards.")
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option("--keep-split-keys", is_flag=True, help="Write what llama-gguf-split --merge writes.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Take and check digests on the way."
)
@click.option("--consume", is_flag=True, help="Give up the shards as they are merged: one copy's space.")
@force_option
@dry_run_option
@output_options
def command(
    out: Out,
    model: str | None,
    output: Path | None,
    keep_split_keys: bool,
    verify: bool,
    consume: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Make one file of a model's shards.

    \b
    Examples:
      ggufkit merge
      ggufkit merge DeepSeek-R1-GGUF
      ggufkit merge model-00001-of-00004.gguf -o model.gguf
      ggufkit merge --consume

    MODEL is any shard, or their folder; left out, the model at hand. The file gets the set's name and
    lies beside the shards' folder. It is what was there before the split, byte for byte; with
    --keep-split-keys it is what llama-gguf-split would make of the shards. All shards are checked
    before the first byte is written, and they are only read. Raw parts (.gguf.part1of2, .gguf-split-a,
    .gguf.00), of which only the first has a header, are joined: their sizes must be what it speaks of.

    With --consume the shards go as the file grows, so that it needs no more room than 2 % of the model.
    Each is proven first, where its digest is known. Killed at any point, the same command goes on. Where
    parts of a file can't be given back, the room of the largest shard is needed.

    llama.cpp and LM Studio load shards as they are: they need no merge. Ollama does.
    """
    from ggufkit.verbs.consume import plan_consume
    from ggufkit.verbs.join import find_parts, plan_consuming_join, plan_join
    from ggufkit.verbs.merge import plan_merge

    parts = find_parts(model)
    found = parts or _shards(model, output, consume=consume, dry_run=dry_run)
    if model is None:
        out.say(f"model: {found.files[0].parent / found.name}")
    if parts is not None and keep_split_keys:
        raise UsageError("raw parts have no split keys", hint="leave --keep-split-keys out")
    options: dict[str, Any] = {"output": output, "verify": verify, "force": force}
    if parts is None:
        options["keep_split_keys"] = keep_split_keys
    if consume:
        made = (plan_consume if parts is None else plan_consuming_join)(found, **options)
        _consume(out, made, dry_run)
    else:
        plan = (plan_merge if parts is None else plan_join)(found, **options)
        _merge(out, plan, dry_run)


def _shards(model: str | None, output: Path | None, *, consume: bool, dry_run: bool) -> LocalModel:
    """Find the shards, or with --consume the file that an earlier run made of them."""
    from ggufkit.verbs.consumed import find_consumed, remove_leavings
    from ggufkit.verbs.locate import find_model

    gone = find_consumed(model, output) if consume else None
    found = gone or find_model(model, shards=True)
    if consume and not found.is_sharded and not dry_run:
        remove_leavings(model, found)
    return found


def _merge(out: Out, plan: MergePlan, dry_run: bool) -> None:
    from ggufkit.verbs.merge import merge

    for warning in plan.warnings:
        out.warn(warning)
    if dry_run:
        return _show_plan(out, plan)
    return _show_report(out, merge(plan, out.progress()))


def _consume(out: Out, plan: ConsumePlan | MergePlan, dry_run: bool) -> None:
    from ggufkit.verbs.consume import ConsumePlan, consume
    from ggufkit.verbs.merge import merge

    if not isinstance(plan, ConsumePlan):
        return _show_plan(out, plan) if dry_run else _show_report(out, merge(plan))
    for warning in plan.merge.warnings:
        out.warn(warning)
    if plan.unproven:
        names = ", ".join(plan.unproven[:3]) + (", …" if len(plan.unproven) > 3 else "")
        out.warn(f"no digest is known of {names}: merged as it is, unproven")
    if dry_run:
        return _show_consume_plan(out, plan)
    return _show_report(out, consume(plan, out.progress()))


def _show_consume_plan(out: Out, plan: ConsumePlan) -> None:
    merge, resumed = plan.merge, plan.resumed_bytes
    going_on = f", {size_text(resumed)} of it done" if plan.begun else ""
    text = (
        f"write {merge.output}: {size_text(merge.n_bytes)}{going_on}, and give up "
        f"{count_text(merge.n_shards, merge.pieces)}; needs {size_text(plan.extra_bytes)} besides, "
        f"{size_text(merge.free_bytes)} free"
    )
    document = {
        "output": merge.output,
        "action": "consume",
        "n_bytes": merge.n_bytes,
        "n_shards": merge.n_shards,
        "free_bytes": merge.free_bytes,
        "resumed_bytes": resumed,
        "extra_bytes": plan.extra_bytes,
        "shards": plan.shards,
    }
    out.say("[dry run] nothing is written")
    out.result(document, printable(text), quiet=[merge.output])


def _show_plan(out: Out, plan: MergePlan) -> None:
    action = "write" if not plan.exists else "replace" if plan.force else "compare"
    text = (
        f"{action} {plan.output}: {size_text(plan.n_bytes)} from {count_text(plan.n_shards, plan.pieces)}, "
        f"{size_text(plan.free_bytes)} free"
    )
    if plan.job is None:
        action, text = "none", f"{plan.output} is one file already"
    document = {
        "output": plan.output,
        "action": action,
        "n_bytes": plan.n_bytes,
        "n_shards": plan.n_shards,
        "free_bytes": plan.free_bytes,
    }
    out.say("[dry run] nothing is written")
    out.result(document, printable(text), quiet=[plan.output])


def _show_report(out: Out, report: MergeReport) -> None:
    size = size_text(report.n_bytes)
    if report.already and report.n_shards == 1:
        text = f"{report.output} is one file already: nothing to merge"
    elif report.already:
        text = f"{report.output} is there already and sound: {size}"
    else:
        made_of = count_text(report.n_shards, report.pieces)
        text = f"{report.output}: {size} from {made_of} in {report.seconds:.1f} s"
    text = printable(text)
    if report.freed_bytes:
        text += f", {size_text(report.freed_bytes)} of {report.pieces}s given up"
    if report.sha256 is not None:
        text += f"\nsha256: {report.sha256}"
    out.result(report, text, quiet=[report.output])
    out.hint("next: " + with_model("ggufkit ollama-import", report.output))
