"""How fast a certain model will be on a certain machine: what a token reads, and from where. Pure.

A text fills its context as it grows, and each token reads what is there: the prediction is for a context
half full, the low end of the range for a full one, the high end for an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ggufkit.fit.estimate import MemoryEstimate
from ggufkit.fit.placement import place
from ggufkit.fit.rig import Bandwidths, Rig
from ggufkit.fit.speed import Basis, SpeedEstimate, active_bytes_per_token, calibrated_speed, predict_speed
from ggufkit.fit.verdict import Verdict
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo
from ggufkit.gguf.stats import main_tensors, type_name, used_part

SLOW_TYPES = ("IQ1_", "IQ2_", "IQ3_", "TQ1_", "TQ2_")
"""Types whose unpacking can cost a CPU more than their reading: look-up tables for every few weights."""
SLOW_SHARE = 0.25
"""So many of the weights that a token uses in such types lower the low end. A rule of our own."""
SLOW_LOW_FACTOR = 0.6
"""How much lower the low end is for such quants on CPUs. Weak evidence: ik_llama.cpp's tables with few
threads have them at 0.5 to 0.7 of the K-quants; cpu_xeon's efficiency already comes from such a quant."""
SLOW_INCLUDED = ("cpu_xeon",)

ASSUMED_DISK_BYTES_PER_S = 2e9
"""When nobody says: an NVMe SSD of PCIe 3.0 read through page faults; SATA would be 0.5 GB/s. Our choice."""
ASSUMED_GPU_BYTES_PER_S = (192e9, 450e9, 1000e9)
"""The memory of a GPU when nobody says: a P106-100's, one in between, an RTX 4090's."""
HOST = "CPU"
LOW_MISS_FACTOR, HIGH_MISS_FACTOR = 2.0, 0.5
"""How much more or less of a token than the missing share of the weights comes from the disk: some experts
are asked for more often than others and stay; read-ahead brings in what nobody needs. Our own choice."""


@dataclass(frozen=True, slots=True)
class TokenReads:
    """What generating one token reads."""

    weights_bytes: int
    """Bytes of weights: of the experts those used."""
    cache_bytes: int
    """Bytes of the KV cache of one text when its context is full."""
    moe: bool
    """Whether experts are chosen for each token."""
    slow_share: float
    """Part of the weights read, by their number, that is in types which CPUs unpack slowly."""
    gpu_weights_bytes: int = 0
    """Bytes of those weights that lie on GPUs."""
    gpu_cache_bytes: int = 0
    """Bytes of that cache that lie on GPUs."""

    @property
    def in_ram(self) -> TokenReads:
        """Return what of it is read from the computer's memory."""
        return replace(
            self,
            weights_bytes=self.weights_bytes - self.gpu_weights_bytes,
            cache_bytes=self.cache_bytes - self.gpu_cache_bytes,
            gpu_weights_bytes=0,
            gpu_cache_bytes=0,
        )


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """How fast a model generates one text on a machine."""

    low_tokens_per_s: float
    """Slower than this is unlikely, even with a full context."""
    tokens_per_s: float
    """The most likely speed, with a context that is half full."""
    high_tokens_per_s: float
    """Faster than this is unlikely, even with an empty context."""
    basis: Basis
    """Where the numbers come from."""
    formula: str
    """How `tokens_per_s` was computed, in words."""
    reads: TokenReads
    """What a token reads."""
    bandwidth: Bandwidths
    """How fast the memory is read."""
    family: str
    """The family of machines that the efficiency is of."""
    notes: tuple[str, ...]
    """What widens the range, or is assumed."""


