"""What aria2 notes of a download beside the file: which pieces of it are there.

Format: aria2 manual, "Technical notes", "Control file (*.aria2) format".
"""

from __future__ import annotations

import struct
from pathlib import Path

from ggufkit.transfer.journal import Range, joined

MAX_BYTES = 64 << 20
"""A control file larger than this is none: 1 TB in pieces of 1 MiB has 125 kB."""
_HEAD = struct.Struct(">H4sI")  # version, extension, length of the info hash
_SIZES = struct.Struct(">IQQI")  # piece length, total length, uploaded, length of the bit field


def aria2_ranges(path: Path, size_bytes: int) -> tuple[Range, ...] | None:
    """Return the ranges of `path` that its control file says are there; None when it has none.

    Pieces under way are left out. A control file that is of another size, or broken, says nothing is there.
    """
    control = path.with_name(path.name + ".aria2")
    try:
        data = control.read_bytes() if control.stat().st_size <= MAX_BYTES else b""
    except OSError:
        return None
    try:
        return _pieces(data, size_bytes)
    except struct.error:
        return ()


def _pieces(data: bytes, size_bytes: int) -> tuple[Range, ...]:
    version, _, n_hash = _HEAD.unpack_from(data)
    order = ">" if version else "="  # version 0 has the machine's own order of bytes
    if not version:
        n_hash = struct.unpack_from("=I", data, 6)[0]
    sizes = struct.Struct(order + _SIZES.format[1:])
    piece, total, _, n_field = sizes.unpack_from(data, _HEAD.size + n_hash)
    start = _HEAD.size + n_hash + sizes.size
    field = data[start : start + n_field]
    if version > 1 or total != size_bytes or not piece or len(field) < (-(-total // piece) + 7) // 8:
        return ()
    there = (i for i in range(-(-total // piece)) if field[i // 8] & 0x80 >> i % 8)
    return tuple(joined((i * piece, min((i + 1) * piece, total)) for i in there))
