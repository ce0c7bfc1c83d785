"""`ggufkit lmstudio-import`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.at_hand import model_here
from ggufkit.cli.params import dry_run_option, model_argument, output_options
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import UsageError

if TYPE_CHECKING:
    from ggufkit.transfer.disk import Method
    from ggufkit.verbs.lmstudio_import import PlacePlan, PlaceReport


@click.command("lmstudio-import", short_help="Put a model where LM Studio looks.")
@model_argument
@click.option(
    "--user-repo",
    metavar="USER/REPO",
    help="Publisher and model to file it under; else the repo it was pulled from, or what the file says.",
)
@click.option("-c", "--copy", "method", flag_value="copy", help="Copy the files even where links would do.")
@click.option("-L", "--hard-link", "method", flag_value="hard-link", help="Link or fail; never copy.")
@click.option(
    "-l", "--symbolic-link", "method", flag_value="symbolic-link", help="Link by name, across disks too."
)
@click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="LM Studio's models folder, if not the one in its settings.",
)
@click.option(
    "--defaults",
    is_flag=True,
    help="Also tell LM Studio how to load it: a context that fits, R1's temperature; your own settings stay.",
)
@click.option(
    "--ctx-size",
    "context_tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="With --defaults: tokens of context; 0: the model's own.",
)
@click.option("--undo", metavar="USER/REPO", help="Take an import back; the files stay where they came from.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask whether a guessed USER/REPO is right.")
@dry_run_option
@output_options
def command(
    out: Out,
    model: str | None,
    user_repo: str | None,
    method: Method | None,
    models_dir: Path | None,
    defaults: bool,
    context_tokens: int | None,
    undo: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Put a model where LM Studio looks.

    \b
    Examples:
      ggufkit lmstudio-import
      ggufkit lmstudio-import DeepSeek-R1-GGUF --user-repo unsloth/DeepSeek-R1-GGUF
      ggufkit lmstudio-import model-00001-of-00004.gguf --dry-run
      ggufkit lmstudio-import --undo unsloth/DeepSeek-R1-GGUF

    MODEL is a GGUF file, any shard or a folder; left out, the model at hand. All files of the set go
    to <models>/USER/REPO/, where LM Studio finds them: hard links, so the bytes are on the disk once;
    copies across disks. Shards need no merging, and the first comes last: LM Studio sees a whole set.

    Keep the files as they are: the two names are one file. What is removed in LM Studio stays here.
    """
    from ggufkit.runtimes.lmstudio import find_home, find_models
    from ggufkit.verbs.lmstudio_import import lmstudio_import, plan_lmstudio_import, with_defaults

    if context_tokens is not None and not defaults:
        raise UsageError("--ctx-size is one of the defaults", hint="add --defaults")
    if undo is not None:
        return _undo(out, undo, model, models_dir, dry_run)
    found = model_here(out, model)
    place = find_models(models_dir=models_dir, environ=os.environ)
    out.say(f"models folder: {place.folder} ({place.found_by})")
    plan = plan_lmstudio_import(found, place, user_repo=user_repo, method=method or "auto")
    if defaults:
        plan = with_defaults(plan, find_home(Path.home()), context_tokens)
    for warning in plan.warnings:
        out.warn(warning)
    if dry_run:
        return _show_plan(out, plan)
    if not yes:
        _confirm_guess(out, plan)
    _show_report(out, lmstudio_import(plan, out.progress()))
    return None


def _undo(out: Out, user_repo: str, model: str | None, models_dir: Path | None, dry_run: bool) -> None:
    from ggufkit.runtimes.lmstudio import find_models
    from ggufkit.verbs.lmstudio_undo import plan_lmstudio_undo, undo_lmstudio_import

    if model is not None:
        raise UsageError("--undo takes USER/REPO, and no file", hint=f"--undo {user_repo} alone")
    plan = plan_lmstudio_undo(user_repo, find_models(models_dir=models_dir, environ=os.environ))
    for warning in plan.warnings:
        out.warn(warning)
    lines = [f"return  {source}" for _, source in plan.give_back]
    lines += [f"remove  {path}" for path in plan.remove]
    lines += [f"restore {plan.defaults}"] if plan.defaults else []
    if dry_run:
        out.say("[dry run] nothing is written")
    else:
        undo_lmstudio_import(plan, out.progress())
    out.result(plan, "\n".join(lines), quiet=plan.remove)


def _confirm_guess(out: Out, plan: PlacePlan) -> None:
    """Ask on a terminal whether a guess is right; elsewhere only say it, for nothing is lost by it."""
    if plan.user_repo.found_by in ("--user-repo", "pull"):
        return
    out.say(
        f"filed under {plan.user_repo} (a guess by the {plan.user_repo.found_by}; --user-repo says better)"
    )
    if sys.stdin.isatty() and sys.stderr.isatty() and not out.quiet:
        click.confirm("go on?", default=True, abort=True, err=True)


def _show_plan(out: Out, plan: PlacePlan) -> None:
    does = {"present": "there", "compare": "compare", "place": plan.method.replace("auto", "hard-link")}
    if plan.copy_bytes and plan.method == "auto":
        does["place"] = "copy"
    rows = [(does[file.state], size_text(file.n_bytes), file.target) for file in plan.files]
    if plan.defaults:
        rows.append(("write", size_text(len(plan.defaults_text.encode())), plan.defaults))
    room = f"{size_text(plan.copy_bytes)} to copy, {size_text(plan.free_bytes)} free"
    out.say("[dry run] nothing is written")
    out.result(
        plan, table(["ACTION", "SIZE", "FILE"], rows, right=[1]) + f"\n{room}", quiet=[f[2] for f in rows]
    )


def _show_report(out: Out, report: PlaceReport) -> None:
    files = f"{count_text(len(report.files), 'file')}, {size_text(report.n_bytes)}"
    if report.n_placed == 0:
        text = f"{report.user_repo} is there already: {files} in {report.folder}"
    else:
        how = " and ".join(method.replace("-", " ") for method in report.methods)
        text = f"{report.user_repo}: {files} in {report.folder} ({how}, {size_text(report.extra_bytes)} more)"
    out.result(report, text, quiet=report.files)
    out.hint("next: LM Studio lists it under My Models (refresh it if it runs)")
