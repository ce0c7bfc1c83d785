"""`ggufkit split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import SHARD_SIZE, dry_run_option, force_option, model_argument, output_options
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import UsageError, printable

if TYPE_CHECKING:
    from ggufkit.verbs.split import SplitPlan, SplitReport


@click.command("split", short_help="Cut a file into shards.")
@model_argument
@click.option("--max-size", type=SHARD_SIZE, metavar="SIZE", help="Tensor data in a shard at most, e.g. 48G.")
@click.option("--max-tensors", type=click.IntRange(1), metavar="N", help="Tensors in a shard at most. [128]")
@click.option("--no-tensor-first", is_flag=True, help="Put only metadata into the first shard.")
@click.option("--restore", is_flag=True, help="Give back the shards that it was merged from.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Where they go.")
@force_option
@dry_run_option
@output_options
def command(
    out: Out,
    model: str | None,
    max_size: int | None,
    max_tensors: int | None,
    no_tensor_first: bool,
    restore: bool,
    output: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Cut a file into shards.

    \b
    Examples:
      ggufkit split model.gguf --max-size 48G
      ggufkit split model.gguf --max-tensors 256 -o shards
      ggufkit split model.gguf --restore

    The shards are those of llama-gguf-split, byte for byte. They go into a folder called like the
    model, beside it. The file itself is only read.

    --restore gives back the very shards that were published, where they lay: a pull and a merge keep
    their headers. Each is proven against its digest, where that is known.
    """
    from ggufkit.verbs.locate import find_model
    from ggufkit.verbs.split import plan_split, split

    found = find_model(model)
    if model is None:
        out.say(f"model: {found.files[0]}")
    if restore:
        if max_size or max_tensors or no_tensor_first:
            raise UsageError("--restore takes no sizes", hint="the shards are as they were published")
        from ggufkit.verbs.restore import plan_restore

        plan = plan_restore(found, output=output, force=force)
    else:
        plan = plan_split(
            found,
            max_tensors=max_tensors,
            max_bytes=max_size,
            no_tensor_first=no_tensor_first,
            output=output,
            force=force,
        )
    if dry_run:
        _show_plan(out, plan)
    else:
        _show_report(out, split(plan, out.progress()))


def _show_plan(out: Out, plan: SplitPlan) -> None:
    rows = [
        (size_text(j.layout.n_bytes), "there" if j.target in plan.existing else "write", j.target)
        for j in plan.jobs
    ]
    text = table(("SIZE", "ACTION", "FILE"), rows, right=[0])
    text += f"\n{size_text(plan.n_bytes)} in all, {size_text(plan.free_bytes)} free"
    sizes = zip(plan.paths, plan.jobs, strict=True)
    document = {"shards": [{"path": path, "n_bytes": job.layout.n_bytes} for path, job in sizes]}
    out.say("[dry run] nothing is written")
    out.result(document, text, quiet=plan.paths)


def _show_report(out: Out, report: SplitReport) -> None:
    where = report.shards[0].path.parent
    done = "there already" if report.already else f"in {report.seconds:.1f} s"
    text = f"{count_text(len(report.shards), 'shard')} in {where}: {size_text(report.n_bytes)}, {done}"
    out.result(report, printable(text), quiet=[s.path for s in report.shards])
