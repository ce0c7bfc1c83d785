"""What the system says of this machine: memory and its limits, CPUs, modules, GPUs, disks.

The only module of this room that opens files. Sources: proc(5) meminfo, cpuinfo, mounts; the kernel's
cgroup-v2.rst (`memory.max`), cgroup-v1/memory.rst (`memory.limit_in_bytes`), ABI/stable/sysfs-devices-node,
ABI/testing/sysfs-devices-system-cpu (caches), ABI/testing/sysfs-devices-edac, ABI/testing/sysfs-block,
amdgpu's `mem_info_vram_total`; sysconf(3); Win32 GlobalMemoryStatusEx.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from ggufkit.errors import FormatError, ToolError

if TYPE_CHECKING:
    from ggufkit.fit.channels import Told
    from ggufkit.fit.cpus import Cpu
    from ggufkit.fit.gpus import Gpu
    from ggufkit.fit.machines import MachineProfile
    from ggufkit.fit.smbios import Module

Source = Literal["given", "system", "control group"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The memory that a model may use."""

    ram_bytes: int
    """Bytes of memory: as given, as the system says, or the control group's limit if that is lower."""
    available_bytes: int | None
    """Bytes that are free now or can be made so; None when nobody can say."""
    source: Source
    """Where `ram_bytes` comes from."""


def given_machine(ram_bytes: int) -> Machine:
    """Describe a machine of which only the memory that is built in is known."""
    return Machine(ram_bytes, None, "given")


def this_machine(root: Path = Path("/")) -> Machine:
    """Ask the system, whose files lie below `root`; raises ToolError when it does not tell."""
    total, available = _meminfo(root) or _sysconf() or _windows()
    if total is None:
        raise ToolError("this system does not tell how much memory it has", hint="say it: --ram 64G")
    limit = min(_limits(root), default=total)
    if limit >= total:
        return Machine(total, available, "system")
    return Machine(limit, None if available is None else min(available, limit), "control group")


def _meminfo(root: Path) -> tuple[int, int | None] | None:
    """Read Linux's /proc/meminfo: kibibytes, though it says kB."""
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    total, available = (_kibibytes(fields.get(name)) for name in ("MemTotal", "MemAvailable"))
    return None if total is None else (total, available)


def _kibibytes(text: str | None) -> int | None:
    words = (text or "").split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else None


def _sysconf() -> tuple[int, int | None] | None:
    """Ask POSIX (macOS, BSD)."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return (total, None) if total > 0 else None


def _windows() -> tuple[int | None, int | None]:
    """Ask Windows; (None, None) elsewhere."""
    import ctypes

    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    if kernel is None:
        return None, None
    # MEMORYSTATUSEX: two DWORDs (its size, load in percent), then seven 64-bit sizes: total and
    # available physical memory come first.
    status = (ctypes.c_uint64 * 8)(64)
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return status[1], status[2]


def _limits(root: Path) -> Iterator[int]:
    """Find the memory limits of the control groups that this process is in, and of their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if not controllers:  # version 2
            yield from _limits_above(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_above(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_above(top: Path, path: str, name: str) -> Iterator[int]:
    """Read `name` in the group at `path` below `top` and in all groups above it; `max` is no limit.

    In a container the path may be that of the host: then only `top` is there, and is the container's.
    """
    inside = PurePosixPath("/", path).relative_to("/")
    for group in (inside, *inside.parents):
        if ".." in group.parts:
            continue
        try:
            text = (top / group / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) > 0:
            yield int(text)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system with room for models."""

    mount: Path
    """Where it is."""
    device: str
    """What it is on; empty when nobody says."""
    total_bytes: int
    """Its size."""
    free_bytes: int
    """What of it is free for this user."""
    rotating: bool | None
    """Whether the disk turns, and so is slow; None when nobody says."""


@dataclass(frozen=True, slots=True)
class ModulesFound:
    """The memory modules, as far as anybody tells."""

    modules: tuple[Module, ...]
    """The slots; none when nobody tells."""
    source: Told | None
    """Who told."""
    problem: str | None
    """Why the firmware's own table was not read."""


def read_cpu(root: Path = Path("/")) -> Cpu:
    """Ask Linux for the CPUs below `root`; elsewhere what Python knows."""
    import platform

    from ggufkit.fit.cpus import Cpu, parse_cpuinfo

    text = _text(root / "proc/cpuinfo")
    nodes = len(list((root / "sys/devices/system/node").glob("node[0-9]*")))
    cpu = parse_cpuinfo(text or "", l3_bytes=_l3_bytes(root), n_numa_nodes=nodes or None)
    if text:
        return cpu
    n_threads = os.cpu_count() or 1
    name = _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    n_cores = int.from_bytes(_sysctl_bytes("hw.physicalcpu"), "little") or n_threads
    return Cpu(name, 1, n_cores, n_threads, (), None, None, False)


def _sysctl(name: str) -> str:
    return _sysctl_bytes(name).split(b"\0")[0].decode("utf-8", "replace")


def _sysctl_bytes(name: str) -> bytes:
    """Ask macOS (sysctlbyname(3)) for a value as it lies in memory; nothing elsewhere."""
    import ctypes

    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, TypeError, AttributeError):
        return b""
    value, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    failed = ask(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0))
    return b"" if failed else value.raw[: size.value]


