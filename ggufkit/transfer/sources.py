"""Where bytes come from: local files and hub files, read by range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ggufkit.errors import AccessError, NotFoundError
from ggufkit.gguf.header import Header
from ggufkit.gguf.reader import MAX_HEADER_BYTES, MoreNeeded, read_header

FIRST_READ_BYTES = 1 << 20  # most headers fit; R1's 4.9 MB takes a second read


def open_header(path: Path, *, whole_file: bool = True) -> Header:
    """Read the header of the GGUF at `path`; raises NotFoundError, AccessError or FormatError."""
    try:
        with path.open("rb", buffering=0) as file:
            size = path.stat().st_size

            def read(n_bytes: int) -> bytes:
                file.seek(0)
                return _read_exactly(file.read, n_bytes)

            return header_by_range(read, name=str(path), file_size_bytes=size, whole_file=whole_file)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise NotFoundError(f"{path} is a folder, not a file") from None
    except PermissionError:
        raise AccessError(f"{path}: not readable by this user") from None


def header_by_range(
    read: Callable[[int], bytes],
    *,
    name: str,
    file_size_bytes: int,
    whole_file: bool = True,
    first_read_bytes: int = FIRST_READ_BYTES,
    growth: int = 8,
) -> Header:
    """Read a header through `read(n)`, which returns the file's first n bytes, as few as needed."""
    n_bytes = min(first_read_bytes, file_size_bytes)
    while True:
        data = read(n_bytes)
        try:
            return read_header(data, name=name, file_size_bytes=file_size_bytes, whole_file=whole_file)
        except MoreNeeded as more:
            grown = max(more.n_bytes, n_bytes * growth)
            n_bytes = min(grown, file_size_bytes, MAX_HEADER_BYTES)


def _read_exactly(read: Callable[[int], bytes | None], n_bytes: int) -> bytes:
    """Read `n_bytes` in as many calls as it takes; less only at the end of the file."""
    parts, left = [], n_bytes
    while left:
        part = read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
