"""`ggufkit inspect`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.at_hand import model_headers
from ggufkit.cli.params import model_argument, output_options, source_option
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import UsageError

if TYPE_CHECKING:
    from ggufkit.gguf.stats import Share
    from ggufkit.verbs.locate import LoadedModel
    from ggufkit.verbs.lookup import TensorRow

EVERYTHING = ""
"""The pattern that fits every name: the flag was given without one."""


@click.command("inspect", short_help="Show what is in a GGUF.")
@model_argument
@click.option(
    "--tensors",
    is_flag=False,
    flag_value=EVERYTHING,
    metavar="[PATTERN]",
    help="List the tensors, or those with PATTERN in the name.",
)
@click.option("--layers", is_flag=True, help="List the layers: size, bits per weight, tensor types.")
@click.option(
    "--metadata",
    is_flag=False,
    flag_value=EVERYTHING,
    metavar="[PATTERN]",
    help="List the KV metadata, or those with PATTERN in the key.",
)
@click.option("--key", metavar="KEY", help="Print one value, whole; of an array one element a line.")
@click.option("--template", is_flag=True, help="Print the chat template as it is, never rendered.")
@click.option("--all", "all_elements", is_flag=True, help="With --json: long arrays too.")
@click.option("--one-file", is_flag=True, help="Look at this file alone, not at its set of shards.")
@source_option
@output_options
def command(
    out: Out,
    model: str | None,
    tensors: str | None,
    layers: bool,
    metadata: str | None,
    key: str | None,
    template: bool,
    all_elements: bool,
    one_file: bool,
    source: str,
) -> None:
    """Show what is in a GGUF.

    \b
    Examples:
      ggufkit inspect model.gguf
      ggufkit inspect unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS
      ggufkit inspect DeepSeek-R1-GGUF --tensors 'blk.3.*exps*'
      ggufkit inspect model.gguf --key general.quantized_by
      ggufkit inspect model.gguf --template

    MODEL is a file, a folder, any shard (its whole set is shown as one model), or a repo on a hub, of
    which only the headers are fetched. Left out, it is the model at hand.

    -q prints the architecture and the quant in one line (deepseek2 IQ2_XXS), of a list only the names.
    --json has everything but the tensors (add --tensors) and arrays of more than 16 elements (add
    --all). Text has its control characters escaped; --json has it as it is.

    Only headers are read: whether the data are sound, ggufkit verify tells.
    """
    views = (tensors is not None, layers, metadata is not None, key is not None, template)
    if sum(views) > 1:
        raise UsageError("--tensors, --layers, --metadata, --key and --template: one at a time")
    model, tensors = _untangled(model, tensors)
    model, metadata = _untangled(model, metadata)
    loaded = _load(out, model, source, one_file)
    if key is not None or template:
        _show_value(out, loaded, key)
    elif metadata is not None and not out.as_json:
        _show_metadata(out, loaded, metadata)
    elif tensors is not None and not out.as_json:
        _show_tensors(out, loaded, tensors)
    else:
        _show_model(out, loaded, tensors, metadata or EVERYTHING, all_elements, layers)


def _untangled(model: str | None, pattern: str | None) -> tuple[str | None, str | None]:
    """Take the pattern for the MODEL in `inspect --tensors MODEL`: no tensor or key looks like a path."""
    if model is None and pattern and ("/" in pattern or pattern.endswith(".gguf") or Path(pattern).exists()):
        return pattern, EVERYTHING
    return model, pattern


def _load(out: Out, model: str | None, source: str, one_file: bool) -> LoadedModel:
    from ggufkit.verbs.inspect import load_one, warnings_of

    if one_file and model is None:
        raise UsageError("--one-file needs the file's name", hint="ggufkit inspect FILE --one-file")
    loaded = load_one(Path(model)) if one_file and model else model_headers(out, model, source)
    for warning in warnings_of(loaded.headers):
        out.warn(warning)
    return loaded


def _show_value(out: Out, loaded: LoadedModel, key: str | None) -> None:
    from ggufkit.cli.inspect_text import raw_text
    from ggufkit.verbs.lookup import chat_template, find_entry

    first = loaded.headers[0]
    entry = chat_template(first) if key is None else find_entry(first, key)
    text, n_escaped = raw_text(entry)
    if n_escaped and not out.as_json:
        out.warn(f"{count_text(n_escaped, 'control character')} escaped; --json has them as they are")
    dataclasses.replace(out, quiet=False).result(entry, text)


def _show_metadata(out: Out, loaded: LoadedModel, pattern: str) -> None:
    from ggufkit.cli.inspect_text import SHOWN_ELEMENTS, type_text, value_text
    from ggufkit.gguf.header import shown
    from ggufkit.verbs.lookup import entries

    first = loaded.headers[0]
    found = entries(first, pattern, limit=0)
    starts = [first.array(entry.key, SHOWN_ELEMENTS) for entry in found]
    rows = [
        (shown(e.key), type_text(e), value_text(e, start)) for e, start in zip(found, starts, strict=True)
    ]
    out.result(None, table(("KEY", "TYPE", "VALUE"), rows), quiet=[entry.key for entry in found])


def _show_tensors(out: Out, loaded: LoadedModel, pattern: str) -> None:
    from ggufkit.verbs.lookup import tensor_rows

    found = tensor_rows(loaded.headers, pattern)
    headings = ("NAME", "TYPE", "SHAPE", "SIZE", "SHARD")
    n = len(headings) if len(loaded.headers) > 1 else len(headings) - 1
    rows = [(t.name, t.type, list(t.shape), size_text(t.n_bytes), t.shard)[:n] for t in found]
    out.result(None, table(headings[:n], rows, right=[3, 4]), quiet=_names(found))
    n_all = sum(len(header.tensors) for header in loaded.headers)
    total = size_text(sum(t.n_bytes for t in found))
    out.say(f"{len(found):,} of {count_text(n_all, 'tensor')}, {total}")


def _show_model(
    out: Out, loaded: LoadedModel, tensors: str | None, metadata: str, all_elements: bool, layers: bool
) -> None:
    from ggufkit.cli.inspect_text import shares_table, summary_text
    from ggufkit.verbs.inspect import inspect

    found = inspect(loaded, tensors=tensors, metadata=metadata, all_elements=all_elements)
    if out.as_json:
        out.result(found, "")
    elif layers:
        blocks = found.statistics.by_block
        out.result(None, shares_table("LAYER", blocks), quiet=_names(blocks))
    else:
        line = f"{found.model.architecture or '-'} {found.model.file_type or '-'}"
        out.result(None, summary_text(found), quiet=[line])


def _names(found: Sequence[Share | TensorRow]) -> list[str]:
    return [row.name for row in found]
