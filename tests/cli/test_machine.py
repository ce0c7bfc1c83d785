"""`ggufkit machine` at the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ggufkit.cli.main import run
from ggufkit.fit.bandwidth import Bandwidth
from ggufkit.fit.gpus import Gpu
from ggufkit.fit.machine import machine_profiles, read_cpu
from ggufkit.verbs import disk_rate, machine
from ggufkit.verbs.disk_rate import DiskRate
from ggufkit.verbs.machine import MachineReport, describe_machine
from ggufkit.verbs.rigs import remembered
from tests.fit import tables
from tests.verbs.test_machine import z440


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Let the command describe a Z440 with the given table instead of this machine."""

    def become(table: bytes) -> None:
        root = z440(tmp_path, dmi=table)

        def described(*, measure: bool = True) -> MachineReport:
            return describe_machine(measure=measure, folder=root, root=root)

        monkeypatch.setattr(machine, "describe_machine", described)
        found = Bandwidth(16.42e9, 0.04, 14, 256 << 20)
        monkeypatch.setattr(machine, "measure_bandwidth", lambda *_: found)
        gpu = Gpu("P106-100", 6 << 30, None, "NVML")
        monkeypatch.setattr(machine, "library_gpus", lambda: ((gpu,), ("pynvml",)))

    return become


def test_people_see_what_is_wrong(
    here: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here(tables.z440(1))
    assert run(["machine"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:11] == [
        "WHAT          HERE",
        "memory        251.7 GiB (270.3 GB), of which 239.4 GiB (257.0 GB) available",
        "CPU           Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz: 1 socket, 14 cores, 28 threads",
        "instructions  SSE4.2 AVX2",
        "channels      1 of 4 filled, at 2,400 MT/s: 19.2 GB/s in theory (SMBIOS)",
        "measured      16.4 GB/s read by 14 threads, rounds within 4%",
        "GPU 0         P106-100, 6.0 GiB (6.4 GB)",
        "",
        "SLOT                 SIZE  TYPE  MT/S  PART              BANK",
        "DIMM1  64.0 GiB (68.7 GB)  DDR4  2400  M386A8K40BM1-CRC",
        "DIMM2               empty  DDR4",
    ]
    assert out.splitlines()[-1].endswith(str(tmp_path))
    assert err.splitlines() == [
        "warning: 1 of 4 memory channels is filled: 19.2 of 76.8 GB/s, "
        "so models run 4 times slower than this CPU can",
        "buy 3 more modules of 64 GiB DDR4-2400 (as M386A8K40BM1-CRC), one for each empty channel",
    ]


def test_scripts_get_json_and_the_bytes(
    here: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    here(tables.z440(4))
    assert run(["machine", "--json", "--no-measure"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["channels"]["n_filled"], found["channels"]["n_channels"]) == (4, 4)
    assert found["channels"]["bandwidth_bytes_per_s"] == 76.8e9
    assert (found["bandwidth"], found["cpu"]["n_cores"], found["family"]) == (None, 14, "cpu_xeon")
    assert run(["machine", "-q", "--no-measure"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{263921560 * 1024}\n", "")


def test_this_very_machine_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bandwidth"] is None or found["bandwidth"]["spread"] <= 0.15
    assert (found["bandwidth"] is None) == any("not measured" in note for note in found["notes"])


def test_the_machines_that_fit_knows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["machine", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "MEMORY", "BANDWIDTH", "PRICE", "POWER", "WHAT"]
    names = [line.split()[0] for line in lines[1:]]
    assert names == list(machine_profiles())
    wanted = "256 GiB 76.8 GB/s 2,100 CNY 80 W HP Z440, E5-2680 v4, four modules of DDR4-2400"
    assert " ".join(lines[1 + names.index("z440-4ch")].split()[1:]) == wanted
    assert "2,000 USD" in lines[1 + names.index("epyc-7702")]
    assert run(["machine", "--list", "-q"]) == 0
    assert capsys.readouterr().out.split() == names
    assert run(["machine", "--list", "--json"]) == 0
    machines = json.loads(capsys.readouterr().out)["machines"]
    assert [m["name"] for m in machines] == names
    assert all(m["ram_gib"]["source"] for m in machines)


def test_the_disk_is_measured_and_remembered(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = DiskRate(1.5e9, 256 << 20, str(tmp_path))
    monkeypatch.setattr(disk_rate, "measure_disk", lambda path: rate)
    assert run(["machine", "--disk", str(tmp_path / "model.gguf")]) == 0
    assert capsys.readouterr().out == f"disk: 1.50 GB/s, reading 256 MiB all over the file ({tmp_path})\n"
    assert remembered(read_cpu()).disks_bytes_per_s == {str(tmp_path): 1.5e9}
    assert run(["machine", "--disk", str(tmp_path), "-q"]) == 0
    assert capsys.readouterr().out == "1500000000\n"
