"""`ggufkit verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import model_argument, output_options
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import FormatError, GgufkitError, IntegrityError

if TYPE_CHECKING:
    from ggufkit.verbs.verify import FileCheck, VerifyReport


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
    if model is None:
        out.say(f"model: {report.files[0].path.parent / report.name}")
    faults = report.faults or (report.unproven if strict else ())
    out.result(report, _text(report), quiet=[check.path for check in faults])
    if faults:
        raise _failure(report, faults)


def _text(report: VerifyReport) -> str:
    rows = [
        (check.status, "-" if check.size_bytes is None else size_text(check.size_bytes), check.path)
        for check in report.files
    ]
    text = table(("STATUS", "SIZE", "FILE"), rows, right=[1])
    files = count_text(len(report.files), "file")
    n_good = len(report.files) - len(report.faults) - len(report.unproven)
    if n_good:
        text += f"\n{n_good} of {files} verified, SHA-256 checked"
    if report.unproven:
        text += f"\n{len(report.unproven)} of {files} unproven: {report.unproven[0].detail}"
    return text


def _failure(report: VerifyReport, faults: Sequence[FileCheck]) -> GgufkitError:
    """Return the error for what is wrong; of files that nobody recorded only the format can be."""
    first = faults[0]
    if not report.recorded and first.status != "unproven":
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return FormatError(str(first.path), first.detail + more)
    lines = "\n".join(f"  {check.path}: {check.detail}" for check in faults)
    what = "unproven (--strict)" if first.status == "unproven" else "not what was published"
    hint = f"{report.remedy} fetches what is wrong" if report.remedy and report.faults else None
    files = count_text(len(report.files), "file")
    return IntegrityError(f"{len(faults)} of {files} {what}:\n{lines}", hint=hint)
