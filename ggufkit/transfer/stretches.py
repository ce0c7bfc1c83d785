"""Who fetches which stretch of a range: work handed out close together, and taken over from the slow.

Pure bookkeeping, in seconds that the caller tells; not thread-safe.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

WINDOW_BYTES = 256 << 20
"""How far the first and the last byte under way are apart: what is read again at once stays in memory."""
FIRST_BYTES = 4 << 20
"""The first stretch of a source, whose speed is not known."""
MIN_BYTES = 1 << 20
"""Smaller stretches cost more in requests than they bring."""
MAX_BYTES = 64 << 20
"""The largest stretch."""
LEAST_BYTES = 16 << 20
"""What a fast stream gets: the digest follows in order, and waits for the first stretch under way."""
N_OPENINGS = 20
"""How many times longer a stretch should take than its request, which brings nothing."""
STRETCH_S = 4.0
"""How long a stretch should take at most: short against the patience of the others."""
STEAL_S = 0.25
"""What is done within this time is left to whom it is ..."""
N_OPENINGS_TO_STEAL = 4
"""... and what takes less than so many requests, for a new one is what the other has to make then."""
STALL_S = 3.0
"""How long no byte may come before all of the rest is taken over."""


@dataclass(slots=True, eq=False)
class Stretch:
    """Bytes `[at, end)` of the source, which one stream fetches; both ends move."""

    start: int
    """First byte that this stretch was begun with."""
    at: int
    """The next byte to come."""
    end: int
    """After the last byte; another stream may take the rest over."""
    began_s: float
    """When it was handed out."""
    heard_s: float
    """When the last byte came, or it was handed out."""

    def bytes_per_s(self, now_s: float) -> float:
        """Return the speed so far."""
        return (self.at - self.start) / max(now_s - self.began_s, 1e-3)


class Stretches:
    """What is still to fetch of one range, and what is under way."""

    def __init__(self, start: int, end: int, *, window_bytes: int = WINDOW_BYTES) -> None:
        """Begin with all of `[start, end)` to fetch."""
        self._window_bytes = window_bytes
        self._todo = [(start, end)] if start < end else []
        self.open: list[Stretch] = []

    @property
    def is_done(self) -> bool:
        """Whether every byte came."""
        return not self._todo and not self.open

    def take(self, bytes_per_s: float, open_s: float, now_s: float) -> Stretch | None:
        """Hand out work for a stream of about this speed (0: not known) that takes so long to be opened.

        Returns None when there is none just now.
        """
        first = min([start for start, _ in self._todo[:1]] + [s.at for s in self.open], default=0)
        if self._todo and self._todo[0][0] < first + self._window_bytes:
            start, end = self._todo.pop(0)
            middle = start + _share(bytes_per_s, open_s)
            if middle + MIN_BYTES < end:
                self._todo.insert(0, (middle, end))
                end = middle
            return self._begin(start, end, now_s)
        return self._take_over(bytes_per_s, open_s, now_s)

    def _begin(self, start: int, end: int, now_s: float) -> Stretch:
        stretch = Stretch(start, start, end, now_s, now_s)
        self.open.append(stretch)
        return stretch

    def _take_over(self, bytes_per_s: float, open_s: float, now_s: float) -> Stretch | None:
        """Split the stretch that would end last, so that both end at the same time."""
        slowest, left_s = None, max(STEAL_S, open_s * N_OPENINGS_TO_STEAL)
        for stretch in self.open:
            n_bytes, speed = stretch.end - stretch.at, stretch.bytes_per_s(now_s)
            if now_s - stretch.heard_s > STALL_S and n_bytes:
                return self._split(stretch, stretch.at, now_s)
            if n_bytes >= 2 * MIN_BYTES and speed and n_bytes / speed > left_s:
                slowest, left_s = stretch, n_bytes / speed
        if slowest is None:
            return None
        speed, rest = slowest.bytes_per_s(now_s), slowest.end - slowest.at
        mine = int(rest * (bytes_per_s or speed) / ((bytes_per_s or speed) + speed))
        return self._split(slowest, slowest.end - max(mine, MIN_BYTES), now_s)

    def _split(self, stretch: Stretch, middle: int, now_s: float) -> Stretch:
        end, stretch.end = stretch.end, middle
        return self._begin(middle, end, now_s)

    def claim(self, stretch: Stretch, n_bytes: int, now_s: float) -> int:
        """Say that `n_bytes` came; returns how many of them are still this stretch's."""
        mine = min(n_bytes, stretch.end - stretch.at)
        stretch.at += mine
        stretch.heard_s = now_s
        return mine

    def widen(self, stretch: Stretch) -> None:
        """Let a stretch go on up to what others have begun."""
        for start, end in list(self._todo):
            if start == stretch.end:
                stretch.end = end
                self._todo.remove((start, end))

    def close(self, stretch: Stretch) -> None:
        """Give back what is left of a stretch: it was fetched, or its source failed. Again does nothing."""
        if stretch in self.open:
            self.open.remove(stretch)
            if stretch.at < stretch.end:
                bisect.insort(self._todo, (stretch.at, stretch.end))
                stretch.end = stretch.at


def _share(bytes_per_s: float, open_s: float) -> int:
    """Return how much to hand out: no more than is worth its request."""
    if not bytes_per_s:
        return FIRST_BYTES
    most = min(bytes_per_s * STRETCH_S, MAX_BYTES)
    return int(max(min(most, max(bytes_per_s * open_s * N_OPENINGS, LEAST_BYTES)), MIN_BYTES))
