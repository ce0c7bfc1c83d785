"""`ggufkit verify`."""

from __future__ import annotations

import click

from ggufkit.cli.params import model_argument, output_options
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import IntegrityError


@click.command("verify", short_help="Check files against what the hub published.")
@model_argument
@click.option("--strict", is_flag=True, help="Fail when a file's digest was never published.")
@output_options
def command(out: Out, model: str | None, strict: bool) -> None:
    """Check files against what the hub published.

    \b
    Examples:
      ggufkit verify
      ggufkit verify DeepSeek-R1-GGUF
      ggufkit verify model-00002-of-00004.gguf --json

    Reads every byte and compares with the digests that `pull` recorded; no network is used. A file
    whose digest nobody published is "unproven", which is not "ok": with --strict that fails too.
    """
    from ggufkit.verbs.verify import verify

    report = verify(model, out.progress())
    rows = [
        (check.status, "-" if check.size_bytes is None else size_text(check.size_bytes), check.path)
        for check in report.files
    ]
    text = table(("STATUS", "SIZE", "FILE"), rows, right=[1])
    faults = report.faults + (report.unproven if strict else ())
    good = len(report.files) - len(report.faults) - len(report.unproven)
    if good:
        text += f"\n{good} of {count_text(len(report.files), 'file')} verified, SHA-256 checked"
    out.result(report, text, quiet=[check.path for check in faults])
    if faults:
        lines = "\n".join(f"  {check.path}: {check.detail}" for check in faults)
        hint = None
        if report.repo_id is not None:
            hint = f"ggufkit pull {report.repo_id} --quant {report.quant} fetches what is wrong"
        what = f"{len(faults)} of {count_text(len(report.files), 'file')} not what was published"
        raise IntegrityError(f"{what}:\n{lines}", hint=hint)
