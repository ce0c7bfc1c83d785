"""Which matrices llama.cpp rearranges for the CPU, and so keeps in memory that the system can't drop.

Source: llama.cpp b11434, ggml-cpu/repack.cpp `ggml_repack_get_optimal_repack_type`, ggml-cpu/amx/amx.cpp
`supports_op`. Held against llama.cpp on AVX-512; the others are read from the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.types import TENSOR_TYPES

Isa = Literal["avx512", "avx2", "amx", "neon", "none"]
MEASURED_ISA: Isa = "avx512"

_AVX2 = {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8}
_AVX512 = _AVX2 | {"Q2_K": 8}
_NEON = {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4, "Q1_0": 4}
ROWS: Mapping[Isa, Mapping[str, int]] = MappingProxyType(
    {"avx512": _AVX512, "avx2": _AVX2, "amx": _AVX512, "neon": _NEON, "none": {}}
)
"""Types that are rearranged, and of what number of rows a matrix has to have a multiple. `neon` is ARM with
dot products."""
AMX_TYPES = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"})
AMX_ROWS = 32  # TILE_N * 2

_MATRIX = re.compile(
    r"(output|blk\.\d+\.(attn_(q|k|v|qkv|output|gate|q_a|q_b|kv_a_mqa|kv_b)"
    r"|ffn_(gate|up|down|gate_inp)(_exps|_shexp|_chexps)?|ssm_(in|out|x|dt|ba|alpha|beta)))\.weight"
)
"""Tensors that are multiplied by: not those that rows are looked up in, not norms."""


def isa_of(instruction_sets: Iterable[str], machine: str = "") -> Isa:
    """Return the kind of CPU by the names that `ggufkit.fit.cpus` gives, or by the machine's (`aarch64`)."""
    names = set(instruction_sets)
    for name, isa in (("AMX-INT8", "amx"), ("AVX-512", "avx512"), ("AVX2", "avx2")):
        if name in names:
            return isa  # type: ignore[return-value]
    if machine.lower() in ("aarch64", "arm64"):
        return "neon"
    return "none" if names else "avx2"  # nobody says: as nearly all have


def is_rearranged(tensor: TensorInfo, isa: Isa, *, as_output: bool = False) -> bool:
    """Say whether the matrix is rearranged; `as_output`: an embedding that is the output matrix too."""
    type_ = TENSOR_TYPES.get(tensor.type_id)
    if type_ is None or len(tensor.shape) < 2:
        return False
    rows = ROWS[isa].get(type_.name)
    flat = len(tensor.shape) == 2 or tensor.shape[2] == 1
    by_amx = isa == "amx" and flat and type_.name in AMX_TYPES and not tensor.shape[1] % AMX_ROWS
    if not by_amx and (rows is None or tensor.shape[1] % rows):
        return False
    return as_output or _MATRIX.fullmatch(tensor.name) is not None


def rearranged_bytes(tensors: Sequence[TensorInfo], isa: Isa) -> int:
    """Sum the matrices that are rearranged."""
    return sum(tensor.n_bytes for tensor in tensors if is_rearranged(tensor, isa))
