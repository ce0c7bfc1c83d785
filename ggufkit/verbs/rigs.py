"""Which machine a model is judged for: this one, or one of the profiles; and what is remembered of this one.

Measurements are kept in the user's state folder under the machine's CPU and memory: a home may be shared.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ggufkit.errors import NotFoundError
from ggufkit.fit.channels import find_channels
from ggufkit.fit.cpus import Cpu, memory_controller, soldered_bandwidth, speed_family
from ggufkit.fit.machine import (
    Machine,
    given_machine,
    machine_profiles,
    read_cpu,
    read_modules,
    this_machine,
)
from ggufkit.fit.machines import GIB
from ggufkit.fit.rig import THIS_MACHINE, Bandwidths, KnownRun, Rig, bandwidth_here, calibrated, rig_of
from ggufkit.fit.speed import Run
from ggufkit.folders import state_folder
from ggufkit.transfer.disk import write_atomic
from ggufkit.verbs.disk_rate import DiskRate, mount_of


@dataclass(frozen=True, slots=True)
class Remembered:
    """What earlier commands measured on this machine."""

    read_bytes_per_s: float | None = None
    """How fast its memory was read."""
    run: KnownRun | None = None
    """How fast a model generated on it."""
    disks_bytes_per_s: Mapping[str, float] = field(default_factory=dict)
    """How fast its disks were read, by where they are mounted."""


def find_rigs(
    names: tuple[str, ...] = (),
    *,
    ram_bytes: int | None = None,
    bandwidth_bytes_per_s: float | None = None,
    gpu_bytes_per_s: float | None = None,
    disk_bytes_per_s: float | None = None,
    model: Path | None = None,
) -> tuple[Rig, ...]:
    """Return the machines called `names`, in that order; without names this one.

    What is given holds for each of them in place of what is known. Of this machine the disk counts that
    `model` is on, if its speed was measured; left out, that of the current folder. Raises NotFoundError for a
    name that is none, with the nearest.
    """
    rigs = [_profile_rig(name, ram_bytes) for name in dict.fromkeys(names)] or [
        _this_rig(ram_bytes, model or Path())
    ]
    if bandwidth_bytes_per_s is not None:
        rigs = [replace(rig, bandwidth=Bandwidths(bandwidth_bytes_per_s, "given")) for rig in rigs]
    return tuple(
        replace(
            rig,
            disk_bytes_per_s=disk_bytes_per_s or rig.disk_bytes_per_s,
            gpu_bytes_per_s=gpu_bytes_per_s or rig.gpu_bytes_per_s,
        )
        for rig in rigs
    )


def _profile_rig(name: str, ram_bytes: int | None) -> Rig:
    import difflib

    profiles = machine_profiles()
    if name in profiles:
        return rig_of(profiles[name], ram_bytes=ram_bytes)
    near = difflib.get_close_matches(name, profiles, n=1)
    hint = f"did you mean {near[0]}?" if near else "ggufkit machine --list shows all"
    raise NotFoundError(f"no machine is called {name}", hint=hint)


def _this_rig(ram_bytes: int | None, model: Path, root: Path = Path("/")) -> Rig:
    cpu = read_cpu(root)
    known = remembered(cpu, root)
    rig = Rig(
        name=THIS_MACHINE,
        title=cpu.name or "of unknown make",
        memory=this_machine(root) if ram_bytes is None else given_machine(ram_bytes),
        family=speed_family(cpu),
        n_sockets=cpu.n_sockets,
        bandwidth=bandwidth_here(_theoretical(cpu, root), known.read_bytes_per_s),
        disk_bytes_per_s=_disk(known, model),
    )
    return rig if known.run is None else calibrated(rig, known.run)


def _disk(known: Remembered, model: Path) -> float | None:
    """Return how fast the disk was read that `model` is on."""
    if not known.disks_bytes_per_s:
        return None
    try:
        return known.disks_bytes_per_s.get(str(mount_of(model)))
    except OSError:
        return None


def _theoretical(cpu: Cpu, root: Path) -> Bandwidths | None:
    """Return the bandwidth of the modules that the firmware lists, or of the chip's own memory."""
    soldered = soldered_bandwidth(cpu.name)
    if soldered is not None:
        return Bandwidths(soldered, "maker")
    found = read_modules(root)
    if found.source is None or cpu.virtual:
        return None
    channels = find_channels(found.modules, found.source, cpu, memory_controller(cpu.name))
    if channels is None or channels.bandwidth_bytes_per_s is None:
        return None
    return Bandwidths(channels.bandwidth_bytes_per_s, "channels")


def remembered(cpu: Cpu, root: Path = Path("/")) -> Remembered:
    """Return what is remembered of this machine; a file that is no good is as none."""
    entry = _read_all().get(_key(cpu, root))
    if not isinstance(entry, dict):
        return Remembered()
    read, run = entry.get("read_bytes_per_s"), entry.get("run")
    disks = entry.get("disks_bytes_per_s")
    rates = {str(k): _positive(v) for k, v in disks.items()} if isinstance(disks, dict) else {}
    return Remembered(
        _positive(read),
        _known_run(run) if isinstance(run, dict) else None,
        {mount: rate for mount, rate in rates.items() if rate is not None},
    )


def _known_run(fields: Mapping[str, Any]) -> KnownRun | None:
    active, speed = _positive(fields.get("active_bytes_per_token")), _positive(fields.get("tokens_per_s"))
    if active is None or speed is None:
        return None
    return KnownRun(str(fields.get("model", "")), Run(active, speed))


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e18 else None


def remember_bandwidth(cpu: Cpu, read_bytes_per_s: float) -> None:
    """Keep a measured bandwidth for `fit`."""
    _remember(cpu, {"read_bytes_per_s": read_bytes_per_s})


def remember_disk(cpu: Cpu, rate: DiskRate) -> None:
    """Keep a disk's measured speed for `fit`."""
    known = remembered(cpu).disks_bytes_per_s
    _remember(cpu, {"disks_bytes_per_s": {**known, rate.mount: rate.bytes_per_s}})


def remember_run(cpu: Cpu, known: KnownRun | None) -> None:
    """Keep a run for `fit`; None forgets it."""
    fields = None
    if known is not None:
        run = known.run
        fields = {
            "model": known.model,
            "active_bytes_per_token": run.active_bytes_per_token,
            "tokens_per_s": run.tokens_per_s,
        }
    _remember(cpu, {"run": fields})


def _remember(cpu: Cpu, fields: Mapping[str, Any]) -> None:
    """Change this machine's entry. A state folder that can't be written costs only the comfort."""
    entries = _read_all()
    key = _key(cpu, Path("/"))
    before = entries.get(key)
    entries[key] = {**(before if isinstance(before, dict) else {}), **fields}
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(), json.dumps({"schema": 1, "machines": entries}, indent=1).encode())


def _read_all() -> dict[str, Any]:
    try:
        machines = json.loads(_file().read_bytes())["machines"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return machines if isinstance(machines, dict) else {}


def _key(cpu: Cpu, root: Path) -> str:
    memory: Machine = this_machine(root)
    return f"{cpu.n_sockets} x {cpu.name or 'unknown'}, {round(memory.ram_bytes / GIB)} GiB"


def _file() -> Path:
    return state_folder() / "machines.json"
