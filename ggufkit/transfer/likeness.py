"""Reading the headers of many quants of one model without fetching the same vocabulary for each.

A vocabulary is nearly all of a header (R1: 4.8 of 4.9 MB), and every quant has the same. The first header is
read whole. Of another one its start and its end are read; where both meet the vocabulary of the first, byte
for byte, what lies between is taken to be the same. What is wanted of such a header (tensors, numbers of the
architecture) lies outside; should the middle differ after all, only names of tokens would be wrong.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field
from typing import Protocol

from ggufkit.errors import FormatError
from ggufkit.gguf.header import ArraySpan, Header
from ggufkit.gguf.reader import MAX_HEADER_BYTES, MoreNeeded, read_header

FIRST_KEY = "tokenizer.ggml.tokens"
PREFIX = "tokenizer."
MANY = 1024  # elements of an array that is worth leaving out
START_BYTES, MEETING_BYTES = 64 << 10, 4 << 10


class Ranged(Protocol):
    """A file that can be read by range."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range."""

    def header(self) -> Header:
        """Return the header, read whole."""


@dataclass(slots=True)
class Likeness:
    """The header that others are like: the first one that is read. For any number of threads."""

    known: Header | None = None
    """That header."""
    _first: threading.Lock = field(default_factory=threading.Lock)

    def header(self, source: Ranged) -> Header:
        """Return the header of `source`; raises what its own `header` raises."""
        with self._first:
            if self.known is None:
                self.known = source.header()
                return self.known
        header = _read_like(source, self.known)
        return source.header() if header is None else header


def _read_like(source: Ranged, known: Header) -> Header | None:
    """Read a header but for the vocabulary of `known`; None when it has another, or none."""
    start, end = _vocabulary(known)
    data = source.read(0, min(START_BYTES, source.size_bytes))
    mine = data.find(struct.pack("<Q", len(FIRST_KEY)) + FIRST_KEY.encode())
    meeting = data[mine:]
    if end - start < 2 * START_BYTES or mine < 0 or len(meeting) < MEETING_BYTES:
        return None
    from_here = mine + end - start - MEETING_BYTES
    if not known.raw.startswith(meeting, start) or from_here > source.size_bytes - MEETING_BYTES:
        return None
    rest = len(known.raw) - end + MEETING_BYTES + START_BYTES
    tail = source.read(from_here, min(rest, source.size_bytes - from_here))
    if tail[:MEETING_BYTES] != known.raw[end - MEETING_BYTES : end]:
        return None
    data = data[:mine] + known.raw[start:end] + tail[MEETING_BYTES:]
    return _parsed(source, data, known)


def _parsed(source: Ranged, data: bytes, known: Header) -> Header | None:
    """Parse what was put together, and read on as long as it goes on; None when that makes no header."""
    size = source.size_bytes
    while True:
        try:
            return read_header(data, name=source.name, file_size_bytes=size, like=known)
        except MoreNeeded as more:
            n_bytes = min(max(more.n_bytes, len(data) + START_BYTES), size, MAX_HEADER_BYTES)
            data += source.read(len(data), n_bytes - len(data))
        except FormatError:
            return None  # what lies between may be to blame: read it whole, and say what is wrong then


def _vocabulary(known: Header) -> tuple[int, int]:
    """Return where the entries of the vocabulary start and end; (0, 0) when other entries lie between."""
    first = known.kv.get(FIRST_KEY)
    if first is None:
        return 0, 0
    entries = [kv for kv in known.kv.values() if kv.start >= first.start]
    large = [kv for kv in entries if isinstance(kv.value, ArraySpan) and kv.value.n_elements >= MANY]
    end = max((kv.end for kv in large if kv.key.startswith(PREFIX)), default=0)
    between = all(kv.key.startswith(PREFIX) for kv in entries if kv.end <= end)
    return (first.start, end) if between and end else (0, 0)
