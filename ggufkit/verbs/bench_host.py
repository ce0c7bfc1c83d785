"""What a benchmark's result says of this machine and of the model's file: enough for a roofline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ggufkit.bench.host import this_host
from ggufkit.bench.result import Host
from ggufkit.errors import GgufkitError
from ggufkit.fit.channels import Channels, find_channels
from ggufkit.fit.cpus import memory_controller
from ggufkit.fit.gpus import library_gpus
from ggufkit.fit.machine import read_cpu, read_gpus, read_modules
from ggufkit.fit.speed import active_bytes_per_token
from ggufkit.gguf.model import model_info
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.rigs import find_rigs


def describe_host(root: Path = Path("/")) -> Host:
    """Ask the system what `ggufkit machine` does; the bandwidth is what that measured, if it did."""
    host, cpu, found = this_host(), read_cpu(root), read_modules(root)
    channels = None
    if found.source and not cpu.virtual:
        channels = find_channels(found.modules, found.source, cpu, memory_controller(cpu.name))
    (rig,) = find_rigs()
    gpus = library_gpus()[0] or read_gpus(root)
    return replace(
        host,
        n_sockets=cpu.n_sockets,
        n_cores=cpu.n_cores,
        n_numa_nodes=cpu.n_numa_nodes,
        virtual=cpu.virtual,
        memory=_memory(channels) if channels else None,
        gpus=tuple(gpu.name for gpu in gpus),
        bandwidth_bytes_per_s=rig.bandwidth.bytes_per_s if rig.bandwidth else None,
        bandwidth_source=rig.bandwidth.source if rig.bandwidth else None,
    )


def _memory(channels: Channels) -> str:
    of = f" of {channels.n_channels}" if channels.n_channels else ""
    kinds = {module.memory_type for module in channels.modules if module.memory_type}
    kind = f", {'/'.join(sorted(kinds))}" if kinds else ""
    speed = f"-{channels.speed_mts}" if channels.speed_mts and kinds else ""
    return f"{channels.n_filled}{of} channels filled{kind}{speed}"


def active_bytes(file: str | None) -> int | None:
    """Return the bytes of weights that a token of the model in `file` reads; None when that can't be read."""
    if not file or not Path(file).is_file():
        return None
    try:
        headers = find_model(file).headers()
        tensors = [tensor for header in headers for tensor in header.tensors]
        return active_bytes_per_token(model_info(headers), tensors) or None
    except (GgufkitError, OSError):
        return None
