"""A machine described from its files: the articles' one, with and without root."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.fit.bandwidth import Bandwidth
from ggufkit.verbs import machine
from ggufkit.verbs.machine import MachineReport, describe_machine
from tests.fit import tables
from tests.fit.test_machine import MEMINFO, system
from tests.fit.test_machine_parts import write_dmi

E5 = "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"


def z440(root: Path, *, dmi: bytes | None = None, flags: str = "avx2", n_cores: int = 14) -> Path:
    files = {"proc/meminfo": MEMINFO, "proc/cpuinfo": tables.cpuinfo(E5, n_cores=n_cores, flags=flags)}
    if dmi is not None:
        write_dmi(root, dmi)
    return system(root, files)


def measuring(
    monkeypatch: pytest.MonkeyPatch, bytes_per_s: float, spread: float, n_threads: int = 14
) -> None:
    found = Bandwidth(bytes_per_s, spread, n_threads, 256 << 20)
    monkeypatch.setattr(machine, "measure_bandwidth", lambda *_: found)


def described(root: Path, measure: bool = False) -> MachineReport:
    return describe_machine(measure=measure, folder=root, root=root)


def test_one_stick_is_warned_of(tmp_path: Path) -> None:
    report = described(z440(tmp_path, dmi=tables.z440(1)))
    assert report.warnings == (
        "1 of 4 memory channels is filled: 19.2 of 76.8 GB/s, so models run 4 times slower than this CPU can",
    )
    assert report.advice[0].startswith("buy 3 more modules of 64 GiB DDR4-2400")
    assert report.notes == ()
    assert report.bandwidth_bytes_per_s == 19.2e9
    assert (report.bandwidth, report.disks[0].mount) == (None, tmp_path)


def test_four_sticks_are_not(tmp_path: Path) -> None:
    report = described(z440(tmp_path, dmi=tables.z440(4)))
    assert report.warnings == report.advice == ()
    assert report.notes == (
        "memory channels: this board's names don't tell which module is on which; modules were counted",
    )


def test_without_root_the_measured_speed_gives_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, 15.1e9, 0.05)
    report = described(z440(tmp_path), measure=True)
    assert report.warnings == (
        "memory reads at 15.1 GB/s, but 4 channels of DDR4-2400 do 76.8: channels are probably empty",
    )
    assert report.notes == (
        "memory channels: this system shows no table of the firmware (SMBIOS); "
        "sudo ggufkit machine may know more",
    )


def test_a_fast_machine_without_root_is_not_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, 60e9, 0.05)
    assert described(z440(tmp_path), measure=True).warnings == ()


def test_noise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 15.1e9, 0.4)
    report = described(z440(tmp_path, dmi=tables.z440(4)), measure=True)
    assert report.bandwidth is None
    assert report.warnings == ()
    assert report.notes[0] == (
        "bandwidth: not measured: five rounds differed by 40%: something else is using the memory; "
        "try again when it is done"
    )


def test_full_memory_is_not_measured(tmp_path: Path) -> None:
    root = z440(tmp_path, dmi=tables.epyc_two_sockets())
    (root / "proc/meminfo").write_text("MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n")
    report = described(root, measure=True)
    assert report.bandwidth is None
    assert "too much of the memory that is free" in report.notes[0]


def test_a_virtual_machine_makes_its_modules_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 5e9, 0.01)
    report = described(z440(tmp_path, dmi=tables.z440(1), flags="avx2 hypervisor"), measure=True)
    assert report.channels is None
    assert report.warnings == report.advice == ()
    assert report.notes == ("memory channels: this is a virtual machine, which does not show its host's",)


def test_a_cpu_that_is_not_in_the_table_is_named(tmp_path: Path) -> None:
    root = z440(tmp_path, dmi=tables.z440(1))
    (root / "proc/cpuinfo").write_text(tables.cpuinfo("Loongson-3C5000"))
    report = described(root)
    assert report.notes == ("memory channels: how many this CPU has is not in our table: Loongson-3C5000",)


def test_a_mac_has_all_its_channels(tmp_path: Path) -> None:
    root = z440(tmp_path)
    (root / "proc/cpuinfo").write_text(tables.cpuinfo("Apple M4 Pro"))
    report = described(root)
    assert (report.family, report.bandwidth_bytes_per_s) == ("apple", 273e9)
    assert report.warnings == report.notes == ()


def test_this_very_machine() -> None:
    report = describe_machine(measure=False)
    assert report.memory.ram_bytes > 0
    assert report.cpu.n_cores >= 1
    assert report.disks[0].total_bytes > 0
