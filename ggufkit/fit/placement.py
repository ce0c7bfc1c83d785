"""Which part of a model lies on which device, as llama.cpp puts them there.

Source: llama.cpp b11434, llama-model.cpp `load_tensors`, llama-arch.cpp `LLM_TENSOR_INFOS`,
llama-model-loader.cpp `create_tensor`, common/common.h `LLM_FFN_EXPS_REGEX`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import Offload
from ggufkit.gguf.header import TensorInfo

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""llama.cpp's pattern for the experts' tensors (--cpu-moe)."""
INPUT_NAMES = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
"""Tensors that stay in the computer's memory in any case."""
ROPE_NAMES = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")
"""Tensors that every device gets that has a layer."""

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything lies; devices are numbered, the CPU is the last."""

    n_places: int
    """Devices, the CPU included."""
    layers: tuple[int, ...]
    """The device of each layer."""
    output: int
    """The device of the output layer."""
    all_layers: bool
    """Whether all layers and the output are on GPUs."""
    rules: tuple[tuple[re.Pattern[str], int], ...]
    """Tensors that lie elsewhere, by their names; the first that matches counts."""

    @property
    def cpu(self) -> int:
        """The number of the CPU."""
        return self.n_places - 1

    def of_tensor(self, name: str) -> tuple[int, ...]:
        """Return the devices that have the tensor."""
        for pattern, place in self.rules:
            if pattern.search(name):
                return (place,)
        block = _BLOCK.match(name)
        if block is not None:
            i = int(block[1]) if len(block[1]) < 6 else len(self.layers)
            return (self.layers[i] if i < len(self.layers) else self.cpu,)
        if name.startswith(INPUT_NAMES):
            return (self.cpu,)
        if name.startswith(ROPE_NAMES):
            return tuple(sorted(set(self.layers))) or (self.cpu,)
        if name.startswith("token_embd_norm."):
            return (self.layers[0] if self.layers else self.cpu,)
        return (self.output,)

    def elsewhere(self, i: int, names: Iterable[str]) -> Mapping[str, int]:
        """Return those tensors of layer `i` that are not on its device, by their names in the block."""
        if not self.rules:
            return {}
        places = ((name, self.of_tensor(f"blk.{i}.{name}")[0]) for name in names)
        return {name: place for name, place in places if place != self.layers[i]}


def place(offload: Offload | None, n_layers: int) -> Placement:
    """Place a model of `n_layers` blocks (next-token-prediction blocks included)."""
    if offload is None:
        return Placement(1, (0,) * n_layers, 0, False, ())
    n_gpus = len(offload.gpus_bytes)
    wanted = n_layers + 1 if offload.n_gpu_layers is None else offload.n_gpu_layers
    first, n_on = max(n_layers + 1 - wanted, 0), min(wanted, n_layers + 1)
    shares = [float(share) for share in offload.tensor_split or offload.gpus_bytes]
    ends = [end / (sum(shares) or 1.0) for end in accumulate(shares)]

    def of_layer(i: int) -> int:
        if i < first or not n_on:
            return n_gpus
        return min(bisect_right(ends, (i - first) / n_on), n_gpus - 1)

    return Placement(
        n_places=n_gpus + 1,
        layers=tuple(of_layer(i) for i in range(n_layers)),
        output=of_layer(n_layers),
        all_layers=wanted > n_layers,
        rules=tuple(_rules(offload, n_gpus)),
    )


def _rules(offload: Offload, n_gpus: int) -> Iterable[tuple[re.Pattern[str], int]]:
    for text, buffer in offload.overrides:
        try:
            yield re.compile(text), _buffer(buffer, n_gpus)
        except re.error as error:
            raise UsageError(f"-ot {text}: {error}", hint=r"-ot '\.ffn_.*_exps\.=CPU'") from error
    if offload.n_cpu_moe:
        numbers = "|".join(map(str, range(offload.n_cpu_moe)))
        yield re.compile(rf"blk\.({numbers}){EXPERTS}"), n_gpus
    if offload.cpu_moe:
        yield re.compile(EXPERTS), n_gpus


def _buffer(name: str, n_gpus: int) -> int:
    """Return the number of the device that a buffer type is on: CPU, or a GPU by the number it ends with."""
    if name.upper().startswith("CPU"):
        return n_gpus
    number = re.search(r"(\d+)$", name)
    if number is not None and len(number[1]) < 4 and int(number[1]) < n_gpus:
        return int(number[1])
    names = ", ".join(["CPU", *(f"GPU{i}" for i in range(n_gpus))])
    raise UsageError(f"-ot: no device is called {name}", hint=f"choose from {names} (CUDA0 is GPU0)")


def weights_on(placement: Placement, tensors: Sequence[TensorInfo]) -> list[int]:
    """Return the bytes of the `tensors` on each device, without an embedding's second use as output."""
    if placement.n_places == 1:
        return [sum(tensor.n_bytes for tensor in tensors)]
    sums = [0] * placement.n_places
    for tensor in tensors:
        for number in placement.of_tensor(tensor.name):
            sums[number] += tensor.n_bytes
    return sums
