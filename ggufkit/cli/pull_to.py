"""The part of `ggufkit pull` that puts a quant where runtimes read it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.line import say_served
from ggufkit.cli.pull_merged import SAID, plan_document, plan_text, say_if_merged
from ggufkit.cli.render import Out, count_text, printable_lines, size_text, table
from ggufkit.progress import Progress

if TYPE_CHECKING:
    from ggufkit.verbs.pull import PullPlan
    from ggufkit.verbs.pull_to import Runtime, ToPlan, ToReport


class _Listed(click.Option):
    """An option given several times, for which a config file may have one word."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the words."""
        return super().type_cast_value(ctx, (value,) if isinstance(value, str) else value)


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --merge, --to and what names the model there."""
    options = (
        click.option("--merge", is_flag=True, help="Put a split quant straight into one file."),
        click.option(
            "--to",
            cls=_Listed,
            multiple=True,
            type=click.Choice(["ollama", "lmstudio", "hf-cache"]),
            help="Straight into place, on the disk once; may be repeated.",
        ),
        click.option("--name", metavar="NAME[:TAG]", help="With --to ollama: what it is called there."),
        click.option("--user-repo", metavar="USER/REPO", help="With --to lmstudio: its folders there."),
    )
    command = _names_checked(command)
    for option in reversed(options):
        command = option(command)
    return command


def _names_checked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Have the names looked at before a hub is asked."""

    @functools.wraps(command)
    def checked(*arguments: Any, **flags: Any) -> Any:
        if flags["name"] is not None or flags["user_repo"] is not None:
            from ggufkit.verbs.pull_to import check_names

            check_names(flags["to"], flags["name"], flags["user_repo"])
        return command(*arguments, **flags)

    return checked


def pull_into_place(
    out: Out,
    pull: PullPlan,
    progress: Progress,
    *,
    to: Sequence[Runtime],
    merge: bool,
    name: str | None,
    user_repo: str | None,
    dry_run: bool,
) -> None:
    """Do `pull --to`."""
    from ggufkit.verbs.pull_to import plan_pull_to, pull_to

    runtimes = tuple(dict.fromkeys(to))
    plan = plan_pull_to(
        pull, runtimes, environ=os.environ, merge=merge, name=name, user_repo=user_repo, progress=progress
    )
    for warning in plan.warnings:
        out.warn(warning)
    if plan.merged is None:
        say_if_merged(out, plan.pull)
    if dry_run:
        out.say("[dry run] nothing is written")
        return out.result(_document(plan), _plan_text(plan), quiet=_names(plan))
    n_bytes = plan.merged.n_bytes if plan.merged is not None else plan.pull.total_bytes
    states = {plan.merged.state} if plan.merged is not None else {f.state for f in plan.pull.files}
    where = plan.grow_in if plan.grow_in is not None and states != {"kept"} else plan.pull.root
    out.say(
        f"{pull.repo.titles(pull.quant.files)}: {pull.quant.name}, {count_text(len(pull.files), 'file')}, "
        f"{size_text(n_bytes)} to {where}, for {', '.join(runtimes)}"
    )
    report = pull_to(plan, progress)
    say_served(out, report.pulled.sources)
    _show(out, plan, report)
    return None


def _names(plan: ToPlan) -> list[object]:
    """Return what a script wants: what each runtime has the model under."""
    names: list[object] = [plan.ollama.name] if plan.ollama else []
    names += [plan.lmstudio.folder] if plan.lmstudio else []
    return [*names, *([plan.hf_cache.folder] if plan.hf_cache else [])]


def _plan_text(plan: ToPlan) -> str:
    if plan.merged is not None:
        text = plan_text(plan.merged)
    else:
        rows = [(size_text(f.size_bytes), f.state, f.target) for f in plan.pull.files]
        text = table(("SIZE", "ACTION", "FILE"), rows, right=[0])
        text += f"\n{size_text(plan.pull.needed_bytes)} to fetch, {size_text(plan.pull.free_bytes)} free"
    return "\n".join([text, *_place_lines(plan)])


