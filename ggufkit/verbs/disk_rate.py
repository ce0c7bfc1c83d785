"""How fast a model's disk gives what does not stay in memory: pieces all over the file, several at a time."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError, ToolError

PIECE_BYTES = 4 << 20
"""About an expert's tensor: what paging reads in one go."""
N_PIECES, N_THREADS = 64, 4
LEAST_BYTES = 64 << 20  # smaller files tell of their disk's cache only
MEMORY_BYTES_PER_S = 30e9  # no disk is as fast: what gave it was memory


@dataclass(frozen=True, slots=True)
class DiskRate:
    """What reading a file yields."""

    bytes_per_s: float
    """All threads together."""
    read_bytes: int
    """Bytes that were read."""
    mount: str
    """Where the disk is mounted."""


def measure_disk(path: Path) -> DiskRate:
    """Read pieces of the file at `path` that the system was told to forget.

    Raises NotFoundError; ToolError where nothing can be learnt: a small file, one with holes, a system that
    can't be told, a disk that is memory.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file", hint="name a large file on the disk that models are on")
    status = path.stat()
    if status.st_size < LEAST_BYTES:
        raise ToolError(f"{path} is too small to tell: {LEAST_BYTES >> 20} MiB are needed")
    if getattr(status, "st_blocks", 0) * 512 < status.st_size * 9 // 10:
        raise ToolError(f"{path} has holes, which no disk is asked for")
    if not hasattr(os, "posix_fadvise"):
        raise ToolError("this system can't be told to forget a file; say the speed with fit --disk-speed")
    offsets = _offsets(status.st_size)
    rate = _read(path, offsets)
    if rate > MEMORY_BYTES_PER_S:
        raise ToolError(f"{path} came from memory, at {rate / 1e9:.0f} GB/s")
    return DiskRate(rate, len(offsets) * PIECE_BYTES, str(mount_of(path)))


def mount_of(path: Path) -> Path:
    """Return the highest folder that is on the same disk as `path`."""
    path = path.resolve()
    device = path.stat().st_dev
    same = path
    for folder in path.parents:
        if folder.stat().st_dev != device:
            break
        same = folder
    return same


def _offsets(size_bytes: int) -> list[int]:
    """Choose pieces all over the file, each once, in no order."""
    n = size_bytes // PIECE_BYTES
    return [i * PIECE_BYTES for i in random.Random(0).sample(range(n), min(n, N_PIECES))]


def _read(path: Path, offsets: Sequence[int]) -> float:
    """Return the bytes per second of reading the pieces with several threads, the page cache forgotten."""
    from concurrent.futures import ThreadPoolExecutor

    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        os.fsync(fd)  # only what is on the disk can be forgotten
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        begin = time.perf_counter()
        with ThreadPoolExecutor(N_THREADS) as pool:
            n_bytes = sum(pool.map(lambda offset: _piece(fd, offset), offsets))
        return n_bytes / (time.perf_counter() - begin)


def _piece(fd: int, offset: int) -> int:
    n_bytes = 0
    while n_bytes < PIECE_BYTES:
        data = os.pread(fd, PIECE_BYTES - n_bytes, offset + n_bytes)
        if not data:
            break
        n_bytes += len(data)
    return n_bytes
