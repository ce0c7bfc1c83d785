"""The repo of R1's quants at full size on paper: sparse shards with the types that each quant has."""

from __future__ import annotations

from pathlib import Path

from ggufkit.gguf.header import DEFAULT_ALIGNMENT, encode_header, pad
from ggufkit.gguf.layout import split_layouts
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.types import ValueType
from tests.support.ggufs import Typed, encode_entries, shard_paths, tensor_infos, write_sparse
from tests.support.r1 import r1_kv, r1_tensors

QUANTS = {
    "UD-IQ1_S": "IQ1_S",
    "UD-IQ1_M": "IQ1_M",
    "UD-IQ2_XXS": "IQ2_XXS",
    "UD-Q2_K_XL": "Q2_K",
    "Q3_K_M": "Q3_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "Q8_0": "Q8_0",
    "BF16": "BF16",
}
"""The type of the experts in each; all else keeps its type, but in the last two."""
SHARD_BYTES = 300_000_000_000


def r1_quant(folder: Path, quant: str, *, mla: bool = True) -> tuple[Path, ...]:
    """Write one of QUANTS of R1 as sparse shards into `folder` and return their paths."""
    prefix = f"DeepSeek-R1-{quant}"
    infos = tensor_infos([(name, shape, _type(name, own, quant)) for name, shape, own in r1_tensors(mla)])
    kv = r1_kv(mla, "{{ messages }}" * len(quant))
    kv["general.name"] = prefix
    kv["tokenizer.ggml.token_type"] = Typed(ValueType.ARRAY, kv["tokenizer.ggml.token_type"], ValueType.INT32)
    data = encode_header(encode_entries(kv), infos)
    size = len(data) + sum(pad(info.n_bytes, DEFAULT_ALIGNMENT) for info in infos)
    header = read_header(data, name=prefix, file_size_bytes=size)
    folder.mkdir(parents=True, exist_ok=True)
    layouts = split_layouts(header, max_bytes=SHARD_BYTES)
    paths = shard_paths(folder, prefix, len(layouts)) if len(layouts) > 1 else [folder / f"{prefix}.gguf"]
    return tuple(write_sparse(layout, path) for layout, path in zip(layouts, paths, strict=True))


def r1_repo(repo: Path, quants: tuple[str, ...] = tuple(QUANTS)) -> dict[str, str]:
    """Write several quants, each into its own folder of `repo`; return made-up digests by path.

    The paths are relative to the hub's root, two folders above `repo`.
    """
    root = repo.parents[1]
    paths = [path for quant in quants for path in r1_quant(repo / f"DeepSeek-R1-{quant}", quant)]
    return {path.relative_to(root).as_posix(): f"{i:064x}" for i, path in enumerate(paths)}


def _type(name: str, own: str, quant: str) -> str:
    experts = QUANTS[quant]
    if own == "F32" or not ("_exps" in name or experts in ("Q8_0", "BF16")):
        return own
    return experts