def _l3_bytes(root: Path) -> int | None:
    """Add up the L3 caches: each is listed by all the CPUs that share it."""
    caches: dict[str, int] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        size = _text(folder / "size") or ""
        if _text(folder / "level") == "3" and size.endswith("K") and size[:-1].isdigit():
            caches[_text(folder / "shared_cpu_list") or str(folder)] = int(size[:-1]) * 1024
    return sum(caches.values()) or None


def read_modules(root: Path = Path("/")) -> ModulesFound:
    """Ask who knows the memory modules: the firmware's table, udev's copy of it, EDAC's error counters."""
    from ggufkit.fit.smbios import parse_smbios, parse_udev

    problem = None
    try:
        table = (root / "sys/firmware/dmi/tables/DMI").read_bytes()
        modules = parse_smbios(table)
        if modules:
            return ModulesFound(modules, "SMBIOS", None)
        problem = "the firmware's table (SMBIOS) names no memory"
    except PermissionError:
        problem = "only root may read the firmware's table (SMBIOS)"
    except OSError:
        problem = "this system shows no table of the firmware (SMBIOS)"
    except FormatError as error:
        problem = error.message
    modules = parse_udev(_text(root / "run/udev/data/+dmi:id") or "")
    if modules:
        return ModulesFound(modules, "udev", problem)
    modules = tuple(_edac_modules(root / "sys/devices/system/edac/mc"))
    return ModulesFound(modules, "EDAC" if modules else None, problem)


def _edac_modules(top: Path) -> Iterator[Module]:
    """Read the modules that the driver for memory errors watches: boards with error correction only."""
    from ggufkit.fit.smbios import Module

    for folder in sorted([*top.glob("mc[0-9]*/dimm[0-9]*"), *top.glob("mc[0-9]*/rank[0-9]*")]):
        size, place = _text(folder / "size") or "", _text(folder / "dimm_location") or ""
        channel = re.search(r"channel (\d+)", place)
        if not size.isdigit():
            continue
        bank = f"NODE {folder.parent.name[2:]} CHANNEL {channel[1]}" if channel else ""
        kind = re.search(r"(LP)?DDR\d", _text(folder / "dimm_mem_type") or "")
        label = _text(folder / "dimm_label") or folder.name
        yield Module(int(size) << 20, label, bank, kind[0] if kind else None, None, None, None, "")


def read_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Return AMD's GPUs as the kernel's driver shows them: for machines without AMD's library."""
    from ggufkit.fit.gpus import Gpu

    found = []
    for folder in sorted((root / "sys/class/drm").glob("card[0-9]*/device")):
        total, used = (_text(folder / f"mem_info_vram_{what}") or "" for what in ("total", "used"))
        if total.isdigit():
            name = _text(folder / "product_name") or f"AMD GPU {_text(folder / 'device') or ''}".strip()
            free = int(total) - int(used) if used.isdigit() else None
            found.append(Gpu(name, int(total), free, "amdgpu"))
    return tuple(found)


def read_disks(folder: Path, root: Path = Path("/")) -> tuple[Disk, ...]:
    """Return the disks, that of `folder` first: each once, without the read-only ones of packages."""
    disks = [Disk(folder, "", *_room(folder), None)]
    seen = {folder.stat().st_dev}
    for line in (_text(root / "proc/mounts") or "").splitlines():
        device, _, rest = line.partition(" ")
        mount = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), rest.split(" ")[0]))
        if not device.startswith("/dev/") or device.startswith("/dev/loop"):
            continue
        try:
            number, room = mount.stat().st_dev, _room(mount)
        except OSError:
            continue
        rotating = _rotates(root, number)
        if number == disks[0].mount.stat().st_dev:
            disks[0] = Disk(folder, disks[0].device or device, *room, rotating)
        elif number not in seen:
            seen.add(number)
            disks.append(Disk(mount, device, *room, rotating))
    return tuple(disks)


def _room(folder: Path) -> tuple[int, int]:
    import shutil

    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def _rotates(root: Path, number: int) -> bool | None:
    """Ask the disk, or the disk that a partition is on; device mappers answer for theirs."""
    if not hasattr(os, "major"):
        return None
    block = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if block.name.startswith("vd"):  # virtio says that it turns, whatever the host has
        return None
    for folder in (block, block.parent):
        answer = _text(folder / "queue/rotational")
        if answer in ("0", "1"):
            return answer == "1"
    return None


@cache
def machine_profiles() -> Mapping[str, MachineProfile]:
    """Return the machines of `machines.toml` by name, in its order."""
    from importlib import resources

    from ggufkit.fit.machines import parse_profiles

    text = resources.files("ggufkit.fit").joinpath("machines.toml").read_text("utf-8")
    return MappingProxyType(parse_profiles(text))


def _text(path: Path) -> str | None:
    """Return a small file's text without the white space around it; None when it can't be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None
