"""How a model is to be run, and what it takes then: settings and results, without the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from ggufkit.fit.caches import Certainty
from ggufkit.fit.repack import Isa


@dataclass(frozen=True, slots=True)
class Offload:
    """What is to lie on GPUs, in llama.cpp's terms."""

    gpus_bytes: tuple[int, ...]
    """Memory of each GPU that is free for the model, bytes."""
    automatic: bool = False
    """Whether as much is to be put there as fits; the rest then says nothing but how."""
    whole_layers: bool = False
    """Whether the runtime can't keep experts apart from their layers (Ollama)."""
    n_gpu_layers: int | None = None
    """`--n-gpu-layers`: the last so many layers, the output layer being one of them; None: all."""
    tensor_split: tuple[float, ...] = ()
    """`--tensor-split`: shares of the layers; empty: as the GPUs' memories are."""
    n_cpu_moe: int | None = None
    """`--n-cpu-moe`: the experts of the first so many layers stay in the computer's memory."""
    cpu_moe: bool = False
    """`--cpu-moe`: the experts of all layers stay in the computer's memory."""
    overrides: tuple[tuple[str, str], ...] = ()
    """`--override-tensor`: patterns of tensors' names, and the buffer each is to lie in (CPU, CUDA0)."""
    cache_on_cpu: bool = False
    """`--no-kv-offload`: the cache stays in the computer's memory."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the model is to be run, in llama.cpp's terms."""

    context_tokens: int
    """`--ctx-size`: tokens of context, of all sequences together."""
    n_sequences: int = 1
    """`--parallel`: texts that are worked on at the same time."""
    n_ubatch_tokens: int = 512
    """`--ubatch-size`: tokens that are computed at once; sliding windows grow with it."""
    cache_type_k: str = "f16"
    """`--cache-type-k`."""
    cache_type_v: str = "f16"
    """`--cache-type-v`."""
    unified: bool = False
    """`--kv-unified`: the sequences share one cache, each may use all of it."""
    swa_full: bool = False
    """`--swa-full`: sliding-window layers keep the whole context."""
    n_batch_tokens: int = 2048
    """`--batch-size`: tokens that are handed over at once."""
    flash: bool = True
    """`--flash-attn`: attention is computed in one step; llama.cpp's `auto` is on where the CPU computes."""
    n_outputs: int | None = None
    """Tokens of a batch for which scores are provided; None: one of each text, as servers do."""
    mixed_inputs: bool = True
    """Whether a batch may mix tokens and embeddings: new llama.cpp provides for it, build 10434 did not."""
    prompt_cache_bytes: int = 0
    """`--cache-ram`: how far a server's cache of earlier prompts may grow."""
    n_checkpoints: int = 0
    """`--ctx-checkpoints`: states that a server may keep for each text."""
    offload: Offload | None = None
    """What is to lie on GPUs; None: nothing."""
    isa: Isa = "avx512"
    """The CPU's instruction set, by which weights are rearranged; `none` with `--no-repack`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the memory, and how it was found."""

    name: str
    """`weights`, `embedding copy`, `KV cache`, `recurrent state`, `compute buffer` or `output buffer`; or, of
    what may grow, `prompt cache` or `checkpoints`."""
    n_bytes: int | None
    """Bytes; None when the file gives nothing to go by."""
    certainty: Certainty
    """`exact`: to the byte what llama.cpp reports; `approximate`: by a rule not checked for this file."""
    formula: str
    """The arithmetic, with the numbers put in."""
    keys: tuple[str, ...]
    """Header keys that the numbers come from."""


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """What one device has of a model."""

    name: str
    """`CPU`: the computer's memory; `GPU0`: the first GPU."""
    memory_bytes: int | None
    """Memory of the GPU; None for the CPU."""
    weights_bytes: int
    """Bytes of the weights as they are loaded."""
    kv_cache_bytes: int | None
    """Bytes kept of the context; None when it is not known."""
    compute_bytes: int | None
    """Bytes of the buffer that is computed in; None when it is not known."""
    output_bytes: int | None
    """Bytes of the buffer for the scores; None when it is not known."""
    total_bytes: int
    """Sum of those that are known."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a model takes with certain settings."""

    settings: FitSettings
    """The settings asked for."""
    context_tokens: int
    """Tokens of context after the runtime's rounding, of all sequences together."""
    terms: tuple[Term, ...]
    """The parts, weights first."""
    weights_bytes: int
    """Bytes of the weights as they are loaded, copies included."""
    mapped_bytes: int
    """Bytes of those in the computer's memory that are in the files: with mmap the system can drop them
    and read them again."""
    rearranged_bytes: int
    """Bytes of the weights in the computer's memory that are rearranged for the CPU (`--no-repack` leaves
    them), which the system can't drop."""
    kv_cache_bytes: int | None
    """Bytes kept of the context, recurrent states included; None when it is not known."""
    compute_bytes: int | None
    """Bytes of the buffer that is computed in; None when it is not known."""
    output_bytes: int | None
    """Bytes of the buffer for the scores; None when it is not known."""
    kept_bytes: int | None
    """Bytes of all else in the computer's memory, which has to stay; None when the cache is not known."""
    total_bytes: int
    """Sum of the terms that are known."""
    kv_bytes_per_token: int | None
    """Bytes that each further token of context takes (full-attention layers)."""
    devices: tuple[DeviceEstimate, ...]
    """The same for each device, the CPU first."""
    phases: tuple[tuple[str, int], ...]
    """How far the largest compute buffer is filled in each phase of a batch, bytes; the most is reserved."""
    may_grow: tuple[Term, ...]
    """What is not there at first, and how far it may grow."""
    warnings: tuple[str, ...]
    """What is odd about the model or the settings."""

    @property
    def host_bytes(self) -> int:
        """What it takes of the computer's memory."""
        on_gpus = sum(d.total_bytes for d in self.devices if d.memory_bytes is not None)
        return self.total_bytes - on_gpus
