"""What each device has of a model: weights, cache and buffers. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ggufkit.fit.caches import Caches, caches_of
from ggufkit.fit.cells import cells_of, layer_bytes, n_streams
from ggufkit.fit.estimate import DeviceEstimate, FitSettings
from ggufkit.fit.placement import Placement
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo

F32_BYTES = 4

_BLOCK = re.compile(r"blk\.(\d{1,5})\.")


def devices_of(
    settings: FitSettings,
    weights: list[int],
    copies_bytes: int,
    placed: Placement,
    caches: Caches | None,
    phases: list[dict[str, int]],
    output_bytes: int | None,
) -> tuple[DeviceEstimate, ...]:
    """Return what each device has, the CPU first."""
    weights = [n + copies_bytes if i == placed.output else n for i, n in enumerate(weights)]
    kept = None if caches is None else cache_on(placed, caches, settings)
    gpus = settings.offload.gpus_bytes if settings.offload else ()
    found = []
    for i in (placed.cpu, *range(placed.cpu)):
        is_cpu = i == placed.cpu
        parts = (
            weights[i],
            None if kept is None else kept[i],
            most(phases[i]) if phases else None,
            output_bytes if is_cpu else 0,
        )
        name, memory = ("CPU", None) if is_cpu else (f"GPU{i}", gpus[i])
        found.append(DeviceEstimate(name, memory, *parts, sum(n or 0 for n in parts)))
    return tuple(found)


def most(phases: dict[str, int]) -> int:
    """Return what the fullest phase takes, bytes."""
    return max(phases.values(), default=0)


def cache_on(placed: Placement, caches: Caches, settings: FitSettings) -> list[int]:
    """Return what each device keeps of the context, recurrent states included."""
    on_cpu = settings.offload is None or settings.offload.cache_on_cpu
    sums = [0] * placed.n_places

    def add(layer: int, n_bytes: int) -> None:
        sums[placed.cpu if on_cpu or layer >= len(placed.layers) else placed.layers[layer]] += n_bytes

    for layer in caches.layers:
        cells = cells_of(layer, caches, settings)
        add(layer.index, n_streams(settings) * cells * layer_bytes(layer, settings))
    for index in caches.recurrent:
        add(index, max(settings.n_sequences, 1) * caches.state_elements * F32_BYTES)
    return sums


def gpu_layer_bytes(
    info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings, placed: Placement
) -> list[int]:
    """Return what each layer that is on GPUs takes there, the output layer last: weights and cache."""
    n_layers = len(placed.layers)
    sizes = [0] * (n_layers + 1)
    for tensor in tensors:
        if placed.cpu not in placed.of_tensor(tensor.name):
            block = _BLOCK.match(tensor.name)
            sizes[min(int(block[1]), n_layers) if block else n_layers] += tensor.n_bytes
    caches = caches_of(info)
    if caches is not None and not (settings.offload and settings.offload.cache_on_cpu):
        for layer in caches.layers:
            cells = n_streams(settings) * cells_of(layer, caches, settings)
            sizes[min(layer.index, n_layers)] += cells * layer_bytes(layer, settings)
        for index in caches.recurrent:
            sizes[min(index, n_layers)] += max(settings.n_sequences, 1) * caches.state_elements * F32_BYTES
    places = (*placed.layers, placed.output)
    return [size for size, at in zip(sizes, places, strict=True) if at != placed.cpu]
