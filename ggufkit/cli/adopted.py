"""What `pull` says of files that other programs left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.render import size_text

if TYPE_CHECKING:
    from ggufkit.verbs.pull import PulledFile

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


def adopt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --adopt and --no-adopt."""
    more = "Take over what lies in DIR too (a browser's downloads); may be repeated."
    off = "Fetch all anew: leave what other programs left."
    adopt = click.option("--adopt", "adopt_dirs", type=FOLDER, multiple=True, metavar="DIR", help=more)
    return adopt(click.option("--no-adopt", is_flag=True, help=off)(command))


def adopted_text(files: Sequence[PulledFile]) -> str:
    """Return a line per file that is taken over: how much of it, where from and how; empty for none."""
    return "".join(f"\n{_line(file)}" for file in files if file.adopted is not None)


def _line(file: PulledFile) -> str:
    assert file.adopted is not None
    adopted = file.adopted
    origins = ", ".join(str(path) for path in adopted.origins[:3])
    if adopted.whole is not None:
        how = "copied" if adopted.copied_bytes else "linked, no second copy"
    else:
        how = "its good part is kept" if adopted.in_place else "copied, proven with the rest"
    return f"{size_text(adopted.n_bytes)} of {file.target.name} from {origins} ({how})"
