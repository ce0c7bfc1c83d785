"""How a model is laid on GPUs, and what to type for it in each runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.fit.machine import read_cpu
from ggufkit.fit.offload import most_layers
from ggufkit.fit.placement import place
from ggufkit.fit.repack import Isa, isa_of
from ggufkit.fit.rig import Rig
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo

BASIS = (
    "weights and cache as llama.cpp places them; compute buffers were held against RPC devices in the place "
    "of GPUs; a driver's own memory (CUDA: 0.3 to 0.5 GiB) comes out of the margin of 1 GiB"
)


@dataclass(frozen=True, slots=True)
class GpuPlacement:
    """Where a model lies, in each runtime's words."""

    automatic: bool
    """Whether ggufkit chose it."""
    n_gpu_layers: int
    """Layers on GPUs, the output layer being one."""
    n_layers: int
    """Layers of the model, the output layer being one."""
    n_cpu_moe: int
    """Layers on GPUs whose experts are in the computer's memory, counted from the model's first layer."""
    tensor_split: tuple[float, ...]
    """Shares of the layers of several GPUs; empty: as their memories are."""
    llama_server: tuple[str, ...]
    """Flags for llama-server."""
    ollama: tuple[str, ...]
    """Lines for Ollama's Modelfile, which keeps no experts apart."""
    lmstudio: tuple[str, ...]
    """Settings of LM Studio, as its files name them."""
    basis: str
    """What the numbers rest on."""


def isa_for(rig: Rig) -> Isa:
    """Return the instruction set of a machine: read from this one, a careful guess for a profile."""
    import platform

    if rig.profile is not None:
        return "neon" if rig.family.startswith("apple") else "avx2"
    return isa_of(read_cpu().instruction_sets, platform.machine())


def gpu_placement(
    info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings, *, automatic: bool
) -> GpuPlacement | None:
    """Describe the placement in `settings` (settled); None when there is no GPU."""
    offload = settings.offload
    if offload is None:
        return None
    n_layers = info.n_layers or 0
    n_on, n_cpu_moe = _n_gpu_layers(offload, n_layers), _n_cpu_moe(info, offload, n_layers)
    return GpuPlacement(
        automatic=automatic,
        n_gpu_layers=n_on,
        n_layers=n_layers + 1,
        n_cpu_moe=n_cpu_moe,
        tensor_split=offload.tensor_split,
        llama_server=_llama_flags(offload, n_on, settings.context_tokens),
        ollama=_ollama(info, tensors, settings, n_on, n_cpu_moe),
        lmstudio=_lmstudio(offload, n_on, n_cpu_moe, n_layers),
        basis=BASIS,
    )


def _n_gpu_layers(offload: Offload, n_layers: int) -> int:
    placed = place(offload, n_layers)
    return sum(at != placed.cpu for at in (*placed.layers, placed.output))


def _n_cpu_moe(info: ModelInfo, offload: Offload, n_layers: int) -> int:
    if info.experts is None:
        return 0
    return n_layers if offload.cpu_moe else min(offload.n_cpu_moe or 0, n_layers)


def _llama_flags(offload: Offload, n_on: int, context_tokens: int) -> tuple[str, ...]:
    flags = ["--ctx-size", str(context_tokens), "--n-gpu-layers", str(n_on)]
    if offload.cpu_moe:
        flags.append("--cpu-moe")
    elif offload.n_cpu_moe:
        flags += ["--n-cpu-moe", str(offload.n_cpu_moe)]
    for pattern, buffer in offload.overrides:
        flags += ["--override-tensor", f"{pattern}={buffer}"]
    if offload.tensor_split:
        flags += ["--tensor-split", ",".join(f"{share:g}" for share in offload.tensor_split)]
    return (*flags, "--no-kv-offload") if offload.cache_on_cpu else tuple(flags)


def _ollama(
    info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings, n_on: int, n_cpu_moe: int
) -> tuple[str, ...]:
    """Return the parameters; where experts are kept apart, those of a placement of whole layers."""
    offload = settings.offload
    assert offload is not None
    if n_cpu_moe or offload.overrides:
        whole = replace(
            offload, n_gpu_layers=None, n_cpu_moe=None, cpu_moe=False, overrides=(), tensor_split=()
        )
        found = most_layers(info, tensors, replace(settings, offload=whole))
        n_on = _n_gpu_layers(found, info.n_layers or 0)
    return (f"PARAMETER num_ctx {settings.context_tokens}", f"PARAMETER num_gpu {n_on}")


def _lmstudio(offload: Offload, n_on: int, n_cpu_moe: int, n_layers: int) -> tuple[str, ...]:
    """Name LM Studio's settings (its SDK's `globalConfigSchematics`)."""
    ratio = "max" if n_on > n_layers else f"{int(100 * n_on / max(n_layers, 1)) / 100:g}" if n_on else "off"
    lines = [f"llm.load.llama.acceleration.offloadRatio {ratio}"]
    if n_cpu_moe:
        share = "max" if n_cpu_moe >= n_layers else f"{-(-100 * n_cpu_moe // n_layers) / 100:g}"
        lines.append(f"llm.load.numCpuExpertLayersRatio {share}")
    if offload.cache_on_cpu:
        lines.append("llm.load.offloadKVCacheToGpu false")
    return tuple(lines)
