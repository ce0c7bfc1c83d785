"""`ggufkit doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import output_options
from ggufkit.cli.render import Out, count_text
from ggufkit.errors import UsageError, printable

if TYPE_CHECKING:
    from ggufkit.runtimes.lmstudio_folder import Move
    from ggufkit.verbs.doctor import DoctorReport, State

MARKS: dict[State, str] = {"good": "ok", "note": "note", "bad": "BAD"}


@click.command("doctor", short_help="Say what is wrong with this set-up.")
@click.option("--fix", is_flag=True, help="Move what lies wrong in LM Studio's folder, after asking.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask before --fix moves files.")
@click.option("--offline", is_flag=True, help="Ask no hub.")
@click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="LM Studio's models folder, if not the one in its settings.",
)
@output_options
@click.pass_context
def command(
    ctx: click.Context, /, out: Out, fix: bool, yes: bool, offline: bool, models_dir: Path | None
) -> None:
    """Say what is wrong with this set-up.

    \b
    Examples:
      ggufkit doctor
      ggufkit doctor --fix
      ggufkit doctor --offline --json

    Looks at the hubs (reachable, tokens), the disk, Ollama's store, LM Studio's models folder (files that
    it passes over, shards apart from each other, links to nothing, misnamed projectors, missing shards)
    and llama-server. Changes nothing without --fix, which only renames within LM Studio's folder.

    Exits with 0 when nothing is bad, else with the code of the first thing that is: 4 access, 5 no hub,
    7 LM Studio's folder, 10 another program. -q prints what is bad.
    """
    from ggufkit.verbs.doctor import examine, mend

    report = examine(models_dir=models_dir, network=not offline, progress=out.progress())
    if fix and report.moves:
        _show(out, report)
        moves = report.moves
        _plan(out, moves)
        _confirm(out, len(moves), yes)
        made = mend(report)
        out.say(f"{count_text(len(made), 'file')} moved")
        report = examine(models_dir=models_dir, network=False)
    bad = [finding for finding in report.findings if finding.state == "bad"]
    lines = _lines(report)
    out.result(report, "\n".join(lines), quiet=[finding.text for finding in bad])
    if not bad and not out.as_json:
        out.hint("nothing is bad")
    ctx.exit(bad[0].exit_code if bad else 0)


def _lines(report: DoctorReport) -> list[str]:
    lines = []
    for finding in report.findings:
        lines.append(f"{MARKS[finding.state]:4}  {finding.area:9}  {printable(finding.text)}")
        if finding.mend:
            lines.append(f"{'':17}{printable(finding.mend)}")
    return lines


def _show(out: Out, report: DoctorReport) -> None:
    for line in _lines(report):
        out.say(line)


def _plan(out: Out, moves: tuple[Move, ...]) -> None:
    for move in moves:
        out.say(f"remove {move.source}" if move.target is None else f"move {move.source}\n  to {move.target}")


def _confirm(out: Out, n_moves: int, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or out.quiet:
        raise UsageError("--fix would move files, and nobody can be asked", hint="--fix --yes")
    click.confirm(f"{count_text(n_moves, 'change')}: go on?", default=False, abort=True, err=True)
