"""Whether there is room for what is to be written, and a folder that it can lie in."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ggufkit.errors import UsageError


def room_text(need_bytes: int, free_bytes: int, *, what: str = "to write", kept_bytes: int = 0) -> str:
    """Return what is needed, what is free (of which `kept_bytes` are not to be used), and what is missing."""
    kept = f" ({_size(kept_bytes)} of it are kept free)" if kept_bytes else ""
    short = need_bytes + kept_bytes - free_bytes
    return f"{_size(need_bytes)} {what}, {_size(free_bytes)} free{kept}: {_size(short, up=True)} short"


def check_folder(folder: Path) -> None:
    """Raise UsageError when `folder`, which --output named, can't be made because there is a file."""
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    if there is not None and not there.is_dir():
        raise UsageError(f"{there} is a file, not a folder", hint="name another place with --output")


def _size(n_bytes: int, *, up: bool = False) -> str:
    """Return a size in binary units with one decimal, rounded up when it is what is missing."""
    power, unit = next(((p, u) for p, u in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if n_bytes >> p), (0, "B"))
    if not power:
        return f"{n_bytes} B"
    tenths = n_bytes * 10 / 2**power
    return f"{(math.ceil(tenths) if up else round(tenths)) / 10:.1f} {unit}"
