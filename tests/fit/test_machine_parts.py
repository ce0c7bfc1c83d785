"""CPUs, modules, GPUs and disks, from the files of recorded systems."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ggufkit.fit import gpus
from ggufkit.fit.cpus import soldered_bandwidth
from ggufkit.fit.gpus import Gpu, library_gpus
from ggufkit.fit.machine import ModulesFound, read_cpu, read_disks, read_gpus, read_modules
from ggufkit.fit.smbios import parse_udev
from tests.fit import tables
from tests.fit.test_machine import system
from tests.fit.test_smbios import UDEV

DMI = "sys/firmware/dmi/tables/DMI"


def write_dmi(root: Path, table: bytes) -> None:
    (root / DMI).parent.mkdir(parents=True, exist_ok=True)
    (root / DMI).write_bytes(table)


# -- CPUs ----------------------------------------------------------------------------------------------


def test_caches_are_counted_once_and_nodes_too(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {"proc/cpuinfo": tables.cpuinfo("AMD EPYC 7702 64-Core Processor", n_sockets=2, n_cores=2)}
    for i in range(4):
        files |= {
            f"{cpu}/cpu{i}/cache/index2/level": "2\n",
            f"{cpu}/cpu{i}/cache/index2/size": "512K\n",
            f"{cpu}/cpu{i}/cache/index3/level": "3\n",
            f"{cpu}/cpu{i}/cache/index3/size": "16384K\n",
            f"{cpu}/cpu{i}/cache/index3/shared_cpu_list": f"{i // 2 * 2}-{i // 2 * 2 + 1}\n",
        }
    files |= {f"sys/devices/system/node/node{i}/cpulist": "0\n" for i in range(2)}
    found = read_cpu(system(tmp_path, files))
    assert (found.l3_bytes, found.n_numa_nodes) == (32 << 20, 2)
    assert (found.n_sockets, found.n_cores) == (2, 4)


def test_elsewhere_threads_count_as_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    found = read_cpu(tmp_path)
    assert (found.n_sockets, found.n_cores, found.n_threads, found.l3_bytes) == (1, 10, 10, None)


def test_macos_is_asked_by_sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {b"machdep.cpu.brand_string": b"Apple M4 Pro\0", b"hw.physicalcpu": b"\x0e\0\0\0"}

    def sysctlbyname(name: bytes, value: Any, size: Any, new: None, new_size: Any) -> int:
        assert (new, size._obj.value) == (None, 256)
        if name not in known:
            return -1
        value[: len(known[name])] = known[name]
        size._obj.value = len(known[name])
        return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(sysctlbyname=sysctlbyname))
    found = read_cpu(tmp_path)
    assert (found.name, found.n_cores) == ("Apple M4 Pro", 14)
    assert soldered_bandwidth(found.name) == 273e9
    assert soldered_bandwidth("AMD EPYC") is soldered_bandwidth("Apple M9") is None


# -- modules -------------------------------------------------------------------------------------------


def test_root_reads_the_firmwares_table(tmp_path: Path) -> None:
    write_dmi(tmp_path, tables.z440(1))
    found = read_modules(tmp_path)
    assert (found.source, found.problem, len(found.modules)) == ("SMBIOS", None, 8)


def refuse(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied", str(path))


def test_others_read_udevs_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dmi(tmp_path, tables.z440(1))
    system(tmp_path, {"run/udev/data/+dmi:id": UDEV})
    monkeypatch.setattr(Path, "read_bytes", refuse)
    problem = "only root may read the firmware's table (SMBIOS)"
    assert read_modules(tmp_path) == ModulesFound(parse_udev(UDEV), "udev", problem)


def test_a_damaged_table_is_said_and_udev_asked(tmp_path: Path) -> None:
    write_dmi(tmp_path, tables.z440(1)[:150])
    system(tmp_path, {"run/udev/data/+dmi:id": UDEV})
    found = read_modules(tmp_path)
    assert found.source == "udev"
    assert "is cut or damaged" in (found.problem or "")


def test_boards_with_error_correction_tell_their_channels(tmp_path: Path) -> None:
    top = "sys/devices/system/edac/mc"
    files: dict[str, str] = {}
    for mc, channel, slot, size in ((0, 0, 0, 65536), (0, 1, 0, 0), (1, 2, 0, 65536), (1, 2, 1, 65536)):
        folder = f"{top}/mc{mc}/dimm{channel * 3 + slot}"
        files |= {
            f"{folder}/size": f"{size}\n",
            f"{folder}/dimm_location": f"channel {channel} slot {slot} \n",
            f"{folder}/dimm_mem_type": "Registered-DDR4\n",
            f"{folder}/dimm_label": f"CPU_SrcID#0_Ha#{mc}_Chan#{channel}_DIMM#{slot}\n",
        }
    found = read_modules(system(tmp_path, files))
    assert found.source == "EDAC"
    assert [(m.size_bytes, m.bank, m.memory_type) for m in found.modules] == [
        (64 << 30, "NODE 0 CHANNEL 0", "DDR4"),
        (0, "NODE 0 CHANNEL 1", "DDR4"),
        (64 << 30, "NODE 1 CHANNEL 2", "DDR4"),
        (64 << 30, "NODE 1 CHANNEL 2", "DDR4"),
    ]
    assert found.problem == "this system shows no table of the firmware (SMBIOS)"


def test_nobody_tells(tmp_path: Path) -> None:
    write_dmi(tmp_path, tables.table(arrays=()))
    problem = "the firmware's table (SMBIOS) names no memory"
    assert read_modules(tmp_path) == ModulesFound((), None, problem)


# -- GPUs ----------------------------------------------------------------------------------------------


def test_amds_driver_shows_memory_without_a_library(tmp_path: Path) -> None:
    card = "sys/class/drm/card1/device"
    files = {
        f"{card}/mem_info_vram_total": "21458059264\n",
        f"{card}/mem_info_vram_used": "1073741824\n",
        f"{card}/device": "0x744c\n",
        "sys/class/drm/card0/device/device": "0x1912\n",
    }
    gpu = Gpu("AMD GPU 0x744c", 21458059264, 20384317440, "amdgpu")
    assert read_gpus(system(tmp_path, files)) == (gpu,)


class FakeNvml(Exception):
    """Stands in for nvidia-ml-py, as its documentation describes it."""

    NVMLError = Exception
    fails = False

    def nvmlInit(self) -> None:
        if self.fails:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        assert not self.fails

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=6 << 30, free=5 << 30)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"P106-100"


class FakeAmd:
    """Stands in for amdsmi, as its documentation describes it."""

    AmdSmiException = LookupError

    def amdsmi_init(self) -> None: ...

    def amdsmi_shut_down(self) -> None: ...

    def amdsmi_get_processor_handles(self) -> list[int]:
        return [7]

    def amdsmi_get_gpu_asic_info(self, handle: int) -> dict[str, str]:
        return {"market_name": "Radeon RX 7900 XT"}

    def amdsmi_get_gpu_vram_usage(self, handle: int) -> dict[str, int]:
        return {"vram_total": 20480, "vram_used": 480}


def libraries(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    monkeypatch.setattr(gpus, "_import", found.get)


def test_the_makers_libraries_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(monkeypatch, pynvml=FakeNvml(), amdsmi=FakeAmd())
    nvidia = Gpu("P106-100", 6 << 30, 5 << 30, "NVML")
    amd = Gpu("Radeon RX 7900 XT", 20 << 30, 20000 << 20, "AMD SMI")
    assert library_gpus() == ((nvidia, amd), ("pynvml", "amdsmi"))


def test_a_library_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    nvml.fails = True
    libraries(monkeypatch, pynvml=nvml)
    assert library_gpus() == ((), ("pynvml",))


def test_libraries_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus._import("a_library_that_nobody_has") is None
    libraries(monkeypatch)
    assert library_gpus() == ((), ())


# -- disks ---------------------------------------------------------------------------------------------


def test_the_disk_of_the_folder_comes_first(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = (
        f"proc /proc proc rw 0 0\n/dev/nvme0n1p2 {tmp_path} ext4 rw 0 0\n/dev/sdz1 /nowhere ext4 rw 0 0\n"
    )
    queue = f"sys/dev/block/{number}/queue/rotational"
    disks = read_disks(tmp_path, system(tmp_path, {"proc/mounts": mounts, queue: "0\n"}))
    assert len(disks) == 1
    assert (disks[0].mount, disks[0].device, disks[0].rotating) == (tmp_path, "/dev/nvme0n1p2", False)
    assert 0 < disks[0].free_bytes <= disks[0].total_bytes


def test_without_proc_there_is_the_folders_disk(tmp_path: Path) -> None:
    (disk,) = read_disks(tmp_path, tmp_path)
    assert (disk.mount, disk.device, disk.rotating) == (tmp_path, "", None)
