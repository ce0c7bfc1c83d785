"""Links that may come to copies: a copy of a model takes minutes, so it is told as a task of its own."""

from __future__ import annotations

from pathlib import Path

from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import Method, link_or_copy


def link_or_copy_told(
    src: Path,
    dst: Path,
    *,
    method: Method = "auto",
    staging: Path | None = None,
    progress: Progress = SILENT,
) -> Method:
    """Do `link_or_copy`; if bytes are copied `progress` hears a task begin and end."""
    copying = _Copying(progress, f"copying {src.name}", src.stat().st_size)
    try:
        return link_or_copy(src, dst, method=method, staging=staging, progress=copying)
    finally:
        copying.finish()


class _Copying:
    """A listener that begins the task with its first bytes: before them it may still become a link."""

    def __init__(self, progress: Progress, task: str, total_bytes: int) -> None:
        self._progress = progress
        self._task, self._total_bytes = task, total_bytes
        self._begun = False

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Begin another task."""
        self._begun = True
        self._progress.start(task, total_bytes, done_bytes)

    def advance(self, n_bytes: int) -> None:
        """Count, from the first bytes on."""
        if not self._begun:
            self.start(self._task, self._total_bytes)
        self._progress.advance(n_bytes)

    def note(self, message: str) -> None:
        """Pass it on."""
        self._progress.note(message)

    def finish(self) -> None:
        """End what was begun."""
        if self._begun:
            self._begun = False
            self._progress.finish()
