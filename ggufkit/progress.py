"""Progress as a listener: the library tells, somebody may hear."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a long piece of work tells whoever listens. Called from any thread."""

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Begin `task` of `total_bytes`, of which `done_bytes` were done before."""

    def advance(self, n_bytes: int) -> None:
        """Count `n_bytes` (never negative) more as done."""

    def note(self, message: str) -> None:
        """Say one sentence: a retry, a wait, a change of source."""

    def finish(self) -> None:
        """End the task begun last."""


class Silent:
    """A listener that hears nothing."""

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Hear nothing."""

    def advance(self, n_bytes: int) -> None:
        """Hear nothing."""

    def note(self, message: str) -> None:
        """Hear nothing."""

    def finish(self) -> None:
        """Hear nothing."""


SILENT: Progress = Silent()
