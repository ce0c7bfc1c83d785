"""Reading a file once, for its digest and for what is suspicious about its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.journal import Range, joined
from ggufkit.transfer.marks import MARK_BYTES, digits_of

BUFFER_BYTES = 1 << 20
STEP_BYTES = 16 << 10
"""Zeros are looked for in aligned steps of this length."""
HOLE_BYTES = 64 << 10
"""Shorter runs of zeros are nothing unusual: padding, a bias."""
_ZEROS = bytes(STEP_BYTES)


@dataclass(frozen=True, slots=True)
class Scan:
    """What reading all bytes of a file told."""

    n_bytes: int
    """How many there were."""
    sha256: str
    """Their digest, bare hex."""
    zeros: tuple[Range, ...]
    """Runs of zeros of 64 KiB and more, as `(start, end)`, to 16 KiB."""
    marks: Mapping[int, str] = field(default_factory=dict)
    """What the digest was after each 16 MiB and at the end (see transfer/marks.py), by number of bytes."""


def scan_file(path: Path, progress: Progress = SILENT) -> Scan:
    """Read the whole file; advances `progress` by the bytes read."""
    sha256 = hashlib.sha256()
    zeros: list[Range] = []
    marks: dict[int, str] = {}
    buffer = memoryview(bytearray(BUFFER_BYTES))
    at = 0
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(buffer):
            data = buffer[:n_bytes]
            sha256.update(data)
            zeros += [(at + a, at + b) for a, b in _zero_steps(data)]
            at += n_bytes
            if at % MARK_BYTES == 0:
                marks[at] = digits_of(sha256.hexdigest())
            progress.advance(n_bytes)
    runs = tuple((a, b) for a, b in joined(zeros) if b - a >= HOLE_BYTES)
    marks[at] = digits_of(sha256.hexdigest())
    return Scan(at, sha256.hexdigest(), runs, marks)


def _zero_steps(data: memoryview) -> list[Range]:
    steps = range(0, len(data), STEP_BYTES)
    return [(a, min(a + STEP_BYTES, len(data))) for a in steps if _is_zero(data[a : a + STEP_BYTES])]


def _is_zero(data: memoryview) -> bool:
    return data == _ZEROS[: len(data)]


def data_ranges(path: Path) -> tuple[Range, ...]:
    """Return the ranges that the file system keeps data of: all but holes and what was only reserved.

    A file system that knows no holes answers with the whole file (lseek(2), SEEK_DATA).
    """
    size = path.stat().st_size
    if not hasattr(os, "SEEK_DATA"):
        return ((0, size),) if size else ()
    found, at = [], 0
    with path.open("rb", buffering=0) as file:
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            at = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), size)
            found.append((start, at))
    return tuple(found)


def without(n_bytes: int, gaps: tuple[Range, ...]) -> tuple[Range, ...]:
    """Return `[0, n_bytes)` without the gaps."""
    out, at = [], 0
    for start, end in joined(gaps):
        if start > at:
            out.append((at, min(start, n_bytes)))
        at = max(at, end)
    if at < n_bytes:
        out.append((at, n_bytes))
    return tuple(out)
