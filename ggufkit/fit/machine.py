"""How much memory this machine has for a process: the system's word, and the limits of its control groups.

The only module of this room that opens files. Sources: proc(5) meminfo; the kernel's cgroup-v2.rst
(`memory.max`) and cgroup-v1/memory.rst (`memory.limit_in_bytes`); sysconf(3); Win32 GlobalMemoryStatusEx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ggufkit.errors import ToolError

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
