"""GGUF value types, tensor types with their block sizes, and file types.

The tables are our own, so that reading a header needs neither numpy nor the `gguf` package;
a test holds them against `gguf.constants`. Source: ggml.h `enum ggml_type`, `enum gguf_type`;
ggml.c `type_traits`; llama.h `enum llama_ftype`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ValueType(IntEnum):
    """The type of a KV value (gguf.h `enum gguf_type`)."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


STRUCT_FORMATS: dict[int, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""`struct` codes of the scalar types, to be used with `<` (GGUF is little-endian)."""

SIZES_BYTES: dict[int, int] = {
    **dict.fromkeys((ValueType.UINT8, ValueType.INT8, ValueType.BOOL), 1),
    **dict.fromkeys((ValueType.UINT16, ValueType.INT16), 2),
    **dict.fromkeys((ValueType.UINT32, ValueType.INT32, ValueType.FLOAT32), 4),
    **dict.fromkeys((ValueType.UINT64, ValueType.INT64, ValueType.FLOAT64), 8),
}
"""Bytes of one scalar of each type."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a tensor's elements are packed: blocks of `block_size` elements, `type_size_bytes` each."""

    name: str
    """ggml's name in capitals, e.g. `Q4_K`."""
    block_size: int
    """Elements in one block; `ne[0]` is a multiple of it."""
    type_size_bytes: int
    """Bytes of one block."""

    @property
    def bits_per_weight(self) -> float:
        """Bits that one element takes, scales included."""
        return self.type_size_bytes * 8 / self.block_size


TENSOR_TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 40),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
}
"""Tensor types by ggml's number (ggml.h `enum ggml_type`); the gaps are types that ggml removed."""

REMOVED_TENSOR_TYPES = frozenset({4, 5, 31, 32, 33, 36, 37, 38})
"""Numbers that ggml once used and now refuses (ggml.h, the commented-out members of `enum ggml_type`)."""

FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
"""Names for `general.file_type` (llama.h `enum llama_ftype` without `MOSTLY_`)."""


def tensor_type(type_id: int) -> TensorType | None:
    """Return the tensor type of ggml's number `type_id`, or None when nobody knows it.

    A number that our table lacks is looked up in the installed `gguf` package, which is
    imported only then (it costs 0.2 s and numpy).
    """
    known = TENSOR_TYPES.get(type_id)
    if known is not None or type_id in REMOVED_TENSOR_TYPES or not 0 <= type_id < 1 << 16:
        return known
    return _from_gguf_package(type_id)


def _from_gguf_package(type_id: int) -> TensorType | None:
    try:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        return None
    try:
        member = GGMLQuantizationType(type_id)
    except ValueError:
        return None
    block_size, type_size_bytes = GGML_QUANT_SIZES[member]
    return TensorType(member.name, block_size, type_size_bytes)
