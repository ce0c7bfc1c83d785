"""What is set aside, and where one verdict ends and the next begins."""

from __future__ import annotations

import pytest

from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.machine import Machine, given_machine
from ggufkit.fit.verdict import judge, reserve_of

GIB = 1 << 30


def estimate(weights: float, kept: float | None) -> MemoryEstimate:
    weights_bytes, kept_bytes = int(weights * GIB), None if kept is None else int(kept * GIB)
    return MemoryEstimate(
        settings=FitSettings(4096),
        context_tokens=4096,
        terms=(),
        weights_bytes=weights_bytes,
        rearranged_bytes=0,
        mapped_bytes=weights_bytes,
        kv_cache_bytes=kept_bytes,
        compute_bytes=None,
        output_bytes=0,
        kept_bytes=kept_bytes,
        total_bytes=weights_bytes + (kept_bytes or 0),
        kv_bytes_per_token=None,
        devices=(),
        phases=(),
        may_grow=(),
        warnings=(),
    )


def test_what_is_set_aside_of_256_gib() -> None:
    reserve = reserve_of(given_machine(256 * GIB), FitSettings(4096))
    assert reserve.kernel_bytes == 4 * GIB
    assert reserve.system_bytes / GIB == pytest.approx(12.8)
    assert reserve.compute_bytes == GIB
    assert reserve.total_bytes == sum((reserve.kernel_bytes, reserve.system_bytes, reserve.compute_bytes))


def test_the_system_has_told_its_memory_without_the_kernels_share() -> None:
    assert reserve_of(Machine(64 * GIB, None, "system"), FitSettings(4096)).kernel_bytes == 0
    assert reserve_of(given_machine(64 * GIB), FitSettings(4096)).kernel_bytes == GIB


@pytest.mark.parametrize(("ram", "system"), [(1, 0.125), (8, 1), (16, 2), (32, 2), (64, 3.2)])
def test_small_machines_keep_room_for_a_model(ram: int, system: float) -> None:
    reserve = reserve_of(Machine(ram * GIB, None, "system"), FitSettings(4096))
    assert reserve.system_bytes / GIB == pytest.approx(system)
    assert reserve.compute_bytes == min(GIB, ram * GIB // 8)


def test_compute_buffers_grow_with_the_ubatch() -> None:
    sizes = [
        reserve_of(given_machine(64 * GIB), FitSettings(4096, n_ubatch_tokens=n)).compute_bytes
        for n in (64, 512, 2048)
    ]
    assert sizes == [GIB, GIB, 4 * GIB]


@pytest.mark.parametrize(
    ("weights", "kept", "level"),
    [
        (200.0, 38.2, "fits"),
        (200.0, 38.3, "tight"),
        (200.0, 50.9, "tight"),
        (200.0, 51.1, "pages"),
        (900.0, 10.0, "pages"),
        (1.0, 238.1, "tight"),
        (100.0, 238.1, "pages"),
        (100.0, 238.3, "no"),
        (1.0, 300.0, "no"),
        (200.0, None, "unknown"),
        (245.0, None, "unknown"),
        (300.0, None, "pages"),
    ],
)
def test_levels_on_256_gib(weights: float, kept: float | None, level: str) -> None:
    machine = given_machine(256 * GIB)  # 238.2 GiB beside all that is set aside, 251 with the system's share
    verdict = judge(estimate(weights, kept), machine, reserve_of(machine, FitSettings(4096)))
    assert verdict.level == level
    assert verdict.in_memory is (level in ("fits", "tight"))
    assert (verdict.left_bytes >= 0) is (weights + (kept or 0) <= 238.2)


def test_the_share_of_weights_that_stays() -> None:
    machine = given_machine(256 * GIB)
    reserve = reserve_of(machine, FitSettings(4096))
    assert judge(estimate(100, 10), machine, reserve).weights_in_memory == 1.0
    assert judge(estimate(400, 38.2), machine, reserve).weights_in_memory == pytest.approx(0.5, abs=1e-3)
    assert judge(estimate(400, 500), machine, reserve).weights_in_memory == 0.0
    assert judge(estimate(0, 1), machine, reserve).weights_in_memory == 1.0