def token_reads(
    info: ModelInfo, tensors: Sequence[TensorInfo], estimate: MemoryEstimate, *, context_each: bool = False
) -> TokenReads:
    """Return what a token of a model reads, with the context that `estimate` is for.

    `context_each`: no text may use the others' part of a cache that they share (Ollama).
    """
    used = [(used_part(t, t.n_elements, info), type_name(t)) for t in main_tensors(tensors, info)]
    slow = sum(n for n, name in used if name.startswith(SLOW_TYPES))
    settings = estimate.settings
    n_texts = 1 if settings.unified and not context_each else settings.n_sequences
    return TokenReads(
        weights_bytes=active_bytes_per_token(info, tensors),
        cache_bytes=(estimate.kv_cache_bytes or 0) // n_texts,
        moe=info.experts is not None and info.experts.n_used is not None,
        slow_share=slow / max(1, sum(n for n, _ in used)),
        gpu_weights_bytes=_on_gpus(info, tensors, estimate),
        gpu_cache_bytes=sum(d.kv_cache_bytes or 0 for d in estimate.devices if d.name != HOST) // n_texts,
    )


def _on_gpus(info: ModelInfo, tensors: Sequence[TensorInfo], estimate: MemoryEstimate) -> int:
    """Return the bytes of weights that a token reads on GPUs; the input embedding never is there."""
    offload = estimate.settings.offload
    if offload is None:
        return 0
    placed = place(offload, info.n_layers or 0)
    there = [t for t in main_tensors(tensors, info) if placed.of_tensor(t.name)[0] != placed.cpu]
    return sum(used_part(tensor, tensor.n_bytes, info) for tensor in there)


def speed_on(rig: Rig, reads: TokenReads, verdict: Verdict) -> ModelSpeed | None:
    """Predict a model's speed on `rig`; None when the bandwidth is unknown or the model does not run."""
    if rig.bandwidth is None or verdict.level in ("no", "unknown") or not reads.weights_bytes:
        return None
    low, likely, high, half = _range(rig, rig.bandwidth, reads)
    formula = half.formula
    if verdict.level == "pages":
        missing = 1 - verdict.weights_in_memory
        low, likely, high, text = _paged(rig, reads, missing, (low, likely, high))
        formula += text
    return ModelSpeed(
        low_tokens_per_s=low,
        tokens_per_s=likely,
        high_tokens_per_s=high,
        basis=half.basis,
        formula=formula,
        reads=reads,
        bandwidth=rig.bandwidth,
        family=rig.family,
        notes=tuple(_notes(rig, reads, verdict)),
    )


