"""The part of `ggufkit pull` that puts a split quant into one file."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ggufkit.cli.following import with_model
from ggufkit.cli.line import say_served
from ggufkit.cli.render import Out, count_text, printable_lines, size_text, table
from ggufkit.progress import Progress

if TYPE_CHECKING:
    from ggufkit.verbs.pull import PullPlan
    from ggufkit.verbs.pull_merged import MergedPlan, MergedReport

SAID = {"kept": "there already", "adopt": "taken over", "resume": "resumed", "download": "downloaded"}


def pull_into_one(out: Out, pull: PullPlan, progress: Progress, *, dry_run: bool) -> bool:
    """Do `pull --merge`; False, when that is said, if the quant is one file anyway."""
    from ggufkit.verbs.pull_merged import is_split, plan_pull_merged, pull_merged

    if not is_split(pull):
        out.say(f"{pull.quant.name} is one file already: --merge changes nothing")
        return False
    plan = plan_pull_merged(pull, progress=progress)
    for warning in plan.merged.warnings if plan.merged is not None else ():
        out.warn(warning)
    if dry_run:
        out.say("[dry run] nothing is written")
        out.result(plan_document(plan), plan_text(plan), quiet=[plan.output])
        return True
    out.say(
        f"{pull.repo.titles(pull.quant.files)}: {pull.quant.name}, {count_text(len(pull.files), 'shard')}, "
        f"{size_text(plan.n_bytes)} to {plan.output}"
    )
    report = pull_merged(plan, progress)
    out.result(report, printable_lines(report_text(report)), quiet=[report.output])
    say_served(out, report.sources)
    steps = (with_model(command, report.output) for command in ("ggufkit fit", "ggufkit ollama-import"))
    out.hint(f"next: {', '.join(steps)}")
    return True


def say_if_merged(out: Out, pull: PullPlan) -> None:
    """Say that the shards need not be fetched when the file merged from them is here."""
    from ggufkit.verbs.merged_there import merged_instead
    from ggufkit.verbs.pull_merged import default_target

    file = merged_instead(pull, default_target(pull))
    if file is not None:
        command = shlex.join(["ggufkit", "split", "--restore", str(file)])
        out.warn(f"{file} was made of these very shards: {command} gives them back without fetching")


def plan_text(plan: MergedPlan) -> str:
    """Return the plan for people."""
    rows: list[tuple[object, ...]] = [
        (size_text(f.size_bytes), "copy" if f.here else "fetch", f.path)
        for f in plan.pull.files
        if plan.state != "kept"
    ]
    rows.append((size_text(plan.n_bytes), plan.state, plan.output))
    text = table(("SIZE", "ACTION", "FILE"), rows, right=[0])
    return f"{text}\n{size_text(plan.needed_bytes)} to write, {size_text(plan.free_bytes)} free"


def plan_document(plan: MergedPlan) -> dict[str, object]:
    """Return the plan as one document."""
    pull = plan.pull
    return {
        "repo_id": pull.repo.ref.repo_id,
        "hub": pull.repo.origins(pull.quant.files)[0].hub,
        "sources": pull.repo.origins(pull.quant.files),
        "remarks": pull.remarks,
        "quant": pull.quant.name,
        "root": pull.root,
        "output": plan.output,
        "state": plan.state,
        "shards": pull.files,
        "total_bytes": plan.n_bytes,
        "needed_bytes": plan.needed_bytes,
        "free_bytes": plan.free_bytes,
    }


def report_text(report: MergedReport) -> str:
    """Return what was done, in a line, and the digest."""
    checked = "SHA-256 of every shard checked"
    if report.n_unproven:
        checked = f"{report.n_unproven} without a published digest"
    n_here = sum(s.here is not None for s in report.shards) if report.state != "kept" else 0
    done = SAID[report.state]
    if n_here == len(report.shards):
        done = "copied from shards on this machine"
    elif n_here:
        done += f", {n_here} of them copied from this machine"
    shards = count_text(len(report.shards), "shard")
    text = f"{report.output}: {size_text(report.n_bytes)} from {shards} ({done}), {checked}"
    return f"{text}\nsha256: {report.sha256}"
