"""How many of the layers that leave the CPU each device gets: llama.cpp's `--tensor-split`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise


def layer_splits(sizes: Sequence[int], rooms: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """Propose numbers of layers for devices: by room, then each device filled up before the next.

    `sizes` are the layers' bytes in order, one layer at least; `rooms` what the devices have for them, not
    all 0.
    """
    yield _counts(sizes, [sum(sizes) * end / sum(rooms) for end in accumulate(rooms)])
    yield _counts(sizes, _filled(sizes, rooms))


def _counts(sizes: Sequence[int], ends: Sequence[float]) -> tuple[float, ...]:
    """Cut the layers where their sum passes each of the `ends`; the last device gets the rest."""
    sums = list(accumulate(sizes))
    cuts = [sum(1 for s in sums if s <= end) for end in ends[:-1]]
    bounds = [0, *cuts, len(sizes)]
    return tuple(float(after - before) for before, after in pairwise(bounds))


def _filled(sizes: Sequence[int], rooms: Sequence[int]) -> list[float]:
    """Return where each device is full, as sums of layers."""
    ends: list[float] = []
    taken = at = 0
    for room in rooms:
        end = taken + room
        while at < len(sizes) and taken + sizes[at] <= end:
            taken += sizes[at]
            at += 1
        ends.append(float(taken))
    return ends
