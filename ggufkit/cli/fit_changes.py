"""What `ggufkit fit` says of what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.fit_tables import LEVELS
from ggufkit.cli.render import size_text, table
from ggufkit.errors import printable

if TYPE_CHECKING:
    from ggufkit.verbs.fit import FitReport


def change_lines(report: FitReport) -> list[str]:
    """Return a table of what can be changed, the most useful first; nothing when the model fits."""
    if not report.changes:
        return []
    rows = [
        (printable(c.text), size_text(c.saves_bytes) if c.saves_bytes > 0 else "", LEVELS[c.level])
        for c in report.changes
    ]
    return ["", table(("WHAT TO CHANGE", "GIVES", "THEN"), rows, right=[1])]
