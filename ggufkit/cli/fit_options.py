"""The flags of `ggufkit fit` that say which machine a model is judged for, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ggufkit.cli.params import MEMORY_SIZE, RATE

_OPTIONS = (
    click.option(
        "--ram", type=MEMORY_SIZE, metavar="SIZE", help="Memory built in; left out, this machine's."
    ),
    click.option(
        "--machine",
        "machines",
        multiple=True,
        metavar="NAME",
        help="A machine of ggufkit machine --list, in place of this one; several are compared.",
    ),
    click.option(
        "--bandwidth",
        type=RATE,
        metavar="RATE",
        help="Theoretical bandwidth of the memory, e.g. 76.8G: GB/s.",
    ),
    click.option(
        "--gpu-bandwidth",
        type=RATE,
        metavar="RATE",
        help="Theoretical bandwidth of a GPU's memory, e.g. 448G: GB/s.",
    ),
    click.option(
        "--disk-speed",
        type=RATE,
        metavar="RATE",
        help="How fast the model's disk is read, e.g. 3G: GB/s.",
    ),
    click.option(
        "--calibrate",
        metavar="TOKENS/S|FILE|off",
        help="Remember how fast MODEL really is here: its speed, or a result file of ggufkit bench.",
    ),
    click.option(
        "--min-speed",
        type=click.FloatRange(0, 1e6),
        default=1.0,
        show_default=True,
        metavar="TOKENS/S",
        help="What the best choice of several quants should reach.",
    ),
    click.option(
        "--plot",
        "picture",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Draw the table into a picture: FILE.png or FILE.svg.",
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite the picture that is there."),
)


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --ram, --machine, --bandwidth and the others that rest on them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
