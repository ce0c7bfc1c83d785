"""What the next command is called with."""

from __future__ import annotations

import shlex
from pathlib import Path


def with_model(command: str, path: Path) -> str:
    """Return `command` with a model's file, unless it means that one by itself, typed here."""
    from ggufkit.errors import GgufkitError
    from ggufkit.verbs.locate import find_model

    try:
        by_itself = find_model().files[0].samefile(path)
    except (GgufkitError, OSError):
        by_itself = False
    return command if by_itself else f"{command} {shlex.quote(str(path))}"
