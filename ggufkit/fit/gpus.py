"""Which GPUs there are, by the makers' own libraries where they can be imported. Opens no file itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card."""

    name: str
    """The maker's name for it."""
    vram_bytes: int
    """Its memory."""
    free_bytes: int | None
    """What of it is free; None when nobody says."""
    source: str
    """Who says so."""


def library_gpus() -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """Return the GPUs that the libraries name, and the libraries that could be asked."""
    gpus: list[Gpu] = []
    asked: list[str] = []
    for name, ask in (("pynvml", _nvidia), ("amdsmi", _amd)):
        library = _import(name)
        if library is not None:
            asked.append(name)
            gpus += ask(library)
    return tuple(gpus), tuple(asked)


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, KeyError):  # amdsmi raises what its missing .so makes of it
        return None


def _nvidia(nvml: Any) -> list[Gpu]:
    """Ask nvidia-ml-py; without a driver there is none."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_nvidia_gpu(nvml, i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    finally:
        nvml.nvmlShutdown()


def _nvidia_gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return Gpu(text, int(memory.total), int(memory.free), "NVML")


def _amd(smi: Any) -> list[Gpu]:
    """Ask amdsmi; without a driver there is none."""
    try:
        smi.amdsmi_init()
    except smi.AmdSmiException:
        return []
    try:
        return list(_amd_gpus(smi))
    except smi.AmdSmiException:
        return []
    finally:
        smi.amdsmi_shut_down()


def _amd_gpus(smi: Any) -> Iterator[Gpu]:
    for handle in smi.amdsmi_get_processor_handles():
        name = smi.amdsmi_get_gpu_asic_info(handle)["market_name"]
        usage = smi.amdsmi_get_gpu_vram_usage(handle)  # MB of 2^20 bytes
        total, used = int(usage["vram_total"]) << 20, int(usage["vram_used"]) << 20
        yield Gpu(str(name), total, max(0, total - used), "AMD SMI")
