"""What to put on GPUs: as much as fits, experts last, as llama.cpp's own fitting does. Pure.

Source of the order and of the margin: llama.cpp b11434, common/fit.cpp, common/common.h `fit_params_target`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ggufkit.fit.devices import gpu_layer_bytes
from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Offload
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.placement import place
from ggufkit.fit.splits import layer_splits
from ggufkit.fit.verdict import GPU_MARGIN_BYTES, short_gpus
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo


def settled(info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings) -> FitSettings:
    """Return the settings with an offload that says what goes where, if it was to be found."""
    offload = settings.offload
    if offload is None or not offload.automatic:
        return settings
    asked = replace(settings, offload=replace(offload, automatic=False))
    find = most_layers if offload.whole_layers else best_offload
    return replace(asked, offload=find(info, tensors, asked))


def best_offload(info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings) -> Offload:
    """Return the settings' offload with the most on the GPUs that fits, experts last.

    All layers but their experts come first, then the experts of the last layers. A model without experts,
    or one that does not fit so, gets as many of its last layers on the GPUs as fit.
    """
    return _Search(info, tensors, settings).best()


def most_layers(info: ModelInfo, tensors: Sequence[TensorInfo], settings: FitSettings) -> Offload:
    """Return the settings' offload with as many whole layers as fit, the output layer being one."""
    return _Search(info, tensors, settings).most_layers()


@dataclass(frozen=True, slots=True)
class _Search:
    """A model and GPUs, to be tried in several ways."""

    info: ModelInfo
    tensors: Sequence[TensorInfo]
    settings: FitSettings

    @property
    def asked(self) -> Offload:
        assert self.settings.offload is not None
        return self.settings.offload

    @property
    def n_layers(self) -> int:
        return self.info.n_layers or 0

    def best(self) -> Offload:
        whole = replace(self.asked, n_gpu_layers=None, n_cpu_moe=None, cpu_moe=False)
        found = self.fitting(whole)
        if found is None and self.info.experts is not None:
            found = self.least(1, self.n_layers, lambda n: replace(whole, n_cpu_moe=n))
        if found is None:
            found = self.most_layers(cpu_moe=self.info.experts is not None)
        return found

    def most_layers(self, *, cpu_moe: bool = False) -> Offload:
        asked = replace(self.asked, n_cpu_moe=None, cpu_moe=cpu_moe)
        n = self.n_layers + 1
        found = self.least(0, n, lambda less: replace(asked, n_gpu_layers=n - less))
        return found or replace(asked, n_gpu_layers=0, cpu_moe=False)

    def least(self, low: int, high: int, ask: Callable[[int], Offload]) -> Offload | None:
        """Find what fits for the smallest number; what fits for one fits for all larger ones."""
        best = self.fitting(ask(high))
        while best is not None and low < high:
            middle = (low + high) // 2
            found = self.fitting(ask(middle))
            if found is None:
                low = middle + 1
            else:
                high, best = middle, found
        return best

    def at(self, offload: Offload) -> MemoryEstimate:
        return estimate_memory(self.info, self.tensors, replace(self.settings, offload=offload))

    def fitting(self, offload: Offload) -> Offload | None:
        """Return it with shares for several GPUs where these are needed; None when it does not fit."""
        estimate = self.at(offload)
        if not short_gpus(estimate):
            return offload
        if len(offload.gpus_bytes) < 2 or offload.tensor_split:
            return None
        splits = (replace(offload, tensor_split=shares) for shares in self.shares(offload, estimate))
        return next((split for split in splits if not short_gpus(self.at(split))), None)

    def shares(self, offload: Offload, estimate: MemoryEstimate) -> Iterator[tuple[float, ...]]:
        """Propose how many layers each GPU gets: evenly by bytes, then each filled up before the next."""
        placed = place(offload, self.n_layers)
        sizes = gpu_layer_bytes(self.info, self.tensors, self.settings, placed)
        gpus = [device for device in estimate.devices if device.memory_bytes is not None]
        rooms = [(g.memory_bytes or 0) - GPU_MARGIN_BYTES - (g.compute_bytes or 0) for g in gpus]
        rooms = [max(room, 0) for room in rooms]
        if sum(rooms) and len(sizes) >= len(gpus):
            yield from layer_splits(sizes, rooms)
