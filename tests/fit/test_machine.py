"""What the system says of its memory, from recorded files of Linux and from stand-ins for the others."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ggufkit.errors import ToolError
from ggufkit.fit.machine import Machine, given_machine, this_machine

MEMINFO = """\
MemTotal:       263921560 kB
MemFree:         3412344 kB
MemAvailable:   251002352 kB
HugePages_Total:       0
"""
TOTAL, AVAILABLE = 263921560 * 1024, 251002352 * 1024


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_linux_without_limits(tmp_path: Path) -> None:
    root = system(tmp_path, {"proc/meminfo": MEMINFO})
    assert this_machine(root) == Machine(TOTAL, AVAILABLE, "system")


def test_old_kernels_do_not_say_what_is_available(tmp_path: Path) -> None:
    root = system(tmp_path, {"proc/meminfo": "MemTotal: 1024 kB\nMemFree: 12 kB\n"})
    assert this_machine(root) == Machine(1 << 20, None, "system")


@pytest.mark.parametrize(
    "files",
    [
        {  # version 2: the limit of a parent counts
            "proc/self/cgroup": "0::/user.slice/app.service\n",
            "sys/fs/cgroup/user.slice/memory.max": "8589934592\n",
            "sys/fs/cgroup/user.slice/app.service/memory.max": "max\n",
        },
        {  # version 2 in a container: the host's path, the container's file
            "proc/self/cgroup": "0::/../../kubepods/pod1\n",
            "sys/fs/cgroup/memory.max": "8589934592\n",
        },
        {  # version 1, and a version 2 beside it without a memory controller
            "proc/self/cgroup": "5:cpu,memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "8589934592\n",
        },
    ],
    ids=["v2", "v2-container", "v1"],
)
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str]) -> None:
    root = system(tmp_path, {"proc/meminfo": MEMINFO} | files)
    assert this_machine(root) == Machine(8 << 30, 8 << 30, "control group")


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "0", "", "nonsense"])
def test_what_is_no_limit(tmp_path: Path, text: str) -> None:
    group = {"proc/self/cgroup": "0::/a\nbroken\n", "sys/fs/cgroup/a/memory.max": text}
    assert this_machine(system(tmp_path, {"proc/meminfo": MEMINFO} | group)).source == "system"


def test_without_proc_posix_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"SC_PAGE_SIZE": 16384, "SC_PHYS_PAGES": 4194304}
    monkeypatch.setattr(os, "sysconf", answers.__getitem__)
    assert this_machine(tmp_path) == Machine(64 << 30, None, "system")


def no_sysconf(name: str) -> int:
    raise ValueError(f"unrecognized configuration name: {name}")


def test_without_posix_windows_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", no_sysconf)

    def status(pointer: Any) -> int:
        fields = pointer._obj
        assert ctypes.sizeof(fields) == fields[0] == 64  # sizeof(MEMORYSTATUSEX), in dwLength
        fields[1], fields[2] = 32 << 30, 20 << 30
        return 1

    kernel32 = SimpleNamespace(GlobalMemoryStatusEx=status)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    assert this_machine(tmp_path) == Machine(32 << 30, 20 << 30, "system")


def test_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", no_sysconf)
    monkeypatch.setattr(ctypes, "windll", None, raising=False)
    with pytest.raises(ToolError) as caught:
        this_machine(tmp_path)
    assert caught.value.hint == "say it: --ram 64G"


def test_this_very_machine_has_memory() -> None:
    machine = this_machine()
    assert machine.ram_bytes > 256 << 20
    assert machine.available_bytes is None or 0 < machine.available_bytes <= machine.ram_bytes


def test_a_given_machine() -> None:
    assert given_machine(5) == Machine(5, None, "given")
