"""Parameter types and the options that mean the same in every command."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from ggufkit.cli.render import Out

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Size(click.ParamType[int]):
    """A size: `24GiB`, `24G`, `24GB`, `25769803776`.

    A bare letter means what the flag's field means by it: GiB for memory, GB where llama-gguf-split
    is followed. `GiB` and `GB` are always what they say.
    """

    name = "size"

    def __init__(self, *, letter_base: int, example: str) -> None:
        self.letter_base = letter_base
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write it like {self.example}", param, ctx)
        number, letter, suffix = match.groups()
        base = {"": self.letter_base, "b": 1000, "i": 1024, "ib": 1024}[suffix.lower()]
        n_bytes = int(float(number) * base ** _POWERS[letter.lower()])
        if n_bytes <= 0:
            self.fail(f"{value!r} is nothing; write it like {self.example}", param, ctx)
        return n_bytes


MEMORY_SIZE = Size(letter_base=1024, example="256G or 256GiB")
RATE = Size(letter_base=1000, example="76.8G or 76.8GB (a second)")
LIMIT_RATE = Size(letter_base=1024, example="20M (MiB a second, as curl has it)")
SHARD_SIZE = Size(letter_base=1000, example="48G (decimal, as llama-gguf-split has it) or 45GiB")


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, -q and -v, and pass the command an `out: Out`."""

    @click.option("--json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only what a script wants.")
    @click.option("-v", "--verbose", is_flag=True, help="Tell more on stderr.")
    def wrapped(json: bool, quiet: bool, verbose: bool, **arguments: Any) -> Any:
        return command(out=Out(as_json=json, quiet=quiet, verbose=verbose), **arguments)

    return functools.update_wrapper(wrapped, command)


dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Say what would be done; write nothing.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
model_argument = click.argument("model", required=False, metavar="[MODEL]")


class _Words(click.Option):
    """An option given several times, or once with commas; a config file may have one word or a list."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the words with commas between, as the library takes them."""
        words = (value,) if isinstance(value, str) else value
        return ",".join(super().type_cast_value(ctx, words))


source_option = click.option(
    "--source",
    cls=_Words,
    multiple=True,
    default=("auto",),
    metavar="WHERE",
    help="Where to ask: auto (both hubs), hf, modelscope, a mirror's URL; may be repeated. [auto]",
)
