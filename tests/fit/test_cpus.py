"""CPUs by their names, and by /proc/cpuinfo."""

from __future__ import annotations

import pytest

from ggufkit.fit.cpus import MemoryController, memory_controller, parse_cpuinfo, speed_family
from ggufkit.fit.speed import FAMILIES
from tests.fit.tables import cpuinfo


@pytest.mark.parametrize(
    ("name", "n_channels", "max_mts", "kind"),
    [
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 4, 2400, "DDR4"),
        ("Intel(R) Xeon(R) CPU E5-1650 v3 @ 3.50GHz", 4, 2133, "DDR4"),
        ("Intel(R) Xeon(R) CPU E5-2697A v4 @ 2.60GHz", 4, 2400, "DDR4"),
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", 4, 1600, "DDR3"),
        ("Intel(R) Xeon(R) CPU E5-2430L v2 @ 2.40GHz", 3, 1600, "DDR3"),
        ("Intel(R) Xeon(R) Gold 6138 CPU @ 2.00GHz", 6, 2666, "DDR4"),
        ("Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", 6, 2666, "DDR4"),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 6, 2933, "DDR4"),
        ("Intel(R) Xeon(R) Platinum 8352Y CPU @ 2.20GHz", 8, 3200, "DDR4"),
        ("Intel(R) Xeon(R) Gold 6454S", 8, 4800, "DDR5"),
        ("Intel(R) Xeon(R) 6980P", 12, 6400, "DDR5"),
        ("Intel(R) Xeon(R) w5-3435X", 8, 4800, "DDR5"),
        ("Intel(R) Core(TM) i3-8100T CPU @ 3.10GHz", 2, 2400, "DDR4"),
        ("Intel(R) Core(TM) i5-4590 CPU @ 3.30GHz", 2, 1600, "DDR3"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 2, 5600, "DDR5"),
        ("Intel(R) N150", 1, 4800, "DDR5"),
        ("AMD EPYC 7702 64-Core Processor", 8, 3200, "DDR4"),
        ("AMD EPYC 7773X 64-Core Processor", 8, 3200, "DDR4"),
        ("AMD EPYC 9554 64-Core Processor", 12, 4800, "DDR5"),
        ("AMD EPYC 9115 16-Core Processor", 12, 6000, "DDR5"),
        ("AMD Ryzen Threadripper PRO 5975WX 32-Cores", 8, 3200, "DDR4"),
        ("AMD Ryzen 9 5900X 12-Core Processor", 2, 3200, "DDR4"),
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", 2, 5600, "DDR5"),
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", 4, 8000, "LPDDR5"),
    ],
)
def test_the_table_of_cpus(name: str, n_channels: int, max_mts: int, kind: str) -> None:
    assert memory_controller(name) == MemoryController(n_channels, max_mts, kind)


@pytest.mark.parametrize(
    "name", ["", "AMD EPYC", "QEMU Virtual CPU version 2.5+", "Apple M4 Pro", "Cortex-A76"]
)
def test_what_the_table_has_not(name: str) -> None:
    assert memory_controller(name) is None


@pytest.mark.parametrize(
    ("name", "n_sockets", "family"),
    [
        ("AMD EPYC 7702 64-Core Processor", 1, "cpu_epyc_1s"),
        ("AMD EPYC 9334 32-Core Processor", 2, "cpu_2s_numa"),
        ("AMD EPYC 4464P 12-Core Processor", 1, "cpu_desktop_ddr5"),
        ("AMD Ryzen Threadripper PRO 5975WX 32-Cores", 1, "cpu_epyc_1s"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 1, "cpu_xeon"),
        ("Intel(R) Xeon(R) 6980P", 1, "cpu_xeon_ddr5"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 1, "cpu_desktop_ddr5"),
        ("AMD Ryzen 9 5900X 12-Core Processor", 1, "cpu_desktop_ddr4"),
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", 1, "cpu_desktop_ddr5"),
        ("Intel(R) N150", 1, "cpu_sbc"),
        ("Apple M4 Pro", 1, "apple"),
        ("AMD EPYC", 1, "cpu"),
    ],
)
def test_the_family_that_speed_is_predicted_for(name: str, n_sockets: int, family: str) -> None:
    assert speed_family(parse_cpuinfo(cpuinfo(name, n_sockets=n_sockets))) == family
    assert family in FAMILIES


def test_two_sockets_with_two_threads_a_core() -> None:
    text = cpuinfo("AMD EPYC 9334 32-Core Processor", n_sockets=2, n_cores=32, flags="avx2 avx512f amx_tile")
    cpu = parse_cpuinfo(text, l3_bytes=1 << 28, n_numa_nodes=2)
    assert (cpu.n_sockets, cpu.n_cores, cpu.n_threads, cpu.n_numa_nodes) == (2, 64, 128, 2)
    assert cpu.instruction_sets == ("SSE4.2", "AVX2", "AVX-512")
    assert (cpu.name, cpu.l3_bytes, cpu.virtual) == ("AMD EPYC 9334 32-Core Processor", 1 << 28, False)


def test_virtual_machines_are_told() -> None:
    assert parse_cpuinfo(cpuinfo("AMD EPYC", flags="hypervisor avx2")).virtual


def test_arm_tells_no_cores() -> None:
    block = "processor\t: {}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm sve\nCPU part\t: 0xd0c\n"
    cpu = parse_cpuinfo("\n".join(block.format(i) for i in range(8)))
    assert (cpu.n_sockets, cpu.n_cores, cpu.n_threads, cpu.name) == (1, 8, 8, "")
    assert cpu.instruction_sets == ("NEON", "DOTPROD", "I8MM", "SVE")


def test_nothing_is_one_core() -> None:
    cpu = parse_cpuinfo("")
    assert (cpu.n_sockets, cpu.n_cores, cpu.n_threads, cpu.instruction_sets) == (1, 1, 1, ())
