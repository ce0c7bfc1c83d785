"""Channels counted from the tables of machines, what empty ones cost, and what to buy."""

from __future__ import annotations

import pytest

from ggufkit.fit.channels import Channels, advice, find_channels, place_of, warnings
from ggufkit.fit.cpus import Cpu, MemoryController, memory_controller, parse_cpuinfo
from ggufkit.fit.smbios import Module, parse_smbios
from tests.fit import tables
from tests.fit.tables import Slot, cpuinfo, table

E5 = "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
Found = tuple[Channels, Cpu, MemoryController | None]


def found(data: bytes, name: str, n_sockets: int = 1) -> Found:
    cpu = parse_cpuinfo(cpuinfo(name, n_sockets=n_sockets))
    controller = memory_controller(name)
    return find_channels(parse_smbios(data), "SMBIOS", cpu, controller), cpu, controller


def test_the_mistake_that_cost_a_factor_of_four() -> None:
    channels, cpu, controller = found(tables.z440(1), E5)
    assert (channels.n_filled, channels.n_channels, channels.exact) == (1, 4, True)
    assert (channels.bandwidth_bytes_per_s, channels.full_bandwidth_bytes_per_s) == (19.2e9, 76.8e9)
    assert warnings(channels, cpu) == [
        "1 of 4 memory channels is filled: 19.2 of 76.8 GB/s, so models run 4 times slower than this CPU can"
    ]
    assert advice(channels, controller) == [
        "buy 3 more modules of 64 GiB DDR4-2400 (as M386A8K40BM1-CRC), one for each empty channel"
    ]


def test_four_sticks_of_eight_slots_may_be_four_channels() -> None:
    channels, cpu, controller = found(tables.z440(4), E5)
    assert (channels.n_filled, channels.exact) == (4, False)  # HP's names don't tell
    assert channels.bandwidth_bytes_per_s == 76.8e9
    assert warnings(channels, cpu) == advice(channels, controller) == []


def test_two_sticks_are_two_channels_at_most() -> None:
    channels, cpu, controller = found(tables.z440(2, gib=32), E5)
    assert warnings(channels, cpu) == [
        "at most 2 of 4 memory channels are filled: 38.4 of 76.8 GB/s, "
        "so models run 2 times slower than this CPU can"
    ]
    assert "2 more modules of 32 GiB" in advice(channels, controller)[0]


def test_two_sockets_full_and_half_full() -> None:
    name = "AMD EPYC 9334 32-Core Processor"
    channels, cpu, _ = found(tables.epyc_two_sockets(), name, 2)
    assert (channels.n_filled, channels.n_channels, channels.exact) == (24, 24, True)
    assert channels.bandwidth_bytes_per_s == 921.6e9
    assert warnings(channels, cpu) == []
    channels, cpu, _ = found(tables.epyc_two_sockets(8), name, 2)
    assert warnings(channels, cpu) == [
        "16 of 24 memory channels (12 for each of 2 CPUs) are filled: 614.4 of 921.6 GB/s, "
        "so models run 1.5 times slower than this CPU can"
    ]


def test_soldered_memory_is_counted_by_its_width() -> None:
    channels, cpu, _ = found(tables.lpddr_laptop(), "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S")
    assert (channels.n_filled, channels.n_channels, channels.bandwidth_bytes_per_s) == (4, 4, 256e9)
    assert warnings(channels, cpu) == []


@pytest.mark.parametrize(("n_each", "n_filled"), [(1, 2), (4, 8), (8, 8), (12, 8)])
def test_poweredge_counts_slots_round_the_channels(n_each: int, n_filled: int) -> None:
    channels, *_ = found(tables.poweredge(n_each), E5, 2)
    assert (channels.n_filled, channels.n_channels, channels.exact) == (n_filled, 8, True)


def test_two_modules_on_one_channel_are_moved_not_bought() -> None:
    channels, cpu, controller = found(tables.desktop("A1", "A2"), "AMD Ryzen 9 5900X 12-Core Processor")
    assert (channels.n_filled, channels.exact) == (1, True)
    assert len(warnings(channels, cpu)) == 1
    assert advice(channels, controller) == [
        "move 1 of the modules, one to each empty channel; the manual names the slots",
        "the modules run at 2133 MT/s, but they and the CPU can do 3200: see the firmware's settings, "
        "and the manual for modules per channel",
    ]


def test_fast_modules_in_a_slow_machine_are_no_fault() -> None:
    data = table(*(Slot(f"DIMM_{c}1", gib=16, speed=3200, configured=2400) for c in "ABCD"))
    channels, _, controller = found(data, E5)
    assert channels.speed_mts == 2400
    assert advice(channels, controller) == []


def test_a_cpu_that_nobody_knows() -> None:
    channels, cpu, controller = found(tables.z440(1), "Loongson-3C5000")
    assert (channels.n_filled, channels.n_channels, channels.full_bandwidth_bytes_per_s) == (1, None, None)
    assert warnings(channels, cpu) == advice(channels, controller) == []


def test_without_a_speed_the_factor_is_still_said() -> None:
    module = Module(64 << 30, "DIMM1", "", None, None, None, None, "")
    cpu = parse_cpuinfo(cpuinfo(E5))
    channels = find_channels([module], "EDAC", cpu, memory_controller(E5))
    assert warnings(channels, cpu) == [
        "1 of 4 memory channels is filled: models run 4 times slower than this CPU can"
    ]
    assert advice(channels, None) == ["buy 3 more modules of 64 GiB, one for each empty channel"]


@pytest.mark.parametrize(
    ("locator", "bank", "place"),
    [
        ("P1-DIMMA1", "P0_Node0_Channel0_Dimm0", ("0", "0")),  # Supermicro
        ("P2-DIMML1", "", ("2", "L")),
        ("CPU1_DIMM_B2", "NODE 1 CHANNEL 1 DIMM 1", ("1", "1")),  # Intel
        ("CPU1_DIMM_B2", "", ("1", "B")),
        ("DIMM 0", "P0 CHANNEL B", ("0", "B")),  # AMD
        ("Controller1-ChannelA-DIMM0", "BANK 2", ("1", "A")),  # Intel, DDR5
        ("ChannelB-DIMM1", "BANK 3", ("0", "B")),
        ("DIMM_A2", "", ("", "A")),
        ("DIMM1", "", None),  # HP
        ("PROC 1 DIMM 8", "", None),
        ("SODIMM1", "", None),
        ("", "", None),
    ],
)
def test_where_a_module_is(locator: str, bank: str, place: tuple[str, str] | None) -> None:
    module = Module(1 << 30, locator, bank, "DDR4", 2400, 2400, 64, "")
    assert place_of(module, [module], 4) == (place if place is None or place[0] else ("0", place[1]))
