"""What a model's tensors add up to: by tensor type, by role, by block; bits per weight; active parameters.

Roles are told by the tensors' names: llama-arch.cpp `LLM_TENSOR_NAMES` of llama.cpp; the same names in
`gguf.constants.TENSOR_NAMES`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from ggufkit.gguf.header import Header, TensorInfo
from ggufkit.gguf.model import ModelInfo
from ggufkit.gguf.types import tensor_type

Role = Literal[
    "embedding",
    "attention",
    "recurrent",
    "dense_ffn",
    "experts",
    "shared_experts",
    "router",
    "norms",
    "output",
    "other",
]

_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    # The first match wins: norms are named after what they stand beside, routers after their experts.
    ("norms", re.compile(r"norm|(?:^|[._])(?:ln|bn)[0-9]?(?:[._]|$)")),
    ("router", re.compile(r"ffn_gate_inp|exp_probs_b|router")),
    ("shared_experts", re.compile(r"_shexp")),
    ("experts", re.compile(r"_(?:ch)?exps(?:[._]|$)|ffn_(?:gate|up|down)\.[0-9]")),
    ("output", re.compile(r"^(?:output|cls)(?:[._]|$)|shared_head_head")),
    (
        "embedding",
        re.compile(r"(?:^|[._])(?:token|position|pos|patch|class)_embd|^token_types|embed_tokens"),
    ),
    ("recurrent", re.compile(r"(?:^|\.)(?:ssm_|time_mix_|shortconv\.)")),
    ("attention", re.compile(r"attn|\.indexer\.")),
    ("dense_ffn", re.compile(r"(?:^|\.)(?:ffn|mlp|vis_(?:gate|up|down)|channel_mix_)")),
)

_BLOCK = re.compile(r"((?:[a-z_]+\.)*blk\.([0-9]+))\.")


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a model's tensors."""

    name: str
    """The tensor type, the role, or the block (`blk.0`)."""
    n_tensors: int
    """How many tensors."""
    n_parameters: int
    """Their elements."""
    n_bytes: int
    """Their data without padding."""
    bits_per_weight: float
    """Bits that an element takes on average."""
    types: tuple[str, ...]
    """Tensor types that occur, the one with the most bytes first."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the tensors of a model add up to."""

    n_bytes: int
    """Tensor data of all shards without padding."""
    bits_per_weight: float | None
    """Bits that an element takes on average; None without tensors."""
    n_active_parameters: int | None
    """Parameters that a token uses, the whole embedding included; None for a model without experts."""
    by_type: tuple[Share, ...]
    """One share for each tensor type, the one with the most bytes first."""
    by_role: tuple[Share, ...]
    """One share for each role that occurs, in the order of `Role`."""
    by_block: tuple[Share, ...]
    """One share for each block, in order; tensors outside blocks are in none."""


def statistics(headers: Sequence[Header], info: ModelInfo) -> Statistics:
    """Add up the tensors of one model (one file, or its shards in order)."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    n_bytes = sum(t.n_bytes for t in tensors)
    by_type = _shares((type_name(t), t) for t in tensors)
    roles = {share.name: share for share in _shares((role_of(t.name), t) for t in tensors)}
    blocks = _shares((block, t) for t in tensors if (block := block_of(t.name)) is not None)
    return Statistics(
        n_bytes=n_bytes,
        bits_per_weight=n_bytes * 8 / info.n_parameters if tensors else None,
        n_active_parameters=_active(tensors, info),
        by_type=tuple(sorted(by_type, key=lambda share: -share.n_bytes)),
        by_role=tuple(roles[role] for role in get_args(Role) if role in roles),
        by_block=tuple(sorted(blocks, key=_block_order)),
    )


@lru_cache(maxsize=1024)
def role_of(name: str) -> Role:
    """Return what the tensor called `name` does in the model."""
    return next((role for role, pattern in _ROLES if pattern.search(name)), "other")


def block_of(name: str) -> str | None:
    """Return the block that the tensor called `name` is in (`blk.0`, `enc.blk.0`), or None."""
    match = _BLOCK.match(name)
    return match[1] if match else None


def type_name(tensor: TensorInfo) -> str:
    """Return the name of the tensor's type, e.g. `Q4_K`."""
    known = tensor_type(tensor.type_id)
    return known.name if known else f"type {tensor.type_id}"


def _shares(named: Iterable[tuple[str, TensorInfo]]) -> list[Share]:
    """Add up tensors of equal names, in order of first appearance."""
    groups: dict[str, list[TensorInfo]] = {}
    for name, tensor in named:
        groups.setdefault(name, []).append(tensor)
    return [_share(name, tensors) for name, tensors in groups.items()]


def _share(name: str, tensors: Sequence[TensorInfo]) -> Share:
    bytes_of_types: Counter[str] = Counter()
    for tensor in tensors:
        bytes_of_types[type_name(tensor)] += tensor.n_bytes
    n_parameters = sum(t.n_elements for t in tensors)
    n_bytes = bytes_of_types.total()
    return Share(
        name=name,
        n_tensors=len(tensors),
        n_parameters=n_parameters,
        n_bytes=n_bytes,
        bits_per_weight=n_bytes * 8 / n_parameters,  # no tensor is empty: the reader refuses them
        types=tuple(type_ for type_, _ in bytes_of_types.most_common()),
    )


def _block_order(share: Share) -> tuple[str, int]:
    stack, _, number = share.name.rpartition(".")
    return stack, int(number)


def _active(tensors: Iterable[TensorInfo], info: ModelInfo) -> int | None:
    """Count what a token uses: all but the experts that the router passes over, and the MTP blocks.

    Where layers use different numbers of experts, it is the most that a token can use.
    """
    if info.experts is None or info.experts.n_used is None:
        return None
    return sum(used_part(t, t.n_elements, info) for t in main_tensors(tensors, info))


def used_part(tensor: TensorInfo, amount: int, info: ModelInfo) -> int:
    """Return how much of a tensor's `amount` (elements or bytes) a token uses: all, but of experts some."""
    if info.experts is None or info.experts.n_used is None or role_of(tensor.name) != "experts":
        return amount
    # One tensor holds all experts of a layer, as its last dimension; old files have one for each.
    stacked = "exps" in tensor.name and len(tensor.shape) > 1
    n_held = tensor.shape[-1] if stacked else info.experts.n_experts
    return amount * min(info.experts.n_used, n_held) // n_held


def main_tensors(tensors: Iterable[TensorInfo], info: ModelInfo) -> Iterator[TensorInfo]:
    """Yield the tensors outside the last blocks (`n_nextn_layers`), which predict further tokens (MTP)."""
    end = (info.n_layers or 0) - (info.n_nextn_layers or 0)
    for tensor in tensors:
        match = _BLOCK.match(tensor.name)
        if not (info.n_nextn_layers and match and match[1].startswith("blk.") and int(match[2]) >= end):
            yield tensor
