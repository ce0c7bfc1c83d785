"""What a pull may take of the line, and who served it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.params import LIMIT_RATE
from ggufkit.cli.render import Out, size_text

if TYPE_CHECKING:
    from ggufkit.verbs.listing import Served

CONNECTIONS = 4
"""Streams at a time; the library's own number, which help must show without loading it."""
MAX_CONNECTIONS = 32
"""More are taken for an attack by the hubs' CDNs, and are no faster."""


def line_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --connections and --limit-rate."""
    connections = click.option(
        "--connections",
        type=click.IntRange(1, MAX_CONNECTIONS),
        default=CONNECTIONS,
        show_default=True,
        metavar="N",
        help="Most streams at a time, over all sources.",
    )
    limit = click.option(
        "--limit-rate", type=LIMIT_RATE, metavar="RATE", help="Take at most so much a second, e.g. 20M."
    )
    return connections(limit(command))


def say_served(out: Out, sources: Sequence[Served]) -> None:
    """Say which source served what."""
    if sources:
        out.say("from " + ", ".join(f"{one.title}: {size_text(one.n_bytes)}" for one in sources))
