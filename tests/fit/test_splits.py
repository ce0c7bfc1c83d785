"""How layers are divided among devices."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ggufkit.fit.splits import layer_splits

SIZES = st.lists(st.integers(0, 1 << 33), min_size=1, max_size=60)
ROOMS = st.lists(st.integers(1, 1 << 38), min_size=1, max_size=6)


def test_by_room_first_then_each_is_filled() -> None:
    by_room, filled = layer_splits([10, 10, 10, 10], [30, 90])
    assert by_room == (1.0, 3.0)
    assert filled == (3.0, 1.0)


def test_a_layer_that_passes_a_share_goes_to_the_next_device() -> None:
    assert next(layer_splits([10, 30, 10], [20, 30])) == (1.0, 2.0)


@given(SIZES, ROOMS)
def test_every_layer_goes_to_one_device(sizes: list[int], rooms: list[int]) -> None:
    for split in layer_splits(sizes, rooms):
        assert len(split) == len(rooms)
        assert min(split) >= 0
        assert sum(split) == len(sizes)


@given(SIZES, ROOMS)
def test_no_device_but_the_last_is_filled_over_its_room(sizes: list[int], rooms: list[int]) -> None:
    _, filled = layer_splits(sizes, rooms)
    ends = [0]
    for n in filled:
        ends.append(ends[-1] + int(n))
    taken = [sum(sizes[start:end]) for start, end in pairwise(ends)]
    assert all(n <= room for n, room in zip(taken[:-1], rooms[:-1], strict=True))
