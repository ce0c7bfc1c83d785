"""`ggufkit quants`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import output_options, source_option
from ggufkit.cli.render import Out, gb_text, table
from ggufkit.errors import printable

if TYPE_CHECKING:
    from ggufkit.hubs.quants import Quant


@click.command("quants", short_help="List the quants of a repo on the hubs.")
@click.argument("ref", metavar="REF")
@source_option
@output_options
def command(out: Out, ref: str, source: str) -> None:
    """List the quants of a repo on the hubs.

    \b
    Examples:
      ggufkit quants unsloth/DeepSeek-R1-GGUF
      ggufkit quants ms:unsloth/DeepSeek-R1-GGUF --json
      ggufkit quants unsloth/DeepSeek-R1-GGUF --source http://nas:8090

    REF is owner/name; hf: or ms: before it asks one hub, @revision after it asks for a revision.
    """
    from ggufkit.verbs.listing import quants

    out.say(f"asking for {printable(ref)}")
    report = quants(ref, source=source, progress=out.progress())
    text = quants_table(report.quants)
    endpoints = dict.fromkeys(source.endpoint for source in report.sources)
    out.say(f"{report.repo_id} on {', '.join(endpoints)}")
    out.result(report, text, quiet=[q.name for q in report.quants])


def quants_table(quants: Sequence[Quant]) -> str:
    """Return the quants of a repo as a table, with the places that have each when there are several."""
    rows = []
    several = len({word for quant in quants for word in quant.sources}) > 1
    for quant in quants:
        n_files = len(quant.files)
        note = f"missing {len(quant.missing)} of {quant.n_shards}" if quant.missing else ""
        if quant.kind == "raw":
            note = "raw parts" if not note else f"raw parts, {note}"
        where = [", ".join(quant.sources)] if several else []
        rows.append((quant.name, gb_text(quant.total_bytes), n_files, *where, note, quant.folder or "."))
    head = ("QUANT", "SIZE", "FILES", *(["SOURCE"] if several else []), "NOTE", "FOLDER")
    return table(head, rows, right=[1, 2])
