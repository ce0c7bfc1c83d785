"""Progress on stderr: one bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any

import click

from ggufkit.cli.render import size_text
from ggufkit.errors import printable
from ggufkit.progress import SILENT, Progress

LINE_EVERY_S = 30.0
LINE_EVERY_FRACTION = 0.1


def terminal_progress() -> Progress:
    """Return the listener that suits stderr; none with GGUFKIT_PROGRESS=off."""
    if os.environ.get("GGUFKIT_PROGRESS", "").lower() == "off":
        return SILENT
    return Bar() if sys.stderr.isatty() else Lines()


class Bar:
    """One tqdm bar over bytes."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._lock = threading.Lock()

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Show a bar for the task."""
        from ggufkit.cli.meter import Meter

        self.finish()
        columns = _columns()
        self._bar = Meter(
            total=total_bytes,
            initial=done_bytes,
            desc=printable(task),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            file=sys.stderr,
            dynamic_ncols=columns is None,
            ncols=columns,
            nrows=None if columns is None else 24,
            leave=False,
            mininterval=0.1,
        )

    def advance(self, n_bytes: int) -> None:
        """Move the bar."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(n_bytes)

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        from tqdm import tqdm

        with self._lock:
            tqdm.write(printable(message), file=sys.stderr)

    def finish(self) -> None:
        """Take the bar away."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None


def _columns() -> int | None:
    """Return None when the terminal knows its own width, else one that every terminal has."""
    with contextlib.suppress(OSError):
        if os.get_terminal_size(sys.stderr.fileno()).columns:
            return None
    return 80


class Lines:
    """A line at the start, one each 10 % or 30 s, one at the end."""

    def __init__(self) -> None:
        self._task = ""
        self._total = self._done = self._said = 0
        self._begun = self._said_at = 0.0
        self._lock = threading.Lock()

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Print the first line."""
        with self._lock:
            self._task, self._total, self._done, self._said = task, total_bytes, done_bytes, done_bytes
            self._begun = self._said_at = time.monotonic()
            resumed = ""
            if done_bytes and total_bytes:
                resumed = f", resumed at {100 * done_bytes // total_bytes} %"
            self._print(f"{task}: {size_text(total_bytes)}{resumed}")

    def advance(self, n_bytes: int) -> None:
        """Count, and print a line when it is time."""
        with self._lock:
            self._done += n_bytes
            now = time.monotonic()
            step = self._done - self._said >= self._total * LINE_EVERY_FRACTION and now - self._said_at >= 1
            if step or now - self._said_at >= LINE_EVERY_S:
                rate = (self._done - self._said) / max(now - self._said_at, 1e-6)
                self._said, self._said_at = self._done, now
                percent = 100 * self._done // max(self._total, 1)
                self._print(f"{self._task}: {percent} %, {size_text(rate)}/s")

    def note(self, message: str) -> None:
        """Print the message."""
        with self._lock:
            self._print(message)

    def finish(self) -> None:
        """Print the last line."""
        with self._lock:
            if self._task:
                seconds = time.monotonic() - self._begun
                self._print(
                    f"{self._task}: {size_text(self._done)} of {size_text(self._total)} in {seconds:.1f} s"
                )
                self._task = ""

    def _print(self, text: str) -> None:
        click.echo(printable(text), err=True)
