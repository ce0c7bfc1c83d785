"""Real models cut short: valid for any runtime, with other speeds than the whole one."""

from __future__ import annotations

import re
from pathlib import Path

from ggufkit.gguf.header import encode_header, encode_kv, pad
from ggufkit.gguf.types import ValueType
from ggufkit.transfer.sources import open_header

_BLOCK = re.compile(r"blk\.(\d+)\.")


def first_layers(source: Path, target: Path, n_layers: int) -> Path:
    """Write the model in `source` with its first `n_layers` blocks only, and return `target`."""
    header = open_header(source)
    blocks = ((tensor, _BLOCK.match(tensor.name)) for tensor in header.tensors)
    kept = [tensor for tensor, block in blocks if block is None or int(block[1]) < n_layers]
    count = f"{header.string('general.architecture')}.block_count"
    assert (header.integer(count) or 0) > n_layers
    entries = [
        encode_kv(key, ValueType.UINT32, n_layers) if key == count else header.raw_kv(key)
        for key in header.kv
    ]
    with source.open("rb") as whole, target.open("wb") as cut:
        cut.write(encode_header(entries, kept, alignment=header.alignment, version=header.version))
        for tensor in kept:
            whole.seek(header.data_offset + tensor.offset)
            cut.write(whole.read(tensor.n_bytes))
            cut.write(bytes(pad(tensor.n_bytes, header.alignment) - tensor.n_bytes))
    return target
