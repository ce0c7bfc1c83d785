"""Measuring memory: that all is read, by all threads, and that noise is told."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import pytest

from ggufkit.errors import ToolError
from ggufkit.fit import bandwidth
from ggufkit.fit.bandwidth import Bandwidth, measure_bandwidth, measured_set_bytes


def test_memory_here_is_read_at_a_possible_speed() -> None:
    found = measure_bandwidth(2, 64 << 20)
    assert 0.2e9 < found.bytes_per_s < 3e12  # a busy shared machine, and the fastest there is
    assert 0 <= found.spread < 1
    assert (found.n_threads, found.set_bytes) == (2, 64 << 20)


def test_every_thread_reads_its_whole_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for libc sees the same parts in each round, side by side, and full of ones."""
    read: list[tuple[int, int]] = []
    fill, search = bandwidth._libc()

    def watched(address: int, n_bytes: int) -> None:
        read.append((address, n_bytes))
        assert ctypes.string_at(address, n_bytes) == b"\1" * n_bytes
        search(address, n_bytes)

    monkeypatch.setattr(bandwidth, "_libc", lambda: (fill, watched))
    found = measure_bandwidth(3, 1 << 20)
    parts = sorted(set(read))
    assert len(read) == 3 * (bandwidth.N_ROUNDS + 1)
    assert sum(n_bytes for _, n_bytes in parts) == found.set_bytes
    assert all(a + n == b for (a, n), (b, _) in pairwise(parts))


def test_rounds_that_differ_are_noise() -> None:
    assert Bandwidth(20e9, 0.16, 4, 1).noisy
    assert not Bandwidth(20e9, 0.15, 4, 1).noisy


@pytest.mark.parametrize(
    ("l3", "wanted"), [(None, 256 << 20), (32 << 20, 256 << 20), (768 << 20, 3072 << 20)]
)
def test_four_times_the_cache_is_read(l3: int | None, wanted: int) -> None:
    assert measured_set_bytes(l3, None) == measured_set_bytes(l3, 64 << 30) == wanted


def test_full_memory_is_not_measured() -> None:
    with pytest.raises(ToolError, match="256 MiB"):
        measured_set_bytes(None, 512 << 20)


def test_without_a_c_library_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str | None) -> None:
        raise TypeError("Windows wants a name")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with pytest.raises(ToolError, match="C library"):
        measure_bandwidth(1, 1 << 20)