def _range(rig: Rig, bandwidth: Bandwidths, reads: TokenReads) -> tuple[float, float, float, SpeedEstimate]:
    """Return the speeds without the disk, with a full, a half full and an empty context, and the second."""
    if reads.gpu_weights_bytes and rig.family.startswith("cpu"):
        return _with_gpus(rig, bandwidth, reads)
    empty, half, full = (
        _in_memory(rig, bandwidth, reads, part) for part in (0, reads.cache_bytes // 2, reads.cache_bytes)
    )
    low = full.low_tokens_per_s * (SLOW_LOW_FACTOR if _is_slow(rig, reads) else 1.0)
    return low, half.tokens_per_s, empty.high_tokens_per_s, half


def _with_gpus(
    rig: Rig, bandwidth: Bandwidths, reads: TokenReads
) -> tuple[float, float, float, SpeedEstimate]:
    """Add the time of the part on GPUs to that of the part in RAM: one waits for the other.

    Against published runs with the experts in RAM (hybrid_moe in docs/speed.md) it is as good as that family.
    """
    rates = [rig.gpu_bytes_per_s or assumed for assumed in ASSUMED_GPU_BYTES_PER_S]
    parts = (reads.gpu_cache_bytes, reads.gpu_cache_bytes // 2, 0)
    gpu = [
        predict_speed("gpu", rate, max(1, reads.gpu_weights_bytes + part))
        for rate, part in zip(rates, parts, strict=True)
    ]
    speeds = [gpu[0].low_tokens_per_s, gpu[1].tokens_per_s, gpu[2].high_tokens_per_s]
    told = f"on GPUs {gpu[1].formula}"
    ram = reads.in_ram
    if ram.weights_bytes <= 0:
        return speeds[0], speeds[1], speeds[2], replace(gpu[1], formula=told)
    *host, half = _range(rig, bandwidth, ram)
    low, likely, high = (1 / (1 / a + 1 / b) for a, b in zip(host, speeds, strict=True))
    return low, likely, high, replace(half, formula=f"in RAM {half.formula}; {told}")


def _in_memory(rig: Rig, bandwidth: Bandwidths, reads: TokenReads, cache_bytes: int) -> SpeedEstimate:
    """Predict without the disk; a known run knew of the weights only, and the cache slows down like any."""

    def predict(n_bytes: int) -> SpeedEstimate:
        return predict_speed(rig.family, bandwidth.bytes_per_s, n_bytes, reads.moe, rig.n_sockets)

    speed = predict(reads.weights_bytes + cache_bytes)
    if rig.known_run is None:
        return speed
    run, family = rig.known_run.run, rig.family
    known = calibrated_speed(
        family, bandwidth.bytes_per_s, reads.weights_bytes, run, reads.moe, rig.n_sockets
    )
    ratio = speed.tokens_per_s / predict(reads.weights_bytes).tokens_per_s
    return replace(
        known,
        low_tokens_per_s=known.low_tokens_per_s * ratio,
        tokens_per_s=known.tokens_per_s * ratio,
        high_tokens_per_s=known.high_tokens_per_s * ratio,
        formula=f"{run.tokens_per_s:.2f} tokens/s measured with {rig.known_run.model}; {speed.formula}",
    )


def _is_slow(rig: Rig, reads: TokenReads) -> bool:
    on_cpu = rig.family.startswith("cpu") and rig.family not in SLOW_INCLUDED and rig.known_run is None
    return on_cpu and reads.slow_share >= SLOW_SHARE


def _paged(
    rig: Rig, reads: TokenReads, missing: float, speeds: tuple[float, float, float]
) -> tuple[float, float, float, str]:
    """Add the time that the disk takes for what is not in memory: `missing` of the weights.

    A model without experts is read from end to end for each token, and a cache that drops what was used
    least lately then has dropped it all: its low end reads every weight from the disk.
    """
    disk = rig.disk_bytes_per_s or ASSUMED_DISK_BYTES_PER_S
    reads = reads.in_ram
    most = min(1.0, missing * LOW_MISS_FACTOR) if reads.moe else 1.0
    parts = (most, missing, missing * HIGH_MISS_FACTOR)
    low, likely, high = (
        1 / (1 / speed + part * reads.weights_bytes / disk) for speed, part in zip(speeds, parts, strict=True)
    )
    return low, likely, high, f"; plus {missing * reads.weights_bytes / 1e9:.1f} GB at {disk / 1e9:.1f} GB/s"


def _notes(rig: Rig, reads: TokenReads, verdict: Verdict) -> Iterator[str]:
    if _is_slow(rig, reads):
        yield "IQ1 to IQ3 quants can be slower on CPUs than their size says: the low end is lower for it"
    if verdict.level == "pages" and rig.disk_bytes_per_s is None:
        assumed = f"{ASSUMED_DISK_BYTES_PER_S / 1e9:.0f} GB/s"
        yield f"that the SSD is read at {assumed} is assumed; --disk-speed says how fast it is"
    if reads.gpu_weights_bytes and rig.gpu_bytes_per_s is None:
        low, likely, high = (f"{rate / 1e9:.0f}" for rate in ASSUMED_GPU_BYTES_PER_S)
        yield f"the GPU's memory is assumed at {low} to {high} GB/s, likely {likely}; --gpu-bandwidth says it"
    if rig.gpus and rig.family.startswith("cpu") and not reads.gpu_weights_bytes:
        yield "its graphics cards are not counted; --vram puts a part of the model there"
