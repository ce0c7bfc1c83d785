"""What a person or a script sees: the only code that knows a terminal."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

import click

from ggufkit.errors import printable
from ggufkit.progress import SILENT, Progress

SCHEMA = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Out:
    """How a command answers: for people, as one JSON document, or as the one thing a script wants."""

    as_json: bool = False
    """Print one JSON document instead of text."""
    quiet: bool = False
    """Print only the one thing a script wants; no talk."""
    verbose: bool = False
    """Tell more on stderr."""

    def result(self, document: Any, text: str, *, quiet: Iterable[object] = ()) -> None:
        """Answer on stdout: `document` with --json, the lines of `quiet` with -q, else `text`."""
        if self.as_json:
            click.echo(to_json(document))
        elif self.quiet:
            for line in quiet:
                click.echo(printable(str(line)))
        elif text:
            click.echo(text)

    def say(self, text: str) -> None:
        """Tell something on stderr; names from files and hubs are made harmless."""
        self._tell(printable_lines(text))

    def detail(self, text: str) -> None:
        """Tell something on stderr, when -v was given."""
        if self.verbose:
            self.say(text)

    def warn(self, text: str) -> None:
        """Warn on stderr."""
        self._tell(click.style("warning: ", fg="yellow") + printable(text))

    def hint(self, text: str) -> None:
        """Name the next step on stderr."""
        self._tell(click.style(text, dim=True))

    def _tell(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def progress(self) -> Progress:
        """Return a listener that shows progress on stderr, or hears nothing with -q."""
        if self.quiet:
            return SILENT
        from ggufkit.cli.bars import terminal_progress

        return terminal_progress()


def print_error(message: str, *, hint: str | None = None, color: bool | None = None) -> None:
    """Print an error and its hint on stderr, with names from files and hubs made harmless.

    `color` None lets the stream decide.
    """
    click.echo(click.style("error: ", fg="red") + printable_lines(message), err=True, color=color)
    if hint:
        click.echo(click.style("hint: ", dim=True) + printable_lines(hint), err=True, color=color)


def printable_lines(text: str) -> str:
    """Escape control characters, but keep the lines that a text has."""
    return "\n".join(printable(line) for line in text.split("\n"))


def to_json(document: Any) -> str:
    """Return one JSON document: dataclasses as objects, `schema` first."""
    value = jsonable(document)
    if isinstance(value, dict):
        value = {"schema": SCHEMA, **value}
    return json.dumps(value, indent=2, ensure_ascii=False)


def jsonable(value: Any) -> Any:
    """Turn dataclasses, paths and enums into what JSON knows; nulls are kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [jsonable(v) for v in value]
    return value


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Iterable[int] = ()) -> str:
    """Return a table: two spaces between columns, columns in `right` right-aligned.

    On a terminal the widest text column is shrunk to fit; elsewhere nothing is cut.
    """
    cells = [list(headers), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(display_width(row[i]) for row in cells) for i in range(len(headers))]
    right = set(right)
    _shrink(widths, right)
    lines = (
        "  ".join(_fit(c, w, i in right) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _shrink(widths: list[int], right: set[int]) -> None:
    if not sys.stdout.isatty():
        return
    spare = shutil.get_terminal_size().columns - sum(widths) - 2 * (len(widths) - 1)
    texts = [i for i in range(len(widths)) if i not in right]
    if spare < 0 and texts:
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] = max(12, widths[widest] + spare)


def _fit(cell: str, width: int, right: bool) -> str:
    if display_width(cell) > width:
        cell = _cut(cell, width - 1) + "…"
    space = " " * (width - display_width(cell))
    return space + cell if right else cell + space


def _cut(text: str, width: int) -> str:
    """Return the beginning of `text` that takes at most `width` columns."""
    for i, character in enumerate(text):
        width -= display_width(character)
        if width < 0:
            return text[:i]
    return text


def shortened(text: str, width: int, ellipsis_: str = "…") -> str:
    """Return `text` in at most `width` cells of a terminal, its middle left out if it has to be; or ""."""
    if display_width(text) <= width:
        return text
    rest = width - len(ellipsis_)
    if rest < 2:
        return ""
    return _cut(text, rest - rest // 2) + ellipsis_ + _cut(text[::-1], rest // 2)[::-1]


def display_width(text: str) -> int:
    """Return the columns that `text` takes on a terminal (CJK characters take two)."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def size_text(n_bytes: float) -> str:
    """Return a size for people: binary units, one decimal."""
    if n_bytes < 1024:
        return f"{int(n_bytes)} B"
    for unit in ("KiB", "MiB", "GiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} TiB"


def gb_text(n_bytes: int) -> str:
    """Return a size in GiB with the decimal GB in brackets: the field mixes the two up."""
    if n_bytes < 1 << 30:
        return f"{n_bytes / 2**20:.1f} MiB ({n_bytes / 1e6:.1f} MB)"
    return f"{n_bytes / 2**30:.1f} GiB ({n_bytes / 1e9:.1f} GB)"


def count_text(n: int, thing: str, things: str | None = None) -> str:
    """Return `1 file`, `3 files`."""
    return f"{n:,} {thing if n == 1 else things or thing + 's'}"
