"""What each source brought and how it behaves, over all files of one piece of work."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from ggufkit.errors import GgufkitError
from ggufkit.transfer.stream import StreamError

LEFT_S = 60.0
"""How long a source that failed is left alone before it is tried again."""
MAX_WAIT_S = 30.0
"""The longest wait of our own choice between two tries."""


@dataclass(slots=True)
class Standing:
    """How one source is doing."""

    label: str
    """What messages call it."""
    served_bytes: int = 0
    """What it brought."""
    bytes_per_s: float = 0.0
    """The speed of one of its streams, the last ones weighing most; 0 when not known."""
    open_s: float = 0.0
    """How long its answers take to begin, the last ones weighing most."""
    failures: int = 0
    """Tries in a row that brought nothing."""
    free_s: float = 0.0
    """Not to be asked before this time."""
    failed_s: float = -math.inf
    """When the last failure was counted."""
    why: GgufkitError | None = None
    """Why it was left."""
    lies: bool = False
    """Whether it sent bytes that are not the file's: it is never asked again."""
    left_at_bytes: int | None = None
    """What all sources together had brought when it was left; None while it is not."""

    def came(self, n_bytes: int) -> None:
        """Count bytes that came: the failures before them are forgiven."""
        self.served_bytes += n_bytes
        self.failures = 0

    def leave(self, why: GgufkitError, at_bytes: int) -> None:
        """Ask it no more for a while."""
        self.why, self.left_at_bytes = why, at_bytes
        self.free_s = time.monotonic() + LEFT_S

    def come_back(self) -> None:
        """Try it again."""
        self.why = self.left_at_bytes = None
        self.failures, self.free_s = 0, 0.0

    def measured(self, n_bytes: int, seconds: float) -> None:
        """Learn from one stretch how fast a stream of this source is."""
        speed = n_bytes / max(seconds, 1e-3)
        self.bytes_per_s = speed if not self.bytes_per_s else (self.bytes_per_s + speed) / 2

    def answered(self, seconds: float) -> None:
        """Learn from one request how long the source takes to answer."""
        self.open_s = seconds if not self.open_s else (self.open_s + seconds) / 2

    def failed(self, error: StreamError, began_s: float) -> float:
        """Count a try that began at `began_s` and failed; returns the seconds to wait.

        Several streams that one outage ends are one failure.
        """
        now_s = time.monotonic()
        if began_s >= self.failed_s:
            self.failures += 1
            self.failed_s = now_s
        if error.refused and self.failures == 1:
            return 0.0  # a signed address ran out: the next one is fresh
        wait_s = error.retry_after_s or min(0.25 * 2**self.failures, MAX_WAIT_S)
        self.free_s = max(self.free_s, now_s + wait_s)
        return wait_s


class Tally:
    """The standings of all sources, by label. Not thread-safe."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def standing(self, label: str) -> Standing:
        """Return the standing of a source, a new one for a new label."""
        return self._standings.setdefault(label, Standing(label))

    @property
    def served(self) -> dict[str, int]:
        """Bytes that each source brought, by label, those that brought none left out."""
        return {label: s.served_bytes for label, s in self._standings.items() if s.served_bytes}

    @property
    def total_bytes(self) -> int:
        """Bytes that all of them brought."""
        return sum(s.served_bytes for s in self._standings.values())