def _place_lines(plan: ToPlan) -> list[str]:
    lines = []
    if plan.ollama is not None:
        how = f"copied, {size_text(plan.ollama.copy_bytes)} more" if plan.ollama.copy_bytes else "linked"
        lines.append(f"ollama: {plan.ollama.name} in {plan.ollama.place.store.root}, {how}")
    if plan.lmstudio is not None:
        more = plan.lmstudio.copy_bytes
        how = f"copied, {size_text(more)} more" if more else "linked"
        lines.append(f"lmstudio: {plan.lmstudio.folder}, {how}")
    if plan.hf_cache is not None:
        lines.append(f"hf-cache: {plan.hf_cache.repo(plan.pull.repo.ref.repo_id)}")
    return lines


def _document(plan: ToPlan) -> dict[str, object]:
    pull = plan.pull
    document: dict[str, object] = {
        "repo_id": pull.repo.ref.repo_id,
        "quant": pull.quant.name,
        "root": pull.root,
        "files": pull.files,
        "total_bytes": pull.total_bytes,
        "needed_bytes": pull.needed_bytes,
        "free_bytes": pull.free_bytes,
    }
    if plan.merged is not None:
        document = plan_document(plan.merged)
    return document | {
        "grow_in": plan.grow_in,
        "ollama": _fields(plan.ollama, "name", "action", "n_bytes", "copy_bytes", "warnings"),
        "lmstudio": _fields(plan.lmstudio, "folder", "user_repo", "files", "copy_bytes", "warnings"),
        "hf_cache": plan.hf_cache,
    }


def _fields(plan: object, *names: str) -> dict[str, object] | None:
    """Return what a script needs of an import's plan, without the headers that it was made from."""
    return {name: getattr(plan, name) for name in names} if plan is not None else None


def _show(out: Out, plan: ToPlan, report: ToReport) -> None:
    quiet: list[object] = []
    lines = [_pulled_line(plan, report)]
    steps = []
    warnings: list[str] = []
    if report.ollama is not None:
        done = "there already" if report.ollama.action == "nothing" else _how(report.ollama.extra_bytes)
        lines.append(f"ollama: {report.ollama.name} in {report.ollama.store} ({done})")
        warnings += report.ollama.warnings
        quiet.append(report.ollama.name)
        steps.append(f"ollama run {report.ollama.name}")
    if report.lmstudio is not None:
        done = _how(report.lmstudio.extra_bytes) if report.lmstudio.n_placed else "there already"
        lines.append(f"lmstudio: {report.lmstudio.folder} ({done})")
        quiet.append(report.lmstudio.folder)
        steps.append("lms ls")
    if report.hf_cache is not None:
        done = _how(report.hf_cache.extra_bytes) if report.hf_cache.n_placed else "there already"
        lines.append(f"hf-cache: {report.hf_cache.snapshot} ({done})")
        warnings += report.hf_cache.warnings
        quiet.append(report.hf_cache.snapshot)
        steps.append(f"llama-server -hf {report.pulled.repo_id}:{report.pulled.quant} --offline")
    for warning in dict.fromkeys(w for w in warnings if w not in plan.warnings):
        out.warn(warning)
    out.result(report, printable_lines("\n".join(lines)), quiet=quiet)
    out.hint("next: " + "; ".join(steps))


def _how(extra_bytes: int) -> str:
    return f"{size_text(extra_bytes)} more on the disk" if extra_bytes else "nothing more on the disk"


def _pulled_line(plan: ToPlan, report: ToReport) -> str:
    pulled = report.pulled
    n_bytes = plan.merged.n_bytes if plan.merged is not None else plan.pull.total_bytes
    states = {plan.merged.state} if plan.merged is not None else {f.state for f in plan.pull.files}
    done = ", ".join(word for state, word in SAID.items() if state in states)
    checked = f"{pulled.n_unproven} without a published digest" if pulled.n_unproven else "SHA-256 checked"
    what = str(report.files[0]) if len(report.files) == 1 else f"{len(report.files)} files in {pulled.root}"
    links = f" (links to {report.files[0].resolve().parent})" if report.files[0].is_symlink() else ""
    return f"{what}{links}: {size_text(n_bytes)} ({done}), {checked}"
