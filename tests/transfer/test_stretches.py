"""Stretches: every byte once, close together, and no waiting for the slow."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufkit.transfer import stretches as module
from ggufkit.transfer.stretches import FIRST_BYTES, MAX_BYTES, MIN_BYTES, Stretch, Stretches

MB = 1 << 20


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400 * MB),
    st.integers(1, 8),
    st.lists(st.floats(1, 200), min_size=8, max_size=8),
    st.integers(),
)
def test_whoever_works_how_fast_and_fails_when_each_byte_comes_once(
    n_bytes: int, n_streams: int, speeds: list[float], seed: int
) -> None:
    chance, now_s, work = random.Random(seed), 0.0, Stretches(7, 7 + n_bytes)
    at_work: dict[int, Stretch] = {}
    came: list[tuple[int, int]] = []
    for _ in range(20_000):
        if work.is_done:
            break
        now_s += 0.05
        for i in range(n_streams):
            stretch = at_work.get(i) or work.take(speeds[i] * MB * (i % 2), 0.2, now_s)
            if stretch is None:
                continue
            at_work[i] = stretch
            at, n = stretch.at, work.claim(stretch, int(speeds[i] * MB * 0.05) + 1, now_s)
            came += [(at, at + n)] if n else []
            if stretch.at >= stretch.end or chance.random() < 0.02:
                work.close(at_work.pop(i))
    assert work.is_done
    at = 7
    for start, end in sorted(came):
        assert start == at
        at = end
    assert at == 7 + n_bytes


def test_the_first_stretch_is_small_and_later_ones_follow_the_speed() -> None:
    work = Stretches(0, 10**12, window_bytes=10**12)
    assert [work.take(speed, 0.2, 0.0).end - work.open[-1].start for speed in (0, 1e6, 10e6, 1e9)] == [  # type: ignore[union-attr]
        FIRST_BYTES,
        4_000_000,
        40_000_000,
        MAX_BYTES,
    ]


@pytest.mark.parametrize(("speed", "open_s", "n_bytes"), [
    (1e9, 0.0001, module.LEAST_BYTES), (50e6, 0.02, 20_000_000), (50e6, 1.0, MAX_BYTES),
    (10e6, 0.0, module.LEAST_BYTES), (1e6, 0.0, 4_000_000), (1e4, 5.0, MIN_BYTES),
])  # fmt: skip
def test_a_stretch_is_worth_its_request_and_no_longer(speed: float, open_s: float, n_bytes: int) -> None:
    stretch = Stretches(0, 10**12).take(speed, open_s, 0.0)
    assert stretch is not None and stretch.end == n_bytes


def test_no_tiny_rest_is_left_over() -> None:
    work = Stretches(0, FIRST_BYTES + MIN_BYTES)
    stretch = work.take(0, 0.2, 0.0)
    assert stretch is not None and stretch.end == FIRST_BYTES + MIN_BYTES


def test_all_that_is_under_way_lies_within_the_window() -> None:
    work = Stretches(0, 10**12)
    begun = []
    while (stretch := work.take(1e9, 0.2, 0.0)) is not None:
        begun.append(stretch)
    assert module.WINDOW_BYTES <= begun[-1].end < module.WINDOW_BYTES + MAX_BYTES
    work.claim(begun[0], MAX_BYTES, 1.0)
    assert work.take(1e9, 0.2, 1.0) is None or work.open[-1].start < begun[0].at + module.WINDOW_BYTES


def slow_and_idle(*, came: int) -> tuple[Stretches, Stretch]:
    """Return work of which one stretch is under way for 2 s, and nothing else is left."""
    work = Stretches(0, FIRST_BYTES)
    stretch = work.take(0, 0.2, 0.0)
    assert stretch is not None
    work.claim(stretch, came, 2.0)
    return work, stretch


def test_who_has_nothing_to_do_takes_over_a_part_by_the_speeds() -> None:
    work, slow = slow_and_idle(came=500_000)  # 250 kB/s: 14 s to go
    other = work.take(750_000, 0.2, 2.0)
    assert other is not None and (slow.end, other.end) == (other.start, FIRST_BYTES)
    left = FIRST_BYTES - 500_000
    assert abs((other.end - other.start) - left * 3 / 4) < 2


@pytest.mark.parametrize("came", [0, FIRST_BYTES - MIN_BYTES])
def test_a_stretch_just_begun_or_soon_done_is_left_to_whom_it_is(came: int) -> None:
    work, _ = slow_and_idle(came=came)
    assert work.take(1e6, 0.2, 2.0) is None


@pytest.mark.parametrize("came", [0, 100, FIRST_BYTES - 10])
def test_a_stalled_stretch_is_taken_over_as_a_whole(came: int) -> None:
    work, stalled = slow_and_idle(came=came)
    other = work.take(1e6, 0.2, 2.0 + module.STALL_S + 0.1)
    assert other is not None and (other.start, other.end) == (came, FIRST_BYTES)
    assert work.claim(stalled, 1000, 9.0) == 0, "what comes after all is not its any more"


def test_what_a_failed_stream_had_to_bring_comes_next() -> None:
    work = Stretches(0, 10**9)
    first, second = work.take(0, 0.2, 0.0), work.take(0, 0.2, 0.0)
    assert first is not None and second is not None
    work.claim(first, 100, 1.0)
    work.close(first)
    work.close(first)
    again = work.take(0, 0.2, 1.0)
    assert again is not None and (again.start, again.end) == (100, FIRST_BYTES)


def test_one_stream_may_go_on_to_where_others_began() -> None:
    work = Stretches(0, 10**9)
    first, second = work.take(0, 0.2, 0.0), work.take(0, 0.2, 0.0)
    assert first is not None and second is not None
    work.widen(first)
    work.widen(second)
    assert (first.end, second.end) == (FIRST_BYTES, 10**9)


def test_what_ends_sooner_than_a_new_request_is_left_to_whom_it_is() -> None:
    work, slow = slow_and_idle(came=FIRST_BYTES * 2 // 3)  # 1 s to go
    assert work.take(1e6, 0.3, 2.0) is None
    assert work.take(1e6, 0.1, 2.0) is None, "and what is small"
    work, slow = slow_and_idle(came=FIRST_BYTES // 2 - 1)  # 2 s to go
    assert work.take(1e6, 0.1, 2.0) is not None and slow.end < FIRST_BYTES
