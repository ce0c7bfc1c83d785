"""`ggufkit verify`."""

from __future__ import annotations

import shlex
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
@click.option("--against", metavar="REF|MANIFEST", help="What the files should be; asks the hub for a REF.")
@click.option("--strict", is_flag=True, help="Fail when a file's digest was never published.")
@output_options
def command(out: Out, model: str | None, against: str | None, strict: bool) -> None:
    """Check files against what the hub published.

    \b
    Examples:
      ggufkit verify
      ggufkit verify DeepSeek-R1-GGUF
      ggufkit verify model-00002-of-00004.gguf --json
      ggufkit verify ~/Downloads --against unsloth/DeepSeek-R1-GGUF:UD-IQ1_S

    Reads every byte and compares with the digests that `pull` recorded; no network is used. Of a file
    that is wrong it says why, and names the command that mends it. A file whose digest nobody
    published is "unproven", which is not "ok": with --strict that fails too.

    Files that ggufkit did not pull are compared with what --against names: a repo on a hub, or a
    manifest. For files that it did pull that tells whether the hub has changed them since.
    """
    from ggufkit.verbs.verify import verify

    report = verify(model, out.progress(), against=against)
    if model is None and report.files:
        out.say(f"model: {report.files[0].path.parent / report.name}")
    faults = report.faults or (report.unproven if strict else ())
    out.result(report, _text(report), quiet=[check.path for check in faults])
    if faults:
        raise _failure(report, faults)


def _text(report: VerifyReport) -> str:
    rows = [
        (
            check.cause or check.status,
            "-" if check.size_bytes is None else size_text(check.size_bytes),
            check.path,
        )
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
    hint = _hint(report, faults)
    if not report.recorded and first.status != "unproven":
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return FormatError(str(first.path), first.detail + more, hint=hint)
    lines = "\n".join(f"  {check.path}: {check.detail}" for check in faults)
    what = "unproven (--strict)" if first.status == "unproven" else "not what was published"
    files = count_text(len(report.files), "file")
    return IntegrityError(f"{len(faults)} of {files} {what}:\n{lines}", hint=hint)


def _hint(report: VerifyReport, faults: Sequence[FileCheck]) -> str | None:
    if not report.faults:
        return None
    if report.recorded:
        return f"{report.remedy} fetches what is wrong" if report.remedy else None
    if report.remedy:
        return f"{report.remedy} gives it back its name"
    if all(check.cause == "lfs-pointer" for check in faults):
        return "git lfs pull, in its folder, fetches it; so does ggufkit pull REF --local-dir FOLDER"
    folder = shlex.quote(str(faults[0].path.parent))
    return f"ggufkit verify {folder} --against REF says more, and what mends it"
