"""A tqdm bar whose name gives way to the numbers: how fast and how long is what is looked at."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from tqdm.utils import disp_len

from ggufkit.cli.render import shortened

BAR_CELLS = 4
"""What is left of the bar before the name is cut."""
NAME_STEP_CELLS = 3
"""A cut name's width goes by these, so that it stays as it is while the numbers beside it change."""


class Meter(tqdm):  # type: ignore[type-arg]
    """One bar; a name that leaves too little of it loses its middle."""

    @staticmethod
    def format_meter(
        n: float,
        total: float,
        elapsed: float,
        ncols: int | None = None,
        prefix: str | None = "",
        *rest: Any,
        **more: Any,
    ) -> str:
        """Return the line, `ncols` cells wide at most."""
        if ncols and prefix:
            bare = tqdm.format_meter(n, total, elapsed, 0, "-: ", *rest, **more)
            name, room = prefix.removesuffix(": "), ncols - disp_len(bare) + 1 - 2 - BAR_CELLS
            if disp_len(name) > room:
                ellipsis_ = "..." if more.get("ascii") is True else "…"
                prefix = shortened(name, room // NAME_STEP_CELLS * NAME_STEP_CELLS, ellipsis_)
        return tqdm.format_meter(n, total, elapsed, ncols, prefix, *rest, **more)
